//! What the rules are worth: days of requests, made up with day and night, scenes of which frames are alike, bursts of other work, batches
//! and fog; the same image again, which must stay, and images with a known fault, which must go.

use super::*;

use std::f64::consts::TAU;

use sealift_protocol::directive::Trial;
use sealift_protocol::id::UnixMillis;

const CLASSES: usize = 8;

/// A request every ten seconds.
const PACE_MS: i64 = 10_000;

const HOUR_MS: i64 = 3_600_000;

/// What is asked of an image, as an operator may.
const RULES: Behaviour = Behaviour {
    latency_rise_permille: 250,
    confidence_drop_permille: 100,
    class_loss_permille: 600,
    steady_s: 300,
};

/// What an image does wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Half as slow again.
    Slow,
    /// Fifteen points less sure.
    Unsure,
    /// Says another class where it should say this one.
    Swallows(usize),
}

/// `SplitMix64`: a few lines, and the same numbers everywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bits = u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap();
        f64::from(bits) / f64::from(u32::MAX)
    }

    /// Nearly normal: the sum of four.
    fn normal(&mut self) -> f64 {
        ((0..4).map(|_| self.next()).sum::<f64>() - 2.0) * 3.0_f64.sqrt()
    }

    fn once_in(&mut self, times: f64) -> bool {
        self.next() * times < 1.0
    }
}

/// A camera, and the machine that it is on.
struct Place {
    chance: Chance,
    now: UnixMillis,
    class: usize,
    scene_confidence: f64,
    /// Other work slows everything down until then.
    busy_until: UnixMillis,
    fog_until: UnixMillis,
}

struct Answer {
    input: f64,
    class: usize,
    confidence: f64,
    bytes: u64,
    engine_us: f64,
}

impl Place {
    fn new(seed: u64) -> Self {
        let now = UnixMillis(1_800_000_000_000);
        let (busy_until, fog_until) = (now, now);
        let chance = Chance(seed);
        Self { chance, now, class: 0, scene_confidence: 0.0, busy_until, fog_until }
    }

    fn daylight(&self) -> f64 {
        let hour = f64::from(u32::try_from(self.now.0 % (24 * HOUR_MS)).unwrap()) / 3_600_000.0;
        (TAU * hour / 24.0).sin()
    }

    /// Commoner by day, or by night.
    fn draw_class(&mut self) -> usize {
        let light = self.daylight();
        let weight = |class: usize| {
            if class.is_multiple_of(2) { 1.0 + 0.6 * light } else { 1.0 - 0.6 * light }
        };
        let total: f64 = (0..CLASSES).map(weight).sum();
        let mut drawn = self.chance.next() * total;
        (0..CLASSES - 1)
            .find(|&class| {
                drawn -= weight(class);
                drawn < 0.0
            })
            .unwrap_or(CLASSES - 1)
    }

    fn answer(&mut self) -> Answer {
        self.now = self.now.plus(PACE_MS);
        let light = self.daylight();
        if self.chance.once_in(4.0) {
            self.class = self.draw_class();
            self.scene_confidence = 0.04 * self.chance.normal();
        }
        if self.chance.once_in(600.0) {
            self.busy_until = self.now.plus(200_000);
        }
        if self.chance.once_in(20_000.0) {
            self.fog_until = self.now.plus(5 * HOUR_MS);
        }
        let is_foggy = self.now < self.fog_until;
        let is_batch = self.chance.once_in(if light > 0.0 { 2.0 } else { 10.0 });
        let confidence = 0.82 + 0.08 * light + self.scene_confidence + 0.06 * self.chance.normal();
        let mut engine_us =
            10_000.0 * (0.15 * self.chance.normal()).exp() * (1.0 + 0.2 * light.max(0.0));
        if self.now < self.busy_until {
            engine_us *= 2.0;
        }
        if self.chance.once_in(100.0) {
            engine_us *= 5.0;
        }
        Answer {
            input: 100.0 + 60.0 * light + 5.0 * self.chance.normal()
                - if is_foggy { 70.0 } else { 0.0 },
            class: self.class,
            confidence: confidence - if is_foggy { 0.2 } else { 0.0 },
            bytes: if is_batch { 4_096 } else { 1_024 },
            engine_us: if is_batch { 3.5 * engine_us } else { engine_us },
        }
    }

    /// Asks for so many hours, and hands over block by block.
    fn serve(
        &mut self,
        hours: i64,
        fault: Fault,
        mut each: impl FnMut(&Block, UnixMillis) -> bool,
    ) {
        let until = self.now.plus(hours * HOUR_MS);
        let mut block = Block::new(hour_of(self.now), self.now);
        while self.now < until {
            let mut answer = self.answer();
            match fault {
                Fault::Slow => answer.engine_us *= 1.5,
                Fault::Unsure => answer.confidence -= 0.15,
                Fault::Swallows(class) if answer.class == class => {
                    answer.class = (class + 1) % CLASSES;
                }
                Fault::None | Fault::Swallows(_) => {}
            }
            let is_over = block.is_of_another_hour(hour_of(self.now)) || block.is_full();
            if is_over {
                let next = Block::new(hour_of(self.now), self.now);
                let block = std::mem::replace(&mut block, next);
                if block.is_enough() && each(&block, self.now) {
                    return;
                }
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a made-up figure"
            )]
            let (confidence, engine_us) =
                (answer.confidence.clamp(0.1, 1.0) as f32, answer.engine_us as u64);
            block.row(answer.input, Some(answer.class), Some(confidence));
            block.answered(answer.bytes, engine_us);
        }
    }
}

/// Serves an image for a day and some hours, and then tries one for most of a day with a fault that shows after two hours; what it is taken back for, and after how
/// many hours, if it is.
fn trial(seed: u64, fault: Fault) -> Option<(Misstep, f64)> {
    let mut place = Place::new(seed);
    let mut habits = Habits::new(Signed::default());
    place.serve(28, Fault::None, |block, _| {
        habits.take(block);
        false
    });
    let rules = Trial { behaviour: RULES, ..Trial::default() };
    let mut judge = Judge::new(Some(habits));
    let mut found = None;
    for (hours, fault) in [(2, Fault::None), (18, fault)] {
        let begun = place.now;
        place.serve(hours, fault, |block, now| {
            judge.take(block, &Signed::default(), &rules);
            let hours = f64::from(u32::try_from(now.since(begun)).unwrap()) / 3_600_000.0;
            found = found.or_else(|| judge.verdict(&rules, now).map(|misstep| (misstep, hours)));
            found.is_some()
        });
    }
    found
}

fn share_of(seeds: std::ops::Range<u64>, fault: Fault, is_it: fn(Kind) -> bool) -> (f64, f64) {
    let total = f64::from(u32::try_from(seeds.end - seeds.start).unwrap());
    let found: Vec<_> = seeds.filter_map(|seed| trial(seed, fault)).collect();
    let right: Vec<_> = found.iter().filter(|(misstep, _)| is_it(misstep.kind)).collect();
    let hours = right.iter().map(|(_, hours)| hours).sum::<f64>();
    let count = f64::from(u32::try_from(right.len()).unwrap());
    (count / total, hours / count.max(1.0))
}

#[test]
fn the_same_image_again_practically_never_turns_back() {
    let turned: Vec<_> =
        (0..1_000).filter_map(|seed| Some((seed, trial(seed, Fault::None)?))).collect();
    println!("{} of 1,000 turned back", turned.len());
    assert!(
        turned.len() <= 10,
        "{} turned back: {:?}",
        turned.len(),
        turned.iter().take(20).collect::<Vec<_>>()
    );
}

#[test]
fn an_image_that_becomes_slow_unsure_or_blind_to_a_class_is_found() {
    for (fault, is_it, hours_max) in [
        (Fault::Slow, (|kind| kind == Kind::Latency) as fn(Kind) -> bool, 2.0),
        (Fault::Unsure, |kind| kind == Kind::Confidence, 3.0),
        (Fault::Swallows(3), |kind| kind == Kind::Class(3), 12.0),
    ] {
        let (share, hours) = share_of(5_000..5_100, fault, is_it);
        println!("{fault:?}: {share} found, after {hours:.1} hours");
        assert!(share >= 0.9 && hours <= hours_max, "{fault:?}: {share} after {hours} hours");
    }
}
