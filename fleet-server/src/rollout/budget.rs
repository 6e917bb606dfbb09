//! How many devices with the same value of a label may be at work at a time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use sealift_protocol::api::{Budget, DeviceProgress};
use sealift_protocol::id::UnixMillis;

use super::judge::Verdict;

/// What is left of a budget.
#[derive(Debug, Clone)]
pub(super) struct Purse<'a> {
    budget: &'a Budget,
    groups: BTreeMap<&'a str, Group>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Group {
    devices: u64,
    at_work: u64,
}

impl<'a> Purse<'a> {
    pub(super) const fn new(budget: &'a Budget) -> Self {
        Self { budget, groups: BTreeMap::new() }
    }

    /// Counts a device of the fleet.
    pub(super) fn count(&mut self, group: &'a str, verdict: &Verdict) {
        let group = self.groups.entry(group).or_default();
        group.devices += 1;
        group.at_work += u64::from(is_at_work(verdict));
    }

    /// Whether one more of the group may be told.
    pub(super) fn has_room(&self, group: &str) -> bool {
        self.groups.get(group).is_some_and(|group| group.at_work < limit(self.budget, *group))
    }

    /// One more of the group is told.
    pub(super) fn spend(&mut self, group: &'a str) {
        self.groups.entry(group).or_default().at_work += 1;
    }
}

/// Told, and not done. One that went away since may begin whenever it comes back, and one that is silent may be broken: the group has
/// to do without them as much as without one that loads an image in this moment.
const fn is_at_work(verdict: &Verdict) -> bool {
    use DeviceProgress as P;
    match verdict {
        Verdict::Eligible | Verdict::NotTold(..) => false,
        Verdict::Told(told, progress, _) => match progress {
            P::Offered | P::InProgress | P::Probation | P::Offline => true,
            P::Silent => !told.is_excused,
            P::Queued
            | P::Succeeded
            | P::Failed
            | P::Rejected
            | P::RolledBack
            | P::NotApplicable
            | P::Superseded => false,
        },
    }
}

/// At least one: a share of few devices would otherwise keep them from any change.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a count of devices, between 0 and that count"
)]
fn limit(budget: &Budget, group: Group) -> u64 {
    let share = |percent: f64| (group.devices as f64 * percent.clamp(0.0, 100.0) / 100.0) as u64;
    budget.count.or_else(|| budget.percent.map(share)).unwrap_or(u64::MAX).max(1)
}

/// When the places of a budget are free again, in a rollout that is only foreseen.
pub(super) struct Slots<'a> {
    groups: BTreeMap<&'a str, BinaryHeap<Reverse<UnixMillis>>>,
}

impl<'a> Slots<'a> {
    pub(super) fn new(budget: &Budget, devices: impl Iterator<Item = &'a str>) -> Self {
        let mut counted: BTreeMap<&str, Group> = BTreeMap::new();
        for group in devices {
            counted.entry(group).or_default().devices += 1;
        }
        let places = |(name, group): (&'a str, Group)| {
            let places = usize::try_from(limit(budget, group).min(group.devices));
            (name, (0..places.unwrap_or_default()).map(|_| Reverse(UnixMillis(0))).collect())
        };
        Self { groups: counted.into_iter().map(places).collect() }
    }

    /// When a device can begin that could from a moment on, and then works so long.
    pub(super) fn take(&mut self, group: &'a str, from: UnixMillis, took_ms: i64) -> UnixMillis {
        let places = self.groups.entry(group).or_default();
        let free = places.pop().map_or(from, |Reverse(free)| free);
        let begin = free.max(from);
        places.push(Reverse(begin.plus(took_ms)));
        begin
    }
}
