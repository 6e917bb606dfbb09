//! How often blame is laid where nothing is to blame, and how often a cause is found: `cargo xtask bench blame`.

#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement: small counts, and a clock that says how long it took"
)]

use std::time::Instant;

use sealift_fleet_server::blame::{Suspect, Traits, blame};

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
