//! Some answers of one image within one hour of the day, as sums: what is compared, and kept.

use sealift_protocol::id::UnixMillis;
use serde::{Deserialize, Serialize};

/// Requests of a full block: few enough that a slow device has some in an hour, enough that one odd answer does not matter.
const FULL: u32 = 32;

/// An hour's last block counts if it has as many.
const ENOUGH: u32 = 16;

/// Input sizes that are told apart; requests of others have no say about latency.
pub(super) const SIZES_MAX: usize = 16;

/// Classes are counted by their number modulo this, so that a thousand classes take no more room; a class that vanishes shows all the same
/// where its bucket has few others.
pub(crate) const CLASSES: usize = 64;

/// A count and a sum.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Mean {
    pub(super) n: f64,
    sum: f64,
}

/// How long the engine takes by the size of the input: means of the logarithm of microseconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct BySize(Vec<(u8, Mean)>);

/// Sums over a few requests.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(super) hour: usize,
    pub(super) begun: UnixMillis,
    pub(super) requests: u32,
    pub(super) latency: BySize,
    pub(super) confidence: Mean,
    /// Means of input rows: what tells a covered lens from an unsure model.
    pub(super) input: Mean,
    pub(super) classes: [u32; CLASSES],
    pub(super) rows: u32,
}

impl Block {
    pub(crate) fn new(hour: usize, begun: UnixMillis) -> Self {
        Self {
            hour,
            begun,
            requests: 0,
            latency: BySize::default(),
            confidence: Mean::default(),
            input: Mean::default(),
            classes: [0; CLASSES],
            rows: 0,
        }
    }

    /// Counts an answer of which the rows have been counted.
    pub(crate) fn answered(&mut self, input_bytes: u64, engine_us: u64) {
        self.requests += 1;
        self.latency.take(size_of(input_bytes), float(engine_us.max(1)).ln());
    }

    /// Counts a row: the mean of its input, and what the model made of it.
    pub(crate) fn row(&mut self, input: f64, class: Option<usize>, confidence: Option<f32>) {
        if input.is_finite() {
            self.input.take(input);
        }
        if let Some(confidence) = confidence.filter(|confidence| confidence.is_finite()) {
            self.confidence.take(f64::from(confidence));
        }
        if let Some(count) = class.and_then(|class| self.classes.get_mut(class % CLASSES)) {
            *count += 1;
            self.rows += 1;
        }
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.requests >= FULL
    }

    pub(crate) const fn is_of_another_hour(&self, hour: usize) -> bool {
        self.hour != hour
    }

    pub(crate) const fn is_enough(&self) -> bool {
        self.requests >= ENOUGH
    }
}

impl Mean {
    pub(super) fn take(&mut self, value: f64) {
        self.add(Self { n: 1.0, sum: value });
    }

    pub(super) fn add(&mut self, other: Self) {
        self.n += other.n;
        self.sum += other.sum;
    }

    /// Lets what is new count more.
    pub(super) fn fade(&mut self) {
        self.n *= 0.5;
        self.sum *= 0.5;
    }

    pub(super) fn mean(self) -> Option<f64> {
        (self.n > 0.0).then(|| self.sum / self.n)
    }
}

impl BySize {
    fn take(&mut self, size: u8, value: f64) {
        if let Some(mean) = self.entry(size) {
            mean.take(value);
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        for &(size, mean) in &other.0 {
            if let Some(known) = self.entry(size) {
                known.add(mean);
            }
        }
    }

    pub(super) fn fade(&mut self) {
        self.0.iter_mut().for_each(|(_, mean)| mean.fade());
        // A size that was not seen for a week makes room for another.
        self.0.retain(|(_, mean)| mean.n >= 0.1);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u8, Mean)> {
        self.0.iter().copied()
    }

    pub(super) fn get(&self, size: u8) -> Mean {
        self.0.iter().find(|(known, _)| *known == size).map(|&(_, mean)| mean).unwrap_or_default()
    }

    pub(super) fn is_bounded(&self) -> bool {
        self.0.len() <= SIZES_MAX
    }

    fn entry(&mut self, size: u8) -> Option<&mut Mean> {
        let place = self.0.iter().position(|(known, _)| *known == size);
        let place = place.or_else(|| {
            (self.0.len() < SIZES_MAX).then(|| {
                self.0.push((size, Mean::default()));
                self.0.len() - 1
            })
        })?;
        self.0.get_mut(place).map(|(_, mean)| mean)
    }
}

/// Quarters of powers of two: inputs within a fifth of each other are of one size.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "4 · 64 at most, and `as` saturates"
)]
fn size_of(input_bytes: u64) -> u8 {
    (4.0 * float(input_bytes.max(1)).log2()).round() as u8
}

#[expect(clippy::cast_precision_loss, reason = "sizes and times; 53 bits are enough")]
pub(super) const fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_within_a_fifth_are_one_and_a_batch_of_two_is_another() {
        assert_eq!(size_of(150_528), size_of(155_000));
        assert_ne!(size_of(256), size_of(512));
        assert!(size_of(0) == size_of(1) && size_of(u64::MAX) == 255);
    }

    #[test]
    fn sizes_without_end_take_no_room_without_end() {
        let mut block = Block::new(0, UnixMillis(0));
        (0..60).for_each(|power| block.answered(1 << power, 1_000));
        assert!(block.latency.is_bounded() && block.requests == 60);
        assert_eq!(block.latency.iter().count(), SIZES_MAX);
    }

    #[test]
    fn what_is_no_number_is_not_counted() {
        let mut block = Block::new(0, UnixMillis(0));
        block.row(f64::NAN, Some(usize::MAX), Some(f32::INFINITY));
        block.row(1.0, Some(65), Some(0.5));
        assert_eq!((block.input.mean(), block.confidence.mean()), (Some(1.0), Some(0.5)));
        assert_eq!((block.classes[1], block.classes[63], block.rows), (1, 1, 2));
    }
}
