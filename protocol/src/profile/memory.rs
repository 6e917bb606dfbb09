//! How long rows resemble those before them, and so how much more than by chance the means of lots of them vary.
//!
//! ```text
//!   factor │            ┌───────── rows of a long reference: the memory has ended, each is worth 1/factor of an independent one
//!          │         ·´
//!          │      ·´             measured up to an eighth of the reference; beyond that the curve goes on as it rose,
//!        1 ├──·´                 where it had not ended
//!          └──┬──┬──┬──┬──┬──▶   rows of a lot: 1, 2, 4, 8, …
//! ```
//! The factor of lots of n rows is n times the variance of their means over that of single rows; with correlations ρ that is
//! 1 + 2 Σ (1 - k/n) ρ(k). A sum of estimated correlations does not converge, so it is cut where it no longer surely rises (as Geyer,
//! 1992, cuts it where chance takes over), and lots overlap, which wastes no rows (Meketon and Schmeiser, 1984).

use serde::{Deserialize, Serialize};

use crate::drift::{gamma_tail, number};

/// Lots that must fit into the reference for their means to say how much means vary.
const LOTS_MIN: usize = 8;
/// Rows below which nothing is measured.
const ROWS_MIN: usize = 32;
/// A curve is that of independent rows unless chance would bring about one of its values this rarely.
const CHANCE: f64 = 2e-5;
/// It rises where it does so by as many of its standard errors; after a pause by more, as then more was looked at.
const RISE_ERRORS: f64 = 2.0;
const LATE_RISE_ERRORS: f64 = 3.5;
/// It falls, as over whole seasons, where it is that far below.
const FALL_ERRORS: f64 = 3.0;
/// What was measured may be so many standard errors too low.
const MARGIN_ERRORS: f64 = 1.5;
/// What is worth few independent rows knows its own memory badly: of `n` such rows, by one part in `n` so many times.
const FEW_MARGIN: f64 = 20.0;
/// The reference's own mean takes off what it takes part in; that is put back, as often as settles it (Marriott and Pope, 1954).
const ROUNDS: usize = 3;
/// Where rows resemble each other for as long as the reference is, it is worth one of them.
const LENGTHS_MAX: usize = 48;

/// By which factor means of lots of 1, 2, 4, 8, … rows vary more than those of independent rows; empty for once.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Memory(Vec<f32>);

impl Memory {
    /// The memory of a series of scores in the order of the rows.
    pub(super) fn of(scores: &[f64]) -> Self {
        let Some(measured) = Measured::of(scores) else { return Self::default() };
        if !measured.is_sure() {
            return Self::default();
        }
        let rows = number_of(scores.len());
        let mut memory = Self::default();
        let mut share = 0.0;
        for _ in 0..ROUNDS {
            memory = measured.curve(share);
            share = (memory.factor(rows) / rows).min(1.0);
        }
        memory
    }

    /// The factor for lots of `rows`.
    pub(super) fn factor(&self, rows: f64) -> f64 {
        let place = rows.max(1.0).log2();
        let at = |place: usize| self.0.get(place).copied().map(f64::from);
        let (mut before, mut length) = (1.0, 0.0);
        for (next, step) in (0..self.0.len()).filter_map(at).zip(0_u32..) {
            let step = f64::from(step);
            if step >= place {
                let part = if step > length { (place - length) / (step - length) } else { 1.0 };
                return (before * (next / before).powf(part)).clamp(1.0, rows.max(1.0));
            }
            (before, length) = (next, step);
        }
        // Beyond the reference it goes on as it rose at its end.
        let last_but_one = self.0.len().checked_sub(2).and_then(at).unwrap_or(before);
        let rise = (before / last_but_one).max(1.0);
        (before * rise.powf(place - length)).clamp(1.0, rows.max(1.0))
    }

    /// At every length the larger of both.
    pub(super) fn larger(self, other: Self) -> Self {
        if self.0.len() < other.0.len() {
            return other.larger(self);
        }
        let others = other.0.into_iter().map(Some).chain(std::iter::repeat(None));
        let larger = |(one, other): (f32, Option<f32>)| other.map_or(one, |other| one.max(other));
        Self(self.0.into_iter().zip(others).map(larger).collect())
    }

    /// Whether rows are independent.
    pub(super) const fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is a curve that can have been measured.
    pub(super) fn is_sound(&self) -> bool {
        let is_factor = |factor: &f32| factor.is_finite() && *factor >= 1.0;
        self.0.len() <= LENGTHS_MAX && self.0.iter().all(is_factor)
    }
}

/// What is known of one feature.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Memories {
    /// Of its values.
    #[serde(default, skip_serializing_if = "Memory::is_none")]
    pub(super) values: Memory,
    /// Of whether it has one.
    #[serde(default, skip_serializing_if = "Memory::is_none")]
    pub(super) missing: Memory,
}

impl Memories {
    /// Whether rows are independent.
    pub(super) const fn is_none(&self) -> bool {
        self.values.is_none() && self.missing.is_none()
    }

    /// Whether both can have been measured.
    pub(super) fn is_sound(&self) -> bool {
        self.values.is_sound() && self.missing.is_sound()
    }
}

/// Factors of lots of 1, 2, 4, … rows as they were found, with their relative standard errors.
struct Measured {
    rows: usize,
    /// As many rows, of which half have something, would say as much.
    telling: f64,
    found: Vec<(f64, f64)>,
}

impl Measured {
    fn of(scores: &[f64]) -> Option<Self> {
        let rows = scores.len();
        let all = number_of(rows);
        let mean = scores.iter().sum::<f64>() / all;
        let moment =
            |power| scores.iter().map(|score| (score - mean).powi(power)).sum::<f64>() / all;
        let variance = moment(2);
        if rows < ROWS_MIN || variance <= 0.0 {
            return None;
        }
        // Of what is rare a few come together by chance; what half of the rows have tells most.
        let telling = (4.0 * all / (moment(4) / (variance * variance) + 3.0)).min(all);
        let sum = |sum: &mut f64, score: &f64| {
            *sum += score - mean;
            Some(*sum)
        };
        let sums: Vec<f64> = [0.0].into_iter().chain(scores.iter().scan(0.0, sum)).collect();
        let lengths = (0..).map(|doublings| 1_usize << doublings);
        let lengths = lengths.take_while(|length| length * LOTS_MIN <= rows);
        let found = lengths.map(|length| {
            let later = sums.iter().skip(length);
            let squares: f64 =
                sums.iter().zip(later).map(|(start, end)| (end - start).powi(2)).sum();
            let (lots, n) = (number_of(rows + 1 - length), number_of(length));
            let error = 4.0 * (n - 1.0) * (2.0 * n - 1.0) / (6.0 * n * telling);
            (squares / lots / n / variance, error.sqrt())
        });
        Some(Self { rows, telling, found: found.collect() })
    }

    /// Whether chance alone would hardly bring it about.
    fn is_sure(&self) -> bool {
        self.found.iter().skip(1).any(|(factor, error)| {
            let freedom = 1.0 / (error * error);
            gamma_tail(freedom, freedom * factor) < CHANCE
        })
    }

    /// The curve, if the reference's own mean has taken off `share` of the variance.
    fn curve(&self, share: f64) -> Memory {
        let (mut curve, mut now) = (vec![1.0], 1.0);
        // Where it rose last, and the time before that.
        let (mut at, mut before) = (0, 0);
        let found = self.found.iter().enumerate().map(|(place, (factor, error))| {
            (place, factor * (1.0 - share) + number_of(1 << place) * share, *error)
        });
        let found: Vec<_> = found.collect();
        for (place, factor, error) in found.iter().copied().skip(1) {
            let is_late = at > 0 && place > at + 1;
            let errors = if is_late { LATE_RISE_ERRORS } else { RISE_ERRORS };
            if factor - now > errors * now * error {
                for between in at + 1..place {
                    let of_between = found.get(between).map_or(now, |(_, factor, _)| *factor);
                    if let Some(value) = curve.get_mut(between) {
                        *value = of_between.clamp(now, factor);
                    }
                }
                (now, before, at) = (factor, at, place);
            } else if place > at + 1 && factor * (1.0 + FALL_ERRORS * error) < now {
                now = (factor * (1.0 + FALL_ERRORS * error)).max(1.0);
            }
            curve.push(now);
        }
        let few = 1.0 + FEW_MARGIN * now / self.telling;
        curve.iter_mut().skip(at.max(1)).for_each(|value| *value *= few);
        let error_at = found.get(at).map_or(0.0, |(_, _, error)| *error);
        for (value, (_, _, error)) in curve.iter_mut().zip(&found).skip(1) {
            *value *= 1.0 + MARGIN_ERRORS * error.min(error_at);
        }
        self.go_on(curve, (before, at))
    }

    /// Extends a curve to the length of the reference: as it is, or as it rose where it still did near the end.
    fn go_on(&self, mut curve: Vec<f64>, (before, at): (usize, usize)) -> Memory {
        let value = |curve: &[f64], place: usize| curve.get(place).copied().unwrap_or(1.0);
        let mut slope = 0.0;
        if at > 0 && at + 2 >= curve.len() && before + 1 >= at {
            curve.truncate(at + 1);
            slope = (value(&curve, at) / value(&curve, before)).log2();
        }
        // What rises as its length does has not begun to end; what rises slowly ends soon.
        let fade = ((slope - 0.2) / 0.6).clamp(0.5, 1.0);
        while 1 << (curve.len() - 1) < self.rows {
            slope *= fade;
            curve.push(value(&curve, curve.len() - 1) * slope.exp2());
        }
        #[expect(clippy::cast_possible_truncation, reason = "is rounded, and at most the rows")]
        Memory(curve.into_iter().map(|factor| factor.max(1.0) as f32).collect())
    }
}

fn number_of(count: usize) -> f64 {
    number(u64::try_from(count).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Scores of which each is `by` times the one before and fresh noise; the same for a seed on every machine.
    fn remembering(seed: u64, rows: usize, by: f64) -> Vec<f64> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut noise = || (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
        let fresh = (1.0 - by * by).sqrt();
        let mut score = noise();
        let next = |_| {
            score = by * score + fresh * noise();
            score
        };
        (0..rows).map(next).collect()
    }

    /// 1 + 2 Σ (1 - k/n) by^k
    fn of_lots(by: f64, rows: f64) -> f64 {
        let whole = by / (1.0 - by);
        1.0 + 2.0 * (whole - by * (1.0 - by.powf(rows)) / (rows * (1.0 - by).powi(2)))
    }

    #[track_caller]
    fn is_about(memory: &Memory, by: f64, rows: f64) {
        let (found, truth) = (memory.factor(rows), of_lots(by, rows));
        assert!(found > 0.7 * truth && found < 3.0 * truth, "{by}, {rows}: {found} for {truth}");
    }

    #[test]
    fn factors_are_those_of_an_autoregression_by_the_length_of_the_lots() {
        for (seed, by) in [(1, 0.3), (2, 0.6), (3, 0.9), (4, 0.97)] {
            let memory = Memory::of(&remembering(seed, 20_000, by));
            for rows in [10.0, 50.0, 200.0, 1_000.0, 20_000.0] {
                is_about(&memory, by, rows);
            }
        }
    }

    #[test]
    fn a_reference_shorter_than_its_memory_is_worth_a_few_rows() {
        for seed in 0..20 {
            let memory = Memory::of(&remembering(seed, 2_000, 0.999));
            assert!(2_000.0 / memory.factor(2_000.0) < 8.0, "seed {seed}: {memory:?}");
        }
    }

    #[test]
    fn independent_rows_have_none() {
        let known = (0..300).filter(|seed| !Memory::of(&remembering(*seed, 1_000, 0.0)).is_none());
        assert!(known.count() <= 1);
    }

    #[test]
    fn whole_seasons_cancel_out() {
        let day = |row: u32| (std::f64::consts::TAU * f64::from(row) / 1_000.0).sin();
        let noise = remembering(5, 40_000, 0.0);
        let scores: Vec<f64> = (0..).map(day).zip(noise).map(|(day, noise)| day + noise).collect();
        let memory = Memory::of(&scores);
        assert!(memory.factor(200.0) > 50.0, "{memory:?}");
        assert!(memory.factor(4_000.0) < memory.factor(400.0) / 2.0, "{memory:?}");
    }

    #[test]
    fn what_cannot_have_been_measured_is_told() {
        for factors in [vec![0.5], vec![f32::NAN], vec![1.0; LENGTHS_MAX + 1]] {
            assert!(!Memory(factors.clone()).is_sound(), "{factors:?}");
        }
        assert!(Memory(vec![1.0, 1.9, 3.0]).is_sound());
    }

    proptest! {
        #[test]
        fn a_factor_is_between_one_and_the_rows(
            scores in prop::collection::vec(-1.0_f64..1.0, 0..300),
            times in 1_usize..20,
            rows in 0.0_f64..1e9,
        ) {
            let copies: Vec<f64> =
                scores.iter().flat_map(|score| std::iter::repeat_n(*score, times)).collect();
            let memory = Memory::of(&copies);
            prop_assert!(memory.is_sound());
            let factor = memory.factor(rows);
            prop_assert!(factor >= 1.0 && factor <= rows.max(1.0), "{factor}");
        }

        #[test]
        fn the_larger_of_two_is_the_larger_at_every_length(
            left in prop::collection::vec(1.0_f32..100.0, 0..12),
            right in prop::collection::vec(1.0_f32..100.0, 0..12),
        ) {
            let larger = Memory(left.clone()).larger(Memory(right.clone()));
            for (place, factor) in larger.0.iter().enumerate() {
                let of = |side: &[f32]| side.get(place).copied().unwrap_or(1.0);
                prop_assert!((factor - of(&left).max(of(&right))).abs() < f32::EPSILON);
            }
            prop_assert_eq!(larger.0.len(), left.len().max(right.len()));
        }
    }
}
