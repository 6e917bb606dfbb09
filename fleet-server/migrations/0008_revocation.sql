-- Revocations, and what ties the directives of one rollout together.

-- What is on the deny list, and why: for people. What counts is the list that its holders signed.
CREATE TABLE revocations (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (tenant, kind, subject)
);

-- Manifests of a version's variants: the deny list may name any of them.
ALTER TABLE versions ADD COLUMN manifests TEXT NOT NULL DEFAULT '[]';

-- Digest over everything that a rollout was asked for with, and an operator's signature under it, in base64.
ALTER TABLE rollouts ADD COLUMN campaign TEXT NOT NULL DEFAULT '';
ALTER TABLE rollouts ADD COLUMN cosignature TEXT NOT NULL DEFAULT '';

-- What the device was to run before: what it fetches where the image is revoked and nothing to go back to is on its disk.
ALTER TABLE desired ADD COLUMN fallback_version TEXT;
ALTER TABLE desired ADD COLUMN fallback_digest TEXT;
