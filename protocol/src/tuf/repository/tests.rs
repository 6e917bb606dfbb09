//! What the server takes from key holders, and what it makes of it.

use super::*;
use crate::id::TeamId;
use crate::tuf::bundle::Revocations;
use crate::tuf::client::Want;
use crate::tuf::key::Algorithm;
use crate::tuf::key::Key;
use crate::tuf::metadata::TargetFile;
use crate::tuf::testing::{DAY_MS, Device, HOUR_MS, MODEL, NOW, PUBLISHER, World, key};
use crate::tuf::{BUNDLE_PATH, REVOCATIONS_PATH, REVOCATIONS_ROLE, RUNTIME_ROLE, publisher_role};
use std::num::NonZeroU32;

const ONE: NonZeroU32 = NonZeroU32::MIN;

fn draft(world: &World, name: &str, signer: &SigningKey) -> TargetsDraft {
    let current = world.repository.delegated(name).unwrap().to_vec();
    TargetsDraft::next(Role::Delegated(name.into()), current, &[signer.public()]).unwrap()
}

fn accept(world: &mut World, change: Change) -> Result<Vec<Persist>, TufError> {
    let online = World::online(&world.keys);
    world.repository.accept(change, online, NOW)
}

#[test]
fn the_ceremony_makes_every_role_with_its_threshold_and_life() {
    let world = World::new();
    let root = world.repository.root();

    assert_eq!(root.roles.root.threshold.get(), 2);
    assert_eq!(root.roles.targets.keyids.len(), 3);
    assert_eq!(root.expires, NOW.plus(365 * DAY_MS));
    assert_eq!(world.repository.targets().expires, NOW.plus(180 * DAY_MS));
    assert_eq!(world.repository.timestamp().expires, NOW.plus(DAY_MS));
    let names = world.repository.targets().delegations.as_ref().unwrap();
    assert_eq!(names.names(), [PUBLISHER, REVOCATIONS_ROLE, RUNTIME_ROLE]);
    assert_eq!(names.role(RUNTIME_ROLE).unwrap().keys.threshold.get(), 2);
    assert!(names.role(PUBLISHER).unwrap().is_terminating);
}

#[test]
fn a_reopened_repository_is_the_same() {
    let world = World::new();
    let files = world.repository.files().clone();
    let reopened = Repository::open(files, Lifetimes::ONLINE).unwrap();
    assert_eq!(reopened.files(), world.repository.files());
    assert_eq!(reopened.timestamp().version, world.repository.timestamp().version);
}

#[test]
fn changes_carried_out_in_order_are_the_repository() {
    let mut world = World::new();
    let mut files = world.repository.files().clone();

    let changes = world.publish("models/vision/digits/8", NOW).unwrap();

    let names: Vec<_> = changes.iter().map(Persist::name).collect();
    assert_eq!(names, ["3.publisher-vision.json", "3.snapshot.json", "timestamp.json"]);
    for change in changes {
        // Killed before any of them, the repository still opens.
        Repository::open(files.clone(), Lifetimes::ONLINE).unwrap();
        let Persist::Write { name, bytes } = change else { panic!("nothing is old yet") };
        files.insert(name, bytes);
    }
    assert_eq!(files, *world.repository.files());
}

#[test]
fn a_tampered_repository_does_not_open() {
    let world = World::new();
    let sound = world.repository.files();
    let current = ["1.root.json", "timestamp.json", "2.snapshot.json", "1.targets.json"];
    for name in current.into_iter().chain(["2.publisher-vision.json", "1.revocations.json"]) {
        let mut files = sound.clone();
        let text = String::from_utf8(files[name].clone()).unwrap();
        let altered = text.replacen("\"expires\":\"2", "\"expires\":\"3", 1);
        files.insert(name.into(), altered.into_bytes());
        assert!(Repository::open(files.clone(), Lifetimes::ONLINE).is_err(), "{name}");
        files.remove(name);
        assert!(Repository::open(files, Lifetimes::ONLINE).is_err(), "{name}");
    }
}

#[test]
fn a_version_that_does_not_follow_is_refused() {
    let mut world = World::new();
    let publisher = world.keys.publisher.clone();
    let again = world.repository.delegated(PUBLISHER).unwrap().to_vec();
    let refused = accept(&mut world, Change::of(PUBLISHER, again)).unwrap_err();
    assert!(matches!(refused, TufError::Version { expected: 3, offered: 2, .. }), "{refused}");

    let skipped = draft(&world, PUBLISHER, &publisher).sign(NOW.plus(DAY_MS), &[&publisher]);
    let role = Role::Delegated(PUBLISHER.into());
    let skipped = TargetsDraft::next(role, skipped.unwrap(), &[publisher.public()]).unwrap();
    let skipped = skipped.sign(NOW.plus(DAY_MS), &[&publisher]).unwrap();
    let refused = accept(&mut world, Change::of(PUBLISHER, skipped)).unwrap_err();
    assert!(matches!(refused, TufError::Version { expected: 3, offered: 4, .. }), "{refused}");
}

#[test]
fn what_devices_would_refuse_is_not_published() {
    let mut world = World::new();
    let before = world.repository.files().clone();
    let (publisher, stranger) = (world.keys.publisher.clone(), key("stranger"));
    let next = draft(&world, PUBLISHER, &publisher);

    let forged = next.clone().sign(NOW.plus(DAY_MS), &[&stranger]).unwrap();
    let refused = accept(&mut world, Change::of(PUBLISHER, forged)).unwrap_err();
    assert_eq!(refused.code(), "tuf.delegated.threshold");

    let expired = next.clone().sign(NOW, &[&publisher]).unwrap();
    let refused = accept(&mut world, Change::of(PUBLISHER, expired)).unwrap_err();
    assert_eq!(refused.code(), "tuf.delegated.expired");

    let mut foreign = next.clone();
    foreign.set("models/audio/speech/1", TargetFile::of(b""));
    let foreign = foreign.sign(NOW.plus(DAY_MS), &[&publisher]).unwrap();
    let refused = accept(&mut world, Change::of(PUBLISHER, foreign)).unwrap_err();
    assert_eq!(refused.code(), "tuf.outside-paths");

    let mut further = next.clone();
    let keys = [stranger.public()];
    let team = TeamId::parse("vision2").unwrap();
    further.delegate(publisher_delegation(&team, &keys, ONE), &keys);
    let further = further.sign(NOW.plus(DAY_MS), &[&publisher]).unwrap();
    let refused = accept(&mut world, Change::of(PUBLISHER, further)).unwrap_err();
    assert_eq!(refused.code(), "tuf.subdelegation");

    let sound = next.sign(NOW.plus(DAY_MS), &[&publisher]).unwrap();
    let refused = accept(&mut world, Change::of("publisher-audio", sound)).unwrap_err();
    assert_eq!(refused.code(), "tuf.unknown-role");
    assert_eq!(*world.repository.files(), before);
}

#[test]
fn a_wrong_online_key_publishes_nothing() {
    let mut world = World::new();
    let before = world.repository.files().clone();
    let stranger = key("stranger");
    for (snapshot, timestamp, code) in [
        (&stranger, &world.keys.timestamp, "tuf.snapshot.threshold"),
        (&world.keys.snapshot, &stranger, "tuf.timestamp.threshold"),
    ] {
        let online = OnlineKeys { snapshot, timestamp };
        let late = NOW.plus(5 * DAY_MS);
        let refused = world.repository.refresh_timestamp(online, late).unwrap_err();
        assert_eq!(refused.code(), code);
    }
    assert_eq!(*world.repository.files(), before);
}

#[test]
fn revocations_reach_devices_and_need_their_file() {
    let mut world = World::new();
    let on_call = world.keys.revocations.clone();
    let mut revocations = Revocations::default();
    revocations.images.insert(crate::digest::Digest::of(b"bad image"));
    let file = revocations.to_bytes();
    let mut next = draft(&world, REVOCATIONS_ROLE, &on_call);
    next.set(REVOCATIONS_PATH, TargetFile::of(&file));
    let metadata = next.sign(NOW.plus(30 * DAY_MS), &[&on_call]).unwrap();

    let alone = accept(&mut world, Change::of(REVOCATIONS_ROLE, metadata.clone())).unwrap_err();
    assert_eq!(alone.code(), "tuf.missing");
    let wrong = BTreeMap::from([(REVOCATIONS_PATH.to_owned(), b"{}".to_vec())]);
    let wrong = Change::of(REVOCATIONS_ROLE, metadata.clone()).with_files(wrong);
    assert_eq!(accept(&mut world, wrong).unwrap_err().code(), "tuf.mismatch");
    let files = BTreeMap::from([(REVOCATIONS_PATH.to_owned(), file)]);
    accept(&mut world, Change::of(REVOCATIONS_ROLE, metadata).with_files(files)).unwrap();

    let mut device = Device::new(world.repository.files());
    let wants = [Want::File(REVOCATIONS_PATH.into())];
    let client = device.update(world.repository.files(), &wants, NOW).unwrap();
    let read = Revocations::parse(client.file(REVOCATIONS_PATH).unwrap()).unwrap();
    assert_eq!(read, revocations);
}

#[test]
fn the_timestamp_is_renewed_alone_until_half_of_the_snapshots_life() {
    let mut world = World::new();

    let early = world.refresh(NOW.plus(3 * DAY_MS));
    let late = world.refresh(NOW.plus(4 * DAY_MS));

    assert_eq!(early.iter().map(Persist::name).collect::<Vec<_>>(), ["timestamp.json"]);
    let names: Vec<_> = late.iter().map(Persist::name).collect();
    assert_eq!(names, ["3.snapshot.json", "timestamp.json"]);
    let mut device = Device::new(world.repository.files());
    let late = NOW.plus(4 * DAY_MS + HOUR_MS);
    device.update(world.repository.files(), &[Want::Entry(MODEL.into())], late).unwrap();
}

#[test]
fn a_new_team_publishes_after_the_holders_of_targets_delegate_to_it() {
    let mut world = World::new();
    let (audio, team) = (key("audio"), TeamId::parse("audio").unwrap());
    let name = publisher_role(&team);
    let holders = world.keys.targets.clone();
    let current = world.repository.targets().clone();
    let mut targets = TargetsDraft::after(Role::Targets, current);
    let keys = [audio.public()];
    targets.delegate(publisher_delegation(&team, &keys, ONE), &keys);
    // Two holders, each at a desk of their own.
    let metadata = targets.sign(NOW.plus(DAY_MS), &[&holders[0]]).unwrap();
    let alone = accept(&mut world, Change::of("targets", metadata.clone()));
    assert_eq!(alone.unwrap_err().code(), "tuf.targets.threshold");
    let metadata = signed::add_signature(&Role::Targets, &metadata, &holders[2]).unwrap();
    accept(&mut world, Change::of("targets", metadata)).unwrap();

    let mut first = TargetsDraft::first(Role::Delegated(name.clone()));
    first.set("models/audio/speech/1", TargetFile::of(b"index"));
    let first = first.sign(NOW.plus(DAY_MS), &[&audio]).unwrap();
    accept(&mut world, Change::of(&name, first)).unwrap();

    let mut device = Device::new(world.repository.files());
    let wants = ["models/audio/speech/1", MODEL].map(|path| Want::Entry(path.into()));
    device.update(world.repository.files(), &wants, NOW).unwrap();
}

#[test]
fn a_team_whose_delegation_has_ended_is_no_longer_believed() {
    let mut world = World::new();
    let mut device = Device::new(world.repository.files());
    device.update(world.repository.files(), &[Want::Entry(MODEL.into())], NOW).unwrap();
    let holders = world.keys.targets.clone();
    let mut targets = TargetsDraft::after(Role::Targets, world.repository.targets().clone());
    assert!(targets.undelegate(PUBLISHER));
    let metadata = targets.sign(NOW.plus(DAY_MS), &[&holders[0], &holders[1]]).unwrap();
    accept(&mut world, Change::of("targets", metadata)).unwrap();

    let refusal = device.refusal(world.repository.files(), &[Want::Entry(MODEL.into())]);

    assert_eq!(refusal, "tuf.no-target");
    Repository::open(world.repository.files().clone(), Lifetimes::ONLINE).unwrap();
}

#[test]
fn stolen_online_keys_are_replaced_by_a_root() {
    let mut world = World::new();
    let mut device = Device::new(world.repository.files());
    device.update(world.repository.files(), &[], NOW).unwrap();
    let before = world.repository.files().clone();
    let fresh = [key("fresh snapshot"), key("fresh timestamp")];
    let mut root = RootDraft::after(world.repository.root().clone());
    root.set_keys(&Role::Snapshot, &[fresh[0].public()], ONE).unwrap();
    root.set_keys(&Role::Timestamp, &[fresh[1].public()], ONE).unwrap();
    let holders = &world.keys.root;
    let root = root.sign(NOW.plus(DAY_MS), &[&holders[0], &holders[1]]).unwrap();
    let stolen = World::online(&world.keys);
    let refused =
        world.repository.accept(Change::of("root", root.clone()), stolen, NOW).unwrap_err();
    assert_eq!(refused.code(), "tuf.snapshot.threshold");
    assert_eq!(*world.repository.files(), before);

    let online = OnlineKeys { snapshot: &fresh[0], timestamp: &fresh[1] };
    let changes = world.repository.accept(Change::of("root", root), online, NOW).unwrap();

    device.update(world.repository.files(), &[Want::File(BUNDLE_PATH.into())], NOW).unwrap();
    assert_eq!(device.disk["root.json"], world.repository.files()["2.root.json"]);

    // Killed after any of the writes, the server starts, and its next timestamp is one that devices take.
    let mut files = before;
    for change in changes {
        let Persist::Write { name, bytes } = change else { panic!("nothing is old yet") };
        files.insert(name, bytes);
        let mut reopened = Repository::open(files.clone(), Lifetimes::ONLINE).unwrap();
        if reopened.root().version == 2 {
            reopened.refresh_timestamp(online, NOW).unwrap();
            Device::new(reopened.files()).update(reopened.files(), &[], NOW).unwrap();
        }
    }
}

#[test]
fn a_root_that_leaves_targets_unverifiable_is_refused() {
    let mut world = World::new();
    let mut root = RootDraft::after(world.repository.root().clone());
    root.set_keys(&Role::Targets, &[key("fresh").public()], ONE).unwrap();
    let holders = &world.keys.root;
    let root = root.sign(NOW.plus(DAY_MS), &[&holders[0], &holders[1]]).unwrap();
    let refused = accept(&mut world, Change::of("root", root)).unwrap_err();
    assert_eq!(refused.code(), "tuf.targets.threshold");
}

/// The next targets, in which the team has these keys alone.
fn delegated_to(world: &World, keys: &[Key]) -> Vec<u8> {
    let team = TeamId::parse("vision").unwrap();
    let mut targets = TargetsDraft::after(Role::Targets, world.repository.targets().clone());
    targets.delegate(publisher_delegation(&team, keys, ONE), keys);
    let holders = &world.keys.targets;
    targets.sign(NOW.plus(DAY_MS), &[&holders[0], &holders[1]]).unwrap()
}

#[test]
fn a_publishers_lost_key_is_replaced_in_one_snapshot() {
    let mut world = World::new();
    let mut device = Device::new(world.repository.files());
    device.update(world.repository.files(), &[Want::Entry(MODEL.into())], NOW).unwrap();
    let fresh = SigningKey::generate(Algorithm::P256, &[3; 32]).unwrap();
    let targets = delegated_to(&world, &[fresh.public()]);

    let alone = accept(&mut world, Change::of("targets", targets.clone())).unwrap_err();
    assert_eq!(alone.code(), "tuf.delegated.threshold");
    let publisher = world.keys.publisher.clone();
    let again = draft(&world, PUBLISHER, &publisher).sign(NOW.plus(DAY_MS), &[&fresh]).unwrap();
    let mut change = Change::of("targets", targets);
    change.targets.insert(PUBLISHER.into(), again);
    accept(&mut world, change).unwrap();

    assert!(!world.repository.files().contains_key("4.snapshot.json"), "it took two snapshots");
    device.update(world.repository.files(), &[Want::Entry(MODEL.into())], NOW).unwrap();
    let by_thief = draft(&world, PUBLISHER, &fresh).sign(NOW.plus(DAY_MS), &[&publisher]).unwrap();
    let refused = accept(&mut world, Change::of(PUBLISHER, by_thief)).unwrap_err();
    assert_eq!(refused.code(), "tuf.delegated.threshold");
}

#[test]
fn a_root_with_other_holders_of_targets_brings_targets_that_they_signed() {
    let mut world = World::new();
    let mut device = Device::new(world.repository.files());
    let fresh = key("fresh");
    let mut root = RootDraft::after(world.repository.root().clone());
    root.set_keys(&Role::Targets, &[fresh.public()], ONE).unwrap();
    let holders = &world.keys.root;
    let root = root.sign(NOW.plus(DAY_MS), &[&holders[0], &holders[1]]).unwrap();
    let targets = TargetsDraft::after(Role::Targets, world.repository.targets().clone());
    let mut change = Change::of("root", root);
    change.targets.insert("targets".into(), targets.sign(NOW.plus(DAY_MS), &[&fresh]).unwrap());

    accept(&mut world, change).unwrap();

    device.update(world.repository.files(), &[Want::Entry(MODEL.into())], NOW).unwrap();
}

#[test]
fn a_copy_catches_up_by_any_number_of_versions_and_never_goes_back() {
    let mut ahead = World::new();
    let mut behind = ahead.repository.clone();
    for version in 8..12 {
        ahead.publish(&format!("models/vision/digits/{version}"), NOW).unwrap();
    }
    let newest = ahead.repository.delegated(PUBLISHER).unwrap().to_vec();
    let online = World::online(&ahead.keys);
    let change = Change::of(PUBLISHER, newest);
    let step = behind.accept(change.clone(), online, NOW).unwrap_err();
    assert_eq!(step.code(), "tuf.delegated.version");

    let change = Change { pace: Pace::CatchUp, ..change };
    behind.accept(change.clone(), online, NOW).unwrap();

    assert_eq!(behind.delegated(PUBLISHER), ahead.repository.delegated(PUBLISHER));
    assert_eq!(behind.accept(change, online, NOW).unwrap_err().code(), "tuf.delegated.version");
}

#[test]
fn a_draft_on_metadata_that_the_signer_never_signed_is_refused() {
    let world = World::new();
    let current = world.repository.delegated(PUBLISHER).unwrap().to_vec();
    let role = Role::Delegated(PUBLISHER.into());
    let refused = TargetsDraft::next(role, current, &[key("stranger").public()]).unwrap_err();
    assert_eq!(refused.code(), "tuf.delegated.threshold");
}

#[test]
fn old_snapshots_are_removed_and_roots_are_not() {
    let mut world = World::new();
    for number in 0..120 {
        world.publish(&format!("models/vision/digits/{number}"), NOW).unwrap();
    }
    let files = world.repository.files();
    assert!(files.contains_key("1.root.json") && files.contains_key("23.snapshot.json"));
    assert!(!files.contains_key("22.snapshot.json"));
    assert!(!files.contains_key("22.publisher-vision.json"));
    Repository::open(files.clone(), Lifetimes::ONLINE).unwrap();
}

#[test]
fn air_gapped_metadata_lives_for_months() {
    let lifetimes = Lifetimes::AIR_GAPPED;
    assert_eq!(lifetimes.snapshot_ms, 90 * DAY_MS);
    assert_eq!(lifetimes.timestamp_ms, 30 * DAY_MS);
    assert_eq!(lifetimes.root_ms, Lifetimes::ONLINE.root_ms);
}
