//! Rollouts and rollback.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Finding;
use crate::digest::Digest;
use crate::directive::Trial;
use crate::id::{DeviceId, ModelName, RolloutId, UnixMillis, Version};

/// `POST /rollouts`, `PUT /rollouts/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutNew {
    /// The model.
    pub model: ModelName,
    /// The version; must be signed and not quarantined.
    pub version: Version,
    /// Which devices, as a filter; empty for all.
    #[serde(default)]
    pub filter: String,
    /// In what steps; one step for all if empty.
    #[serde(default)]
    pub waves: Vec<WavePlan>,
    /// How long and how strictly each device tries it.
    #[serde(default)]
    pub trial: Trial,
    /// Before this nobody is told; at once if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<UnixMillis>,
    /// How many devices may be at work on it at a time; as many as a wave has if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// Seconds for which devices that were offline may catch up after the last wave; a week if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail_s: Option<u32>,
    /// Only written down: it can be changed, and nobody is told before it is started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draft: bool,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// How many devices with the same value of a label may be at work on a rollout at a time: told, and not done with it.
///
/// Devices without the label count as one group of their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// The label's name, such as `site`.
    pub label: String,
    /// At most so many; either this or `percent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// At most this share of the devices with the same value, 0 to 100; never less than one device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
}

/// One step of a rollout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WavePlan {
    /// What people call it, such as `canary`.
    #[serde(default)]
    pub name: String,
    /// Up to which share of the devices, 0 to 100; either this or `count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
    /// Up to how many devices in all, this wave and the earlier ones together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Only devices that match this filter too; share and count are then of those alone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub filter: String,
    /// Devices that must be done, well or badly, before the wave is judged; without it one that did well is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_devices: Option<u64>,
    /// Seconds to watch after the last device of the wave is done.
    #[serde(default)]
    pub soak_s: u32,
    /// Largest share of bad devices (failed, rejected, rolled back, silent), 0 to 1; 0.1 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bad_share: Option<f64>,
    /// Largest share of requests that may fail on devices of the wave, 0 to 1; not looked at if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_error_share: Option<f64>,
    /// How much worse devices of the wave may do than those that were not told yet.
    #[serde(default, skip_serializing_if = "ModelGates::is_usual")]
    pub gates: ModelGates,
}

/// How much worse devices with the new image may do than devices without it, before the rollout halts. A gate that is `null` is off.
///
/// They halt a rollout of a harmless image once in a hundred times, all together, however often somebody looks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelGates {
    /// By how much the share of failed requests may be higher, 0 to 1; 0.002 if not given.
    pub error_rise: Option<f64>,
    /// By which part the 95th percentile of latency may be higher; 0.05 if not given.
    pub latency_rise: Option<f64>,
    /// By how much the mean confidence may be lower, 0 to 1; 0.02 if not given.
    pub confidence_fall: Option<f64>,
    /// By how much the share of any class among predictions may differ, 0 to 1; 0.1 if not given.
    pub class_shift: Option<f64>,
    /// By how much the share of unusable input values may be higher, 0 to 1; 0.05 if not given.
    pub input_rise: Option<f64>,
    /// On which share of rows the new image may say something else than the live one beside it, 0 to 1; off if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disagreement: Option<f64>,
    /// Devices of the wave that must have answered something before anything is concluded; 1 if not given.
    pub min_devices: u32,
    /// Requests that they must have had; 100 if not given.
    pub min_requests: u64,
}

impl Default for ModelGates {
    fn default() -> Self {
        Self {
            error_rise: Some(0.002),
            latency_rise: Some(0.05),
            confidence_fall: Some(0.02),
            class_shift: Some(0.1),
            input_rise: Some(0.05),
            disagreement: None,
            min_devices: 1,
            min_requests: 100,
        }
    }
}

impl ModelGates {
    /// Nothing is compared.
    pub fn off() -> Self {
        Self {
            error_rise: None,
            latency_rise: None,
            confidence_fall: None,
            class_shift: None,
            input_rise: None,
            disagreement: None,
            ..Self::default()
        }
    }

    /// Whether anything is compared.
    pub const fn compares(&self) -> bool {
        self.error_rise.is_some()
            || self.latency_rise.is_some()
            || self.confidence_fall.is_some()
            || self.class_shift.is_some()
            || self.input_rise.is_some()
            || self.disagreement.is_some()
    }

    /// Whether these are the gates that apply where nobody said anything.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// Where a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RolloutState {
    /// Written down, and not started.
    Draft,
    /// Looked over before it begins.
    Preflight,
    /// Somebody else than its maker must approve it.
    AwaitingApproval,
    /// Begins at its time.
    Scheduled,
    /// Sending directives, wave by wave.
    Running,
    /// Stopped by an operator.
    Paused,
    /// Stopped by a gate; an operator must decide.
    Halted,
    /// All waves passed; devices that were offline still catch up.
    Completing,
    /// Every device is done.
    Succeeded,
    /// Given up; devices stay on what they have.
    Aborted,
    /// A newer rollout of the model took its devices.
    Superseded,
    /// Rollbacks take back what it brought; it tells nobody any more.
    Reverting,
    /// What it brought was taken back, as far as devices have proved.
    Reverted,
    /// A word of a newer server, which this program does not know. No server says it.
    #[serde(other)]
    Unknown,
}

/// Where a wave is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum WaveState {
    /// Not begun.
    Pending,
    /// Directives are out.
    Open,
    /// Every device is done; watching.
    Soaking,
    /// Watched long enough; not enough devices are done to judge it by.
    Evaluating,
    /// Its gates passed.
    Passed,
    /// A gate failed.
    Failed,
}

/// Where a device is in a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DeviceProgress {
    /// Its wave has not begun.
    Queued,
    /// The directive is published.
    Offered,
    /// The device has accepted it.
    InProgress,
    /// Serving the new image, not yet kept.
    Probation,
    /// Kept.
    Succeeded,
    /// An error before it served.
    Failed,
    /// Refused by the device.
    Rejected,
    /// No variant fits its hardware.
    NotApplicable,
    /// Tried and taken back.
    RolledBack,
    /// Told, online, and not answering for too long.
    Silent,
    /// Offline; it catches up when it comes back.
    Offline,
    /// A newer directive came first.
    Superseded,
}

/// What can be done with a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Action {
    /// Begin with a draft.
    Start,
    /// Stop sending.
    Pause,
    /// Go on.
    Resume,
    /// Begin the next wave now, whatever the soak and the gates say.
    Promote,
    /// Give up.
    Abort,
    /// Offer it again to devices that failed.
    Retry,
    /// Go back.
    Rollback,
    /// Let it go on; somebody else than its maker.
    Approve,
    /// Do not let it go on; it ends.
    Reject,
}

/// An action, and whether it can be taken now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AllowedAction {
    /// The action.
    pub action: Action,
    /// Why not; none if it can be taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// `GET /rollouts`, `GET /rollouts/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutView {
    /// Its id.
    pub id: RolloutId,
    /// The model.
    pub model: ModelName,
    /// The version it brings.
    pub version: Version,
    /// Which devices.
    pub filter: String,
    /// Where it is.
    pub state: RolloutState,
    /// Whether it goes back to an earlier version.
    pub is_rollback: bool,
    /// Why it was made.
    pub reason: String,
    /// Why it is where it is, in a sentence.
    pub why: String,
    /// Who made it.
    pub created_by: String,
    /// Digest over everything that it was asked for with: every directive of this rollout carries it, and devices report it.
    #[serde(default)]
    pub campaign: Option<Digest>,
    /// Whether an operator has put a second signature under it.
    #[serde(default)]
    pub is_cosigned: bool,
    /// Who approved it, where that was needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// When it was made.
    pub created_at: UnixMillis,
    /// Before this nobody is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<UnixMillis>,
    /// When it ended.
    pub finished_at: Option<UnixMillis>,
    /// How many devices may be at work on it at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// How each device tries the image, and when.
    #[serde(default)]
    pub trial: Trial,
    /// Until when devices that were offline may catch up; none before all waves have passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail_until: Option<UnixMillis>,
    /// For how many seconds they may, once all waves have passed.
    #[serde(default)]
    pub tail_s: u32,
    /// What was found when it was last looked over, worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// The rollbacks that took devices from it, oldest first. One that is neither `reverting` nor `reverted` was taken back in part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reverted_by: Vec<RolloutId>,
    /// How far its devices are on their way back, once all of them are taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reversion: Option<ReversionView>,
    /// The devices that took it back after it was over, if any did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<LateView>,
    /// Its steps.
    pub waves: Vec<WaveView>,
    /// How many devices are where.
    pub progress: BTreeMap<DeviceProgress, u64>,
    /// What can be done now.
    pub allowed_actions: Vec<AllowedAction>,
}

/// How far devices are on their way back from what a rollout brought; each of them is counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct ReversionView {
    /// Have proved by their own reports that they serve what they were told instead.
    pub back: u64,
    /// Are told, or at work on it.
    pub at_work: u64,
    /// Are told, and offline; it is the first thing that they hear.
    pub offline: u64,
    /// Ended badly on the way back.
    pub bad: u64,
    /// Were taken back by no rollback, and serve what it brought.
    pub kept: u64,
}

/// Devices that took back what a rollout brought after it was over. Each is counted once, also where it follows something newer by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LateView {
    /// How many.
    pub devices: u64,
    /// When the first of them said so.
    pub since: UnixMillis,
    /// The newest of them.
    pub newest: DeviceId,
    /// Why it did, in its own words.
    pub why: String,
}

/// One step of a rollout, and how it does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WaveView {
    /// The plan.
    pub plan: WavePlan,
    /// Where it is.
    pub state: WaveState,
    /// Devices in it.
    pub devices: u64,
    /// How many are done well.
    pub succeeded: u64,
    /// How many are bad.
    pub bad: u64,
    /// When it was opened.
    pub opened_at: Option<UnixMillis>,
    /// Until when it is watched.
    pub soak_until: Option<UnixMillis>,
    /// Its gates.
    pub gates: Vec<GateView>,
}

/// A gate: what is measured, against what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GateView {
    /// `bad-share`, `error-share`; compared with other devices: `error-rise`, `latency-rise`, `confidence-fall`, `class-shift`,
    /// `input-rise`; with the live image: `disagreement`.
    pub name: String,
    /// What it is now; none before there is anything to judge. Of latency, in µs.
    pub value: Option<f64>,
    /// The limit; of a comparison, how much worse than `control` it may be.
    pub limit: f64,
    /// Whether it holds.
    pub passed: bool,
    /// What is compared, and the evidence; none for a gate that compares nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<EvidenceView>,
}

/// How devices of a wave compare with others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EvidenceView {
    /// What those have that they are compared with.
    pub control: f64,
    /// The evidence that the wave is worse than allowed: an e-value.
    pub e_value: f64,
    /// With that much evidence the rollout halts.
    pub e_limit: f64,
    /// Compared with their own past: there is nobody else.
    #[serde(default)]
    pub is_against_past: bool,
    /// In words.
    #[serde(default)]
    pub text: String,
}

/// `GET /rollouts/{id}/why`: why a device is where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WhyView {
    /// The device.
    pub device: DeviceId,
    /// Its wave, from 0.
    pub wave: u64,
    /// Where it is.
    pub progress: DeviceProgress,
    /// Why, in a sentence.
    pub why: String,
}

/// `POST /rollouts/{id}/cosign`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CosignNew {
    /// An operator's COSE signature under the rollout's approval, in base64.
    pub cosignature: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_is_not_known_yet_does_not_hide_the_rest() {
        let states: Vec<RolloutState> =
            serde_json::from_str(r#"["reverting", "reverted", "rehearsing"]"#).unwrap();
        assert_eq!(
            states,
            [RolloutState::Reverting, RolloutState::Reverted, RolloutState::Unknown]
        );
    }

    #[test]
    fn what_an_older_server_says_of_a_rollback_is_read() {
        let said = r#"{"rollout":"r-5","version":"1","quarantined":["2"],"devices":3,
            "without_download":2,"superseded":["r-3"]}"#;
        let result: super::super::RollbackResult = serde_json::from_str(said).unwrap();
        assert!(result.reverting.is_empty() && result.reverting_in_part.is_empty());
    }
}
