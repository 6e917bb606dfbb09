//! What a device does with one model, each phase with exactly the data that it needs.

use sealift_protocol::digest::Digest;
use sealift_protocol::directive::{DesiredSlot, Trial};
use sealift_protocol::id::{Epoch, Generation, RolloutId, UnixMillis, Version};
use sealift_protocol::limits::REASON_CHARS_MAX;
use sealift_protocol::report::{ImageRef, OutcomeKind, Progress};
use serde::{Deserialize, Serialize};

use super::shadow::Shadowing;
use super::staged::Staged;

/// Which directive asked for which image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mandate {
    pub(crate) generation: Generation,
    pub(crate) rollout: Option<RolloutId>,
    #[serde(default)]
    pub(crate) campaign: Option<Digest>,
    pub(crate) image: ImageRef,
}

/// Whether an image has served its probation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Standing {
    Kept,
    OnTrial,
}

/// An image that is still on disk and can be gone back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Previous {
    version: Version,
    index: Digest,
    /// The security epoch that the publisher signed. Earlier agents did not note it: such an image counts as the oldest.
    #[serde(default)]
    pub(crate) epoch: Epoch,
}

impl Previous {
    pub(crate) fn new(image: ImageRef, epoch: Epoch) -> Self {
        let ImageRef { version, index } = image;
        Self { version, index, epoch }
    }

    pub(crate) const fn index(&self) -> Digest {
        self.index
    }

    pub(crate) fn image(&self) -> ImageRef {
        ImageRef { version: self.version.clone(), index: self.index }
    }
}

/// What a slot serves, and what it can go back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Live {
    pub(crate) mandate: Mandate,
    pub(crate) previous: Option<Previous>,
    pub(crate) standing: Standing,
    /// The security epoch that the publisher signed.
    pub(crate) epoch: Epoch,
    /// Starts of its worker that failed, one after the other.
    pub(crate) starts_failed: u8,
    /// What is served on trial for as long as this lasts, unless the server countersigns.
    #[serde(default)]
    pub(crate) lease: Option<Lease>,
}

/// The time within which the server must have seen an image on trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// The directive that began the trial: a countersign of an earlier trial is none of this one.
    pub(crate) generation: Generation,
    pub(crate) until: UnixMillis,
}

impl Live {
    pub(crate) const fn image(&self) -> &ImageRef {
        &self.mandate.image
    }

    /// The same image as one that can be gone back to.
    pub(crate) fn as_previous(&self) -> Previous {
        Previous::new(self.image().clone(), self.epoch)
    }

    /// Whether it is this image, and has proved itself before.
    pub(crate) fn has_kept(&self, image: &ImageRef) -> bool {
        self.standing == Standing::Kept && self.image().index == image.index
    }

    /// What to go back to from `next`: the newest image that has proved itself, never `next`.
    pub(crate) fn fallback_from(&self, next: &ImageRef) -> Option<Previous> {
        let kept = match self.standing {
            Standing::Kept => Some(self.as_previous()),
            Standing::OnTrial => self.previous.clone(),
        };
        let differs = |previous: &Previous| previous.index != next.index;
        let last_resort = || Some(self.as_previous()).filter(differs);
        kept.filter(differs).or_else(last_resort)
    }
}

/// The work on a wanted image before it is live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) generation: Generation,
    pub(crate) desired: DesiredSlot,
    /// The epoch that the publisher signed, once that is known.
    pub(crate) epoch: Epoch,
    /// Faults of the way to the server, one after the other.
    pub(crate) tries: u32,
    /// Times that the bytes on disk were not those that were signed.
    pub(crate) corrupt: u8,
    /// Looks at a window by a clock that cannot be right, and starts of the agent while it was waited for.
    #[serde(default)]
    pub(crate) looks: u16,
    /// Starts of the agent while the image was loaded or made live; it may be what stops the agent.
    pub(crate) boots: u8,
    /// When it was found to be like the live image, if it was compared: once is enough.
    #[serde(default)]
    pub(crate) alike_at: Option<UnixMillis>,
}

impl Attempt {
    pub(crate) fn new(generation: Generation, desired: DesiredSlot) -> Self {
        let epoch = Epoch::default();
        Self {
            generation,
            desired,
            epoch,
            tries: 0,
            corrupt: 0,
            looks: 0,
            boots: 0,
            alike_at: None,
        }
    }

    pub(crate) fn image(&self) -> ImageRef {
        ImageRef { version: self.desired.version.clone(), index: self.desired.index }
    }

    pub(crate) fn mandate(&self) -> Mandate {
        let DesiredSlot { rollout, campaign, .. } = self.desired;
        Mandate { generation: self.generation, rollout, campaign, image: self.image() }
    }
}

/// A phase; see the drawing at the head of the parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Serving, or nothing to serve; nothing to do.
    Idle { live: Option<Live> },
    /// Working towards an image while the live one serves on.
    Preparing { attempt: Attempt, live: Option<Live>, step: Step },
    /// Moving the pointer.
    Activating { attempt: Attempt, live: Option<Live>, until: UnixMillis },
    /// Serving a new image that may still be taken back.
    Trial { live: Live, rules: Trial, until: UnixMillis, crashes: u8, stage: Stage },
    /// Going back from an image that did badly.
    Reverting { from: Mandate, to: Option<Previous>, fault: Fault, until: UnixMillis },
    /// The live image does not start and there is nothing to go back to; tried again for ever.
    SafeMode { live: Live, tries: u32, retry_at: UnixMillis },
    /// The newest directive no longer names the model.
    Removing { live: Option<Live>, until: UnixMillis },
}

/// A step towards a new image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    Waiting {
        until: UnixMillis,
        /// What it waits for. Earlier agents did not note it.
        #[serde(default)]
        why: Option<Fault>,
    },
    Checking {
        until: UnixMillis,
    },
    Downloading {
        progress: Progress,
        stalled_at: UnixMillis,
    },
    Verifying {
        until: UnixMillis,
    },
    Staged(Staged),
    Warming {
        until: UnixMillis,
    },
    /// Loaded, and beside the live image.
    Shadowing(Shadowing),
    /// The rollout is halted: nothing runs, what is on disk stays, and it is begun with its checks once it goes on.
    Halted,
}

/// How far a new image has proved itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// Not kept yet; starts of the agent are counted.
    Probation { boots: u8 },
    /// Kept; errors still turn back.
    Watch,
}

/// Why a task failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fault {
    /// What follows from it.
    pub(crate) kind: FaultKind,
    /// The stable code.
    pub(crate) code: String,
    /// What happened, for people.
    pub(crate) reason: String,
}

/// What follows from a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FaultKind {
    /// The server cannot be reached: tried again for ever, after a share of the longest pause for this try.
    Unreachable {
        /// The share, drawn at random by the shell.
        spread_permille: u16,
    },
    /// Not now: the checks are begun again after this pause.
    Later { pause_ms: i64 },
    /// Bytes that are not those that were signed: fetched again, a few times.
    Corrupt,
    /// Not trusted, not allowed: final until the generation changes.
    Untrusted,
    /// No room: said once, and looked at again, for ever.
    NoRoom,
    /// No variant fits the hardware.
    NotApplicable,
    /// It does not run as it should.
    Failed,
    /// It is not enough like the live image: final until the generation changes, and nobody's attack.
    Unlike,
}

impl Fault {
    pub(crate) fn new(kind: FaultKind, code: &str, reason: &str) -> Self {
        let reason = reason.chars().take(REASON_CHARS_MAX).collect();
        Self { kind, code: code.to_owned(), reason }
    }

    /// Whether something was refused that should not have come.
    pub(crate) const fn is_security_event(&self) -> bool {
        matches!(self.kind, FaultKind::Corrupt | FaultKind::Untrusted)
    }

    /// How an attempt ends that this fault ends.
    pub(crate) const fn outcome(&self) -> OutcomeKind {
        match self.kind {
            FaultKind::Untrusted | FaultKind::NoRoom | FaultKind::Unlike => OutcomeKind::Rejected,
            FaultKind::NotApplicable => OutcomeKind::NotApplicable,
            FaultKind::Unreachable { .. }
            | FaultKind::Later { .. }
            | FaultKind::Corrupt
            | FaultKind::Failed => OutcomeKind::Failed,
        }
    }
}
