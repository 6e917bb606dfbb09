//! How much people are asked to label.

use serde::Deserialize;

use super::ConfigError;

/// A person labels some thousands in a day at the most; a fleet has some people.
const LABELS_A_DAY_MAX: u32 = 100_000;

/// What people give of their time.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReviewBudget {
    /// Labels that all people together give in a day (UTC), for all models.
    pub labels_a_day: u32,
}

impl Default for ReviewBudget {
    fn default() -> Self {
        Self { labels_a_day: 200 }
    }
}

impl ReviewBudget {
    pub(super) fn check(self) -> Result<(), ConfigError> {
        if (1..=LABELS_A_DAY_MAX).contains(&self.labels_a_day) {
            return Ok(());
        }
        let what =
            format!("review.labels_a_day is {}, not 1 to {LABELS_A_DAY_MAX}", self.labels_a_day);
        Err(ConfigError::Rule(what, "leave it out for 200"))
    }
}
