-- Of what nobody wants to hear for a while. Kept after their end, for they say why nobody was told.
CREATE TABLE silences (
    tenant TEXT NOT NULL,
    number BIGINT NOT NULL,
    matchers TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    until_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, number)
);
CREATE INDEX silences_by_end ON silences (tenant, until_at);

-- What an operator has changed about kinds of alerts.
CREATE TABLE alert_kinds (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (tenant, kind)
);

-- Rules of one's own. `since` is since when one holds.
CREATE TABLE alert_rules (
    tenant TEXT NOT NULL,
    number BIGINT NOT NULL,
    name TEXT NOT NULL,
    body TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    since BIGINT,
    PRIMARY KEY (tenant, number)
);
CREATE UNIQUE INDEX alert_rules_by_name ON alert_rules (tenant, name);
