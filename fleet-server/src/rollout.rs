//! Decides which devices are told to run an image now, and whether the rollout goes on. Reads nothing, sends nothing.
//!
//! ```text
//!          start               nothing amiss                      approved              time has come
//!  Draft ─────────▶ Preflight ───────────────▶ AwaitingApproval ───────────▶ Scheduled ──────────────▶ Running
//!    ▲─── error ────────┘                      (where one is needed)         (where there is one)
//!             gate fails                        all waves passed          nobody left
//!  Running ───────────────▶ Halted     Running ─────────────────▶ Completing ────────▶ Succeeded
//!     ▲ ▲────── resume, promote ─┘        │  wave: Pending ▶ Open ▶ Soaking ▶ Evaluating ▶ Passed | Failed
//!     └── resume ── Paused ◀── pause ─────┘  Aborted, Superseded, Reverting ▶ Reverted: from anywhere, for good
//! ```
//!
//! The order of devices is a hash of device and rollout, the same every time. A wave says how many devices in all may have been told
//! once it is open, so a plan made twice tells nobody twice, and a plan that was not carried out is simply made again.

use std::collections::BTreeMap;

use sealift_protocol::api::{Budget, DeviceProgress, WavePlan};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, Generation, RolloutId, UnixMillis};
use sealift_protocol::report::{Halted, Hold, OutcomeKind, Phase, Shadowed};

pub mod action;
mod budget;
pub mod evidence;
mod gate;
pub mod habits;
mod judge;
pub mod pace;
pub mod preflight;
pub mod rehearsal;
mod revert;
mod wave;
mod why;

pub use evidence::Comparison;
pub(crate) use gate::BAD_SHARE_MAX;
pub use gate::Gate;
pub use revert::{Reversion, WayBack};
use wave::since;
use why::Ending;
pub use why::{Halt, Why};

/// Devices that were offline may catch up for this long after the last wave, where nobody says for how long; then the rollout ends
/// without them.
pub const TAIL_S: u32 = 7 * 24 * 3_600;

/// What the operator wants, and how far it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    /// Its number.
    pub id: RolloutId,
    /// Its place among all rollouts, by when they were started: a higher one takes devices from a lower one.
    pub turn: u64,
    /// The image that its devices should run. Going back is a rollout to an earlier image.
    pub image: Digest,
    /// Its steps; at least one.
    pub waves: Vec<Wave>,
    /// Where it is.
    pub stage: Stage,
    /// How long a device tries an image before it keeps it.
    pub probation_ms: i64,
    /// For how long it compares the image with the live one before that, at most.
    pub shadow_ms: i64,
    /// How long a device may say nothing.
    pub silent_after_ms: i64,
    /// Going back reaches offline devices too: what waits for them when they return must not be the bad version.
    pub is_rollback: bool,
    /// The first wave, from 0, that is not opened before somebody has approved it.
    pub held_from: Option<usize>,
    /// Before this no wave is opened.
    pub start_at: Option<UnixMillis>,
    /// How many devices may be at work at a time.
    pub budget: Option<Budget>,
    /// How long devices that were offline may catch up after the last wave.
    pub tail_ms: i64,
    /// The rollbacks that take its devices back, oldest first.
    pub reverted_by: Vec<WayBack>,
}

/// Where a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Written down, and not started.
    Draft,
    /// Started, and not looked over yet.
    Preflight,
    /// Not begun before somebody has approved it.
    AwaitingApproval,
    /// Not begun before its time.
    Scheduled,
    /// Telling devices, wave by wave.
    Running,
    /// Stopped by an operator.
    Paused,
    /// Stopped by a gate.
    Halted,
    /// All waves passed; devices that were offline catch up.
    Completing {
        /// Since when.
        since: UnixMillis,
    },
    /// Nobody is left.
    Succeeded,
    /// Given up.
    Aborted,
    /// A newer rollout of the model took its devices.
    Superseded,
    /// Rollbacks take its devices back.
    Reverting,
    /// They did.
    Reverted,
}

impl Stage {
    /// Whether nothing more will come of it.
    pub const fn is_over(self) -> bool {
        match self {
            Self::Succeeded | Self::Aborted | Self::Superseded | Self::Reverted => true,
            Self::Draft
            | Self::Preflight
            | Self::AwaitingApproval
            | Self::Scheduled
            | Self::Running
            | Self::Paused
            | Self::Halted
            | Self::Completing { .. }
            | Self::Reverting => false,
        }
    }

    /// Whether it tells devices by itself, sooner or later, if nobody stops it.
    pub const fn is_under_way(self) -> bool {
        match self {
            Self::Preflight
            | Self::AwaitingApproval
            | Self::Scheduled
            | Self::Running
            | Self::Completing { .. } => true,
            Self::Draft
            | Self::Paused
            | Self::Halted
            | Self::Succeeded
            | Self::Aborted
            | Self::Superseded
            | Self::Reverting
            | Self::Reverted => false,
        }
    }
}

/// One step: up to how many devices in all, and under which conditions the next step comes.
#[derive(Debug, Clone, PartialEq)]
pub struct Wave {
    /// What the operator asked for.
    pub plan: WavePlan,
    /// Where it is.
    pub standing: Standing,
    /// How its devices compare with others, as of the last look.
    pub comparisons: Vec<Comparison>,
}

/// Where a wave is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not begun.
    Pending,
    /// Its devices are told.
    Open {
        /// Since when.
        since: UnixMillis,
    },
    /// Its devices are done, and watched.
    Soaking {
        /// When it was opened.
        since: UnixMillis,
        /// Until when it is watched.
        until: UnixMillis,
    },
    /// Watched long enough, and too few devices are done to judge it by.
    Evaluating {
        /// When it was opened.
        since: UnixMillis,
    },
    /// Its gates held.
    Passed {
        /// When it was opened.
        since: UnixMillis,
    },
    /// A gate failed.
    Failed {
        /// When it was opened.
        since: UnixMillis,
    },
}

/// The devices that a rollout is about.
pub type Fleet = BTreeMap<DeviceId, DeviceView>;

/// What the server knows of a device, as far as one rollout is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceView {
    /// Since when it is connected; none when it is not.
    pub online_since: Option<UnixMillis>,
    /// What it should run of the rollout's model, and who said so.
    pub desired: Option<Desired>,
    /// That this rollout has told it.
    pub told: Option<Told>,
    /// That the rollout of `desired` has; known of rollouts that are taken back.
    pub told_now: Option<Told>,
    /// The newest directive that it has accepted.
    pub accepted: Generation,
    /// The newest directive that it has refused.
    pub refused: Option<Refused>,
    /// What it says of the rollout's model.
    pub slot: Option<Slot>,
    /// That it ended badly with this image before.
    pub penalty: Option<Failure>,
    /// Requests answered and failed since the agent started.
    pub served: Served,
    /// Its newest directive, if its image is on trial and stays only when the server says that it has seen that.
    pub lease: Option<Generation>,
    /// That its owner keeps what it serves.
    pub held: Option<Hold>,
    /// That it waits because all rollouts were stopped.
    pub halted: Option<Halted>,
    /// Its value of the label that the rollout's budget is about; empty if it has none.
    pub group: String,
    /// The waves with a filter of their own that it matches: bit 0 for the first wave.
    pub waves: u64,
}

/// What a device should run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The rollout that says so.
    pub rollout: RolloutId,
    /// That rollout's place among all.
    pub turn: u64,
    /// The image.
    pub image: Digest,
}

/// That and how a rollout told a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// In which wave, from 0.
    pub wave: usize,
    /// By which directive.
    pub generation: Generation,
    /// When.
    pub at: UnixMillis,
    /// The device's counts at that time.
    pub served: Served,
    /// An operator went on although the device ended badly: it counts no more.
    pub is_excused: bool,
}

/// Requests that a device has answered, and failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Served {
    /// Answered.
    pub requests: u64,
    /// Failed.
    pub errors: u64,
}

/// A directive that a device refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Which.
    pub generation: Generation,
    /// Why.
    pub failure: Failure,
}

/// What a device says of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The directive that the phase is about.
    pub generation: Generation,
    /// What it is doing.
    pub phase: Phase,
    /// What it serves.
    pub serving: Option<Digest>,
    /// How the last attempt ended.
    pub outcome: Option<Outcome>,
    /// How the last image compares that was tried beside the live one.
    pub shadow: Option<Shadowed>,
    /// When it said so, by the server's clock.
    pub reported_at: UnixMillis,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The directive that asked for it.
    pub generation: Generation,
    /// The image.
    pub image: Digest,
    /// How.
    pub kind: OutcomeKind,
    /// Why.
    pub failure: Failure,
}

/// Why something ended badly, in the device's words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failure {
    /// The stable code.
    pub code: String,
    /// For people.
    pub reason: String,
}

/// What to do now, and how everything stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Where the rollout is now.
    pub stage: Stage,
    /// Where each wave is now.
    pub waves: Vec<WaveReading>,
    /// Whom to tell, and in which wave, in this order.
    pub tell: Vec<(DeviceId, usize)>,
    /// Whose trial of the image was seen: they are told so, or turn back by themselves.
    pub countersign: Vec<DeviceId>,
    /// Where each device is.
    pub devices: BTreeMap<DeviceId, Position>,
    /// How far its devices are on their way back, where it is taken back.
    pub reversion: Option<Reversion>,
    /// Why the rollout is where it is.
    pub why: String,
}

/// How a wave does.
#[derive(Debug, Clone, PartialEq)]
pub struct WaveReading {
    /// Where it is.
    pub standing: Standing,
    /// Devices in it.
    pub devices: u64,
    /// Of them, how many are done well.
    pub succeeded: u64,
    /// Of them, how many are bad.
    pub bad: u64,
    /// Its gates.
    pub gates: Vec<Gate>,
}

/// Where a device is in a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Its wave, from 0; none if all waves together do not reach it.
    pub wave: Option<usize>,
    /// How it does.
    pub progress: DeviceProgress,
    /// Why.
    pub why: Why,
}

/// Plans the next step. The same inputs always give the same plan.
pub fn plan(rollout: &Rollout, fleet: &Fleet, now: UnixMillis) -> Plan {
    let mut census = wave::Census::take(rollout, fleet, now);
    let mut standings: Vec<_> = rollout.waves.iter().map(|wave| wave.standing).collect();
    let mut stage = rollout.stage;
    let mut tell = Vec::new();
    let mut reversion = None;
    let why = match stage {
        Stage::AwaitingApproval | Stage::Scheduled | Stage::Running | Stage::Completing { .. } => {
            if let Some((number, halt)) = census.first_failed_gate(&standings) {
                if let Some(standing) = standings.get_mut(number) {
                    *standing = Standing::Failed { since: standing.since().unwrap_or(now) };
                }
                stage = Stage::Halted;
                halt.to_string()
            } else if let Some((waiting, why)) = rollout.waits(now) {
                stage = waiting;
                why
            } else {
                let step = census.advance(stage, &mut standings, now);
                stage = step.stage;
                tell = step.tell;
                step.why
            }
        }
        Stage::Halted => census.first_failed_gate(&standings).map_or_else(
            || match census.result() {
                result if result.serving == 0 => format!("halted; {result}"),
                _ => "halted; the gate that failed would hold now".to_owned(),
            },
            |(_, halt)| halt.to_string(),
        ),
        Stage::Succeeded => census.result().to_string(),
        Stage::Draft => "a draft: nobody is told before it is started".to_owned(),
        Stage::Preflight => "is looked over before it begins".to_owned(),
        Stage::Paused => "paused by an operator".to_owned(),
        Stage::Aborted => "given up by an operator; devices stay on what they have".to_owned(),
        Stage::Superseded => "a newer rollout of the model took its devices".to_owned(),
        Stage::Reverting | Stage::Reverted => {
            let taken = Reversion::take(rollout, fleet, now);
            if stage == Stage::Reverting {
                stage = taken.stage(rollout);
            }
            reversion = Some(taken);
            taken.why(rollout)
        }
    };
    let waves = census.readings(&standings);
    let mut devices = census.into_positions(&standings);
    if reversion.is_some() {
        revert::explain(rollout, fleet, &mut devices, now);
    }
    let countersign = seen_on_trial(rollout, fleet);
    Plan { stage, waves, tell, countersign, devices, reversion, why }
}

/// Also of a rollout that was halted: whether devices are heard is another question than whether they do well.
fn seen_on_trial(rollout: &Rollout, fleet: &Fleet) -> Vec<DeviceId> {
    let is_seen = |device: &DeviceView| {
        let owner = device.desired.as_ref().map(|desired| desired.rollout);
        let serving = device.slot.as_ref().and_then(|slot| slot.serving);
        device.lease.is_some() && owner == Some(rollout.id) && serving == Some(rollout.image)
    };
    fleet.iter().filter(|(_, device)| is_seen(device)).map(|(id, _)| id.clone()).collect()
}

impl Rollout {
    /// Until when it waits, if it has not begun and its time has not come.
    pub fn waits_until(&self, now: UnixMillis) -> Option<UnixMillis> {
        self.start_at.filter(|&start_at| now < start_at && !self.has_begun())
    }

    /// What it waits for before it begins: first for approval, then for its time.
    fn waits(&self, now: UnixMillis) -> Option<(Stage, String)> {
        if self.held_from == Some(0) && !self.has_begun() {
            return Some((Stage::AwaitingApproval, "wave 1: waits for approval".to_owned()));
        }
        let start_at = self.waits_until(now)?;
        Some((Stage::Scheduled, format!("begins at {start_at}")))
    }

    fn has_begun(&self) -> bool {
        self.waves.iter().any(|wave| wave.standing != Standing::Pending)
    }

    /// Whether nothing more is told before somebody approves.
    pub fn waits_for_approval(&self) -> bool {
        let standings = self.waves.iter().map(|wave| wave.standing);
        waits_for_approval(self.stage, self.held_from, standings)
    }
}

/// Whether the next wave of a rollout is held, and not begun.
pub fn waits_for_approval(
    stage: Stage,
    held_from: Option<usize>,
    mut waves: impl Iterator<Item = Standing>,
) -> bool {
    let next = waves.position(|wave| !matches!(wave, Standing::Passed { .. }));
    let is_ordered = !stage.is_over() && !matches!(stage, Stage::Draft | Stage::Preflight);
    is_ordered && held_from.zip(next).is_some_and(|(held, next)| next >= held)
}

impl Standing {
    /// When the wave was opened.
    pub const fn since(self) -> Option<UnixMillis> {
        match self {
            Self::Pending => None,
            Self::Open { since }
            | Self::Soaking { since, .. }
            | Self::Evaluating { since }
            | Self::Passed { since }
            | Self::Failed { since } => Some(since),
        }
    }
}

#[cfg(test)]
mod tests;
