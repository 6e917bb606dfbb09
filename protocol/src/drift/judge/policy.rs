//! What counts as drift. Everything here can be changed on the server without touching a device.

use serde::{Deserialize, Serialize};

/// Thresholds. [`Policy::default`] has those that are right unless something speaks against them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// The operator's budget, at most this many windows in a thousand in which anything at all is wrongly suspected. Default 1.
    pub false_alarms_per_1000_windows: f64,
    /// A population stability index, above what chance brings it to, from which on a difference counts. Default 0.1, customarily "worth
    /// a look".
    pub psi_open: f64,
    /// The index below which drift is over. Default 0.05.
    pub psi_close: f64,
    /// A difference of ranks from which on it counts. Default 0.06, a shift by a tenth of a standard deviation.
    pub rank_open: f64,
    /// The difference below which it is over. Default 0.03.
    pub rank_close: f64,
    /// A difference between shares, up to a cut or of a category, from which on it counts. Default 0.03.
    pub gap_open: f64,
    /// The difference below which it is over. Default 0.015.
    pub gap_close: f64,
    /// A change of concordance of two features from which on it counts. Default 0.1.
    pub concordance_open: f64,
    /// The change below which it is over. Default 0.05.
    pub concordance_close: f64,
    /// A rise of the share of faulty, or of out-of-range, values from which on it counts. Default 0.004.
    pub share_open: f64,
    /// The rise below which it is over. Default 0.002.
    pub share_close: f64,
    /// Rows that windows of several devices are gathered for. Default 200.
    pub rows_min: u64,
    /// Rows below which nothing is said. Default 30.
    pub rows_judged_min: u64,
    /// Windows in a row that must differ until suspicion becomes drift. Default 2: one bad window is an incident, not drift.
    pub windows_in_a_row: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            false_alarms_per_1000_windows: 1.0,
            psi_open: 0.1,
            psi_close: 0.05,
            rank_open: 0.06,
            rank_close: 0.03,
            gap_open: 0.03,
            gap_close: 0.015,
            concordance_open: 0.1,
            concordance_close: 0.05,
            share_open: 0.004,
            share_close: 0.002,
            rows_min: 200,
            rows_judged_min: 30,
            windows_in_a_row: 2,
        }
    }
}

/// Why a policy makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("drift policy: {rule}")]
pub struct InvalidPolicy {
    rule: &'static str,
}

impl Policy {
    /// Checks what an operator has given.
    pub fn check(&self) -> Result<(), InvalidPolicy> {
        let is_pair = |close: f64, open: f64| open.is_finite() && 0.0 < close && close <= open;
        let rule = if !(0.0..=1000.0).contains(&self.false_alarms_per_1000_windows) {
            "`false_alarms_per_1000_windows` is not between 0 and 1000"
        } else if !is_pair(self.psi_close, self.psi_open) {
            "`psi_close` is not above 0 and at most `psi_open`"
        } else if !is_pair(self.share_close, self.share_open) {
            "`share_close` is not above 0 and at most `share_open`"
        } else if !is_pair(self.rank_close, self.rank_open) {
            "`rank_close` is not above 0 and at most `rank_open`"
        } else if !is_pair(self.gap_close, self.gap_open) {
            "`gap_close` is not above 0 and at most `gap_open`"
        } else if !is_pair(self.concordance_close, self.concordance_open) {
            "`concordance_close` is not above 0 and at most `concordance_open`"
        } else if self.rows_min == 0 || self.rows_judged_min == 0 || self.windows_in_a_row == 0 {
            "`rows_min`, `rows_judged_min` and `windows_in_a_row` must be at least 1"
        } else {
            return Ok(());
        };
        Err(InvalidPolicy { rule })
    }

    /// The significance level for everything that is tested in one window together.
    ///
    /// A fifth of the budget: far out, p-values of counts are not exact, and what opened wrongly is open for more than one window.
    pub fn alpha(&self) -> f64 {
        self.false_alarms_per_1000_windows / 5_000.0
    }

    /// The level above which a difference that was drift is none any more.
    pub fn alpha_close(&self) -> f64 {
        (self.alpha() * 100.0).min(0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_a_valid_policy() {
        assert_eq!(Policy::default().check(), Ok(()));
        assert!((Policy::default().alpha() - 0.0002).abs() < 1e-12);
    }

    #[test]
    fn nonsense_is_refused() {
        let nonsense = [
            Policy { psi_close: 0.3, ..Policy::default() },
            Policy { psi_open: f64::NAN, ..Policy::default() },
            Policy { share_close: 0.0, ..Policy::default() },
            Policy { false_alarms_per_1000_windows: -1.0, ..Policy::default() },
            Policy { windows_in_a_row: 0, ..Policy::default() },
        ];
        for policy in nonsense {
            assert!(policy.check().is_err(), "{policy:?}");
        }
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        assert!(serde_json::from_str::<Policy>("{\"psi_opn\": 0.3}").is_err());
        let policy: Policy = serde_json::from_str("{\"psi_open\": 0.3}").unwrap();
        assert_eq!(policy, Policy { psi_open: 0.3, ..Policy::default() });
    }
}
