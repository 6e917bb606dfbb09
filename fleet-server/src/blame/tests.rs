//! A cause that was planted is found, and none is where there is none.

use super::*;

const SITES: [&str; 5] = ["osaka", "lyon", "austin", "turin", "hanoi"];
const FIRMWARE: [&str; 4] = ["2.0", "2.1", "2.2", "3.0"];

/// A fleet whose traits have nothing to do with each other; `affected` says who is.
fn fleet(seed: u64, devices: usize, affected: impl Fn(&Traits, f64) -> bool) -> Vec<Suspect> {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut pick = |of: &[&str]| of[chance.usize(0..of.len())].to_owned();
    let mut all = Vec::new();
    for serial in 0..devices {
        let traits = Traits::from([
            ("site".to_owned(), pick(&SITES)),
            ("camera_fw".to_owned(), pick(&FIRMWARE)),
            ("arch".to_owned(), pick(&["amd64", "arm64"])),
            ("line".to_owned(), pick(&["1", "2", "3", "4", "5", "6"])),
            ("vendor".to_owned(), "acme".to_owned()),
            ("serial".to_owned(), format!("s-{serial}")),
        ]);
        all.push(traits);
    }
    let suspect = |traits: Traits| {
        let is_affected = affected(&traits, chance.f64());
        Suspect { traits, is_affected }
    };
    all.into_iter().map(suspect).collect()
}

fn has(traits: &Traits, key: &str, value: &str) -> bool {
    traits.get(key).is_some_and(|given| given == value)
}

fn names(blame: &Blame) -> Vec<String> {
    blame.description.iter().map(|(key, value)| format!("{key}={value}")).collect()
}

#[test]
fn a_site_alone_is_blamed_and_none_of_its_parts() {
    for seed in 0..20 {
        let devices = fleet(seed, 400, |traits, chance| {
            has(traits, "site", "osaka") && chance < 0.8 || chance < 0.02
        });
        let blame = blame(&devices).unwrap();
        assert_eq!(names(&blame), ["site=osaka"], "seed {seed}: {blame:?}");
        assert!(blame.lift > 10.0 && blame.p < 1e-10, "{blame:?}");
    }
}

#[test]
fn two_traits_together_are_blamed_where_neither_alone_is_to_blame() {
    for seed in 0..20 {
        let devices = fleet(seed, 2_000, |traits, chance| {
            let is_both = has(traits, "site", "osaka") && has(traits, "camera_fw", "2.1");
            is_both && chance < 0.9 || chance < 0.01
        });
        let blame = blame(&devices).unwrap();
        assert_eq!(names(&blame), ["camera_fw=2.1", "site=osaka"], "seed {seed}: {blame:?}");
        assert!(blame.affected * 10 > blame.devices * 8, "{blame:?}");
    }
}

#[test]
fn chance_is_not_blamed() {
    let mut blamed = 0;
    for seed in 0..1_000 {
        let devices = fleet(seed, 200, |_, chance| chance < 0.1);
        blamed += u32::from(blame(&devices).is_some());
    }
    assert!(blamed <= 10, "{blamed} of 1,000 fleets in which nothing was to blame");
}

#[test]
fn a_trait_of_everybody_or_of_one_device_is_never_blamed() {
    let everybody = fleet(1, 100, |_, _| true);
    assert_eq!(blame(&everybody), None);
    let two =
        fleet(1, 100, |traits, _| has(traits, "serial", "s-4") || has(traits, "serial", "s-9"));
    assert_eq!(blame(&two), None);
    assert_eq!(blame(&[]), None);
}

#[test]
fn of_two_names_for_the_same_devices_the_first_is_given() {
    let mut devices = fleet(3, 300, |traits, chance| has(traits, "site", "lyon") && chance < 0.9);
    for device in &mut devices {
        let site = device.traits["site"].clone();
        device.traits.insert("zone".to_owned(), format!("z-{site}"));
    }
    assert_eq!(names(&blame(&devices).unwrap()), ["site=lyon"]);
}

#[test]
fn blame_says_how_many_in_words() {
    let blame = Blame {
        description: vec![
            ("site".to_owned(), "osaka".to_owned()),
            ("fw".to_owned(), "2.1".to_owned()),
        ],
        affected: 214,
        devices: 220,
        all_affected: 230,
        lift: 40.0,
        p: 1e-9,
    };
    assert_eq!(blame.to_string(), "site=osaka and fw=2.1: 214 of its 220 devices, of 230 affected");
}
