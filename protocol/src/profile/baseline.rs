//! The distribution that a model was made for: the layer `application/vnd.sealift.baseline.v1+cbor` of a signed image.
//!
//! A baseline fixes the bins, and the image's signature covers it. So every device counts into the same bins, and profiles add up.
//!
//! ```text
//!   below the   ten bins that hold a tenth of the reference each;      above the
//!   reference   fewer where values repeat (pixels, counters, flags)    reference
//!  ───────────┬──────────┬──────────┬── ··· ──┬──────────┬──────────┬───────────▶ value
//!            min      edges[0]  edges[1]              edges[8]     max
//! ```
//! A bin holds its upper edge and not its lower one, except for the first, which holds `min`. Two finer edges, near the ends, cut the
//! outermost tenths; a feature with a dozen values has an edge at each. Figures whose name says `refq10` put those bins together again.

mod check;

use serde::{Deserialize, Serialize};

use self::check::{counted, is_whole, named};
use super::ROWS_MAX;
use super::joint::Joint;
use super::memory::Memories;
use super::moments::Scale;
use crate::codec::{self, CodecError};
use crate::digest::Digest;
use crate::id::UnixMillis;
use crate::limits::BASELINE_BYTES_MAX;

/// What is only added does not raise it.
const BASELINE_VERSION: u8 = 1;
/// With features that are held out or joint, of which a reader of the version before would make nothing that is right.
const LATEST_VERSION: u8 = 2;
/// Reference-quantile bins; PSI and its thresholds are customary on ten.
pub(super) const QUANTILE_BINS: usize = 10;
/// Inner edges of those bins, and one more towards each end, where outliers show.
pub(super) const EDGES_MAX: usize = QUANTILE_BINS + 1;
/// Bins between those edges, and the two tails.
pub const BINS_MAX: usize = EDGES_MAX + 3;
/// Equal bins of the confidence from 0 to 1.
pub const CONFIDENCE_BINS: usize = 20;
/// Values of a categorical feature; more are better counted as unseen, and 600 bytes a window are enough for one feature.
pub const CATEGORIES_MAX: usize = 256;
/// Classes that a model tells apart; the largest common benchmark has 1,000.
pub const CLASSES_MAX: usize = 1_000;
/// Characters of a feature's, a group's, a category's or a class's name.
pub const NAME_CHARS_MAX: usize = 80;
/// Parts of a season: the minutes of a week.
pub const PHASES_MAX: usize = 10_080;
/// Rows of which each resembles the one before by 0.99 have 200; beyond this a window says next to nothing.
pub(super) const DISPERSION_MAX: f64 = 256.0;
/// The group of the two features that are derived from all numeric ones of a row.
pub const SUMMARY_GROUP: &str = "summary";
/// The derived features, in their order: mean and standard deviation of the numeric features of a row.
pub(super) const SUMMARY: [&str; 2] = ["brightness", "contrast"];

/// Why something is not a baseline.
#[derive(Debug, thiserror::Error)]
pub enum InvalidBaseline {
    /// Not the expected encoding.
    #[error("baseline is not readable")]
    Codec(#[from] CodecError),
    /// Made by a later release with another meaning.
    #[error(
        "baseline has version {0}; this release reads versions {BASELINE_VERSION} to {LATEST_VERSION}"
    )]
    Version(u8),
    /// No row, or more than sums can hold.
    #[error("baseline has {0} rows; 1 to {ROWS_MAX} are allowed")]
    Rows(u64),
    /// More of something than allowed, or none of it.
    #[error("baseline has {given} {what}; 1 to {max} are allowed")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many there are.
        given: usize,
        /// How many there may be.
        max: usize,
    },
    /// A name that is empty, too long or used twice.
    #[error("`{name}` is not a name of its own with 1 to {NAME_CHARS_MAX} characters")]
    Name {
        /// As much of it as may be shown.
        name: String,
    },
    /// The figures of a feature contradict each other.
    #[error("feature `{feature}`: {rule}")]
    Feature {
        /// Which one.
        feature: String,
        /// What does not hold.
        rule: &'static str,
    },
    /// A confidence histogram with another number of bins, or one that counts more than there are rows.
    #[error("confidence counts are not {CONFIDENCE_BINS}, or do not add up to at most the rows")]
    Confidence,
    /// Pairs, dispersion or phases that do not belong to the features.
    #[error("baseline is not whole: {0}")]
    Calibration(&'static str),
    /// A row that does not have the schema's number of features.
    #[error("row {row} has {given} features, the schema {expected}")]
    Width {
        /// The row, from 1.
        row: u64,
        /// Its length.
        given: usize,
        /// The right length.
        expected: usize,
    },
    /// A prediction that is none of the classes.
    #[error("row {row} predicts `{class}`, which is not among the classes")]
    Class {
        /// The row, from 1.
        row: u64,
        /// What it predicts.
        class: String,
    },
}

/// The reference distribution of everything that a profile counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    digest: Digest,
    contents: Contents,
}

/// What the layer holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Contents {
    pub(super) v: u8,
    pub(super) rows: u64,
    /// How many of the features are inputs; the others are derived.
    pub(super) inputs: usize,
    pub(super) features: Vec<Feature>,
    #[serde(default)]
    pub(super) classes: Vec<Category>,
    #[serde(default)]
    pub(super) confidence: Vec<u64>,
    /// Concordant and discordant rows of each pair of numeric inputs; empty if pairs are not counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) pairs: Vec<u64>,
    /// How many times more the means of windows vary than those of independent rows would, by feature; empty for once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) dispersion: Vec<f64>,
    /// The same by the length of windows, of values and of missing ones, by feature, then of the prediction and of the confidence; empty
    /// for what `dispersion` says, whatever their length.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) memory: Vec<Memories>,
    /// The parts of a season, in their order; empty without one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) phases: Vec<Phase>,
    /// How long a phase lasts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) phase_ms: i64,
    /// How the joint features are computed; nothing without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) joint: Option<Joint>,
}

/// What the reference has in one part of a season, such as one hour of the day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// Rows.
    pub rows: u64,
    /// For each feature its bins without tails, or its domain and the unseen.
    pub counts: Vec<Vec<u64>>,
    /// For each feature the rows without a value.
    pub faulty: Vec<u64>,
    /// For each feature the rows with a value of another type among them; empty if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrong_type: Vec<u64>,
    /// Predictions by class.
    pub classes: Vec<u64>,
    /// The confidence, as in the whole.
    pub confidence: Vec<u64>,
    /// Pairs, as in the whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pairs: Vec<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_none(kurtosis: &f64) -> bool {
    kurtosis.to_bits() == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_no_row(rows: &u64) -> bool {
    *rows == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_false(is_so: &bool) -> bool {
    !*is_so
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A feature and its reference distribution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// Its name, unique in the baseline.
    pub name: String,
    /// Features that are judged together, such as `upper-left`.
    pub group: String,
    /// Its distribution.
    pub reference: Reference,
}

/// A reference distribution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reference {
    /// Of numbers.
    Numeric(NumericReference),
    /// Of a few values that have no order.
    Categorical(CategoricalReference),
}

/// Quantile bins, and figures for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NumericReference {
    /// The smallest value.
    pub min: f32,
    /// The largest value.
    pub max: f32,
    /// Inner edges of the bins, rising; none for a constant.
    pub edges: Vec<f32>,
    /// Values in each bin: one count more than there are edges. By definition the tails hold none.
    pub counts: Vec<u64>,
    /// Which of the edges are finer than tenths, by their places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fine: Vec<usize>,
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation, of the population.
    pub sd: f64,
    /// Fourth moment over the square of the variance: 3 for a bell curve, more for heavier tails; 0 where it is not known.
    #[serde(default, skip_serializing_if = "is_none")]
    pub kurtosis: f64,
    /// Rows in which the value was missing, not finite or of another type.
    #[serde(default)]
    pub faulty: u64,
    /// Those of another type among them.
    #[serde(default, skip_serializing_if = "is_no_row")]
    pub wrong_type: u64,
}

/// Counts over the known values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CategoricalReference {
    /// The known values; a row gives a value by its place here.
    pub domain: Vec<Category>,
    /// Rows with a value outside of the domain.
    #[serde(default)]
    pub unseen: u64,
    /// Rows in which the value was missing or of another type.
    #[serde(default)]
    pub faulty: u64,
    /// Those of another type among them.
    #[serde(default, skip_serializing_if = "is_no_row")]
    pub wrong_type: u64,
    /// Whether only rows are counted that did not choose the domain, see [`super::Kind::Commonest`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub held_out: bool,
}

/// A category or a class, and how often the reference has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Category {
    /// Its name.
    pub name: String,
    /// Rows of the reference that have it.
    pub count: u64,
}

impl Baseline {
    /// Reads a layer whose bytes were verified; checks that its figures fit each other.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidBaseline> {
        let contents: Contents = codec::decode("baseline", bytes, BASELINE_BYTES_MAX)?;
        contents.check()?;
        Ok(Self { digest: Digest::of(bytes), contents })
    }

    /// The bytes of the layer.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode(&self.contents)
    }

    /// What the layer holds.
    pub(super) const fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The digest of the layer; profiles carry it, and only those with the same one add up.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Rows of the reference.
    pub const fn rows(&self) -> u64 {
        self.contents.rows
    }

    /// Columns of an input row.
    pub const fn inputs(&self) -> usize {
        self.contents.inputs
    }

    /// Whether brightness and contrast are among the derived features.
    pub(super) fn has_summary(&self) -> bool {
        self.contents.has_summary()
    }

    /// How the joint features are computed.
    pub(super) const fn joint(&self) -> Option<&Joint> {
        self.contents.joint.as_ref()
    }

    /// All features: the inputs in the order of their columns, then the derived ones.
    pub fn features(&self) -> &[Feature] {
        &self.contents.features
    }

    /// The classes in the order of the model's output; empty if predictions are not counted.
    pub fn classes(&self) -> &[Category] {
        &self.contents.classes
    }

    /// The place of a class by its name.
    pub fn class(&self, name: &str) -> Option<usize> {
        self.contents.classes.iter().position(|class| class.name == name)
    }

    /// The confidence in [`CONFIDENCE_BINS`] equal bins from 0 to 1; empty if the reference has none.
    pub fn confidence(&self) -> &[u64] {
        &self.contents.confidence
    }

    /// Concordant and discordant rows of each pair of numeric inputs, see [`super::pairs`]; empty if pairs are not counted.
    pub fn pairs(&self) -> &[u64] {
        &self.contents.pairs
    }

    /// How many times more the means of `rows` values of a feature vary than those of independent rows would; the prediction and the
    /// confidence come after the features.
    pub fn dispersion(&self, feature: usize, rows: f64) -> f64 {
        self.memory(feature).map_or_else(|| self.plain(feature), |of| of.values.factor(rows))
    }

    /// The same of the share of rows in which the feature is missing.
    pub fn missing_dispersion(&self, feature: usize, rows: f64) -> f64 {
        self.memory(feature).map_or_else(|| self.plain(feature), |of| of.missing.factor(rows))
    }

    fn memory(&self, feature: usize) -> Option<&Memories> {
        self.contents.memory.get(feature)
    }

    fn plain(&self, feature: usize) -> f64 {
        self.contents.dispersion.get(feature).copied().unwrap_or(1.0)
    }

    /// The parts of a season; empty without one.
    pub fn phases(&self) -> &[Phase] {
        &self.contents.phases
    }

    /// How long a phase lasts; 0 without a season.
    pub const fn phase_ms(&self) -> i64 {
        self.contents.phase_ms
    }

    /// The phase at a moment; 0 without a season.
    pub fn phase_at(&self, at: UnixMillis) -> usize {
        let phases = i64::try_from(self.contents.phases.len()).unwrap_or(0);
        let phase = at.0.checked_div_euclid(self.contents.phase_ms);
        let phase = phase.and_then(|phase| phase.checked_rem_euclid(phases)).unwrap_or(0);
        usize::try_from(phase).unwrap_or(0)
    }
}

impl NumericReference {
    /// Counts in the order of a profile: lower tail, bins, upper tail.
    pub fn counts_with_tails(&self) -> Vec<u64> {
        [0].into_iter().chain(self.counts.iter().copied()).chain([0]).collect()
    }

    /// One value to stand for each of those: the ends of the range for the tails, the middle of the bin for the bins.
    pub fn points(&self) -> Vec<f64> {
        let ends = || self.edges.iter().copied().chain([self.max]).map(f64::from);
        let starts = [self.min].into_iter().chain(self.edges.iter().copied()).map(f64::from);
        let middles = starts.zip(ends()).map(|(start, end)| f64::midpoint(start, end));
        [f64::from(self.min)].into_iter().chain(middles).chain([f64::from(self.max)]).collect()
    }

    /// What each of those holds, for people: `< 0`, `[0, 1]`, `(1, 16]`, `> 16`.
    pub fn labels(&self) -> Vec<String> {
        let ends = || self.edges.iter().copied().chain([self.max]);
        let first = ends().next().map(|end| format!("[{}, {end}]", self.min));
        let others = ends().zip(ends().skip(1)).map(|(start, end)| format!("({start}, {end}]"));
        let tails = (format!("< {}", self.min), format!("> {}", self.max));
        [tails.0].into_iter().chain(first).chain(others).chain([tails.1]).collect()
    }

    /// The same with the bins of its tenths alone.
    #[must_use]
    pub fn in_tenths(&self) -> Self {
        let is_tenth = |place: &usize| !self.fine.contains(place);
        let edges = (0..self.edges.len()).filter(is_tenth);
        let edges = edges.filter_map(|place| self.edges.get(place).copied()).collect();
        let tails = self.tenths(&self.counts_with_tails());
        let counts = tails.get(1..tails.len().saturating_sub(1)).unwrap_or_default().to_vec();
        Self { edges, counts, fine: Vec::new(), ..self.clone() }
    }

    /// Counts in the order of a profile, put together to those of the tenths.
    pub fn tenths(&self, counts: &[u64]) -> Vec<u64> {
        let mut tenths = Vec::with_capacity(counts.len());
        for (place, count) in counts.iter().enumerate() {
            // The bin after the tail at place 0 begins at `min`; the one at place `p` begins at edge `p - 2`.
            let joins = place.checked_sub(2).is_some_and(|edge| self.fine.contains(&edge));
            match tenths.last_mut() {
                Some(last) if joins => *last += *count,
                Some(_) | None => tenths.push(*count),
            }
        }
        tenths
    }

    /// What is surely low and what is surely high: a value up to the first, a value above the second. None for a constant.
    ///
    /// They are the edges nearest to three and to seven tenths of the reference.
    pub fn low_and_high(&self) -> Option<(f32, f32)> {
        let all = total(&self.counts).max(1);
        let nearest = |tenths: u64| {
            let sums = self.counts.iter().scan(0_u64, |sum, count| {
                *sum = sum.saturating_add(*count);
                Some(*sum)
            });
            let gap = |sum: u64| (sum.saturating_mul(10)).abs_diff(all.saturating_mul(tenths));
            self.edges.iter().zip(sums).min_by_key(|(_, sum)| gap(*sum)).map(|(edge, _)| *edge)
        };
        Some((nearest(3)?, nearest(7)?))
    }

    pub(super) fn scale(&self) -> Scale {
        Scale::of_range(self.min, self.max)
    }

    /// What every value of a bin is greater than, for the bins after the lower tail.
    pub(super) fn lower_bounds(&self) -> impl Iterator<Item = f32> {
        // `min` itself belongs to the first bin, so its bound is the number just below.
        [self.min.next_down()].into_iter().chain(self.edges.iter().copied()).chain([self.max])
    }

    fn broken_rule(&self, rows: u64, is_held_out: bool) -> Option<&'static str> {
        let ends = [self.min, self.max, 0.0];
        let is_rising = self.edges.is_sorted_by(|left, right| left < right);
        // An edge at `max` would leave an empty bin above it.
        let is_inside = self.edges.iter().all(|edge| self.min <= *edge && *edge < self.max);
        let figures = [self.mean, self.sd, self.kurtosis];
        if !ends.iter().all(|end| end.is_finite()) || self.min > self.max {
            Some("its range is not finite and in order")
        } else if self.edges.len() > EDGES_MAX || !is_rising || !is_inside {
            Some("its edges are not up to 11 rising numbers inside its range")
        } else if self.counts.len() != self.edges.len() + 1 {
            Some("it has not one count more than edges")
        } else if self.fine.iter().any(|place| *place >= self.edges.len()) {
            Some("it has a finer edge that is not there")
        } else if !is_whole(total(&self.counts).saturating_add(self.faulty), rows, is_held_out) {
            Some("its counts do not add up to the rows")
        } else if self.wrong_type > self.faulty {
            Some("it has more values of another type than faulty ones")
        } else if self.counts.iter().all(|count| *count == 0) {
            Some("it has no value")
        } else if !figures.iter().all(|figure| figure.is_finite()) || self.sd < 0.0 {
            Some("its mean or standard deviation is not a number")
        } else {
            None
        }
    }
}

impl CategoricalReference {
    /// Counts in the order of a profile: the domain, then the unseen.
    pub fn counts_with_unseen(&self) -> Vec<u64> {
        self.domain.iter().map(|category| category.count).chain([self.unseen]).collect()
    }

    fn check(&self, feature: &str, rows: u64) -> Result<(), InvalidBaseline> {
        counted("categories of a feature", self.domain.len(), CATEGORIES_MAX)?;
        named(self.domain.iter().map(|category| category.name.as_str()))?;
        let counts = self.counts_with_unseen();
        if is_whole(total(&counts).saturating_add(self.faulty), rows, self.held_out) {
            return Ok(());
        }
        let rule = "its counts do not add up to the rows";
        Err(InvalidBaseline::Feature { feature: feature.to_owned(), rule })
    }
}

impl Feature {
    fn check(&self, rows: u64, is_held_out: bool) -> Result<(), InvalidBaseline> {
        named([self.group.as_str()])?;
        match &self.reference {
            Reference::Categorical(reference) => reference.check(&self.name, rows),
            Reference::Numeric(reference) => {
                reference.broken_rule(rows, is_held_out).map_or(Ok(()), |rule| {
                    Err(InvalidBaseline::Feature { feature: self.name.clone(), rule })
                })
            }
        }
    }
}

/// A sum that a hostile sender cannot bring to overflow.
pub(super) fn total(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
}
