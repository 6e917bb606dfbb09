//! What devices send, and what becomes of it.

use sealift_protocol::api::DeviceState;
use sealift_protocol::telemetry::{Beat, Birth, Event, Facts, ProfileWindow, Severity};

use super::*;
use crate::filter::Filter;
use crate::store::timeline::DeviceEvent;

fn event(text: &str) -> Vec<u8> {
    let event = Event {
        code: "test".to_owned(),
        severity: Severity::Security,
        text: text.to_owned(),
        model: None,
        image: None,
        at: NOW,
    };
    codec::encode(&event).unwrap()
}

fn numbered(sequence: u64, lowest: u64, body: Vec<u8>) -> Vec<u8> {
    codec::encode(&Envelope { spool: SpoolId(u64::MAX), sequence, lowest, body }).unwrap()
}

async fn send(ground: &Ground, sequence: u64, lowest: u64) -> u64 {
    let message = numbered(sequence, lowest, event(&sequence.to_string()));
    let ack = ground.accept(&device("cam-1"), Up::Event, &message, NOW).await.unwrap().unwrap();
    assert_eq!(ack.spool, SpoolId(u64::MAX));
    ack.sequence
}

async fn texts(ground: &Ground) -> Vec<String> {
    let entries = ground.store.timeline(&device("cam-1"), None, 100).await.unwrap();
    entries.into_iter().rev().map(|(_, entry)| entry.text).collect()
}

pub(super) async fn a_message_is_stored_once_however_often_it_comes(ground: Ground) {
    ground.enrol("cam-1", &[]).await;
    for sequence in [1, 1, 2, 1, 2, 2] {
        send(&ground, sequence, 1).await;
    }
    assert_eq!(texts(&ground).await, ["1", "2"]);

    let grave = ground.store.grave_events_since(NOW, 10).await.unwrap();
    assert_eq!(grave.len(), 1, "the newest of its code stands for all");
    let DeviceEvent { device: of, entry, .. } = &grave[0];
    let found = (of, entry.severity.as_str(), entry.text.as_str());
    assert_eq!(found, (&device("cam-1"), "security", "2"));
    assert_eq!(ground.store.grave_events_since(NOW.plus(1), 10).await.unwrap(), []);
}

pub(super) async fn receipts_cover_what_is_complete_and_skip_what_is_gone(ground: Ground) {
    ground.enrol("cam-1", &[]).await;
    assert_eq!(send(&ground, 1, 1).await, 1);
    assert_eq!(send(&ground, 3, 1).await, 1, "2 is missing");
    assert_eq!(send(&ground, 4, 1).await, 1);
    assert_eq!(send(&ground, 3, 1).await, 1, "again");
    assert_eq!(send(&ground, 2, 1).await, 4, "now complete");
    assert_eq!(send(&ground, 8, 1).await, 4);
    assert_eq!(send(&ground, 9, 8).await, 9, "5 to 7 will never come");
    assert_eq!(send(&ground, 12, 12).await, 12);
    assert_eq!(send(&ground, 15, 1).await, 12);
    assert_eq!(send(&ground, 15, 15).await, 15, "it is stored, and 13 and 14 will never come");
    assert_eq!(send(&ground, 18, 16).await, 15);
    assert_eq!(send(&ground, 17, 17).await, 18);
    assert_eq!(send(&ground, 19, 17).await, 19);
    assert_eq!(texts(&ground).await, ["1", "3", "4", "2", "8", "9", "12", "15", "18", "17", "19"]);
}

pub(super) async fn messages_far_beyond_a_gap_are_refused(ground: Ground) {
    ground.enrol("cam-1", &[]).await;
    for sequence in 2..=1_001 {
        send(&ground, sequence, 1).await;
    }
    let message = numbered(1_002, 1, event("x"));
    let refused = ground.accept(&device("cam-1"), Up::Event, &message, NOW).await.unwrap_err();
    assert!(matches!(refused, IngestError::TooFarAhead { sequence: 1_002, .. }), "{refused}");
    assert!(refused.is_refusal());
}

fn account(phase: Phase) -> Report {
    let slot = SlotReport {
        phase,
        serving: Some(image("1")),
        providers: vec![("CPUExecutionProvider".to_owned(), 12)],
        ..SlotReport::idle(digits(), Generation(1))
    };
    Report { generation: Generation(1), refused: None, slots: vec![slot], at: NOW, trusted: None }
}

pub(super) async fn an_old_report_does_not_undo_a_newer_one(ground: Ground) {
    let mut cam = ground.enrol("cam-1", &[]).await;
    let late = cam.envelope(codec::encode(&account(Phase::Downloading)).unwrap());
    cam.report(&ground, &account(Phase::Watch)).await;
    ground.accept(&cam.id, Up::Report, &late, NOW).await.unwrap();

    let view = ground.store.device(&cam.id, ground.presence(NOW)).await.unwrap().unwrap();
    assert_eq!(view.slots.len(), 1);
    assert_eq!((view.slots[0].phase, view.slots[0].desired.as_ref()), (Some(Phase::Watch), None));
    assert_eq!(view.slots[0].providers, [("CPUExecutionProvider".to_owned(), 12)]);

    let nothing = Report { slots: Vec::new(), ..account(Phase::Idle) };
    cam.report(&ground, &nothing).await;
    let view = ground.store.device(&cam.id, ground.presence(NOW)).await.unwrap().unwrap();
    assert_eq!(view.slots, [], "a report is the whole truth");
}

pub(super) async fn a_last_will_of_an_older_connection_is_ignored(ground: Ground) {
    let cam = ground.enrol("cam-1", &[]).await;
    let conn = |online, epoch| codec::encode(&Conn { online, epoch }).unwrap();
    let state = async |payload: Vec<u8>| {
        ground.accept(&cam.id, Up::Conn, &payload, NOW).await.unwrap();
        let view = ground.store.device(&cam.id, ground.presence(NOW)).await.unwrap();
        view.unwrap().state
    };
    assert_eq!(state(conn(true, 1)).await, DeviceState::Online);
    assert_eq!(state(conn(true, 2)).await, DeviceState::Online);
    assert_eq!(state(conn(false, 1)).await, DeviceState::Online);
    assert_eq!(state(conn(false, 2)).await, DeviceState::Offline);
    assert_eq!(state(conn(true, 3)).await, DeviceState::Online);
}

pub(super) async fn senseless_messages_are_noted_and_acknowledged(ground: Ground) {
    ground.enrol("cam-1", &[]).await;
    let mut far = account(Phase::Idle);
    far.at = UnixMillis(i64::MAX);
    let mut twice = account(Phase::Idle);
    twice.slots.push(twice.slots[0].clone());
    let mut huge = account(Phase::Idle);
    huge.generation = Generation(u64::MAX);
    let bodies = [
        (Up::Report, b"\xff\xff".to_vec()),
        (Up::Report, codec::encode(&far).unwrap()),
        (Up::Report, codec::encode(&twice).unwrap()),
        (Up::Report, codec::encode(&huge).unwrap()),
        (Up::Result, Vec::new()),
    ];
    for ((channel, body), sequence) in bodies.into_iter().zip(1..) {
        let message = numbered(sequence, 1, body);
        let ack = ground.accept(&device("cam-1"), channel, &message, NOW).await.unwrap().unwrap();
        assert_eq!(ack.sequence, sequence);
    }
    let texts = texts(&ground).await;
    assert_eq!(texts.len(), 5);
    assert!(texts.iter().all(|text| text.contains("made no sense")), "{texts:?}");

    let forged = numbered(6, 1, event("\u{1b}[2Jred\nline"));
    ground.accept(&device("cam-1"), Up::Event, &forged, NOW).await.unwrap();
    assert_eq!(self::texts(&ground).await[5], "[2Jredline");

    for payload in [&b""[..], b"\xff", &[0x9f; 300]] {
        for channel in [Up::Conn, Up::Beat, Up::Event] {
            let refused = ground.accept(&device("cam-1"), channel, payload, NOW).await.unwrap_err();
            assert!(refused.is_refusal(), "{refused}");
        }
    }
}

pub(super) async fn strangers_and_revoked_devices_are_refused(ground: Ground) {
    let cam = ground.enrol("cam-1", &[]).await;
    let conn = codec::encode(&Conn { online: true, epoch: 1 }).unwrap();
    let stranger = ground.accept(&device("nobody"), Up::Conn, &conn, NOW).await;
    assert!(matches!(stranger, Err(IngestError::UnknownDevice(_))));

    ground.accept(&cam.id, Up::Conn, &conn, NOW).await.unwrap();
    let mut change = ground.store.begin().await.unwrap();
    assert!(change.revoke_device(&cam.id, "stolen", NOW).await.unwrap());
    assert!(!change.revoke_device(&cam.id, "stolen", NOW).await.unwrap());
    change.commit().await.unwrap();
    let revoked = ground.accept(&cam.id, Up::Conn, &conn, NOW).await;
    assert!(matches!(revoked, Err(IngestError::UnknownDevice(_))));
}

pub(super) async fn a_profile_window_is_kept_once(ground: Ground) {
    let mut cam = ground.enrol("cam-1", &[]).await;
    let window = |from: i64, until: i64| ProfileWindow {
        model: digits(),
        image: image("1"),
        from: NOW.plus(from),
        until: NOW.plus(until),
        profile: vec![1, 2, 3],
        errors: 4,
    };
    let spools = [SpoolId(1), SpoolId(2)];
    for spool in spools {
        cam.spool = spool;
        cam.sequence = 0;
        for (from, until) in [(-120_000, -60_000), (-60_000, 0)] {
            let message = cam.envelope(codec::encode(&window(from, until)).unwrap());
            ground.accept(&cam.id, Up::Profile, &message, NOW).await.unwrap();
        }
    }
    for (from, until) in
        [(0, 0), (0, 3_600_001), (-90_000_000, -1), (-2_592_060_000, -2_592_000_001)]
    {
        let message = cam.envelope(codec::encode(&window(from, until)).unwrap());
        ground.accept(&cam.id, Up::Profile, &message, NOW).await.unwrap();
    }

    let stored = ground.store.windows_after(0, 10).await.unwrap();
    assert_eq!(stored.len(), 2, "each once, and none from the future, too long or too old");
    assert_eq!(stored[0].window, window(-120_000, -60_000));
    let rest = ground.store.windows_after(stored[0].number, 10).await.unwrap();
    assert_eq!(rest, stored[1..]);
}

pub(super) async fn heartbeats_become_a_load(ground: Ground) {
    let cam = ground.enrol("cam-1", &[]).await;
    let beat = |requests, seconds: i64| {
        let at = NOW.plus(seconds * 1_000);
        let beat = Beat { requests, at: at.0 + 250, temperature_c: i8::MIN, ..Beat::default() };
        (codec::encode(&beat).unwrap(), at)
    };
    for (requests, seconds) in [(100, 0), (700, 60)] {
        let (payload, at) = beat(requests, seconds);
        ground.accept(&cam.id, Up::Beat, &payload, at).await.unwrap();
    }
    let presence = ground.presence(NOW.plus(60_000));
    let load = ground.store.requests_per_s(&Filter::default(), presence).await.unwrap();
    assert!((load - 10.0).abs() < 1e-9, "{load}");

    let view = ground.store.device(&cam.id, presence).await.unwrap().unwrap();
    let health = view.health.unwrap();
    assert_eq!(view.state, DeviceState::Online, "a heartbeat is a sign of presence");
    assert_eq!((health.requests, health.clock_skew_ms, health.temperature_c), (700, 250, None));

    let (payload, at) = beat(5, 120);
    ground.accept(&cam.id, Up::Beat, &payload, at).await.unwrap();
    let restarted =
        ground.store.requests_per_s(&Filter::default(), ground.presence(at)).await.unwrap();
    assert!(restarted.abs() < 1e-9, "an agent that has started again counts from nothing");
}

pub(super) async fn many_devices_at_once(ground: Ground) {
    for number in 1..=40 {
        ground.enrol(&format!("cam-{number}"), &[]).await;
    }
    let birth = Birth {
        epoch: 1,
        agent: "0.1.0".to_owned(),
        facts: Facts { os: "linux".to_owned(), simulated: true, ..Facts::default() },
        generation: Generation(0),
        slots: Vec::new(),
        endpoint: Some("http://127.0.0.1:8080".to_owned()),
        at: NOW,
        trusted: None,
    };
    let message = numbered(1, 1, codec::encode(&birth).unwrap());
    let ids: Vec<_> = (1..=40).map(|number| device(&format!("cam-{number}"))).collect();
    let births = ids.iter().map(|id| ground.accept(id, Up::Birth, &message, NOW));
    let stranger = device("nobody");
    let stranger = ground.accept(&stranger, Up::Birth, &message, NOW);

    let (born, refused) = futures_util::join!(futures_util::future::join_all(births), stranger);

    assert!(born.iter().all(|ack| matches!(ack, Ok(Some(Ack { sequence: 1, .. })))));
    assert!(refused.unwrap_err().is_refusal(), "one that is refused does not spoil the others");
    let simulated = "sim:true state:online".parse().unwrap();
    assert_eq!(ground.store.count_devices(&simulated, ground.presence(NOW)).await.unwrap(), 40);
}
