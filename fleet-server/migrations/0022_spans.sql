-- What was seen in an hour or a day, in a scope: `fleet`, `site=osaka`, `device:cam-1`. `scopes` says of a device's span in which others it is counted, as a list in JSON.
CREATE TABLE profile_spans (
    tenant TEXT NOT NULL,
    scope TEXT NOT NULL,
    model TEXT NOT NULL,
    digest TEXT NOT NULL,
    length TEXT NOT NULL,
    from_at BIGINT NOT NULL,
    version TEXT NOT NULL,
    windows BIGINT NOT NULL,
    errors BIGINT NOT NULL,
    scopes TEXT NOT NULL,
    body {bytes} NOT NULL,
    PRIMARY KEY (tenant, scope, model, digest, length, from_at)
);
CREATE INDEX profile_spans_by_time ON profile_spans (tenant, length, from_at);
