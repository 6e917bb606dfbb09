//! Versions of models, and who uses them.

use std::collections::BTreeMap;

use sealift_protocol::api::VersionState;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{Epoch, ModelName, RolloutId, UnixMillis, Version};
use sealift_protocol::image::IoContract;

use super::{Change, StoreError, TenantStore, from_json, parsed, signed, to_json, unsigned};
use crate::registry::ImageFacts;

/// Versions of one model, and models of one tenant, that are listed.
const LISTED_MAX: i64 = 1_000;

/// The index of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ManifestRow {
    /// Its digest.
    pub(crate) digest: Digest,
    /// Its media type.
    pub(crate) media_type: String,
    /// Its length.
    pub(crate) size: u64,
}

/// A version of a model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VersionRow {
    /// The model.
    pub(crate) model: ModelName,
    /// The version.
    pub(crate) version: Version,
    /// Digest of its OCI index.
    pub(crate) digest: Digest,
    /// What may be done with it.
    pub(crate) state: VersionState,
    /// Why it is quarantined.
    pub(crate) quarantine_reason: Option<String>,
    /// Bytes of all blobs of all variants.
    pub(crate) size_bytes: u64,
    /// When it was pushed.
    pub(crate) pushed_at: UnixMillis,
    /// Role and keys that signed it.
    pub(crate) signed_by: Vec<String>,
    /// Its security epoch.
    pub(crate) epoch: Epoch,
    /// Kind of model.
    pub(crate) family: String,
    /// A sentence about it.
    pub(crate) description: String,
    /// SPDX expressions.
    pub(crate) licenses: Vec<String>,
    /// `accelerator/precision` of each variant.
    pub(crate) variants: Vec<String>,
    /// What it takes and gives.
    pub(crate) contract: IoContract,
    /// Digest of its baseline.
    pub(crate) baseline: Option<Digest>,
}

/// Who uses which version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// How many devices serve it.
    pub(crate) devices: BTreeMap<(ModelName, Version), u64>,
    /// Rollouts of it, newest first.
    pub(crate) rollouts: BTreeMap<(ModelName, Version), Vec<RolloutId>>,
}

#[derive(sqlx::FromRow)]
struct RawVersion {
    model: String,
    version: String,
    digest: String,
    size_bytes: i64,
    pushed_at: i64,
    signed_at: Option<i64>,
    signed_by: String,
    epoch: i64,
    family: String,
    description: String,
    licenses: String,
    variants: String,
    contract: String,
    baseline: Option<String>,
    quarantine_reason: Option<String>,
}

impl TenantStore {
    /// One version of a model.
    pub(crate) async fn version(
        &self,
        model: &ModelName,
        version: &Version,
    ) -> Result<Option<VersionRow>, StoreError> {
        let row: Option<RawVersion> = sqlx::query_as(
            "SELECT v.*, q.reason AS quarantine_reason FROM versions v LEFT JOIN quarantine q
             ON q.tenant = v.tenant AND q.model = v.model AND q.version = v.version
             WHERE v.tenant = $1 AND v.model = $2 AND v.version = $3",
        )
        .bind(self.id().to_owned())
        .bind(model.to_string())
        .bind(version.to_string())
        .fetch_optional(self.readers())
        .await?;
        row.map(version_row).transpose()
    }

    /// Versions of one model, or of all, newest first.
    pub(crate) async fn versions(
        &self,
        model: Option<&ModelName>,
    ) -> Result<BTreeMap<ModelName, Vec<VersionRow>>, StoreError> {
        let rows: Vec<RawVersion> = sqlx::query_as(
            "SELECT v.*, q.reason AS quarantine_reason FROM versions v LEFT JOIN quarantine q
             ON q.tenant = v.tenant AND q.model = v.model AND q.version = v.version
             WHERE v.tenant = $1 AND (v.model = $2 OR $2 = '')
             ORDER BY v.pushed_at DESC LIMIT $3",
        )
        .bind(self.id().to_owned())
        .bind(model.map(ToString::to_string).unwrap_or_default())
        .bind(LISTED_MAX)
        .fetch_all(self.readers())
        .await?;
        let mut models: BTreeMap<ModelName, Vec<VersionRow>> = BTreeMap::new();
        for row in rows {
            let row = version_row(row)?;
            models.entry(row.model.clone()).or_default().push(row);
        }
        for versions in models.values_mut() {
            versions.sort_by(|left, right| right.version.cmp(&left.version));
        }
        Ok(models)
    }
}

impl TenantStore {
    /// Who uses the versions of one model, or of all.
    pub(crate) async fn usage(&self, model: Option<&ModelName>) -> Result<Usage, StoreError> {
        let model = model.map(ToString::to_string).unwrap_or_default();
        let serving: Vec<(String, String, i64)> = sqlx::query_as(
            "SELECT model, serving_version, COUNT(*) FROM slots
             WHERE tenant = $1 AND (model = $2 OR $2 = '') AND serving_version IS NOT NULL
             GROUP BY model, serving_version",
        )
        .bind(self.id().to_owned())
        .bind(model.clone())
        .fetch_all(self.readers())
        .await?;
        let rollouts: Vec<(String, String, i64)> = sqlx::query_as(
            "SELECT model, version, number FROM rollouts
             WHERE tenant = $1 AND (model = $2 OR $2 = '') ORDER BY number DESC LIMIT $3",
        )
        .bind(self.id().to_owned())
        .bind(model)
        .bind(LISTED_MAX)
        .fetch_all(self.readers())
        .await?;
        let key = |model: &str, version: &str| -> Result<(ModelName, Version), StoreError> {
            Ok((parsed("model", model)?, parsed("version", version)?))
        };
        let mut usage = Usage::default();
        for (model, version, count) in serving {
            usage.devices.insert(key(&model, &version)?, unsigned("count", count)?);
        }
        for (model, version, number) in rollouts {
            let id = RolloutId(unsigned("rollout", number)?);
            usage.rollouts.entry(key(&model, &version)?).or_default().push(id);
        }
        Ok(usage)
    }
}

impl Change {
    /// The digest that is listed as a version, if the text is the name of one that is.
    pub(crate) async fn listed(
        &mut self,
        model: &ModelName,
        version: &str,
    ) -> Result<Option<Digest>, StoreError> {
        let digest: Option<String> = sqlx::query_scalar(
            "SELECT digest FROM versions WHERE tenant = $1 AND model = $2 AND version = $3",
        )
        .bind(self.tenant().as_str().to_owned())
        .bind(model.to_string())
        .bind(version.to_owned())
        .fetch_optional(self.connection())
        .await?;
        digest.map(|digest| parsed("digest", &digest)).transpose()
    }

    /// Lists an image as a version, unsigned. Returns whether it is new; one that is there stays as it is.
    pub(crate) async fn add_version(
        &mut self,
        model: &ModelName,
        manifest: &ManifestRow,
        facts: &ImageFacts,
        (by, now): (&str, UnixMillis),
    ) -> Result<bool, StoreError> {
        let (model, version) = (model.to_string(), facts.version.to_string());
        let (digest, by) = (manifest.digest.to_string(), by.to_owned());
        let index_bytes = signed("index length", manifest.size)?;
        let size_bytes = signed("image length", facts.size_bytes)?;
        let licenses = to_json("licenses", &facts.licenses)?;
        let variants = to_json("variants", &facts.variants)?;
        let contract = to_json("I/O contract", &facts.contract)?;
        let manifests = to_json("manifests", &facts.manifests)?;
        let baseline = facts.baseline.map(|digest| digest.to_string());
        let (family, description) = (facts.family.clone(), facts.description.clone());
        let added = self
            .run(
                "INSERT INTO versions (tenant, model, version, digest, index_bytes, size_bytes,
                 pushed_at, pushed_by, family, description, licenses, variants, contract, baseline,
                 manifests)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
                 ON CONFLICT DO NOTHING",
                |it| {
                    let it = it.bind(model).bind(version).bind(digest).bind(index_bytes);
                    let it = it.bind(size_bytes).bind(now.0).bind(by).bind(family);
                    let it = it.bind(description).bind(licenses).bind(variants);
                    it.bind(contract).bind(baseline).bind(manifests)
                },
            )
            .await?;
        Ok(added == 1)
    }
}

fn version_row(raw: RawVersion) -> Result<VersionRow, StoreError> {
    let state = match (&raw.quarantine_reason, raw.signed_at) {
        (_, None) => VersionState::Unsigned,
        (Some(_), Some(_)) => VersionState::Quarantined,
        (None, Some(_)) => VersionState::Signed,
    };
    Ok(VersionRow {
        model: parsed("model", &raw.model)?,
        version: parsed("version", &raw.version)?,
        digest: parsed("digest", &raw.digest)?,
        state,
        quarantine_reason: raw.quarantine_reason,
        size_bytes: unsigned("image length", raw.size_bytes)?,
        pushed_at: UnixMillis(raw.pushed_at),
        signed_by: from_json("signers", &raw.signed_by)?,
        epoch: Epoch(unsigned("epoch", raw.epoch)?),
        family: raw.family,
        description: raw.description,
        licenses: from_json("licenses", &raw.licenses)?,
        variants: from_json("variants", &raw.variants)?,
        contract: from_json("I/O contract", &raw.contract)?,
        baseline: raw.baseline.map(|digest| parsed("digest", &digest)).transpose()?,
    })
}
