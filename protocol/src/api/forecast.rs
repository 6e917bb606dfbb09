//! What is found and foreseen before a rollout begins, and what became of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::DeviceProgress;
use crate::id::{DeviceId, RolloutId, UnixMillis};

/// `POST /rollouts/plan`: what a rollout would do if it were made now. Nothing is changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutForecast {
    /// Devices that it concerns.
    pub devices: u64,
    /// Of these, how many have their place in each wave; one that is offline keeps its place.
    pub waves: Vec<u64>,
    /// Why the others would not be told now, and how many each reason holds for.
    pub not_told: BTreeMap<String, u64>,
    /// Devices that would change their image and have it on disk already.
    pub without_download: u64,
    /// Bytes that the others would download: each the variant that it would take, and no more than it lacks.
    pub download_bytes: u64,
    /// Whether somebody else would have to approve it.
    pub needs_approval: bool,
    /// Rollouts that it would end.
    pub superseded: Vec<RolloutId>,
    /// What preflight finds, worst first.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// Devices that would not run it, and why; at most 1,000.
    #[serde(default)]
    pub refusals: Vec<ForecastRefusal>,
    /// How many there are in all.
    #[serde(default)]
    pub refused: u64,
    /// Bytes that the device with the largest download would fetch.
    #[serde(default)]
    pub largest_download_bytes: u64,
    /// When how many devices would be done.
    #[serde(default)]
    pub curve: Vec<ForecastPoint>,
    /// Devices that are expected to be done in the end.
    #[serde(default)]
    pub done: u64,
    /// Seconds until half of those, nine tenths and 99 of 100 are.
    #[serde(default)]
    pub done_after_s: Vec<u64>,
    /// What it rests on.
    #[serde(default)]
    pub basis: ForecastBasis,
}

/// A device that would not run the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ForecastRefusal {
    /// Which.
    pub device: DeviceId,
    /// How it would end.
    pub progress: DeviceProgress,
    /// The code that the device would give, such as `image.no-room`.
    pub code: String,
    /// Why, for people.
    pub reason: String,
}

/// A point of the curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ForecastPoint {
    /// Seconds after the begin.
    pub after_s: u64,
    /// Devices that are done by then.
    pub devices: u64,
}

/// For how many of the devices that would be told something was measured; for the others the fleet's own middle is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ForecastBasis {
    /// Devices that would be told, sooner or later.
    pub devices: u64,
    /// How fast their earlier downloads were.
    pub with_speed: u64,
    /// At which hours of the week they are connected.
    pub with_hours: u64,
    /// How much of their disk is free.
    pub with_disk: u64,
}

/// `GET /rollouts/{id}/forecast`: what was foreseen when the rollout was started, and what has come of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutCourse {
    /// What was foreseen; none of a rollout that was made without.
    pub forecast: Option<RolloutForecast>,
    /// When the first wave was opened.
    pub begun_at: Option<UnixMillis>,
    /// What has happened since, oldest first.
    pub fact: Vec<FactPoint>,
}

/// How far a rollout was at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FactPoint {
    /// When.
    pub at: UnixMillis,
    /// Devices that were done well.
    pub done: u64,
    /// Devices that had ended badly, or cannot run it.
    pub refused: u64,
}

/// What was found before a rollout began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Finding {
    /// The stable code, such as `preflight.unsigned`.
    pub code: String,
    /// How bad it is.
    pub severity: FindingSeverity,
    /// What was found, for people.
    pub text: String,
    /// How many devices it is about; 0 if it is about none in particular.
    #[serde(default)]
    pub devices: u64,
    /// Some of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<DeviceId>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum FindingSeverity {
    /// Good to know.
    Note,
    /// It goes on, and some devices will not have what they should.
    Warning,
    /// It does not begin.
    Error,
}
