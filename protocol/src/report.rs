//! What a device says it runs. The whole truth each time, so that losing or repeating a report loses nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{Generation, ModelName, RolloutId, UnixMillis, Version};

mod shadow;

pub use shadow::{ShadowCounts, Shadowed};

/// Reported state of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The newest directive that the device has accepted.
    pub generation: Generation,
    /// The newest directive that it refused, if that is newer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
    /// One entry per model on the device.
    pub slots: Vec<SlotReport>,
    /// When, by the device's clock.
    pub at: UnixMillis,
    /// What the device trusts; none from an agent that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted: Option<Trusted>,
}

/// Versions of the trust metadata that a device has verified. It takes none that are older: a server that was restored from a backup
/// sees here how far ahead of it the device is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Trusted {
    /// The root.
    pub root: u64,
    /// The timestamp.
    pub timestamp: u64,
    /// The snapshot.
    pub snapshot: u64,
    /// Roles that name targets, as the snapshot lists them.
    #[serde(default)]
    pub roles: BTreeMap<String, u64>,
    /// The newest list of halted rollouts that it obeys; 0 for none.
    #[serde(default)]
    pub halt: u64,
    /// The newest list of what is kept for people to look at that it goes by, or would if its owner did not forbid it; 0 for none.
    #[serde(default, skip_serializing_if = "is_none")]
    pub capture: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls it with")]
const fn is_none(sequence: &u64) -> bool {
    *sequence == 0
}

/// A directive that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Its generation, where it could be read.
    pub generation: Option<Generation>,
    /// The stable code.
    pub code: String,
    /// What happened, for people.
    pub reason: String,
}

/// Reported state of one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReport {
    /// The model.
    pub model: ModelName,
    /// The directive that this phase is about.
    pub generation: Generation,
    /// What the device is doing.
    pub phase: Phase,
    /// What it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<ImageRef>,
    /// What it is working towards, if that is something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<ImageRef>,
    /// What it can go back to without a download.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<ImageRef>,
    /// Bytes fetched and to fetch, while downloading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// How the last attempt ended. Stays until the next one ends, so that it cannot be missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Execution providers that really run the graph, with their count of nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<(String, u32)>,
    /// Digest of the rollout that brought what it serves, as the directive gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign: Option<Digest>,
    /// When the device turns back unless the server has countersigned, by the device's clock; none if it has, or need not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_until: Option<UnixMillis>,
    /// The device's owner keeps what it serves: nothing new is begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Hold>,
    /// What it waits for before it goes on, in [`Phase::Waiting`] and [`Phase::Staged`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
    /// The fleet's operators have stopped the rollout that the device would go on with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<Halted>,
    /// How the last image compares that was tried beside the live one; in [`Phase::Shadowing`] the counts still rise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadowed>,
}

impl SlotReport {
    /// Of a model at rest, of which there is nothing to tell but what a directive has said of it.
    pub const fn idle(model: ModelName, generation: Generation) -> Self {
        Self {
            model,
            generation,
            phase: Phase::Idle,
            serving: None,
            next: None,
            previous: None,
            progress: None,
            outcome: None,
            providers: Vec::new(),
            campaign: None,
            lease_until: None,
            held: None,
            wait: None,
            halted: None,
            shadow: None,
        }
    }
}

/// The code of a wait for a maintenance window: the device is as little to blame for it as one that is offline.
pub const OUTSIDE_WINDOW: &str = "window.shut";

/// Why a device does not go on at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Wait {
    /// The stable code.
    pub code: String,
    /// What it waits for, for people; at most 400 characters.
    pub reason: String,
    /// When it looks again, or the window opens, by the device's clock.
    pub until: UnixMillis,
}

/// That a device waits because the rollout was stopped on all devices at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Halted {
    /// When the list that says so was signed, by the server's clock.
    pub since: UnixMillis,
    /// Why; at most 400 characters.
    pub reason: String,
}

/// The word of a device's owner, said on the device itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hold {
    /// Until when, by the device's clock.
    pub until: UnixMillis,
    /// Why; at most 400 characters.
    pub reason: String,
}

/// An image by name and digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageRef {
    /// The version, for people.
    pub version: Version,
    /// Digest of the OCI index.
    pub index: Digest,
}

/// Bytes fetched and to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Fetched and checked.
    pub done_bytes: u64,
    /// In all.
    pub total_bytes: u64,
}

/// What a device is doing with one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Phase {
    /// Serving, or nothing to serve; nothing to do.
    Idle,
    /// Checking signatures, space and hardware.
    Checking,
    /// Waiting for a retry, or for leave to download.
    Waiting,
    /// Fetching blobs.
    Downloading,
    /// Hashing and scanning.
    Verifying,
    /// Complete on disk; waiting for the maintenance window.
    Staged,
    /// Loading in a worker; golden tests.
    Warming,
    /// Beside the live model, answering nobody.
    Shadowing,
    /// Moving the pointer.
    Activating,
    /// Serving, not yet kept.
    Probation,
    /// Kept; the previous image stays at hand.
    Watch,
    /// Going back.
    Reverting,
    /// Nothing works but the agent.
    SafeMode,
}

/// How an attempt to run an image ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Outcome {
    /// The directive that asked for it.
    pub generation: Generation,
    /// The rollout that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutId>,
    /// The image.
    pub image: ImageRef,
    /// How it ended.
    pub result: OutcomeKind,
    /// The stable code of a failure; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// What happened, for people; at most 400 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When, by the device's clock.
    pub at: UnixMillis,
    /// Where an image was taken back: when it had been kept, if it had. The device is late with that; its wave may be over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_at: Option<UnixMillis>,
}

impl Outcome {
    /// Whether an image was taken back that had been kept before: it counts against a wave that is over.
    pub fn is_late(&self) -> bool {
        self.result == OutcomeKind::RolledBack && self.kept_at.is_some()
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OutcomeKind {
    /// Served its probation and is kept.
    Committed,
    /// An error before it served.
    Failed,
    /// Not trusted, not allowed, no room.
    Rejected,
    /// No variant fits the hardware; not a failure.
    NotApplicable,
    /// Served, did badly, and was taken back.
    RolledBack,
    /// A newer directive came first.
    Superseded,
}

impl OutcomeKind {
    /// Whether it counts against a rollout.
    pub const fn is_bad(self) -> bool {
        match self {
            Self::Failed | Self::Rejected | Self::RolledBack => true,
            Self::Committed | Self::NotApplicable | Self::Superseded => false,
        }
    }
}
