//! Which samples people label first, so that a few labels say the most.
//!
//! Half of the labels go to samples that were drawn by chance when they came: they measure how good the model is. The other half goes where
//! the model learns most: to the sample that is unsure and far from all that was chosen before, again and again. That is the greedy k-center
//! of Sener and Savarese ("Active learning for convolutional neural networks: a core-set approach", ICLR 2018), with the distance weighed
//! by the model's uncertainty (least confidence; Settles, "Active learning literature survey", 2009, section 3.1), on random projections
//! of inputs and outputs (Achlioptas, "Database-friendly random projections", JCSS 2003), which keep distances.

use sealift_protocol::capture::{Sample, SampleId};
use sealift_protocol::tensor::Tensor;

/// Directions on which inputs, and outputs, are projected.
const DIRECTIONS: usize = 16;

/// The name under which the order is shown.
pub(crate) const METHOD: &str = "audit+kcenter-uncertainty/rp16";

/// A sample that may be labelled.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Candidate {
    /// Which.
    pub(crate) id: SampleId,
    /// Whether chance chose it when it came.
    pub(crate) is_audit: bool,
    /// How unsure the model was, from 0 to 1.
    pub(crate) uncertainty: f64,
    /// Where it lies among the others.
    pub(crate) place: Place,
}

/// Projections of inputs, then of outputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Place([f64; DIRECTIONS * 2]);

impl Place {
    /// Where a sample lies.
    pub(crate) fn of(sample: &Sample) -> Self {
        let mut place = [0.0; DIRECTIONS * 2];
        let (inputs, outputs) = place.split_at_mut(DIRECTIONS);
        project(&sample.inputs, inputs);
        project(&sample.outputs, outputs);
        Self(place)
    }

    fn distance(&self, other: &Self) -> f64 {
        self.0.iter().zip(&other.0).map(|(one, other)| (one - other).powi(2)).sum::<f64>().sqrt()
    }
}

/// Puts samples into the order in which they are labelled, at most `budget` of them; the same on every run.
pub(crate) fn choose(candidates: &[Candidate], budget: usize) -> Vec<SampleId> {
    let mut pool: Vec<_> = scaled(candidates);
    pool.sort_by_key(|candidate| candidate.id);
    let mut far = vec![f64::INFINITY; pool.len()];
    let mut chosen = Vec::new();
    while chosen.len() < budget.min(candidates.len()) {
        // By turns, as long as there are both.
        let next = if chosen.len() % 2 == 0 { audit(&pool, &far) } else { None };
        let Some(next) = next.or_else(|| telling(&pool, &far)) else { break };
        let Some(place) = pool.get(next).map(|candidate| (candidate.id, candidate.place)) else {
            break;
        };
        chosen.push(place.0);
        for (candidate, far) in pool.iter().zip(&mut far) {
            // What was chosen is at no distance, for ever.
            let distance =
                if candidate.id == place.0 { CHOSEN } else { candidate.place.distance(&place.1) };
            *far = far.min(distance);
        }
    }
    chosen
}

/// Less than every distance.
const CHOSEN: f64 = -1.0;

/// The next that chance chose.
fn audit(pool: &[Candidate], far: &[f64]) -> Option<usize> {
    pool.iter().zip(far).position(|(candidate, &far)| candidate.is_audit && far > CHOSEN)
}

/// The next that is unsure and far from what was chosen; before anything was, the one that is most unsure.
fn telling(pool: &[Candidate], far: &[f64]) -> Option<usize> {
    let worth = |candidate: &Candidate, far: f64| {
        let far = if far.is_finite() { far } else { 1.0 };
        // A little more than nothing: of two copies, or of samples that the model is sure of, one is still first.
        (candidate.uncertainty + 1e-6) * (far + 1e-6)
    };
    let open = pool.iter().zip(far).enumerate().filter(|(_, (_, far))| **far > CHOSEN);
    let best = open.fold(None, |best: Option<(usize, f64)>, (place, (candidate, &far))| {
        let worth = worth(candidate, far);
        if best.is_none_or(|(_, most)| worth > most) { Some((place, worth)) } else { best }
    });
    best.map(|(place, _)| place)
}

/// Inputs and outputs weigh the same, whatever their units: each is divided by its root mean square.
fn scaled(candidates: &[Candidate]) -> Vec<Candidate> {
    let size = |part: std::ops::Range<usize>| {
        let squares = candidates.iter().filter_map(|candidate| candidate.place.0.get(part.clone()));
        let (sum, count) = squares
            .flatten()
            .fold((0.0, 0.0), |(sum, count), value| (sum + value * value, count + 1.0));
        let size: f64 = if count > 0.0 { (sum / count).sqrt() } else { 0.0 };
        if size > 0.0 { size } else { 1.0 }
    };
    let (inputs, outputs) = (size(0..DIRECTIONS), size(DIRECTIONS..DIRECTIONS * 2));
    let scale = |candidate: &Candidate| {
        let mut place = candidate.place.0;
        for (at, value) in place.iter_mut().enumerate() {
            *value /= if at < DIRECTIONS { inputs } else { outputs };
        }
        Candidate { place: Place(place), ..candidate.clone() }
    };
    candidates.iter().map(scale).collect()
}

/// Adds each element to some directions and takes it from others, as a hash of its position says. What is no number counts as nothing.
fn project(tensors: &[Tensor], onto: &mut [f64]) {
    let mut position = 0_u64;
    for tensor in tensors {
        // Of text and pictures in files, the bytes are what there is.
        let numbers = tensor
            .numbers()
            .unwrap_or_else(|| tensor.bytes.iter().map(|&byte| f64::from(byte)).collect());
        for number in numbers {
            position += 1;
            let signs = mixed(position);
            if !number.is_finite() {
                continue;
            }
            for (direction, sum) in onto.iter_mut().enumerate() {
                *sum += if (signs >> direction) & 1 == 1 { number } else { -number };
            }
        }
    }
}

/// The finalizer of `MurmurHash3` (Appleby): every bit of the result depends on every bit of the position.
const fn mixed(position: u64) -> u64 {
    let mut mixed = position.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn candidate(number: u8, is_audit: bool, uncertainty: f64, x: f32) -> Candidate {
        let tensor = Tensor::fp32("x", &[1, 2], &[x, 1.0]).unwrap();
        let mut place = [0.0; DIRECTIONS * 2];
        project(&[tensor], &mut place[..DIRECTIONS]);
        Candidate { id: SampleId::new([number; 16]), is_audit, uncertainty, place: Place(place) }
    }

    fn order(candidates: &[Candidate], budget: usize) -> Vec<u8> {
        choose(candidates, budget).iter().map(|id| id.as_bytes()[0]).collect()
    }

    #[test]
    fn half_are_those_of_chance_and_half_those_that_tell_most() {
        let pool = [
            candidate(1, false, 0.9, 0.0),
            candidate(2, true, 0.1, 0.0),
            candidate(3, false, 0.8, 9.0),
            candidate(4, true, 0.1, 0.0),
            candidate(5, false, 0.1, 0.0),
        ];
        assert_eq!(order(&pool, 4), [2, 3, 4, 1], "3 is far from 2; then 1, for it is unsure");
        assert_eq!(order(&pool, 9).len(), 5);
    }

    #[test]
    fn a_crowd_of_alike_does_not_take_the_budget() {
        let mut pool: Vec<_> = (0..50).map(|n| candidate(n, false, 0.9, 1.0)).collect();
        pool.extend((50..55).map(|n| candidate(n, false, 0.5, f32::from(n) * 3.0)));
        let first: BTreeSet<_> = order(&pool, 6).into_iter().collect();
        assert_eq!(first.range(50..).count(), 5, "{first:?}");
    }

    proptest! {
        #[test]
        fn nobody_is_chosen_twice_and_the_order_of_asking_does_not_matter(
            seeds in prop::collection::btree_map(any::<u8>(), (any::<bool>(), 0.0_f64..1.0, -9.0_f32..9.0), 0..30),
            budget in 0_usize..40,
        ) {
            let mut pool: Vec<_> =
                seeds.iter().map(|(&n, &(audit, unsure, x))| candidate(n, audit, unsure, x)).collect();
            let chosen = order(&pool, budget);
            let unique: BTreeSet<_> = chosen.iter().collect();
            prop_assert_eq!(unique.len(), chosen.len());
            prop_assert_eq!(chosen.len(), budget.min(pool.len()));
            pool.reverse();
            prop_assert_eq!(order(&pool, budget), chosen);
        }
    }
}
