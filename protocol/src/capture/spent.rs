//! What is left of a day's budget: half for what rules choose, half for what chance does, so that a model that is unsure all day does not
//! use up what measures how good it is when it is sure.
//!
//! ```text
//!  chance 1 ┤────────╮ base: half of the purse for as many as yesterday
//!           │         ╲
//!           │          ╲___ 1/n: the more there are, the fewer of them        one that fell to nothing exponentially
//!         0 ┼─────────┬──────────▶ n    would leave the rest of the day to a handful of samples, each of enormous weight
//!                 as many as yesterday, or a quarter of the purse
//! ```

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::decide::{Left, Seen, Why};
use super::policy::CapturePolicy;
use crate::id::UnixMillis;

const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// What a device has kept of a model today, and looked at.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Spent {
    /// The day, counted from 1970.
    day: i64,
    /// For what rules choose.
    by_rule: Purse,
    /// For what chance chooses.
    by_chance: Purse,
}

/// Half of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Purse {
    samples: u32,
    bytes: u64,
    /// How many would have been kept today without a budget.
    wanted: f64,
    /// How many would have been the day before.
    wanted_before: f64,
}

impl Purse {
    const fn next_day(self) -> Self {
        Self { samples: 0, bytes: 0, wanted: 0.0, wanted_before: self.wanted }
    }

    /// How many samples of today's mean size the whole purse holds.
    fn size(self, policy: &CapturePolicy) -> f64 {
        let samples = f64::from(policy.samples_a_day) / 2.0;
        let kept = f64::from(self.samples);
        if self.bytes == 0 {
            return samples;
        }
        samples.min(bytes_max(policy) * kept / as_number(self.bytes))
    }

    /// The chance of the next one: it depends on what was before it alone, so that it stays a true chance.
    fn left(self, policy: &CapturePolicy) -> f64 {
        let size = self.size(policy);
        if f64::from(self.samples) >= size || as_number(self.bytes) >= bytes_max(policy) {
            return 0.0;
        }
        let expected = self.wanted_before.max(size / 4.0);
        let base = (size / 2.0 / expected).min(1.0);
        base * (expected / self.wanted.max(1.0)).min(1.0)
    }

    fn take(&mut self, bytes: u64, policy: &CapturePolicy) -> bool {
        let total = self.bytes.saturating_add(bytes);
        let has_room = f64::from(self.samples) < f64::from(policy.samples_a_day) / 2.0
            && as_number(total) <= bytes_max(policy);
        if has_room {
            self.samples += 1;
            self.bytes = total;
        }
        has_room
    }
}

impl Spent {
    /// Begins a new day where one has begun. A clock that steps back begins none: that would be a second budget.
    pub const fn turn(&mut self, now: UnixMillis) {
        let day = now.0.div_euclid(DAY_MS);
        if day > self.day {
            let (by_rule, by_chance) = (self.by_rule.next_day(), self.by_chance.next_day());
            *self = Self { day, by_rule, by_chance };
        }
    }

    /// What is left, for the next prediction.
    pub fn left(&self, policy: &CapturePolicy) -> Left {
        Left { by_rule: self.by_rule.left(policy), by_chance: self.by_chance.left(policy) }
    }

    /// Counts a prediction that was looked at.
    pub fn saw(&mut self, seen: Seen, policy: &CapturePolicy) {
        self.by_rule.wanted += if policy.fired(seen).is_empty() { 0.0 } else { 1.0 };
        self.by_chance.wanted += policy.share.share();
    }

    /// Counts one that is kept, if there is room for it: what chance would have kept anyhow, among what chance keeps.
    pub fn take(&mut self, why: &BTreeSet<Why>, bytes: u64, policy: &CapturePolicy) -> bool {
        let purse =
            if why.contains(&Why::Random) { &mut self.by_chance } else { &mut self.by_rule };
        purse.take(bytes, policy)
    }

    /// Samples that were kept today.
    pub const fn samples(&self) -> u32 {
        self.by_rule.samples + self.by_chance.samples
    }
}

/// Half of the bytes of a day.
fn bytes_max(policy: &CapturePolicy) -> f64 {
    f64::from(policy.kib_a_day) * 512.0
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a day are far below 2^53")]
const fn as_number(bytes: u64) -> f64 {
    bytes as f64
}
