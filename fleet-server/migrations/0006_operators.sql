-- People with accounts. A password is an argon2id PHC string; a provider's people have a subject and no password.
CREATE TABLE operators (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    scope TEXT NOT NULL,
    method TEXT NOT NULL,
    subject TEXT,
    password TEXT,
    -- Base32, as the authenticator has it; and the last time step whose code was used, so that none is used twice.
    totp_key TEXT,
    totp_step BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    disabled_at BIGINT,
    seen_at BIGINT,
    PRIMARY KEY (tenant, name)
);
CREATE UNIQUE INDEX operators_by_subject ON operators (tenant, subject);

CREATE TABLE recovery_codes (
    tenant TEXT NOT NULL,
    operator TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (tenant, operator, hash),
    FOREIGN KEY (tenant, operator) REFERENCES operators (tenant, name) ON DELETE CASCADE
);

-- One operator may hold several tokens now. Those made before may do what they could: they were made on the server itself.
DROP INDEX api_tokens_by_operator;
ALTER TABLE api_tokens ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE api_tokens ADD COLUMN scope TEXT NOT NULL DEFAULT '';
ALTER TABLE api_tokens ADD COLUMN step_up BIGINT NOT NULL DEFAULT 1;
ALTER TABLE api_tokens ADD COLUMN stepped_up_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE api_tokens ADD COLUMN created_by TEXT NOT NULL DEFAULT 'server';
ALTER TABLE api_tokens ADD COLUMN expires_at BIGINT;
-- Whether `operator` is an account: the token ends with it.
ALTER TABLE api_tokens ADD COLUMN is_account BIGINT NOT NULL DEFAULT 0;
CREATE INDEX api_tokens_by_operator ON api_tokens (tenant, operator);

ALTER TABLE sessions ADD COLUMN scope TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN method TEXT NOT NULL DEFAULT 'link';
ALTER TABLE sessions ADD COLUMN stepped_up_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN is_account BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN browser TEXT NOT NULL DEFAULT '';
CREATE INDEX sessions_by_operator ON sessions (tenant, operator);

ALTER TABLE login_codes ADD COLUMN scope TEXT NOT NULL DEFAULT '';

-- Logins that are on their way through the provider. `hash` is of the state, or of the handle that `fleetctl` asks with.
CREATE TABLE oidc_logins (
    tenant TEXT NOT NULL,
    hash TEXT NOT NULL,
    browser TEXT NOT NULL,
    nonce TEXT NOT NULL,
    secret TEXT NOT NULL,
    wish TEXT NOT NULL,
    due_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, hash)
);

-- The first wave, from 0, that waits for somebody else's approval; none if nothing does.
ALTER TABLE rollouts ADD COLUMN held_from BIGINT;
ALTER TABLE rollouts ADD COLUMN approved_by TEXT;
