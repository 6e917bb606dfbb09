//! What becomes of rollouts from which devices are taken back. Decides from values.

use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::id::{RolloutId, Version};

use crate::rollout::Stage;
use crate::store::scope::Placed;

/// What rollouts lose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// How many devices.
    pub(super) devices: u64,
    /// Where they go.
    pub(super) to: BTreeSet<Version>,
}

/// What each rollout loses: devices that should run what it brought, and go to something else.
pub(super) fn from_each(steps: &BTreeMap<Version, Vec<Placed>>) -> BTreeMap<RolloutId, Taken> {
    let mut taken: BTreeMap<RolloutId, Taken> = BTreeMap::new();
    for (to, devices) in steps {
        let leaves = |device: &&Placed| device.desired.as_ref().is_some_and(|from| from != to);
        for rollout in devices.iter().filter(leaves).filter_map(|device| device.rollout) {
            let taken = taken.entry(rollout).or_default();
            taken.devices += 1;
            taken.to.insert(to.clone());
        }
    }
    taken
}

/// Whether a rollout that loses `taken` of its `followers` is reverting from now on: nobody is left of one that is over; one that goes
/// on may still tell others, unless it `ends` now.
pub(super) const fn is_reverting(stage: Stage, ends: bool, taken: u64, followers: u64) -> bool {
    match stage {
        Stage::Reverting => true,
        Stage::Succeeded | Stage::Aborted | Stage::Superseded | Stage::Reverted => {
            taken >= followers
        }
        Stage::Draft
        | Stage::Preflight
        | Stage::AwaitingApproval
        | Stage::Scheduled
        | Stage::Running
        | Stage::Paused
        | Stage::Halted
        | Stage::Completing { .. } => ends,
    }
}

#[cfg(test)]
mod tests {
    use sealift_protocol::id::DeviceId;

    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    fn placed(device: &str, runs: &str, rollout: u64) -> Placed {
        Placed {
            device: DeviceId::parse(device).unwrap(),
            desired: Some(version(runs)),
            rollout: Some(RolloutId(rollout)),
            serving: Some(version(runs)),
            previous: None,
            on_disk: BTreeSet::new(),
        }
    }

    #[test]
    fn a_rollout_loses_the_devices_that_it_told_and_no_others() {
        let home = placed("d", "1", 9);
        let steps = BTreeMap::from([
            (version("1"), vec![placed("a", "3", 3), placed("b", "2", 2), home]),
            (version("2"), vec![placed("c", "3", 3)]),
        ]);

        let taken = from_each(&steps);

        let of = |id: u64| taken.get(&RolloutId(id)).map(|it| (it.devices, it.to.len()));
        assert_eq!((of(3), of(2), of(9)), (Some((2, 2)), Some((1, 1)), None));
    }

    #[test]
    fn a_rollout_is_reverting_when_nobody_keeps_what_it_brought() {
        let over = |taken, followers| is_reverting(Stage::Succeeded, false, taken, followers);
        assert!(over(3, 3) && !over(2, 3));
        assert!(is_reverting(Stage::Halted, true, 1, 3), "it ends, whoever is left");
        assert!(!is_reverting(Stage::Running, false, 3, 3), "it goes on with others");
        assert!(is_reverting(Stage::Reverting, false, 1, 3), "never back");
    }
}
