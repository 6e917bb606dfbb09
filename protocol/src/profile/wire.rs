//! The bytes of a profile.
//!
//! One array per kind of count, over all features, in place of one map per feature: names are written once, and an array of zeros is
//! left out. Equal profiles have equal bytes.

use serde::{Deserialize, Serialize};

use super::baseline::total;
use super::distinct::DistinctWire;
use super::latency::{LatencySketch, LatencyWire};
use super::moments::{Moments, Wide};
use super::pairs::PAIR_FEATURES_MAX;
use super::{
    CATEGORIES_MAX, CLASSES_MAX, CONFIDENCE_BINS, CategoricalCounts, NumericCounts, Profile,
    ROWS_MAX,
};
use crate::codec::{self, CodecError};
use crate::digest::Digest;
use crate::limits::FEATURES_MAX;

/// 2,000 features of 12 counts, each with five digits, and their sums take 260 KB; merged over a fleet, twice that.
pub const PROFILE_BYTES_MAX: usize = 1 << 20;

/// Two for each pair of inputs.
const PAIR_COUNTS_MAX: usize = PAIR_FEATURES_MAX * (PAIR_FEATURES_MAX - 1);

/// A reader of this version refuses every other; what is only added does not raise it.
const PROFILE_VERSION: u8 = 1;

/// Why bytes are not a profile.
#[derive(Debug, thiserror::Error)]
pub enum InvalidProfile {
    /// Not the expected encoding.
    #[error("profile is not readable")]
    Codec(#[from] CodecError),
    /// Made by a later release with another meaning.
    #[error("profile has version {0}; this release reads version {PROFILE_VERSION}")]
    Version(u8),
    /// More of something than there can be, or two arrays over the same features that differ in length.
    #[error("profile has more than {max} {what}, or not the same number everywhere")]
    Length {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// Counts that no rows lead to.
    #[error("profile's counts of {what} do not add up")]
    Sum {
        /// Of what.
        what: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
struct Wire {
    v: u8,
    baseline: Digest,
    rows: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    skipped: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    misshapen: u64,
    #[serde(default)]
    numeric: NumericWire,
    #[serde(default, skip_serializing_if = "CategoricalWire::is_empty")]
    categorical: CategoricalWire,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    classes: Vec<u64>,
    #[serde(default, skip_serializing_if = "is_zero")]
    unseen_class: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    confidence: Vec<u64>,
    #[serde(default, skip_serializing_if = "is_zero")]
    faulty_confidence: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pairs: Vec<u64>,
    #[serde(default)]
    latency: LatencyWire,
}

#[derive(Serialize, Deserialize, Default)]
struct NumericWire {
    bins: Vec<Vec<u64>>,
    min: Vec<Option<f32>>,
    max: Vec<Option<f32>>,
    sum: Vec<Wide>,
    squares: Vec<Wide>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    null: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    nan: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    infinite: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    wrong_type: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    clipped: Vec<u64>,
}

#[derive(Serialize, Deserialize, Default)]
struct CategoricalWire {
    domain: Vec<Vec<u64>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unseen: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    null: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    wrong_type: Vec<u64>,
    /// How many different ones the unseen values are; empty if there are none, and from agents that did not count that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    different: Vec<DistinctWire>,
}

impl CategoricalWire {
    const fn is_empty(&self) -> bool {
        self.domain.is_empty()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Profile {
    /// The bytes that go over the wire and into the store.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode(&Wire {
            v: PROFILE_VERSION,
            baseline: self.baseline,
            rows: self.rows,
            skipped: self.skipped,
            misshapen: self.misshapen,
            numeric: NumericWire::from(self.numeric.as_slice()),
            categorical: CategoricalWire::from(self.categorical.as_slice()),
            classes: self.classes.clone(),
            unseen_class: self.unseen_class,
            confidence: without_last_zeros(&self.confidence),
            faulty_confidence: self.faulty_confidence,
            pairs: self.pairs.clone(),
            latency: LatencyWire::from(&self.latency),
        })
    }

    /// Reads bytes from outside; checks every length and that the counts add up. Whether they belong to a baseline is
    /// [`Profile::check`]'s.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidProfile> {
        let wire: Wire = codec::decode("profile", bytes, PROFILE_BYTES_MAX)?;
        if wire.v != PROFILE_VERSION {
            return Err(InvalidProfile::Version(wire.v));
        }
        within("classes", wire.classes.len(), CLASSES_MAX)?;
        within("pairs", wire.pairs.len(), PAIR_COUNTS_MAX)?;
        let profile = Self {
            baseline: wire.baseline,
            rows: wire.rows,
            skipped: wire.skipped,
            misshapen: wire.misshapen,
            numeric: wire.numeric.into_counts()?,
            categorical: wire.categorical.into_counts()?,
            classes: wire.classes,
            unseen_class: wire.unseen_class,
            confidence: padded::<CONFIDENCE_BINS>("confidence bins", &wire.confidence)?.to_vec(),
            faulty_confidence: wire.faulty_confidence,
            pairs: wire.pairs,
            latency: LatencySketch::try_from(wire.latency)?,
        };
        profile.check_sums()?;
        Ok(profile)
    }

    fn check_sums(&self) -> Result<(), InvalidProfile> {
        let shapely = self.rows.checked_sub(self.misshapen);
        adds_up("rows", self.rows <= ROWS_MAX && shapely.is_some())?;
        for counts in &self.numeric {
            let n = counts.n();
            let all = n.saturating_add(counts.faulty());
            adds_up("a numeric feature", shapely == Some(all) && counts.moments.fits(n))?;
        }
        for counts in &self.categorical {
            let all = counts.n().saturating_add(counts.faulty());
            adds_up("a categorical feature", shapely == Some(all))?;
            adds_up("different values", counts.different.taken() <= counts.unseen)?;
        }
        let classes = total(&self.classes).saturating_add(self.unseen_class);
        adds_up("classes", classes <= self.rows)?;
        let confidences = total(&self.confidence).saturating_add(self.faulty_confidence);
        adds_up("confidence", confidences <= self.rows)?;
        let is_pair = |pair: &[u64; 2]| total(pair) <= self.rows;
        adds_up("pairs", self.pairs.as_chunks().0.iter().all(is_pair))?;
        // A request is timed whether its rows are looked at or not.
        let answered = self.rows.saturating_add(self.skipped);
        adds_up("latency", self.skipped <= ROWS_MAX && self.latency.count() <= answered)
    }
}

impl From<&[NumericCounts]> for NumericWire {
    fn from(features: &[NumericCounts]) -> Self {
        let moments = || features.iter().map(|counts| &counts.moments);
        Self {
            bins: features.iter().map(|counts| without_last_zeros(&counts.bins)).collect(),
            min: moments().map(|moments| moments.range.map(|(min, _)| min)).collect(),
            max: moments().map(|moments| moments.range.map(|(_, max)| max)).collect(),
            sum: moments().map(|moments| moments.sum).collect(),
            squares: moments().map(|moments| moments.squares).collect(),
            null: unless_zeros(features.iter().map(|counts| counts.null)),
            nan: unless_zeros(features.iter().map(|counts| counts.nan)),
            infinite: unless_zeros(features.iter().map(|counts| counts.infinite)),
            wrong_type: unless_zeros(features.iter().map(|counts| counts.wrong_type)),
            clipped: unless_zeros(moments().map(|moments| moments.clipped)),
        }
    }
}

impl NumericWire {
    fn into_counts(self) -> Result<Vec<NumericCounts>, InvalidProfile> {
        let features = self.bins.len();
        within("features", features, FEATURES_MAX)?;
        let lengths = [self.min.len(), self.max.len(), self.sum.len(), self.squares.len()];
        if lengths != [features; 4] {
            return Err(InvalidProfile::Length { what: "features", max: FEATURES_MAX });
        }
        let ranges = self.min.into_iter().zip(self.max);
        let sums = self.sum.into_iter().zip(self.squares);
        let mut clipped = column(&self.clipped, features)?;
        let mut null = column(&self.null, features)?;
        let mut nan = column(&self.nan, features)?;
        let mut infinite = column(&self.infinite, features)?;
        let mut wrong_type = column(&self.wrong_type, features)?;
        let one = |((bins, (min, max)), (sum, squares)): ((Vec<u64>, _), _)| {
            let range = Option::zip(min, max);
            let clipped = clipped.next().unwrap_or(0);
            Ok(NumericCounts {
                bins: padded("bins of a feature", &bins)?,
                null: null.next().unwrap_or(0),
                nan: nan.next().unwrap_or(0),
                infinite: infinite.next().unwrap_or(0),
                wrong_type: wrong_type.next().unwrap_or(0),
                moments: Moments { range, sum, squares, clipped },
            })
        };
        self.bins.into_iter().zip(ranges).zip(sums).map(one).collect()
    }
}

impl From<&[CategoricalCounts]> for CategoricalWire {
    fn from(features: &[CategoricalCounts]) -> Self {
        Self {
            domain: features.iter().map(|counts| counts.domain.clone()).collect(),
            unseen: unless_zeros(features.iter().map(|counts| counts.unseen)),
            null: unless_zeros(features.iter().map(|counts| counts.null)),
            wrong_type: unless_zeros(features.iter().map(|counts| counts.wrong_type)),
            different: unless_empty(features.iter().map(|it| DistinctWire::from(&it.different))),
        }
    }
}

impl CategoricalWire {
    fn into_counts(self) -> Result<Vec<CategoricalCounts>, InvalidProfile> {
        let features = self.domain.len();
        within("features", features, FEATURES_MAX)?;
        let mut unseen = column(&self.unseen, features)?;
        let mut null = column(&self.null, features)?;
        let mut wrong_type = column(&self.wrong_type, features)?;
        if !self.different.is_empty() && self.different.len() != features {
            return Err(InvalidProfile::Length { what: "features", max: FEATURES_MAX });
        }
        let mut different = self.different.into_iter();
        let one = |domain: Vec<u64>| {
            within("categories", domain.len(), CATEGORIES_MAX)?;
            Ok(CategoricalCounts {
                domain,
                unseen: unseen.next().unwrap_or(0),
                null: null.next().unwrap_or(0),
                wrong_type: wrong_type.next().unwrap_or(0),
                different: different.next().unwrap_or_default().try_into()?,
            })
        };
        self.domain.into_iter().map(one).collect()
    }
}

fn within(what: &'static str, given: usize, max: usize) -> Result<(), InvalidProfile> {
    if given <= max { Ok(()) } else { Err(InvalidProfile::Length { what, max }) }
}

fn adds_up(what: &'static str, holds: bool) -> Result<(), InvalidProfile> {
    if holds { Ok(()) } else { Err(InvalidProfile::Sum { what }) }
}

fn unless_zeros(counts: impl Iterator<Item = u64> + Clone) -> Vec<u64> {
    if counts.clone().all(|count| count == 0) { Vec::new() } else { counts.collect() }
}

fn unless_empty(sketches: impl Iterator<Item = DistinctWire>) -> Vec<DistinctWire> {
    let sketches: Vec<_> = sketches.collect();
    if sketches.iter().all(DistinctWire::is_empty) { Vec::new() } else { sketches }
}

/// A column over all features; one that was left out is all zeros.
fn column(counts: &[u64], features: usize) -> Result<impl Iterator<Item = u64>, InvalidProfile> {
    if counts.is_empty() || counts.len() == features {
        Ok(counts.iter().copied())
    } else {
        Err(InvalidProfile::Length { what: "features", max: FEATURES_MAX })
    }
}

fn without_last_zeros(counts: &[u64]) -> Vec<u64> {
    let end = counts.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
    counts.get(..end).unwrap_or(counts).to_vec()
}

fn padded<const N: usize>(what: &'static str, counts: &[u64]) -> Result<[u64; N], InvalidProfile> {
    within(what, counts.len(), N)?;
    let mut all = [0; N];
    all.iter_mut().zip(counts).for_each(|(to, count)| *to = *count);
    Ok(all)
}
