//! Certificates that follow each other, claims, serial numbers.

use std::collections::BTreeSet;

use sealift_protocol::api::{EnrolRequestState, EnrolSerial};

use super::*;
use crate::store::certificates::Worth;
use crate::store::claims::{Decision, NewAsk, NewClaim};

const DAY_MS: i64 = 86_400_000;

fn certificate(serial: &str) -> DeviceCertificate {
    let (chain_pem, serial) = (String::new(), serial.to_owned());
    DeviceCertificate { chain_pem, serial, expires_at: NOW.plus(90 * DAY_MS) }
}

async fn worth(ground: &Ground, device: &DeviceId, serial: &str) -> Worth {
    ground.store.papers(device).await.unwrap().unwrap().worth(serial)
}

async fn offer(ground: &Ground, device: &DeviceId, serial: &str) -> bool {
    let mut change = ground.store.begin().await.unwrap();
    let offered = change.offer_certificate(device, &certificate(serial), NOW).await.unwrap();
    change.commit().await.unwrap();
    offered
}

async fn ended(ground: &Ground) -> BTreeSet<String> {
    let ended = ground.store.ended_certificates(NOW.plus(1)).await.unwrap();
    ended.into_iter().map(|ended| ended.serial).collect()
}

pub(super) async fn a_certificate_is_followed_by_the_next_at_its_first_use(ground: Ground) {
    let cam = ground.enrol("cam-1", &[]).await.id;
    assert!(offer(&ground, &cam, "a").await);
    assert!(offer(&ground, &cam, "b").await);
    assert_eq!(worth(&ground, &cam, "1").await, Worth::Present);
    assert_eq!(worth(&ground, &cam, "a").await, Worth::Superseded);
    assert_eq!(worth(&ground, &cam, "b").await, Worth::Next);

    assert!(!ground.store.take_into_use(&cam, "a", NOW).await.unwrap());
    assert!(ground.store.take_into_use(&cam, "b", NOW).await.unwrap());
    assert!(ground.store.take_into_use(&cam, "b", NOW).await.unwrap(), "once more changes nothing");

    assert_eq!(worth(&ground, &cam, "b").await, Worth::Present);
    assert_eq!(worth(&ground, &cam, "1").await, Worth::Superseded);
    let view = ground.store.device(&cam, ground.presence(NOW)).await.unwrap().unwrap();
    assert_eq!(view.certificate_expires_at, NOW.plus(90 * DAY_MS));
    assert_eq!(ground.store.count_certificates(&cam, NOW.plus(-1)).await.unwrap(), 3);
    assert!(ended(&ground).await.contains("a"), "a broker has to be told");
}

pub(super) async fn a_revoked_device_has_no_certificate_that_is_good(ground: Ground) {
    let cam = ground.enrol("cam-1", &[]).await.id;
    offer(&ground, &cam, "a").await;
    let mut change = ground.store.begin().await.unwrap();
    change.revoke_device(&cam, "stolen", NOW).await.unwrap();
    change.commit().await.unwrap();

    for serial in ["1", "a"] {
        assert_eq!(worth(&ground, &cam, serial).await, Worth::Revoked, "{serial}");
    }
    assert!(!ground.store.take_into_use(&cam, "a", NOW).await.unwrap());
    let mut change = ground.store.begin().await.unwrap();
    assert!(!change.offer_certificate(&cam, &certificate("b"), NOW).await.unwrap());
    drop(change);
    assert!(ended(&ground).await.contains("a"));
    let unwelcome = ground.store.unwelcome_devices(NOW.plus(-1), NOW).await.unwrap();
    assert_eq!(unwelcome, [cam]);
}

pub(super) async fn the_last_place_and_a_serial_number_are_taken_once(ground: Ground) {
    let claim = NewClaim {
        id: "c-1".to_owned(),
        batch: "spring".to_owned(),
        labels: BTreeMap::new(),
        certificate_serial: "9".to_owned(),
        places: 1,
        expires_at: NOW.plus(DAY_MS),
    };
    let serial = EnrolSerial { serial: "SN".to_owned(), device: None, labels: BTreeMap::new() };
    let mut change = ground.store.begin().await.unwrap();
    change.add_claim(&claim, "ann", NOW).await.unwrap();
    assert!(change.add_serial(&serial, Some("spring"), "ann", NOW).await.unwrap());
    assert!(!change.add_serial(&serial, None, "ann", NOW).await.unwrap());
    assert!(!change.take_place("c-1", NOW.plus(DAY_MS)).await.unwrap(), "expired");
    assert!(change.take_place("c-1", NOW).await.unwrap());
    assert!(!change.take_place("c-1", NOW).await.unwrap());
    assert!(change.use_serial("SN", &device("cam-1"), NOW).await.unwrap());
    assert!(!change.use_serial("SN", &device("cam-2"), NOW).await.unwrap());
    change.commit().await.unwrap();

    let kept = ground.store.claim("9").await.unwrap().unwrap();
    assert_eq!((kept.places, kept.places_left), (1, 0));
    let used = ground.store.serial("SN").await.unwrap().unwrap();
    assert_eq!((used.used_by, used.batch.as_deref()), (Some(device("cam-1")), Some("spring")));
    assert_eq!(ground.store.serials(Some("SN"), 10).await.unwrap(), []);

    let mut change = ground.store.begin().await.unwrap();
    assert!(change.revoke_claim("c-1", NOW).await.unwrap());
    assert!(!change.revoke_claim("c-1", NOW).await.unwrap());
    change.commit().await.unwrap();
    assert!(ended(&ground).await.contains("9"));
}

pub(super) async fn a_request_is_kept_once_and_decided_until_it_is_fulfilled(ground: Ground) {
    let claim = NewClaim {
        id: "c-1".to_owned(),
        batch: "spring".to_owned(),
        labels: BTreeMap::new(),
        certificate_serial: "9".to_owned(),
        places: 1,
        expires_at: NOW.plus(DAY_MS),
    };
    let (key, cam, labels) = (Digest::of(b"key"), device("cam-1"), BTreeMap::new());
    let ask = NewAsk {
        id: "q-1",
        claim: "c-1",
        key,
        device: &cam,
        serial: Some("SN"),
        address: "192.0.2.1",
        labels: &labels,
    };
    let decide = |state, reason| Decision { state, by: "ann", reason };
    let mut change = ground.store.begin().await.unwrap();
    change.add_claim(&claim, "ann", NOW).await.unwrap();
    assert!(change.add_ask(&ask, NOW).await.unwrap());
    assert!(!change.add_ask(&NewAsk { id: "q-2", ..ask }, NOW).await.unwrap());
    let denied = decide(EnrolRequestState::Denied, Some("no"));
    assert!(change.decide_ask("q-1", denied, NOW).await.unwrap());
    assert!(!change.decide_ask("q-9", denied, NOW).await.unwrap());
    change.commit().await.unwrap();
    let kept = ground.store.ask("c-1", key).await.unwrap().unwrap();
    assert_eq!((kept.state, kept.reason.as_deref()), (EnrolRequestState::Denied, Some("no")));
    assert_eq!(ground.store.count_waiting("c-1").await.unwrap(), 0);

    let mut change = ground.store.begin().await.unwrap();
    let approved = decide(EnrolRequestState::Approved, None);
    assert!(change.decide_ask("q-1", approved, NOW).await.unwrap());
    assert!(change.finish_ask("q-1", &cam, "PEM").await.unwrap());
    assert!(!change.finish_ask("q-1", &cam, "PEM").await.unwrap());
    assert!(!change.decide_ask("q-1", denied, NOW).await.unwrap());
    change.commit().await.unwrap();

    let listed = ground.store.asks(EnrolRequestState::Enrolled).await.unwrap();
    assert_eq!((listed[0].batch.as_str(), listed[0].key), ("spring", key));
    let kept = ground.store.ask("c-1", key).await.unwrap().unwrap();
    assert_eq!(kept.certificate.as_deref(), Some("PEM"));
}
