//! What a model saw in a window of time, as counts on the bins of its baseline.
//!
//! Profiles of one baseline add up exactly: over devices, over time, in any order and grouping, to the same bytes. So the server can
//! look at any cohort over any span without ever seeing a row.

mod baseline;
mod builder;
mod calibration;
mod distinct;
mod joint;
mod latency;
mod memory;
mod moments;
mod order;
pub mod pairs;
mod part;
mod profiler;
mod succeed;
mod text;
mod wire;

pub use baseline::{
    BINS_MAX, Baseline, CATEGORIES_MAX, CLASSES_MAX, CONFIDENCE_BINS, CategoricalReference,
    Category, Feature, InvalidBaseline, NAME_CHARS_MAX, NumericReference, PHASES_MAX, Phase,
    Reference, SUMMARY_GROUP,
};
pub use builder::{BaselineBuilder, Column, Kind, Season, quadrant};
pub use distinct::{DistinctSketch, hash_of_text};
pub use joint::{JOINT_GROUP, is_held_out};
pub use latency::{BUCKETS, LatencySketch, RELATIVE_ACCURACY};
pub use profiler::{Cell, Profiler};
pub use succeed::{NoSuccessor, SUCCESSOR_ROWS_MIN};
pub use text::{TextColumn, is_missing, number, shortened};
pub use wire::{InvalidProfile, PROFILE_BYTES_MAX};

use crate::digest::Digest;
use baseline::total;
use moments::Moments;

/// Rows in one profile. 10,000 devices that each answer 10 times a second take four months to get there; up to here no sum overflows.
pub const ROWS_MAX: u64 = 1 << 40;

/// Counts of one window, or of many windows together.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    baseline: Digest,
    rows: u64,
    skipped: u64,
    misshapen: u64,
    numeric: Vec<NumericCounts>,
    categorical: Vec<CategoricalCounts>,
    classes: Vec<u64>,
    unseen_class: u64,
    confidence: Vec<u64>,
    faulty_confidence: u64,
    pairs: Vec<u64>,
    latency: LatencySketch,
}

/// Why two profiles do not add up, or a profile does not belong to a baseline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The bins differ.
    #[error("profile is of baseline {given:?}, not {expected:?}")]
    Baseline {
        /// What the other one was made for.
        given: Digest,
        /// What it should have been made for.
        expected: Digest,
    },
    /// The digest is right and the number of features, categories, classes or bins is not: the sender is broken, or lies.
    #[error("profile does not have the features of its baseline")]
    Shape,
    /// Together they have more rows than sums can hold.
    #[error("profiles have more than {ROWS_MAX} rows together")]
    Rows,
    /// Less was counted than was to be taken out.
    #[error("profile does not hold what is to be taken out of it")]
    Part,
}

/// What was counted of a numeric feature.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NumericCounts {
    bins: [u64; BINS_MAX],
    /// Values that were not given.
    pub null: u64,
    /// Values that were not a number.
    pub nan: u64,
    /// Infinite values.
    pub infinite: u64,
    /// Values of another type.
    pub wrong_type: u64,
    moments: Moments,
}

/// What was counted of a categorical feature.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CategoricalCounts {
    /// Counts over the baseline's domain.
    pub domain: Vec<u64>,
    /// Values outside of the domain.
    pub unseen: u64,
    /// Values that were not given.
    pub null: u64,
    /// Values of another type.
    pub wrong_type: u64,
    /// How many different ones the unseen are.
    pub(crate) different: DistinctSketch,
}

/// How many different values there were.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cardinality {
    /// Of those that the domain has, exactly; of the unseen about 4.6 % more or less.
    pub values: f64,
    /// Whether there are more: of some unseen values nothing is known but that they were there.
    pub is_at_least: bool,
}

impl Profile {
    /// A profile with nothing counted.
    pub fn empty(baseline: &Baseline) -> Self {
        let mut numeric = Vec::new();
        let mut categorical = Vec::new();
        for feature in baseline.features() {
            match &feature.reference {
                Reference::Numeric(_) => numeric.push(NumericCounts::default()),
                Reference::Categorical(reference) => {
                    let domain = vec![0; reference.domain.len()];
                    categorical.push(CategoricalCounts { domain, ..Default::default() });
                }
            }
        }
        Self {
            baseline: baseline.digest(),
            rows: 0,
            skipped: 0,
            misshapen: 0,
            numeric,
            categorical,
            classes: vec![0; baseline.classes().len()],
            unseen_class: 0,
            confidence: vec![0; CONFIDENCE_BINS],
            faulty_confidence: 0,
            pairs: vec![0; baseline.pairs().len()],
            latency: LatencySketch::default(),
        }
    }

    /// Adds everything that `other` has counted. On an error nothing was added.
    pub fn merge(&mut self, other: &Self) -> Result<(), Mismatch> {
        self.check_same_baseline(other.baseline)?;
        if !self.has_shape_of(other) {
            return Err(Mismatch::Shape);
        }
        let skipped = self.skipped.saturating_add(other.skipped);
        if self.rows.saturating_add(other.rows).max(skipped) > ROWS_MAX {
            return Err(Mismatch::Rows);
        }
        self.rows += other.rows;
        self.skipped = skipped;
        self.misshapen += other.misshapen;
        let numeric = self.numeric.iter_mut().zip(&other.numeric);
        numeric.for_each(|(mine, theirs)| mine.merge(theirs));
        let categorical = self.categorical.iter_mut().zip(&other.categorical);
        categorical.for_each(|(mine, theirs)| mine.merge(theirs));
        add_counts(&mut self.classes, &other.classes);
        self.unseen_class += other.unseen_class;
        add_counts(&mut self.confidence, &other.confidence);
        self.faulty_confidence += other.faulty_confidence;
        add_counts(&mut self.pairs, &other.pairs);
        self.latency.merge(&other.latency);
        Ok(())
    }

    /// Checks that this profile, which came from outside, belongs to `baseline`.
    pub fn check(&self, baseline: &Baseline) -> Result<(), Mismatch> {
        self.check_same_baseline(baseline.digest())?;
        let numeric = baseline.features().iter().filter_map(Feature::numeric);
        let has_bins = numeric.zip(&self.numeric).all(|(reference, counts)| {
            let unused = counts.bins.get(reference.counts.len() + 2..).unwrap_or_default();
            unused.iter().all(|count| *count == 0)
        });
        if has_bins && self.has_shape_of(&Self::empty(baseline)) {
            Ok(())
        } else {
            Err(Mismatch::Shape)
        }
    }

    /// The digest of the baseline whose bins were counted on.
    pub const fn baseline(&self) -> Digest {
        self.baseline
    }

    /// Rows that were counted, with the misshapen ones.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows that were answered and not counted, because there were more than are looked at. Which ones, was left to chance.
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Rows with a wrong number of values, of which nothing but the outputs was counted.
    pub const fn misshapen(&self) -> u64 {
        self.misshapen
    }

    /// The numeric features, in the baseline's order.
    pub fn numeric(&self) -> &[NumericCounts] {
        &self.numeric
    }

    /// The categorical features, in the baseline's order.
    pub fn categorical(&self) -> &[CategoricalCounts] {
        &self.categorical
    }

    /// Predictions by class.
    pub fn classes(&self) -> &[u64] {
        &self.classes
    }

    /// Predictions that are none of the baseline's classes.
    pub const fn unseen_class(&self) -> u64 {
        self.unseen_class
    }

    /// The confidence in [`CONFIDENCE_BINS`] equal bins.
    pub fn confidence(&self) -> &[u64] {
        &self.confidence
    }

    /// Confidences that were not between 0 and 1.
    pub const fn faulty_confidence(&self) -> u64 {
        self.faulty_confidence
    }

    /// Concordant and discordant rows of each pair of numeric inputs, see [`pairs`].
    pub fn pairs(&self) -> &[u64] {
        &self.pairs
    }

    /// Latencies.
    pub const fn latency(&self) -> &LatencySketch {
        &self.latency
    }

    fn check_same_baseline(&self, expected: Digest) -> Result<(), Mismatch> {
        if self.baseline == expected {
            Ok(())
        } else {
            Err(Mismatch::Baseline { given: self.baseline, expected })
        }
    }

    fn has_shape_of(&self, other: &Self) -> bool {
        let domains = |profile: &Self| -> Vec<usize> {
            profile.categorical.iter().map(|counts| counts.domain.len()).collect()
        };
        self.numeric.len() == other.numeric.len()
            && self.classes.len() == other.classes.len()
            && self.pairs.len() == other.pairs.len()
            && domains(self) == domains(other)
    }
}

impl Feature {
    /// The reference of a numeric feature.
    pub const fn numeric(&self) -> Option<&NumericReference> {
        match &self.reference {
            Reference::Numeric(reference) => Some(reference),
            Reference::Categorical(_) => None,
        }
    }
}

impl NumericCounts {
    /// Values in the lower tail, in the bins of `reference`, and in the upper tail.
    pub fn bins(&self, reference: &NumericReference) -> &[u64] {
        self.bins.get(..reference.counts.len() + 2).unwrap_or(&self.bins)
    }

    /// Finite values.
    pub fn n(&self) -> u64 {
        total(&self.bins)
    }

    /// Values that were missing, not finite, or of another type.
    pub const fn faulty(&self) -> u64 {
        self.null
            .saturating_add(self.nan)
            .saturating_add(self.infinite)
            .saturating_add(self.wrong_type)
    }

    /// The smallest and the largest finite value.
    pub const fn range(&self) -> Option<(f32, f32)> {
        self.moments.range
    }

    /// Mean and standard deviation of the finite values, on the scale that `reference` fixes.
    ///
    /// Values beyond 4,096 times the reference range count as at that limit.
    pub fn mean_and_sd(&self, reference: &NumericReference) -> Option<(f64, f64)> {
        self.moments.mean_and_sd(self.n(), reference.scale())
    }

    fn merge(&mut self, other: &Self) {
        add_counts(&mut self.bins, &other.bins);
        self.null += other.null;
        self.nan += other.nan;
        self.infinite += other.infinite;
        self.wrong_type += other.wrong_type;
        self.moments.merge(&other.moments);
    }
}

impl CategoricalCounts {
    /// Values, in the domain or not.
    pub fn n(&self) -> u64 {
        total(&self.domain).saturating_add(self.unseen)
    }

    /// Values that were missing or of another type.
    pub const fn faulty(&self) -> u64 {
        self.null.saturating_add(self.wrong_type)
    }

    /// How many different values there were.
    pub fn cardinality(&self) -> Cardinality {
        let known = self.domain.iter().filter(|count| **count > 0).count();
        let known = crate::drift::number(u64::try_from(known).unwrap_or(u64::MAX));
        let is_at_least = self.different.taken() < self.unseen;
        Cardinality { values: known + self.different.estimate(), is_at_least }
    }

    fn merge(&mut self, other: &Self) {
        add_counts(&mut self.domain, &other.domain);
        self.unseen += other.unseen;
        self.null += other.null;
        self.wrong_type += other.wrong_type;
        self.different.merge(&other.different);
    }
}

/// Adds count by count; the slices have one length.
fn add_counts(counts: &mut [u64], others: &[u64]) {
    for (count, other) in counts.iter_mut().zip(others) {
        *count = count.saturating_add(*other);
    }
}

#[cfg(test)]
mod tests;
