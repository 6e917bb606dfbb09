//! Bodies of `/api/v1/halt`: all rollouts stopped at once.

use serde::{Deserialize, Serialize};

use crate::id::{RolloutId, UnixMillis};

/// `POST /halt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct HaltNew {
    /// Why; must not be empty.
    pub reason: String,
}

/// `GET /halt`: whether all rollouts are stopped, and which devices have confirmed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HaltView {
    /// The halt; none while rollouts go on.
    pub halt: Option<HaltOrder>,
    /// The newest list that was signed for devices; 0 if there never was one.
    pub sequence: u64,
    /// Devices that say that they obey that list.
    pub confirmed: u64,
    /// Devices that are connected and have not said so.
    pub unconfirmed: u64,
    /// Devices that are offline and have not said so: they hear of it when they come back.
    pub offline: u64,
}

/// Who has stopped all rollouts, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HaltOrder {
    /// Since when.
    pub since: UnixMillis,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The newest rollout at that time. What was ordered later waits as well, unless it goes back.
    pub newest: RolloutId,
    /// How many rollouts devices were told to stop.
    pub rollouts: u64,
}
