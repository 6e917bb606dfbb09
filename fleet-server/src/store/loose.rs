//! What may be cleaned up in the registry, and what may not.
//!
//! ```text
//!                 hold                    add_blob, add_manifest
//! nothing ──────────────────▶ loose ──────────────────────────▶ named
//!    ▲   before bytes come      │  ▲                              │
//!    └──────────────────────────┘  └──────────────────────────────┘
//!       long after: bytes go         removed from the last place
//! ```
//!
//! Whoever pushes writes the loose row first and the bytes then; whoever cleans up deletes the loose row, and holds its lock until the
//! bytes are gone. So bytes that were just written are never taken away.

use sealift_protocol::id::{UnixMillis, Version};

use super::{Change, StoreError, TenantStore, parsed};
use crate::content::ContentDigest;
use crate::registry::name::Repository;

/// Whether version `v` of repository `$2` needs content `$3`: as its index, as a manifest in it, or as a blob of one.
macro_rules! needs {
    () => {
        "v.tenant = $1 AND v.model = $2 AND (v.digest = $3
             OR EXISTS (SELECT 1 FROM manifest_links a WHERE a.tenant = v.tenant
                 AND a.repository = v.model AND a.manifest = v.digest AND a.target = $3)
             OR EXISTS (SELECT 1 FROM manifest_links a JOIN manifest_links b
                 ON b.tenant = a.tenant AND b.repository = a.repository AND b.manifest = a.target
                 WHERE a.tenant = v.tenant AND a.repository = v.model
                 AND a.manifest = v.digest AND b.target = $3))"
    };
}

/// What is cleaned up in one go.
const BATCH_MAX: i64 = 500;

/// A version that keeps content from being removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InUse {
    /// Which.
    pub(crate) version: Version,
    /// Whether its publisher's signature is what keeps it; otherwise devices or a rollout do.
    pub(crate) is_signed: bool,
}

impl TenantStore {
    /// Manifests whose contents are not known yet.
    pub(crate) async fn undescribed(&self) -> Result<Vec<(Repository, ContentDigest)>, StoreError> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT repository, digest FROM manifests WHERE tenant = $1 AND described = 0
             ORDER BY repository, digest LIMIT $2",
        )
        .bind(self.id().to_owned())
        .bind(BATCH_MAX)
        .fetch_all(self.readers())
        .await?;
        let manifest = |(repository, digest): (String, String)| {
            Ok((parsed("repository", &repository)?, parsed("digest", &digest)?))
        };
        rows.into_iter().map(manifest).collect()
    }

    /// Content that has been loose since before `before`.
    pub(crate) async fn loose(&self, before: UnixMillis) -> Result<Vec<ContentDigest>, StoreError> {
        let rows: Vec<String> = sqlx::query_scalar(
            "SELECT digest FROM loose_content WHERE tenant = $1 AND since < $2
             ORDER BY since LIMIT $3",
        )
        .bind(self.id().to_owned())
        .bind(before.0)
        .bind(BATCH_MAX)
        .fetch_all(self.readers())
        .await?;
        rows.iter().map(|digest| parsed("digest", digest)).collect()
    }
}

impl Change {
    /// Announces that bytes are about to be written.
    pub(crate) async fn hold(
        &mut self,
        digest: ContentDigest,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.run(
            "INSERT INTO loose_content (tenant, digest, since) VALUES ($1, $2, $3)
             ON CONFLICT (tenant, digest) DO UPDATE SET since = excluded.since",
            |it| it.bind(digest.to_string()).bind(now.0),
        )
        .await?;
        Ok(())
    }

    /// Something names the content now.
    pub(super) async fn fasten(&mut self, digest: ContentDigest) -> Result<(), StoreError> {
        self.run("DELETE FROM loose_content WHERE tenant = $1 AND digest = $2", |it| {
            it.bind(digest.to_string())
        })
        .await?;
        Ok(())
    }

    /// The content may have lost the last that named it.
    pub(super) async fn loosen(
        &mut self,
        digest: ContentDigest,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        if self.is_named(digest).await? {
            return Ok(());
        }
        self.hold(digest, now).await
    }

    async fn is_named(&mut self, digest: ContentDigest) -> Result<bool, StoreError> {
        let named: Option<i64> = sqlx::query_scalar(
            "SELECT 1 FROM repository_blobs WHERE tenant = $1 AND digest = $2
             UNION SELECT 1 FROM manifests WHERE tenant = $1 AND digest = $2
             UNION SELECT 1 FROM batch_results WHERE tenant = $1 AND digest = $2
                 AND done_at IS NOT NULL",
        )
        .bind(self.tenant().as_str().to_owned())
        .bind(digest.to_string())
        .fetch_optional(self.connection())
        .await?;
        Ok(named.is_some())
    }

    /// Takes blobs out of repositories where no manifest names them and nobody has pushed or asked for them since `before`. Returns how
    /// many; the limit of one go may leave more.
    pub(crate) async fn drop_unreferenced(
        &mut self,
        before: UnixMillis,
        now: UnixMillis,
    ) -> Result<u64, StoreError> {
        // The time is asked for twice: PostgreSQL looks again at rows that it had to wait for, but not at what a subquery found.
        let digests: Vec<String> = sqlx::query_scalar(
            "DELETE FROM repository_blobs WHERE tenant = $1 AND pushed_at < $2
             AND (repository, digest) IN (
                 SELECT b.repository, b.digest FROM repository_blobs b
                 WHERE b.tenant = $1 AND b.pushed_at < $2 AND NOT EXISTS (
                     SELECT 1 FROM manifest_links l WHERE l.tenant = b.tenant
                     AND l.repository = b.repository AND l.target = b.digest)
                 ORDER BY b.pushed_at LIMIT $3)
             RETURNING digest",
        )
        .bind(self.tenant().as_str().to_owned())
        .bind(before.0)
        .bind(BATCH_MAX)
        .fetch_all(self.connection())
        .await?;
        for digest in &digests {
            self.loosen(parsed("digest", digest)?, now).await?;
        }
        Ok(u64::try_from(digests.len()).unwrap_or(u64::MAX))
    }

    /// Whether the bytes of loose content may go now. Until the end of the change nobody can write them anew.
    pub(crate) async fn take_loose(
        &mut self,
        digest: ContentDigest,
        before: UnixMillis,
    ) -> Result<bool, StoreError> {
        let taken = self
            .run(
                "DELETE FROM loose_content WHERE tenant = $1 AND digest = $2 AND since < $3",
                |it| it.bind(digest.to_string()).bind(before.0),
            )
            .await?;
        Ok(taken == 1 && !self.is_named(digest).await?)
    }

    /// The version, if there is one, that needs this manifest or blob: it is signed, or a device runs it, should run it or could go back to
    /// it, or an open rollout is about it.
    pub(crate) async fn in_use(
        &mut self,
        repository: &Repository,
        digest: ContentDigest,
    ) -> Result<Option<InUse>, StoreError> {
        let row: Option<(String, Option<i64>)> = sqlx::query_as(concat!(
            "SELECT v.version, v.signed_at FROM versions v WHERE ",
            needs!(),
            " AND (v.signed_at IS NOT NULL
                 OR EXISTS (SELECT 1 FROM desired w WHERE w.tenant = v.tenant
                     AND w.model = v.model AND w.digest = v.digest)
                 OR EXISTS (SELECT 1 FROM slots s WHERE s.tenant = v.tenant
                     AND s.model = v.model
                     AND (s.serving_digest = v.digest OR s.previous_digest = v.digest))
                 OR EXISTS (SELECT 1 FROM rollouts r WHERE r.tenant = v.tenant
                     AND r.model = v.model AND r.digest = v.digest AND r.finished_at IS NULL))
             ORDER BY v.pushed_at DESC LIMIT 1",
        ))
        .bind(self.tenant().as_str().to_owned())
        .bind(repository.to_string())
        .bind(digest.to_string())
        .fetch_optional(self.connection())
        .await?;
        let in_use = |(version, signed_at): (String, Option<i64>)| {
            Ok(InUse { version: parsed("version", &version)?, is_signed: signed_at.is_some() })
        };
        row.map(in_use).transpose()
    }

    /// Takes the versions that need this manifest or blob off the list. One that was signed in between stays; then the change must not be
    /// committed.
    pub(crate) async fn unlist(
        &mut self,
        repository: &Repository,
        digest: ContentDigest,
    ) -> Result<(), StoreError> {
        self.run(
            concat!(
                "DELETE FROM versions WHERE tenant = $1 AND model = $2 AND signed_at IS NULL
                 AND version IN (SELECT v.version FROM versions v WHERE ",
                needs!(),
                ")"
            ),
            |it| it.bind(repository.to_string()).bind(digest.to_string()),
        )
        .await?;
        let left: Option<String> =
            sqlx::query_scalar(concat!("SELECT v.version FROM versions v WHERE ", needs!()))
                .bind(self.tenant().as_str().to_owned())
                .bind(repository.to_string())
                .bind(digest.to_string())
                .fetch_optional(self.connection())
                .await?;
        if left.is_some() { Err(StoreError::Changed("version")) } else { Ok(()) }
    }
}
