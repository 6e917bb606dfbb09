//! Attacks by and on delegated roles.

use super::*;

/// A mirror whose top-level targets delegate to these roles, and these to others, all signed by one key.
fn graph(edges: &[(&str, &str, bool)], paths: &[&str]) -> Mirror {
    let mut mirror = Mirror::without_digests();
    let team = mirror.keys.publisher.clone();
    let holders = mirror.keys.targets.clone();
    let holders: Vec<_> = holders.iter().collect();
    let delegations = |from: &str| {
        let roles = edges.iter().filter(|(delegator, ..)| *delegator == from);
        let roles: Vec<_> = roles
            .map(|(_, name, terminating)| {
                json!({"name": name, "keyids": [team.id()], "threshold": 1, "terminating": terminating, "paths": paths})
            })
            .collect();
        json!({"keys": {team.id().as_str(): team.public()}, "roles": roles})
    };
    mirror.edit("1.targets.json", &holders, |body| body["delegations"] = delegations("targets"));
    for (_, name, _) in edges {
        let file = format!("1.{name}.json");
        let role = |body: &mut Value| {
            body["version"] = 1.into();
            body["targets"] = json!({});
            body["delegations"] = delegations(name);
        };
        mirror.copy("2.publisher-vision.json", &file, &[&team], role);
    }
    mirror.announce(3, |body| {
        for (_, name, _) in edges {
            body["meta"][format!("{name}.json")] = json!({"version": 1});
        }
    });
    mirror
}

fn name_target(mirror: &mut Mirror, role: &str, path: &str) {
    let team = mirror.keys.publisher.clone();
    mirror.edit(&format!("1.{role}.json"), &[&team], |body| {
        body["targets"][path] = serde_json::to_value(TargetFile::of(role.as_bytes())).unwrap();
    });
}

fn search(mirror: &Mirror, path: &str) -> (Result<Client, TufError>, Vec<String>) {
    let mut device = Device::new(&mirror.files);
    let outcome = device.update(&mirror.files, &[Want::Entry(path.into())], NOW);
    (outcome, device.fetched.split_off(4))
}

#[test]
fn roles_are_asked_in_order_and_before_those_they_delegate_to() {
    let edges =
        [("targets", "a", false), ("targets", "b", false), ("a", "c", false), ("a", "d", false)];
    let mut mirror = graph(&edges, &["*"]);

    let (outcome, asked) = search(&mirror, "x");

    assert_eq!(outcome.unwrap_err().code(), "tuf.no-target");
    assert_eq!(asked, ["1.a.json", "1.c.json", "1.d.json", "1.b.json"]);

    // Of two roles that name a target, the first that is asked counts.
    name_target(&mut mirror, "b", "x");
    name_target(&mut mirror, "d", "x");
    let client = search(&mirror, "x").0.unwrap();
    assert_eq!(client.target("x").unwrap().digest(), Some(crate::digest::Digest::of(b"d")));
}

#[test]
fn behind_a_terminating_delegation_nobody_is_asked() {
    let edges =
        [("targets", "a", false), ("targets", "b", false), ("a", "c", true), ("a", "d", false)];
    let mut mirror = graph(&edges, &["*"]);
    name_target(&mut mirror, "b", "x");

    let (outcome, asked) = search(&mirror, "x");

    assert_eq!(outcome.unwrap_err().code(), "tuf.no-target");
    assert_eq!(asked, ["1.a.json", "1.c.json"]);
}

#[test]
fn a_cycle_of_delegations_ends() {
    let edges = [("targets", "a", false), ("a", "b", false), ("b", "a", false), ("b", "b", false)];
    let (outcome, asked) = search(&graph(&edges, &["*"]), "x");

    assert_eq!(outcome.unwrap_err().code(), "tuf.no-target");
    assert_eq!(asked, ["1.a.json", "1.b.json"]);
}

#[test]
fn a_fan_of_delegations_is_cut_off() {
    let names: Vec<_> = (0..40).map(|number| format!("role-{number}")).collect();
    let wide: Vec<_> = names.iter().map(|name| ("targets", name.as_str(), false)).collect();
    let mut from = "targets";
    let mut deep = Vec::new();
    for name in &names {
        deep.push((from, name.as_str(), false));
        from = name;
    }
    for edges in [wide, deep] {
        let (outcome, asked) = search(&graph(&edges, &["*"]), "x");

        assert_eq!(outcome.unwrap_err().code(), "tuf.too-many-roles");
        assert_eq!(asked.len(), 31, "with the top-level targets, 32 roles are met");
    }
}

#[test]
fn a_team_cannot_name_another_teams_model() {
    let mut mirror = Mirror::without_digests();
    let team = mirror.keys.publisher.clone();
    let foreign = "models/audio/speech/1";
    mirror.edit("2.publisher-vision.json", &[&team], |body| {
        body["targets"][foreign] = body["targets"][MODEL].clone();
        body["targets"][BUNDLE_PATH] = body["targets"][MODEL].clone();
        body["targets"][REVOCATIONS_PATH] = body["targets"][MODEL].clone();
    });
    let mut device = Device::new(&mirror.files);

    let refused = device.update(&mirror.files, &[Want::Entry(foreign.into())], NOW).unwrap_err();
    let client = device.update(&mirror.files, &wants(), NOW).unwrap();

    assert_eq!(refused.code(), "tuf.no-target");
    assert_eq!(client.target(foreign).unwrap_err().code(), "tuf.no-target");
    assert_eq!(client.file(BUNDLE_PATH), Some(bundle().to_bytes().as_slice()));
}

#[test]
fn a_team_cannot_sign_another_teams_metadata() {
    let edges = [("targets", "a", true)];
    let mut mirror = graph(&edges, &["x"]);
    let other = mirror.keys.revocations.clone();
    mirror.edit("1.a.json", &[&other], |_| {});
    assert_eq!(search(&mirror, "x").0.unwrap_err().code(), "tuf.delegated.threshold");
}

#[test]
fn a_delegator_cannot_lend_another_roles_signature() {
    // `c` is delegated to twice, by `a` to a key that did not sign it.
    let edges =
        [("targets", "a", false), ("targets", "b", false), ("a", "c", false), ("b", "c", false)];
    let mut mirror = graph(&edges, &["*"]);
    name_target(&mut mirror, "c", "x");
    let (team, stranger) = (mirror.keys.publisher.clone(), key("stranger"));
    mirror.edit("1.a.json", &[&team], |body| {
        body["delegations"]["roles"][0]["keyids"] = json!([stranger.id()]);
        body["delegations"]["keys"][stranger.id().as_str()] =
            serde_json::to_value(stranger.public()).unwrap();
    });
    let mut device = Device::new(&mirror.files);
    device.disk.insert("c.json".into(), mirror.files["1.c.json"].clone());

    assert_eq!(
        device.refusal(&mirror.files, &[Want::Entry("x".into())]),
        "tuf.delegated.threshold"
    );
}

#[test]
fn role_names_that_are_paths_are_refused() {
    for name in ["../x", "/x", "a/b", "..", "?", "#", "a b", "%2e%2e"] {
        let mut mirror = graph(&[("targets", "a", false)], &["*"]);
        let holders = mirror.keys.targets.clone();
        let holders: Vec<_> = holders.iter().collect();
        mirror.edit("1.targets.json", &holders, |body| {
            body["delegations"]["roles"][0]["name"] = name.into();
        });
        let mut device = Device::new(&mirror.files);

        assert_eq!(device.refusal(&mirror.files, &[]), "tuf.role-name", "{name}");
        assert!(!device.disk.contains_key("targets.json"));
    }
}

#[test]
fn where_any_role_name_is_allowed_it_stays_one_file() {
    let mut mirror = graph(&[("targets", "a", false)], &["*"]);
    let holders = mirror.keys.targets.clone();
    let holders: Vec<_> = holders.iter().collect();
    mirror.edit("1.targets.json", &holders, |body| {
        body["delegations"]["roles"][0]["name"] = "../x?#".into();
    });
    mirror.announce(4, |body| body["meta"]["../x?#.json"] = json!({"version": 1}));
    mirror.files.insert("1...%2Fx%3F%23.json".into(), mirror.files["1.a.json"].clone());
    let mut device = Device::new(&mirror.files);
    device.role_names = RoleNames::Any;

    assert_eq!(device.refusal(&mirror.files, &[Want::Entry("x".into())]), "tuf.no-target");
    assert_eq!(device.disk["..%2Fx%3F%23.json"], mirror.files["1.a.json"]);
}

#[test]
fn a_delegated_role_that_the_snapshot_does_not_list_is_refused() {
    let mut mirror = graph(&[("targets", "a", false)], &["*"]);
    mirror.announce(4, |body| {
        body["meta"].as_object_mut().unwrap().remove("a.json");
    });
    assert_eq!(search(&mirror, "x").0.unwrap_err().code(), "tuf.snapshot.unlisted-role");
}

#[test]
fn one_teams_expired_metadata_leaves_other_teams_alone() {
    let mut mirror = Mirror::without_digests();
    let on_call = mirror.keys.revocations.clone();
    mirror.edit("1.revocations.json", &[&on_call], |body| {
        body["expires"] = "2020-01-01T00:00:00Z".into();
    });
    let mut device = Device::new(&mirror.files);

    assert_eq!(device.refusal(&mirror.files, &[model()]), "accepted");
    let revocations = Want::File(REVOCATIONS_PATH.into());
    assert_eq!(device.refusal(&mirror.files, &[revocations]), "tuf.delegated.expired");
    assert_eq!(device.disk[&format!("{PUBLISHER}.json")], mirror.files["2.publisher-vision.json"]);
}

#[test]
fn a_role_found_through_hashes_of_paths_is_asked() {
    let prefix = &crate::digest::Digest::of(b"x").hex()[..3];
    let mut mirror = graph(&[("targets", "a", false)], &["*"]);
    name_target(&mut mirror, "a", "x");
    let holders = mirror.keys.targets.clone();
    let holders: Vec<_> = holders.iter().collect();
    mirror.edit("1.targets.json", &holders, |body| {
        let role = body["delegations"]["roles"][0].as_object_mut().unwrap();
        role.remove("paths");
        role.insert("path_hash_prefixes".into(), json!([prefix]));
    });

    assert!(search(&mirror, "x").0.is_ok());
    assert_eq!(search(&mirror, "y").1, [""; 0]);
}

#[test]
fn a_bin_of_succinct_roles_is_asked() {
    let bin = format!("bin-{}", &crate::digest::Digest::of(b"x").hex()[..1]);
    let mut mirror = graph(&[("targets", &bin, false)], &["*"]);
    name_target(&mut mirror, &bin, "x");
    let holders = mirror.keys.targets.clone();
    let holders: Vec<_> = holders.iter().collect();
    mirror.edit("1.targets.json", &holders, |body| {
        let team = body["delegations"]["roles"][0]["keyids"].clone();
        let delegations = body["delegations"].as_object_mut().unwrap();
        delegations.remove("roles");
        let bins = json!({"keyids": team, "threshold": 1, "bit_length": 4, "name_prefix": "bin"});
        delegations.insert("succinct_roles".into(), bins);
    });

    let (outcome, asked) = search(&mirror, "x");

    assert!(outcome.is_ok());
    assert_eq!(asked, [format!("1.{bin}.json")]);
}

#[test]
fn a_target_file_whose_path_leaves_its_folder_is_not_fetched() {
    for path in ["../x", "/x", "a//b", "a/./b", "a\\b", "."] {
        let mut mirror = Mirror::without_digests();
        let holders = mirror.keys.targets.clone();
        let holders: Vec<_> = holders.iter().collect();
        mirror.edit("1.targets.json", &holders, |body| {
            body["targets"][path] = body["targets"][BUNDLE_PATH].clone();
        });
        let mut device = Device::new(&mirror.files);

        assert_eq!(device.refusal(&mirror.files, &[Want::File(path.into())]), "tuf.no-target");
        assert_eq!(device.fetched.len(), 4, "{path}");
    }
}

#[test]
fn a_target_file_too_large_for_memory_is_not_fetched() {
    let mut mirror = Mirror::without_digests();
    let holders = mirror.keys.targets.clone();
    let holders: Vec<_> = holders.iter().collect();
    mirror.edit("1.targets.json", &holders, |body| {
        body["targets"][BUNDLE_PATH]["length"] = (1_u64 << 63).into();
    });
    let mut device = Device::new(&mirror.files);

    assert_eq!(device.refusal(&mirror.files, &[Want::File(BUNDLE_PATH.into())]), "tuf.too-large");
    assert_eq!(device.fetched.len(), 4);
}
