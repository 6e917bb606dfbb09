//! Which source is asked next: the first in the owner's order that is not put aside. Pure: the time and chance are arguments.

use std::collections::BTreeSet;

use sealift_protocol::id::UnixMillis;

use crate::device::pause_ms;

/// Whoever sent bytes that were not signed is not asked again for this long, doubled each time.
const LIE_MS: i64 = 15 * 60_000;

/// Nobody is put aside for longer: the machine may have been repaired.
const LIE_MAX_MS: i64 = 24 * 60 * 60_000;

/// How a source has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Standing {
    /// Failures since it last did well.
    failures: u32,
    lies: u32,
    /// Not asked before.
    aside_until: UnixMillis,
}

/// The sources by their place in the owner's order.
#[derive(Debug)]
pub(super) struct Order(Vec<Standing>);

impl Order {
    pub(super) fn of(sources: usize) -> Self {
        Self(vec![Standing::default(); sources])
    }

    /// The source to ask now, or when the first may be asked again. Those in `without` do not have what is asked for.
    pub(super) fn next(
        &self,
        without: &BTreeSet<usize>,
        now: UnixMillis,
    ) -> Result<usize, UnixMillis> {
        let of_use = || self.0.iter().enumerate().filter(|(source, _)| !without.contains(source));
        let ready = of_use().find(|(_, standing)| standing.aside_until <= now);
        let first = || of_use().map(|(_, standing)| standing.aside_until).min();
        ready.map(|(source, _)| source).ok_or_else(|| first().unwrap_or(now))
    }

    /// It could not be reached, broke off, or does not have what was asked for.
    pub(super) fn failed(&mut self, source: usize, spread_permille: u16, now: UnixMillis) {
        let Some(standing) = self.0.get_mut(source) else { return };
        standing.failures = standing.failures.saturating_add(1);
        let until = now.plus(pause_ms(standing.failures, spread_permille));
        standing.aside_until = standing.aside_until.max(until);
    }

    /// It sent other bytes than were signed.
    pub(super) fn lied(&mut self, source: usize, now: UnixMillis) {
        let Some(standing) = self.0.get_mut(source) else { return };
        let span_ms = LIE_MS.saturating_mul(1 << standing.lies.min(10)).min(LIE_MAX_MS);
        standing.lies = standing.lies.saturating_add(1);
        standing.aside_until = standing.aside_until.max(now.plus(span_ms));
    }

    /// It sent all that it was asked for. What it is worth is another question: lies are not forgotten.
    pub(super) fn did_well(&mut self, source: usize) {
        if let Some(standing) = self.0.get_mut(source) {
            standing.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::RETRY_MAX_MS;

    fn next(order: &Order, now: UnixMillis) -> Result<usize, UnixMillis> {
        order.next(&BTreeSet::new(), now)
    }

    #[test]
    fn a_source_without_it_is_passed_over_and_not_blamed() {
        let (mut order, now) = (Order::of(2), UnixMillis(1_000));
        assert_eq!(order.next(&BTreeSet::from([0]), now), Ok(1));
        assert_eq!(next(&order, now), Ok(0));
        order.failed(1, 1_000, now);
        assert_eq!(order.next(&BTreeSet::from([0]), now), Err(now.plus(2_000)));
    }

    #[test]
    fn the_owners_order_holds_until_one_fails_and_again_when_it_is_back() {
        let (mut order, now) = (Order::of(3), UnixMillis(1_000));
        assert_eq!(next(&order, now), Ok(0));
        order.failed(0, 1_000, now);
        assert_eq!(next(&order, now), Ok(1));
        order.lied(1, now);
        assert_eq!(next(&order, now), Ok(2));
        order.failed(2, 500, now);
        assert_eq!(next(&order, now), Err(now.plus(1_000)), "the shortest pause is the last one's");
        assert_eq!(next(&order, now.plus(2_000)), Ok(0));
        order.failed(2, 1_000, now.plus(2_000));
        assert_eq!(next(&order, now.plus(LIE_MS)), Ok(0));
        order.failed(0, 1_000, now.plus(LIE_MS));
        assert_eq!(next(&order, now.plus(LIE_MS)), Ok(1));
    }

    #[test]
    fn a_second_lie_costs_more() {
        let (mut order, now) = (Order::of(1), UnixMillis(0));
        order.lied(0, now);
        assert_eq!(next(&order, now), Err(UnixMillis(LIE_MS)));
        order.did_well(0);
        order.lied(0, UnixMillis(LIE_MS));
        assert_eq!(next(&order, UnixMillis(LIE_MS)), Err(UnixMillis(3 * LIE_MS)));
    }

    proptest! {
        /// Whatever happens, somebody is asked again, and soon if nobody has lied.
        #[test]
        fn nobody_is_put_aside_for_ever(story in prop::collection::vec((0_usize..3, 0_u8..3, 0_u16..1_001), 0..200)) {
            let (mut order, now) = (Order::of(3), UnixMillis(0));
            let mut has_lied = false;
            for (source, what, spread_permille) in story {
                match what {
                    0 => order.failed(source, spread_permille, now),
                    1 => order.did_well(source),
                    _ => { order.lied(source, now); has_lied = true; }
                }
            }
            let most_ms = if has_lied { LIE_MAX_MS } else { RETRY_MAX_MS };
            prop_assert!(next(&order, now.plus(most_ms)).is_ok());
        }
    }
}
