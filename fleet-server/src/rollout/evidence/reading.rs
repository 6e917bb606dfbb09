//! What one device did in a span of time, and the scores that come of it.

use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::id::DeviceId;
use sealift_protocol::profile::{CONFIDENCE_BINS, LatencySketch, Profile};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Metric;

/// Requests below which a device says nothing in a look: half of one request is not a share.
pub(super) const REQUESTS_MIN: u64 = 5;

/// What one device did between two looks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    answered: u64,
    failed: u64,
    latency: LatencySketch,
    /// Predictions with a confidence, and the sum of their confidences.
    confident: (u64, f64),
    classes: Vec<u64>,
    /// Input values, and those of them that cannot be used.
    inputs: (u64, u64),
}

impl Reading {
    /// Requests answered and failed, where nothing else is known.
    pub fn counted(answered: u64, failed: u64) -> Self {
        Self { answered, failed, ..Self::default() }
    }

    /// Adds a window of a device.
    pub fn add_window(&mut self, profile: &Profile, failed: u64) {
        self.answered = self.answered.saturating_add(profile.latency().count());
        self.failed = self.failed.saturating_add(failed);
        self.latency.merge(profile.latency());
        for (bin, &count) in profile.confidence().iter().enumerate() {
            let middle = (real(bin) + 0.5) / real(CONFIDENCE_BINS);
            self.add_confidence(middle, count);
        }
        self.add_classes(profile.classes());
        let numeric = profile.numeric().iter().map(|counts| (counts.n(), counts.faulty()));
        let categorical = profile.categorical().iter().map(|counts| {
            let faulty = counts.null.saturating_add(counts.wrong_type);
            (counts.n(), faulty.saturating_add(counts.unseen))
        });
        let misshapen = (0, profile.misshapen());
        for (usable, faulty) in numeric.chain(categorical).chain([misshapen]) {
            self.inputs.0 = self.inputs.0.saturating_add(usable).saturating_add(faulty);
            self.inputs.1 = self.inputs.1.saturating_add(faulty);
        }
    }

    /// Adds one answer with its latency.
    pub fn add_answer(&mut self, latency_us: u64) {
        self.answered += 1;
        self.latency.take(latency_us);
    }

    /// Adds predictions of one confidence.
    pub fn add_confidence(&mut self, confidence: f64, predictions: u64) {
        self.confident.0 = self.confident.0.saturating_add(predictions);
        self.confident.1 += confidence * real_64(predictions);
    }

    /// Adds predictions by class.
    pub fn add_classes(&mut self, predictions: &[u64]) {
        if self.classes.len() < predictions.len() {
            self.classes.resize(predictions.len(), 0);
        }
        for (mine, more) in self.classes.iter_mut().zip(predictions) {
            *mine = mine.saturating_add(*more);
        }
    }

    /// Adds failed requests.
    pub const fn add_failed(&mut self, failed: u64) {
        self.failed = self.failed.saturating_add(failed);
    }

    /// Requests, answered or not.
    pub const fn requests(&self) -> u64 {
        self.answered.saturating_add(self.failed)
    }

    /// Requests that failed.
    pub const fn failed(&self) -> u64 {
        self.failed
    }

    fn score(&self, column: Column, threshold_us: Option<f64>) -> Option<f64> {
        match column {
            Column::Errors => share(self.failed, self.requests()),
            Column::Latency => share(self.latency.above(threshold_us?), self.latency.count()),
            Column::Doubt => {
                let (predictions, sum) = self.confident;
                (predictions >= REQUESTS_MIN).then(|| 1.0 - sum / real_64(predictions))
            }
            Column::Inputs => share(self.inputs.1, self.inputs.0),
            Column::Class(class) => {
                share(*self.classes.get(usize::from(class))?, self.classes.iter().sum())
            }
        }
    }
}

/// What is scored; written as one word, so that it can name an entry of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Column {
    /// Share of failed requests.
    Errors,
    /// Share of requests above the latency that one in twenty of controls exceeds.
    Latency,
    /// One less mean confidence.
    Doubt,
    /// Share of unusable input values.
    Inputs,
    /// Share of a class among predictions.
    Class(u16),
}

impl Column {
    pub(super) const fn metric(self) -> Metric {
        match self {
            Self::Errors => Metric::Errors,
            Self::Latency => Metric::Latency,
            Self::Doubt => Metric::Confidence,
            Self::Inputs => Metric::Inputs,
            Self::Class(_) => Metric::Classes,
        }
    }

    pub(super) const fn class(self) -> Option<u16> {
        match self {
            Self::Class(class) => Some(class),
            Self::Errors | Self::Latency | Self::Doubt | Self::Inputs => None,
        }
    }

    /// As a number: classes come after everything else.
    const fn number(self) -> u16 {
        match self {
            Self::Errors => 0,
            Self::Latency => 1,
            Self::Doubt => 2,
            Self::Inputs => 3,
            Self::Class(class) => class.saturating_add(4),
        }
    }
}

impl Serialize for Column {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.number().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Column {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match u16::deserialize(deserializer)? {
            0 => Self::Errors,
            1 => Self::Latency,
            2 => Self::Doubt,
            3 => Self::Inputs,
            number => {
                Self::Class(number.checked_sub(4).ok_or_else(|| D::Error::custom("no class"))?)
            }
        })
    }
}

/// The scores of a look, by column and device.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Columns(BTreeMap<Column, Vec<(DeviceId, f64)>>);

impl Columns {
    pub(super) fn of(
        readings: &BTreeMap<DeviceId, Reading>,
        threshold_us: Option<f64>,
        classes_max: usize,
    ) -> Self {
        let mut columns: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (device, reading) in readings {
            let classes = u16::try_from(reading.classes.len().min(classes_max)).unwrap_or(u16::MAX);
            let plain = [Column::Errors, Column::Latency, Column::Doubt, Column::Inputs];
            for column in plain.into_iter().chain((0..classes).map(Column::Class)) {
                if let Some(score) = reading.score(column, threshold_us) {
                    columns.entry(column).or_default().push((device.clone(), score));
                }
            }
        }
        Self(columns)
    }

    pub(super) fn names(&self) -> BTreeSet<Column> {
        self.0.keys().copied().collect()
    }

    /// The scores of a column, at most `cap`.
    pub(super) fn scores(&self, column: Column, falls: bool, cap: f64) -> Vec<f64> {
        let scores = self.0.get(&column).into_iter().flatten();
        scores.map(|&(_, score)| if falls { 1.0 - score } else { score.min(cap) }).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&DeviceId, Column, f64)> {
        self.0.iter().flat_map(|(&column, scores)| {
            scores.iter().map(move |(device, score)| (device, column, *score))
        })
    }
}

/// The latency that one request in twenty exceeds.
pub(super) fn p95_us<'a>(readings: impl Iterator<Item = &'a Reading>) -> Option<f64> {
    let mut all = LatencySketch::default();
    readings.for_each(|reading| all.merge(&reading.latency));
    all.quantile_us(0.95)
}

fn share(part: u64, all: u64) -> Option<f64> {
    (all >= REQUESTS_MIN).then(|| real_64(part) / real_64(all))
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests; 53 bits are enough")]
const fn real_64(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts of devices; 53 bits are enough")]
pub(super) const fn real(count: usize) -> f64 {
    count as f64
}
