-- By when they were started: a higher turn takes devices from a lower one.
ALTER TABLE rollouts ADD COLUMN turn BIGINT NOT NULL DEFAULT 0;
UPDATE rollouts SET turn = number;

-- What else was asked for: the budget, the tail, who wrote the draft.
ALTER TABLE rollouts ADD COLUMN policy TEXT NOT NULL DEFAULT '{}';

-- What was found when it was last looked over.
ALTER TABLE rollouts ADD COLUMN findings TEXT NOT NULL DEFAULT '[]';

-- What was foreseen when a rollout was started, and what came of it.
CREATE TABLE forecasts (
    tenant TEXT NOT NULL,
    rollout BIGINT NOT NULL,
    body TEXT NOT NULL,
    course TEXT NOT NULL DEFAULT '[]',
    PRIMARY KEY (tenant, rollout),
    FOREIGN KEY (tenant, rollout) REFERENCES rollouts (tenant, number)
);

-- When a device is connected, and how fast its downloads were: what later rollouts are foreseen by.
CREATE TABLE habits (
    tenant TEXT NOT NULL,
    device TEXT NOT NULL,
    known_since BIGINT NOT NULL,
    speed_bytes_s BIGINT NOT NULL DEFAULT 0,
    hours TEXT NOT NULL DEFAULT '[]',
    PRIMARY KEY (tenant, device),
    FOREIGN KEY (tenant, device) REFERENCES devices (tenant, id)
);
