//! Tenants, changes, filters, pages, audit, operators.

use std::collections::BTreeMap;

use sealift_protocol::api::{Role, TimelineEntry};
use sealift_protocol::report::OutcomeKind;

use super::*;
use crate::auth::{self, Auth, Rules, Seal, Visit};
use crate::config::Retention;
use crate::filter::Filter;
use crate::store::housekeeping::KEPT_MS;

pub(super) async fn tenants_do_not_see_each_other(ground: Ground) {
    let other = TenantId::parse(&format!("{}x", ground.tenant())).unwrap();
    let other = Ground::of(&ground.store.store, &ground.url, &other);
    ground.enrol("cam-1", &[]).await;
    other.enrol("cam-2", &[]).await;

    let all = "".parse().unwrap();
    let mine = ground.store.devices(&all, ground.presence(NOW), None, 10).await.unwrap();
    let theirs = ground.store.device(&device("cam-2"), ground.presence(NOW)).await.unwrap();

    assert_eq!(mine.iter().map(|view| view.id.as_str()).collect::<Vec<_>>(), ["cam-1"]);
    assert!(theirs.is_none());
}

pub(super) async fn a_change_that_is_not_committed_never_was(ground: Ground) {
    let cam = ground.enrol("cam-1", &[]).await;
    let mut change = ground.store.begin().await.unwrap();
    change.revoke_device(&cam.id, "stolen", NOW).await.unwrap();
    super::audit::write(&mut change, "device.revoke").await;
    drop(change);

    let view = ground.store.device(&cam.id, ground.presence(NOW)).await.unwrap().unwrap();
    assert_ne!(view.state, sealift_protocol::api::DeviceState::Revoked);
    assert_eq!(ground.store.audit_head().await.unwrap().size(), 0);
}

pub(super) async fn every_term_of_a_filter_is_asked_of_the_database(ground: Ground) {
    let mut devices = ground.fleet(2).await;
    ground.enrol("dock-1", &[("site", "new york"), ("rack_1", "100%")]).await;
    let gone = ground.enrol("gone-1", &[]).await;
    let mut change = ground.store.begin().await.unwrap();
    change.revoke_device(&gone.id, "stolen", NOW).await.unwrap();
    change.commit().await.unwrap();
    ground.push("1").await;
    ground.push("2").await;
    ground.roll_out("1").await;
    ground.settle(&mut devices, OutcomeKind::Committed).await;

    for (filter, expected) in [
        ("", "cam-1 cam-2 dock-1 gone-1"),
        ("site:tokyo", "cam-1 cam-2"),
        ("-site:tokyo", "dock-1 gone-1"),
        ("site:*", "cam-1 cam-2 dock-1"),
        ("site:\"new york\"", "dock-1"),
        ("rack_1:100%", "dock-1"),
        ("rackx1:*", ""),
        ("id:cam-*", "cam-1 cam-2"),
        ("id:cam_1", ""),
        ("state:online", "cam-1 cam-2"),
        ("state:offline", "dock-1"),
        ("state:revoked", "gone-1"),
        ("model:vision/digits", "cam-1 cam-2"),
        ("model:vision/digits@<2", "cam-1 cam-2"),
        ("model:vision/digits@>=2", ""),
        ("-model:vision/digits@1", "dock-1 gone-1"),
        ("seen:<5m", "cam-1 cam-2"),
        ("seen:>5m", "dock-1 gone-1"),
        ("sim:false", "cam-1 cam-2 dock-1 gone-1"),
        ("sim:true", ""),
        ("site:tokyo -id:cam-2", "cam-1"),
        ("site:\"'; DROP TABLE devices; --\"", ""),
    ] {
        let parsed = filter.parse().unwrap();
        let presence = ground.presence(NOW.plus(60_000));
        let found = ground.store.devices(&parsed, presence, None, 10).await.unwrap();
        let found: Vec<_> = found.iter().map(|view| view.id.as_str()).collect();
        assert_eq!(found.join(" "), expected, "{filter}");
        let count = ground.store.count_devices(&parsed, presence).await.unwrap();
        assert_eq!(count, found.len() as u64, "{filter}");
    }
    let later = ground.presence(NOW.plus(90_001));
    let offline = ground.store.count_devices(&"state:offline".parse().unwrap(), later).await;
    assert_eq!(offline.unwrap(), 3, "nothing came for 90 seconds");
}

pub(super) async fn pages_follow_each_other(ground: Ground) {
    for name in ["a", "b", "c"] {
        ground.enrol(name, &[("site", "tokyo")]).await;
    }
    let filter = "site:tokyo".parse().unwrap();
    let presence = ground.presence(NOW);

    let first = ground.store.devices(&filter, presence, None, 2).await.unwrap();
    let second = ground.store.devices(&filter, presence, Some(&device("b")), 2).await.unwrap();

    let names = |views: &[sealift_protocol::api::DeviceView]| {
        views.iter().map(|view| view.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!((names(&first), names(&second)), (vec!["a".into(), "b".into()], vec!["c".into()]));
    assert_eq!(first[0].labels["site"], "tokyo");
}

pub(super) async fn a_login_code_works_once(ground: Ground) {
    let store = &ground.store;
    let code = auth::create_login_code(store, "ann", Role::Operator, NOW).await.unwrap();
    let late = auth::create_login_code(store, "ann", Role::Operator, NOW).await.unwrap();

    let doors = Auth::new(store.clone(), Rules::default(), Seal::of_test(ground.tenant()), None);
    let log_in = async |code: &str, at| doors.log_in(code, &Visit::default(), at).await.unwrap();
    let first = log_in(&code, NOW).await.unwrap();
    let second = log_in(&code, NOW).await;
    let expired = log_in(&late, NOW.plus(5 * 60_000)).await;

    assert!(second.is_none() && expired.is_none());
    let hash = auth::hash(&first.secret);
    let idle_ms = auth::SESSION_LIFE_MS * 2;
    let session = store.session(hash, NOW, idle_ms).await.unwrap().unwrap();
    assert_eq!((session.operator.name.as_str(), session.operator.role), ("ann", Role::Operator));
    let over = NOW.plus(auth::SESSION_LIFE_MS);
    assert!(store.session(hash, over, idle_ms).await.unwrap().is_none());
    assert!(store.session(hash, NOW.plus(1_000), 1_000).await.unwrap().is_none(), "idle");
    assert!(store.session(auth::hash("guess"), NOW, idle_ms).await.unwrap().is_none());
}

pub(super) async fn a_new_token_takes_the_place_of_the_old_one(ground: Ground) {
    let old = auth::create_token(&ground.store, "ci", Role::Viewer, NOW).await.unwrap();
    let new = auth::create_token(&ground.store, "ci", Role::Admin, NOW).await.unwrap();

    assert!(ground.store.api_token(auth::hash(&old), NOW).await.unwrap().is_none());
    let token = ground.store.api_token(auth::hash(&new), NOW).await.unwrap().unwrap();
    assert_eq!((token.operator.name.as_str(), token.operator.role), ("ci", Role::Admin));
}

pub(super) async fn labels_are_set_and_removed(ground: Ground) {
    let cam = ground.enrol("cam-1", &[("site", "tokyo"), ("line", "4")]).await;
    let labels = BTreeMap::from([
        ("site".to_owned(), Some("osaka".to_owned())),
        ("line".to_owned(), None),
        ("shift".to_owned(), Some("night".to_owned())),
    ]);
    let mut change = ground.store.begin().await.unwrap();
    assert!(change.change_labels(&cam.id, &labels).await.unwrap());
    assert!(!change.change_labels(&device("nobody"), &labels).await.unwrap());
    change.commit().await.unwrap();

    let view = ground.store.device(&cam.id, ground.presence(NOW)).await.unwrap().unwrap();
    let expected = [("shift", "night"), ("site", "osaka")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(view.labels, BTreeMap::from(expected));
}

pub(super) async fn old_rows_are_thrown_away(ground: Ground) {
    let cam = ground.enrol("cam-1", &[]).await;
    let entry = |at| TimelineEntry {
        at,
        kind: "event".to_owned(),
        severity: "info".to_owned(),
        code: String::new(),
        text: String::new(),
        model: None,
    };
    let mut change = ground.store.begin().await.unwrap();
    change.note(&cam.id, &entry(NOW)).await.unwrap();
    change.note(&cam.id, &entry(NOW.plus(1))).await.unwrap();
    assert_eq!(change.throw_away(Retention::default(), NOW.plus(KEPT_MS + 1)).await.unwrap(), 1);
    change.commit().await.unwrap();

    assert_eq!(ground.store.timeline_length(&cam.id).await.unwrap(), 1);
}

pub(super) async fn what_was_foreseen_and_remembered_goes_after_its_time(ground: Ground) {
    const DAY_MS: i64 = 24 * 3_600 * 1_000;
    let retention = Retention { forecast_days: 10, habits_days: 20, ..Retention::default() };
    let throw_away = async |days: i64| {
        let mut change = ground.store.begin().await.unwrap();
        let gone = change.throw_away(retention, NOW.plus(days * DAY_MS + 1)).await.unwrap();
        change.commit().await.unwrap();
        gone
    };
    let mut devices = ground.fleet(2).await;
    ground.push("1").await;
    let ended = ground.roll_out("1").await;
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    ground.push("2").await;
    let halted = ground.roll_out("2").await;
    ground.settle(&mut devices, OutcomeKind::RolledBack).await;
    // One goes, and its habits are noted; the other stays, and so does what is known of it.
    let gone = codec::encode(&Conn { online: false, epoch: 1 }).unwrap();
    for device in &devices {
        ground.accept(&device.id, Up::Conn, &gone, NOW.plus(3_600_000)).await.unwrap();
    }
    let back = codec::encode(&Conn { online: true, epoch: 2 }).unwrap();
    ground.accept(&devices[1].id, Up::Conn, &back, NOW.plus(3_700_000)).await.unwrap();
    let known = async || {
        let of = (&digits(), image("1").index);
        let known = ground.store.known(of, &Filter::default(), ground.presence(NOW)).await.unwrap();
        known.values().map(|known| known.habits.is_some()).collect::<Vec<_>>()
    };
    assert_eq!(throw_away(9).await, 0);
    assert!(ground.store.course(ended).await.unwrap().forecast.is_some());

    assert_eq!(throw_away(10).await, 1, "the forecast of the rollout that is over");
    assert!(ground.store.course(ended).await.unwrap().forecast.is_none());
    assert!(ground.store.course(halted).await.unwrap().forecast.is_some(), "it is not over");
    assert_eq!(known().await, [true, true]);

    assert_eq!(throw_away(21).await, 1, "the habits of the device that was not heard");
    assert_eq!(known().await, [false, true]);
}
