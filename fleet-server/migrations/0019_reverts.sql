-- What takes a rollout back, and how far that is.
ALTER TABLE rollouts ADD COLUMN revert TEXT NOT NULL DEFAULT '{}';
