//! For how long the server keeps what it remembers.

use serde::Deserialize;

use super::ConfigError;

/// Longest that anything may be kept: ten years.
const DAYS_MAX: u32 = 3_650;
/// A habit is known after a week at the earliest, and needs a few to be one.
const HABITS_DAYS_MIN: u32 = 14;
/// Windows may come two days late, and then still go into their hours.
const HOURS_DAYS_MIN: u32 = 2;
const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// For how long what was remembered is kept.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// What was foreseen of a rollout, and what came: so many days after its end.
    pub forecast_days: u32,
    /// At which hours a device is connected and how fast it downloads: so many days after it was heard last.
    pub habits_days: u32,
    /// What models saw by the hour: after so many days hours become days.
    pub hours_days: u32,
    /// What models saw by the day.
    pub days_days: u32,
    /// MiB that hours and days together may take in the database; beyond that the oldest go before their time.
    pub history_mb: u32,
    /// MiB that predictions kept for people to look at may take in the database; beyond that the oldest go before their time. For how many
    /// days they stay is said where keeping them is switched on.
    pub samples_mb: u32,
    /// Labels of inferences that no device has kept wait for so many days.
    pub labels_days: u32,
    /// Predictions of batches that devices have brought up are kept for so many days.
    pub batches_days: u32,
    /// MiB that such predictions of one team's models may take; more are refused.
    pub batch_team_mb: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            forecast_days: 365,
            habits_days: 180,
            hours_days: 14,
            days_days: 400,
            history_mb: 4_096,
            samples_mb: 1_024,
            labels_days: 90,
            batches_days: 30,
            batch_team_mb: 10_240,
        }
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
        if !(HOURS_DAYS_MIN..=self.days_days).contains(&self.hours_days) {
            return refused(format!(
                "retention.hours_days is {}, not {HOURS_DAYS_MIN} to days_days, {}",
                self.hours_days, self.days_days
            ));
        }
        if self.days_days > DAYS_MAX {
            return refused(format!("retention.days_days is {}, above {DAYS_MAX}", self.days_days));
        }
        if self.history_mb == 0 || self.samples_mb == 0 {
            return refused("retention.history_mb or retention.samples_mb is 0".to_owned());
        }
        if !(1..=DAYS_MAX).contains(&self.labels_days) {
            return refused(format!(
                "retention.labels_days is {}, not 1 to {DAYS_MAX}",
                self.labels_days
            ));
        }
        if !(1..=DAYS_MAX).contains(&self.batches_days) || self.batch_team_mb == 0 {
            return refused(format!(
                "retention.batches_days is {}, not 1 to {DAYS_MAX}, or retention.batch_team_mb is 0",
                self.batches_days
            ));
        }
        Ok(())
    }

    pub(crate) fn batches_ms(self) -> i64 {
        i64::from(self.batches_days) * DAY_MS
    }

    pub(crate) fn batch_team_bytes(self) -> u64 {
        u64::from(self.batch_team_mb) << 20
    }

    pub(crate) fn hours_ms(self) -> i64 {
        i64::from(self.hours_days) * DAY_MS
    }

    pub(crate) fn days_ms(self) -> i64 {
        i64::from(self.days_days) * DAY_MS
    }

    pub(crate) fn labels_ms(self) -> i64 {
        i64::from(self.labels_days) * DAY_MS
    }

    pub(crate) fn forecast_ms(self) -> i64 {
        i64::from(self.forecast_days) * DAY_MS
    }

    pub(crate) fn habits_ms(self) -> i64 {
        i64::from(self.habits_days) * DAY_MS
    }
}
