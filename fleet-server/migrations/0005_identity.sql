-- Device identity: renewal, revocation, and the other ways to enrol.

-- A certificate that was issued and not used yet: its first use makes it the device's only one.
ALTER TABLE devices ADD COLUMN next_serial TEXT;
ALTER TABLE devices ADD COLUMN next_expires_at BIGINT;
ALTER TABLE devices ADD COLUMN revoked_reason TEXT;
CREATE INDEX devices_by_revocation ON devices (tenant, revoked_at);

-- Every certificate that was issued. `ended_at` is when it stopped being good before its time: what a revocation list names.
CREATE TABLE certificates (
    tenant TEXT NOT NULL,
    device TEXT NOT NULL,
    serial TEXT NOT NULL,
    issued_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    ended_at BIGINT,
    PRIMARY KEY (tenant, device, serial),
    FOREIGN KEY (tenant, device) REFERENCES devices (tenant, id)
);
CREATE INDEX certificates_by_expiry ON certificates (tenant, expires_at);
INSERT INTO certificates (tenant, device, serial, issued_at, expires_at, ended_at)
    SELECT tenant, id, certificate_serial, enrolled_at, certificate_expires_at, revoked_at FROM devices;

-- Claims: what a batch of devices carries from the factory. The private key never was on the server.
CREATE TABLE enrol_claims (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    batch TEXT NOT NULL,
    labels TEXT NOT NULL,
    certificate_serial TEXT NOT NULL,
    places BIGINT NOT NULL,
    places_left BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    revoked_at BIGINT,
    PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX enrol_claims_by_serial ON enrol_claims (tenant, certificate_serial);

-- Devices that asked by a claim. `key` is the SHA-256 of the device's own public key: who asks again is known by it.
CREATE TABLE enrol_requests (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    claim TEXT NOT NULL,
    key TEXT NOT NULL,
    device TEXT NOT NULL,
    serial TEXT,
    address TEXT NOT NULL,
    labels TEXT NOT NULL,
    state TEXT NOT NULL,
    asked_at BIGINT NOT NULL,
    decided_at BIGINT,
    decided_by TEXT,
    reason TEXT,
    certificate TEXT,
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, claim) REFERENCES enrol_claims (tenant, id)
);
CREATE UNIQUE INDEX enrol_requests_by_key ON enrol_requests (tenant, claim, key);
CREATE INDEX enrol_requests_by_state ON enrol_requests (tenant, state, asked_at);

-- Serial numbers registered beforehand; each lets one device in.
CREATE TABLE enrol_serials (
    tenant TEXT NOT NULL,
    serial TEXT NOT NULL,
    batch TEXT,
    device TEXT,
    labels TEXT NOT NULL,
    used_at BIGINT,
    used_by TEXT,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, serial)
);
