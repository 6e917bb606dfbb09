//! A device's updates, and every way to lead it astray.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use super::*;
use crate::id::Epoch;
use crate::tuf::json;
use crate::tuf::key::SigningKey;
use crate::tuf::testing::{
    DAY_MS, Device, Files, HOUR_MS, MODEL, Mirror, NOW, PUBLISHER, World, bundle, key,
};
use crate::tuf::{BUNDLE_PATH, REVOCATIONS_PATH};

mod attacks;
mod delegations;

fn wants() -> Vec<Want> {
    let file = |path: &str| Want::File(path.to_owned());
    vec![file(BUNDLE_PATH), file(REVOCATIONS_PATH), model()]
}

fn model() -> Want {
    Want::Entry(MODEL.to_owned())
}

#[test]
fn a_new_device_learns_bundle_revocations_and_model() {
    let world = World::new();
    let files = world.repository.files();
    let mut device = Device::new(files);

    let client = device.update(files, &wants(), NOW).unwrap();

    assert_eq!(client.file(BUNDLE_PATH), Some(bundle().to_bytes().as_slice()));
    assert!(client.file(REVOCATIONS_PATH).is_some());
    let target = client.target(MODEL).unwrap();
    target.check(MODEL, MODEL.as_bytes()).unwrap();
    assert_eq!(target.epoch(), Some(Epoch(3)));
    let bundle_file = format!("targets/trust/{}.bundle.json", bundle_digest());
    let metadata = ["2.root.json", "timestamp.json", "2.snapshot.json", "1.targets.json"];
    assert_eq!(device.fetched[..4], metadata);
    assert_eq!(device.fetched[4..6], [bundle_file, "1.revocations.json".into()]);
    assert_eq!(device.fetched[7..], ["2.publisher-vision.json"]);
}

fn bundle_digest() -> String {
    crate::digest::Digest::of(&bundle().to_bytes()).hex()
}

#[test]
fn what_is_persisted_are_the_bytes_that_were_served() {
    let world = World::new();
    let files = world.repository.files();
    let mut device = Device::new(files);

    device.update(files, &wants(), NOW).unwrap();

    for (kept, served) in [
        ("root.json", "1.root.json"),
        ("timestamp.json", "timestamp.json"),
        ("snapshot.json", "2.snapshot.json"),
        ("targets.json", "1.targets.json"),
        ("publisher-vision.json", "2.publisher-vision.json"),
        ("revocations.json", "1.revocations.json"),
    ] {
        assert_eq!(device.disk[kept], files[served], "{kept}");
    }
    assert_eq!(device.disk["targets/trust/bundle.json"], bundle().to_bytes());
    assert_eq!(device.disk.len(), 8);
}

#[test]
fn a_device_that_is_up_to_date_asks_for_root_and_timestamp_only() {
    let mut world = World::new();
    let mut device = Device::new(world.repository.files());
    device.update(world.repository.files(), &wants(), NOW).unwrap();

    world.refresh(NOW.plus(HOUR_MS));
    let client = device.update(world.repository.files(), &wants(), NOW).unwrap();

    assert_eq!(device.fetched, ["2.root.json", "timestamp.json"]);
    assert!(client.target(MODEL).is_ok() && client.file(BUNDLE_PATH).is_some());
}

#[test]
fn a_newly_published_version_reaches_the_device() {
    let mut world = World::new();
    let mut device = Device::new(world.repository.files());
    device.update(world.repository.files(), &wants(), NOW).unwrap();

    world.publish("models/vision/digits/8", NOW).unwrap();
    let wanted = [Want::Entry("models/vision/digits/8".into())];
    let client = device.update(world.repository.files(), &wanted, NOW).unwrap();

    assert!(client.target("models/vision/digits/8").is_ok());
    assert!(client.target(MODEL).is_ok());
}

#[test]
fn without_its_repository_a_device_takes_up_what_it_persisted() {
    let world = World::new();
    let mut device = Device::new(world.repository.files());
    device.update(world.repository.files(), &wants(), NOW).unwrap();
    let mut client = Client::open(device.disk, RoleNames::Plain).unwrap();

    client.resume(NOW).unwrap();
    client.want(model());

    assert_eq!(client.need().unwrap(), None);
    assert!(client.target(MODEL).is_ok());
    let expired = client.resume(NOW.plus(2 * DAY_MS)).unwrap_err();
    assert_eq!(expired.code(), "tuf.timestamp.expired");
    assert_eq!(client.target(MODEL).unwrap_err().code(), "tuf.not-ready");
}

#[test]
fn a_repository_without_consistent_snapshots_is_read_too() {
    let mut mirror = Mirror::without_digests();
    let holders = mirror.signers("root.json");
    let holders: Vec<_> = holders.iter().collect();
    mirror.edit("1.root.json", &holders, |body| body["consistent_snapshot"] = false.into());
    let digest = format!("{}.", bundle_digest());
    let bundle_file = format!("targets/trust/{digest}bundle.json");
    let newest = ["timestamp.json", "2.snapshot.json", "1.targets.json", "2.publisher-vision.json"];
    let mut plain = Files::new();
    for served in newest.into_iter().chain(["1.root.json", &bundle_file]) {
        let unversioned = served.trim_start_matches("1.").trim_start_matches("2.");
        plain.insert(unversioned.replace(&digest, ""), mirror.files[served].clone());
    }
    plain.insert("1.root.json".into(), mirror.files["1.root.json"].clone());
    let mut device = Device::new(&plain);

    let client = device.update(&plain, &[model(), Want::File(BUNDLE_PATH.into())], NOW).unwrap();

    assert!(client.target(MODEL).is_ok());
    let metadata = ["2.root.json", "timestamp.json", "snapshot.json", "targets.json"];
    assert_eq!(device.fetched[..4], metadata);
    assert_eq!(device.fetched[4..], ["publisher-vision.json", "targets/trust/bundle.json"]);
}

#[test]
fn damaged_files_on_disk_are_fetched_anew() {
    let world = World::new();
    let files = world.repository.files();
    let mut device = Device::new(files);
    device.update(files, &wants(), NOW).unwrap();
    let sound = device.disk.clone();
    for name in sound.keys().filter(|name| *name != "root.json") {
        device.disk.insert(name.clone(), b"{".to_vec());
    }

    device.update(files, &wants(), NOW).unwrap();

    assert_eq!(device.disk, sound);
}

#[test]
fn a_damaged_or_missing_root_on_disk_is_refused() {
    let mut device = Device::new(World::new().repository.files());
    device.disk.insert("root.json".into(), b"{}".to_vec());
    assert_eq!(device.refusal(&Files::new(), &[]), "tuf.root.malformed");
    device.disk.clear();
    assert_eq!(device.refusal(&Files::new(), &[]), "tuf.missing");
}

#[test]
fn an_answer_that_was_not_asked_for_is_refused() {
    let world = World::new();
    let mut client = Client::open(Device::new(world.repository.files()).disk, RoleNames::Plain);
    let refused = client.as_mut().unwrap().on(Some(Vec::new())).unwrap_err();
    assert_eq!(refused.code(), "tuf.unasked");
}

#[test]
fn nothing_is_known_before_an_update() {
    let world = World::new();
    let mut client =
        Client::open(Device::new(world.repository.files()).disk, RoleNames::Plain).unwrap();
    assert_eq!(client.target(MODEL).unwrap_err().code(), "tuf.not-ready");
    client.want(model());
    assert_eq!(client.need().unwrap_err().code(), "tuf.not-ready");
}

/// What a file says, if it says anything.
fn meaning(bytes: &[u8]) -> Option<Value> {
    json::parse(bytes).ok()?.get("signed").cloned()
}

/// A world with a second root, made once: signing it takes longer than a case.
fn two_roots() -> Files {
    let mut mirror = World::new().mirror();
    let holders = mirror.keys.root.clone();
    let holders: Vec<_> = holders.iter().collect();
    mirror.copy("1.root.json", "2.root.json", &holders, |body| body["version"] = 2.into());
    mirror.files
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn one_flipped_bit_anywhere_is_refused_or_means_the_same(
        file in any::<Index>(), byte in any::<Index>(), bit in 0..8_u8,
    ) {
        static FILES: std::sync::LazyLock<Files> = std::sync::LazyLock::new(two_roots);
        let mut files = FILES.clone();
        let name = file.get(&files.keys().collect::<Vec<_>>()).to_owned().clone();
        let bytes = files.get_mut(&name).unwrap();
        let before = meaning(bytes);
        let position = byte.index(bytes.len());
        bytes[position] ^= 1 << bit;
        let after = meaning(bytes);
        let mut device = Device::new(&files);

        let outcome = device.update(&files, &wants(), NOW);

        // Superseded files are never fetched; all others must be refused, unless white space or a spare signature was hit.
        let is_fetched = device.fetched.contains(&name) || name == "1.root.json";
        let is_the_same = before.is_some() && before == after;
        prop_assert!(!is_fetched || outcome.is_err() || is_the_same, "{name} at {position}");
    }
}
