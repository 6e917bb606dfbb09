//! How often blame is laid where nothing is to blame, and how often a cause is found: `cargo xtask bench blame`.

#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement: small counts, and a clock that says how long it took"
)]

use std::time::Instant;

use sealift_fleet_server::blame::{Suspect, Traits, blame};
use sealift_fleet_server::sensors::{DeviceNature, Sensors};
use sealift_protocol::drift::{Policy, Scope, Window};
use sealift_protocol::id::{DeviceId, UnixMillis};
use sealift_protocol::profile::{Baseline, BaselineBuilder, Column, Profiler};

const FLEETS: u64 = 300;
const SITES: [&str; 8] = ["osaka", "lyon", "austin", "turin", "hanoi", "bonn", "quito", "oslo"];
const FIRMWARE: [&str; 4] = ["2.0", "2.1", "2.2", "3.0"];

/// Shares of affected devices: of those with the cause, and of all others.
type Shares = (f64, f64);

fn main() {
    println!("{FLEETS} fleets of each kind");
    println!("{:>8} {:40} {:>8} {:>8} {:>8}", "devices", "affected", "right", "other", "none");
    for devices in [50, 500, 5_000] {
        for share in [0.02, 0.1, 0.3] {
            tell(devices, &format!("{:.0} % by chance", share * 100.0), &[], (0.0, share));
        }
        for shares in [(0.9, 0.01), (0.5, 0.05), (0.2, 0.05)] {
            for cause in [&[("site", "osaka")][..], &[("camera_fw", "2.1"), ("site", "osaka")][..]]
            {
                let (with, without) = (shares.0 * 100.0, shares.1 * 100.0);
                let words: Vec<_> =
                    cause.iter().map(|(key, value)| format!("{key}={value}")).collect();
                tell(
                    devices,
                    &format!("{} {with:.0} %, else {without:.0} %", words.join(",")),
                    cause,
                    shares,
                );
            }
        }
    }
    println!(
        "\n{DRIFTING} fleets of 200 devices of each kind, which see rows and are judged by them"
    );
    println!(
        "{:40} {:>8} {:>8} {:>8} {:>14} {:>14}",
        "drifting", "right", "other", "none", "named sensors", "wrongly named"
    );
    for (name, cause, shift) in [
        ("nobody", &[][..], 0.0),
        ("one device by 1 sd", &[("serial", "s-7")][..], 1.0),
        ("site=osaka by 0.3 sd", &[("site", "osaka")][..], 0.3),
        ("site=osaka by 1 sd", &[("site", "osaka")][..], 1.0),
        ("fw=2.1 by 0.5 sd", &[("camera_fw", "2.1")][..], 0.5),
        ("fw=2.1, site=osaka by 0.5 sd", &[("camera_fw", "2.1"), ("site", "osaka")][..], 0.5),
        ("everybody by 0.5 sd", &[("maker", "acme")][..], 0.5),
    ] {
        tell_drift(name, cause, shift);
    }
}

/// Fleets of one kind that are judged by the rows that they see.
const DRIFTING: u64 = 10;
/// Rounds before anything changes, and after.
const ROUNDS: (i64, i64) = (8, 4);
const ROWS: usize = 200;
const ROUND_MS: i64 = 60_000;

fn tell_drift(name: &str, cause: &[(&str, &str)], shift: f32) {
    let (mut right, mut other, mut none, mut named, mut wrongly) = (0, 0, 0, 0, 0);
    for seed in 1_000..1_000 + DRIFTING {
        let mut devices = fleet(seed, 200, cause, (1.0, 0.0));
        for device in &mut devices {
            device.traits.insert("maker".to_owned(), "acme".to_owned());
            let has = |(key, value): &(&str, &str)| {
                device.traits.get(*key).map(String::as_str) == Some(*value)
            };
            device.is_affected = !cause.is_empty() && cause.iter().all(has);
        }
        let sensors = lived(seed, &devices, shift);
        let mut judged = devices.clone();
        for (device, standing) in judged.iter_mut().zip(sensors.standings()) {
            device.is_affected = standing.is_off();
        }
        for (device, standing) in devices.iter().zip(sensors.standings()) {
            if standing.nature == DeviceNature::Alone {
                if device.is_affected { named += 1 } else { wrongly += 1 }
            }
        }
        match blame(&judged) {
            None => none += 1,
            Some(found) => {
                let given =
                    found.description.iter().map(|(key, value)| (key.as_str(), value.as_str()));
                if given.eq(cause.iter().copied()) { right += 1 } else { other += 1 }
            }
        }
    }
    println!("{name:40} {right:>8} {other:>8} {none:>8} {named:>14} {wrongly:>14}");
}

/// What is thought of devices after all rounds; their names have the order of the list.
fn lived(seed: u64, devices: &[Suspect], shift: f32) -> Sensors {
    let mut chance = fastrand::Rng::with_seed(seed);
    let baseline = baseline(&mut chance);
    let beside: Vec<f32> = devices.iter().map(|_| 0.1 * (chance.f32() - 0.5)).collect();
    let mut sensors = Sensors::default();
    let mut profiler = Profiler::new(&baseline);
    for round in 1..=ROUNDS.0 + ROUNDS.1 {
        let until = UnixMillis(round * ROUND_MS);
        for (place, device) in devices.iter().enumerate() {
            let by = if device.is_affected && round > ROUNDS.0 { shift } else { 0.0 };
            for _ in 0..ROWS {
                let row = [by + beside[place], beside[place], 0.0, 0.0]
                    .map(|off| off + bell(&mut chance));
                profiler.observe(&row, None, None, None);
            }
            let window = Window { from: until.plus(-ROUND_MS), until, profile: profiler.close() };
            let id = DeviceId::parse(&format!("cam-{place:05}")).expect("a name of a device");
            let site = device.traits["site"].clone();
            let cohort = Scope::Cohort { key: "site".to_owned(), value: site };
            sensors.take(&id, &cohort, &window).expect("a window of this baseline");
        }
        sensors
            .end_round(&baseline, &Policy::default(), (until, ROUND_MS))
            .expect("windows of this baseline");
    }
    sensors
}

fn baseline(chance: &mut fastrand::Rng) -> Baseline {
    let columns = (0..4).map(|place| Column::numeric(&format!("x{place}"), "all")).collect();
    let mut builder = BaselineBuilder::new(columns, vec![]);
    for _ in 0..2_000 {
        let row: Vec<f64> = (0..4).map(|_| f64::from(bell(chance))).collect();
        builder.push(&row, None, None).expect("a row of four");
    }
    builder.build().expect("two thousand rows")
}

/// Roughly a bell curve.
fn bell(chance: &mut fastrand::Rng) -> f32 {
    (0..12).map(|_| chance.f32()).sum::<f32>() - 6.0
}

fn tell(devices: usize, name: &str, cause: &[(&str, &str)], shares: Shares) {
    let fleets = if devices > 1_000 { FLEETS / 10 } else { FLEETS };
    let begun = Instant::now();
    let (mut right, mut other) = (0, 0);
    for seed in 0..fleets {
        let Some(found) = blame(&fleet(seed, devices, cause, shares)) else { continue };
        let given = found.description.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        if given.eq(cause.iter().copied()) { right += 1 } else { other += 1 }
    }
    let none = fleets - right - other;
    let each = begun.elapsed().as_micros() / u128::from(fleets);
    println!("{devices:>8} {name:40} {right:>8} {other:>8} {none:>8}   {each} us each");
}

fn fleet(
    seed: u64,
    devices: usize,
    cause: &[(&str, &str)],
    (with, without): Shares,
) -> Vec<Suspect> {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut pick = |of: &[&str]| of[chance.usize(0..of.len())].to_owned();
    let mut all = Vec::with_capacity(devices);
    for serial in 0..devices {
        all.push(Traits::from([
            ("site".to_owned(), pick(&SITES)),
            ("camera_fw".to_owned(), pick(&FIRMWARE)),
            ("architecture".to_owned(), pick(&["amd64", "arm64"])),
            ("line".to_owned(), pick(&["1", "2", "3", "4", "5", "6"])),
            ("memory_gb".to_owned(), pick(&["2", "4", "8"])),
            ("serial".to_owned(), format!("s-{serial}")),
        ]));
    }
    let suspect = |traits: Traits| {
        let has =
            |(key, value): &(&str, &str)| traits.get(*key).is_some_and(|given| given == value);
        let share = if !cause.is_empty() && cause.iter().all(has) { with } else { without };
        let is_affected = chance.f64() < share;
        Suspect { traits, is_affected }
    };
    all.into_iter().map(suspect).collect()
}
