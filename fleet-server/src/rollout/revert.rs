//! A rollout that is taken back: how far its devices are, and when that is over. It tells nobody: rollbacks do.
//!
//! ```text
//!  any stage ── a rollback takes its devices ──▶ Reverting ── all have proved it, or no rollback goes on ──▶ Reverted
//! ```
//!
//! Nothing leads back. What a device proves is judged as the rollback judges it: both say the same of it.

use std::collections::BTreeMap;
use std::fmt;

use sealift_protocol::api::DeviceProgress;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, RolloutId, UnixMillis};

use super::judge;
use super::{Desired, DeviceView, Fleet, Position, Rollout, Stage, Why};

/// A rollback that takes devices from a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WayBack {
    /// Which.
    pub id: RolloutId,
    /// Where it is.
    pub stage: Stage,
}

/// How far the devices of a rollout are on their way back; each is counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reversion {
    /// Have proved that they serve what they were told instead.
    pub back: u64,
    /// Are told, or at work on it.
    pub at_work: u64,
    /// Are told, and offline.
    pub offline: u64,
    /// Ended badly on the way back.
    pub bad: u64,
    /// Were taken by no rollback, and serve the image.
    pub kept: u64,
}

/// Where a device is on its way back.
enum Whereabouts {
    Back,
    AtWork,
    Offline,
    Bad,
    Kept,
}

impl Reversion {
    /// Counts the devices that the rollout has told, and that nobody but a way back has told something since.
    pub(super) fn take(rollout: &Rollout, fleet: &Fleet, now: UnixMillis) -> Self {
        let mut look = Look { rollout, seen_as: BTreeMap::new(), now };
        let mut reversion = Self::default();
        for device in fleet.values() {
            match look.at(device) {
                Some((Whereabouts::Back, _)) => reversion.back += 1,
                Some((Whereabouts::AtWork, _)) => reversion.at_work += 1,
                Some((Whereabouts::Offline, _)) => reversion.offline += 1,
                Some((Whereabouts::Bad, _)) => reversion.bad += 1,
                Some((Whereabouts::Kept, _)) => reversion.kept += 1,
                None => (), // it was not on it, or has gone on to something newer
            }
        }
        reversion
    }

    /// Where the rollout is now. A way back that a person must look after is waited for.
    pub(super) fn stage(&self, rollout: &Rollout) -> Stage {
        let is_over = rollout.reverted_by.iter().all(|way| way.stage.is_over());
        if is_over || self.missing() == 0 { Stage::Reverted } else { Stage::Reverting }
    }

    /// Devices that have not proved it.
    const fn missing(&self) -> u64 {
        self.at_work + self.offline + self.bad + self.kept
    }

    /// In a sentence.
    pub(super) fn why(&self, rollout: &Rollout) -> String {
        let ways: Vec<_> = rollout.reverted_by.iter().map(ToString::to_string).collect();
        format!("taken back by {}: {self}", ways.join(", "))
    }
}

impl fmt::Display for Reversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.back + self.missing();
        write!(f, "{} of {all} devices have proved that they serve an earlier image", self.back)?;
        let others = [
            (self.at_work, "at work"),
            (self.offline, "offline"),
            (self.bad, "ended badly on the way back"),
            (self.kept, "left on it"),
        ];
        for (devices, what) in others.into_iter().filter(|&(devices, _)| devices > 0) {
            write!(f, "; {devices} {what}")?;
        }
        Ok(())
    }
}

impl fmt::Display for WayBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, stage } = self;
        match stage {
            Stage::Paused => write!(f, "{id} (paused)"),
            Stage::Halted => write!(f, "{id} (halted)"),
            Stage::Aborted => write!(f, "{id} (given up)"),
            // Nothing that a person has to look after.
            Stage::Draft
            | Stage::Preflight
            | Stage::AwaitingApproval
            | Stage::Scheduled
            | Stage::Running
            | Stage::Completing { .. }
            | Stage::Succeeded
            | Stage::Superseded
            | Stage::Reverting
            | Stage::Reverted => write!(f, "{id}"),
        }
    }
}

/// Says of each device where it is on its way back, instead of where it was in the rollout.
pub(super) fn explain(
    rollout: &Rollout,
    fleet: &Fleet,
    positions: &mut BTreeMap<DeviceId, Position>,
    now: UnixMillis,
) {
    let mut look = Look { rollout, seen_as: BTreeMap::new(), now };
    for (id, position) in positions {
        if let Some((_, why)) = fleet.get(id).and_then(|device| look.at(device)) {
            position.why = why;
        } else if position.progress == DeviceProgress::Queued {
            position.why = Why::NotTelling;
        }
    }
}

/// Devices as the rollbacks see them.
struct Look<'a> {
    rollout: &'a Rollout,
    seen_as: BTreeMap<(RolloutId, Digest), Rollout>,
    now: UnixMillis,
}

impl Look<'_> {
    /// Where a device is that was on the rollout; none if it was not, or has gone on.
    fn at(&mut self, device: &DeviceView) -> Option<(Whereabouts, Why)> {
        use DeviceProgress as P;
        device.told?;
        let desired = device.desired.as_ref()?;
        if desired.rollout == self.rollout.id {
            return self.on_it_still(device);
        }
        let by = self.rollout.reverted_by.iter().find(|way| way.id == desired.rollout)?.id;
        let (progress, why) = self.on_the_way(device, desired);
        let boxed = Box::new(why);
        Some(match progress {
            P::Succeeded => (Whereabouts::Back, Why::IsBack { by }),
            P::Queued | P::Offered | P::InProgress | P::Probation | P::Superseded => {
                (Whereabouts::AtWork, Why::GoesBack { by, why: boxed })
            }
            P::Offline => (Whereabouts::Offline, Why::GoesBack { by, why: boxed }),
            P::Failed | P::Rejected | P::NotApplicable | P::RolledBack | P::Silent => {
                (Whereabouts::Bad, Why::NotBack { by, why: boxed })
            }
        })
    }

    /// The next turn of a rollback tells it, unless none goes on.
    fn on_it_still(&self, device: &DeviceView) -> Option<(Whereabouts, Why)> {
        if self.rollout.reverted_by.iter().any(|way| !way.stage.is_over()) {
            return Some((Whereabouts::AtWork, Why::NotTakenBackYet));
        }
        let serving = device.slot.as_ref().and_then(|slot| slot.serving);
        (serving == Some(self.rollout.image)).then_some((Whereabouts::Kept, Why::NotTakenBack))
    }

    fn on_the_way(&mut self, device: &DeviceView, desired: &Desired) -> (DeviceProgress, Why) {
        let Some(told) = device.told_now else {
            return (DeviceProgress::Offered, Why::Next);
        };
        let (rollout, of) = (self.rollout, (desired.rollout, desired.image));
        let seen_as = self.seen_as.entry(of).or_insert_with(|| Rollout {
            id: desired.rollout,
            turn: desired.turn,
            image: desired.image,
            is_rollback: true,
            ..rollout.clone()
        });
        judge::judge_told(seen_as, device, told, self.now)
    }
}
