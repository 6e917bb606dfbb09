-- A store that was restored from a backup is behind its devices.

-- Versions of the trust metadata that a device has followed, of its newest report: in columns to compare, the rest in `trusted`.
ALTER TABLE devices ADD COLUMN trusted_timestamp BIGINT NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN trusted_snapshot BIGINT NOT NULL DEFAULT 0;

-- Since when it is waited for the device's first report after a recovery, which may tell of more than the store knows.
ALTER TABLE devices ADD COLUMN awaited_since BIGINT;

-- When the store was brought ahead of its devices, and from when on it had lost what happened.
CREATE TABLE recoveries (
    tenant TEXT NOT NULL,
    at BIGINT NOT NULL,
    lost_from BIGINT NOT NULL,
    PRIMARY KEY (tenant, at)
);
