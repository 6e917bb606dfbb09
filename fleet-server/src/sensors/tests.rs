//! Planted cases: one sensor of two hundred, a whole site, everybody, nobody.

use std::collections::BTreeSet;

use sealift_protocol::profile::{BaselineBuilder, Column, Profiler};

use super::*;

const FEATURES: usize = 2;
const REFERENCE_ROWS: usize = 2_000;
const WINDOW_ROWS: usize = 200;
const ROUND_MS: i64 = 60_000;

/// A fleet whose devices see rows of two bell curves, each a little beside the others'.
struct World {
    baseline: Baseline,
    sensors: Sensors,
    chance: fastrand::Rng,
    /// For each device its cohort and how much it is beside the others.
    devices: Vec<(DeviceId, Scope, f64)>,
    round: i64,
}

impl World {
    /// `sites` of so many devices each, which differ from each other by up to `spread` standard deviations.
    fn new(seed: u64, sites: usize, devices: usize, spread: f64) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed);
        let columns = (0..FEATURES).map(|at| Column::numeric(&format!("x{at}"), "all")).collect();
        let mut builder = BaselineBuilder::new(columns, vec![]);
        for _ in 0..REFERENCE_ROWS {
            let row: Vec<f64> = (0..FEATURES).map(|_| bell(&mut chance)).collect();
            builder.push(&row, None, None).unwrap();
        }
        let device = |place: usize, chance: &mut fastrand::Rng| {
            let id = DeviceId::parse(&format!("cam-{place:03}")).unwrap();
            let value = format!("s{}", place / devices);
            let cohort = Scope::Cohort { key: "site".to_owned(), value };
            (id, cohort, spread * (chance.f64() - 0.5))
        };
        let devices = (0..sites * devices).map(|place| device(place, &mut chance)).collect();
        let baseline = builder.build().unwrap();
        Self { baseline, sensors: Sensors::default(), chance, devices, round: 0 }
    }

    /// Lives through rounds; `shift` says by how much the first column of a device is off.
    fn live(&mut self, rounds: usize, shift: impl Fn(usize) -> f64) {
        for _ in 0..rounds {
            self.round += 1;
            let until = UnixMillis(self.round * ROUND_MS);
            let mut profiler = Profiler::new(&self.baseline);
            for (place, (device, cohort, beside)) in self.devices.iter().enumerate() {
                for _ in 0..WINDOW_ROWS {
                    let off = [beside + shift(place), *beside];
                    #[expect(clippy::cast_possible_truncation, reason = "as a device sees it")]
                    let row = off.map(|off| (bell(&mut self.chance) + off) as f32);
                    profiler.observe(&row, None, None, None);
                }
                let from = until.plus(-ROUND_MS);
                let window = Window { from, until, profile: profiler.close() };
                self.sensors.take(device, cohort, &window).unwrap();
            }
            self.sensors.end_round(&self.baseline, &Policy::default(), (until, ROUND_MS)).unwrap();
        }
    }

    fn with(&self, nature: DeviceNature) -> BTreeSet<usize> {
        let standings = self.sensors.standings().filter(|standing| standing.nature == nature);
        let place = |device: &DeviceId| self.devices.iter().position(|(id, ..)| id == device);
        standings.filter_map(|standing| place(standing.device)).collect()
    }

    fn standing(&self, place: usize) -> Standing<'_> {
        let (device, ..) = &self.devices[place];
        self.sensors.standings().find(|standing| standing.device == device).unwrap()
    }
}

/// Roughly a bell curve.
fn bell(chance: &mut fastrand::Rng) -> f64 {
    (0..12).map(|_| chance.f64()).sum::<f64>() - 6.0
}

#[test]
fn one_sensor_of_many_devices_is_named_and_no_other() {
    let mut world = World::new(1, 2, 15, 0.1);
    world.live(9, |_| 0.0);
    world.live(2, |place| if place == 17 { 1.0 } else { 0.0 });

    assert_eq!(world.with(DeviceNature::Alone), [17].into());
    assert!(world.with(DeviceNature::Together).is_empty());
    let standing = world.standing(17);
    for compared in ComparedWith::ALL {
        let verdict = standing.against(compared).unwrap();
        assert_eq!(verdict.subject.to_string(), "feature:x0", "{compared:?}: {}", verdict.why);
    }
    assert_eq!(standing.cohort.to_string(), "site=s1");
}

#[test]
fn a_whole_site_is_no_sensor() {
    let mut world = World::new(2, 3, 8, 0.1);
    world.live(6, |_| 0.0);
    world.live(3, |place| if (8..16).contains(&place) { 1.0 } else { 0.0 });

    assert!(world.with(DeviceNature::Alone).is_empty(), "{:?}", world.with(DeviceNature::Alone));
    assert_eq!(world.with(DeviceNature::Together), (8..16).collect());
}

#[test]
fn everybody_together_is_no_sensor() {
    let mut world = World::new(3, 2, 8, 0.1);
    world.live(4, |_| 0.0);
    world.live(3, |_| 1.0);

    assert!(world.with(DeviceNature::Alone).is_empty(), "{:?}", world.with(DeviceNature::Alone));
    assert_eq!(world.with(DeviceNature::Together).len(), 16);
}

#[test]
fn where_nothing_changes_nobody_is_named() {
    for seed in 10..16 {
        let mut world = World::new(seed, 1, 10, 0.1);
        for _ in 0..12 {
            world.live(1, |_| 0.0);
            let off: Vec<_> = world.sensors.standings().filter(Standing::is_off).collect();
            assert!(off.is_empty(), "seed {seed}: {off:?}");
        }
    }
}

#[test]
fn devices_that_are_all_different_are_not_all_sensors() {
    let mut world = World::new(4, 1, 16, 1.0);
    world.live(4, |_| 0.0);
    assert!(world.with(DeviceNature::Alone).is_empty(), "{:?}", world.with(DeviceNature::Alone));

    world.live(3, |place| if place == 5 { 3.0 } else { 0.0 });
    assert_eq!(world.with(DeviceNature::Alone), [5].into());
}

#[test]
fn of_four_devices_one_can_be_told_from_the_others() {
    let mut world = World::new(5, 1, 4, 0.0);
    world.live(8, |_| 0.0);
    world.live(4, |place| if place == 2 { 2.0 } else { 0.0 });
    assert_eq!(world.with(DeviceNature::Alone), [2].into());
}

#[test]
fn of_two_devices_one_has_changed_and_nobody_says_why() {
    let mut world = World::new(6, 1, 2, 0.0);
    world.live(10, |_| 0.0);
    world.live(3, |place| if place == 1 { 1.0 } else { 0.0 });
    assert_eq!(world.with(DeviceNature::Changed), [1].into());
    assert!(world.standing(1).against(ComparedWith::Cohort).is_none());
}

#[test]
fn what_is_off_does_not_become_the_custom_and_is_well_again_when_it_is() {
    let mut world = World::new(7, 1, 10, 0.1);
    world.live(10, |_| 0.0);
    world.live(12, |place| if place == 3 { 1.0 } else { 0.0 });
    assert_eq!(world.with(DeviceNature::Alone), [3].into());
    assert!(world.standing(3).against(ComparedWith::Past).is_some());

    world.live(7, |_| 0.0);
    assert_eq!(world.with(DeviceNature::Steady).len(), 10);
}

#[test]
fn a_device_that_was_never_like_the_others_has_no_other_past() {
    let mut world = World::new(8, 1, 10, 0.1);
    world.live(14, |place| if place == 3 { 1.0 } else { 0.0 });
    let standing = world.standing(3);
    assert_eq!(standing.nature, DeviceNature::Alone);
    assert!(standing.against(ComparedWith::Past).is_none());
}

#[test]
fn who_says_nothing_for_long_is_forgotten() {
    let mut world = World::new(9, 1, 5, 0.0);
    world.live(3, |_| 0.0);
    let (gone, ..) = world.devices.remove(0);
    world.live(20, |_| 0.0);
    assert!(world.sensors.has_judged(&gone), "twenty minutes are not long");
    world.live(1, |_| 0.0);
    assert!(!world.sensors.has_judged(&gone));
    assert_eq!(world.sensors.standings().count(), 4);
}
