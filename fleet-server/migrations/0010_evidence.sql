-- What is kept of a rollout between two looks at its devices: evidence by wave, and up to where telemetry was read.
CREATE TABLE evidence (
    tenant TEXT NOT NULL,
    rollout BIGINT NOT NULL,
    body {bytes} NOT NULL,
    PRIMARY KEY (tenant, rollout),
    FOREIGN KEY (tenant, rollout) REFERENCES rollouts (tenant, number)
);

-- Before it nobody is told.
ALTER TABLE rollouts ADD COLUMN start_at BIGINT;
