//! The files of the TUF repository.

use std::collections::BTreeMap;

use sealift_protocol::digest::Digest;
use sealift_protocol::id::{Epoch, ModelName, UnixMillis, Version};
use sealift_protocol::tuf::client::Persist;

use super::{Change, StoreError, TenantStore, parsed, signed, to_json, unsigned};

/// What a publisher's metadata says of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endorsement {
    /// Its security epoch.
    pub(crate) epoch: Epoch,
    /// The role, and the keys that signed.
    pub(crate) by: Vec<String>,
}

/// An image in the registry, as far as metadata can name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PushedImage {
    /// Digest of its index.
    pub(crate) digest: Digest,
    /// Length of its index.
    pub(crate) index_bytes: u64,
}

/// A version by its model.
pub(crate) type VersionName = (ModelName, Version);

impl TenantStore {
    /// One file of the repository.
    pub(crate) async fn metadata(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let body = sqlx::query_scalar("SELECT body FROM metadata WHERE tenant = $1 AND name = $2")
            .bind(self.id().to_owned())
            .bind(name.to_owned())
            .fetch_optional(self.readers())
            .await?;
        Ok(body)
    }

    /// All files of the repository.
    pub(crate) async fn all_metadata(&self) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        let rows: Vec<(String, Vec<u8>)> =
            sqlx::query_as("SELECT name, body FROM metadata WHERE tenant = $1")
                .bind(self.id().to_owned())
                .fetch_all(self.readers())
                .await?;
        Ok(rows.into_iter().collect())
    }

    /// The version of the newest timestamp; none before the ceremony.
    pub(crate) async fn metadata_head(&self) -> Result<Option<u64>, StoreError> {
        let head: Option<i64> =
            sqlx::query_scalar("SELECT version FROM metadata_heads WHERE tenant = $1")
                .bind(self.id().to_owned())
                .fetch_optional(self.readers())
                .await?;
        head.map(|head| unsigned("timestamp version", head)).transpose()
    }

    /// Every image that was pushed.
    pub(crate) async fn pushed_images(
        &self,
    ) -> Result<BTreeMap<VersionName, PushedImage>, StoreError> {
        let rows: Vec<(String, String, String, i64)> = sqlx::query_as(
            "SELECT model, version, digest, index_bytes FROM versions WHERE tenant = $1",
        )
        .bind(self.id().to_owned())
        .fetch_all(self.readers())
        .await?;
        let image = |(model, version, digest, bytes): (String, String, String, i64)| {
            let name = (parsed("model", &model)?, parsed("version", &version)?);
            let digest = parsed("digest", &digest)?;
            Ok((name, PushedImage { digest, index_bytes: unsigned("index length", bytes)? }))
        };
        rows.into_iter().map(image).collect()
    }
}

impl Change {
    /// Takes over the files of a new repository.
    pub(crate) async fn found_metadata(
        &mut self,
        files: &BTreeMap<String, Vec<u8>>,
        head: u64,
    ) -> Result<(), StoreError> {
        let head = signed("timestamp version", head)?;
        self.run("INSERT INTO metadata_heads (tenant, version) VALUES ($1, $2)", |it| {
            it.bind(head)
        })
        .await?;
        for (name, body) in files {
            self.write_metadata(name, body).await?;
        }
        Ok(())
    }

    /// Carries out changes of the repository that led from timestamp version `before` to `after`.
    pub(crate) async fn change_metadata(
        &mut self,
        changes: &[Persist],
        before: u64,
        after: u64,
    ) -> Result<(), StoreError> {
        let (before, after) =
            (signed("timestamp version", before)?, signed("timestamp version", after)?);
        let swapped = self
            .run(
                "UPDATE metadata_heads SET version = $3 WHERE tenant = $1 AND version = $2",
                |it| it.bind(before).bind(after),
            )
            .await?;
        if swapped != 1 {
            return Err(StoreError::Changed("trust metadata"));
        }
        for change in changes {
            match change {
                Persist::Write { name, bytes } => self.write_metadata(name, bytes).await?,
                Persist::Remove { name } => {
                    let name = name.clone();
                    self.run("DELETE FROM metadata WHERE tenant = $1 AND name = $2", |it| {
                        it.bind(name)
                    })
                    .await?;
                }
            }
        }
        Ok(())
    }

    /// Marks a version as endorsed, or as endorsed by nobody. Returns whether there is such a version to mark.
    pub(crate) async fn set_endorsement(
        &mut self,
        (model, version): &VersionName,
        endorsement: Option<&Endorsement>,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let (model, version) = (model.to_string(), version.to_string());
        let Some(Endorsement { epoch, by }) = endorsement else {
            self.run(
                "UPDATE versions SET signed_at = NULL WHERE tenant = $1 AND model = $2
                 AND version = $3 AND signed_at IS NOT NULL",
                |it| it.bind(model).bind(version),
            )
            .await?;
            return Ok(true);
        };
        let (epoch, by) = (signed("epoch", epoch.0)?, to_json("signers", by)?);
        let marked = self
            .run(
                "UPDATE versions SET signed_at = COALESCE(signed_at, $4), signed_by = $5, epoch = $6
                 WHERE tenant = $1 AND model = $2 AND version = $3",
                |it| it.bind(model).bind(version).bind(now.0).bind(by).bind(epoch),
            )
            .await?;
        Ok(marked == 1)
    }

    async fn write_metadata(&mut self, name: &str, body: &[u8]) -> Result<(), StoreError> {
        let (name, body) = (name.to_owned(), body.to_vec());
        self.run(
            "INSERT INTO metadata (tenant, name, body) VALUES ($1, $2, $3)
             ON CONFLICT (tenant, name) DO UPDATE SET body = excluded.body",
            |it| it.bind(name).bind(body),
        )
        .await?;
        Ok(())
    }
}
