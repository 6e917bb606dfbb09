//! The counts that are compared: the same list for a reference and for a window.

use std::sync::Arc;

use crate::drift::{Subject, number};
use crate::profile::{Baseline, Feature, NumericReference, Phase, Profile, Reference, pairs};

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
    /// Below and above the reference range; unseen categories and nothing.
    Outside { hits: [u64; 2], rows: u64 },
    /// Without a value.
    Faulty { hits: u64, rows: u64 },
    /// Pairs of features.
    Pairs { counts: Vec<u64>, rows: u64, names: Arc<Names> },
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
    faulty: Vec<u64>,
    /// For each feature its standard deviation and its rows; nothing where it has none to compare.
    spreads: Vec<Option<(f64, u64)>>,
    classes: Vec<u64>,
    confidence: &'a [u64],
    pairs: &'a [u64],
    rows: u64,
    /// Whether the bins were cut to fit these very counts.
    is_reference: bool,
}

/// The reference's side.
pub(super) fn of_baseline(baseline: &Baseline) -> Vec<Tally> {
    let features = baseline.features().iter();
    let counts = features.clone().map(|feature| match &feature.reference {
        Reference::Numeric(reference) => reference.counts_with_tails(),
        Reference::Categorical(reference) => reference.counts_with_unseen(),
    });
    let faulty = features.clone().map(|feature| match &feature.reference {
        Reference::Numeric(reference) => reference.faulty,
        Reference::Categorical(reference) => reference.faulty,
    });
    let side = Side {
        counts: counts.collect(),
        faulty: faulty.collect(),
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
    let side = Side {
        counts: baseline.features().iter().zip(&phase.counts).map(with_tails).collect(),
        faulty: phase.faulty.clone(),
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
    for feature in baseline.features() {
        let found = match &feature.reference {
            Reference::Numeric(reference) => numerics.next().map(|found| {
                let sd = found.mean_and_sd(reference).map(|(_, sd)| (sd, found.n()));
                (found.bins(reference).to_vec(), found.faulty(), sd)
            }),
            Reference::Categorical(_) => categoricals.next().map(|found| {
                let domain = found.domain.iter().copied().chain([found.unseen]).collect();
                (domain, found.faulty(), None)
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
        tallies.extend(of_feature(place, feature, counts, *faulty, side.is_reference));
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
    place: usize,
    feature: &Feature,
    counts: &[u64],
    faulty: u64,
    is_reference: bool,
) -> [Tally; 3] {
    let all: u64 = counts.iter().sum();
    let (bins, outside) = match &feature.reference {
        Reference::Numeric(reference) => of_numbers(reference, counts),
        Reference::Categorical(_) => {
            let counts = of_categories(counts, is_reference);
            let [_, (expected, _)] = counts.lists();
            let unseen = expected.last().copied().unwrap_or(0);
            (counts, [unseen, 0])
        }
    };
    let tally = |group, counts| Tally {
        subject: Subject::Feature(feature.name.clone()),
        group,
        feature: Some(place),
        counts,
    };
    [
        tally(Some(feature.group.clone()), bins),
        tally(None, Counts::Outside { hits: outside, rows: all }),
        tally(None, Counts::Faulty { hits: faulty, rows: all.saturating_add(faulty) }),
    ]
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
    /// The one or two lists of counts, with their rows.
    fn lists(&self) -> [(&[u64], u64); 2] {
        const NONE: (&[u64], u64) = (&[], 0);
        let of = |counts: &[u64]| counts.iter().sum();
        match self {
            Self::Ordered { bins, tenths } => [(bins, of(bins)), (tenths, of(tenths))],
            Self::Unordered { counts, expected } => {
                [(counts, of(counts)), (expected, of(expected))]
            }
            Self::Spread { .. } => [NONE, NONE],
            Self::Outside { hits, rows } => [(hits, *rows), NONE],
            Self::Faulty { hits, rows } => [(std::slice::from_ref(hits), *rows), NONE],
            Self::Pairs { counts, rows, .. } => [(counts, *rows), NONE],
        }
    }

    /// The same kind of counts, with other lists.
    fn with_lists(&self, [(first, rows), (second, _)]: [(Vec<u64>, u64); 2]) -> Self {
        match self {
            Self::Ordered { .. } => Self::Ordered { bins: first, tenths: second },
            Self::Unordered { .. } => Self::Unordered { counts: first, expected: second },
            Self::Spread { .. } => self.clone(),
            Self::Outside { .. } => {
                Self::Outside { hits: <[u64; 2]>::try_from(first).unwrap_or_default(), rows }
            }
            Self::Faulty { .. } => Self::Faulty { hits: first.first().copied().unwrap_or(0), rows },
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

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of at most the reference's rows"
)]
fn whole(count: f64) -> u64 {
    count.round() as u64
}
