//! What devices are asked from afar, and what becomes of their answers.

use sealift_protocol::request::{Answer, LogTail, Nonce, Outcome as Said};

use super::*;
use crate::store::requests::{REQUESTS_KEPT_MS, RequestRow};

const MINUTE_MS: i64 = 60_000;

fn nonce(byte: u8) -> Nonce {
    Nonce::new([byte; 16])
}

fn row(byte: u8, idempotency: Option<&str>) -> RequestRow {
    RequestRow {
        nonce: nonce(byte),
        device: device("cam-1"),
        actor: "ann".to_owned(),
        idempotency: idempotency.map(str::to_owned),
        fingerprint: Digest::of(&[byte]),
        asked_at: NOW,
        expires_at: NOW.plus(MINUTE_MS),
        input: Some(vec![byte; 9]),
    }
}

async fn keep(ground: &Ground, row: RequestRow) {
    let mut change = ground.store.begin().await.unwrap();
    change.add_request(row).await.unwrap();
    change.commit().await.unwrap();
}

fn said(byte: u8) -> Vec<u8> {
    let outcome = Said::Logs(LogTail::default());
    Answer { nonce: nonce(byte), at: NOW, outcome }.encode().unwrap()
}

async fn says(ground: &Ground, name: &str, sequence: u64, body: Vec<u8>) {
    let envelope = Envelope { spool: SpoolId(5), sequence, lowest: 1, body };
    let message = codec::encode(&envelope).unwrap();
    ground.accept(&device(name), Up::Result, &message, NOW).await.unwrap().unwrap();
}

pub(super) async fn a_request_is_answered_once_and_by_the_device_that_was_asked(ground: Ground) {
    for name in ["cam-1", "cam-2"] {
        ground.enrol(name, &[]).await;
    }
    keep(&ground, row(1, None)).await;
    let (cam_1, cam_2) = (device("cam-1"), device("cam-2"));
    assert!(ground.store.is_open(&cam_1, nonce(1), NOW).await.unwrap());
    assert!(!ground.store.is_open(&cam_2, nonce(1), NOW).await.unwrap());
    assert_eq!(ground.store.request_input(&cam_2, nonce(1), NOW).await.unwrap(), None);
    assert_eq!(ground.store.request_input(&cam_1, nonce(1), NOW).await.unwrap(), Some(vec![1; 9]));
    let late = NOW.plus(MINUTE_MS + 1);
    assert_eq!(ground.store.request_input(&cam_1, nonce(1), late).await.unwrap(), None);

    says(&ground, "cam-2", 1, said(1)).await;
    assert_eq!(ground.store.answer(nonce(1)).await.unwrap(), None, "it was not asked");
    says(&ground, "cam-1", 1, said(1)).await;
    let first = ground.store.answer(nonce(1)).await.unwrap();
    assert_eq!(first, Some(said(1)));
    let other = Answer { at: NOW.plus(1), ..Answer::decode(&said(1)).unwrap() };
    says(&ground, "cam-1", 2, other.encode().unwrap()).await;
    assert_eq!(ground.store.answer(nonce(1)).await.unwrap(), first, "the first one counts");
    assert!(!ground.store.is_open(&cam_1, nonce(1), NOW).await.unwrap());
    assert_eq!(ground.store.request_input(&cam_1, nonce(1), NOW).await.unwrap(), None);
    // One that nobody asked for is no trouble.
    says(&ground, "cam-1", 3, said(9)).await;
}

pub(super) async fn what_was_asked_by_one_name_is_found_until_it_is_forgotten(ground: Ground) {
    ground.enrol("cam-1", &[]).await;
    keep(&ground, row(1, Some("once"))).await;
    keep(&ground, row(2, None)).await;
    keep(&ground, row(3, None)).await;

    let mut change = ground.store.begin().await.unwrap();
    let found = change.named_request("ann", "once").await.unwrap();
    assert_eq!(found, Some((nonce(1), Digest::of(&[1]))));
    assert_eq!(change.named_request("ben", "once").await.unwrap(), None);
    assert_eq!(change.open_requests(&device("cam-1"), NOW).await.unwrap(), 3);
    let over = NOW.plus(MINUTE_MS + 1);
    assert_eq!(change.open_requests(&device("cam-1"), over).await.unwrap(), 0);
    let asked_at = NOW.plus(REQUESTS_KEPT_MS + 1);
    change.add_request(RequestRow { asked_at, ..row(4, Some("once")) }).await.unwrap();
    let found = change.named_request("ann", "once").await.unwrap();
    assert_eq!(found, Some((nonce(4), Digest::of(&[4]))), "those of before are forgotten");
    change.commit().await.unwrap();
}
