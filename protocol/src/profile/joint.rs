//! What the numeric inputs of a row do together: where it lies along the directions in which the reference varies most and along two by
//! chance, how far out it is in those (Hotelling's T), and how much of it they do not explain (the residual, Q).
//!
//! ```text
//!   half of the reference, in lots ──▶ centre, scale, directions        (fixed in the baseline, under its signature)
//!   the other half ──▶ figures ──▶ quantile bins                        (as every window's rows do)
//! ```
//! Directions fit the rows that they were computed from better than any others, so those rows are not what windows are compared with.
//! Figures are counted on bins like those of any feature, so profiles add up exactly; and as each is a fixed sequence of additions and
//! multiplications of `f32`, server and device come to the same bin.

use serde::{Deserialize, Serialize};

use super::baseline::NumericReference;
use super::builder::Row;
use crate::drift::number;

/// The group of the figures.
pub const JOINT_GROUP: &str = "joint";
/// Directions of the reference; what lies in none of them is the residual.
const DIRECTIONS_MAX: usize = 5;
/// Of those, how many are looked at one by one.
const SHOWN_MAX: usize = 3;
/// Directions by chance: what moves a little everywhere moves along some of them.
const RANDOM: usize = 2;
/// Sums that are made at once, one vector operation or two for each input.
const LANES: usize = 8;
/// Rows of the half that directions are computed from; from fewer they are noise.
const ROWS_MIN: usize = 50;
/// Values of that half that are looked at: a second's work.
const VALUES_MAX: usize = 1_000_000;
/// Rounds after which directions no longer turn noticeably; the first few need fewer.
const ROUNDS: usize = 20;
/// Scales from the centre beyond which a value counts as there: a single one must not hide all others of its row.
const FAR: f32 = 10.0;
/// Between the first and the last tenth of a bell curve lie so many standard deviations.
const DECILES_SD: f32 = 2.563;
/// Rows that stay together in one half.
const LOT: u64 = 64;

/// Fixed when the baseline was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Joint {
    /// For each numeric input what is taken off it.
    centre: Vec<f32>,
    /// And by what the rest is multiplied; 0 leaves a constant out.
    factor: Vec<f32>,
    /// For each direction the weights of the inputs; at right angles, of length one.
    directions: Vec<Vec<f32>>,
    /// Mean square along each direction.
    variances: Vec<f32>,
    /// What the directions by chance are made from.
    seed: u64,
}

/// The figures of a row, in the order of [`Joint::names`].
pub(super) type Figures = [f32; LANES];

/// Computes figures; made once for a profiler.
#[derive(Debug, Clone)]
pub(super) struct Projector {
    inputs: Vec<Projected>,
    inverse_variances: [f32; DIRECTIONS_MAX],
    directions: usize,
}

/// One input with its weight in every sum.
#[derive(Debug, Clone, Copy)]
struct Projected {
    centre: f32,
    factor: f32,
    weights: [f32; LANES],
}

/// Whether a row of the reference is one that windows are compared with; the others are those that something was chosen by.
pub const fn is_held_out(order: u64) -> bool {
    super::builder::scramble(order / LOT) & 1 == 1
}

impl Joint {
    /// Computes directions from the rows that are not held out; nothing from too few rows or inputs.
    pub(super) fn fit(inputs: &[(usize, NumericReference)], sample: &[Row]) -> Option<Self> {
        let (centre, factor): (Vec<f32>, Vec<f32>) =
            inputs.iter().map(|(_, reference)| centre_and_factor(reference)).unzip();
        let width = factor.iter().filter(|factor| **factor > 0.0).count();
        let fitted = sample.iter().filter(|row| !is_held_out(row.order));
        let rows = fitted.clone().count();
        if width < 2 || rows < ROWS_MIN || sample.len() - rows < ROWS_MIN {
            return None;
        }
        let step = (rows * inputs.len()).div_ceil(VALUES_MAX);
        let mut joint =
            Self { centre, factor, directions: Vec::new(), variances: Vec::new(), seed: 1 };
        let scaled = |joint: &Self, row: &Row| -> Vec<f32> {
            let value = |(place, (index, _)): (usize, &(usize, NumericReference))| {
                let input = Projected::new(joint, place);
                input.scaled(row.values.get(*index).copied().unwrap_or(f32::NAN))
            };
            inputs.iter().enumerate().map(value).collect()
        };
        let fitted = || fitted.clone().step_by(step);
        let first: Vec<_> = fitted().map(|row| scaled(&joint, row)).collect();
        joint.move_centre(&first);
        let matrix: Vec<_> = fitted().map(|row| scaled(&joint, row)).collect();
        joint.turn(&matrix, DIRECTIONS_MAX.min(width - 1));
        (!joint.directions.is_empty()).then_some(joint)
    }

    /// The names of the figures.
    pub(super) fn names(&self) -> Vec<String> {
        let directions =
            (1..=self.directions.len().min(SHOWN_MAX)).map(|n| format!("direction-{n}"));
        let random = (1..=RANDOM).map(|n| format!("random-{n}"));
        let others = ["distance", "residual"].map(str::to_owned);
        let names = directions.chain(random).chain(others);
        names.map(|name| format!("{JOINT_GROUP}/{name}")).collect()
    }

    /// Why this cannot be of a baseline with so many numeric inputs.
    pub(super) fn broken_rule(&self, inputs: usize) -> Option<&'static str> {
        let is_length = |weights: &Vec<f32>| weights.len() == inputs;
        let numbers = self.directions.iter().flatten().chain(&self.centre).chain(&self.factor);
        if !(1..=DIRECTIONS_MAX).contains(&self.directions.len())
            || self.variances.len() != self.directions.len()
        {
            Some("it has not one to five directions with a variance each")
        } else if ![&self.centre, &self.factor].into_iter().chain(&self.directions).all(is_length) {
            Some("its directions are not over the numeric inputs")
        } else if !numbers.chain(&self.variances).all(|number| number.is_finite())
            || self.variances.iter().any(|variance| *variance <= 0.0)
        {
            Some("its directions are not finite, or nothing varies along one")
        } else {
            None
        }
    }

    /// Takes the mean of scaled rows off, too.
    fn move_centre(&mut self, rows: &[Vec<f32>]) {
        let all = to_f32(number(u64::try_from(rows.len()).unwrap_or(u64::MAX))).max(1.0);
        let ends = self.centre.iter_mut().zip(&self.factor).enumerate();
        for (place, (centre, factor)) in ends.filter(|(_, (_, factor))| **factor > 0.0) {
            let sum: f32 = rows.iter().filter_map(|row| row.get(place)).sum();
            *centre += sum / all / factor;
        }
    }

    /// Orthogonal iteration: directions multiplied by the rows' covariance turn to where these vary most.
    fn turn(&mut self, rows: &[Vec<f32>], directions: usize) {
        let width = self.factor.len();
        let mut turned: Vec<Vec<f64>> = (0..directions)
            .map(|place| (0..width).map(|input| sign(self.seed + 1, place, input)).collect())
            .collect();
        let mut variances = Vec::new();
        for _ in 0..ROUNDS {
            orthonormal(&mut turned);
            let mut next = vec![vec![0.0; width]; turned.len()];
            variances = vec![0.0; turned.len()];
            for row in rows {
                for ((direction, next), variance) in
                    turned.iter().zip(&mut next).zip(&mut variances)
                {
                    let along: f64 = direction
                        .iter()
                        .zip(row)
                        .map(|(weight, value)| weight * f64::from(*value))
                        .sum();
                    let sums = next.iter_mut().zip(row);
                    sums.for_each(|(sum, value)| *sum += along * f64::from(*value));
                    *variance += along * along;
                }
            }
            std::mem::swap(&mut turned, &mut next);
        }
        orthonormal(&mut turned);
        let all = number(u64::try_from(rows.len()).unwrap_or(u64::MAX)).max(1.0);
        for (direction, variance) in turned.into_iter().zip(variances) {
            let variance = to_f32(variance / all);
            if variance > f32::EPSILON && direction.iter().all(|weight| weight.is_finite()) {
                self.directions.push(direction.into_iter().map(to_f32).collect());
                self.variances.push(variance);
            }
        }
    }
}

impl Projector {
    /// A projector of the baseline's directions.
    pub(super) fn new(joint: &Joint) -> Self {
        let inputs = (0..joint.centre.len()).map(|place| Projected::new(joint, place)).collect();
        let mut inverse_variances = [0.0; DIRECTIONS_MAX];
        let pairs = inverse_variances.iter_mut().zip(&joint.variances);
        pairs.for_each(|(inverse, variance)| *inverse = variance.recip());
        Self { inputs, inverse_variances, directions: joint.directions.len() }
    }

    /// The figures of a row, given by its numeric inputs; a missing value lies in the centre. Not a number if all are missing.
    pub(super) fn figures(&self, values: impl Iterator<Item = f32>) -> Figures {
        let (mut sums, mut squares, mut seen) = ([0.0_f32; LANES], 0.0_f32, false);
        for (input, value) in self.inputs.iter().zip(values) {
            let scaled = input.scaled(value);
            seen |= value.is_finite();
            squares += scaled * scaled;
            sums.iter_mut().zip(input.weights).for_each(|(sum, weight)| *sum += scaled * weight);
        }
        let (along, random) = sums.split_at(DIRECTIONS_MAX);
        let explained: f32 = along.iter().map(|sum| sum * sum).sum();
        let weighed = along.iter().zip(self.inverse_variances);
        let distance: f32 = weighed.map(|(sum, inverse)| sum * sum * inverse).sum();
        let residual = (squares - explained).max(0.0);
        let mut figures = [f32::NAN; LANES];
        if !seen {
            return figures;
        }
        let shown = along.iter().take(self.directions.min(SHOWN_MAX));
        let all = shown.chain(random.iter().take(RANDOM)).copied();
        let all = all.chain([distance.sqrt(), residual.sqrt()]);
        figures.iter_mut().zip(all).for_each(|(to, figure)| *to = figure);
        figures
    }

    /// How many of the figures there are.
    pub(super) fn count(&self) -> usize {
        self.directions.min(SHOWN_MAX) + RANDOM + 2
    }
}

impl Projected {
    fn new(joint: &Joint, place: usize) -> Self {
        let at = |numbers: &[f32]| numbers.get(place).copied().unwrap_or(0.0);
        let length = number(u64::try_from(joint.factor.len()).unwrap_or(u64::MAX)).sqrt();
        let mut weights = [0.0; LANES];
        let (along, random) = weights.split_at_mut(DIRECTIONS_MAX);
        along.iter_mut().zip(&joint.directions).for_each(|(to, weights)| *to = at(weights));
        for (number, to) in random.iter_mut().take(RANDOM).enumerate() {
            *to = to_f32(sign(joint.seed, number, place) / length);
        }
        Self { centre: at(&joint.centre), factor: at(&joint.factor), weights }
    }

    fn scaled(&self, value: f32) -> f32 {
        let scaled = (value - self.centre) * self.factor;
        // A comparison that is false for what is not a number.
        if scaled.abs() <= FAR {
            scaled
        } else if scaled.is_nan() || !value.is_finite() {
            0.0
        } else {
            FAR.copysign(scaled)
        }
    }
}

/// By the middle tenths, which no outlier moves; where those are all one value, by mean and standard deviation.
fn centre_and_factor(reference: &NumericReference) -> (f32, f32) {
    let tenths = reference.in_tenths();
    let ends = tenths.edges.first().zip(tenths.edges.last());
    let width = ends.map_or(0.0, |(first, last)| (last - first) / DECILES_SD);
    let middle = tenths.edges.get(tenths.edges.len() / 2).copied();
    let (centre, scale) = match middle.filter(|_| width > 0.0 && tenths.edges.len() > 2) {
        Some(middle) => (middle, width),
        None => (to_f32(reference.mean), to_f32(reference.sd)),
    };
    let factor = scale.recip();
    let is_usable = centre.is_finite() && factor.is_finite() && scale > 0.0;
    if is_usable { (centre, factor) } else { (0.0, 0.0) }
}

/// One or minus one, by chance that is the same each time.
fn sign(seed: u64, direction: usize, input: usize) -> f64 {
    let place = |place: usize| u64::try_from(place).unwrap_or(u64::MAX);
    let mixed = super::builder::scramble(seed.wrapping_add(place(direction) << 32) ^ place(input));
    if mixed & 1 == 1 { 1.0 } else { -1.0 }
}

/// Gram and Schmidt's way; what is left of a direction that the ones before explain is no direction.
fn orthonormal(directions: &mut Vec<Vec<f64>>) {
    let mut done: Vec<Vec<f64>> = Vec::new();
    for mut direction in directions.drain(..) {
        let before = length(&direction);
        for other in &done {
            let along: f64 = direction.iter().zip(other).map(|(left, right)| left * right).sum();
            direction.iter_mut().zip(other).for_each(|(weight, other)| *weight -= along * other);
        }
        let after = length(&direction);
        if after > before * 1e-9 && after > 0.0 {
            for weight in &mut direction {
                *weight /= after;
            }
            done.push(direction);
        }
    }
    *directions = done;
}

fn length(direction: &[f64]) -> f64 {
    direction.iter().map(|weight| weight * weight).sum::<f64>().sqrt()
}

#[expect(clippy::cast_possible_truncation, reason = "rounds; what is beyond becomes infinite")]
const fn to_f32(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{BaselineBuilder, Column, Profile, Profiler};

    /// Numbers from 0 to 1, the same each time.
    struct Chance(u64);

    impl Chance {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
        fn next(&mut self) -> f64 {
            self.0 += 1;
            (super::super::builder::scramble(self.0) >> 11) as f64 / (1_u64 << 53) as f64
        }

        /// About a bell curve.
        fn bell(&mut self) -> f64 {
            (0..12).map(|_| self.next()).sum::<f64>() - 6.0
        }
    }

    /// Six inputs that two causes explain, but for a tenth.
    fn row(chance: &mut Chance) -> Vec<f64> {
        let (one, other) = (chance.bell(), chance.bell());
        let input = |place: u8| (one * f64::from(place) + other * f64::from(7 - place)) / 5.0;
        (1..=6).map(|place| input(place) + chance.bell() / 10.0).collect()
    }

    fn builder() -> BaselineBuilder {
        let columns = (0..6).map(|place| Column::numeric(&format!("x{place}"), "all")).collect();
        let mut builder = BaselineBuilder::new(columns, vec![]).with_joint();
        let mut chance = Chance(0);
        for _ in 0..1_000 {
            builder.push(&row(&mut chance), None, None).unwrap();
        }
        builder
    }

    #[expect(clippy::cast_possible_truncation, reason = "as a device sees it")]
    fn seen(rows: &[Vec<f64>]) -> Profile {
        let mut profiler = Profiler::new(&builder().build().unwrap());
        for row in rows {
            let row: Vec<f32> = row.iter().map(|value| *value as f32).collect();
            profiler.observe(&row, None, None, None);
        }
        profiler.close()
    }

    #[test]
    fn joint_features_follow_the_inputs_and_hold_half_of_the_rows() {
        let baseline = builder().build().unwrap();
        let names: Vec<_> = baseline.features().iter().skip(6).map(|f| f.name.as_str()).collect();
        let expected = ["direction-1", "direction-2", "direction-3", "random-1", "random-2"];
        let expected = expected.into_iter().chain(["distance", "residual"]);
        assert_eq!(names, expected.map(|name| format!("joint/{name}")).collect::<Vec<_>>());
        let held_out = (0..1_000).filter(|order| is_held_out(*order)).count();
        for feature in baseline.features().iter().skip(6) {
            let counts: u64 = feature.numeric().unwrap().counts.iter().sum();
            assert_eq!(counts, u64::try_from(held_out).unwrap(), "{}", feature.name);
        }
        assert!((300..700).contains(&held_out), "{held_out}");
    }

    #[test]
    fn directions_are_at_right_angles_and_the_first_varies_most() {
        let baseline = builder().build().unwrap();
        let joint = baseline.joint().unwrap();
        for (place, one) in joint.directions.iter().enumerate() {
            for (other_place, other) in joint.directions.iter().enumerate() {
                let product: f32 = one.iter().zip(other).map(|(left, right)| left * right).sum();
                let expected = if place == other_place { 1.0 } else { 0.0 };
                assert!((product - expected).abs() < 1e-4, "{place} {other_place}: {product}");
            }
        }
        assert!(joint.variances.is_sorted_by(|left, right| *left >= *right * 0.99));
        assert!(joint.variances[1] > 20.0 * joint.variances[2], "{:?}", joint.variances);
    }

    /// Each input keeps its range, and the rows no longer follow the two causes.
    #[test]
    fn a_broken_pattern_is_out_of_the_range_of_the_residual() {
        let mut chance = Chance(50_000);
        let mut rows: Vec<_> = (0..200).map(|_| row(&mut chance)).collect();
        let residual = |profile: &Profile| {
            let baseline = builder().build().unwrap();
            let reference = baseline.features()[12].numeric().unwrap();
            profile.numeric()[12].bins(reference).last().copied().unwrap()
        };
        let quiet = residual(&seen(&rows));
        for pair in rows.as_chunks_mut::<2>().0 {
            let [one, other] = pair;
            std::mem::swap(&mut one[2], &mut other[2]);
        }

        let broken = residual(&seen(&rows));

        assert!(quiet <= 3, "{quiet} of 200");
        assert!(broken > 100, "{broken} of 200");
    }

    #[test]
    fn a_missing_or_absurd_value_does_not_hide_the_others() {
        let projector = Projector::new(builder().build().unwrap().joint().unwrap());
        let figures = |row: [f32; 6]| projector.figures(row.into_iter());
        let plain = figures([0.5; 6]);
        let missing = figures([0.5, 0.5, f32::NAN, 0.5, 0.5, 0.5]);
        let absurd = figures([0.5, 0.5, f32::MAX, 0.5, 0.5, 0.5]);
        let count = projector.count();
        assert!(plain[..count].iter().chain(&missing[..count]).all(|figure| figure.is_finite()));
        assert!(absurd[..count].iter().all(|figure| figure.is_finite()), "{absurd:?}");
        assert!(absurd[count - 1] > plain[count - 1]);
        assert!(figures([f32::NAN; 6]).iter().all(|figure| figure.is_nan()));
    }

    #[test]
    fn too_few_rows_or_inputs_have_no_joint_features() {
        let few = |width: usize, rows: usize| {
            let columns = (0..width).map(|place| Column::numeric(&format!("x{place}"), "all"));
            let mut builder = BaselineBuilder::new(columns.collect(), vec![]).with_joint();
            let mut chance = Chance(3);
            for _ in 0..rows {
                let row: Vec<_> = (0..width).map(|_| chance.bell()).collect();
                builder.push(&row, None, None).unwrap();
            }
            builder.build().unwrap().features().len()
        };
        assert_eq!((few(1, 1_000), few(4, 60), few(2, 1_000)), (1, 4, 2 + 5));
    }

    #[test]
    fn a_baseline_with_other_directions_than_inputs_is_refused() {
        let baseline = builder().build().unwrap();
        let mut joint = baseline.joint().unwrap().clone();
        assert_eq!(joint.broken_rule(6), None);
        assert!(joint.broken_rule(5).is_some());
        joint.variances[0] = 0.0;
        assert!(joint.broken_rule(6).is_some());
        joint.variances.clear();
        assert!(joint.broken_rule(6).is_some());
    }
}
