-- What devices keep of which model for people to look at; a row stays when it is switched off.
CREATE TABLE capture_policies (
    tenant TEXT NOT NULL,
    model TEXT NOT NULL,
    is_on BIGINT NOT NULL,
    -- The rules, as JSON.
    rules TEXT NOT NULL,
    changed_by TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    -- Samples that devices have chosen and lost.
    lost BIGINT NOT NULL DEFAULT 0,
    -- When training was asked for last, and for which version.
    retraining_at BIGINT,
    retraining_version TEXT,
    PRIMARY KEY (tenant, model)
);
-- The list that devices go by: one row for a tenant, which is also the lock between those who change it.
CREATE TABLE capture_lists (
    tenant TEXT NOT NULL PRIMARY KEY,
    sequence BIGINT NOT NULL,
    body {bytes},
    signer TEXT NOT NULL DEFAULT '',
    signed_at BIGINT NOT NULL DEFAULT 0,
    published BIGINT NOT NULL DEFAULT 0
);
-- To whom devices encrypt; the private halves are sealed with the server's key of secrets.
CREATE TABLE capture_keys (
    tenant TEXT NOT NULL,
    number BIGINT NOT NULL,
    public {bytes} NOT NULL,
    private TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, number)
);
-- Predictions that devices have kept. What went in and came out is in the body alone, encrypted as it came.
CREATE TABLE samples (
    tenant TEXT NOT NULL,
    id {ascii} NOT NULL,
    device TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    inference TEXT NOT NULL,
    at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    delete_at BIGINT NOT NULL,
    prediction TEXT,
    -- Millionths.
    confidence BIGINT,
    -- As a list in JSON.
    why TEXT NOT NULL,
    -- The chance with which it was kept, in thousand-millionths.
    chance BIGINT NOT NULL,
    -- The chance with which it was drawn to be labelled, in thousand-millionths; 0 if it was not.
    audit BIGINT NOT NULL,
    lost BIGINT NOT NULL,
    body {bytes} NOT NULL,
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, device) REFERENCES devices (tenant, id)
);
CREATE INDEX samples_by_model ON samples (tenant, model, at);
CREATE INDEX samples_by_inference ON samples (tenant, inference);
CREATE INDEX samples_by_device ON samples (tenant, device);
CREATE INDEX samples_by_end ON samples (tenant, delete_at);
-- Parts of samples that are on their way.
CREATE TABLE sample_parts (
    tenant TEXT NOT NULL,
    device TEXT NOT NULL,
    sample TEXT NOT NULL,
    from_byte BIGINT NOT NULL,
    until_byte BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    body {bytes} NOT NULL,
    PRIMARY KEY (tenant, device, sample, from_byte),
    FOREIGN KEY (tenant, device) REFERENCES devices (tenant, id)
);
CREATE INDEX sample_parts_by_age ON sample_parts (tenant, received_at);
-- What people and systems say that predictions should have been: of a sample, or of whatever an application has called by a name.
CREATE TABLE sample_labels (
    tenant TEXT NOT NULL,
    inference TEXT NOT NULL,
    -- The sample; empty where only the inference was named.
    sample TEXT NOT NULL,
    labeller TEXT NOT NULL,
    source TEXT NOT NULL,
    label TEXT NOT NULL,
    at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, inference, sample, labeller, source)
);
CREATE INDEX sample_labels_by_age ON sample_labels (tenant, received_at);
