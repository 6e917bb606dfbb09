//! A subject's rows beside the reference's, bin by bin.

use sealift_protocol::api::HistogramView;
use sealift_protocol::profile::{Baseline, CategoricalReference, Feature, Profile, Reference};

use crate::drift::Subject;

/// Shares of reference and current rows, bin by bin.
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
            let bins = baseline.classes().iter().map(|class| class.name.clone()).collect();
            let reference = baseline.classes().iter().map(|class| class.count).collect();
            (bins, reference, profile.classes().to_vec())
        }
        Subject::Confidence => {
            let bins = (0_u32..20).map(|bin| {
                let lower = f64::from(bin) * 0.05;
                format!("[{lower:.2}, {:.2})", lower + 0.05)
            });
            (bins.collect(), baseline.confidence().to_vec(), profile.confidence().to_vec())
        }
        // A group is many features; each has its own histogram.
        Subject::Group(_) => return None,
    };
    let (reference, current) = (shares(&reference), shares(&current));
    let subject = subject.to_string();
    Some(HistogramView { subject, bins, reference, current, rows: profile.rows() })
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
    known.chain(["unseen".to_owned()]).collect()
}

#[expect(clippy::cast_precision_loss, reason = "shares for a picture")]
fn shares(counts: &[u64]) -> Vec<f64> {
    let total = counts.iter().sum::<u64>().max(1) as f64;
    counts.iter().map(|&count| count as f64 / total).collect()
}
