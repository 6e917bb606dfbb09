//! How much memory all workers of a device may hold together, and which model makes room when that is too little: of those that may be
//! unloaded the one that nobody has asked for the longest.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::seat::{Seat, SeatHandle};

/// The budget of a device. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit_mb: u64,
    begin: Instant,
    seats: Mutex<Vec<SeatHandle>>,
    /// One at a time makes room, so that two do not count on the same.
    turn: tokio::sync::Mutex<()>,
}

/// How a worker counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lodger {
    /// What it holds now.
    pub(super) memory_mb: u64,
    /// When it was asked last; larger is later.
    pub(super) used_ms: u64,
    /// Whether it is loaded, and may be unloaded.
    pub(super) may_sleep: bool,
}

impl Budget {
    /// A budget of so many MiB.
    pub fn new(limit_mb: u64) -> Self {
        Self(Arc::new(Inner {
            limit_mb,
            begin: Instant::now(),
            seats: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }))
    }

    /// Unloads as many models as it takes for `needed_mb` more to fit, or as may be.
    pub async fn make_room(&self, needed_mb: u64) {
        let _turn = self.0.turn.lock().await;
        let seats = self.seats();
        let lodgers: Vec<_> = seats.iter().map(|seat| seat.lodger()).collect();
        for place in to_unload(&lodgers, self.0.limit_mb, needed_mb) {
            if let Some(seat) = seats.get(place) {
                seat.sleep().await;
            }
        }
    }

    pub(super) fn lodge(&self, seat: SeatHandle) {
        let mut seats = self.0.seats.lock().unwrap_or_else(PoisonError::into_inner);
        seats.retain(|seat| seat.strong_count() > 0);
        seats.push(seat);
    }

    pub(super) fn begin(&self) -> Instant {
        self.0.begin
    }

    fn seats(&self) -> Vec<Arc<Seat>> {
        let seats = self.0.seats.lock().unwrap_or_else(PoisonError::into_inner);
        seats.iter().filter_map(SeatHandle::upgrade).collect()
    }
}

/// Places of the workers to unload, in order; no more than are needed.
fn to_unload(lodgers: &[Lodger], limit_mb: u64, needed_mb: u64) -> Vec<usize> {
    let mut held_mb = lodgers.iter().fold(needed_mb, |sum, one| sum.saturating_add(one.memory_mb));
    let mut sleepers: Vec<_> =
        lodgers.iter().enumerate().filter(|(_, lodger)| lodger.may_sleep).collect();
    sleepers.sort_by_key(|(_, lodger)| lodger.used_ms);
    let mut unloaded = Vec::new();
    for (place, lodger) in sleepers {
        if held_mb <= limit_mb {
            break;
        }
        held_mb = held_mb.saturating_sub(lodger.memory_mb);
        unloaded.push(place);
    }
    unloaded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lodger(memory_mb: u64, used_ms: u64, may_sleep: bool) -> Lodger {
        Lodger { memory_mb, used_ms, may_sleep }
    }

    #[test]
    fn the_one_that_nobody_has_asked_the_longest_goes_first() {
        let lodgers = [lodger(40, 9, true), lodger(40, 3, true), lodger(40, 5, true)];
        assert_eq!(to_unload(&lodgers, 120, 0), [] as [usize; 0]);
        assert_eq!(to_unload(&lodgers, 120, 10), [1]);
        assert_eq!(to_unload(&lodgers, 120, 80), [1, 2]);
    }

    proptest! {
        #[test]
        fn only_who_may_go_goes_and_nobody_without_need(
            lodgers in prop::collection::vec((0_u64..99, any::<u64>(), any::<bool>()), 0..9), limit_mb in 0_u64..300,
        ) {
            let lodgers: Vec<_> = lodgers.into_iter().map(|(mb, ms, may)| lodger(mb, ms, may)).collect();
            let unloaded = to_unload(&lodgers, limit_mb, 10);
            prop_assert!(unloaded.iter().all(|&place| lodgers[place].may_sleep));
            let left = |gone: &[usize]| -> u64 {
                10 + lodgers.iter().enumerate().filter(|(place, _)| !gone.contains(place)).map(|(_, one)| one.memory_mb).sum::<u64>()
            };
            let could_stay = unloaded.split_last().is_some_and(|(_, others)| left(others) <= limit_mb);
            prop_assert!(!could_stay, "one too many");
            let all_gone = lodgers.iter().enumerate().all(|(place, one)| !one.may_sleep || unloaded.contains(&place));
            prop_assert!(left(&unloaded) <= limit_mb || all_gone);
        }
    }
}
