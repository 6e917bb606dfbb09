//! A subject's rows beside the reference's, bin by bin.

use sealift_protocol::api::{DifferentView, HistogramView};
use sealift_protocol::profile::{
    Baseline, Cardinality, CategoricalReference, Feature, Profile, Reference,
};

use crate::drift::Subject;

/// The bin of what the reference does not have.
const UNSEEN: &str = "unseen";

/// Shares of reference and current rows; none for a group, whose features have one each, and for what the reference does not have.
pub(super) fn histogram(
    baseline: &Baseline,
    profile: &Profile,
    subject: &Subject,
) -> Option<HistogramView> {
    let (bins, reference, current) = match subject {
        Subject::Feature(name) => {
            let place = baseline.features().iter().position(|feature| feature.name == *name)?;
            feature_bins(baseline, profile, place)?
        }
        Subject::Prediction => {
            let known = baseline.classes().iter();
            let bins = known.clone().map(|class| class.name.clone()).chain([UNSEEN.to_owned()]);
            let reference = known.map(|class| class.count).chain([0]);
            let current = profile.classes().iter().copied().chain([profile.unseen_class()]);
            (bins.collect(), reference.collect(), current.collect())
        }
        Subject::Confidence => {
            let reference = baseline.confidence().to_vec();
            (unit_bins(reference.len()), reference, profile.confidence().to_vec())
        }
        // A group and pairs are many features; each has its own histogram.
        Subject::Group(_) | Subject::Correlations => return None,
    };
    if reference.iter().sum::<u64>() == 0 {
        return None;
    }
    let (reference, current) = (shares(&reference), shares(&current));
    let different = different(baseline, profile, subject);
    let subject = subject.to_string();
    let (rows, skipped) = (profile.rows(), profile.skipped());
    Some(HistogramView { subject, bins, reference, current, rows, skipped, different })
}

fn different(baseline: &Baseline, profile: &Profile, subject: &Subject) -> Option<DifferentView> {
    let Subject::Feature(name) = subject else { return None };
    let categorical = baseline.features().iter().filter(|feature| feature.numeric().is_none());
    let mut counted = categorical.zip(profile.categorical());
    let (_, counts) = counted.find(|(feature, _)| feature.name == *name)?;
    let Cardinality { values, is_at_least } = counts.cardinality();
    Some(DifferentView { values, is_at_least })
}

type Bins = (Vec<String>, Vec<u64>, Vec<u64>);

/// Profiles keep numeric and categorical features apart, each in the order of the baseline.
fn feature_bins(baseline: &Baseline, profile: &Profile, place: usize) -> Option<Bins> {
    let feature = baseline.features().get(place)?;
    let is_numeric = |feature: &&Feature| matches!(feature.reference, Reference::Numeric(_));
    let numeric_before = baseline.features().iter().take(place).filter(is_numeric).count();
    match &feature.reference {
        Reference::Numeric(numeric) => {
            let current = profile.numeric().get(numeric_before)?.bins(numeric).to_vec();
            Some((numeric.labels(), numeric.counts_with_tails(), current))
        }
        Reference::Categorical(categorical) => {
            let counts = profile.categorical().get(place - numeric_before)?;
            let current = counts.domain.iter().copied().chain([counts.unseen]).collect();
            Some((names(categorical), categorical.counts_with_unseen(), current))
        }
    }
}

fn names(categorical: &CategoricalReference) -> Vec<String> {
    let known = categorical.domain.iter().map(|category| category.name.clone());
    known.chain([UNSEEN.to_owned()]).collect()
}

/// Confidence lies between 0 and 1; the last bin has 1 in it.
fn unit_bins(bins: usize) -> Vec<String> {
    let bin = |place: usize| {
        let end = if place + 1 == bins { ']' } else { ')' };
        let per_mille = |place: usize| place * 1_000 / bins;
        let text = |mille: usize| format!("{}.{:02}", mille / 1_000, mille % 1_000 / 10);
        format!("[{}, {}{end}", text(per_mille(place)), text(per_mille(place + 1)))
    };
    (0..bins).map(bin).collect()
}

#[expect(clippy::cast_precision_loss, reason = "shares for a picture")]
fn shares(counts: &[u64]) -> Vec<f64> {
    let total = counts.iter().sum::<u64>().max(1) as f64;
    counts.iter().map(|&count| count as f64 / total).collect()
}
