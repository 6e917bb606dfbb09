-- When a device took an image back although the rollout that brought it was over.
ALTER TABLE told ADD COLUMN late_at BIGINT;
CREATE INDEX told_late ON told (tenant, rollout) WHERE late_at IS NOT NULL;
-- How many did, since when, which was the newest, and what it said.
ALTER TABLE rollouts ADD COLUMN late BIGINT NOT NULL DEFAULT 0;
ALTER TABLE rollouts ADD COLUMN late_since BIGINT;
ALTER TABLE rollouts ADD COLUMN late_device TEXT NOT NULL DEFAULT '';
ALTER TABLE rollouts ADD COLUMN late_why TEXT NOT NULL DEFAULT '';
