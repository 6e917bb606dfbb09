//! Bets against "canaries are at most so much worse than controls", whose winnings are the evidence.
//!
//! Scores are numbers from 0 to a cap, one per device. Let `a` be the allowance, `q` a guess at the mean of controls made before the
//! look, `m` and `n` the numbers of canaries and controls. A bet of size `c` multiplies its capital by
//!
//! ```text
//!     ∏ canaries (1 + c (x − q − a))  ·  ∏ controls (1 − c m/n (y − q))
//! ```
//! If the mean of canaries is at most that of controls plus `a`, the expected factor is at most 1, whatever the distributions: its
//! logarithm is concave in the two means, is 0 at `(q + a, q)`, and falls from there into the allowed half-plane. So the capital is a
//! supermartingale, and by Ville's inequality it ever exceeds `L` with a probability of at most `1/L`. This is betting on bounded means
//! (Waudby-Smith & Ramdas 2023, "Estimating means of bounded random variables by betting") with the two-sample e-variable of
//! Turner & Grünwald 2023 ("Exact anytime-valid confidence intervals for contingency tables and beyond"). A guess `q` that is wrong,
//! and a mean that moves with the hour of the day for all devices alike, cost power and never validity.
//!
//! The best size is not known beforehand: the capital is split over sizes that halve. What is harmful may begin late: at look `t` a
//! share `1/(t(t+1))` of the capital comes fresh into play, as in the e-detectors of Shin, Ramdas & Rinaldo 2024.

use serde::{Deserialize, Serialize};

use super::reading::real;

/// Sizes of bets: the largest is half of what may be bet at all, each next is half as large.
const SIZES: usize = 8;
/// A guess of nothing at all would put everything on a single failure.
const CONTROL_MIN: f64 = 1e-4;
/// Evidence is shown and compared up to here; beyond it a number says no more.
const LOG_MAX: f64 = 60.0;

/// The scores of one look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    /// Of canaries.
    pub(super) canaries: &'a [f64],
    /// Of controls; none if canaries are compared with a fixed value.
    pub(super) controls: &'a [f64],
    /// What is expected of controls, from what was seen before.
    pub(super) control: f64,
    /// How much worse canaries may be.
    pub(super) allowance: f64,
    /// The largest score.
    pub(super) cap: f64,
}

/// Capital in play, by size of the bet.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Bets {
    looks: u64,
    /// Natural logarithms; empty before the first look.
    log_capital: Vec<f64>,
    peak: f64,
}

impl Bets {
    /// Bets on the scores of one look.
    pub(super) fn place(&mut self, block: &Block<'_>) {
        let control = block.control.max(CONTROL_MIN);
        let canary = control + block.allowance;
        if block.canaries.is_empty() || canary >= block.cap {
            return;
        }
        let ratio = match block.controls.len() {
            0 => 0.0,
            controls => real(block.canaries.len()) / real(controls),
        };
        let size_max = 0.5 / canary.max(ratio * (block.cap - control));
        self.looks += 1;
        self.log_capital.resize(SIZES, f64::NEG_INFINITY);
        let fresh = 1.0 / (real_64(self.looks) * (real_64(self.looks) + 1.0));
        let mut size = size_max;
        for log_capital in &mut self.log_capital {
            let won: f64 = block.canaries.iter().map(|x| (size * (x - canary)).ln_1p()).sum();
            let lost: f64 =
                block.controls.iter().map(|y| (-size * ratio * (y - control)).ln_1p()).sum();
            *log_capital = (log_capital.exp() + fresh).ln() + won + lost;
            *log_capital = log_capital.min(LOG_MAX);
            size /= 2.0;
        }
        self.peak = self.peak.max(self.e_value());
    }

    /// The largest e-value so far.
    pub(super) const fn peak(&self) -> f64 {
        self.peak
    }

    /// What the capital is worth: all bets together, and what has not been put into play.
    fn e_value(&self) -> f64 {
        let in_play: f64 = self.log_capital.iter().map(|log| log.exp()).sum();
        in_play / real(SIZES) + 1.0 / (real_64(self.looks) + 1.0)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of looks; 53 bits are enough")]
const fn real_64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CAP: f64 = 0.25;

    fn block<'a>(canaries: &'a [f64], controls: &'a [f64]) -> Block<'a> {
        Block { canaries, controls, control: 0.01, allowance: 0.005, cap: CAP }
    }

    #[test]
    fn clear_harm_wins_and_none_does_not() {
        let (mut harm, mut none) = (Bets::default(), Bets::default());
        for _ in 0..20 {
            harm.place(&block(&[0.1; 3], &[0.01; 20]));
            none.place(&block(&[0.01; 3], &[0.01; 20]));
        }
        assert!(harm.peak() > 1e4, "{}", harm.peak());
        assert!(none.peak() <= 1.0, "{}", none.peak());
    }

    #[test]
    fn harm_that_begins_late_is_found_soon() {
        let mut bets = Bets::default();
        for _ in 0..2_000 {
            bets.place(&block(&[0.01; 3], &[0.01; 20]));
        }
        let looks = (1..).take(100).find(|_| {
            bets.place(&block(&[0.1; 3], &[0.01; 20]));
            bets.peak() > 1_000.0
        });
        assert!(looks.is_some_and(|looks| looks <= 12), "{looks:?}");
    }

    proptest! {
        /// The expected factor of one look is at most 1 for every pair of two-point distributions on the edge of what is allowed,
        /// which are the hardest: exact, by summing over all outcomes.
        #[test]
        fn no_allowed_pair_of_means_has_a_favourable_bet(
            mean in 0.0..0.2_f64,
            guess in 0.0..0.2_f64,
            canaries in 1_usize..5,
            controls in 3_usize..7,
        ) {
            let allowance = 0.02;
            let (p, q) = ((mean + allowance) / CAP, mean / CAP);
            let mut expected = 0.0;
            for outcome in 0_u32..1 << (canaries + controls) {
                let score = |bit: usize| if outcome >> bit & 1 == 1 { CAP } else { 0.0 };
                let chance = |bit: usize, p: f64| if outcome >> bit & 1 == 1 { p } else { 1.0 - p };
                let x: Vec<_> = (0..canaries).map(score).collect();
                let y: Vec<_> = (canaries..canaries + controls).map(score).collect();
                let of_canaries: f64 = (0..canaries).map(|bit| chance(bit, p)).product();
                let of_controls: f64 =
                    (canaries..canaries + controls).map(|bit| chance(bit, q)).product();
                let mut bets = Bets::default();
                bets.place(&Block { canaries: &x, controls: &y, control: guess, allowance, cap: CAP });
                expected += of_canaries * of_controls * bets.peak();
            }
            prop_assert!(expected <= 1.0 + 1e-9, "{expected}");
        }
    }
}
