-- Registry, trust and enrolment.

-- Which repositories a blob was pushed to; the bytes lie in the blob store under their digest.
CREATE TABLE repository_blobs (
    tenant TEXT NOT NULL,
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,
    size BIGINT NOT NULL,
    pushed_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, repository, digest)
);
CREATE INDEX repository_blobs_by_digest ON repository_blobs (tenant, digest);

CREATE TABLE manifests (
    tenant TEXT NOT NULL,
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size BIGINT NOT NULL,
    pushed_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, repository, digest)
);

CREATE TABLE tags (
    tenant TEXT NOT NULL,
    repository TEXT NOT NULL,
    tag TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (tenant, repository, tag),
    FOREIGN KEY (tenant, repository, digest) REFERENCES manifests (tenant, repository, digest)
);

-- Model images by name and version. `signed_at` is set while a publisher's metadata names the image.
CREATE TABLE versions (
    tenant TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    index_bytes BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    pushed_at BIGINT NOT NULL,
    pushed_by TEXT NOT NULL,
    signed_at BIGINT,
    signed_by TEXT NOT NULL DEFAULT '[]',
    epoch BIGINT NOT NULL DEFAULT 0,
    family TEXT NOT NULL,
    description TEXT NOT NULL,
    licenses TEXT NOT NULL,
    variants TEXT NOT NULL,
    contract TEXT NOT NULL,
    baseline TEXT,
    PRIMARY KEY (tenant, model, version)
);

-- The files of the TUF repository, by the names under which devices fetch them.
CREATE TABLE metadata (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    body {bytes} NOT NULL,
    PRIMARY KEY (tenant, name)
);

-- The version of the timestamp that the files belong to: whoever changes them compares and swaps it.
CREATE TABLE metadata_heads (
    tenant TEXT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (tenant)
);

-- Enrolment tokens, by the SHA-256 of their 128 random bits.
CREATE TABLE enrol_tokens (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    hash TEXT NOT NULL,
    labels TEXT NOT NULL,
    device TEXT,
    uses_left BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX enrol_tokens_by_hash ON enrol_tokens (tenant, hash);
