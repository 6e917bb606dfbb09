//! How many different values there were that the domain does not have: `HyperLogLog` (Flajolet, Fusy, Gandouet and Meunier, 2007).
//!
//! A hash of each value says which register it belongs to and how rare it is; a register keeps the rarest. Taking a value twice changes
//! nothing, and of two sketches the larger register by register is the sketch of both: profiles still add up exactly, in any order.
//!
//! Values of the domain are counted one by one and are not in here, so that a window without unseen values has no sketch at all.
//!
//! What was merged cannot be taken apart: a register does not say who else had that value, or the next rarest. Where a part with
//! unseen values is taken out, the whole sketch goes, and [`DistinctSketch::taken`] says from then on that it is not of all values.

use serde::{Deserialize, Serialize};

use super::InvalidProfile;
use super::builder::scramble;
use crate::codec;
use crate::digest::Digest;

/// Of a hash, the bits that say which register. With 512 registers the error is 1.04 / sqrt(512), 4.6 %.
const PLACE_BITS: u32 = 9;
/// A byte each: 512 bytes, in a window with many unseen values.
const REGISTERS: usize = 1 << PLACE_BITS;
/// The largest rank that the other bits have.
const RANK_MAX: u8 = 56;
/// Bits of a rank where registers are listed one by one.
const RANK_BITS: u32 = 6;

/// Registers, or none as long as there was no value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DistinctSketch {
    registers: Vec<u8>,
    taken: u64,
}

/// The hash of a text, the same on every device: the first bytes of its SHA-256.
pub fn hash_of_text(text: &str) -> u64 {
    let digest = Digest::of(text.as_bytes());
    digest.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The hash of a number that is no place in the domain.
pub(super) fn hash_of_number(number: f32) -> u64 {
    scramble(u64::from((number + 0.0).to_bits()))
}

impl DistinctSketch {
    /// Takes a value by its hash.
    pub(super) fn take(&mut self, hash: u64) {
        if self.registers.is_empty() {
            self.registers = vec![0; REGISTERS];
        }
        let place = usize::try_from(hash >> (u64::BITS - PLACE_BITS)).unwrap_or(0);
        // The last bit that is set ends the search where all others are zero.
        let rest = (hash << PLACE_BITS) | (1 << (PLACE_BITS - 1));
        let rank = u8::try_from(rest.leading_zeros() + 1).unwrap_or(RANK_MAX);
        if let Some(register) = self.registers.get_mut(place) {
            *register = (*register).max(rank);
        }
        self.taken = self.taken.saturating_add(1);
    }

    /// Adds the values that `other` has taken.
    pub(super) fn merge(&mut self, other: &Self) {
        self.taken = self.taken.saturating_add(other.taken);
        if self.registers.is_empty() {
            self.registers.clone_from(&other.registers);
            return;
        }
        for (mine, theirs) in self.registers.iter_mut().zip(&other.registers) {
            *mine = (*mine).max(*theirs);
        }
    }

    /// What is left without a part: everything if the part has no value in here, and nothing otherwise.
    pub(super) fn without(&self, part: &Self) -> Self {
        if part.taken == 0 { self.clone() } else { Self::default() }
    }

    /// Values that were taken, alike or not.
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// About how many different ones.
    pub fn estimate(&self) -> f64 {
        const M: f64 = 512.0;
        const ALPHA: f64 = 0.7213 / (1.0 + 1.079 / M);
        let sum: f64 = self.registers.iter().map(|rank| 0.5_f64.powi(i32::from(*rank))).sum();
        let empty = self.registers.iter().map(|rank| f64::from(u8::from(*rank == 0))).sum::<f64>();
        if self.registers.is_empty() {
            return 0.0;
        }
        let raw = ALPHA * M * M / sum;
        // Few values leave registers empty, and how many says more than what is in the others.
        if raw <= 2.5 * M && empty > 0.0 { M * (M / empty).ln() } else { raw }
    }
}

/// A sketch on the wire: registers one by one, place and rank in two bytes, or all of them where that is shorter.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct DistinctWire {
    #[serde(rename = "n")]
    taken: u64,
    #[serde(rename = "r", with = "codec::bytes")]
    registers: Vec<u8>,
}

impl DistinctWire {
    pub(super) const fn is_empty(&self) -> bool {
        self.taken == 0
    }
}

impl From<&DistinctSketch> for DistinctWire {
    fn from(sketch: &DistinctSketch) -> Self {
        let set = sketch.registers.iter().zip(0_u16..).filter(|(rank, _)| **rank > 0);
        let entry =
            |(rank, place): (&u8, u16)| ((place << RANK_BITS) | u16::from(*rank)).to_be_bytes();
        let listed: Vec<u8> = set.flat_map(entry).collect();
        let registers = if listed.len() < REGISTERS { listed } else { sketch.registers.clone() };
        Self { taken: sketch.taken, registers }
    }
}

impl TryFrom<DistinctWire> for DistinctSketch {
    type Error = InvalidProfile;

    fn try_from(wire: DistinctWire) -> Result<Self, InvalidProfile> {
        let what = "different values";
        let mut registers = wire.registers;
        if registers.len() != REGISTERS {
            let (entries, rest) = registers.as_chunks::<2>();
            let mut all = vec![0; REGISTERS];
            let mut least = 0;
            for entry in entries {
                let entry = u16::from_be_bytes(*entry);
                let place = usize::from(entry >> RANK_BITS);
                let rank = u8::try_from(entry & ((1 << RANK_BITS) - 1)).unwrap_or(0);
                let register = all.get_mut(place).filter(|_| place >= least && rank > 0);
                *register.ok_or(InvalidProfile::Sum { what })? = rank;
                least = place + 1;
            }
            if !rest.is_empty() {
                return Err(InvalidProfile::Sum { what });
            }
            registers = all;
        }
        let set = registers.iter().filter(|rank| **rank > 0).count();
        let is_possible = (set == 0) == (wire.taken == 0)
            && u64::try_from(set).is_ok_and(|set| set <= wire.taken)
            && registers.iter().all(|rank| *rank <= RANK_MAX);
        if !is_possible {
            return Err(InvalidProfile::Sum { what });
        }
        let registers = if set == 0 { Vec::new() } else { registers };
        Ok(Self { registers, taken: wire.taken })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sketch(values: impl IntoIterator<Item = u64>) -> DistinctSketch {
        let mut sketch = DistinctSketch::default();
        values.into_iter().for_each(|value| sketch.take(scramble(value)));
        sketch
    }

    #[track_caller]
    fn read(wire: &DistinctWire) -> Result<DistinctSketch, InvalidProfile> {
        let bytes = codec::encode(wire).unwrap();
        DistinctSketch::try_from(codec::decode::<DistinctWire>("sketch", &bytes, 4_096).unwrap())
    }

    #[test]
    fn it_counts_different_values_within_three_standard_errors() {
        for values in [0_u64, 1, 10, 100, 1_000, 1_300, 10_000, 1_000_000] {
            let found = sketch(0..values).estimate();
            let expected = crate::drift::number(values);
            assert!((found - expected).abs() <= 0.138 * expected, "{found} for {values}");
        }
    }

    #[test]
    fn a_value_again_changes_only_how_many_were_taken() {
        let (once, twice) = (sketch(0..50), sketch((0..50).chain(0..50)));
        assert_eq!(once.registers, twice.registers);
        assert_eq!((once.taken(), twice.taken()), (50, 100));
    }

    #[test]
    fn texts_have_the_hash_that_every_release_gives_them() {
        // `hashlib.sha256(b"osaka").digest()[:8].hex()`
        assert_eq!(format!("{:016x}", hash_of_text("osaka")), "bc691003939b33f2");
    }

    #[test]
    fn few_registers_are_listed_and_many_are_written_out() {
        assert_eq!(DistinctWire::from(&sketch(0..1)).registers.len(), 2);
        assert_eq!(DistinctWire::from(&sketch(0..100_000)).registers.len(), REGISTERS);
    }

    #[test]
    fn senseless_registers_are_refused() {
        let entry = |place: u16, rank: u16| ((place << RANK_BITS) | rank).to_be_bytes().to_vec();
        let refused = |taken, registers: Vec<u8>| read(&DistinctWire { taken, registers }).is_err();
        assert!(!refused(2, [entry(3, 1), entry(4, 2)].concat()));
        assert!(refused(1, [entry(3, 1), entry(4, 2)].concat()), "more than values");
        assert!(refused(2, [entry(4, 1), entry(3, 2)].concat()), "not in order");
        assert!(refused(2, [entry(3, 1), entry(3, 2)].concat()), "twice");
        assert!(refused(1, entry(3, 0)), "nothing");
        assert!(refused(1, entry(3, 57)), "no such rank");
        assert!(refused(1, entry(512, 1)), "no such place");
        assert!(refused(1, vec![1]), "half an entry");
        assert!(refused(1, vec![]), "values without registers");
        assert!(refused(0, entry(3, 1)), "registers without values");
        assert!(refused(9, vec![57; REGISTERS]));
    }

    proptest! {
        #[test]
        fn merging_is_taking_all_values_in_any_order(
            left in prop::collection::vec(any::<u64>(), 0..700),
            right in prop::collection::vec(any::<u64>(), 0..700),
        ) {
            let whole = sketch(left.iter().chain(&right).copied());
            let (left, right) = (sketch(left), sketch(right));
            for (first, second) in [(&left, &right), (&right, &left)] {
                let mut merged = first.clone();
                merged.merge(second);
                prop_assert_eq!(&merged, &whole);
            }
        }

        #[test]
        fn it_survives_the_wire(values in prop::collection::vec(any::<u64>(), 0..900)) {
            let sketch = sketch(values);
            prop_assert_eq!(read(&DistinctWire::from(&sketch)).unwrap(), sketch);
        }
    }
}
