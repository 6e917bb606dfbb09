//! Why a device is where it is, and why a rollout halts: values first, sentences when a person reads them.

use std::fmt;

use sealift_protocol::id::{RolloutId, UnixMillis};
use sealift_protocol::report::{Halted, Hold, Phase};

use super::{Comparison, Failure};

/// Why a device is where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Its wave has not begun.
    WaveNotOpen {
        /// The wave, from 0.
        wave: usize,
    },
    /// Its wave is open, and it is told now.
    Next,
    /// Its wave is open, and as many devices of its group are at work as may be.
    OverBudget {
        /// Its value of the label that the budget is about.
        group: String,
    },
    /// It loads the image once its maintenance window opens.
    WaitsForWindow,
    /// The rollout does not tell anybody now.
    NotTelling,
    /// All waves together do not reach it.
    BeyondLastWave,
    /// It is offline and has not been told.
    OfflineUntold,
    /// It is offline, and has been told.
    OfflineTold,
    /// It served the image before the rollout came to it.
    AlreadyServes,
    /// The directive is out, and the device has not accepted it yet.
    Offered {
        /// Since when.
        since: UnixMillis,
    },
    /// It works on it.
    Working(Phase),
    /// Its owner keeps what it serves, on the device itself.
    Held(Hold),
    /// All rollouts were stopped while it was at work.
    Halted(Halted),
    /// All rollouts are stopped, and it has not been told.
    FleetHalted,
    /// It serves the image, and keeps it.
    Kept,
    /// It ended badly.
    Failed(Failure),
    /// It ended badly with this image before, and is not offered it again.
    Penalised(Failure),
    /// None of the image's variants runs on it.
    NoVariant(Failure),
    /// It is online, and has not answered the directive.
    NoAnswer {
        /// Since when.
        since: UnixMillis,
    },
    /// It has begun to serve the image, and nothing has come from it since.
    SilentAfterActivation {
        /// The last that came.
        since: UnixMillis,
    },
    /// It is online, and has not come further for too long.
    Stuck {
        /// In what.
        phase: Phase,
        /// Since when.
        since: UnixMillis,
    },
    /// A newer rollout has told it something else.
    TakenBy(RolloutId),
    /// A rollback tells it next.
    NotTakenBackYet,
    /// No rollback took it back.
    NotTakenBack,
    /// A rollback has told it.
    GoesBack {
        /// Which.
        by: RolloutId,
        /// How far it is.
        why: Box<Self>,
    },
    /// A rollback has told it, and it serves that.
    IsBack {
        /// Which.
        by: RolloutId,
    },
    /// A rollback has told it, and it ended badly.
    NotBack {
        /// Which.
        by: RolloutId,
        /// How.
        why: Box<Self>,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WaveNotOpen { wave } => write!(f, "wave {} has not begun", wave + 1),
            Self::Next => f.write_str("its wave is open; it is told next"),
            Self::OverBudget { group } if group.is_empty() => {
                f.write_str("as many devices without the budget's label are at work as may be")
            }
            Self::OverBudget { group } => {
                write!(f, "as many devices of `{group}` are at work as may be")
            }
            Self::WaitsForWindow => f.write_str("told; waits for its maintenance window"),
            Self::NotTelling => f.write_str("the rollout tells nobody now"),
            Self::BeyondLastWave => f.write_str("the waves together do not reach it"),
            Self::OfflineUntold => f.write_str("offline; it is told when it comes back"),
            Self::OfflineTold => f.write_str("told, and offline; it goes on when it comes back"),
            Self::AlreadyServes => f.write_str("it served the image already"),
            Self::Offered { since } => write!(f, "told at {since}; no answer yet"),
            Self::Working(phase) => write!(f, "working: {}", phase_text(*phase)),
            Self::Held(Hold { until, reason }) => {
                write!(f, "its owner keeps what it serves until {until}: {reason}")
            }
            Self::Halted(Halted { since, reason }) => {
                write!(f, "halted with all rollouts since {since}, goes on when they do: {reason}")
            }
            Self::FleetHalted => f.write_str("all rollouts are halted; it is told when they go on"),
            Self::Kept => f.write_str("it serves the image and keeps it"),
            Self::Failed(failure) => write!(f, "{failure}"),
            Self::Penalised(failure) => {
                write!(f, "not offered: it ended badly with this image before ({failure})")
            }
            Self::NoVariant(failure) => write!(f, "no variant of the image runs on it ({failure})"),
            Self::NoAnswer { since } => write!(f, "online, and no answer since {since}"),
            Self::SilentAfterActivation { since } => {
                write!(f, "it began to serve the image, and nothing came since {since}")
            }
            Self::Stuck { phase, since } => {
                write!(f, "online, and still {} since {since}", phase_text(*phase))
            }
            Self::TakenBy(rollout) => write!(f, "rollout {rollout} has told it something newer"),
            Self::NotTakenBackYet => f.write_str("it is told next to go back"),
            Self::NotTakenBack => f.write_str("no rollback took it back; it stays on the image"),
            Self::GoesBack { by, why } => write!(f, "rollback {by} takes it back: {why}"),
            Self::IsBack { by } => {
                write!(f, "rollback {by} took it back: it says that it serves the earlier image")
            }
            Self::NotBack { by, why } => write!(f, "rollback {by} did not get it back: {why}"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code.as_str(), self.reason.as_str()) {
            ("", "") => f.write_str("the device gave no reason"),
            ("", reason) => f.write_str(reason),
            (code, "") => f.write_str(code),
            (code, reason) => write!(f, "{code}: {reason}"),
        }
    }
}

/// Why a rollout halts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Halt {
    /// Too many devices ended badly.
    Bad {
        /// The wave, from 0.
        wave: usize,
        /// How many did.
        bad: u64,
        /// Of how many.
        of: u64,
        /// The largest share allowed.
        limit: f64,
    },
    /// Too many requests failed.
    Errors {
        /// The wave, from 0.
        wave: usize,
        /// Share of failed requests.
        share: f64,
        /// The largest share allowed.
        limit: f64,
    },
    /// Its devices do worse than others.
    Worse {
        /// The wave, from 0.
        wave: usize,
        /// In what, and how much.
        comparison: Comparison,
    },
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bad { wave, bad, of, limit } => write!(
                f,
                "wave {}: {bad} of {of} devices ended badly, at most {:.0}% may",
                wave + 1,
                limit * 100.0
            ),
            Self::Errors { wave, share, limit } => write!(
                f,
                "wave {}: {:.1}% of requests failed, at most {:.1}% may",
                wave + 1,
                share * 100.0,
                limit * 100.0
            ),
            Self::Worse { wave, comparison } => write!(f, "wave {}: {comparison}", wave + 1),
        }
    }
}

/// How a rollout ends: who serves the image, and who does not, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ending {
    /// Devices that serve it.
    pub(super) serving: u64,
    /// Devices that ended badly with it in this rollout.
    pub(super) bad: u64,
    /// Devices that were not offered it, because they ended badly with it before.
    pub(super) penalised: u64,
    /// Devices that stayed offline.
    pub(super) offline: u64,
    /// Devices on which no variant runs.
    pub(super) without_variant: u64,
    /// Devices that waited for others of their group to the end.
    pub(super) over_budget: u64,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.serving {
            0 => f.write_str("no device serves it")?,
            1 => f.write_str("1 device serves it")?,
            serving => write!(f, "{serving} devices serve it")?,
        }
        let others = [
            (self.bad, "ended badly"),
            (self.penalised, "not offered it, having ended badly with it before"),
            (self.offline, "stayed offline"),
            (self.without_variant, "cannot run any of its variants"),
            (self.over_budget, "not offered it within the budget"),
        ];
        for (devices, what) in others.into_iter().filter(|&(devices, _)| devices > 0) {
            write!(f, "; {devices} {what}")?;
        }
        Ok(())
    }
}

const fn phase_text(phase: Phase) -> &'static str {
    match phase {
        Phase::Idle => "about to begin",
        Phase::Checking => "checking signatures",
        Phase::Waiting => "waiting for a retry",
        Phase::Downloading => "downloading",
        Phase::Verifying => "verifying",
        Phase::Staged => "staged",
        Phase::Warming => "warming up",
        Phase::Shadowing => "shadowing",
        Phase::Activating => "activating",
        Phase::Probation => "on probation",
        Phase::Watch => "watched",
        Phase::Reverting => "going back",
        Phase::SafeMode => "in safe mode",
    }
}
