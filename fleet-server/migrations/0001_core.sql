-- Shared by SQLite and PostgreSQL. Two words differ and are put in when a migration runs: {bytes} and {serial}.
-- Times are milliseconds since 1970 UTC. Every table begins with its tenant.

CREATE TABLE counters (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    value BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);

CREATE TABLE devices (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    enrolled_at BIGINT NOT NULL,
    certificate_serial TEXT NOT NULL,
    certificate_expires_at BIGINT NOT NULL,
    revoked_at BIGINT,
    online BIGINT NOT NULL DEFAULT 0,
    online_since BIGINT NOT NULL DEFAULT 0,
    epoch BIGINT NOT NULL DEFAULT 0,
    seen_at BIGINT,
    agent TEXT,
    facts TEXT,
    simulated BIGINT NOT NULL DEFAULT 0,
    endpoint TEXT,
    trouble TEXT,
    generation BIGINT NOT NULL DEFAULT 0,
    reported_generation BIGINT NOT NULL DEFAULT 0,
    reported_spool BIGINT,
    reported_sequence BIGINT NOT NULL DEFAULT 0,
    refused_generation BIGINT,
    refused_code TEXT,
    refused_reason TEXT,
    PRIMARY KEY (tenant, id)
);

CREATE TABLE labels (
    tenant TEXT NOT NULL,
    device TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (tenant, device, name),
    FOREIGN KEY (tenant, device) REFERENCES devices (tenant, id)
);
CREATE INDEX labels_by_value ON labels (tenant, name, value);

CREATE TABLE beats (
    tenant TEXT NOT NULL,
    device TEXT NOT NULL,
    at BIGINT NOT NULL,
    requests BIGINT NOT NULL,
    errors BIGINT NOT NULL,
    requests_per_s DOUBLE PRECISION NOT NULL,
    body {bytes} NOT NULL,
    PRIMARY KEY (tenant, device),
    FOREIGN KEY (tenant, device) REFERENCES devices (tenant, id)
);

-- What a device says of each model. `body` is the report as it came; the columns are what queries ask for.
CREATE TABLE slots (
    tenant TEXT NOT NULL,
    device TEXT NOT NULL,
    model TEXT NOT NULL,
    generation BIGINT NOT NULL,
    phase TEXT NOT NULL,
    serving_version TEXT,
    serving_digest TEXT,
    previous_version TEXT,
    previous_digest TEXT,
    reported_at BIGINT NOT NULL,
    body {bytes} NOT NULL,
    PRIMARY KEY (tenant, device, model),
    FOREIGN KEY (tenant, device) REFERENCES devices (tenant, id)
);
CREATE INDEX slots_by_version ON slots (tenant, model, serving_version);

-- What a device should run.
CREATE TABLE desired (
    tenant TEXT NOT NULL,
    device TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    trial TEXT NOT NULL,
    rollout BIGINT NOT NULL,
    since BIGINT NOT NULL,
    PRIMARY KEY (tenant, device, model),
    FOREIGN KEY (tenant, device) REFERENCES devices (tenant, id)
);
CREATE INDEX desired_by_rollout ON desired (tenant, rollout);

-- The newest directive of each device. `published` is 0 until the broker has it.
CREATE TABLE directives (
    tenant TEXT NOT NULL,
    device TEXT NOT NULL,
    generation BIGINT NOT NULL,
    issued_at BIGINT NOT NULL,
    published BIGINT NOT NULL DEFAULT 0,
    body {bytes} NOT NULL,
    PRIMARY KEY (tenant, device),
    FOREIGN KEY (tenant, device) REFERENCES devices (tenant, id)
);
CREATE INDEX directives_unpublished ON directives (tenant, published, device);

CREATE TABLE spools (
    tenant TEXT NOT NULL,
    device TEXT NOT NULL,
    spool BIGINT NOT NULL,
    acknowledged BIGINT NOT NULL,
    used_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, device, spool),
    FOREIGN KEY (tenant, device) REFERENCES devices (tenant, id)
);

-- Messages beyond a gap: stored, not yet covered by the acknowledgement.
CREATE TABLE spool_ahead (
    tenant TEXT NOT NULL,
    device TEXT NOT NULL,
    spool BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    PRIMARY KEY (tenant, device, spool, sequence),
    FOREIGN KEY (tenant, device, spool) REFERENCES spools (tenant, device, spool) ON DELETE CASCADE
);

CREATE TABLE timeline (
    number {serial},
    tenant TEXT NOT NULL,
    device TEXT NOT NULL,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    severity TEXT NOT NULL,
    code TEXT NOT NULL,
    text TEXT NOT NULL,
    model TEXT,
    FOREIGN KEY (tenant, device) REFERENCES devices (tenant, id)
);
CREATE INDEX timeline_by_device ON timeline (tenant, device, number);
CREATE INDEX timeline_by_time ON timeline (tenant, at);

CREATE TABLE rollouts (
    tenant TEXT NOT NULL,
    number BIGINT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    filter TEXT NOT NULL,
    trial TEXT NOT NULL,
    state TEXT NOT NULL,
    since BIGINT NOT NULL,
    waves TEXT NOT NULL,
    progress TEXT NOT NULL,
    why TEXT NOT NULL,
    is_rollback BIGINT NOT NULL,
    reason TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    finished_at BIGINT,
    revision BIGINT NOT NULL DEFAULT 1,
    PRIMARY KEY (tenant, number)
);
CREATE INDEX rollouts_by_state ON rollouts (tenant, finished_at, number);
CREATE INDEX rollouts_by_model ON rollouts (tenant, model, number);

-- Devices that a rollout has told: in which wave, by which directive, and what they were told before.
CREATE TABLE told (
    tenant TEXT NOT NULL,
    rollout BIGINT NOT NULL,
    device TEXT NOT NULL,
    wave BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    at BIGINT NOT NULL,
    requests BIGINT NOT NULL,
    errors BIGINT NOT NULL,
    excused BIGINT NOT NULL DEFAULT 0,
    before TEXT,
    PRIMARY KEY (tenant, rollout, device),
    FOREIGN KEY (tenant, rollout) REFERENCES rollouts (tenant, number),
    FOREIGN KEY (tenant, device) REFERENCES devices (tenant, id)
);

-- A device that ended badly with an image is not offered it again until someone says so.
CREATE TABLE penalties (
    tenant TEXT NOT NULL,
    device TEXT NOT NULL,
    digest TEXT NOT NULL,
    code TEXT NOT NULL,
    reason TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (tenant, device, digest),
    FOREIGN KEY (tenant, device) REFERENCES devices (tenant, id)
);

CREATE TABLE quarantine (
    tenant TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (tenant, model, version)
);

-- Profile windows as they came.
CREATE TABLE profile_windows (
    number {serial},
    tenant TEXT NOT NULL,
    device TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    from_at BIGINT NOT NULL,
    until_at BIGINT NOT NULL,
    errors BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    body {bytes} NOT NULL,
    UNIQUE (tenant, device, model, digest, from_at, until_at),
    FOREIGN KEY (tenant, device) REFERENCES devices (tenant, id)
);
CREATE INDEX profile_windows_by_model ON profile_windows (tenant, model, number);
CREATE INDEX profile_windows_by_time ON profile_windows (tenant, received_at);

CREATE TABLE alerts (
    tenant TEXT NOT NULL,
    number BIGINT NOT NULL,
    subject TEXT NOT NULL,
    state TEXT NOT NULL,
    severity TEXT NOT NULL,
    kind TEXT NOT NULL,
    title TEXT NOT NULL,
    detail TEXT NOT NULL,
    help TEXT NOT NULL,
    labels TEXT NOT NULL,
    opened_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    told_at BIGINT NOT NULL,
    closed_at BIGINT,
    acknowledged_by TEXT,
    note TEXT,
    PRIMARY KEY (tenant, number)
);
-- At most one alert about a subject that is not closed.
CREATE UNIQUE INDEX alerts_live ON alerts (tenant, subject) WHERE closed_at IS NULL;
CREATE INDEX alerts_by_state ON alerts (tenant, state, number);

CREATE TABLE webhooks (
    tenant TEXT NOT NULL,
    number BIGINT NOT NULL,
    url TEXT NOT NULL,
    secret TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_delivery TEXT,
    PRIMARY KEY (tenant, number)
);

CREATE TABLE webhook_deliveries (
    number {serial},
    tenant TEXT NOT NULL,
    webhook BIGINT NOT NULL,
    body TEXT NOT NULL,
    message TEXT NOT NULL,
    attempt BIGINT NOT NULL DEFAULT 0,
    due_at BIGINT NOT NULL,
    FOREIGN KEY (tenant, webhook) REFERENCES webhooks (tenant, number) ON DELETE CASCADE
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (tenant, due_at);

-- Secrets of operators are kept as SHA-256 of at least 128 random bits: there is nothing to guess.
CREATE TABLE api_tokens (
    tenant TEXT NOT NULL,
    hash TEXT NOT NULL,
    operator TEXT NOT NULL,
    role TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    used_at BIGINT,
    PRIMARY KEY (tenant, hash)
);
CREATE UNIQUE INDEX api_tokens_by_operator ON api_tokens (tenant, operator);

CREATE TABLE login_codes (
    tenant TEXT NOT NULL,
    hash TEXT NOT NULL,
    operator TEXT NOT NULL,
    role TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, hash)
);

CREATE TABLE sessions (
    tenant TEXT NOT NULL,
    hash TEXT NOT NULL,
    operator TEXT NOT NULL,
    role TEXT NOT NULL,
    csrf TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    used_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, hash)
);

-- Append-only. `hash` covers the row and the hash of the row before.
CREATE TABLE audit (
    tenant TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    reason TEXT,
    detail TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (tenant, sequence)
);
