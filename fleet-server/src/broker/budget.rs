//! How fast one device may send: what it sends faster waits in its connection, and in its spool, not in ours.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sealift_protocol::id::UnixMillis;

use crate::certificate::Identity;

/// Parts a second that a device may send for ever: a busy one sends two messages a second, one that comes back empties its spool of
/// 8 MiB within half a minute.
const PARTS_A_SECOND: i64 = 100;

/// Parts that a device may send at once.
const PARTS_AT_ONCE: i64 = 600;

/// A message counts once, and once more for each of these.
const PART_BYTES: usize = 4 << 10;

/// Devices remembered; those that have their whole budget are forgotten first.
const DEVICES_MAX: usize = 100_000;

const SECOND_MS: i64 = 1_000;

/// What each device may still send now.
#[derive(Debug, Default)]
pub(super) struct Budget {
    devices: Mutex<BTreeMap<Identity, Purse>>,
}

/// Thousandths of parts that were left at a moment.
#[derive(Debug, Clone, Copy)]
struct Purse {
    left: i64,
    at: UnixMillis,
}

impl Purse {
    const FULL: i64 = PARTS_AT_ONCE * SECOND_MS;

    fn at(self, now: UnixMillis) -> Self {
        // A clock that was set back gives nothing and takes nothing.
        let earned = now.since(self.at).clamp(0, Self::FULL / PARTS_A_SECOND) * PARTS_A_SECOND;
        Self { left: (self.left + earned).min(Self::FULL), at: now }
    }
}

impl Budget {
    /// Takes what a message costs; the answer is how long it has to wait.
    pub(super) fn take(&self, who: &Identity, bytes: usize, now: UnixMillis) -> Duration {
        let parts = i64::try_from(1 + bytes / PART_BYTES).unwrap_or(i64::MAX / SECOND_MS);
        // The map holds plain numbers, so a panic elsewhere leaves it usable.
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        if devices.len() >= DEVICES_MAX && !devices.contains_key(who) {
            devices.retain(|_, purse| purse.at(now).left < Purse::FULL);
        }
        let full = Purse { left: Purse::FULL, at: now };
        let purse = devices.get(who).map_or(full, |purse| purse.at(now));
        let left = purse.left.saturating_sub(parts.saturating_mul(SECOND_MS));
        // A debt is waited for before the next message is looked at, so that it never grows beyond one message.
        let wait_ms = (-left).max(0) / PARTS_A_SECOND;
        devices.insert(who.clone(), Purse { left, at: now });
        Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn cam(number: u32) -> Identity {
        Identity::parse(&format!("main:cam-{number}")).unwrap()
    }

    #[test]
    fn six_hundred_messages_pass_at_once_and_a_hundred_a_second_after_that() {
        let budget = Budget::default();
        for _ in 0..600 {
            assert_eq!(budget.take(&cam(1), 200, NOW), Duration::ZERO);
        }
        assert_eq!(budget.take(&cam(1), 200, NOW), Duration::from_millis(10));
        assert_eq!(budget.take(&cam(2), 200, NOW), Duration::ZERO);
        assert_eq!(budget.take(&cam(1), 200, NOW.plus(20)), Duration::ZERO);
    }

    #[test]
    fn a_message_costs_by_its_size() {
        let budget = Budget::default();
        let taken = (0..100).take_while(|_| budget.take(&cam(1), 256 << 10, NOW).is_zero());
        assert_eq!(taken.count(), 9); // of 65 parts each
    }

    #[test]
    fn a_clock_that_jumps_stops_nobody() {
        let budget = Budget::default();
        while budget.take(&cam(1), 200, NOW).is_zero() {}
        for jump in [-3_600_000, 3_600_000_000_000] {
            assert!(budget.take(&cam(1), 200, NOW.plus(jump)) < Duration::from_millis(50));
        }
    }
}
