//! Models and versions.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{Epoch, ModelName, RolloutId, UnixMillis, Version};
use crate::image::IoContract;

/// `GET /models`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelView {
    /// `team/name`.
    pub name: ModelName,
    /// What it is, from the newest version.
    pub description: String,
    /// Its versions, newest first.
    pub versions: Vec<VersionView>,
}

/// What may be done with a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum VersionState {
    /// Pushed; no publisher has signed it yet, and it cannot be rolled out.
    Unsigned,
    /// Signed by its publisher.
    Signed,
    /// Signed, and not to be rolled out any more: someone went back from it.
    Quarantined,
}

/// `GET /models/{team}/{name}/versions/{version}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VersionView {
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// What may be done with it.
    pub state: VersionState,
    /// Why it is quarantined.
    pub quarantine_reason: Option<String>,
    /// Digest of the OCI index.
    pub digest: Digest,
    /// Bytes of all blobs of all variants.
    pub size_bytes: u64,
    /// When it was pushed.
    pub pushed_at: UnixMillis,
    /// TUF role and keys that signed it.
    pub signed_by: Vec<String>,
    /// Its security epoch.
    pub epoch: Epoch,
    /// Kind of model.
    pub family: String,
    /// A sentence about it.
    pub description: String,
    /// SPDX expressions.
    pub licenses: Vec<String>,
    /// `accelerator/precision` of each variant.
    pub variants: Vec<String>,
    /// What it takes and gives.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub contract: Option<IoContract>,
    /// Whether it carries a baseline to judge drift by.
    pub has_baseline: bool,
    /// How many devices serve it.
    pub devices: u64,
    /// Rollouts of it, newest first.
    pub rollouts: Vec<RolloutId>,
}
