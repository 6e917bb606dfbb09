//! The counts that are compared: the same list for a reference and for a window.

use std::sync::Arc;

use crate::drift::{Subject, number};
use crate::profile::{
    Baseline, CategoricalReference, Feature, JOINT_GROUP, NumericReference, Phase, Profile,
    Reference, pairs,
};

/// A bell curve has 3, Laplace's distribution 6, and nothing certain can be said of what few rows show to have more.
const KURTOSIS_MAX: f64 = 4.5;

/// Counts of one subject. Reference and window list the same tallies in the same order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tally {
    pub(super) subject: Subject,
    /// The group that a difference also speaks for.
    pub(super) group: Option<String>,
    /// The feature whose dispersion is this tally's.
    pub(super) feature: Option<usize>,
    pub(super) counts: Counts,
}

impl Tally {
    /// The same of as many independent rows as these are worth.
    pub(super) fn worth(&self, factor: f64) -> Self {
        Self { counts: self.counts.worth(factor), ..self.clone() }
    }
}

/// How something was counted.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Counts {
    /// In bins that have an order; the tenths are the same counts on fewer bins.
    Ordered { bins: Vec<u64>, tenths: Vec<u64> },
    /// In categories, of which the last is the unseen; and what to expect of other rows of the same kind, which meet some categories
    /// for the first time.
    Unordered { counts: Vec<u64>, expected: Vec<u64> },
    /// Not counts but sums, of plain numbers.
    Spread { sd: f64, rows: u64, kurtosis: f64 },
    /// Rows of which something is wrong: of values out of range those below and those above it, of all else one number and zero.
    Share { hits: [u64; 2], rows: u64, of: Share },
    /// Whether all rows have one value; and of the reference the share of its commonest bin, one if it is a constant itself.
    Still { is_still: bool, rows: u64, commonest: f64 },
    /// Pairs of features.
    Pairs { counts: Vec<u64>, rows: u64, names: Arc<Names> },
}

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    Missing,
    WrongType,
    OutOfRange,
    Unseen,
}

/// The numeric inputs, in their order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names(Vec<String>);

impl Names {
    pub(super) fn pair(&self, place: usize) -> Option<String> {
        let (left, right) = pairs::pairs(self.0.len()).nth(place)?;
        Some(format!("{}` with `{}", self.0.get(left)?, self.0.get(right)?))
    }
}

/// Counts of everything of one side.
struct Side<'a> {
    /// For each feature its bins with tails, or its domain and the unseen.
    counts: Vec<Vec<u64>>,
    faulty: Vec<Faults>,
    /// For each feature whether it has one value alone.
    still: Vec<bool>,
    /// For each feature its standard deviation and its rows; nothing where it has none to compare.
    spreads: Vec<Option<(f64, u64)>>,
    classes: Vec<u64>,
    confidence: &'a [u64],
    pairs: &'a [u64],
    rows: u64,
    /// Whether the bins were cut to fit these very counts.
    is_reference: bool,
}

/// Rows without a value, and rows with one of another type.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    missing: u64,
    wrong_type: u64,
}

/// The reference's side.
pub(super) fn of_baseline(baseline: &Baseline) -> Vec<Tally> {
    let features = baseline.features().iter();
    let counts = features.clone().map(|feature| match &feature.reference {
        Reference::Numeric(reference) => reference.counts_with_tails(),
        Reference::Categorical(reference) => reference.counts_with_unseen(),
    });
    let faulty = features.clone().map(|feature| {
        let (faulty, wrong_type) = match &feature.reference {
            Reference::Numeric(reference) => (reference.faulty, reference.wrong_type),
            Reference::Categorical(reference) => (reference.faulty, reference.wrong_type),
        };
        Faults { missing: faulty.saturating_sub(wrong_type), wrong_type }
    });
    let side = Side {
        counts: counts.collect(),
        faulty: faulty.collect(),
        still: Vec::new(),
        spreads: features.map(spread_of_reference).collect(),
        classes: baseline.classes().iter().map(|class| class.count).chain([0]).collect(),
        confidence: baseline.confidence(),
        pairs: baseline.pairs(),
        rows: baseline.rows(),
        is_reference: true,
    };
    tallies(baseline, &side)
}

/// The reference's side in one phase of the season.
pub(super) fn of_phase(baseline: &Baseline, phase: &Phase) -> Vec<Tally> {
    let with_tails = |(feature, counts): (&Feature, &Vec<u64>)| match &feature.reference {
        Reference::Numeric(_) => [0].into_iter().chain(counts.iter().copied()).chain([0]).collect(),
        Reference::Categorical(_) => counts.clone(),
    };
    let whole = |place: usize| phase.wrong_type.get(place).copied().unwrap_or(0);
    let of_phase = phase.faulty.iter().enumerate().map(|(place, faulty)| {
        let wrong_type = whole(place);
        Faults { missing: faulty.saturating_sub(wrong_type), wrong_type }
    });
    let side = Side {
        counts: baseline.features().iter().zip(&phase.counts).map(with_tails).collect(),
        faulty: of_phase.collect(),
        still: Vec::new(),
        spreads: Vec::new(),
        classes: phase.classes.iter().copied().chain([0]).collect(),
        confidence: &phase.confidence,
        pairs: &phase.pairs,
        rows: phase.rows,
        is_reference: true,
    };
    tallies(baseline, &side)
}

/// The window's side.
pub(super) fn of_profile(baseline: &Baseline, profile: &Profile) -> Vec<Tally> {
    let (mut numerics, mut categoricals) = (profile.numeric().iter(), profile.categorical().iter());
    let (mut counts, mut faulty, mut spreads) = (Vec::new(), Vec::new(), Vec::new());
    let mut still = Vec::new();
    for feature in baseline.features() {
        let found = match &feature.reference {
            Reference::Numeric(reference) => numerics.next().map(|found| {
                let sd = found.mean_and_sd(reference).map(|(_, sd)| (sd, found.n()));
                still.push(found.range().is_some_and(|(min, max)| min >= max));
                let wrong_type = found.wrong_type;
                let missing = found.faulty().saturating_sub(wrong_type);
                (found.bins(reference).to_vec(), Faults { missing, wrong_type }, sd)
            }),
            Reference::Categorical(_) => categoricals.next().map(|found| {
                let domain = found.domain.iter().copied().chain([found.unseen]).collect();
                still.push(false);
                let (missing, wrong_type) = (found.null, found.wrong_type);
                (domain, Faults { missing, wrong_type }, None)
            }),
        };
        let (bins, without, sd) = found.unwrap_or_default();
        spreads.push(sd);
        counts.push(bins);
        faulty.push(without);
    }
    let side = Side {
        counts,
        faulty,
        still,
        spreads,
        classes: profile.classes().iter().copied().chain([profile.unseen_class()]).collect(),
        confidence: profile.confidence(),
        pairs: profile.pairs(),
        rows: profile.rows(),
        is_reference: false,
    };
    tallies(baseline, &side)
}

fn tallies(baseline: &Baseline, side: &Side<'_>) -> Vec<Tally> {
    let mut tallies = Vec::new();
    let counted = side.counts.iter().zip(&side.faulty);
    for (place, (feature, (counts, faulty))) in baseline.features().iter().zip(counted).enumerate()
    {
        let is_still = side.still.get(place).copied().unwrap_or(false);
        let quality = (place < baseline.inputs()).then_some((*faulty, is_still));
        tallies.extend(of_feature((place, feature), counts, quality, side.is_reference));
        // A season moves the mean, and so spreads the whole more than any of its phases.
        if let Some(kurtosis) = light_tails(feature).filter(|_| baseline.phases().is_empty()) {
            let (sd, rows) = side.spreads.get(place).copied().flatten().unwrap_or_default();
            let subject = Subject::Feature(feature.name.clone());
            let counts = Counts::Spread { sd, rows, kurtosis };
            tallies.push(Tally { subject, group: None, feature: Some(place), counts });
        }
    }
    let output = |subject, feature, counts| Tally { subject, group: None, feature, counts };
    // Nothing of what the reference does not have.
    if baseline.classes().iter().any(|class| class.count > 0) {
        let counts = of_categories(&side.classes, side.is_reference);
        tallies.push(output(Subject::Prediction, Some(baseline.features().len()), counts));
    }
    if !baseline.confidence().is_empty() {
        let bins = side.confidence.to_vec();
        let counts = Counts::Ordered { tenths: bins.clone(), bins };
        tallies.push(output(Subject::Confidence, Some(baseline.features().len() + 1), counts));
    }
    if !baseline.pairs().is_empty() {
        let inputs = baseline.features().iter().take(baseline.inputs());
        let numeric = inputs.filter(|feature| feature.numeric().is_some());
        let names = Arc::new(Names(numeric.map(|feature| feature.name.clone()).collect()));
        let counts = Counts::Pairs { counts: side.pairs.to_vec(), rows: side.rows, names };
        tallies.push(output(Subject::Correlations, None, counts));
    }
    tallies
}

fn spread_of_reference(feature: &Feature) -> Option<(f64, u64)> {
    let reference = feature.numeric()?;
    Some((reference.sd, reference.counts.iter().sum()))
}

/// The kurtosis of a feature whose tails are light enough for sums to be compared.
fn light_tails(feature: &Feature) -> Option<f64> {
    let kurtosis = feature.numeric()?.kurtosis;
    (kurtosis > 0.0 && kurtosis < KURTOSIS_MAX).then_some(kurtosis)
}

fn of_feature(
    (place, feature): (usize, &Feature),
    counts: &[u64],
    quality: Option<(Faults, bool)>,
    is_reference: bool,
) -> Vec<Tally> {
    let rows: u64 = counts.iter().sum();
    let (bins, outside, of) = match &feature.reference {
        Reference::Numeric(reference) => {
            let (bins, outside) = of_numbers(reference, counts);
            (bins, outside, Share::OutOfRange)
        }
        Reference::Categorical(CategoricalReference { held_out, .. }) => {
            let counts = of_categories(counts, is_reference && !*held_out);
            let [_, (expected, _)] = counts.lists();
            let unseen = expected.last().copied().unwrap_or(0);
            (counts, [unseen, 0], Share::Unseen)
        }
    };
    let tally = |group, counts| Tally {
        subject: Subject::Feature(feature.name.clone()),
        group,
        feature: Some(place),
        counts,
    };
    // Joint features say of all groups at once that something drifts, and of none of them.
    let is_joint = quality.is_none() && feature.group == JOINT_GROUP;
    let mut tallies = vec![
        tally((!is_joint).then(|| feature.group.clone()), bins),
        tally(None, Counts::Share { hits: outside, rows, of }),
    ];
    // What is derived is missing where inputs are, and nowhere else.
    let Some((faults, is_still)) = quality else { return tallies };
    let all = rows.saturating_add(faults.missing).saturating_add(faults.wrong_type);
    let share = |hits, rows, of| tally(None, Counts::Share { hits: [hits, 0], rows, of });
    tallies.push(share(faults.missing, all, Share::Missing));
    tallies.push(share(faults.wrong_type, all, Share::WrongType));
    if let Some(reference) = feature.numeric() {
        let commonest = commonest_share(reference);
        tallies.push(tally(None, Counts::Still { is_still, rows, commonest }));
    }
    tallies
}

/// At least the share of the commonest value, with one row more than there were.
fn commonest_share(reference: &NumericReference) -> f64 {
    let commonest = reference.counts.iter().max().copied().unwrap_or(0);
    (number(commonest) + 1.0) / (number(reference.counts.iter().sum()) + 1.0)
}

/// Who has seen a category once had not seen it before: such rows of the reference say how many rows of others will be unseen (Good,
/// 1953). Each is counted as if it had been left out.
fn of_categories(counts: &[u64], is_reference: bool) -> Counts {
    let mut expected = counts.to_vec();
    if is_reference && let Some((unseen, known)) = expected.split_last_mut() {
        for once in known.iter_mut().filter(|count| **count == 1) {
            *once = 0;
            *unseen += 1;
        }
    }
    Counts::Unordered { counts: counts.to_vec(), expected }
}

fn of_numbers(reference: &NumericReference, counts: &[u64]) -> (Counts, [u64; 2]) {
    let outside = [counts.first(), counts.last()].map(|count| count.copied().unwrap_or(0));
    let tenths = reference.tenths(counts);
    (Counts::Ordered { bins: counts.to_vec(), tenths }, outside)
}

/// Tallies of several phases, each as often as its share of the rows says, with as many rows as that mixture is worth.
pub(super) fn mixed(phases: &[(f64, &[Tally])]) -> Option<Vec<Tally>> {
    let (_, first) = phases.first()?;
    let places = 0..first.len();
    let mix = |place: usize| {
        let weighed =
            phases.iter().filter_map(|(weight, tallies)| Some((*weight, tallies.get(place)?)));
        Some(mixed_tally(first.get(place)?, &weighed.collect::<Vec<_>>()))
    };
    places.map(mix).collect()
}

fn mixed_tally(first: &Tally, phases: &[(f64, &Tally)]) -> Tally {
    let mixed = [0, 1].map(|list| {
        let lists = phases.iter().map(|(weight, tally)| (*weight, tally.counts.lists()));
        let list = lists.filter_map(|(weight, lists)| Some((weight, *lists.get(list)?)));
        mixture(&list.collect::<Vec<_>>())
    });
    Tally { counts: first.counts.with_lists(mixed), ..first.clone() }
}

impl Counts {
    /// Rows that were counted.
    pub(super) fn rows(&self) -> f64 {
        match self {
            Self::Ordered { bins: counts, .. } | Self::Unordered { counts, .. } => {
                number(counts.iter().sum())
            }
            Self::Spread { rows, .. }
            | Self::Share { rows, .. }
            | Self::Still { rows, .. }
            | Self::Pairs { rows, .. } => number(*rows),
        }
    }

    /// The counts of as many independent rows as these are worth: design effects are divided out (Rao and Scott, 1992).
    pub(super) fn worth(&self, factor: f64) -> Self {
        let [(first, rows), (second, _)] = self.lists();
        let part = |counts: &[u64]| match self {
            // Each pair by itself.
            Self::Pairs { .. } => {
                counts.iter().map(|count| whole(number(*count) / factor)).collect()
            }
            Self::Ordered { .. }
            | Self::Unordered { .. }
            | Self::Spread { .. }
            | Self::Share { .. }
            | Self::Still { .. } => thinned(counts, factor), // they add up to the rows
        };
        let lists = [(part(first), whole(number(rows) / factor)), (part(second), 0)];
        let fewer = |rows: u64| whole(number(rows) / factor);
        match self.with_lists(lists) {
            Self::Spread { sd, rows, kurtosis } => Self::Spread { sd, rows: fewer(rows), kurtosis },
            Self::Still { is_still, rows, commonest } => {
                Self::Still { is_still, rows: fewer(rows), commonest }
            }
            counts @ (Self::Ordered { .. }
            | Self::Unordered { .. }
            | Self::Share { .. }
            | Self::Pairs { .. }) => counts,
        }
    }

    /// The one or two lists of counts, with their rows.
    fn lists(&self) -> [(&[u64], u64); 2] {
        const NONE: (&[u64], u64) = (&[], 0);
        let of = |counts: &[u64]| counts.iter().sum();
        match self {
            Self::Ordered { bins, tenths } => [(bins, of(bins)), (tenths, of(tenths))],
            Self::Unordered { counts, expected } => {
                [(counts, of(counts)), (expected, of(expected))]
            }
            Self::Spread { .. } | Self::Still { .. } => [NONE, NONE],
            Self::Share { hits, rows, .. } => [(hits, *rows), NONE],
            Self::Pairs { counts, rows, .. } => [(counts, *rows), NONE],
        }
    }

    /// The same kind of counts, with other lists.
    fn with_lists(&self, [(first, rows), (second, _)]: [(Vec<u64>, u64); 2]) -> Self {
        match self {
            Self::Ordered { .. } => Self::Ordered { bins: first, tenths: second },
            Self::Unordered { .. } => Self::Unordered { counts: first, expected: second },
            Self::Spread { .. } | Self::Still { .. } => self.clone(),
            Self::Share { of, .. } => {
                Self::Share { hits: <[u64; 2]>::try_from(first).unwrap_or_default(), rows, of: *of }
            }
            Self::Pairs { names, .. } => {
                Self::Pairs { counts: first, rows, names: Arc::clone(names) }
            }
        }
    }
}

/// Counts with the shares of the mixture, over as many rows as give a mean of its variance.
fn mixture(parts: &[(f64, (&[u64], u64))]) -> (Vec<u64>, u64) {
    let known = parts.iter().filter(|(_, (_, rows))| *rows > 0);
    let weight: f64 = known.clone().map(|(weight, _)| weight).sum();
    let length = parts.first().map_or(0, |(_, (counts, _))| counts.len());
    if weight <= 0.0 {
        return (vec![0; length], 0);
    }
    let share = |weight_of: f64| weight_of / weight;
    let variance: f64 =
        known.clone().map(|(weight, (_, rows))| share(*weight).powi(2) / number(*rows)).sum();
    let rows = variance.recip();
    let count = |place: usize| {
        let terms = known.clone().map(|(weight, (counts, rows))| {
            share(*weight) * number(counts.get(place).copied().unwrap_or(0)) / number(*rows)
        });
        whole(rows * terms.sum::<f64>())
    };
    ((0..length).map(count).collect(), whole(rows))
}

/// Counts over a factor. Sums up to each place are rounded, and not each count: of many bins with half a row no row would be left.
fn thinned(counts: &[u64], factor: f64) -> Vec<u64> {
    let (mut sum, mut before) = (0, 0);
    let thin = |count: &u64| {
        sum += *count;
        let now = whole(number(sum) / factor);
        now - std::mem::replace(&mut before, now)
    };
    counts.iter().map(thin).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of at most the reference's rows"
)]
fn whole(count: f64) -> u64 {
    count.round() as u64
}
