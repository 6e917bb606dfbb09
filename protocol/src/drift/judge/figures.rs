//! Figures that are shown beside verdicts and not judged.

use crate::drift::{Metric, chi_square, jensen_shannon, kolmogorov_smirnov, psi, wasserstein};
use crate::profile::{Baseline, Feature, Profile};

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

/// All that can be said of one feature in `profile`; empty for another feature or without values.
pub fn figures(baseline: &Baseline, profile: &Profile, feature: &str) -> Vec<Figure> {
    let is_categorical = |feature: &&Feature| feature.numeric().is_none();
    let mut categorical =
        baseline.features().iter().filter(is_categorical).zip(profile.categorical());
    if let Some((_, counts)) = categorical.find(|(known, _)| known.name == feature) {
        let value = counts.cardinality().values;
        return vec![Figure { metric: Metric::Cardinality, value, p: None }];
    }
    let numeric = baseline.features().iter().filter_map(|feature| {
        feature.numeric().map(|reference| (feature.name.as_str(), reference))
    });
    let mut pairs = numeric.zip(profile.numeric());
    let Some(((_, reference), counts)) = pairs.find(|((name, _), _)| *name == feature) else {
        return Vec::new();
    };
    let (reference, found) = (&reference.in_tenths(), &reference.tenths(counts.bins(reference)));
    let expected = reference.counts_with_tails();
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
