//! From counts to effects and p-values.

use std::collections::BTreeMap;

use crate::drift::{
    Metric, chi_square, jensen_shannon, kolmogorov_smirnov, number, psi, two_sample_p, wasserstein,
};
use crate::profile::{Baseline, Feature, Profile, Reference};

use crate::drift::Subject;

/// Counts over the bins of one metric. Reference and window list the same tallies in the same order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tally {
    pub(super) subject: Subject,
    pub(super) metric: Metric,
    /// The group that a difference also speaks for.
    group: Option<String>,
    counts: Vec<u64>,
}

/// How far window and reference are apart in one metric, and the probability that chance did it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Measure {
    pub(super) subject: Subject,
    pub(super) metric: Metric,
    pub(super) value: f64,
    pub(super) p: f64,
    /// The feature of a group in which the difference is largest.
    pub(super) strongest: Option<String>,
}

/// One number about a feature, for the page that explains it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// Method and binning.
    pub metric: Metric,
    /// The number.
    pub value: f64,
    /// Its p-value, uncorrected, where the method has one.
    pub p: Option<f64>,
}

/// All that can be said of one numeric feature in `profile`; empty for another feature or without values.
pub fn figures(baseline: &Baseline, profile: &Profile, feature: &str) -> Vec<Figure> {
    let numeric = baseline.features().iter().filter_map(|feature| {
        feature.numeric().map(|reference| (feature.name.as_str(), reference))
    });
    let mut pairs = numeric.zip(profile.numeric());
    let Some(((_, reference), counts)) = pairs.find(|((name, _), _)| *name == feature) else {
        return Vec::new();
    };
    let (expected, found) = (reference.counts_with_tails(), counts.bins(reference));
    let distance = wasserstein(&reference.points(), &expected, found);
    let in_sds = distance.filter(|_| reference.sd > 0.0).map(|distance| distance / reference.sd);
    let plain = |metric, value: Option<f64>| Some(Figure { metric, value: value?, p: None });
    let tested = |metric, (value, p)| Figure { metric, value, p: Some(p) };
    let figures = [
        plain(Metric::PsiNumeric, psi(&expected, found)),
        plain(Metric::JensenShannon, jensen_shannon(&expected, found)),
        plain(Metric::WassersteinSd, in_sds),
        kolmogorov_smirnov(&expected, found)
            .map(|result| tested(Metric::KolmogorovSmirnov, result)),
        chi_square(&expected, found)
            .map(|test| tested(Metric::ChiSquare, (test.statistic, test.p))),
    ];
    figures.into_iter().flatten().collect()
}

/// The reference's side of every metric.
pub(super) fn tallies_of_baseline(baseline: &Baseline) -> Vec<Tally> {
    let features = baseline.features().iter().flat_map(|feature| match &feature.reference {
        Reference::Numeric(reference) => {
            numeric(feature, reference.counts_with_tails(), reference.faulty)
        }
        Reference::Categorical(reference) => {
            categorical(feature, reference.counts_with_unseen(), reference.faulty)
        }
    });
    let classes = baseline.classes().iter().map(|class| class.count).chain([0]).collect();
    let outputs = outputs(baseline, classes, baseline.confidence().to_vec());
    features.chain(outputs).collect()
}

/// The window's side of every metric.
pub(super) fn tallies_of_profile(baseline: &Baseline, profile: &Profile) -> Vec<Tally> {
    let (mut numerics, mut categoricals) = (profile.numeric().iter(), profile.categorical().iter());
    let features = baseline.features().iter().filter_map(|feature| match &feature.reference {
        Reference::Numeric(reference) => {
            let counts = numerics.next()?;
            Some(numeric(feature, counts.bins(reference).to_vec(), counts.faulty()))
        }
        Reference::Categorical(_) => {
            let counts = categoricals.next()?;
            let domain = counts.domain.iter().copied().chain([counts.unseen]).collect();
            Some(categorical(feature, domain, counts.faulty()))
        }
    });
    let classes = profile.classes().iter().copied().chain([profile.unseen_class()]).collect();
    let outputs = outputs(baseline, classes, profile.confidence().to_vec());
    features.flatten().chain(outputs).collect()
}

/// Compares tally by tally, and sums up the groups after them.
pub(super) fn measures(reference: &[Tally], window: &[Tally]) -> Vec<Measure> {
    let mut measures = Vec::with_capacity(window.len());
    let mut groups = BTreeMap::new();
    for (reference, window) in reference.iter().zip(window) {
        let measure = measure(reference, window);
        if let (Some(group), Subject::Feature(feature)) = (&window.group, &measure.subject) {
            let group = groups.entry(group).or_insert_with(|| empty_group(group));
            widen(group, feature, &measure);
        }
        measures.push(measure);
    }
    measures.extend(groups.into_values());
    measures
}

/// Without counts on a side nothing can be said: no effect, and chance explains it.
fn measure(reference: &Tally, window: &Tally) -> Measure {
    let (expected, found) = (&reference.counts, &window.counts);
    let value = if window.metric.is_share() { rise(expected, found) } else { psi(expected, found) };
    Measure {
        subject: window.subject.clone(),
        metric: window.metric,
        value: value.unwrap_or(0.0),
        p: two_sample_p(expected, found).unwrap_or(1.0),
        strongest: None,
    }
}

/// How much larger the first of two shares is; a fall is no harm.
fn rise(reference: &[u64], window: &[u64]) -> Option<f64> {
    let share = |counts: &[u64]| {
        let all: u64 = counts.iter().sum();
        (all > 0).then(|| number(counts.first().copied().unwrap_or(0)) / number(all))
    };
    Some((share(window)? - share(reference)?).max(0.0))
}

fn empty_group(name: &str) -> Measure {
    let subject = Subject::Group(name.to_owned());
    Measure { subject, metric: Metric::PsiGroup, value: 0.0, p: 1.0, strongest: None }
}

/// A group is as far away as its farthest feature. Its p-value is the smallest, which the correction for all features covers.
fn widen(group: &mut Measure, feature: &str, measure: &Measure) {
    if measure.value > group.value {
        group.value = measure.value;
        group.strongest = Some(feature.to_owned());
    }
    group.p = group.p.min(measure.p);
}

fn numeric(feature: &Feature, bins: Vec<u64>, faulty: u64) -> [Tally; 3] {
    let tail = |count: Option<&u64>| count.copied().unwrap_or(0);
    let outside = tail(bins.first()) + tail(bins.last());
    of_feature(feature, Metric::PsiNumeric, bins, outside, faulty)
}

fn categorical(feature: &Feature, domain_and_unseen: Vec<u64>, faulty: u64) -> [Tally; 3] {
    let unseen = domain_and_unseen.last().copied().unwrap_or(0);
    of_feature(feature, Metric::PsiCategorical, domain_and_unseen, unseen, faulty)
}

fn of_feature(
    feature: &Feature,
    metric: Metric,
    counts: Vec<u64>,
    outside: u64,
    faulty: u64,
) -> [Tally; 3] {
    let all: u64 = counts.iter().sum();
    let tally = |metric, group, counts| Tally {
        subject: Subject::Feature(feature.name.clone()),
        metric,
        group,
        counts,
    };
    [
        tally(metric, Some(feature.group.clone()), counts),
        tally(Metric::OutOfRangeShare, None, vec![outside, all - outside]),
        tally(Metric::FaultyShare, None, vec![faulty, all]),
    ]
}

/// Nothing of what the reference does not have.
fn outputs(baseline: &Baseline, classes: Vec<u64>, confidence: Vec<u64>) -> Vec<Tally> {
    let tally = |subject, metric, counts| Tally { subject, metric, group: None, counts };
    let has_classes = baseline.classes().iter().any(|class| class.count > 0);
    let has_confidence = !baseline.confidence().is_empty();
    let classes = has_classes.then(|| tally(Subject::Prediction, Metric::PsiClasses, classes));
    let confidence =
        has_confidence.then(|| tally(Subject::Confidence, Metric::PsiConfidence, confidence));
    classes.into_iter().chain(confidence).collect()
}
