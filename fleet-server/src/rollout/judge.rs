//! Where one device is in a rollout, from what it was told and what it says.

use sealift_protocol::api::DeviceProgress;
use sealift_protocol::id::UnixMillis;
use sealift_protocol::report::{OutcomeKind, Phase};

use super::{DeviceView, Rollout, Slot, Told, Why};

/// An accepted directive may stay in one phase for this long before the device counts as stuck: a large image on a slow line reports
/// its progress more often than that.
const STUCK_MS: i64 = 3_600 * 1_000;

/// Where a device is, before waves are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may be told, once its wave is open.
    Eligible,
    /// It is not told, for a reason of its own.
    NotTold(DeviceProgress, Why),
    /// It was told.
    Told(Told, DeviceProgress, Why),
}

pub(super) const fn is_bad(progress: DeviceProgress) -> bool {
    use DeviceProgress as P;
    match progress {
        P::Failed | P::Rejected | P::RolledBack | P::Silent => true,
        P::Queued
        | P::Offered
        | P::InProgress
        | P::Probation
        | P::Succeeded
        | P::NotApplicable
        | P::Offline
        | P::Superseded => false,
    }
}

pub(super) const fn is_in_flight(progress: DeviceProgress) -> bool {
    use DeviceProgress as P;
    match progress {
        P::Offered | P::InProgress | P::Probation => true,
        P::Queued
        | P::Succeeded
        | P::Failed
        | P::Rejected
        | P::RolledBack
        | P::Silent
        | P::NotApplicable
        | P::Offline
        | P::Superseded => false,
    }
}

pub(super) fn judge(rollout: &Rollout, device: &DeviceView, now: UnixMillis) -> Verdict {
    if let Some(told) = device.told {
        let (progress, why) = judge_told(rollout, device, told, now);
        return Verdict::Told(told, progress, why);
    }
    let newer = device.desired.as_ref().filter(|desired| desired.turn > rollout.turn);
    if let Some(desired) = newer {
        return Verdict::NotTold(DeviceProgress::Superseded, Why::TakenBy(desired.rollout));
    }
    let serves = device.slot.as_ref().is_some_and(|slot| serves_in_peace(slot, rollout));
    let should = device.desired.as_ref().is_some_and(|desired| desired.image == rollout.image);
    if serves && should {
        return Verdict::NotTold(DeviceProgress::Succeeded, Why::AlreadyServes);
    }
    if let Some(failure) = &device.penalty {
        return Verdict::NotTold(DeviceProgress::Failed, Why::Penalised(failure.clone()));
    }
    if device.online_since.is_none() && !rollout.is_rollback {
        return Verdict::NotTold(DeviceProgress::Offline, Why::OfflineUntold);
    }
    Verdict::Eligible
}

fn serves_in_peace(slot: &Slot, rollout: &Rollout) -> bool {
    slot.serving == Some(rollout.image) && matches!(slot.phase, Phase::Idle | Phase::Watch)
}

pub(super) fn judge_told(
    rollout: &Rollout,
    device: &DeviceView,
    told: Told,
    now: UnixMillis,
) -> (DeviceProgress, Why) {
    let owner = device.desired.as_ref().map(|desired| desired.rollout);
    if let Some(owner) = owner.filter(|&owner| owner != rollout.id) {
        return (DeviceProgress::Superseded, Why::TakenBy(owner));
    }
    if let Some(ended) = ended(rollout, device, told) {
        return ended;
    }
    // It goes on by itself when that ends: until then it is as little to blame as one that is offline.
    if let Some(held) = &device.held {
        return (DeviceProgress::Offline, Why::Held(held.clone()));
    }
    // It goes on by itself as soon as it may: no wait counts against it.
    if let (Some(halted), Some(_)) = (&device.halted, device.online_since) {
        return (DeviceProgress::InProgress, Why::Halted(halted.clone()));
    }
    let slot_is_about_it = |slot: &&Slot| slot.generation >= told.generation;
    let has_accepted = device.accepted >= told.generation
        || device.slot.as_ref().is_some_and(|slot| slot_is_about_it(&slot));
    match &device.slot {
        Some(slot) if has_accepted => judge_working(rollout, device, told, slot, now),
        Some(_) | None => judge_unanswered(rollout, device, told, has_accepted, now),
    }
}

/// How the attempt ended, if it has.
fn ended(rollout: &Rollout, device: &DeviceView, told: Told) -> Option<(DeviceProgress, Why)> {
    let outcome = device.slot.as_ref().and_then(|slot| slot.outcome.as_ref());
    let outcome = outcome
        .filter(|outcome| outcome.generation >= told.generation && outcome.image == rollout.image);
    if let Some(outcome) = outcome {
        let failed = || Why::Failed(outcome.failure.clone());
        match outcome.kind {
            OutcomeKind::Committed => return Some((DeviceProgress::Succeeded, Why::Kept)),
            OutcomeKind::Failed => return Some((DeviceProgress::Failed, failed())),
            OutcomeKind::Rejected => return Some((DeviceProgress::Rejected, failed())),
            OutcomeKind::RolledBack => return Some((DeviceProgress::RolledBack, failed())),
            OutcomeKind::NotApplicable => {
                let why = Why::NoVariant(outcome.failure.clone());
                return Some((DeviceProgress::NotApplicable, why));
            }
            // A directive about another model came in between; this one still stands, and the device begins anew.
            OutcomeKind::Superseded => (),
        }
    }
    let refused = device.refused.as_ref().filter(|refused| refused.generation >= told.generation);
    if let Some(refused) = refused {
        return Some((DeviceProgress::Rejected, Why::Failed(refused.failure.clone())));
    }
    let slot = device.slot.as_ref()?;
    let keeps = device.accepted >= told.generation && serves_in_peace(slot, rollout);
    keeps.then_some((DeviceProgress::Succeeded, Why::Kept))
}

/// The device has accepted the directive and says what it does.
fn judge_working(
    rollout: &Rollout,
    device: &DeviceView,
    told: Told,
    slot: &Slot,
    now: UnixMillis,
) -> (DeviceProgress, Why) {
    let phase = slot.phase;
    let since = slot.reported_at.max(told.at);
    let quiet_ms = now.since(since);
    let has_activated =
        matches!(phase, Phase::Activating | Phase::Probation | Phase::Reverting | Phase::SafeMode);
    if device.online_since.is_none() {
        // An image that takes its device down must count as a failure, although it looks like being offline.
        return if has_activated && quiet_ms > rollout.silent_after_ms + rollout.probation_ms {
            (DeviceProgress::Silent, Why::SilentAfterActivation { since })
        } else {
            (DeviceProgress::Offline, Why::OfflineTold)
        };
    }
    // Everything is on its disk: it goes on by itself when its maintenance window opens.
    if phase == Phase::Staged {
        return (DeviceProgress::InProgress, Why::WaitsForWindow);
    }
    if quiet_ms > STUCK_MS + rollout.probation_ms + rollout.shadow_ms {
        return (DeviceProgress::Silent, Why::Stuck { phase, since });
    }
    let on_probation = phase == Phase::Probation && slot.serving == Some(rollout.image);
    let progress =
        if on_probation { DeviceProgress::Probation } else { DeviceProgress::InProgress };
    (progress, Why::Working(phase))
}

/// The device has not accepted the directive, or has and says nothing of the model.
fn judge_unanswered(
    rollout: &Rollout,
    device: &DeviceView,
    told: Told,
    has_accepted: bool,
    now: UnixMillis,
) -> (DeviceProgress, Why) {
    let Some(online_since) = device.online_since else {
        return (DeviceProgress::Offline, Why::OfflineTold);
    };
    // A device that comes back after a day has the full time to answer.
    let since = told.at.max(online_since);
    if now.since(since) > rollout.silent_after_ms {
        return (DeviceProgress::Silent, Why::NoAnswer { since });
    }
    if has_accepted {
        return (DeviceProgress::InProgress, Why::Working(Phase::Idle));
    }
    (DeviceProgress::Offered, Why::Offered { since: told.at })
}
