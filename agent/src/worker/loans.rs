//! Which request has which place of the shared memory, and which places hold memory that nobody needs now.

use std::collections::BTreeMap;

use super::shared::{Area, KEPT_BYTES, PLACES, Place};

/// The book of one worker's places.
#[derive(Debug, Default)]
pub(super) struct Loans {
    /// Until the worker has answered: also of requests whose asker waits no more, as it may still write there.
    held: BTreeMap<u64, Place>,
    /// A bit for each place that is lent.
    lent: u8,
    /// The most bytes that were written to an area since its memory was given back.
    used: BTreeMap<(Place, Area), usize>,
}

impl Loans {
    /// Lends a place to request `id`; none if all are lent. The first ones are lent first, so that few of them ever take memory.
    pub(super) fn lend(&mut self, id: u64) -> Option<Place> {
        let free = u8::try_from(self.lent.trailing_ones()).ok();
        let place = free.and_then(|number| Place::of_number(number).ok().flatten())?;
        self.lent |= 1 << place.index();
        self.held.insert(id, place);
        Some(place)
    }

    /// Whether request `id` has this place.
    pub(super) fn is_held(&self, id: u64, place: Place) -> bool {
        self.held.get(&id) == Some(&place)
    }

    /// Notes how much was written; true if that is more than is kept for good.
    pub(super) fn used(&mut self, place: Place, area: Area, bytes: usize) -> bool {
        let most = self.used.entry((place, area)).or_default();
        *most = bytes.max(*most);
        bytes > KEPT_BYTES
    }

    /// Ends a loan: the worker is done with the place.
    pub(super) fn take_back(&mut self, id: u64) {
        if let Some(place) = self.held.remove(&id) {
            self.lent &= !(1 << place.index());
        }
    }

    /// Areas that nobody has now and that hold more than is kept; they count as empty from here on.
    pub(super) fn overfull(&mut self) -> Vec<(Place, Area)> {
        let is_overfull = |&(place, _): &(Place, Area), used: &mut usize| {
            *used > KEPT_BYTES && self.lent & 1 << place.index() == 0
        };
        self.used.extract_if(.., is_overfull).map(|(area, _)| area).collect()
    }

    /// Whether some area, lent or not, holds more than is kept.
    pub(super) fn is_overfull(&self) -> bool {
        self.used.values().any(|&bytes| bytes > KEPT_BYTES)
    }
}

const _: () = assert!(PLACES as u32 <= u8::BITS, "a bit for each place");

#[cfg(test)]
mod tests {
    use super::*;

    fn number(place: Place) -> u8 {
        Place::number(Some(place))
    }

    #[test]
    fn a_place_is_lent_to_one_at_a_time_and_the_first_ones_first() {
        let mut loans = Loans::default();
        let all: Vec<_> = (0..).map_while(|id| loans.lend(id)).map(number).collect();
        assert_eq!(all, (0..PLACES).collect::<Vec<_>>());
        loans.take_back(5);
        loans.take_back(2);
        loans.take_back(2);
        let next = [10, 11, 12].map(|id| loans.lend(id).map(number));
        assert_eq!(next, [Some(2), Some(5), None]);
        let place = Place::of_number(2).unwrap().unwrap();
        assert!(loans.is_held(10, place) && !loans.is_held(2, place) && !loans.is_held(11, place));
    }

    #[test]
    fn memory_is_given_back_once_and_never_under_a_request() {
        let mut loans = Loans::default();
        let (first, second) = (loans.lend(1).unwrap(), loans.lend(2).unwrap());
        assert!(!loans.used(first, Area::Inputs, KEPT_BYTES));
        assert!(loans.used(second, Area::Outputs, KEPT_BYTES + 1));
        assert!(!loans.used(second, Area::Outputs, 1));
        assert!(loans.overfull().is_empty(), "both are lent");
        loans.take_back(1);
        assert!(loans.overfull().is_empty(), "the one that is free is not overfull");
        assert!(loans.is_overfull(), "to be looked at again");
        loans.take_back(2);
        assert_eq!(loans.overfull(), [(second, Area::Outputs)]);
        assert!(loans.overfull().is_empty() && !loans.is_overfull());
    }
}
