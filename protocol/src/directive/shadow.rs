//! How a new image is tried beside the live one before it is made live: on the inputs of applications, which do not see its answers.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::report::ShadowCounts;

/// A week: whoever waits longer has no wish to know.
const SPAN_S_MAX: u32 = 7 * 86_400;

/// Images that agree on less than half of the rows are no versions of one model.
const AGREEMENT_MIN: u16 = 500;

/// Nothing that was counted shows that two images always agree.
const AGREEMENT_MAX: u16 = 999;

/// What a busy device sees in a week.
const ROWS_MAX: u32 = 10_000_000;

/// Less of a core than a hundredth compares nothing.
const CPU_MIN: u16 = 10;

/// Beyond half, the new image is the live one.
const SPLIT_MAX: u16 = 500;

/// Numbers half as large again are not close.
const TOLERANCE_MAX: u16 = 500;

/// From here on it is shown: each of the two ends before the span is over is wrong at most once in so many images (Ville's inequality).
const EVIDENCE_MIN: f64 = 100.0;

/// Shares of disagreement that are bet on against the one that is allowed, as multiples of it: on the way to better, and to worse.
const BETTER: [f64; 5] = [0.0, 0.125, 0.25, 0.5, 0.75];
const WORSE: [f64; 7] = [1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 25.0];

/// For how long, how much and how strictly a new image is compared with the live one. Without a span there is no shadow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Shadow {
    /// Seconds that it takes at most; 1 to 604,800. 0 for no shadow.
    pub span_s: u32,
    /// The share of rows on which both must agree, in per mille; 500 to 999. 0: it is compared for the whole span and not judged.
    pub agreement_permille: u16,
    /// Rows that must have been compared; 1 to 10,000,000.
    pub rows_min: u32,
    /// Share of one core that the new image may take, in per mille; 10 to 1,000. Inputs beyond it are skipped.
    pub cpu_permille: u16,
    /// What follows where fewer rows were compared by the end of the span.
    pub quiet: Quiet,
    /// Share of the requests that the new image answers instead of the live one, in per mille; at most 500.
    pub split_permille: u16,
    /// By which part numbers may differ where the contract names no prediction, in per mille; at most 500.
    pub tolerance_permille: u16,
}

/// What follows where too little was seen to judge by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Quiet {
    /// The image is made live, on probation: a device that is hardly asked is not kept from an update.
    #[default]
    Pass,
    /// The image is rejected.
    Fail,
}

/// What was found of an image beside the live one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likeness {
    /// They agree as often as is asked for.
    Alike,
    /// They do not.
    Unlike,
    /// Too few rows were compared.
    Unseen,
}

/// A shadow that cannot be meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidShadow {
    field: &'static str,
    given: u32,
    low: u32,
    high: u32,
}

impl fmt::Display for InvalidShadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, given, low, high } = self;
        write!(f, "shadow: {field} is {given}; it is between {low} and {high}")
    }
}

impl std::error::Error for InvalidShadow {}

impl Shadow {
    /// No shadow: a directive that says nothing means this, as do all that were signed before there was any.
    pub const OFF: Self = Self {
        span_s: 0,
        agreement_permille: 0,
        rows_min: 500,
        cpu_permille: 200,
        quiet: Quiet::Pass,
        split_permille: 0,
        tolerance_permille: 10,
    };

    /// Whether nothing is said. Then the bytes are those of a trial without a shadow, which are kept under the digests of earlier
    /// rollouts.
    pub fn is_unsaid(&self) -> bool {
        *self == Self::OFF
    }

    /// Whether the image is made live without having been compared.
    pub const fn is_off(&self) -> bool {
        self.span_s == 0
    }

    /// Refuses rules that cannot be meant.
    pub fn check(&self) -> Result<(), InvalidShadow> {
        if self.is_unsaid() {
            return Ok(());
        }
        let wide = u32::from;
        let rules = [
            ("span_s", self.span_s, 1, SPAN_S_MAX),
            ("rows_min", self.rows_min, 1, ROWS_MAX),
            ("cpu_permille", wide(self.cpu_permille), wide(CPU_MIN), 1_000),
            ("split_permille", wide(self.split_permille), 0, wide(SPLIT_MAX)),
            ("tolerance_permille", wide(self.tolerance_permille), 0, wide(TOLERANCE_MAX)),
        ];
        let agreement = (self.agreement_permille != 0).then_some((
            "agreement_permille",
            wide(self.agreement_permille),
            wide(AGREEMENT_MIN),
            wide(AGREEMENT_MAX),
        ));
        let is_wrong = |&(_, given, low, high): &(_, u32, u32, u32)| !(low..=high).contains(&given);
        match rules.into_iter().chain(agreement).find(is_wrong) {
            Some((field, given, low, high)) => Err(InvalidShadow { field, given, low, high }),
            None => Ok(()),
        }
    }

    /// What is shown already, before the span is over.
    ///
    /// The counts may be looked at at any time and as often as one likes. Against "they agree on less than the share asked for", and
    /// against "on at least that share", the likelihood of what was counted under other shares is set beside that under the share
    /// itself (Wald 1945; Robbins 1970). Under either hypothesis the mean of these ratios is a supermartingale that begins at 1, whatever
    /// the rows depend on, as long as the chance of the next row, given all before, is what the hypothesis says; so it ever passes 100
    /// with a probability of at most 1 in 100 (Ville 1939).
    pub fn so_far(&self, counts: &ShadowCounts) -> Option<Likeness> {
        if self.agreement_permille == 0 || counts.rows < u64::from(self.rows_min) {
            return None;
        }
        if self.evidence(counts, &WORSE) >= EVIDENCE_MIN {
            return Some(Likeness::Unlike);
        }
        (self.evidence(counts, &BETTER) >= EVIDENCE_MIN).then_some(Likeness::Alike)
    }

    /// What is found when the span is over: what is shown, or, where neither is, the share that was counted.
    pub fn at_end(&self, counts: &ShadowCounts) -> Likeness {
        if counts.rows < u64::from(self.rows_min) {
            return Likeness::Unseen;
        }
        let asked = u128::from(counts.rows) * u128::from(self.agreement_permille);
        let is_enough = u128::from(counts.agreed) * 1_000 >= asked;
        let by_share = if is_enough { Likeness::Alike } else { Likeness::Unlike };
        self.so_far(counts).unwrap_or(by_share)
    }

    /// The mean of the likelihood ratios of these multiples of the allowed disagreement.
    fn evidence(&self, counts: &ShadowCounts, multiples: &[f64]) -> f64 {
        let allowed = 1.0 - f64::from(self.agreement_permille) / 1_000.0;
        let differed = real(counts.rows.saturating_sub(counts.agreed));
        let agreed = real(counts.agreed);
        let shares =
            multiples.iter().map(|multiple| multiple * allowed).filter(|share| *share < 1.0);
        let ratio = |share: f64| {
            let of_differed = if differed > 0.0 { differed * (share / allowed).ln() } else { 0.0 };
            agreed.mul_add(((1.0 - share) / (1.0 - allowed)).ln(), of_differed).exp()
        };
        let (sum, shares) =
            shares.fold((0.0, 0.0), |(sum, n), share| (sum + ratio(share), n + 1.0));
        sum / f64::max(shares, 1.0)
    }
}

impl Default for Shadow {
    fn default() -> Self {
        Self::OFF
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of rows; 53 bits are enough")]
const fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
