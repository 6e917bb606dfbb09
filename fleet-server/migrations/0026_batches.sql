-- What devices bring up of their batches' predictions: asked for, on its way, here. The bytes lie in the blob store.
CREATE TABLE batch_results (
    tenant TEXT NOT NULL,
    device TEXT NOT NULL,
    name {ascii} NOT NULL,
    -- What was asked, as JSON.
    run TEXT NOT NULL,
    -- Of the model's name, by which room is counted.
    team TEXT NOT NULL,
    asked_by TEXT NOT NULL,
    asked_at BIGINT NOT NULL,
    -- The upload by which it comes, and what the device says of the whole; of what is here, what it is.
    upload TEXT,
    size_bytes BIGINT NOT NULL DEFAULT 0,
    digest TEXT,
    -- When it was here; none before.
    done_at BIGINT,
    delete_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, device, name),
    FOREIGN KEY (tenant, device) REFERENCES devices (tenant, id)
);
CREATE INDEX batch_results_by_name ON batch_results (tenant, name, device);
CREATE INDEX batch_results_by_team ON batch_results (tenant, team);
CREATE INDEX batch_results_by_digest ON batch_results (tenant, digest);
CREATE INDEX batch_results_by_end ON batch_results (tenant, delete_at);
-- Who has looked at which sample, or fetched which predictions: the audit log notes the first time alone.
CREATE TABLE looks (
    tenant TEXT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (tenant, actor, action, subject)
);
CREATE INDEX looks_by_age ON looks (tenant, at);
-- The newest list of what is kept for people to look at that a device says it goes by; 0 if it has said none.
ALTER TABLE devices ADD COLUMN capture_sequence BIGINT NOT NULL DEFAULT 0;
