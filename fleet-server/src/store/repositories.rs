//! Repositories of the registry: blobs, manifests, tags, and who refers to whom.

use std::collections::BTreeMap;

use sealift_protocol::id::UnixMillis;

use super::{Change, StoreError, TenantStore, from_json, parsed, signed, to_json, unsigned};
use crate::content::ContentDigest;
use crate::registry::document::{Document, Link};
use crate::registry::name::{Reference, Repository};

/// A manifest in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredManifest {
    /// Its digest.
    pub(crate) digest: ContentDigest,
    /// Its media type.
    pub(crate) media_type: String,
    /// Its length.
    pub(crate) size: u64,
}

/// A manifest that is about another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Referrer {
    /// Where it is.
    pub(crate) manifest: StoredManifest,
    /// What kind of artifact it is.
    pub(crate) artifact_type: Option<String>,
    /// Its annotations.
    pub(crate) annotations: BTreeMap<String, String>,
}

/// Which referrers are asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReferrerQuery<'a> {
    /// Whom they are about.
    pub(crate) subject: ContentDigest,
    /// Of which kind only.
    pub(crate) artifact_type: Option<&'a str>,
    /// Those after this digest.
    pub(crate) after: &'a str,
    /// At most so many.
    pub(crate) limit: i64,
}

/// Why a manifest's contents are not as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkFault {
    /// It was not pushed to the repository.
    #[error("{0} is not in this repository; push what a manifest names before the manifest")]
    Missing(ContentDigest),
    /// It has another length.
    #[error("{digest} has {given} bytes, the manifest says {said}")]
    Size {
        /// Which.
        digest: ContentDigest,
        /// Its length.
        given: u64,
        /// The length in the manifest.
        said: u64,
    },
}

impl TenantStore {
    /// The length of a blob, if the repository has it, and when it was last pushed or asked for.
    pub(crate) async fn blob(
        &self,
        repository: &Repository,
        digest: ContentDigest,
    ) -> Result<Option<(u64, UnixMillis)>, StoreError> {
        let row: Option<(i64, i64)> = sqlx::query_as(
            "SELECT size, pushed_at FROM repository_blobs
             WHERE tenant = $1 AND repository = $2 AND digest = $3",
        )
        .bind(self.id().to_owned())
        .bind(repository.to_string())
        .bind(digest.to_string())
        .fetch_optional(self.readers())
        .await?;
        let blob = |(size, at)| Ok((unsigned("blob length", size)?, UnixMillis(at)));
        row.map(blob).transpose()
    }

    /// A manifest by tag or digest.
    pub(crate) async fn manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Option<StoredManifest>, StoreError> {
        let (statement, name) = match reference {
            Reference::Digest(digest) => (
                "SELECT digest, media_type, size FROM manifests
                 WHERE tenant = $1 AND repository = $2 AND digest = $3",
                digest.to_string(),
            ),
            Reference::Tag(tag) => (
                "SELECT m.digest, m.media_type, m.size FROM tags t JOIN manifests m
                 ON m.tenant = t.tenant AND m.repository = t.repository AND m.digest = t.digest
                 WHERE t.tenant = $1 AND t.repository = $2 AND t.tag = $3",
                tag.clone(),
            ),
        };
        let row: Option<(String, String, i64)> = sqlx::query_as(statement)
            .bind(self.id().to_owned())
            .bind(repository.to_string())
            .bind(name)
            .fetch_optional(self.readers())
            .await?;
        row.map(stored).transpose()
    }

    /// Tags of a repository after `last`, in the order of their bytes; none where nothing was ever pushed.
    pub(crate) async fn tags(
        &self,
        repository: &Repository,
        last: &str,
        limit: i64,
    ) -> Result<Option<Vec<String>>, StoreError> {
        let tags: Vec<String> = sqlx::query_scalar(
            "SELECT tag FROM tags WHERE tenant = $1 AND repository = $2 AND tag > $3
             ORDER BY tag LIMIT $4",
        )
        .bind(self.id().to_owned())
        .bind(repository.to_string())
        .bind(last.to_owned())
        .bind(limit)
        .fetch_all(self.readers())
        .await?;
        if tags.is_empty() && !self.has_repository(repository).await? {
            return Ok(None);
        }
        Ok(Some(tags))
    }

    async fn has_repository(&self, repository: &Repository) -> Result<bool, StoreError> {
        let found: Option<i64> = sqlx::query_scalar(
            "SELECT 1 FROM manifests WHERE tenant = $1 AND repository = $2
             UNION SELECT 1 FROM repository_blobs WHERE tenant = $1 AND repository = $2
             UNION SELECT 1 FROM uploads WHERE tenant = $1 AND repository = $2",
        )
        .bind(self.id().to_owned())
        .bind(repository.to_string())
        .fetch_optional(self.readers())
        .await?;
        Ok(found.is_some())
    }

    /// Manifests that are about another one, in the order of their digests.
    pub(crate) async fn referrers(
        &self,
        repository: &Repository,
        query: ReferrerQuery<'_>,
    ) -> Result<Vec<Referrer>, StoreError> {
        let rows: Vec<(String, String, i64, Option<String>, String)> = sqlx::query_as(
            "SELECT digest, media_type, size, artifact_type, annotations FROM manifests
             WHERE tenant = $1 AND repository = $2 AND subject = $3
             AND (artifact_type = $4 OR $4 = '') AND digest > $5 ORDER BY digest LIMIT $6",
        )
        .bind(self.id().to_owned())
        .bind(repository.to_string())
        .bind(query.subject.to_string())
        .bind(query.artifact_type.unwrap_or_default().to_owned())
        .bind(query.after.to_owned())
        .bind(query.limit)
        .fetch_all(self.readers())
        .await?;
        let referrer =
            |(digest, media_type, size, artifact_type, annotations): (_, _, _, _, String)| {
                Ok(Referrer {
                    manifest: stored((digest, media_type, size))?,
                    artifact_type,
                    annotations: from_json("annotations", &annotations)?,
                })
            };
        rows.into_iter().map(referrer).collect()
    }
}

fn stored((digest, media_type, size): (String, String, i64)) -> Result<StoredManifest, StoreError> {
    let digest = parsed("digest", &digest)?;
    Ok(StoredManifest { digest, media_type, size: unsigned("manifest length", size)? })
}

/// Blobs.
impl Change {
    /// Notes that a blob was pushed to a repository.
    pub(crate) async fn add_blob(
        &mut self,
        repository: &Repository,
        digest: ContentDigest,
        size: u64,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let repository = repository.to_string();
        let size = signed("blob length", size)?;
        self.run(
            "INSERT INTO repository_blobs (tenant, repository, digest, size, pushed_at)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant, repository, digest)
             DO UPDATE SET pushed_at = excluded.pushed_at",
            |it| it.bind(repository).bind(digest.to_string()).bind(size).bind(now.0),
        )
        .await?;
        self.fasten(digest).await
    }

    /// Notes that somebody counts on a blob; the answer is its length, if the repository, or any where none is given, has it.
    ///
    /// Its row is locked until the end of the change: nobody cleans it up in between.
    pub(crate) async fn touch_blob(
        &mut self,
        repository: Option<&Repository>,
        digest: ContentDigest,
        now: UnixMillis,
    ) -> Result<Option<u64>, StoreError> {
        let repository = repository.map(Repository::to_string).unwrap_or_default();
        let size: Option<i64> = sqlx::query_scalar(
            "UPDATE repository_blobs SET pushed_at = $4
             WHERE tenant = $1 AND (repository = $2 OR $2 = '') AND digest = $3 RETURNING size",
        )
        .bind(self.tenant().as_str().to_owned())
        .bind(repository)
        .bind(digest.to_string())
        .bind(now.0)
        .fetch_optional(self.connection())
        .await?;
        size.map(|size| unsigned("blob length", size)).transpose()
    }

    /// Takes a blob out of a repository; returns whether it was there.
    pub(crate) async fn remove_blob(
        &mut self,
        repository: &Repository,
        digest: ContentDigest,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let repository = repository.to_string();
        let removed = self
            .run(
                "DELETE FROM repository_blobs
                 WHERE tenant = $1 AND repository = $2 AND digest = $3",
                |it| it.bind(repository).bind(digest.to_string()),
            )
            .await?;
        self.loosen(digest, now).await?;
        Ok(removed == 1)
    }
}

/// Manifests and tags.
impl Change {
    /// Says what is wrong with the contents that a manifest names, if anything; they stay as they are until the end of the change.
    pub(crate) async fn check_links(
        &mut self,
        repository: &Repository,
        document: &Document,
        now: UnixMillis,
    ) -> Result<Option<LinkFault>, StoreError> {
        for (&digest, link) in &document.links {
            let given = match self.touch_blob(Some(repository), digest, now).await? {
                Some(size) => Some(size),
                None => self.touch_manifest(repository, digest).await?,
            };
            let Link { size: said, is_needed } = *link;
            match given {
                None if is_needed => return Ok(Some(LinkFault::Missing(digest))),
                Some(given) if given != said => {
                    return Ok(Some(LinkFault::Size { digest, given, said }));
                }
                None | Some(_) => (),
            }
        }
        Ok(None)
    }

    async fn touch_manifest(
        &mut self,
        repository: &Repository,
        digest: ContentDigest,
    ) -> Result<Option<u64>, StoreError> {
        let size: Option<i64> = sqlx::query_scalar(
            "UPDATE manifests SET size = size
             WHERE tenant = $1 AND repository = $2 AND digest = $3 RETURNING size",
        )
        .bind(self.tenant().as_str().to_owned())
        .bind(repository.to_string())
        .bind(digest.to_string())
        .fetch_optional(self.connection())
        .await?;
        size.map(|size| unsigned("manifest length", size)).transpose()
    }

    /// Adds a manifest to a repository, with what it says.
    pub(crate) async fn add_manifest(
        &mut self,
        repository: &Repository,
        (digest, size): (ContentDigest, u64),
        document: &Document,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let (name, media_type) = (repository.to_string(), document.media_type.clone());
        let size = signed("manifest length", size)?;
        self.run(
            "INSERT INTO manifests (tenant, repository, digest, media_type, size, pushed_at)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
            |it| it.bind(name).bind(digest.to_string()).bind(media_type).bind(size).bind(now.0),
        )
        .await?;
        self.describe_manifest(repository, digest, document).await?;
        self.fasten(digest).await
    }

    /// Notes what a manifest says.
    pub(crate) async fn describe_manifest(
        &mut self,
        repository: &Repository,
        digest: ContentDigest,
        document: &Document,
    ) -> Result<(), StoreError> {
        let subject = document.subject.map(|subject| subject.to_string());
        let artifact_type = document.artifact_type.clone();
        let annotations = to_json("annotations", &document.annotations)?;
        self.run(
            "UPDATE manifests SET described = 1, artifact_type = $4, subject = $5, annotations = $6
             WHERE tenant = $1 AND repository = $2 AND digest = $3",
            |it| {
                let it = it.bind(repository.to_string()).bind(digest.to_string());
                it.bind(artifact_type).bind(subject).bind(annotations)
            },
        )
        .await?;
        for target in document.links.keys() {
            self.run(
                "INSERT INTO manifest_links (tenant, repository, manifest, target)
                 VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
                |it| {
                    let it = it.bind(repository.to_string()).bind(digest.to_string());
                    it.bind(target.to_string())
                },
            )
            .await?;
        }
        Ok(())
    }

    /// Points a tag at a manifest of the repository.
    pub(crate) async fn set_tag(
        &mut self,
        repository: &Repository,
        tag: &str,
        digest: ContentDigest,
    ) -> Result<(), StoreError> {
        let (repository, tag) = (repository.to_string(), tag.to_owned());
        self.run(
            "INSERT INTO tags (tenant, repository, tag, digest) VALUES ($1, $2, $3, $4)
             ON CONFLICT (tenant, repository, tag) DO UPDATE SET digest = excluded.digest",
            |it| it.bind(repository).bind(tag).bind(digest.to_string()),
        )
        .await?;
        Ok(())
    }

    /// Removes a tag; returns whether it was there.
    pub(crate) async fn remove_tag(
        &mut self,
        repository: &Repository,
        tag: &str,
    ) -> Result<bool, StoreError> {
        let (repository, tag) = (repository.to_string(), tag.to_owned());
        let removed = self
            .run("DELETE FROM tags WHERE tenant = $1 AND repository = $2 AND tag = $3", |it| {
                it.bind(repository).bind(tag)
            })
            .await?;
        Ok(removed == 1)
    }

    /// Removes a manifest with its tags; returns whether it was there.
    pub(crate) async fn remove_manifest(
        &mut self,
        repository: &Repository,
        digest: ContentDigest,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let mut removed = 0;
        for statement in [
            "DELETE FROM tags WHERE tenant = $1 AND repository = $2 AND digest = $3",
            "DELETE FROM manifest_links WHERE tenant = $1 AND repository = $2 AND manifest = $3",
            "DELETE FROM manifests WHERE tenant = $1 AND repository = $2 AND digest = $3",
        ] {
            let repository = repository.to_string();
            removed =
                self.run(statement, |it| it.bind(repository).bind(digest.to_string())).await?;
        }
        self.loosen(digest, now).await?;
        Ok(removed == 1)
    }
}
