//! What an image shows on this device by the hour of the day, and how much that varies from block to block. Yesterday's hour counts half
//! of today's, so that it follows the seasons. Kept on disk by image; 40 KB at most.

use sealift_protocol::codec;
use sealift_protocol::id::UnixMillis;
use sealift_protocol::profile::Baseline;
use serde::{Deserialize, Serialize};

use super::block::{Block, BySize, CLASSES, Mean, float};

const HOURS: usize = 24;

/// The whole in CBOR: 24 hours of 64 classes and 16 sizes.
pub(crate) const HABITS_BYTES_MAX: usize = 128 << 10;

/// Of an hour and its neighbours less than this many requests were seen: it is as if there were none.
const SEEN_MIN: f64 = 64.0;

/// Blocks in a row whose mean says how much hours differ, where blocks alone look calm: frames of one scene are alike.
const LONG: f64 = 16.0;

/// Deviations below this say nothing of how much there may be,
const SHORT_MIN: f64 = 8.0;

/// nor do these of long stretches.
const LONG_MIN: f64 = 4.0;

/// Deviations of months ago matter little.
const DEVIATIONS_MAX: f64 = 4_096.0;

/// An image's habits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Habits {
    hours: Vec<Hour>,
    newest: Option<usize>,
    latency: Spread,
    confidence: Spread,
    input: Spread,
    classes: Vec<Spread>,
    signed: Signed,
}

/// What the publisher has signed of an image: what it showed on the rows it was made with.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Signed {
    /// Columns of an input row.
    columns: u64,
    confidence: Option<f64>,
    /// Shares of classes; none if it is not said.
    classes: Vec<f64>,
}

/// Sums of one hour of the day.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Hour {
    requests: f64,
    latency: BySize,
    confidence: Mean,
    input: Mean,
    classes: Vec<f64>,
    rows: f64,
}

/// How far blocks are from what was to be expected of them.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Spread {
    /// Squares of blocks,
    short: Mean,
    /// of means of several in a row,
    long: Mean,
    /// and those that are under way.
    run: Mean,
}

/// A figure beside what was to be expected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pair {
    pub(super) expected: f64,
    pub(super) seen: f64,
    /// Blocks that the expectation rests on.
    pub(super) known: f64,
}

/// A block beside an image's habits.
#[derive(Debug, Clone)]
pub(super) struct Beside {
    /// Logarithms of microseconds.
    pub(super) latency: Option<Pair>,
    pub(super) confidence: Option<Pair>,
    pub(super) input: Option<Pair>,
    /// Shares, by class; empty if nothing is known.
    pub(super) classes: Vec<Pair>,
}

impl Habits {
    pub(crate) fn new(signed: Signed) -> Self {
        Self {
            hours: vec![Hour::default(); HOURS],
            newest: None,
            latency: Spread::default(),
            confidence: Spread::default(),
            input: Spread::default(),
            classes: vec![Spread::default(); CLASSES],
            signed,
        }
    }

    /// Reads what [`Habits::encode`] has written; nothing where that is not it.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let habits: Self = codec::decode("habits", bytes, HABITS_BYTES_MAX).ok()?;
        let is_sound = |hour: &Hour| {
            hour.latency.is_bounded() && (hour.classes.is_empty() || hour.classes.len() == CLASSES)
        };
        let fits = habits.hours.len() == HOURS && habits.classes.len() == CLASSES;
        (fits && habits.hours.iter().all(is_sound)).then_some(habits)
    }

    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        codec::encode(self).ok().filter(|bytes| bytes.len() <= HABITS_BYTES_MAX)
    }

    /// Whether it has answered nobody yet.
    pub(crate) const fn is_empty(&self) -> bool {
        self.newest.is_none()
    }

    pub(crate) const fn signed(&self) -> &Signed {
        &self.signed
    }

    /// Takes a block: first how far it is from what was to be expected, then the block itself.
    pub(crate) fn take(&mut self, block: &Block) {
        let beside = self.beside(block, &self.signed);
        let of = |pair: Option<Pair>| pair.map(|pair| pair.seen - pair.expected);
        self.latency.take(of(beside.latency));
        // What odd inputs do is not judged, and makes no image restless.
        if self.input.of_one().is_none() || self.knows_such(&beside, &self.signed) {
            self.confidence.take(of(beside.confidence));
            for (spread, pair) in self.classes.iter_mut().zip(&beside.classes) {
                spread.take(of(Some(*pair)));
            }
        }
        self.input.take_usual(of(beside.input));
        let is_new = self.newest != Some(block.hour);
        self.newest = Some(block.hour);
        if let Some(hour) = self.hours.get_mut(block.hour) {
            if is_new {
                hour.fade();
            }
            hour.add(block);
        }
    }

    /// Sets a block of an image that was signed so beside these habits.
    pub(super) fn beside(&self, block: &Block, signed: &Signed) -> Beside {
        let confidence = |hour: &Hour| hour.confidence;
        let input = |hour: &Hour| hour.input;
        let less = self.signed.less_confident(signed);
        let expected = |pair: Pair| Pair { expected: pair.expected - less, ..pair };
        Beside {
            latency: self.latency_beside(block),
            confidence: self.pair(block, block.confidence, confidence).map(expected),
            input: self.pair(block, block.input, input),
            classes: self.classes_beside(block, signed).unwrap_or_default(),
        }
    }

    fn pair(&self, block: &Block, seen: Mean, of: impl Fn(&Hour) -> Mean) -> Option<Pair> {
        let known = self.known(block.hour)?;
        let mut expected = Mean::default();
        self.near(block.hour).for_each(|hour| expected.add(of(hour)));
        Some(Pair { expected: expected.mean()?, seen: seen.mean()?, known })
    }

    /// Over the sizes that both have seen, if those are most of the block.
    fn latency_beside(&self, block: &Block) -> Option<Pair> {
        let (mut expected, mut seen, mut n, mut known) = (0.0, 0.0, 0.0, 0.0);
        for (size, mean) in block.latency.iter() {
            let mut before = Mean::default();
            self.near(block.hour).for_each(|hour| before.add(hour.latency.get(size)));
            if let (Some(before_mean), Some(now)) = (before.mean(), mean.mean())
                && before.n >= SEEN_MIN
            {
                expected += mean.n * before_mean;
                seen += mean.n * now;
                n += mean.n;
                known += before.n;
            }
        }
        let is_most = n * 2.0 >= f64::from(block.requests) && n > 0.0;
        let known = known / f64::from(block.requests.max(1));
        is_most.then(|| Pair { expected: expected / n, seen: seen / n, known })
    }

    fn classes_beside(&self, block: &Block, signed: &Signed) -> Option<Vec<Pair>> {
        let known = self.known(block.hour)?;
        let rows: f64 = self.near(block.hour).map(|hour| hour.rows).sum();
        if rows <= 0.0 || block.rows == 0 {
            return None;
        }
        let pair = |(class, &count): (usize, &u32)| {
            let of = |hour: &Hour| hour.classes.get(class).copied().unwrap_or_default();
            let before: f64 = self.near(block.hour).map(of).sum();
            let expected = before / rows * self.signed.rarer(signed, class);
            Pair { expected, seen: f64::from(count) / f64::from(block.rows), known }
        };
        Some(block.classes.iter().enumerate().map(pair).collect())
    }

    /// Blocks that were seen about this hour; none if those are too few.
    fn known(&self, hour: usize) -> Option<f64> {
        let requests: f64 = self.near(hour).map(|hour| hour.requests).sum();
        (requests >= SEEN_MIN).then_some(requests / 32.0)
    }

    /// The hour, the one before and the one after: a model is not judged anew because the clock strikes.
    fn near(&self, hour: usize) -> impl Iterator<Item = &Hour> {
        let hours = [hour + HOURS - 1, hour, hour + 1];
        hours.into_iter().filter_map(|hour| self.hours.get(hour % HOURS))
    }

    /// How much the latency of a block varies: the variance.
    pub(super) fn latency_variance(&self) -> Option<f64> {
        self.latency.variance()
    }

    pub(super) fn confidence_variance(&self) -> Option<f64> {
        self.confidence.variance()
    }

    pub(super) fn class_variance(&self, class: usize) -> Option<f64> {
        self.classes.get(class)?.variance()
    }

    /// Whether inputs look as they did: where they do not, nobody knows what the image before would have made of them.
    pub(super) fn knows_such(&self, beside: &Beside, signed: &Signed) -> bool {
        let (Some(input), Some(variance)) = (beside.input, self.input.of_one()) else {
            return false;
        };
        let gap = input.seen - input.expected;
        // Four deviations, or a thousandth where they never vary.
        let least = input.expected * 1e-3;
        signed.columns == self.signed.columns && gap * gap <= 16.0 * variance + least * least
    }
}

impl Hour {
    fn fade(&mut self) {
        self.requests *= 0.5;
        self.rows *= 0.5;
        self.latency.fade();
        self.confidence.fade();
        self.input.fade();
        self.classes.iter_mut().for_each(|count| *count *= 0.5);
    }

    fn add(&mut self, block: &Block) {
        self.requests += f64::from(block.requests);
        self.rows += f64::from(block.rows);
        self.latency.add(&block.latency);
        self.confidence.add(block.confidence);
        self.input.add(block.input);
        self.classes.resize(CLASSES, 0.0);
        for (sum, &count) in self.classes.iter_mut().zip(&block.classes) {
            *sum += f64::from(count);
        }
    }
}

impl Spread {
    fn take(&mut self, deviation: Option<f64>) {
        let Some(deviation) = deviation else { return };
        self.short.take(deviation * deviation);
        self.run.take(deviation);
        if self.run.n >= LONG {
            let mean = self.run.mean().unwrap_or_default();
            self.long.take(mean * mean);
            self.run = Mean::default();
        }
        if self.short.n > DEVIATIONS_MAX {
            self.short.fade();
            self.long.fade();
        }
    }

    /// The same, for what tells the usual from the odd: a day of fog must not make fog usual.
    fn take_usual(&mut self, deviation: Option<f64>) {
        let usual = self.of_one().map_or(f64::INFINITY, |variance| 2.0 * variance.sqrt());
        self.take(deviation.map(|deviation| deviation.clamp(-usual, usual)));
    }

    /// The variance of single blocks.
    fn of_one(self) -> Option<f64> {
        self.short.mean().filter(|_| self.short.n >= SHORT_MIN)
    }

    /// The variance of a block, as far as it matters for the mean of many: what is alike for long counts for more.
    fn variance(self) -> Option<f64> {
        let short = self.of_one()?;
        let long = self.long.mean().filter(|_| self.long.n >= LONG_MIN);
        Some(long.map_or(4.0 * short, |long| short.max(LONG * long)))
    }
}

impl Signed {
    pub(crate) fn new(baseline: &Baseline) -> Self {
        let confidence = baseline.confidence();
        let total: u64 = confidence.iter().sum();
        let middle = |(bin, &count): (u32, &u64)| (f64::from(bin) + 0.5) * float(count);
        let sum: f64 = (0..).zip(confidence).map(middle).sum();
        let bins = float(confidence.len() as u64);
        let mut classes = vec![0.0; CLASSES];
        let rows: u64 = baseline.classes().iter().map(|class| class.count).sum();
        for (place, class) in baseline.classes().iter().enumerate() {
            if let Some(share) = classes.get_mut(place % CLASSES) {
                *share += float(class.count) / float(rows.max(1));
            }
        }
        Self {
            columns: baseline.inputs() as u64,
            confidence: (total > 0).then(|| sum / float(total) / bins),
            classes: if rows > 0 { classes } else { Vec::new() },
        }
    }

    /// By how much less confident `next` was made: that is no fault. That it was made more confident is no promise either.
    fn less_confident(&self, next: &Self) -> f64 {
        self.confidence.zip(next.confidence).map_or(0.0, |(before, next)| (before - next).max(0.0))
    }

    /// How much rarer `next` was made to predict a class; 1 for not.
    fn rarer(&self, next: &Self, class: usize) -> f64 {
        let (before, next) = (self.classes.get(class), next.classes.get(class));
        before
            .zip(next)
            .filter(|(before, _)| **before > 0.0)
            .map_or(1.0, |(before, next)| (next / before).min(1.0))
    }
}

/// The hour of the day, by a clock that runs evenly: which one of them is midnight does not matter.
pub(crate) fn hour_of(now: UnixMillis) -> usize {
    const HOUR_MS: i64 = 3_600_000;
    usize::try_from(now.0.div_euclid(HOUR_MS).rem_euclid(24)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(hour: usize, engine_us: u64, confidence: f32) -> Block {
        let mut block = Block::new(hour, UnixMillis(0));
        for request in 0..32_u32 {
            block.row(100.0, Some(usize::from(request % 4 == 0)), Some(confidence));
            block.answered(1_024, engine_us);
        }
        block
    }

    fn of(hours: impl Iterator<Item = usize>) -> Habits {
        let mut habits = Habits::new(Signed::default());
        hours.for_each(|hour| habits.take(&block(hour, 1_000, 0.9)));
        habits
    }

    #[test]
    fn an_hour_is_expected_to_be_as_it_was_and_as_its_neighbours_were() {
        let habits = of([10, 10, 10].into_iter());
        for (hour, is_known) in [(8, false), (9, true), (10, true), (11, true), (12, false)] {
            let beside = habits.beside(&block(hour, 2_000, 0.8), &Signed::default());
            assert_eq!(beside.latency.is_some(), is_known, "{hour}");
            let Some(latency) = beside.latency else { continue };
            assert!((latency.seen - latency.expected - 2.0_f64.ln()).abs() < 1e-9);
            let confidence = beside.confidence.unwrap();
            assert!((confidence.expected - 0.9).abs() < 1e-6 && confidence.known >= 3.0);
            assert!((beside.classes[1].expected - 0.25).abs() < 1e-9);
        }
        let midnight = of([23, 23].into_iter());
        assert!(midnight.beside(&block(0, 1_000, 0.9), &Signed::default()).latency.is_some());
    }

    #[test]
    fn yesterday_counts_half_and_habits_survive_the_disk() {
        let mut habits = of([10, 10, 11].into_iter());
        (0..2).for_each(|_| habits.take(&block(10, 8_000, 0.5)));
        let beside = habits.beside(&block(10, 1_000, 0.9), &Signed::default());
        // 32 of yesterday at 0.9, 64 of today at 0.5, and 32 of the hour after.
        assert!((beside.confidence.unwrap().expected - 0.7).abs() < 1e-6, "{beside:?}");

        let bytes = habits.encode().unwrap();
        assert!(bytes.len() < 20_000, "{}", bytes.len());
        assert_eq!(Habits::decode(&bytes), Some(habits));
        assert_eq!(Habits::decode(&bytes[..bytes.len() - 1]), None);
    }

    #[test]
    fn what_was_signed_to_be_less_confident_or_rarer_is_no_fault() {
        let signed = |confidence, share| Signed {
            columns: 4,
            confidence: Some(confidence),
            classes: [vec![1.0 - share, share], vec![0.0; CLASSES - 2]].concat(),
        };
        let mut habits = Habits::new(signed(0.9, 0.5));
        (0..4).for_each(|_| habits.take(&block(3, 1_000, 0.85)));
        for (next, expected, share) in
            [(signed(0.8, 0.25), 0.75, 0.125), (signed(0.99, 0.75), 0.85, 0.25)]
        {
            let beside = habits.beside(&block(3, 1_000, 0.85), &next);
            assert!((beside.confidence.unwrap().expected - expected).abs() < 1e-6, "{beside:?}");
            assert!((beside.classes[1].expected - share).abs() < 1e-9);
        }
    }

    #[test]
    fn inputs_that_look_otherwise_are_noticed() {
        let mut habits = Habits::new(Signed::default());
        for number in 0..40_u32 {
            let mut block = block(5, 1_000, 0.9);
            block.row(100.0 + f64::from(number % 7) * 33.0, None, None);
            habits.take(&block);
        }
        let signed = Signed::default();
        let usual = habits.beside(&block(5, 1_000, 0.9), &signed);
        assert!(habits.knows_such(&usual, &signed));
        let mut dark = Block::new(5, UnixMillis(0));
        (0..32).for_each(|_| dark.row(20.0, None, None));
        assert!(!habits.knows_such(&habits.beside(&dark, &signed), &signed));
        let other = Signed { columns: 9, ..Signed::default() };
        assert!(!habits.knows_such(&usual, &other));
    }

    #[test]
    fn what_is_alike_for_long_varies_more_than_its_blocks_say() {
        let (mut calm, mut slow) = (Spread::default(), Spread::default());
        for number in 0..320_u32 {
            calm.take(Some(if number % 2 == 0 { 0.1 } else { -0.1 }));
            slow.take(Some(if number / 16 % 2 == 0 { 0.1 } else { -0.1 }));
        }
        assert!((calm.variance().unwrap() - 0.01).abs() < 1e-9);
        assert!((slow.variance().unwrap() - 0.16).abs() < 1e-9);
        assert_eq!(Spread::default().variance(), None);
    }
}
