//! The files of the TUF repository.

use std::collections::BTreeMap;

use sealift_protocol::digest::Digest;
use sealift_protocol::id::{Epoch, ModelName, TeamId, UnixMillis, Version};
use sealift_protocol::tuf::client::Persist;

use super::{Change, StoreError, TenantStore, parsed, signed, to_json, unsigned};

/// A version that a publisher's metadata names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignedVersion {
    /// The model.
    pub(crate) model: ModelName,
    /// The version.
    pub(crate) version: Version,
    /// Its security epoch.
    pub(crate) epoch: Epoch,
}

/// An image in the registry, as far as metadata can name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PushedImage {
    /// Digest of its index.
    pub(crate) digest: Digest,
    /// Length of its index.
    pub(crate) index_bytes: u64,
}

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

    /// Every image of a team that was pushed, by model and version.
    pub(crate) async fn pushed_images(
        &self,
        team: &TeamId,
    ) -> Result<BTreeMap<(ModelName, Version), PushedImage>, StoreError> {
        let rows: Vec<(String, String, String, i64)> = sqlx::query_as(
            "SELECT model, version, digest, index_bytes FROM versions
             WHERE tenant = $1 AND model LIKE $2",
        )
        .bind(self.id().to_owned())
        .bind(format!("{team}/%"))
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

    /// Marks exactly `versions` of a team as signed by `role` and its keys.
    pub(crate) async fn set_signed(
        &mut self,
        team: &TeamId,
        versions: &[SignedVersion],
        by: &[String],
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let pattern = format!("{team}/%");
        self.run(
            "UPDATE versions SET signed_at = NULL WHERE tenant = $1 AND model LIKE $2",
            |it| it.bind(pattern),
        )
        .await?;
        let by = to_json("signers", &by)?;
        for signed_version in versions {
            let model = signed_version.model.to_string();
            let version = signed_version.version.to_string();
            let epoch = signed("epoch", signed_version.epoch.0)?;
            let by = by.clone();
            self.run(
                "UPDATE versions SET signed_at = $4, signed_by = $5, epoch = $6
                 WHERE tenant = $1 AND model = $2 AND version = $3",
                |it| it.bind(model).bind(version).bind(now.0).bind(by).bind(epoch),
            )
            .await?;
        }
        Ok(())
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
