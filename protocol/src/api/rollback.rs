//! Bodies of `/api/v1/rollback`.

use serde::{Deserialize, Serialize};

use crate::id::{DeviceId, ModelName, RolloutId, UnixMillis, Version};

/// Where a rollback goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RollbackTarget {
    /// The version that was rolled out with success before the present one.
    Previous,
    /// This version.
    Version(Version),
    /// What each device itself ran at this time, as far as the server had heard.
    Time(UnixMillis),
}

/// `POST /rollback`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RollbackRequest {
    /// The model.
    pub model: ModelName,
    /// Where to.
    pub to: RollbackTarget,
    /// Which devices, as a filter; empty for all.
    #[serde(default)]
    pub filter: String,
    /// Of those only these; empty for all of them.
    #[serde(default)]
    pub devices: Vec<DeviceId>,
    /// Why; must not be empty.
    pub reason: String,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a rollback does, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RollbackResult {
    /// The rollout that carries it out, of several the one with most devices; none for a dry run.
    pub rollout: Option<RolloutId>,
    /// The version it goes to, of several the one with most devices.
    pub version: Version,
    /// Versions that are quarantined by it.
    pub quarantined: Vec<Version>,
    /// Whether that is for these devices alone: others keep them, and rollouts of them go on elsewhere.
    #[serde(default)]
    pub is_quarantine_scoped: bool,
    /// Devices that change their image.
    pub devices: u64,
    /// Of these, how many keep the earlier image on disk and need no download.
    pub without_download: u64,
    /// Rollouts under way that end by it.
    pub superseded: Vec<RolloutId>,
    /// Rollouts all of whose devices are taken back: they are reverting, and those under way are among the `superseded` as well.
    #[serde(default)]
    pub reverting: Vec<RolloutId>,
    /// Rollouts some of whose devices are taken back; others keep what they brought.
    #[serde(default)]
    pub reverting_in_part: Vec<RolloutId>,
    /// The same by version, most devices first.
    #[serde(default)]
    pub steps: Vec<RollbackStep>,
    /// Devices that stay as they are although they were meant, and why; at most 1,000.
    #[serde(default)]
    pub untouched: Vec<RollbackUntouched>,
    /// How many do in all.
    #[serde(default)]
    pub untouched_devices: u64,
}

/// What goes back to one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RollbackStep {
    /// The version.
    pub version: Version,
    /// The rollout that carries it out; none for a dry run.
    #[serde(default)]
    pub rollout: Option<RolloutId>,
    /// Devices that go to it.
    pub devices: u64,
    /// Of these, how many need no download.
    pub without_download: u64,
    /// Of these, how many ended badly with it before. They are offered it again.
    pub penalised: u64,
}

/// A device that stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RollbackUntouched {
    /// Which.
    pub device: DeviceId,
    /// Why, for programs: `unknown`, `nothing`, `changed`, `revoked`, `quarantined`, `unsigned`, `gone`, `floor`.
    pub code: String,
    /// Why, for people.
    pub why: String,
}
