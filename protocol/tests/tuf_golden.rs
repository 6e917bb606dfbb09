//! Metadata that another implementation signed is read as that implementation reads it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic fails the test")]

use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::digest::Digest;
use sealift_protocol::id::UnixMillis;
use sealift_protocol::tuf::TufError;
use sealift_protocol::tuf::client::{Client, Persist, RoleNames, Want};

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

type Files = BTreeMap<&'static str, &'static [u8]>;

macro_rules! golden {
    ($($name:literal),* $(,)?) => {
        BTreeMap::from([$(($name, include_bytes!(concat!("golden/tuf/", $name)).as_slice())),*])
    };
}

fn files() -> Files {
    golden![
        "1.root.json",
        "2.root.json",
        "timestamp.json",
        "4.snapshot.json",
        "3.targets.json",
        "5.by-path.json",
        "1.by-hash.json",
        "1.bins.json",
        "1.bin-1c.json",
    ]
}

/// Fetches until nothing is needed, and returns the names of what was to be persisted.
fn fetch(client: &mut Client, files: &Files) -> Result<BTreeSet<String>, TufError> {
    let mut persisted = BTreeSet::new();
    while let Some(need) = client.need()? {
        let answer = files.get(need.file.as_str()).map(|bytes| bytes.to_vec());
        let changes = client.on(answer)?;
        persisted.extend(changes.iter().map(Persist::name).map(str::to_owned));
    }
    Ok(persisted)
}

fn open() -> Client {
    let disk = BTreeMap::from([("root.json".to_owned(), files()["1.root.json"].to_vec())]);
    Client::open(disk, RoleNames::Plain).unwrap()
}

#[test]
fn a_repository_of_python_tuf_is_trusted_from_its_first_root() {
    let mut client = open();

    client.refresh(NOW);
    fetch(&mut client, &files()).unwrap();

    assert_eq!(client.root().version, 2);
    assert_eq!(client.timestamp().unwrap().bytes(), files()["timestamp.json"]);
    assert_eq!(client.snapshot().unwrap().bytes(), files()["4.snapshot.json"]);
}

#[test]
fn every_kind_of_delegation_of_python_tuf_is_followed() {
    let mut client = open();
    client.refresh(NOW);
    fetch(&mut client, &files()).unwrap();

    for (path, content, loaded) in [
        ("top", "top", &[][..]),
        ("models/a/1", "model", &["by-path.json"][..]),
        ("hashed", "hashed", &["by-hash.json"][..]),
        ("binned", "binned", &["bins.json", "bin-1c.json"][..]),
    ] {
        client.want(Want::Entry(path.to_owned()));
        let persisted = fetch(&mut client, &files()).unwrap();

        assert_eq!(
            client.target(path).unwrap().digest(),
            Some(Digest::of(content.as_bytes())),
            "{path}"
        );
        assert_eq!(persisted, loaded.iter().map(|&name| name.to_owned()).collect(), "{path}");
    }
    client.want(Want::Entry("models/a/2".to_owned()));
    assert_eq!(fetch(&mut client, &files()).unwrap_err().code(), "tuf.no-target");
}

#[test]
fn the_key_that_python_tuf_rotated_away_no_longer_signs() {
    let mut without_rotation = files();
    without_rotation.remove("2.root.json");
    let mut client = open();

    client.refresh(NOW);
    let refused = fetch(&mut client, &without_rotation).unwrap_err();

    assert_eq!(refused.code(), "tuf.timestamp.threshold");
}
