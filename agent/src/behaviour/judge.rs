//! An image on trial beside the habits of the image before: one-sided cumulative sums (Page, "Continuous inspection schemes", Biometrika
//! 1954), whose threshold grows with how much that image's own blocks varied, so that a restless one does not blame its successor.

use sealift_protocol::directive::Trial;
use sealift_protocol::id::UnixMillis;

use super::block::{Block, CLASSES};
use super::habits::{Beside, Habits, Pair, Signed};
use super::{Kind, Misstep};

/// Threshold of the sum, in variances over the slack: a steady stream passes it once in some e^(2 · 8) runs.
const ALARM: f64 = 8.0;

/// No fewer blocks turn an image back: other work on the machine may last for some.
const BLOCKS_MIN: f64 = 8.0;

/// Deviations by which a mean must be worse than half of the limit, the reference's own uncertainty included.
const DEVIATIONS: f64 = 4.0;

/// Classes rarer than this come and go.
const SHARE_MIN: f64 = 0.05;

/// Blocks of an image's own beginning that it is compared with, where the image before is not known.
const FIRST_BLOCKS: u32 = 16;

/// Judges one image on trial.
#[derive(Debug)]
pub(crate) struct Judge {
    reference: Reference,
    latency: Run,
    confidence: Run,
    classes: Vec<Run>,
    /// Whether the other models of the device are those that were there when the trial began.
    are_others_alike: bool,
}

/// What it is compared with.
#[derive(Debug)]
enum Reference {
    /// What the image before has shown.
    Before(Box<Habits>),
    /// Its own first blocks, which say something of latency alone.
    Own { habits: Box<Habits>, blocks: u32 },
}

/// A stretch in which something was worse than it should be.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    excess: f64,
    begun: UnixMillis,
    blocks: f64,
    requests: u64,
    expected: f64,
    seen: f64,
    known: f64,
    /// Hours of the day in which it was, as bits.
    hours: u32,
}

/// What a run is judged by.
#[derive(Debug, Clone, Copy)]
struct Bar {
    limit: f64,
    variance: f64,
    requests_min: u64,
    steady_ms: i64,
    now: UnixMillis,
}

impl Judge {
    /// Begins to judge by the habits of the image before; without, by its own first requests.
    pub(crate) fn new(before: Option<Habits>) -> Self {
        let own = || Box::new(Habits::new(Signed::default()));
        let reference = before
            .map(Box::new)
            .map_or_else(|| Reference::Own { habits: own(), blocks: 0 }, Reference::Before);
        let (latency, confidence) = (Run::default(), Run::default());
        let classes = vec![Run::default(); CLASSES];
        Self { reference, latency, confidence, classes, are_others_alike: true }
    }

    /// Another model came or went: how long the engine takes says nothing of this image any more.
    pub(crate) fn others_have_changed(&mut self) {
        self.are_others_alike = false;
        self.latency = Run::default();
    }

    /// Takes a block of an image that was signed so.
    pub(crate) fn take(&mut self, block: &Block, signed: &Signed, rules: &Trial) {
        match &mut self.reference {
            Reference::Before(habits) => {
                let beside = habits.beside(block, signed);
                let is_such = habits.knows_such(&beside, signed);
                self.take_latency(beside.latency, block, rules);
                if is_such {
                    self.take_answers(&beside, block, rules);
                }
            }
            Reference::Own { habits, blocks } => {
                // Its beginning is compared with at any hour.
                let anytime = Block { hour: 0, ..block.clone() };
                if *blocks < FIRST_BLOCKS {
                    habits.take(&anytime);
                    *blocks += 1;
                    return;
                }
                let beside = habits.beside(&anytime, signed);
                self.take_latency(beside.latency, block, rules);
            }
        }
    }

    fn take_latency(&mut self, pair: Option<Pair>, block: &Block, rules: &Trial) {
        let slack = latency_limit(rules) / 2.0;
        if let Some(pair) = pair.filter(|_| self.are_others_alike) {
            self.latency.take(pair.seen - pair.expected - slack, pair, block);
        }
    }

    fn take_answers(&mut self, beside: &Beside, block: &Block, rules: &Trial) {
        let slack = share(rules.behaviour.confidence_drop_permille) / 2.0;
        if let Some(pair) = beside.confidence {
            self.confidence.take(pair.expected - pair.seen - slack, pair, block);
        }
        let loss = share(rules.behaviour.class_loss_permille) / 2.0;
        for (run, pair) in self.classes.iter_mut().zip(&beside.classes) {
            if pair.expected >= SHARE_MIN {
                run.take(pair.expected * (1.0 - loss) - pair.seen, *pair, block);
            }
        }
    }

    /// What is worse than the rules allow, if anything is.
    pub(crate) fn verdict(&self, rules: &Trial, now: UnixMillis) -> Option<Misstep> {
        let (habits, kind) = match &self.reference {
            Reference::Before(habits) => (habits, Kind::Latency),
            Reference::Own { habits, .. } => (habits, Kind::LatencyThanAtFirst),
        };
        let against = |limit, variance: Option<f64>| Bar {
            limit,
            variance: variance.unwrap_or(f64::INFINITY),
            requests_min: rules.requests_min.into(),
            steady_ms: i64::from(rules.behaviour.steady_s) * 1_000,
            now,
        };
        if rules.behaviour.latency_rise_permille > 0 {
            let bar = against(latency_limit(rules), habits.latency_variance());
            if self.latency.is_beyond(&bar) {
                return Some(self.latency.misstep(kind, now, f64::exp));
            }
        }
        if rules.behaviour.confidence_drop_permille > 0 {
            let limit = share(rules.behaviour.confidence_drop_permille);
            if self.confidence.is_beyond(&against(limit, habits.confidence_variance())) {
                return Some(self.confidence.misstep(Kind::Confidence, now, thousandths));
            }
        }
        let loss = share(rules.behaviour.class_loss_permille);
        let misstep = |(class, run): (usize, &Run)| {
            let expected = run.expected / run.blocks.max(1.0);
            let bar = against(loss * expected, habits.class_variance(class));
            run.is_beyond(&bar).then(|| run.misstep(Kind::Class(class), now, thousandths))
        };
        if loss > 0.0 { self.classes.iter().enumerate().find_map(misstep) } else { None }
    }
}

impl Run {
    fn take(&mut self, excess: f64, pair: Pair, block: &Block) {
        self.excess += excess;
        if self.excess <= 0.0 {
            *self = Self::default();
            return;
        }
        if self.requests == 0 {
            self.begun = block.begun;
        }
        self.blocks += 1.0;
        self.requests += u64::from(block.requests);
        self.expected += pair.expected;
        self.seen += pair.seen;
        self.known += pair.known;
        self.hours |= 1 << (block.hour % 24);
    }

    fn is_beyond(&self, bar: &Bar) -> bool {
        let slack = bar.limit / 2.0;
        if self.requests < bar.requests_min.max(1) || slack <= 0.0 {
            return false;
        }
        let worse = (self.seen - self.expected).abs() / self.blocks;
        // Hours of the reference are few: their own error is that of as many blocks. Each rests on three of them.
        let apart = f64::from(self.hours.count_ones()) / 3.0;
        let known = self.known / self.blocks * apart.max(1.0);
        let error = (bar.variance * (1.0 / self.blocks + 1.0 / known.max(1.0))).sqrt();
        self.blocks >= BLOCKS_MIN
            && worse >= bar.limit
            && worse >= slack + DEVIATIONS * error
            && self.excess >= ALARM * bar.variance / slack
            && bar.now.since(self.begun) >= bar.steady_ms
    }

    fn misstep(&self, kind: Kind, now: UnixMillis, figure: impl Fn(f64) -> f64) -> Misstep {
        Misstep {
            kind,
            before: whole(figure(self.expected / self.blocks.max(1.0))),
            now: whole(figure(self.seen / self.blocks.max(1.0))),
            requests: self.requests,
            lasted_s: u64::try_from(now.since(self.begun) / 1_000).unwrap_or(0),
        }
    }
}

/// The rule's limit among logarithms.
fn latency_limit(rules: &Trial) -> f64 {
    share(rules.behaviour.latency_rise_permille).ln_1p()
}

fn share(permille: u16) -> f64 {
    f64::from(permille) / 1_000.0
}

fn thousandths(share: f64) -> f64 {
    1_000.0 * share
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and a figure for people needs no more"
)]
fn whole(figure: f64) -> u32 {
    figure.round() as u32
}

#[cfg(test)]
mod tests {
    use sealift_protocol::directive::Behaviour;

    use super::*;

    const RULES: Behaviour = Behaviour {
        latency_rise_permille: 250,
        confidence_drop_permille: 100,
        class_loss_permille: 600,
        steady_s: 60,
    };

    fn rules() -> Trial {
        Trial { behaviour: RULES, ..Trial::default() }
    }

    /// A block of the noon hour, in the given minute; a quarter of its rows are of class 1.
    fn block(minute: i64, engine_us: u64, confidence: f32) -> Block {
        let mut block = Block::new(12, UnixMillis(minute * 60_000));
        for request in 0..32_u32 {
            let wobble = f64::from((request + u32::try_from(minute).unwrap()) % 5);
            block.row(100.0 + wobble, Some(usize::from(request % 4 == 0)), Some(confidence));
            block.answered(1_024, engine_us + u64::from(request % 3) * 10);
        }
        block
    }

    fn habits() -> Habits {
        let mut habits = Habits::new(Signed::default());
        (0..40).for_each(|minute| habits.take(&block(minute, 10_000, 0.9)));
        habits
    }

    /// What is said after so many minutes of such blocks.
    fn said(
        judge: &mut Judge,
        minutes: std::ops::Range<i64>,
        block: impl Fn(i64) -> Block,
    ) -> Option<Misstep> {
        minutes.into_iter().find_map(|minute| {
            judge.take(&block(minute), &Signed::default(), &rules());
            judge.verdict(&rules(), UnixMillis((minute + 1) * 60_000))
        })
    }

    #[test]
    fn half_as_slow_again_is_said_with_its_figures_and_a_tenth_is_not() {
        let mut judge = Judge::new(Some(habits()));
        assert_eq!(said(&mut judge, 0..200, |minute| block(minute, 11_000, 0.9)), None);

        let misstep = said(&mut judge, 200..300, |minute| block(minute, 15_000, 0.9)).unwrap();

        assert_eq!((misstep.kind, misstep.requests, misstep.lasted_s), (Kind::Latency, 256, 480));
        assert!(
            (9_900..10_100).contains(&misstep.before) && (14_900..15_100).contains(&misstep.now),
            "{misstep:?}"
        );
    }

    #[test]
    fn it_must_last_as_long_as_the_rule_says() {
        let mut judge = Judge::new(Some(habits()));
        for number in 0..20 {
            // Twenty blocks within a second each.
            let slow = Block { begun: UnixMillis(number * 1_000), ..block(0, 20_000, 0.9) };
            judge.take(&slow, &Signed::default(), &rules());
        }
        assert_eq!(judge.verdict(&rules(), UnixMillis(59_999)), None);
        assert!(judge.verdict(&rules(), UnixMillis(60_000)).is_some());
    }

    #[test]
    fn once_another_model_comes_or_goes_latency_says_nothing() {
        let mut judge = Judge::new(Some(habits()));
        assert_eq!(said(&mut judge, 0..7, |minute| block(minute, 15_000, 0.9)), None);
        judge.others_have_changed();
        assert_eq!(said(&mut judge, 7..100, |minute| block(minute, 15_000, 0.9)), None);
        let unsure = said(&mut judge, 100..200, |minute| block(minute, 15_000, 0.7)).unwrap();
        assert_eq!((unsure.kind, unsure.before, unsure.now), (Kind::Confidence, 900, 700));
    }

    #[test]
    fn where_inputs_look_otherwise_or_the_hour_was_never_seen_nothing_is_said_of_answers() {
        let mut judge = Judge::new(Some(habits()));
        let dark = |minute| {
            let mut block = block(minute, 10_000, 0.5);
            (0..32).for_each(|_| block.row(10.0, Some(0), Some(0.5)));
            block
        };
        assert_eq!(said(&mut judge, 0..200, dark), None);
        let at_night = |minute| Block { hour: 0, ..block(minute, 30_000, 0.2) };
        assert_eq!(said(&mut judge, 200..400, at_night), None);
    }

    #[test]
    fn a_class_that_vanishes_is_named() {
        let mut judge = Judge::new(Some(habits()));
        let blind = |minute| {
            let block = block(minute, 10_000, 0.9);
            let mut classes = block.classes;
            (classes[0], classes[1]) = (32, 0);
            Block { classes, ..block }
        };
        let misstep = said(&mut judge, 0..100, blind).unwrap();
        assert_eq!((misstep.kind, misstep.before, misstep.now), (Kind::Class(1), 250, 0));
    }

    #[test]
    fn without_the_image_before_latency_is_compared_with_its_own_beginning_at_any_hour() {
        let mut judge = Judge::new(None);
        assert_eq!(said(&mut judge, 0..100, |minute| block(minute, 10_000, 0.9)), None);
        let at_night = |minute| Block { hour: 0, ..block(minute, 15_000, 0.1) };
        let misstep = said(&mut judge, 100..200, at_night).unwrap();
        assert_eq!(misstep.kind, Kind::LatencyThanAtFirst);
    }
}
