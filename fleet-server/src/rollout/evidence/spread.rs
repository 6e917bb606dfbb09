//! How much devices differ among themselves, which no test may take for an effect of the image.
//!
//! Which devices are canaries is drawn by a hash. Of `n` devices whose own means have the standard deviation `s`, `m` drawn ones are
//! worse than the others by more than `t s √(1/m + 1/n)` with the probability for which `t` is Student's quantile. The means are over
//! all looks so far, so that what is chance within a device wears off and what is a device's own way stays.

use std::collections::BTreeMap;
use std::f64::consts::PI;

use sealift_protocol::id::DeviceId;
use serde::{Deserialize, Serialize};

use super::reading::{Column, Columns, real};

/// Sums of scores by device and column.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Spread(BTreeMap<DeviceId, BTreeMap<Column, Sum>>);

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Sum(u32, f64);

/// How devices are, of one column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Known {
    /// Devices with a score.
    pub(super) devices: usize,
    /// The mean of their means.
    pub(super) mean: f64,
    /// The standard deviation of their means.
    pub(super) deviation: f64,
}

impl Spread {
    /// Adds the scores of one look.
    pub(super) fn take(&mut self, columns: &Columns) {
        for (device, column, score) in columns.iter() {
            let sums = self.0.entry(device.clone()).or_default();
            let sum = sums.entry(column).or_default();
            let capped = score.min(column.metric().cap());
            *sum = Sum(sum.0.saturating_add(1), sum.1 + capped);
        }
    }

    /// Devices with any score.
    pub(super) fn devices(&self) -> u64 {
        u64::try_from(self.0.len()).unwrap_or(u64::MAX)
    }

    /// How devices are; none before any has a score.
    pub(super) fn of(&self, column: Column) -> Option<Known> {
        let means: Vec<_> = self.0.values().filter_map(|sums| sums.get(&column)?.mean()).collect();
        Known::of(&means)
    }
}

impl Known {
    pub(super) fn of(means: &[f64]) -> Option<Self> {
        let devices = means.len();
        if devices == 0 {
            return None;
        }
        let mean = means.iter().sum::<f64>() / real(devices);
        let squares: f64 = means.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (squares / real(devices.saturating_sub(1)).max(1.0)).sqrt();
        Some(Self { devices, mean, deviation })
    }
}

impl Sum {
    fn mean(self) -> Option<f64> {
        (self.0 > 0).then(|| self.1 / f64::from(self.0))
    }
}

/// The value that a Student-distributed one exceeds with probability `tail`, by halving an interval.
pub(super) fn student_quantile(freedom: u32, tail: f64) -> f64 {
    /// Beyond it the normal distribution is close enough, and the sum below long.
    const FREEDOM_MAX: u32 = 200;
    let freedom = freedom.clamp(1, FREEDOM_MAX);
    let (mut low, mut high) = (0.0, 1e6);
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if student_tail(freedom, middle) > tail { low = middle } else { high = middle }
    }
    high
}

/// Abramowitz & Stegun 26.7.3 and 26.7.4: a finite sum, as the degrees of freedom are whole.
fn student_tail(freedom: u32, t: f64) -> f64 {
    let angle = (t / f64::from(freedom).sqrt()).atan();
    let (sin, cos) = angle.sin_cos();
    let is_odd = freedom % 2 == 1;
    let (mut term, mut sum) = if is_odd { (cos, 0.0) } else { (1.0, 0.0) };
    let mut step = u32::from(is_odd);
    while step < freedom.saturating_sub(1) {
        sum += term;
        term *= cos * cos * f64::from(step + 1) / f64::from(step + 2);
        step += 2;
    }
    let within = if is_odd { 2.0 / PI * sin.mul_add(sum, angle) } else { sin * sum };
    (1.0 - within) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn students_quantiles_are_those_of_the_tables() {
        // Fisher & Yates, Statistical Tables, table III.
        for (freedom, tail, expected) in [
            (1, 0.05, 6.314),
            (2, 0.005, 9.925),
            (3, 0.000_5, 12.924),
            (8, 0.01, 2.896),
            (30, 0.025, 2.042),
            (60, 0.000_5, 3.460),
        ] {
            let found = student_quantile(freedom, tail);
            assert!((found - expected).abs() < 0.001, "{freedom} {tail}: {found}");
        }
    }
}
