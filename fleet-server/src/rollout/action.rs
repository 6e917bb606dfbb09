//! What an operator can do with a rollout, and what then changes.

use sealift_protocol::api::Action;
use sealift_protocol::id::UnixMillis;

use super::{Rollout, Stage, Standing};

/// What an action changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// Where the rollout is afterwards.
    pub stage: Stage,
    /// Where its waves are.
    pub waves: Vec<Standing>,
    /// What becomes of devices that ended badly.
    pub bad_devices: BadDevices,
    /// What becomes of devices at work.
    pub devices_at_work: AtWork,
}

/// What becomes of devices that ended badly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadDevices {
    /// They count on.
    Count,
    /// They count no more: the operator has seen them and goes on.
    Excuse,
    /// They are offered the image again.
    OfferAgain,
}

/// What becomes of devices at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtWork {
    /// They go on.
    GoOn,
    /// They are told what they were told before.
    TurnBack,
}

/// As [`refusal`], of a rollout that may wait for approval.
pub const fn refusal_now(
    action: Action,
    stage: Stage,
    waits_for_approval: bool,
) -> Option<&'static str> {
    match (action, waits_for_approval) {
        (Action::Approve | Action::Reject, true) => None,
        // The wave that it would pass over was not begun.
        (Action::Promote, true) => Some("it waits for approval"),
        (_, true | false) => refusal(action, stage),
    }
}

/// Why `action` cannot be taken on a rollout in `stage`, of which nothing waits for approval; none if it can.
pub const fn refusal(action: Action, stage: Stage) -> Option<&'static str> {
    use Stage as S;
    match (action, stage) {
        // Going back is possible at any time, and never hidden.
        (Action::Rollback, _)
        | (Action::Start, S::Draft)
        | (Action::Pause, S::AwaitingApproval | S::Scheduled | S::Running | S::Completing { .. })
        | (Action::Resume, S::Paused | S::Halted)
        | (Action::Promote, S::Running | S::Halted)
        | (
            Action::Abort,
            S::Draft
            | S::Preflight
            | S::AwaitingApproval
            | S::Scheduled
            | S::Running
            | S::Paused
            | S::Halted
            | S::Completing { .. },
        )
        | (Action::Retry, S::Running | S::Halted | S::Completing { .. }) => None,
        (Action::Approve | Action::Reject, _) => Some("nothing waits for approval"),
        (_, S::Succeeded | S::Aborted | S::Superseded | S::Reverted) => Some("the rollout is over"),
        (_, S::Reverting) => Some("it is taken back; the rollback that does it can be stopped"),
        (_, S::Draft) => Some("it is a draft; start it first"),
        (Action::Start, _) => Some("it was started already"),
        (Action::Pause, S::Paused) => Some("it is paused already"),
        (Action::Pause, S::Halted) => Some("it is halted already"),
        (Action::Resume, _) => Some("it is not stopped"),
        (Action::Promote, S::Completing { .. }) => Some("all waves have passed"),
        (Action::Promote, S::Scheduled) => Some("its time has not come"),
        (Action::Promote | Action::Retry, S::Paused) => Some("it is paused; resume it first"),
        (Action::Pause | Action::Promote | Action::Retry, _) => Some("it has not begun"),
    }
}

/// What `action` changes. Going back changes nothing here: it is a rollout of its own.
pub fn apply(action: Action, rollout: &Rollout, now: UnixMillis) -> Result<Effect, &'static str> {
    if let Some(refusal) = refusal_now(action, rollout.stage, rollout.waits_for_approval()) {
        return Err(refusal);
    }
    if action == Action::Promote && rollout.waits_until(now).is_some() {
        return Err("its time has not come");
    }
    let waves: Vec<_> = rollout.waves.iter().map(|wave| wave.standing).collect();
    let was_halted = rollout.stage == Stage::Halted;
    let unchanged = Effect {
        stage: rollout.stage,
        waves: waves.clone(),
        bad_devices: BadDevices::Count,
        devices_at_work: AtWork::GoOn,
    };
    let reopened = || waves.iter().map(|&wave| reopen(wave)).collect();
    Ok(match action {
        // Who approves is written down beside the rollout; from then on no wave is held.
        Action::Rollback | Action::Approve => unchanged,
        Action::Start => Effect { stage: Stage::Preflight, ..unchanged },
        Action::Pause => Effect { stage: Stage::Paused, ..unchanged },
        Action::Resume => Effect {
            stage: Stage::Running,
            waves: reopened(),
            bad_devices: if was_halted { BadDevices::Excuse } else { BadDevices::Count },
            ..unchanged
        },
        Action::Promote => Effect {
            stage: Stage::Running,
            waves: pass_current(waves, now),
            bad_devices: BadDevices::Excuse,
            ..unchanged
        },
        Action::Abort | Action::Reject => {
            Effect { stage: Stage::Aborted, devices_at_work: AtWork::TurnBack, ..unchanged }
        }
        Action::Retry => Effect {
            stage: if was_halted { Stage::Running } else { rollout.stage },
            waves: reopened(),
            bad_devices: BadDevices::OfferAgain,
            ..unchanged
        },
    })
}

const fn reopen(wave: Standing) -> Standing {
    match wave {
        Standing::Failed { since } => Standing::Open { since },
        Standing::Pending
        | Standing::Open { .. }
        | Standing::Soaking { .. }
        | Standing::Evaluating { .. }
        | Standing::Passed { .. } => wave,
    }
}

/// The first wave that has not passed now has, whatever its soak and gates say; one that failed late has as well.
fn pass_current(waves: Vec<Standing>, now: UnixMillis) -> Vec<Standing> {
    let is_passed = |wave: &Standing| matches!(wave, Standing::Passed { .. });
    let current = waves.iter().position(|wave| !is_passed(wave));
    let pass = |(number, wave): (usize, Standing)| {
        let is_current = Some(number) == current || matches!(wave, Standing::Failed { .. });
        if is_current { Standing::Passed { since: wave.since().unwrap_or(now) } } else { wave }
    };
    waves.into_iter().enumerate().map(pass).collect()
}
