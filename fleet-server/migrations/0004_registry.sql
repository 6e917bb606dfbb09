-- The registry by the OCI distribution specification: what manifests name, uploads that survive a restart, and what may be cleaned up.

-- What the registry has read in a manifest. `described` is 0 for those that were pushed before it read them.
ALTER TABLE manifests ADD COLUMN described BIGINT NOT NULL DEFAULT 0;
ALTER TABLE manifests ADD COLUMN artifact_type TEXT;
ALTER TABLE manifests ADD COLUMN subject TEXT;
ALTER TABLE manifests ADD COLUMN annotations TEXT NOT NULL DEFAULT '{}';
CREATE INDEX manifests_by_subject ON manifests (tenant, repository, subject, digest);
CREATE INDEX manifests_by_digest ON manifests (tenant, digest);
CREATE INDEX manifests_undescribed ON manifests (tenant, described);

-- Blobs and manifests that a manifest names.
CREATE TABLE manifest_links (
    tenant TEXT NOT NULL,
    repository TEXT NOT NULL,
    manifest TEXT NOT NULL,
    target TEXT NOT NULL,
    PRIMARY KEY (tenant, repository, manifest, target),
    FOREIGN KEY (tenant, repository, manifest)
        REFERENCES manifests (tenant, repository, digest) ON DELETE CASCADE
);
CREATE INDEX manifest_links_by_target ON manifest_links (tenant, repository, target);

CREATE INDEX repository_blobs_by_time ON repository_blobs (tenant, pushed_at);

-- Tags again, in the order of their bytes.
ALTER TABLE tags RENAME TO tags_before;
CREATE TABLE tags (
    tenant TEXT NOT NULL,
    repository TEXT NOT NULL,
    tag {ascii} NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (tenant, repository, tag),
    FOREIGN KEY (tenant, repository, digest) REFERENCES manifests (tenant, repository, digest)
);
INSERT INTO tags (tenant, repository, tag, digest)
    SELECT tenant, repository, tag, digest FROM tags_before;
DROP TABLE tags_before;
CREATE INDEX tags_by_digest ON tags (tenant, repository, digest);

-- Uploads under way. The bytes lie in the blob store, in parts, under the upload's id.
CREATE TABLE uploads (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    repository TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    parts BIGINT NOT NULL,
    begun_by TEXT NOT NULL,
    touched_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX uploads_by_time ON uploads (tenant, touched_at);

CREATE TABLE upload_parts (
    tenant TEXT NOT NULL,
    upload TEXT NOT NULL,
    start BIGINT NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (tenant, upload, start),
    FOREIGN KEY (tenant, upload) REFERENCES uploads (tenant, id) ON DELETE CASCADE
);

-- Content that may lie in the blob store although nothing names it: just being pushed, or named no more.
CREATE TABLE loose_content (
    tenant TEXT NOT NULL,
    digest TEXT NOT NULL,
    since BIGINT NOT NULL,
    PRIMARY KEY (tenant, digest)
);
CREATE INDEX loose_content_by_time ON loose_content (tenant, since);
