//! Counts rows into a profile, on the device, within a few nanoseconds a value.

use super::Profile;
use super::baseline::{BINS_MAX, Baseline, CONFIDENCE_BINS, Feature, Reference};
use super::distinct::hash_of_number;
use super::joint::Projector;
use super::moments::Scale;
use super::pairs::PairCounter;

/// One value of a row as it came in, where the rows are not tensors of numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell {
    /// A number; for a categorical feature the place of the value in the baseline's domain.
    Number(f32),
    /// Not given.
    Null,
    /// Given, but not of the type that the contract asks for.
    WrongType,
    /// A value of a categorical feature that the domain does not have, by its hash.
    Unseen(u64),
}

/// Counts rows on the bins of one baseline until [`Profiler::close`] ends the window.
#[derive(Debug, Clone)]
pub struct Profiler {
    inputs: Vec<Input>,
    bins: Vec<Bins>,
    has_summary: bool,
    joint: Option<Projector>,
    pairs: Option<PairCounter>,
    profile: Profile,
    empty: Profile,
}

/// Where a column is counted: its place among the numeric or the categorical features.
#[derive(Debug, Clone, Copy)]
enum Input {
    Numeric(usize),
    Categorical(usize),
}

/// What the values of a numeric feature are compared with.
#[derive(Debug, Clone, Copy)]
struct Bins {
    /// Lower bounds; those that the feature does not need are infinite, so that no value is above them.
    lower_bounds: [f32; BINS_MAX],
    scale: Scale,
}

impl Bins {
    /// The bin of a finite value. Comparing with all bounds has no branch to mispredict and is one vector operation for four of them.
    fn find(&self, value: f32) -> usize {
        self.lower_bounds.iter().map(|bound| usize::from(value > *bound)).sum()
    }
}

impl Profiler {
    /// A profiler with nothing counted.
    pub fn new(baseline: &Baseline) -> Self {
        let mut inputs = Vec::with_capacity(baseline.inputs());
        let mut bins = Vec::new();
        let mut categorical = 0;
        for feature in baseline.features() {
            match &feature.reference {
                Reference::Categorical(_) => {
                    inputs.push(Input::Categorical(categorical));
                    categorical += 1;
                }
                Reference::Numeric(reference) => {
                    inputs.push(Input::Numeric(bins.len()));
                    let mut lower_bounds = [f32::INFINITY; BINS_MAX];
                    let bounds = lower_bounds.iter_mut().zip(reference.lower_bounds());
                    bounds.for_each(|(to, bound)| *to = bound);
                    bins.push(Bins { lower_bounds, scale: reference.scale() });
                }
            }
        }
        inputs.truncate(baseline.inputs());
        let has_summary = baseline.has_summary();
        let joint = baseline.joint().map(Projector::new);
        let pairs = (!baseline.pairs().is_empty())
            .then(|| pair_counter(baseline.features().iter().take(baseline.inputs())));
        let empty = Profile::empty(baseline);
        Self { inputs, bins, has_summary, joint, pairs, profile: empty.clone(), empty }
    }

    /// Rows of the window so far.
    pub const fn rows(&self) -> u64 {
        self.profile.rows
    }

    /// Ends the window: returns what was counted and begins anew.
    pub fn close(&mut self) -> Profile {
        if let Some(pairs) = &mut self.pairs {
            pairs.count(&mut self.profile.pairs);
        }
        std::mem::replace(&mut self.profile, self.empty.clone())
    }

    /// Counts an inference: its input row, the place of the predicted class, the confidence from 0 to 1, the latency.
    ///
    /// A row with another number of values than the baseline's is counted as misshapen, and its values are not looked at.
    pub fn observe(
        &mut self,
        row: &[f32],
        prediction: Option<usize>,
        confidence: Option<f32>,
        latency_us: Option<u64>,
    ) {
        self.observe_outputs(prediction, confidence, latency_us);
        if row.len() != self.inputs.len() {
            self.profile.misshapen += 1;
            return;
        }
        for (place, value) in row.iter().enumerate() {
            self.take(place, *value);
        }
        self.end_row();
        self.observe_derived(|| row.iter().copied());
    }

    /// Counts an inference as [`Profiler::observe`] does, where values can be missing or of a wrong type.
    pub fn observe_cells(
        &mut self,
        row: &[Cell],
        prediction: Option<usize>,
        confidence: Option<f32>,
        latency_us: Option<u64>,
    ) {
        self.observe_outputs(prediction, confidence, latency_us);
        if row.len() != self.inputs.len() {
            self.profile.misshapen += 1;
            return;
        }
        for (place, cell) in row.iter().enumerate() {
            match *cell {
                Cell::Number(value) => self.take(place, value),
                Cell::Null => self.count_fault(place, false),
                Cell::WrongType => self.count_fault(place, true),
                Cell::Unseen(hash) => self.count_unseen(place, hash),
            }
        }
        self.end_row();
        let value = |cell: &Cell| match *cell {
            Cell::Number(value) => value,
            Cell::Null | Cell::WrongType | Cell::Unseen(_) => f32::NAN,
        };
        self.observe_derived(|| row.iter().map(value));
    }

    /// Counts rows that were answered and are not looked at, and the latency of their request.
    pub fn skip(&mut self, rows: u64, latency_us: Option<u64>) {
        self.profile.skipped = self.profile.skipped.saturating_add(rows);
        if let Some(latency_us) = latency_us {
            self.profile.latency.take(latency_us);
        }
    }

    fn end_row(&mut self) {
        if let Some(pairs) = &mut self.pairs {
            pairs.end_row(&mut self.profile.pairs);
        }
    }

    fn observe_outputs(
        &mut self,
        prediction: Option<usize>,
        confidence: Option<f32>,
        latency_us: Option<u64>,
    ) {
        self.profile.rows += 1;
        if let Some(class) = prediction {
            match self.profile.classes.get_mut(class) {
                Some(count) => *count += 1,
                None => self.profile.unseen_class += 1,
            }
        }
        if let Some(confidence) = confidence {
            let bin = confidence_bin(confidence);
            match bin.and_then(|bin| self.profile.confidence.get_mut(bin)) {
                Some(count) => *count += 1,
                None => self.profile.faulty_confidence += 1,
            }
        }
        if let Some(latency_us) = latency_us {
            self.profile.latency.take(latency_us);
        }
    }

    /// Counts the derived features: brightness and contrast, then the joint ones.
    fn observe_derived<I: Iterator<Item = f32>>(&mut self, values: impl Fn() -> I) {
        let numeric =
            |(input, value): (&Input, f32)| matches!(input, Input::Numeric(_)).then_some(value);
        let joint = self.joint.as_ref().map(|projector| {
            let values = self.inputs.iter().zip(values()).filter_map(numeric);
            (projector.figures(values), projector.count())
        });
        let first = self.bins.len() - joint.map_or(0, |(_, count)| count);
        if self.has_summary {
            let summary = summary(self.inputs.iter().zip(values()).filter_map(numeric));
            let places = first - summary.len()..;
            places.zip(summary).for_each(|(place, value)| self.take_numeric(place, value));
        }
        if let Some((figures, count)) = joint {
            let places = (first..).zip(figures).take(count);
            places.for_each(|(place, figure)| self.take_numeric(place, figure));
        }
    }

    fn take(&mut self, place: usize, value: f32) {
        match self.inputs.get(place) {
            Some(Input::Numeric(feature)) => self.take_numeric(*feature, value),
            Some(Input::Categorical(feature)) => self.take_category(*feature, value),
            None => (), // the row's length was compared with that of the inputs
        }
    }

    #[inline]
    fn take_numeric(&mut self, feature: usize, value: f32) {
        let (Some(bins), Some(counts)) =
            (self.bins.get(feature), self.profile.numeric.get_mut(feature))
        else {
            return;
        };
        if !value.is_finite() {
            let fault = if value.is_nan() { &mut counts.nan } else { &mut counts.infinite };
            *fault += 1;
            return;
        }
        if let Some(count) = counts.bins.get_mut(bins.find(value)) {
            *count += 1;
        }
        counts.moments.take(value, bins.scale);
        if let Some(pairs) = &mut self.pairs {
            pairs.take(feature, value);
        }
    }

    fn take_category(&mut self, feature: usize, value: f32) {
        let Some(counts) = self.profile.categorical.get_mut(feature) else { return };
        let Some(place) = category(value) else {
            counts.null += 1;
            return;
        };
        if let Some(count) = counts.domain.get_mut(place) {
            *count += 1;
        } else {
            counts.unseen += 1;
            counts.different.take(hash_of_number(value));
        }
    }

    /// A number has no domain, and so what is no number is of another type.
    fn count_unseen(&mut self, place: usize, hash: u64) {
        let Some(Input::Categorical(feature)) = self.inputs.get(place).copied() else {
            return self.count_fault(place, true);
        };
        if let Some(counts) = self.profile.categorical.get_mut(feature) {
            counts.unseen += 1;
            counts.different.take(hash);
        }
    }

    fn count_fault(&mut self, place: usize, is_wrong_type: bool) {
        let counters = match self.inputs.get(place) {
            Some(Input::Numeric(feature)) => {
                let counts = self.profile.numeric.get_mut(*feature);
                counts.map(|counts| (&mut counts.null, &mut counts.wrong_type))
            }
            Some(Input::Categorical(feature)) => {
                let counts = self.profile.categorical.get_mut(*feature);
                counts.map(|counts| (&mut counts.null, &mut counts.wrong_type))
            }
            None => None,
        };
        if let Some((null, wrong_type)) = counters {
            *if is_wrong_type { wrong_type } else { null } += 1;
        }
    }
}

/// A counter for the numeric ones of these features.
pub(super) fn pair_counter<'a>(features: impl Iterator<Item = &'a Feature>) -> PairCounter {
    let numeric = features.filter_map(Feature::numeric);
    let bounds = numeric.map(|reference| reference.low_and_high().unwrap_or(PairCounter::NEITHER));
    PairCounter::new(bounds.collect())
}

/// The place of a category; nothing for what is not a number. What is no whole number from 0 is in no domain.
pub(super) fn category(value: f32) -> Option<usize> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "was just compared"
    )]
    let whole = |value: f32| value as usize;
    let is_place = (0.0..65_536.0).contains(&value) && value.fract() == 0.0;
    (!value.is_nan()).then(|| if is_place { whole(value) } else { usize::MAX })
}

/// The bin of a confidence; nothing for what is not between 0 and 1.
pub(super) fn confidence_bin(confidence: f32) -> Option<usize> {
    const BINS: f32 = 20.0;
    let bin = category((confidence * BINS).floor())?;
    (0.0..=1.0).contains(&confidence).then_some(bin.min(CONFIDENCE_BINS - 1))
}

/// Mean and standard deviation of the finite values of a row; not a number if there is none.
///
/// They are summed in the order of the row, in `f64`, so that server and device come to the same bin.
#[expect(clippy::cast_possible_truncation, reason = "figures of f32 values are wanted as f32")]
pub(super) fn summary(values: impl Iterator<Item = f32>) -> [f32; 2] {
    let (mut n, mut sum, mut squares) = (0.0_f64, 0.0_f64, 0.0_f64);
    for value in values.filter(|value| value.is_finite()).map(f64::from) {
        n += 1.0;
        sum += value;
        squares += value * value;
    }
    let mean = sum / n;
    let variance = squares / n - mean * mean;
    // `max` would turn the NaN of an empty row into a zero.
    let sd = if variance < 0.0 { 0.0 } else { variance.sqrt() };
    [mean as f32, sd as f32]
}
