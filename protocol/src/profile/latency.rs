//! Latency in buckets that grow by about 2 %, so that every quantile is right to 1 % (`DDSketch`, Masson, Rim and Lee, VLDB 2019).
//!
//! The paper's sketch grows as needed and collapses its lowest buckets. Ours covers 1 µs to 100 s with a fixed set of buckets, and
//! what lies outside is counted at its end: merging is adding, and the size has a bound without a rule for collapsing.

use serde::{Deserialize, Serialize};

use super::InvalidProfile;

/// Of every quantile between 1 µs and 100 s.
pub const RELATIVE_ACCURACY: f64 = 0.01;

/// Bucket `i` ends at `GROWTH^i` µs.
const GROWTH: f64 = (1.0 + RELATIVE_ACCURACY) / (1.0 - RELATIVE_ACCURACY);

/// `GROWTH^922` is the first power beyond 100 s. A window of 65,000 rows takes at most 2,100 bytes: 923 counts of one byte and the
/// three-byte ones that so many rows can fill.
pub const BUCKETS: usize = 923;

/// Upper ends of the buckets, made by multiplication alone, which every processor rounds alike (a logarithm is not so lucky).
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which checks it")]
const ENDS_US: [f64; BUCKETS] = {
    let mut ends = [1.0; BUCKETS];
    let mut bucket = 1;
    while bucket < BUCKETS {
        ends[bucket] = ends[bucket - 1] * GROWTH;
        bucket += 1;
    }
    ends
};

/// Counts of latencies. Merging is exact, and so is the number of values; quantiles are right to 1 %.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatencySketch {
    pub(super) counts: Vec<u64>,
}

impl Default for LatencySketch {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS] }
    }
}

impl LatencySketch {
    /// Counts one latency.
    pub fn take(&mut self, latency_us: u64) {
        let latency_us = micros_to_f64(latency_us);
        let bucket = ENDS_US.partition_point(|&end_us| end_us < latency_us).min(BUCKETS - 1);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
    }

    /// Adds the latencies that `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        super::add_counts(&mut self.counts, &other.counts);
    }

    /// How many latencies were counted.
    pub fn count(&self) -> u64 {
        super::baseline::total(&self.counts)
    }

    /// How many latencies were above a threshold, to the nearest bucket.
    pub fn above(&self, threshold_us: f64) -> u64 {
        let bucket = ENDS_US.partition_point(|&end_us| end_us < threshold_us);
        super::baseline::total(self.counts.get(bucket + 1..).unwrap_or_default())
    }

    /// The latency that a share `quantile` (0 to 1) of the calls did not exceed, in µs; nothing if nothing was counted.
    pub fn quantile_us(&self, quantile: f64) -> Option<f64> {
        let last = self.count().checked_sub(1)?;
        let rank = quantile.clamp(0.0, 1.0) * micros_to_f64(last);
        let mut below = 0;
        let bucket = self.counts.iter().position(|count| {
            below += count;
            micros_to_f64(below) > rank
        })?;
        // The point of the bucket that is equally far, relatively, from both of its ends.
        ENDS_US.get(bucket).map(|end_us| end_us * 2.0 / (1.0 + GROWTH))
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "2^53 µs are 285 years, and so many calls 28,000 years"
)]
fn micros_to_f64(count: u64) -> f64 {
    count as f64
}

/// Buckets from the first to the last that is not empty.
#[derive(Serialize, Deserialize, Default)]
pub(super) struct LatencyWire {
    first: u16,
    counts: Vec<u64>,
}

impl From<&LatencySketch> for LatencyWire {
    fn from(sketch: &LatencySketch) -> Self {
        let is_used = |count: &u64| *count > 0;
        let first = sketch.counts.iter().position(is_used).unwrap_or(0);
        let end = sketch.counts.iter().rposition(is_used).map_or(first, |last| last + 1);
        let counts = sketch.counts.get(first..end).unwrap_or_default().to_vec();
        Self { first: u16::try_from(first).unwrap_or(0), counts }
    }
}

impl TryFrom<LatencyWire> for LatencySketch {
    type Error = InvalidProfile;

    fn try_from(wire: LatencyWire) -> Result<Self, InvalidProfile> {
        let mut sketch = Self::default();
        let first = usize::from(wire.first);
        if first + wire.counts.len() > BUCKETS {
            return Err(InvalidProfile::Length { what: "latency buckets", max: BUCKETS });
        }
        super::add_counts(sketch.counts.get_mut(first..).unwrap_or_default(), &wire.counts);
        Ok(sketch)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_buckets_cover_a_microsecond_to_a_hundred_seconds() {
        const { assert!(ENDS_US[BUCKETS - 1] >= 1e8 && ENDS_US[BUCKETS - 2] < 1e8) };
        let mut sketch = LatencySketch::default();
        sketch.take(0);
        sketch.take(u64::MAX);
        assert_eq!(sketch.count(), 2);
    }

    #[test]
    fn a_full_window_takes_at_most_2100_bytes() {
        // The worst that 65,000 rows can do: a two-byte count everywhere, three-byte ones as far as rows last.
        let mut counts = vec![24; BUCKETS];
        let mut rest: u64 = 65_000 - 24 * 923;
        for count in &mut counts {
            let more = rest.min(256 - 24);
            *count += more;
            rest -= more;
        }
        let wire = LatencyWire::from(&LatencySketch { counts });
        let bytes = crate::codec::encode(&wire).unwrap().len();
        assert!((1_900..=2_100).contains(&bytes), "{bytes}");
    }

    #[test]
    fn an_empty_sketch_has_no_quantile() {
        assert_eq!(LatencySketch::default().quantile_us(0.5), None);
    }

    proptest! {
        #[test]
        fn quantiles_are_right_to_one_per_cent(
            mut values in prop::collection::vec(1_u64..100_000_000, 1..200),
            quantile in 0.0..=1.0_f64,
        ) {
            let mut sketch = LatencySketch::default();
            for value in &values {
                sketch.take(*value);
            }
            values.sort_unstable();

            let found = sketch.quantile_us(quantile).unwrap();

            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank below 200")]
            let rank = (quantile * micros_to_f64(values.len() as u64 - 1)).floor() as usize;
            let exact = micros_to_f64(values[rank]);
            prop_assert!((found / exact - 1.0).abs() <= 0.010_001, "{found} for {exact}");
        }
    }
}
