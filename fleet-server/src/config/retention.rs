//! For how long the server keeps what it remembers for later rollouts.

use serde::Deserialize;

use super::ConfigError;

/// Longest that anything may be kept: ten years.
const DAYS_MAX: u32 = 3_650;
/// A habit is known after a week at the earliest, and needs a few to be one.
const HABITS_DAYS_MIN: u32 = 14;
const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// For how long what was remembered is kept.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// What was foreseen of a rollout, and what came: so many days after its end.
    pub forecast_days: u32,
    /// At which hours a device is connected and how fast it downloads: so many days after it was heard last.
    pub habits_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { forecast_days: 365, habits_days: 180 }
    }
}

impl Retention {
    pub(super) fn check(self) -> Result<(), ConfigError> {
        let help = "leave it out for the default";
        let refused = |what: String| Err(ConfigError::Rule(what, help));
        if !(1..=DAYS_MAX).contains(&self.forecast_days) {
            return refused(format!(
                "retention.forecast_days is {}, not 1 to {DAYS_MAX}",
                self.forecast_days
            ));
        }
        if !(HABITS_DAYS_MIN..=DAYS_MAX).contains(&self.habits_days) {
            return refused(format!(
                "retention.habits_days is {}, not {HABITS_DAYS_MIN} to {DAYS_MAX}",
                self.habits_days
            ));
        }
        Ok(())
    }

    pub(crate) fn forecast_ms(self) -> i64 {
        i64::from(self.forecast_days) * DAY_MS
    }

    pub(crate) fn habits_ms(self) -> i64 {
        i64::from(self.habits_days) * DAY_MS
    }
}
