use sealift_protocol::digest::Digest;
use sealift_protocol::report::SlotReport;

use super::*;

fn model() -> ModelName {
    ModelName::parse("vision/digits").unwrap()
}

fn image(version: &str) -> ImageRef {
    let index = Digest::of(version.as_bytes());
    ImageRef { version: Version::parse(version).unwrap(), index }
}

/// A device that was told `told`, has followed `followed`, and serves a version.
fn device(name: &str, (told, followed): (u64, u64), version: &str) -> Known {
    Known {
        device: DeviceId::parse(name).unwrap(),
        told: Generation(told),
        followed: Generation(followed),
        has_returned: false,
        trusted: Some(Trusted {
            root: 1,
            timestamp: followed + 2,
            snapshot: 2,
            ..Trusted::default()
        }),
        slots: vec![SlotReport {
            serving: Some(image(version)),
            ..SlotReport::idle(model(), Generation(followed))
        }],
        desired: BTreeMap::from([(model(), Version::parse("1").unwrap())]),
    }
}

fn here() -> Here {
    Here {
        versions: Trusted { root: 1, timestamp: 4, snapshot: 3, ..Trusted::default() },
        rollouts: vec![(RolloutId(1), true), (RolloutId(2), false)],
        signed: BTreeSet::from([(model(), image("1"))]),
        lost_from: Some(UnixMillis(7)),
    }
}

#[test]
fn everything_jumps_above_what_any_device_has_followed() {
    let devices = [device("cam-1", (1, 1), "1"), device("cam-2", (1, 9), "2")];

    let plan = plan(&here(), &devices, Wishes::default());

    assert_eq!(plan.generation, Jump { here: 1, seen: 9, above: 9 + GENERATIONS });
    assert_eq!(plan.timestamp, Jump { here: 4, seen: 11, above: 11 + VERSIONS });
    assert_eq!(plan.snapshot, Jump { here: 3, seen: 2, above: 3 + VERSIONS });
    let ahead: Vec<_> = plan.ahead.iter().map(|ahead| ahead.device.as_str()).collect();
    assert_eq!(ahead, ["cam-2"], "cam-1 runs what it was told");
    assert_eq!(plan.paused, [RolloutId(1)]);
    assert_eq!(plan.missing_images, BTreeSet::from(["vision/digits@2".to_owned()]));
    assert_eq!(plan.lost_from, Some(UnixMillis(7)));
}

#[test]
fn a_stolen_device_cannot_make_the_fleet_jump_to_the_end_of_all_numbers() {
    let mut liar = device("cam-3", (1, 1 << 53), "1");
    liar.trusted = Some(Trusted { timestamp: 1 << 53, ..Trusted::default() });
    let devices = [device("cam-1", (1, 2), "1"), liar];

    let plan = plan(&here(), &devices, Wishes::default());

    assert_eq!(plan.implausible, [DeviceId::parse("cam-3").unwrap()]);
    assert_eq!((plan.generation.seen, plan.timestamp.seen), (2, 4));
    assert_eq!(plan.ahead.len(), 1);
}

#[test]
fn what_the_operator_knows_counts_beside_what_devices_say() {
    let wishes = Wishes {
        generation: 500,
        timestamp: 600,
        snapshot: 700,
        backup_at: Some(UnixMillis(3)),
        ..Wishes::default()
    };

    let plan = plan(&here(), &[device("cam-1", (1, 2), "1")], wishes);

    let seen = (plan.generation.seen, plan.timestamp.seen, plan.snapshot.seen);
    assert_eq!((seen, plan.lost_from), ((500, 600, 700), Some(UnixMillis(3))));
}

#[test]
fn roles_and_roots_that_only_people_can_give_back_are_named() {
    let mut ahead = device("cam-1", (1, 2), "1");
    let roles = BTreeMap::from([("publisher-vision".to_owned(), 5), ("targets".to_owned(), 1)]);
    ahead.trusted =
        Some(Trusted { root: 3, timestamp: 5, snapshot: 5, roles, ..Trusted::default() });
    let mut here = here();
    here.versions.roles =
        BTreeMap::from([("publisher-vision".to_owned(), 2), ("targets".to_owned(), 1)]);

    let plan = plan(&here, &[ahead], Wishes::default());

    let lost = Lost { role: "publisher-vision".to_owned(), here: 2, seen: 5 };
    assert_eq!(plan.lost_roles, [lost]);
    let to_do = plan.to_do().join("\n");
    assert!(to_do.contains("roots 2 to 3") && to_do.contains("trust hand-back"), "{to_do}");
}
