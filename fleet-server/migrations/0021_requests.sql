-- What devices are asked from afar, and what they said; for some minutes. Which of several servers hears an answer does not matter.
CREATE TABLE requests (
    tenant TEXT NOT NULL,
    -- The nonce, in hex.
    nonce TEXT NOT NULL,
    device TEXT NOT NULL,
    actor TEXT NOT NULL,
    -- The caller's own name for it; whoever asks twice by one name is asked once.
    idempotency TEXT,
    -- Digest of what was asked.
    fingerprint TEXT NOT NULL,
    asked_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    -- An input that is too long for a message, until it is answered.
    input {bytes},
    answered_at BIGINT,
    -- The answer as the device sent it.
    answer {bytes},
    PRIMARY KEY (tenant, nonce),
    FOREIGN KEY (tenant, device) REFERENCES devices (tenant, id)
);
CREATE UNIQUE INDEX requests_by_name ON requests (tenant, actor, idempotency);
CREATE INDEX requests_by_device ON requests (tenant, device, asked_at);
CREATE INDEX requests_by_age ON requests (tenant, asked_at);
