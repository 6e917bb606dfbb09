//! How much of the processor a challenger has used, and how long it rests when that was more than its share. Pure.

use std::time::Duration;

/// What is not used is saved for this long and no longer: a quiet night is no leave to take the whole processor in the morning.
const SAVED_MAX: Duration = Duration::from_secs(1);

/// A share of one core, as a bucket: it fills with time, and what is computed is taken out.
#[derive(Debug)]
pub(super) struct Allowance {
    /// Processor time when it was last read; none where it cannot be.
    read: Option<Duration>,
    filled_at: Duration,
    /// Microseconds; below 0 what was used beyond the share.
    left_us: i64,
}

impl Allowance {
    /// Loading and self-test are not counted.
    pub(super) const fn begin(read: Option<Duration>) -> Self {
        Self { read, filled_at: Duration::ZERO, left_us: 0 }
    }

    /// Takes out what was used up to `now`: by the processor time of the process, or by the time in the engine where nothing else is
    /// known. Returns how long to rest.
    pub(super) fn used(
        &mut self,
        now: Duration,
        (read, took): (Option<Duration>, Duration),
        cpu_permille: u16,
    ) -> Duration {
        let share = i64::from(cpu_permille.max(1));
        let passed = now.saturating_sub(self.filled_at);
        self.filled_at = now;
        let saved_max_us = signed_us(SAVED_MAX).saturating_mul(share) / 1_000;
        let filled_us = signed_us(passed).saturating_mul(share) / 1_000;
        let used = match (self.read, read) {
            (Some(before), Some(read)) => read.saturating_sub(before),
            (None, _) | (_, None) => took,
        };
        self.read = read;
        let left_us = self.left_us.saturating_add(filled_us).min(saved_max_us);
        self.left_us = left_us.saturating_sub(signed_us(used));
        let missing_us = u64::try_from(self.left_us.saturating_neg()).unwrap_or(0);
        Duration::from_micros(missing_us.saturating_mul(1_000) / share.unsigned_abs())
    }
}

fn signed_us(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn who_uses_more_than_the_share_rests_until_it_is_made_up_for() {
        let mut allowance = Allowance::begin(Some(ms(900)));
        // 20 % of 100 ms are 20, and 60 were used: 40 more take 200 ms to come in.
        assert_eq!(allowance.used(ms(100), (Some(ms(960)), ms(1)), 200), ms(200));
        assert_eq!(allowance.used(ms(300), (Some(ms(960)), ms(1)), 200), ms(0));
        // What is saved is that of a second: 200 of the 2,000 that came in.
        assert_eq!(allowance.used(ms(10_300), (Some(ms(1_260)), ms(1)), 200), ms(500));
        // Where the process cannot be read, the engine's own time counts.
        let mut blind = Allowance::begin(None);
        assert_eq!(blind.used(ms(10), (None, ms(10)), 500), ms(10));
    }

    proptest! {
        /// However long each answer takes: who obeys has used, whenever it begins again, no more than the share of the time so far and of
        /// what may be saved.
        #[test]
        fn over_time_the_share_is_kept(tasks in prop::collection::vec((0_u64..500, 0_u64..3_000), 1..100), cpu_permille in 10_u16..1_000) {
            let mut allowance = Allowance::begin(Some(ms(0)));
            let (mut now, mut used) = (ms(0), ms(0));
            for (took, idle) in tasks {
                now += ms(took);
                used += ms(took);
                now += allowance.used(now, (Some(used), ms(0)), cpu_permille);
                let share = (now + SAVED_MAX).as_micros() * u128::from(cpu_permille) / 1_000;
                prop_assert!(used.as_micros() <= share + 1_000, "{used:?} of {now:?}");
                now += ms(idle);
            }
        }
    }
}
