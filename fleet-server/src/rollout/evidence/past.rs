//! What canaries did before they were told: what they are compared with where everybody has been told.
//!
//! Their own past has no spread between devices in it, but another time: what comes with the hour is not told from what comes with
//! the image. So the mean is taken over a day, and its own uncertainty is allowed for.

use std::collections::BTreeMap;

use sealift_protocol::id::DeviceId;
use serde::{Deserialize, Serialize};

use super::reading::{self, Column, Columns, Reading, real};
use super::spread::{Known, student_quantile};

/// Readings before it means anything.
const READINGS_MIN: usize = 5;

/// Of each column, what was usual.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Past {
    columns: BTreeMap<Column, Usual>,
    pub(super) p95_us: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Usual {
    readings: usize,
    mean: f64,
    deviation: f64,
}

impl Past {
    /// What windows of the past say, each a reading of its device.
    pub fn of(windows: &[(DeviceId, Reading)]) -> Self {
        let p95_us = reading::p95_us(windows.iter().map(|(_, reading)| reading));
        let mut scores: BTreeMap<Column, Vec<f64>> = BTreeMap::new();
        for (device, reading) in windows {
            let one = BTreeMap::from([(device.clone(), reading.clone())]);
            for (_, column, score) in Columns::of(&one, p95_us, super::CLASSES_MAX).iter() {
                scores.entry(column).or_default().push(score.min(column.metric().cap()));
            }
        }
        let usual = |(column, scores): (Column, Vec<f64>)| {
            let Known { devices: readings, mean, deviation } = Known::of(&scores)?;
            (readings >= READINGS_MIN).then_some((column, Usual { readings, mean, deviation }))
        };
        Self { columns: scores.into_iter().filter_map(usual).collect(), p95_us }
    }

    pub(super) fn mean(&self, column: Column) -> Option<f64> {
        self.columns.get(&column).map(|usual| usual.mean)
    }

    /// The mean, and how far it may be off.
    pub(super) fn expected(&self, column: Column, falls: bool, risk: f64) -> Option<(f64, f64)> {
        let Usual { readings, mean, deviation } = *self.columns.get(&column)?;
        let freedom = u32::try_from(readings - 1).unwrap_or(u32::MAX);
        let slack = student_quantile(freedom, risk) * deviation / real(readings).sqrt();
        Some((if falls { 1.0 - mean } else { mean }, slack))
    }
}
