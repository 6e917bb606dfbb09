//! Predictions that devices bring up: what was asked for, in parts, in the room of a team, and gone with its bytes.

use sealift_protocol::request::{BatchFormat, BatchRun};
use sealift_protocol::upload::Upload;

use super::*;
use crate::audit::Deed;
use crate::blobs::Blobs;
use crate::config::Retention;
use crate::filter::Filter;
use crate::registry::sweep::Sweeper;
use crate::results::{ResultError, Results};
use crate::store::batch_results::{Which, Whole};

const DAY_MS: i64 = 24 * 3_600_000;

struct Place {
    results: Results,
    sweeper: Sweeper,
    blobs: Blobs,
    _folder: tempfile::TempDir,
}

/// What the ground's server has, with so much room for a team.
async fn place(ground: &Ground, batch_team_mb: u32) -> Place {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(None, folder.path()).await.unwrap().of_tenant(ground.tenant());
    let retention = Retention { batch_team_mb, ..Retention::default() };
    let results = Results::new(ground.store.clone(), blobs.clone(), retention);
    let sweeper = Sweeper::new(ground.store.clone(), blobs.clone());
    Place { results, sweeper, blobs, _folder: folder }
}

fn run(name: &str) -> BatchRun {
    BatchRun {
        name: name.to_owned(),
        model: digits(),
        input: "/data/rows.csv".to_owned(),
        output: "/data/out".to_owned(),
        rows: 256,
        no_header: false,
        array: None,
        format: BatchFormat::Jsonl,
        upload: true,
    }
}

fn whole(bytes: &[u8]) -> Whole {
    Whole { size: bytes.len() as u64, digest: Digest::of(bytes) }
}

fn at(offset: u64, is_complete: bool) -> Upload {
    Upload { offset, is_complete }
}

impl Place {
    async fn expect(&self, name: &str) -> bool {
        self.results.expect(&device("cam-1"), &run(name), ("ann", NOW)).await.unwrap()
    }

    async fn take(
        &self,
        name: &str,
        whole: Whole,
        (from, body): (u64, &[u8]),
    ) -> Result<Upload, ResultError> {
        let cam = device("cam-1");
        self.results.take_part((&cam, name), whole, (from, body.to_vec()), NOW).await
    }
}

pub(super) async fn predictions_come_in_parts_as_the_device_has_said_and_once(ground: Ground) {
    ground.enrol("cam-1", &[]).await;
    let place = place(&ground, 1).await;
    let all = whole(b"predictions");

    let unasked = place.take("night", all, (0, b"pre")).await.unwrap_err();
    assert!(matches!(unasked, ResultError::NotAsked(_)), "{unasked}");
    assert!(place.expect("night").await && !place.expect("night").await);
    assert_eq!(place.take("night", all, (0, b"pre")).await.unwrap(), at(3, false));
    // What comes twice, or too early, changes nothing.
    assert_eq!(place.take("night", all, (0, b"pre")).await.unwrap(), at(3, false));
    assert_eq!(place.take("night", all, (5, b"ctions")).await.unwrap(), at(3, false));
    let cam = device("cam-1");
    assert_eq!(place.results.upload(&cam, "night", all).await.unwrap(), at(3, false));
    assert_eq!(place.results.find(&cam, "night").await.unwrap().bytes(), 3);
    // Another content begins anew, and so does the first one after it.
    let other = whole(b"something else");
    assert_eq!(place.take("night", other, (3, b"eth")).await.unwrap(), at(0, false));
    assert_eq!(place.take("night", other, (0, b"some")).await.unwrap(), at(4, false));
    assert_eq!(place.take("night", all, (0, b"predi")).await.unwrap(), at(5, false));
    assert_eq!(place.take("night", all, (5, b"ctions")).await.unwrap(), at(11, true));
    assert_eq!(place.blobs.read(all.digest, 99).await.unwrap().as_ref(), b"predictions");
    assert_eq!(place.take("night", all, (0, b"pre")).await.unwrap(), at(11, true));
    let refused = place.take("night", other, (0, b"some")).await.unwrap_err();
    assert!(matches!(refused, ResultError::Other(_)), "{refused}");
    assert_eq!(place.results.find(&cam, "night").await.unwrap().bytes(), 11);

    // Another batch of the name takes its place.
    let anew = BatchRun { output: "/data/anew".to_owned(), ..run("night") };
    place.results.expect_anew(&cam, &anew, ("ben", NOW)).await.unwrap();
    let row = place.results.find(&cam, "night").await.unwrap();
    assert_eq!((row.bytes(), row.asked_by.as_str(), row.run), (0, "ben", anew));
    assert_eq!(place.take("night", other, (0, b"some")).await.unwrap(), at(4, false));
}

pub(super) async fn predictions_that_are_not_what_was_said_are_given_up(ground: Ground) {
    ground.enrol("cam-1", &[]).await;
    let place = place(&ground, 1).await;
    place.expect("night").await;
    let said = Whole { size: 3, digest: Digest::of(b"abc") };

    let refused = place.take("night", said, (0, b"abd")).await.unwrap_err();

    assert!(matches!(refused, ResultError::Digest(_)), "{refused}");
    assert_eq!(place.blobs.uploads().await.unwrap().len(), 0, "its parts are gone");
    assert_eq!(place.take("night", said, (0, b"abc")).await.unwrap(), at(3, true));
    let large = Whole { size: (1 << 30) + 1, digest: Digest::of(b"") };
    let refused = place.take("night", large, (0, b"a")).await.unwrap_err();
    assert!(matches!(refused, ResultError::TooLarge(_)), "{refused}");
}

pub(super) async fn a_team_has_so_much_room_for_predictions_and_what_is_deleted_goes_with_its_bytes(
    ground: Ground,
) {
    ground.enrol("cam-1", &[]).await;
    let place = place(&ground, 1).await;
    let large = Whole { size: 1 << 20, digest: Digest::of(b"large") };
    for name in ["night", "day"] {
        place.expect(name).await;
    }
    assert_eq!(place.take("night", large, (0, b"a")).await.unwrap(), at(1, false));
    let small = whole(b"b");
    let full = place.take("day", small, (0, b"b")).await.unwrap_err();
    assert!(full.to_string().contains("may keep 1 MiB"), "{full}");
    let cam = device("cam-1");
    assert!(place.results.remove(&cam, "night", NOW).await.unwrap());
    assert!(!place.results.remove(&cam, "night", NOW).await.unwrap());
    assert_eq!(place.take("day", small, (0, b"b")).await.unwrap(), at(1, true));

    // While a row names them, bytes stay; after that they go.
    let later = crate::clock::now().plus(3 * 3_600_000);
    place.sweeper.sweep(later).await.unwrap();
    assert_eq!(place.blobs.size(small.digest).await.unwrap(), Some(1));
    let mut change = ground.store.begin().await.unwrap();
    let past = crate::clock::now().plus(31 * DAY_MS);
    assert_eq!(change.throw_away_batch_results(NOW).await.unwrap(), 0);
    assert_eq!(change.throw_away_batch_results(past).await.unwrap(), 1);
    change.commit().await.unwrap();
    place.sweeper.sweep(past.plus(3 * 3_600_000)).await.unwrap();
    assert_eq!(place.blobs.size(small.digest).await.unwrap(), None);
    assert_eq!(place.blobs.uploads().await.unwrap().len(), 0);
}

pub(super) async fn attack_uploads_at_once_take_no_more_room_than_a_team_has(ground: Ground) {
    ground.enrol("cam-1", &[]).await;
    let place = place(&ground, 1).await;
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for name in names {
        place.expect(name).await;
    }
    let all = Whole { size: 1 << 20, digest: Digest::of(b"all") };

    let begun = names.map(|name| place.take(name, all, (0, b"a")));
    let begun = futures_util::future::join_all(begun).await;

    assert_eq!(begun.iter().filter(|taken| taken.is_ok()).count(), 1, "{begun:?}");
}

pub(super) async fn attack_a_device_that_begins_anew_again_and_again_fills_no_disk(ground: Ground) {
    ground.enrol("cam-1", &[]).await;
    let place = place(&ground, 1).await;
    place.expect("night").await;
    for turn in 0..5_u8 {
        let other = Whole { size: 9, digest: Digest::of(&[turn]) };
        assert_eq!(place.take("night", other, (0, b"some")).await.unwrap(), at(4, false));
        assert_eq!(place.blobs.uploads().await.unwrap().len(), 1, "those before are gone");
    }
}

pub(super) async fn a_device_that_goes_silent_keeps_no_room_of_its_team(ground: Ground) {
    ground.enrol("cam-1", &[]).await;
    let place = place(&ground, 1).await;
    for name in ["night", "day"] {
        place.expect(name).await;
    }
    let large = Whole { size: 1 << 20, digest: Digest::of(b"large") };
    assert_eq!(place.take("night", large, (0, b"a")).await.unwrap(), at(1, false));
    assert!(place.take("day", large, (0, b"a")).await.is_err());

    place.sweeper.sweep(NOW.plus(DAY_MS + 1)).await.unwrap();

    assert_eq!(place.take("day", large, (0, b"a")).await.unwrap(), at(1, false));
    let back = place.take("night", large, (0, b"a")).await.unwrap_err();
    assert!(matches!(back, ResultError::Quota { .. }), "it has to ask for room again: {back}");
}

pub(super) async fn predictions_are_listed_by_batch_and_device_and_forgotten_with_the_device(
    ground: Ground,
) {
    for (name, site) in [("cam-1", "tokyo"), ("cam-2", "osaka")] {
        ground.enrol(name, &[("site", site)]).await;
    }
    let place = place(&ground, 1).await;
    for (cam, name) in [("cam-2", "a"), ("cam-1", "a"), ("cam-1", "b")] {
        place.results.expect(&device(cam), &run(name), ("ann", NOW)).await.unwrap();
    }
    let cam_2 = device("cam-2");
    let (anywhere, tokyo) = (Filter::default(), "site:tokyo".parse().unwrap());
    let all = Which { name: None, device: None, among: &anywhere };
    // With each page comes how many there are in all, whatever is on it.
    let list = async |which, after, limit| {
        let presence = ground.presence(NOW);
        let rows = ground.store.batch_results(which, presence, after, limit).await.unwrap();
        let names = rows.iter().map(|row| format!("{} {}", row.run.name, row.device));
        let total = ground.store.count_batch_results(which, presence).await.unwrap();
        (names.collect::<Vec<_>>().join(", "), total)
    };
    let listed = |names: &str, total: u64| (names.to_owned(), total);
    assert_eq!(list(all, ("", ""), 9).await, listed("a cam-1, a cam-2, b cam-1", 3));
    assert_eq!(list(all, ("a", "cam-1"), 1).await, listed("a cam-2", 3));
    let of_b = Which { name: Some("b"), ..all };
    assert_eq!(list(of_b, ("", ""), 9).await, listed("b cam-1", 1));
    let of_cam_2 = Which { device: Some(&cam_2), ..all };
    assert_eq!(list(of_cam_2, ("", ""), 9).await, listed("a cam-2", 1));
    let of_tokyo = Which { among: &tokyo, ..all };
    assert_eq!(list(of_tokyo, ("", ""), 1).await, listed("a cam-1", 2));
    assert_eq!(list(of_tokyo, ("a", "cam-1"), 9).await, listed("b cam-1", 2));
    let neither = Which { device: Some(&cam_2), ..of_tokyo };
    assert_eq!(list(neither, ("", ""), 9).await, listed("", 0));

    let mut change = ground.store.begin().await.unwrap();
    assert_eq!(change.forget_batch_results(&device("cam-1"), NOW).await.unwrap(), 2);
    change.commit().await.unwrap();
    assert_eq!(list(all, ("", ""), 9).await, listed("a cam-2", 1));
}

pub(super) async fn who_looks_often_is_noted_once(ground: Ground) {
    let look = async |actor: &'static str, subject: &'static str| {
        let mut change = ground.store.begin().await.unwrap();
        let deed = Deed { actor, action: "review.look", subject, reason: None, detail: "" };
        let noted = change.audit_look(&deed, NOW).await.unwrap();
        change.commit().await.unwrap();
        noted
    };
    assert!(look("ann", "s-1").await && !look("ann", "s-1").await);
    assert!(look("ben", "s-1").await && look("ann", "s-2").await);
    assert_eq!(ground.store.audit_head().await.unwrap().size(), 3);
}
