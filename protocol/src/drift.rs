//! How far two sets of counts over the same bins are apart, and how likely chance alone is to bring that about.
//!
//! A figure means nothing without its method and its binning, so each [`Metric`] has both in its name. The shares below are those of
//! the reference `p` and of the window `q`.

mod compare;
mod judge;
mod pair;
mod rank;
mod special;
mod subject;
mod test;
mod watcher;

pub use compare::{jensen_shannon, kolmogorov_smirnov, psi, wasserstein};
pub use judge::{Against, Case, Figure, InvalidPolicy, Policy, Verdict, Window, figures, judge};
pub use pair::{PairGap, pair_gap};
pub use rank::{
    Gap, Ranked, category_gap, cut_gap, rank_shift, rank_spread, sd_ratio, share_p, share_rise_p,
};
pub use subject::{InvalidScope, Scope, Subject};
pub use test::{ChiSquare, benjamini_hochberg, bonferroni, chi_square, rare_excess, two_sample};
pub use watcher::{WINDOW_MS, Watcher};

pub(crate) use special::gamma_tail;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Where a verdict stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DriftState {
    /// As in training.
    Steady,
    /// Different, not yet for long enough.
    Suspect,
    /// Different.
    Drifted,
    /// Too few rows to say.
    TooFew,
}

/// A method with its binning.
///
/// `refq10+tails` are the ten reference-quantile bins of the baseline (fewer where values repeat) and the two tails outside of the
/// reference range; `ref12+tails` has two finer edges near the ends, and an edge at each value where there are a dozen; `ref30+70`
/// takes the lowest and the highest three tenths; `eq20` are 20 equal bins from 0 to 1; `eps1e-4` says that a share below 0.0001 counts as 0.0001.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Population stability index of a numeric feature.
    PsiNumeric,
    /// The same of a categorical feature.
    PsiCategorical,
    /// The same of the predicted classes.
    PsiClasses,
    /// The same of the confidence.
    PsiConfidence,
    /// The largest index among the features of a group.
    PsiGroup,
    /// Jensen-Shannon divergence of a numeric feature in bits, 0 to 1.
    JensenShannon,
    /// Kolmogorov-Smirnov distance of a numeric feature, at the edges of the bins.
    KolmogorovSmirnov,
    /// Wasserstein distance of a numeric feature between bin middles, in standard deviations of the reference.
    WassersteinSd,
    /// Chi-square of a numeric feature; bins with an expected count below 5 are pooled.
    ChiSquare,
    /// Cliff's delta of a numeric feature: how much likelier a window's value is above a reference value than below.
    RankShift,
    /// The same of the confidence.
    ConfidenceShift,
    /// By how much the ranks of a numeric feature lie further out than those of the reference.
    RankSpread,
    /// The same of the confidence.
    ConfidenceSpread,
    /// Kolmogorov-Smirnov distance of a numeric feature at all edges, with an exact p-value for each of them.
    CutGap,
    /// The same of the confidence.
    ConfidenceGap,
    /// L-infinity distance of a categorical feature: the largest difference between the shares of one category.
    CategoryGap,
    /// The same of the predicted classes.
    ClassGap,
    /// The largest change, over pairs of numeric features, of concordant less discordant rows.
    Concordance,
    /// Logarithm of the ratio of a numeric feature's standard deviations, from exact sums; only where the reference has light tails.
    SdRatio,
    /// Share of values that are missing or not finite.
    MissingShare,
    /// Share of values that are of another type.
    WrongTypeShare,
    /// Share of values outside of the reference range.
    OutOfRangeShare,
    /// Share of values outside of the reference domain.
    UnseenShare,
    /// Whether a value that used to change is the same in every row: 1, or 0.
    Stuck,
    /// How many different values a categorical feature has; shown, and not judged.
    Cardinality,
}

impl Metric {
    const ALL: [Self; 25] = [
        Self::Cardinality,
        Self::SdRatio,
        Self::RankShift,
        Self::ConfidenceShift,
        Self::RankSpread,
        Self::ConfidenceSpread,
        Self::CutGap,
        Self::ConfidenceGap,
        Self::CategoryGap,
        Self::ClassGap,
        Self::Concordance,
        Self::PsiNumeric,
        Self::PsiCategorical,
        Self::PsiClasses,
        Self::PsiConfidence,
        Self::PsiGroup,
        Self::JensenShannon,
        Self::KolmogorovSmirnov,
        Self::WassersteinSd,
        Self::ChiSquare,
        Self::MissingShare,
        Self::WrongTypeShare,
        Self::OutOfRangeShare,
        Self::UnseenShare,
        Self::Stuck,
    ];

    /// The stable name, `method/binning/...`.
    pub const fn id(self) -> &'static str {
        match self {
            Self::PsiNumeric => "psi/refq10+tails/eps1e-4",
            Self::PsiCategorical => "psi/domain+unseen/eps1e-4",
            Self::PsiClasses => "psi/classes+unseen/eps1e-4",
            Self::PsiConfidence => "psi/eq20/eps1e-4",
            Self::PsiGroup => "psi-max/group/eps1e-4",
            Self::JensenShannon => "js/refq10+tails/bits",
            Self::KolmogorovSmirnov => "ks/refq10+tails",
            Self::WassersteinSd => "wasserstein-sd/refq10+tails/middles",
            Self::ChiSquare => "chi2/refq10+tails/pool5",
            Self::RankShift => "rank-shift/ref12+tails",
            Self::ConfidenceShift => "rank-shift/eq20",
            Self::RankSpread => "rank-spread/ref12+tails",
            Self::ConfidenceSpread => "rank-spread/eq20",
            Self::CutGap => "ks/ref12+tails/exact",
            Self::ConfidenceGap => "ks/eq20/exact",
            Self::CategoryGap => "linf/domain+unseen",
            Self::ClassGap => "linf/classes+unseen",
            Self::Concordance => "concordance/ref30+70",
            Self::SdRatio => "sd-ratio/sums/ln",
            Self::MissingShare => "share/missing",
            Self::WrongTypeShare => "share/wrong-type",
            Self::OutOfRangeShare => "share/out-of-range",
            Self::UnseenShare => "share/unseen",
            Self::Stuck => "stuck/range",
            Self::Cardinality => "cardinality/domain+hll512",
        }
    }

    /// How it compares bins, where it does.
    const fn method(self) -> Method {
        match self {
            Self::RankShift | Self::ConfidenceShift => Method::Shift,
            Self::RankSpread | Self::ConfidenceSpread => Method::Spread,
            Self::CutGap | Self::ConfidenceGap | Self::CategoryGap | Self::ClassGap => Method::Gap,
            Self::PsiNumeric
            | Self::PsiCategorical
            | Self::PsiClasses
            | Self::PsiConfidence
            | Self::PsiGroup
            | Self::JensenShannon
            | Self::KolmogorovSmirnov
            | Self::WassersteinSd
            | Self::ChiSquare
            | Self::Concordance
            | Self::SdRatio
            | Self::MissingShare
            | Self::WrongTypeShare
            | Self::OutOfRangeShare
            | Self::UnseenShare
            | Self::Stuck
            | Self::Cardinality => Method::Index,
        }
    }
}

/// What is asked of bins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    /// Whether values moved.
    Shift,
    /// Whether they spread.
    Spread,
    /// Whether one cut or category has another share.
    Gap,
    /// Whether anything at all differs.
    Index,
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

impl<'de> Deserialize<'de> for Metric {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = String::deserialize(deserializer)?;
        let metric = Self::ALL.into_iter().find(|metric| metric.id() == id);
        metric.ok_or_else(|| de::Error::custom(format_args!("`{id}` is not a metric")))
    }
}

/// A count as a number to reckon with.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts stay below 2^40 and doubles are exact to 2^53"
)]
pub const fn number(count: u64) -> f64 {
    count as f64
}

/// The sum of counts, as a number.
fn sum(counts: &[u64]) -> f64 {
    counts.iter().copied().map(number).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_found_by_its_id() {
        for metric in Metric::ALL {
            let json = serde_json::to_string(&metric).unwrap();
            assert_eq!(serde_json::from_str::<Metric>(&json).unwrap(), metric);
        }
        assert!(serde_json::from_str::<Metric>("\"psi\"").is_err());
    }
}
