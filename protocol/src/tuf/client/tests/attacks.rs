//! Attacks on top-level metadata.

use super::*;

/// Every metadata file of a small repository, and the role that it is of.
const METADATA: [(&str, &str); 6] = [
    ("2.root.json", "root"),
    ("timestamp.json", "timestamp"),
    ("2.snapshot.json", "snapshot"),
    ("1.targets.json", "targets"),
    ("2.publisher-vision.json", "delegated"),
    ("1.revocations.json", "delegated"),
];

/// A mirror with a second root, so that every role's file is one that a device fetches.
fn mirror() -> Mirror {
    let mut mirror = Mirror::without_digests();
    sign_root(&mut mirror, 2, &[], |_| {});
    mirror
}

/// Signs a root by all holders, and by others as well.
fn sign_root(
    mirror: &mut Mirror,
    version: u64,
    others: &[&SigningKey],
    edit: impl FnOnce(&mut Value),
) {
    let holders = mirror.keys.root.clone();
    let signers: Vec<_> = holders.iter().chain(others.iter().copied()).collect();
    let before = format!("{}.root.json", version - 1);
    mirror.copy(&before, &format!("{version}.root.json"), &signers, |body| {
        body["version"] = version.into();
        edit(body);
    });
}

fn refusal(mirror: &Mirror) -> &'static str {
    Device::new(&mirror.files).refusal(&mirror.files, &wants())
}

/// The role's keys and threshold in root metadata.
fn give_keys(body: &mut Value, role: &str, keys: &[&SigningKey], threshold: u32) {
    for key in keys {
        body["keys"][key.id().as_str()] = serde_json::to_value(key.public()).unwrap();
    }
    let keyids: Vec<_> = keys.iter().map(|key| key.id()).collect();
    body["roles"][role] = json!({"keyids": keyids, "threshold": threshold});
}

#[test]
fn the_untouched_mirror_is_accepted() {
    assert_eq!(refusal(&mirror()), "accepted");
}

#[test]
fn unsigned_metadata_is_refused() {
    for (file, role) in METADATA {
        let mut mirror = mirror();
        mirror.edit(file, &[], |_| {});
        assert_eq!(refusal(&mirror), format!("tuf.{role}.threshold"), "{file}");
    }
}

#[test]
fn metadata_signed_by_a_key_outside_the_role_is_refused() {
    for (file, role) in METADATA {
        let mut mirror = mirror();
        let strangers = [key("stranger 1"), key("stranger 2"), mirror.keys.snapshot.clone()];
        let strangers = if role == "snapshot" { &strangers[..2] } else { &strangers[..] };
        mirror.edit(file, &strangers.iter().collect::<Vec<_>>(), |_| {});
        assert_eq!(refusal(&mirror), format!("tuf.{role}.threshold"), "{file}");
    }
}

#[test]
fn altered_metadata_under_old_signatures_is_refused() {
    for (file, role) in METADATA {
        let mut mirror = mirror();
        let text = String::from_utf8(mirror.files[file].clone()).unwrap();
        let altered = text.replacen("\"expires\":\"2", "\"expires\":\"3", 1);
        assert_ne!(text, altered);
        mirror.files.insert(file.into(), altered.into_bytes());
        assert_eq!(refusal(&mirror), format!("tuf.{role}.threshold"), "{file}");
    }
}

#[test]
fn one_of_two_needed_holders_is_refused() {
    for (file, role) in [("2.root.json", "root"), ("1.targets.json", "targets")] {
        let mut mirror = mirror();
        let holder = &mirror.signers(file)[0];
        mirror.edit(file, &[holder], |_| {});
        assert_eq!(refusal(&mirror), format!("tuf.{role}.threshold"), "{file}");
    }
}

#[test]
fn one_key_that_signs_twice_is_refused() {
    let mut mirror = mirror();
    let holder = mirror.keys.targets[0].clone();
    mirror.edit("1.targets.json", &[&holder, &holder], |_| {});
    assert_eq!(refusal(&mirror), "tuf.targets.malformed");
}

#[test]
fn one_key_under_two_ids_counts_once() {
    let mut mirror = mirror();
    let holder = mirror.keys.targets[0].clone();
    sign_root(&mut mirror, 3, &[], |body| {
        give_keys(body, "targets", &[&holder], 2);
        body["keys"]["second name"] = serde_json::to_value(holder.public()).unwrap();
        body["roles"]["targets"]["keyids"] = json!([holder.id(), "second name"]);
    });
    mirror.edit("1.targets.json", &[&holder], |_| {});
    let mut file = json::parse(&mirror.files["1.targets.json"]).unwrap();
    let mut again = file["signatures"][0].clone();
    again["keyid"] = "second name".into();
    file["signatures"].as_array_mut().unwrap().push(again);
    mirror.files.insert("1.targets.json".into(), serde_json::to_vec(&file).unwrap());

    let refused = Device::new(&mirror.files).update(&mirror.files, &[], NOW).unwrap_err();

    assert!(matches!(refused, TufError::Threshold { valid: 1, threshold: 2, .. }), "{refused}");
}

#[test]
fn a_key_listed_twice_for_a_role_is_refused() {
    let mut mirror = mirror();
    let holder = mirror.keys.targets[0].clone();
    sign_root(&mut mirror, 3, &[], |body| {
        body["roles"]["targets"]["keyids"] = json!([holder.id(), holder.id()]);
    });
    assert_eq!(refusal(&mirror), "tuf.root.malformed");
}

#[test]
fn a_threshold_of_zero_is_refused() {
    for threshold in [json!(0), json!(-1), json!("1"), json!(null)] {
        let mut mirror = mirror();
        sign_root(&mut mirror, 3, &[], |body| body["roles"]["targets"]["threshold"] = threshold);
        assert_eq!(refusal(&mirror), "tuf.root.malformed");
    }
}

#[test]
fn a_weak_key_signs_nothing() {
    // The neutral point as key: the signature of neutral point and zero satisfies the equation for every message.
    let neutral = format!("01{}", "00".repeat(31));
    let mut mirror = mirror();
    sign_root(&mut mirror, 3, &[], |body| {
        body["keys"]["weak"] =
            json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": neutral}});
        body["roles"]["timestamp"] = json!({"keyids": ["weak"], "threshold": 1});
    });
    let mut file = json::parse(&mirror.files["timestamp.json"]).unwrap();
    let forged = format!("{neutral}{}", "00".repeat(32));
    file["signatures"] = json!([{"keyid": "weak", "sig": forged}]);
    mirror.files.insert("timestamp.json".into(), serde_json::to_vec(&file).unwrap());

    assert_eq!(refusal(&mirror), "tuf.timestamp.threshold");
}

#[test]
fn a_root_that_jumps_a_version_is_refused() {
    for version in [0, 1, 2, 4, 1000, u64::MAX] {
        let mut mirror = mirror();
        let code = if version == 0 { "tuf.root.malformed" } else { "tuf.root.version" };
        sign_root(&mut mirror, 3, &[], |body| body["version"] = version.into());
        assert_eq!(refusal(&mirror), code, "{version}");
    }
}

#[test]
fn a_root_signed_by_only_old_or_only_new_keys_is_refused() {
    let fresh = [key("fresh 1"), key("fresh 2")];
    let fresh: Vec<_> = fresh.iter().collect();
    let rotated = |signers: &[&SigningKey]| {
        let mut mirror = mirror();
        let edit = |body: &mut Value| {
            body["version"] = 3.into();
            give_keys(body, "root", &fresh, 2);
        };
        mirror.copy("2.root.json", "3.root.json", signers, edit);
        let mut device = Device::new(&mirror.files);
        let refusal = device.refusal(&mirror.files, &[]);
        (refusal, device.disk["root.json"] == mirror.files["3.root.json"])
    };
    let old = key("root 1");
    let older = key("root 2");

    assert_eq!(rotated(&[&old, &older]), ("tuf.root.threshold", false));
    assert_eq!(rotated(&fresh), ("tuf.root.threshold", false));
    assert_eq!(rotated(&[&old, &older, fresh[0]]), ("tuf.root.threshold", false));
    assert_eq!(rotated(&[&old, fresh[0], fresh[1]]), ("tuf.root.threshold", false));
    assert_eq!(rotated(&[&old, &older, fresh[0], fresh[1]]), ("accepted", true));
}

#[test]
fn ten_thousand_roots_do_not_hold_a_device() {
    let mut mirror = mirror();
    for version in 3..=260 {
        sign_root(&mut mirror, version, &[], |_| {});
    }
    let mut device = Device::new(&mirror.files);

    device.update(&mirror.files, &[], NOW).unwrap();

    let roots = device.fetched.iter().filter(|file| file.ends_with(".root.json")).count();
    assert_eq!(roots, 256);
    assert_eq!(device.disk["root.json"], mirror.files["257.root.json"]);
}

#[test]
fn an_old_timestamp_is_refused() {
    let mut world = World::new();
    let old = world.repository.files().clone();
    world.refresh(NOW);
    let mut device = Device::new(&old);
    device.update(world.repository.files(), &[], NOW).unwrap();

    let before = device.disk.clone();
    assert_eq!(device.refusal(&old, &[]), "tuf.timestamp.rollback");
    assert_eq!(device.disk, before);
}

#[test]
fn an_old_timestamp_is_refused_even_when_the_trusted_one_has_expired() {
    let mut mirror = mirror();
    let old = mirror.files.clone();
    let timestamp = mirror.keys.timestamp.clone();
    mirror.edit("timestamp.json", &[&timestamp], |body| {
        body["version"] = 9.into();
        body["expires"] = "2026-09-22T00:00:00Z".into();
    });
    let mut device = Device::new(&old);
    device.update(&mirror.files, &[], NOW).unwrap();

    let refused = device.update(&old, &[], NOW.plus(20 * HOUR_MS)).unwrap_err();

    assert_eq!(refused.code(), "tuf.timestamp.rollback");
}

#[test]
fn a_timestamp_of_the_same_version_changes_nothing() {
    let mut mirror = mirror();
    let mut device = Device::new(&mirror.files);
    device.update(&mirror.files, &[], NOW).unwrap();
    let before = device.disk.clone();
    let timestamp = mirror.keys.timestamp.clone();
    mirror.edit("timestamp.json", &[&timestamp], |body| {
        body["meta"]["snapshot.json"]["version"] = 100.into();
    });

    device.update(&mirror.files, &[], NOW).unwrap();

    assert_eq!(device.disk, before);
}

#[test]
fn a_timestamp_that_names_an_older_snapshot_is_refused() {
    let mut mirror = mirror();
    mirror.announce(5, |_| {});
    let mut device = Device::new(&mirror.files);
    device.update(&mirror.files, &[], NOW).unwrap();
    let timestamp = mirror.keys.timestamp.clone();
    mirror.edit("timestamp.json", &[&timestamp], |body| {
        body["version"] = 6.into();
        body["meta"]["snapshot.json"]["version"] = 2.into();
    });

    let before = device.disk.clone();
    assert_eq!(device.refusal(&mirror.files, &[]), "tuf.snapshot.rollback");
    assert_eq!(device.disk, before);
}

#[test]
fn a_snapshot_of_another_version_than_announced_is_refused() {
    for version in [1, 3] {
        let mut mirror = mirror();
        let snapshot = mirror.keys.snapshot.clone();
        mirror.edit("2.snapshot.json", &[&snapshot], |body| body["version"] = version.into());
        assert_eq!(refusal(&mirror), "tuf.snapshot.version");
    }
}

#[test]
fn a_snapshot_that_drops_a_role_is_refused() {
    let mut mirror = mirror();
    let mut device = Device::new(&mirror.files);
    device.update(&mirror.files, &[], NOW).unwrap();
    mirror.announce(3, |body| {
        body["meta"].as_object_mut().unwrap().remove("revocations.json");
    });

    assert_eq!(device.refusal(&mirror.files, &[]), "tuf.snapshot.dropped-role");
    assert_eq!(device.disk["snapshot.json"], mirror.files["2.snapshot.json"]);
}

#[test]
fn a_snapshot_that_names_an_older_role_is_refused() {
    let mut mirror = mirror();
    mirror.announce(3, |body| body["meta"]["targets.json"]["version"] = 7.into());
    mirror.copy("1.targets.json", "7.targets.json", &[], |_| {});
    let holders = mirror.keys.targets.clone();
    let holders: Vec<_> = holders.iter().collect();
    mirror.edit("7.targets.json", &holders, |body| body["version"] = 7.into());
    let mut device = Device::new(&mirror.files);
    device.update(&mirror.files, &[], NOW).unwrap();

    mirror.announce(4, |body| body["meta"]["targets.json"]["version"] = 1.into());
    assert_eq!(device.refusal(&mirror.files, &[]), "tuf.targets.rollback");
    mirror.announce(5, |body| {
        body["meta"]["targets.json"]["version"] = 7.into();
        body["meta"]["publisher-vision.json"]["version"] = 1.into();
    });
    assert_eq!(device.refusal(&mirror.files, &[]), "tuf.delegated.rollback");
}

#[test]
fn targets_of_another_version_than_listed_are_refused() {
    for (file, code) in [
        ("1.targets.json", "tuf.targets.version"),
        ("2.publisher-vision.json", "tuf.delegated.version"),
    ] {
        let mut mirror = mirror();
        let signers = mirror.signers(file);
        let signers: Vec<_> = signers.iter().collect();
        mirror.edit(file, &signers, |body| body["version"] = 9.into());
        assert_eq!(refusal(&mirror), code);
    }
}

#[test]
fn properly_signed_bytes_of_another_digest_or_length_are_refused() {
    let bundle_file = format!("targets/trust/{}.bundle.json", bundle_digest());
    let files = ["2.snapshot.json", "1.targets.json", "2.publisher-vision.json", &bundle_file];
    for file in files {
        let mirror = World::new().mirror();
        let original = mirror.files[file].clone();
        let refusal_of = |bytes: Vec<u8>| {
            let mut files = mirror.files.clone();
            files.insert(file.to_owned(), bytes);
            let mut device = Device::new(&files);
            (device.refusal(&files, &wants()), device.fetched.last().unwrap().clone())
        };
        let mut flipped = original.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let shorter = original[..original.len() - 1].to_vec();
        let longer = [original.as_slice(), b" "].concat();

        assert_eq!(refusal_of(original), ("accepted", "2.publisher-vision.json".into()));
        assert_eq!(refusal_of(flipped), ("tuf.mismatch", file.to_owned()));
        assert_eq!(refusal_of(shorter), ("tuf.mismatch", file.to_owned()));
        assert_eq!(refusal_of(longer), ("tuf.too-large", file.to_owned()));
    }
}

#[test]
fn a_length_alone_is_checked_too() {
    for (offset, code) in [(0, "accepted"), (1, "tuf.mismatch"), (-1, "tuf.too-large")] {
        let mut mirror = mirror();
        let length = i64::try_from(mirror.files["2.snapshot.json"].len()).unwrap();
        let timestamp = mirror.keys.timestamp.clone();
        mirror.edit("timestamp.json", &[&timestamp], |body| {
            body["meta"]["snapshot.json"]["length"] = (length + offset).into();
        });
        assert_eq!(refusal(&mirror), code, "{offset}");
    }
}

#[test]
fn expired_metadata_of_each_role_is_refused() {
    for (file, role) in METADATA {
        for (expires, is_accepted) in [(NOW, false), (NOW.plus(1000), true)] {
            let mut mirror = mirror();
            let signers = mirror.signers(file);
            let signers: Vec<_> = signers.iter().collect();
            mirror.edit(file, &signers, |body| body["expires"] = expires.to_string().into());
            let code = if is_accepted { "accepted".into() } else { format!("tuf.{role}.expired") };
            let mut device = Device::new(&mirror.files);

            assert_eq!(device.refusal(&mirror.files, &wants()), code, "{file}");

            // A root hands over to the next even when it has expired; nothing else is kept.
            let is_kept = device.disk.values().any(|kept| *kept == mirror.files[file]);
            assert_eq!(is_kept, is_accepted || role == "root", "{file}");
        }
    }
}

#[test]
fn an_expired_root_hands_over_to_the_next() {
    let mut mirror = mirror();
    sign_root(&mut mirror, 3, &[], |body| body["expires"] = "2020-01-01T00:00:00Z".into());
    sign_root(&mut mirror, 4, &[], |body| body["expires"] = "2030-01-01T00:00:00Z".into());
    assert_eq!(refusal(&mirror), "accepted");
}

#[test]
fn a_frozen_mirror_is_noticed_when_its_timestamp_expires() {
    let world = World::new();
    let files = world.repository.files();
    let mut device = Device::new(files);
    device.update(files, &[], NOW).unwrap();

    device.update(files, &[], NOW.plus(DAY_MS - 1)).unwrap();
    let refused = device.update(files, &[], NOW.plus(DAY_MS)).unwrap_err();

    assert!(refused.is_expired());
    assert_eq!(refused.code(), "tuf.timestamp.expired");
}

#[test]
fn versions_run_ahead_are_recovered_by_rotation_and_by_nothing_else() {
    let mut mirror = mirror();
    let honest = mirror.files.clone();
    let (snapshot, timestamp) = (mirror.keys.snapshot.clone(), mirror.keys.timestamp.clone());
    mirror.announce(u64::MAX, |body| {
        body["meta"]["publisher-vision.json"]["version"] = u64::MAX.into();
    });
    let mut device = Device::new(&honest);
    device.update(&mirror.files, &[], NOW).unwrap();
    assert_eq!(device.clone().refusal(&honest, &[]), "tuf.timestamp.rollback");

    // A key more is no rotation: what the stolen ones signed still counts.
    let mut widened = Mirror { files: honest.clone(), keys: mirror.keys.clone() };
    let fresh = key("fresh");
    sign_root(&mut widened, 3, &[], |body| {
        give_keys(body, "timestamp", &[&timestamp, &fresh], 1);
    });
    assert_eq!(device.clone().refusal(&widened.files, &[]), "tuf.timestamp.rollback");

    for role in ["timestamp", "snapshot"] {
        let mut rotated = Mirror { files: honest.clone(), keys: mirror.keys.clone() };
        sign_root(&mut rotated, 3, &[], |body| give_keys(body, role, &[&fresh], 1));
        let (file, old) = match role {
            "timestamp" => ("timestamp.json", &timestamp),
            _ => ("2.snapshot.json", &snapshot),
        };
        assert_eq!(device.clone().refusal(&rotated.files, &[]), format!("tuf.{role}.threshold"));
        rotated.edit(file, &[&fresh, old], |_| {});
        let mut device = device.clone();

        device.update(&rotated.files, &[model()], NOW).unwrap();

        assert_eq!(device.disk["timestamp.json"], rotated.files["timestamp.json"]);
        assert_eq!(device.disk["snapshot.json"], rotated.files["2.snapshot.json"]);
    }
}

#[test]
fn a_stored_snapshot_with_too_few_signatures_for_a_new_root_is_not_used() {
    let mut mirror = mirror();
    let mut device = Device::new(&mirror.files);
    device.update(&mirror.files, &[], NOW).unwrap();
    let (old, fresh) = (mirror.keys.snapshot.clone(), key("fresh"));
    sign_root(&mut mirror, 3, &[], |body| give_keys(body, "snapshot", &[&old, &fresh], 2));

    assert_eq!(device.refusal(&mirror.files, &[]), "tuf.snapshot.threshold");

    mirror.edit("2.snapshot.json", &[&old, &fresh], |_| {});
    assert_eq!(device.refusal(&mirror.files, &[]), "accepted");
}

#[test]
fn rotation_removes_what_the_lost_key_signed_before_the_root_is_kept() {
    let mut mirror = mirror();
    let mut device = Device::new(&mirror.files);
    device.update(&mirror.files, &[], NOW).unwrap();
    let fresh = key("fresh");
    sign_root(&mut mirror, 3, &[], |body| give_keys(body, "timestamp", &[&fresh], 1));
    let mut client = Client::open(device.disk, RoleNames::Plain).unwrap();
    client.refresh(NOW);
    client.need().unwrap();

    let changes = client.on(Some(mirror.files["3.root.json"].clone())).unwrap();

    let names: Vec<_> = changes.iter().map(Persist::name).collect();
    assert_eq!(names, ["timestamp.json", "snapshot.json", "root.json"]);
}

#[test]
fn json_with_two_readings_is_refused() {
    for (file, role) in METADATA {
        let mut mirror = mirror();
        let text = String::from_utf8(mirror.files[file].clone()).unwrap();
        let forgeries = [
            text.replacen("\"version\":", "\"version\":9,\"version\":", 1),
            text.replacen("\"spec_version\"", "\"a\":1.5,\"spec_version\"", 1),
            text.replacen("\"signed\"", "\"signed\":{},\"signed\"", 1),
            format!("{text} x"),
            format!("{}{text}{}", "[".repeat(200), "]".repeat(200)),
            "[".repeat(1_000_000),
            "{\"signed\":".repeat(100_000),
            String::new(),
            "[]".into(),
        ];
        for forgery in forgeries {
            assert_ne!(text, forgery);
            mirror.files.insert(file.into(), forgery.clone().into_bytes());
            let head: String = forgery.chars().take(60).collect();
            assert_eq!(refusal(&mirror), format!("tuf.{role}.malformed"), "{file} {head}");
        }
    }
}

#[test]
fn signed_nonsense_is_refused() {
    for (file, role) in METADATA {
        for (field, value) in [
            ("_type", json!("mirrors")),
            ("spec_version", json!("2.0.0")),
            ("spec_version", json!(1)),
            ("version", json!(0)),
            ("version", json!(-1)),
            ("version", json!("1")),
            ("expires", json!("tomorrow")),
            ("expires", json!(null)),
        ] {
            let mut mirror = mirror();
            let signers = mirror.signers(file);
            let signers: Vec<_> = signers.iter().collect();
            mirror.edit(file, &signers, |body| body[field] = value.clone());
            let code = format!("tuf.{role}.malformed");
            assert_eq!(refusal(&mirror), code, "{file} {field} {value}");
        }
    }
}

#[test]
fn more_bytes_than_a_role_may_have_are_refused_unseen() {
    for (file, _) in METADATA {
        let mut mirror = mirror();
        let max =
            if file.contains("targets") || role_is_delegated(file) { 5 << 20 } else { 1 << 20 };
        let mut padded = mirror.files[file].clone();
        padded.resize(max, b' ');
        mirror.files.insert(file.into(), padded.clone());
        assert_eq!(refusal(&mirror), "accepted", "{file}");
        padded.push(b' ');
        mirror.files.insert(file.into(), padded);
        assert_eq!(refusal(&mirror), "tuf.too-large", "{file}");
    }
}

fn role_is_delegated(file: &str) -> bool {
    METADATA.contains(&(file, "delegated"))
}

#[test]
fn unknown_fields_and_kinds_of_keys_are_carried() {
    let mut mirror = mirror();
    sign_root(&mut mirror, 3, &[], |body| {
        body["later"] = json!({"b": [1, "x"], "a": null});
        body["keys"]["quantum"] = json!({"keytype": "ml-dsa", "scheme": "ml-dsa-87", "keyval": {}});
        body["roles"]["timestamp"]["keyids"].as_array_mut().unwrap().push("quantum".into());
        body["roles"]["mirrors"] = json!({"keyids": [], "threshold": 1});
    });
    assert_eq!(refusal(&mirror), "accepted");
}

#[test]
fn a_missing_file_ends_the_update() {
    for (file, role) in METADATA {
        let mut mirror = mirror();
        mirror.files.remove(file);
        let code = if role == "root" { "accepted" } else { "tuf.missing" };
        assert_eq!(refusal(&mirror), code, "{file}");
    }
}
