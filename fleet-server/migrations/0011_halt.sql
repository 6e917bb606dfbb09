-- The list of halted rollouts that devices obey, newest only: a row for each tenant that ever had one.
CREATE TABLE halts (
    tenant TEXT NOT NULL PRIMARY KEY,
    -- Rises with each list; 0 before the first.
    sequence BIGINT NOT NULL,
    body {bytes},
    signer TEXT NOT NULL DEFAULT '',
    -- Digests of the rollouts that it names, as JSON.
    campaigns TEXT NOT NULL DEFAULT '[]',
    published BIGINT NOT NULL DEFAULT 0,
    -- Since when, by whom and why all rollouts are stopped; without a time they are not.
    halted_at BIGINT,
    actor TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    -- The newest rollout at that time.
    newest BIGINT NOT NULL DEFAULT 0
);

-- The newest list that a device says it obeys.
ALTER TABLE devices ADD COLUMN halt_sequence BIGINT NOT NULL DEFAULT 0;

-- What each device has served, from when on the server heard of it; nothing where it served nothing.
CREATE TABLE served_images (
    tenant TEXT NOT NULL,
    device TEXT NOT NULL,
    model TEXT NOT NULL,
    since BIGINT NOT NULL,
    version TEXT,
    digest TEXT,
    PRIMARY KEY (tenant, device, model, since),
    FOREIGN KEY (tenant, device) REFERENCES devices (tenant, id)
);
-- What is known of before: each device serves what it serves since it last said so.
INSERT INTO served_images (tenant, device, model, since, version, digest)
    SELECT tenant, device, model, reported_at, serving_version, serving_digest FROM slots;

-- Devices that were chosen one by one, or by what they ran: `set:NUMBER` in a filter.
CREATE TABLE device_sets (
    tenant TEXT NOT NULL,
    number BIGINT NOT NULL,
    device TEXT NOT NULL,
    PRIMARY KEY (tenant, number, device),
    FOREIGN KEY (tenant, device) REFERENCES devices (tenant, id)
);
