-- The audit log as a Merkle tree: each row of `audit` is a leaf, and `hash` its leaf hash. Rows of before are taken over by the first
-- row that is written after this step.

-- The right edge of each tenant's tree. Whoever appends locks it: several servers on one database cannot fork the log.
CREATE TABLE audit_heads (
    tenant TEXT NOT NULL,
    size BIGINT NOT NULL,
    peaks TEXT NOT NULL,
    PRIMARY KEY (tenant)
);

-- Roots of complete subtrees of 1,024 rows, so that a proof need not read all of them.
CREATE TABLE audit_tiles (
    tenant TEXT NOT NULL,
    number BIGINT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (tenant, number)
);

-- Signed notes over the tree as it was at some sizes.
CREATE TABLE audit_checkpoints (
    tenant TEXT NOT NULL,
    size BIGINT NOT NULL,
    at BIGINT NOT NULL,
    note TEXT NOT NULL,
    PRIMARY KEY (tenant, size)
);

-- Directives are by far the most rows: people list the others, and look directives up by device.
CREATE INDEX audit_deeds ON audit (tenant, sequence) WHERE action <> 'directive';
CREATE INDEX audit_by_actor ON audit (tenant, actor, sequence) WHERE action <> 'directive';
CREATE INDEX audit_by_action ON audit (tenant, action, sequence) WHERE action <> 'directive';
CREATE INDEX audit_by_subject ON audit (tenant, subject, sequence);

DELETE FROM counters WHERE name = 'audit';

-- What each device trusts and has followed, as it reported it: more than this database knows means that an old copy of it was restored.
ALTER TABLE devices ADD COLUMN trusted TEXT;
