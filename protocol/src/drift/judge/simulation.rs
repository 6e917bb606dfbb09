//! Made data with a fixed seed: no false alarm where nothing changes, and none missed where something does.

use crate::drift::DriftState;
use crate::id::UnixMillis;
use crate::profile::{Baseline, BaselineBuilder, Column, Profiler, quadrant};

use super::{Against, Case, Policy, Verdict, Window, judge};
use crate::drift::{Scope, Subject};

const FEATURES: usize = 64;
const WINDOW_ROWS: usize = 200;
const REFERENCE_ROWS: usize = 2_000;

/// `xorshift64*`, to depend on no crate's choice of generator.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        f64::from(u32::try_from(bits).unwrap()) / f64::from(u32::MAX)
    }

    /// Roughly normal: the sum of twelve uniform numbers.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.next()).sum::<f64>() - 6.0
    }
}

/// A row of 64 features of five kinds that share a common cause, so that they are not independent.
fn row(chance: &mut Chance) -> Vec<f64> {
    let common = chance.normal();
    let feature = |index: usize| match index % 5 {
        0 => chance.normal(),
        1 => 20.0 + 3.0 * (0.6 * common + 0.8 * chance.normal()),
        2 => -chance.next().max(1e-9).ln(),
        3 => (chance.normal() * 4.0 - 2.0 + common).clamp(0.0, 16.0).round(),
        _ => {
            if index < 10 {
                0.0
            } else {
                f64::from(chance.next() < 0.03)
            }
        }
    };
    (0..FEATURES).map(feature).collect()
}

struct World {
    baseline: Baseline,
    profiler: Profiler,
    chance: Chance,
    windows: Vec<Window>,
    verdicts: Vec<Verdict>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let column = |index| Column::numeric(&format!("p{index:02}"), quadrant(index, 8, 8));
        let classes = vec!["ok".to_owned(), "bad".to_owned()];
        let columns = (0..FEATURES).map(column).collect();
        let mut builder = BaselineBuilder::new(columns, classes).with_summary();
        for _ in 0..REFERENCE_ROWS {
            let (class, confidence) = outputs(&mut chance);
            let class = ["ok", "bad"][class];
            builder.push(&row(&mut chance), Some(class), Some(confidence)).unwrap();
        }
        let baseline = builder.build().unwrap();
        let profiler = Profiler::new(&baseline);
        Self { baseline, profiler, chance, windows: Vec::new(), verdicts: Vec::new() }
    }

    /// Lives through one window, each row changed by `change`, and judges it.
    fn live(&mut self, rows: usize, change: impl Fn(&mut [f64], &mut Chance)) {
        for _ in 0..rows {
            let mut row = row(&mut self.chance);
            change(&mut row, &mut self.chance);
            let (class, confidence) = outputs(&mut self.chance);
            #[expect(clippy::cast_possible_truncation, reason = "as a device sees it")]
            let row: Vec<f32> = row.into_iter().map(|value| value as f32).collect();
            #[expect(clippy::cast_possible_truncation, reason = "as a device sees it")]
            let confidence = confidence as f32;
            self.profiler.observe(&row, Some(class), Some(confidence), None);
        }
        let from = self.windows.last().map_or(UnixMillis(0), |window| window.until);
        let profile = self.profiler.close();
        self.windows.push(Window { from, until: from.plus(60_000), profile });
        if self.windows.len() > 64 {
            self.windows.remove(0);
        }
        let case = Case { scope: Scope::Fleet, windows: &self.windows, against: Against::Baseline };
        self.verdicts = judge(&self.baseline, &[case], &self.verdicts, &Policy::default()).unwrap();
    }

    fn any(&self, state: DriftState) -> bool {
        self.verdicts.iter().any(|verdict| verdict.state == state)
    }

    fn is_drifted(&self, subject: &Subject) -> bool {
        let is_it = |verdict: &&Verdict| verdict.subject == *subject;
        let mut verdicts = self.verdicts.iter().filter(is_it);
        verdicts.any(|verdict| verdict.state == DriftState::Drifted)
    }
}

fn outputs(chance: &mut Chance) -> (usize, f64) {
    (usize::from(chance.next() < 0.2), 1.0 - chance.next().powi(3) / 2.0)
}

fn unchanged(_: &mut [f64], _: &mut Chance) {}

#[test]
fn at_most_one_false_alarm_in_a_thousand_windows() {
    let (mut suspected, mut drifted, mut windows) = (0_u32, 0_u32, 0_u32);
    for seed in 1..=4 {
        let mut world = World::new(seed);
        for _ in 0..250 {
            world.live(WINDOW_ROWS, unchanged);
            suspected += u32::from(world.any(DriftState::Suspect));
            drifted += u32::from(world.any(DriftState::Drifted));
            windows += 1;
        }
    }
    println!("{windows} windows: {suspected} suspected, {drifted} drifted");
    assert!(drifted <= 1, "{drifted} false alarms in {windows} windows");
}

#[test]
fn a_shift_of_one_standard_deviation_in_a_quadrant_is_found_in_two_windows() {
    for seed in 1..=5 {
        let mut world = World::new(seed);
        for _ in 0..20 {
            world.live(WINDOW_ROWS, unchanged);
        }
        let shift = |row: &mut [f64], _: &mut Chance| {
            for (index, value) in row.iter_mut().enumerate() {
                if quadrant(index, 8, 8) == "upper-left" && index % 5 == 1 {
                    *value += 3.0;
                }
            }
        };

        world.live(WINDOW_ROWS, shift);
        assert!(world.any(DriftState::Suspect), "seed {seed}");
        world.live(WINDOW_ROWS, shift);

        assert!(world.is_drifted(&Subject::Group("upper-left".to_owned())), "seed {seed}");
        assert!(world.is_drifted(&Subject::Feature("p01".to_owned())), "seed {seed}");
        assert!(!world.is_drifted(&Subject::Group("lower-right".to_owned())), "seed {seed}");
        assert!(!world.is_drifted(&Subject::Prediction), "seed {seed}");
    }
}

#[test]
fn a_constant_that_moves_is_found_in_two_windows() {
    let mut world = World::new(7);
    let lamp = |row: &mut [f64], _: &mut Chance| row[4] = 1.0;
    world.live(WINDOW_ROWS, lamp);
    world.live(WINDOW_ROWS, lamp);
    assert!(world.is_drifted(&Subject::Feature("p04".to_owned())));
}

#[test]
fn a_tenth_of_missing_values_is_found_in_two_windows() {
    let mut world = World::new(8);
    let broken = |row: &mut [f64], chance: &mut Chance| {
        if chance.next() < 0.1 {
            row[30] = f64::NAN;
        }
    };
    world.live(WINDOW_ROWS, broken);
    world.live(WINDOW_ROWS, broken);
    let is_it = |verdict: &&Verdict| verdict.state == DriftState::Drifted;
    let drifted: Vec<_> = world.verdicts.iter().filter(is_it).collect();
    assert_eq!(drifted.len(), 1, "{drifted:?}");
    assert_eq!(drifted[0].metric.id(), "share/missing");
}

#[test]
fn a_creeping_change_is_found_in_windows_of_few_rows() {
    let mut world = World::new(9);
    for step in 0..40_u8 {
        let creep = |row: &mut [f64], _: &mut Chance| row[11] += f64::from(step) * 0.15;
        world.live(60, creep);
    }
    assert!(world.is_drifted(&Subject::Feature("p11".to_owned())));
}

#[test]
fn drift_that_ended_is_closed_and_does_not_flap() {
    let mut world = World::new(10);
    let far = |row: &mut [f64], _: &mut Chance| row[1] += 9.0;
    for _ in 0..10 {
        world.live(WINDOW_ROWS, far);
    }
    assert!(world.is_drifted(&Subject::Feature("p01".to_owned())));
    world.live(WINDOW_ROWS, unchanged);
    for _ in 0..20 {
        world.live(WINDOW_ROWS, unchanged);
        assert!(!world.is_drifted(&Subject::Feature("p01".to_owned())));
    }
}
