//! Pages, problems, the overview, the audit log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{ModelName, UnixMillis, Version};

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Page<T> {
    /// The entries, in the list's order.
    pub items: Vec<T>,
    /// How many match in all.
    pub total: u64,
    /// Where the next page starts; none on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// An error, by RFC 9457.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// Where the kind of problem is explained.
    pub r#type: String,
    /// The kind of problem, for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable code, for programs.
    pub code: String,
    /// What happened, to what.
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Names the request in the server's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// `GET /status`: the overview.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    /// When it was computed.
    pub at: UnixMillis,
    /// What needs a person, worst first.
    pub attention: Vec<AttentionItem>,
    /// Devices by state.
    pub devices_online: u64,
    /// Not connected.
    pub devices_offline: u64,
    /// Connected, with something wrong.
    pub devices_unhealthy: u64,
    /// Which version of each model runs on how many devices.
    pub adoption: Vec<ModelAdoption>,
    /// Rollouts that are not finished.
    pub rollouts_running: u64,
    /// Open alerts.
    pub alerts_open: u64,
    /// Inference requests per second over the last minutes, over the fleet.
    pub requests_per_s: f64,
}

/// Something that needs a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AttentionItem {
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// In a few words.
    pub title: String,
    /// What happened, to what; what to do.
    pub detail: String,
    /// The console page about it, such as `/rollouts/r-3`.
    pub href: String,
}

/// Devices per version of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelAdoption {
    /// The model.
    pub model: ModelName,
    /// The version; none where the model is desired and nothing is served yet.
    pub version: Option<Version>,
    /// How many devices serve it.
    pub devices: u64,
}

/// `GET /audit`: one row of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditEntry {
    /// Number; rises by one.
    pub sequence: u64,
    /// When.
    pub at: UnixMillis,
    /// Who: an operator, `device:<id>` or `server`.
    pub actor: String,
    /// What: `rollout.create`, `rollback`, `device.enrol`, …
    pub action: String,
    /// To what.
    pub subject: String,
    /// Why, where a reason was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// On what evidence.
    #[serde(default)]
    pub detail: String,
    /// Its leaf hash in the log's Merkle tree, 64 hex digits.
    pub hash: String,
}

/// `GET /audit/checkpoint`: how long the log is and under which root, signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditCheckpoint {
    /// How many rows it covers.
    pub size: u64,
    /// When it was signed.
    pub at: UnixMillis,
    /// The signed note (C2SP tlog-checkpoint).
    pub note: String,
}

/// `GET /audit/key`: the key that checkpoints are signed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditKeyView {
    /// `name+hash+base64` (C2SP signed-note).
    pub key: String,
}

/// `GET /audit/proof/…`: roots of subtrees, from the row upwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditProof {
    /// `sha256:` and 64 hex digits each.
    pub hashes: Vec<Digest>,
}

/// `GET /prometheus/targets`: what Prometheus' HTTP service discovery reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TargetGroup {
    /// `host:port` of each.
    pub targets: Vec<String>,
    /// What is added to everything that is read there.
    pub labels: BTreeMap<String, String>,
}
