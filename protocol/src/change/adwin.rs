//! Adaptive windowing (Bifet and Gavaldà, "Learning from time-changing data with adaptive windowing", SDM 2007).
//!
//! The window is an exponential histogram: at most [`BUCKETS`] buckets of one value, as many of two, of four and so on, so that a window
//! of billions takes a few kilobytes. Wherever the means of an older and a newer part differ by more than chance allows, the oldest
//! values go. How often it looks, and the least it judges by, are those of the implementations that people know (MOA, river).

/// Buckets of one size, before the two oldest become one of the next size.
const BUCKETS: usize = 5;

/// Sizes: 2^32 values are one every 10 ms for more than a year. Beyond, the oldest are forgotten.
const ROWS: usize = 32;

/// Cuts are looked for at every so many values.
const CLOCK: u64 = 32;

/// A window is not cut before it has more values than this,
const WIDTH_MIN: u64 = 10;

/// nor into parts of fewer than this.
const PART_MIN: u64 = 5;

/// A detector of changes of the mean of values between 0 and 1.
#[derive(Debug, Clone)]
pub struct Adwin {
    /// How likely a steady stream is called changed at one look.
    delta: f64,
    rows: Box<[Row; ROWS]>,
    window: Bucket,
    count: u64,
    seen: u64,
}

/// A change of the mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shift {
    /// The mean of the older values.
    pub before: f64,
    /// The mean of the newer ones.
    pub after: f64,
}

/// Sum of values, and of the squares of their distances from their mean.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    sum: f64,
    spread: f64,
}

/// Buckets of one size, oldest first; one more than stays.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    buckets: [Bucket; BUCKETS + 1],
    len: usize,
}

impl Adwin {
    /// A detector that calls a steady stream changed with a probability of about `delta` at each look; 0.002 is usual.
    pub fn new(delta: f64) -> Self {
        let rows = Box::new([Row::default(); ROWS]);
        Self { delta, rows, window: Bucket::default(), count: 0, seen: 0 }
    }

    /// Takes a value. Where the mean has changed, the values from before are forgotten.
    pub fn take(&mut self, value: f64) -> Option<Shift> {
        self.insert(value);
        self.seen += 1;
        if !self.seen.is_multiple_of(CLOCK) || self.count <= WIDTH_MIN {
            return None;
        }
        let first = self.cut()?;
        self.forget_oldest();
        // One old bucket may hide that the next is old, too.
        while self.cut().is_some() {
            self.forget_oldest();
        }
        Some(first)
    }

    /// How many values the window has.
    pub const fn width(&self) -> u64 {
        self.count
    }

    /// The mean of the window; 0 for none.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.window.sum / float(self.count) }
    }

    fn insert(&mut self, value: f64) {
        let one = Bucket { sum: value, spread: 0.0 };
        self.window = joined((self.window, self.count), (one, 1));
        self.count += 1;
        let (mut next, mut size) = (Some(one), 1);
        for row in self.rows.iter_mut() {
            let Some(bucket) = next.take() else { return };
            next = row.push(bucket, size);
            size *= 2;
        }
        if let Some(lost) = next {
            self.forget(lost, size);
        }
    }

    /// The first place, from the oldest value on, at which the two parts differ by more than chance allows.
    fn cut(&self) -> Option<Shift> {
        let (mut old, mut old_count) = (0.0, 0);
        for (bucket, size) in self.oldest_first() {
            (old, old_count) = (old + bucket.sum, old_count + size);
            let new_count = self.count.saturating_sub(old_count);
            if old_count < PART_MIN || new_count < PART_MIN {
                continue;
            }
            let before = old / float(old_count);
            let after = (self.window.sum - old) / float(new_count);
            if (before - after).abs() > self.bound(old_count, new_count) {
                return Some(Shift { before, after });
            }
        }
        None
    }

    /// Section 4 of the paper, its bound with the variance: what two means may differ by.
    fn bound(&self, old_count: u64, new_count: u64) -> f64 {
        let part = |count: u64| 1.0 / float(count - PART_MIN + 1);
        let harmonic = part(old_count) + part(new_count);
        let variance = self.window.spread / float(self.count);
        let confidence = (2.0 * float(self.count).ln() / self.delta).ln();
        (2.0 * harmonic * variance * confidence).sqrt() + 2.0 / 3.0 * confidence * harmonic
    }

    fn oldest_first(&self) -> impl Iterator<Item = (Bucket, u64)> {
        let rows = self.rows.iter().enumerate().rev();
        rows.flat_map(|(power, row)| row.iter().map(move |bucket| (bucket, 1_u64 << power)))
    }

    fn forget_oldest(&mut self) {
        let oldest = self.rows.iter_mut().enumerate().rev().find(|(_, row)| row.len > 0);
        if let Some((power, row)) = oldest {
            let bucket = row.pop_oldest();
            self.forget(bucket, 1 << power);
        }
    }

    /// Takes a part off the sums of the window: joining, undone.
    fn forget(&mut self, bucket: Bucket, size: u64) {
        self.count = self.count.saturating_sub(size);
        if self.count == 0 {
            self.window = Bucket::default();
            return;
        }
        let rest = self.window.sum - bucket.sum;
        let gap = bucket.sum / float(size) - rest / float(self.count);
        let harmonic = float(size) * float(self.count) / float(size + self.count);
        let spread = self.window.spread - bucket.spread - harmonic * gap * gap;
        self.window = Bucket { sum: rest, spread: spread.max(0.0) };
    }
}

impl Row {
    fn iter(&self) -> impl Iterator<Item = Bucket> {
        self.buckets.iter().take(self.len).copied()
    }

    /// Adds the newest. Where that is one too many, the two oldest are joined and handed on.
    fn push(&mut self, bucket: Bucket, size: u64) -> Option<Bucket> {
        if let Some(free) = self.buckets.get_mut(self.len) {
            *free = bucket;
            self.len += 1;
        }
        if self.len <= BUCKETS {
            return None;
        }
        let (oldest, next) = (self.pop_oldest(), self.pop_oldest());
        Some(joined((oldest, size), (next, size)))
    }

    fn pop_oldest(&mut self) -> Bucket {
        self.buckets.rotate_left(1);
        self.len = self.len.saturating_sub(1);
        self.buckets.last().copied().unwrap_or_default()
    }
}

/// The sums of two parts together (Chan, Golub and others, 1983).
fn joined((first, first_count): (Bucket, u64), (second, second_count): (Bucket, u64)) -> Bucket {
    if first_count == 0 {
        return second;
    }
    let (first_float, second_float) = (float(first_count), float(second_count));
    let gap = first.sum / first_float - second.sum / second_float;
    let between = first_float * second_float * gap * gap / (first_float + second_float);
    let (sum, spread) = (first.sum + second.sum, first.spread + second.spread + between);
    Bucket { sum, spread }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Values of a fixed sequence between 0 and 1, around `mean`.
    fn noisy(mean: f64, count: u32) -> impl Iterator<Item = f64> {
        let noise = |number: u32| f64::from(number.wrapping_mul(2_654_435_761) >> 16) / 65_536.0;
        (0..count).map(move |number| (mean + 0.1 * (noise(number) - 0.5)).clamp(0.0, 1.0))
    }

    #[test]
    fn a_steady_stream_is_kept_whole_in_a_few_kilobytes() {
        let mut adwin = Adwin::new(0.002);
        assert_eq!(noisy(0.3, 200_000).filter_map(|value| adwin.take(value)).count(), 0);
        assert_eq!(adwin.width(), 200_000);
        assert!((adwin.mean() - 0.3).abs() < 0.001, "{}", adwin.mean());
        assert!(size_of::<[Row; ROWS]>() < 4 << 10);
    }

    #[test]
    fn a_jump_is_found_within_a_look_or_two_and_what_was_before_is_forgotten() {
        let mut adwin = Adwin::new(0.002);
        noisy(0.1, 5_000).for_each(|value| assert_eq!(adwin.take(value), None));

        let found = noisy(0.5, 500).position(|value| {
            let Some(shift) = adwin.take(value) else { return false };
            assert!((shift.before - 0.1).abs() < 0.01 && shift.after > 0.12, "{shift:?}");
            true
        });

        assert!(found.is_some_and(|at| at <= 64), "{found:?}");
        for value in noisy(0.5, 500) {
            adwin.take(value);
        }
        assert!(adwin.width() < 1_200 && (adwin.mean() - 0.5).abs() < 0.02, "{adwin:?}");
    }

    #[test]
    fn a_stream_that_never_ends_forgets_its_oldest_values() {
        let mut adwin = Adwin::new(0.002);
        let full = [Bucket { sum: 0.0, spread: 0.0 }; BUCKETS + 1];
        *adwin.rows = [Row { buckets: full, len: BUCKETS }; ROWS];
        adwin.count = adwin.oldest_first().map(|(_, size)| size).sum();
        let before = adwin.count;
        assert_eq!(adwin.take(0.0), None);
        assert!(adwin.count < before, "the oldest two buckets are gone");
        assert_eq!(adwin.count, adwin.oldest_first().map(|(_, size)| size).sum::<u64>());
    }

    proptest! {
        /// Its sums are those of the values that it has kept, whatever came.
        #[test]
        fn the_window_is_the_newest_values(values in prop::collection::vec(0.0..1.0_f64, 0..3_000), flip in 0_usize..3_000) {
            let mut adwin = Adwin::new(0.05);
            let values: Vec<_> =
                values.iter().enumerate().map(|(at, value)| if at < flip { value * 0.2 } else { *value }).collect();
            for value in &values {
                adwin.take(*value);
            }
            let width = usize::try_from(adwin.width()).unwrap();
            let newest = &values[values.len() - width..];
            let mean = newest.iter().sum::<f64>() / float(adwin.width().max(1));
            let spread: f64 = newest.iter().map(|value| (value - mean).powi(2)).sum();
            prop_assert!((adwin.mean() - mean).abs() < 1e-9);
            prop_assert!((adwin.window.spread - spread).abs() < 1e-6 * spread.max(1.0));
        }
    }
}
