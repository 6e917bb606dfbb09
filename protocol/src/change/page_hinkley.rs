//! The Page-Hinkley test (Page, "Continuous inspection schemes", Biometrika 1954), with a memory that fades, so that a stream may have
//! been steady for a year before it slides.

/// Before so many values, nothing is said.
const COUNT_MIN: u64 = 30;

/// What remains of the sums at each value.
const MEMORY: f64 = 0.999_9;

/// A detector of slow changes of the mean.
#[derive(Debug, Clone, Copy)]
pub struct PageHinkley {
    /// A change of the mean by less than this is none.
    tolerance: f64,
    /// How far the sum of what goes beyond it may get.
    threshold: f64,
    count: u64,
    mean: f64,
    up: f64,
    up_least: f64,
    down: f64,
    down_most: f64,
}

/// Which way a stream went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slide {
    /// Its mean is higher than it was.
    Up,
    /// Its mean is lower.
    Down,
}

impl PageHinkley {
    /// A detector; 0.005 and 50 are usual.
    pub const fn new(tolerance: f64, threshold: f64) -> Self {
        Self {
            tolerance,
            threshold,
            count: 0,
            mean: 0.0,
            up: 0.0,
            up_least: f64::INFINITY,
            down: 0.0,
            down_most: f64::NEG_INFINITY,
        }
    }

    /// Takes a value. Where the mean has changed, all that was before is forgotten.
    pub fn take(&mut self, value: f64) -> Option<Slide> {
        self.count += 1;
        self.mean += (value - self.mean) / float(self.count);
        let gap = value - self.mean;
        self.up = MEMORY * self.up + gap - self.tolerance;
        self.down = MEMORY * self.down + gap + self.tolerance;
        self.up_least = self.up_least.min(self.up);
        self.down_most = self.down_most.max(self.down);
        if self.count < COUNT_MIN {
            return None;
        }
        let slide = if self.up - self.up_least > self.threshold {
            Slide::Up
        } else if self.down_most - self.down > self.threshold {
            Slide::Down
        } else {
            return None;
        };
        *self = Self::new(self.tolerance, self.threshold);
        Some(slide)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(values: impl Iterator<Item = f64>) -> Vec<(usize, Slide)> {
        let mut test = PageHinkley::new(0.005, 5.0);
        values.enumerate().filter_map(|(at, value)| Some((at, test.take(value)?))).collect()
    }

    #[test]
    fn a_slide_is_found_in_its_direction_and_a_steady_stream_is_not() {
        let wave = |at: u32| f64::from(at % 7) / 70.0;
        assert_eq!(found((0..100_000).map(|at| 0.5 + wave(at))), []);
        for (sign, slide) in [(1.0, Slide::Up), (-1.0, Slide::Down)] {
            let slow =
                |at: u32| 0.5 + wave(at) + sign * f64::from(at.saturating_sub(1_000)) / 10_000.0;
            let found = found((0..3_000).map(slow));
            let first = found.first().copied();
            assert!(
                first.is_some_and(|(at, way)| (1_000..1_500).contains(&at) && way == slide),
                "{found:?}"
            );
        }
    }

    #[test]
    fn after_a_change_it_begins_anew() {
        let steps = (0..2_000).map(|at| if at < 1_000 { 0.1 } else { 0.9 });
        let found = found(steps);
        assert_eq!(found.len(), 1, "{found:?}");
    }
}
