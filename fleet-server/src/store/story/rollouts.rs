//! From an order to signed directives, and back.

use sealift_protocol::api::{
    Action, LateView, RollbackRequest, RollbackTarget, RolloutState, WaveState,
};
use sealift_protocol::directive::Behaviour;

use super::*;
use crate::filter::Filter;
use crate::order::OrderError;
use crate::rollback;
use crate::rollout::Stage;
use crate::store::StoreError;
use crate::store::audit::AuditFilter;
use crate::store::late::Astray;
use crate::store::rollouts::stage_words;

fn state(row: &RolloutRow) -> RolloutState {
    stage_words(row.stage).0
}

async fn desired(ground: &Ground, device: &Device) -> Option<String> {
    let (_, slots) = device.directive(ground).await?;
    slots.first().map(|slot| slot.version.to_string())
}

fn back(to: RollbackTarget, dry_run: bool) -> RollbackRequest {
    let reason = "reads 7 as 1".to_owned();
    RollbackRequest {
        model: digits(),
        to,
        filter: String::new(),
        devices: Vec::new(),
        reason,
        dry_run,
    }
}

async fn roll_back(
    ground: &Ground,
    request: &RollbackRequest,
) -> Result<sealift_protocol::api::RollbackResult, OrderError> {
    rollback::roll_back(&ground.store, request, ground.presence(NOW), ASKER).await
}

pub(super) async fn a_rollout_reaches_its_devices_with_signed_directives(ground: Ground) {
    let mut devices = ground.fleet(3).await;
    let other = ground.enrol("other-1", &[("site", "osaka")]).await;
    ground.connect(&other, NOW).await;
    ground.push("1").await;
    let id = ground.roll_out("1").await;

    ground.reconciler.turn(NOW).await.unwrap();
    let mut told = 0;
    for device in &devices {
        told += usize::from(device.directive(&ground).await.is_some());
    }
    assert_eq!(told, 1, "the canary alone");

    ground.settle(&mut devices, OutcomeKind::Committed).await;
    let row = ground.rollout(id).await;
    assert_eq!(state(&row), RolloutState::Succeeded, "{}", row.why);
    assert_eq!(row.finished_at, Some(NOW));
    assert!(row.waves.iter().all(|wave| wave.state == WaveState::Passed));
    for device in &devices {
        let (generation, slots) = device.directive(&ground).await.unwrap();
        assert_eq!(generation, Generation(1));
        assert_eq!(slots[0].index, image("1").index);
        assert_eq!((slots[0].epoch, slots[0].rollout), (Epoch(1), Some(id)));
    }
    assert_eq!(other.directive(&ground).await, None, "it does not match the filter");
    let adoption = ground.store.adoption(&Filter::default(), ground.presence(NOW)).await.unwrap();
    assert_eq!((adoption.len(), adoption[0].devices), (1, 3));
    assert_eq!(adoption[0].version, Some(version("1")));
    let deeds = ground.store.audit_log(&AuditFilter::default(), None, 10).await.unwrap();
    let actions: Vec<_> = deeds.into_iter().map(|row| row.action).collect();
    assert_eq!(actions, ["rollout.succeeded", "rollout.running", "rollout.create"]);
}

pub(super) async fn a_bad_canary_halts_and_rollback_brings_everybody_home(ground: Ground) {
    let mut devices = ground.fleet(3).await;
    ground.push("1").await;
    ground.push("2").await;
    ground.roll_out("1").await;
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    let bad = ground.roll_out("2").await;
    ground.reconciler.turn(NOW).await.unwrap();
    for device in &mut devices {
        device.follow(&ground, OutcomeKind::RolledBack).await;
    }
    ground.reconciler.turn(NOW).await.unwrap();
    assert_eq!(state(&ground.rollout(bad).await), RolloutState::Halted);
    assert_eq!(ground.rollout(bad).await.late, None, "it is not over");

    let dry = roll_back(&ground, &back(RollbackTarget::Previous, true)).await.unwrap();
    assert_eq!((dry.rollout, dry.version.as_str(), dry.devices), (None, "1", 1));
    assert_eq!(state(&ground.rollout(bad).await), RolloutState::Halted, "nothing was changed");

    let result = roll_back(&ground, &back(RollbackTarget::Previous, false)).await.unwrap();
    assert_eq!(result.quarantined, [version("2")]);
    assert_eq!((result.superseded.as_slice(), result.without_download), (&[bad][..], 1));
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    let home = ground.rollout(result.rollout.unwrap()).await;
    assert_eq!((state(&home), home.order.is_rollback), (RolloutState::Succeeded, true));
    let row = ground.rollout(bad).await;
    assert_eq!((state(&row), &row.revert.by), (RolloutState::Reverted, &vec![home.id]));
    assert_eq!(row.revert.reversion.unwrap().back, 1, "{}", row.why);
    let deeds = ground.store.audit_log(&AuditFilter::default(), None, 100).await.unwrap();
    let of_it = deeds.iter().filter(|deed| deed.subject == bad.to_string());
    let told: Vec<_> = of_it.map(|deed| (deed.action.as_str(), deed.actor.as_str())).collect();
    assert_eq!(told[..2], [("rollout.reverted", "server"), ("rollout.reverting", "ann")]);
    for device in &devices {
        assert_eq!(desired(&ground, device).await.as_deref(), Some("1"));
    }
    let again = order::rollable(&ground.store, &digits(), &version("2")).await.unwrap_err();
    assert!(matches!(again, OrderError::Quarantined { .. }));
    let nothing = roll_back(&ground, &back(RollbackTarget::Version(version("1")), false)).await;
    assert!(matches!(nothing.unwrap_err(), OrderError::NothingToGoBackFrom { .. }));
}

pub(super) async fn going_back_concerns_only_devices_with_a_bad_version(ground: Ground) {
    let mut devices = ground.fleet(2).await;
    for text in ["1", "2", "3"] {
        ground.push(text).await;
    }
    for text in ["1", "2", "3"] {
        ground.roll_out(text).await;
        ground.settle(&mut devices, OutcomeKind::Committed).await;
    }
    let fresh = ground.enrol("new-1", &[("site", "tokyo")]).await;
    ground.connect(&fresh, NOW).await;
    let gone = codec::encode(&Conn { online: false, epoch: 1 }).unwrap();
    ground.accept(&devices[0].id, Up::Conn, &gone, NOW).await.unwrap();

    let first = roll_back(&ground, &back(RollbackTarget::Previous, false)).await.unwrap();
    ground.reconciler.turn(NOW).await.unwrap();
    assert_eq!((first.version.as_str(), first.devices, first.without_download), ("2", 2, 2));
    assert_eq!(desired(&ground, &devices[0]).await.as_deref(), Some("2"), "told while offline");
    assert_eq!(desired(&ground, &fresh).await, None, "it never had the model");

    ground.settle(&mut devices, OutcomeKind::Committed).await;
    let second = roll_back(&ground, &back(RollbackTarget::Previous, false)).await.unwrap();
    assert_eq!((second.version.as_str(), second.quarantined), ("1", vec![version("2")]));
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    assert_eq!(desired(&ground, &devices[1]).await.as_deref(), Some("1"));
    let third = roll_back(&ground, &back(RollbackTarget::Previous, false)).await;
    assert!(matches!(third, Err(OrderError::NoEarlier(_))), "there was nothing before");
    let quarantined = roll_back(&ground, &back(RollbackTarget::Version(version("3")), false)).await;
    assert!(matches!(quarantined, Err(OrderError::Quarantined { .. })));
}

pub(super) async fn two_servers_do_not_both_act(ground: Ground) {
    let _devices = ground.fleet(3).await;
    ground.push("1").await;
    let id = ground.roll_out("1").await;
    let seen = ground.rollout(id).await;
    let other = Ground::of(&ground.store.store, &ground.url, ground.tenant());

    let (left, right) =
        futures_util::join!(ground.reconciler.turn(NOW), other.reconciler.turn(NOW));

    assert!(left.is_ok() && right.is_ok());
    let mut change = ground.store.begin().await.unwrap();
    let late = change.save_rollout(&seen, NOW).await;
    assert!(matches!(late, Err(StoreError::Changed(_))));
    drop(change);
    let told = ground.store.unpublished_directives(None, 10).await.unwrap();
    assert_eq!(told.len(), 1, "the canary was told once");
    assert_eq!(told[0].generation, Generation(1));
}

pub(super) async fn abort_gives_devices_back_what_they_had(ground: Ground) {
    let mut devices = ground.fleet(2).await;
    for text in ["1", "2"] {
        ground.push(text).await;
    }
    ground.roll_out("1").await;
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    let id = ground.roll_out("2").await;
    ground.reconciler.turn(NOW).await.unwrap();

    let action = (Action::Abort, "wrong one");
    order::act::take(&ground.reconciler, &ground.director, id, action, ASKER).await.unwrap();
    ground.settle(&mut devices, OutcomeKind::Committed).await;

    let row = ground.rollout(id).await;
    assert_eq!((state(&row), row.stage.is_over()), (RolloutState::Aborted, true));
    for device in &devices {
        assert_eq!(desired(&ground, device).await.as_deref(), Some("1"));
    }
    let twice = order::act::take(&ground.reconciler, &ground.director, id, action, ASKER).await;
    assert!(matches!(twice.unwrap_err(), OrderError::NotNow { .. }));

    let first = ground.enrol("new-1", &[("site", "tokyo")]).await;
    ground.connect(&first, NOW).await;
    let id = ground.roll_out("2").await;
    for _ in 0..3 {
        ground.reconciler.turn(NOW).await.unwrap();
        devices[0].follow(&ground, OutcomeKind::Committed).await;
        devices[1].follow(&ground, OutcomeKind::Committed).await;
    }
    order::act::take(&ground.reconciler, &ground.director, id, action, ASKER).await.unwrap();
    assert_eq!(desired(&ground, &first).await, None, "it had nothing before");
}

pub(super) async fn a_newer_rollout_supersedes_an_older_one(ground: Ground) {
    let mut devices = ground.fleet(2).await;
    for text in ["1", "2"] {
        ground.push(text).await;
    }
    let older = ground.roll_out("1").await;
    ground.reconciler.turn(NOW).await.unwrap();
    let newer = ground.roll_out("2").await;
    ground.settle(&mut devices, OutcomeKind::Committed).await;

    assert_eq!(ground.rollout(older).await.stage, Stage::Superseded);
    assert_eq!(state(&ground.rollout(newer).await), RolloutState::Succeeded);
    for device in &devices {
        assert_eq!(desired(&ground, device).await.as_deref(), Some("2"));
    }
}

pub(super) async fn directives_wait_until_the_broker_has_them(ground: Ground) {
    let _devices = ground.fleet(1).await;
    ground.push("1").await;
    ground.roll_out("1").await;
    ground.reconciler.turn(NOW).await.unwrap();
    let waiting = ground.store.unpublished_directives(None, 10).await.unwrap();
    assert_eq!(waiting.len(), 1);
    let (device, generation) = (&waiting[0].device, waiting[0].generation);

    let mut change = ground.store.begin().await.unwrap();
    change.mark_published(&[(device.clone(), Generation(generation.0 + 1))]).await.unwrap();
    change.commit().await.unwrap();
    let still = ground.store.unpublished_directives(None, 10).await.unwrap();
    assert_eq!(still, waiting, "another generation was published");

    let mut change = ground.store.begin().await.unwrap();
    change.mark_published(&[(device.clone(), generation)]).await.unwrap();
    change.commit().await.unwrap();
    assert_eq!(ground.store.unpublished_directives(None, 10).await.unwrap(), []);

    let mut change = ground.store.begin().await.unwrap();
    assert_eq!(change.mark_all_unpublished().await.unwrap(), 1);
    change.commit().await.unwrap();
    assert_eq!(ground.store.unpublished_directives(None, 10).await.unwrap(), waiting);
}

pub(super) async fn directives_are_signed_again_before_they_expire(ground: Ground) {
    let devices = ground.fleet(1).await;
    ground.push("1").await;
    ground.roll_out("1").await;
    ground.reconciler.turn(NOW).await.unwrap();
    let first = ground.store.signed_directive(&devices[0].id).await.unwrap();

    ground.reconciler.turn(NOW.plus(43_200_000)).await.unwrap();
    assert_eq!(
        ground.store.signed_directive(&devices[0].id).await.unwrap(),
        first,
        "half its life"
    );
    ground.reconciler.turn(NOW.plus(43_200_001)).await.unwrap();
    let second = ground.store.signed_directive(&devices[0].id).await.unwrap();

    assert_ne!(second, first);
    let waiting = ground.store.unpublished_directives(None, 10).await.unwrap();
    assert_eq!(waiting[0].generation, Generation(1), "it says the same, so it is not newer");
}

pub(super) async fn a_penalty_is_kept_until_retry(ground: Ground) {
    let mut devices = ground.fleet(1).await;
    ground.push("1").await;
    let id = ground.roll_out("1").await;
    ground.settle(&mut devices, OutcomeKind::Failed).await;
    assert_eq!(state(&ground.rollout(id).await), RolloutState::Halted);

    let action = (Action::Resume, "");
    order::act::take(&ground.reconciler, &ground.director, id, action, ASKER).await.unwrap();
    ground.reconciler.turn(NOW).await.unwrap();
    let (generation, _) = devices[0].directive(&ground).await.unwrap();
    assert_eq!(generation, Generation(1), "it is not told again");

    let id = ground.roll_out("1").await;
    ground.reconciler.turn(NOW).await.unwrap();
    let plan = ground.reconciler.look(&ground.rollout(id).await, NOW).await.unwrap();
    let why = plan.devices[&devices[0].id].why.to_string();
    assert_eq!(why, "not offered: it ended badly with this image before (self-test.golden)");
    assert_eq!(devices[0].directive(&ground).await.unwrap().0, Generation(1));

    let id = retry_rollout(&ground).await;
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    assert_eq!(devices[0].directive(&ground).await.unwrap().0, Generation(2));
    assert_eq!(state(&ground.rollout(id).await), RolloutState::Succeeded);
}

/// The device says of what it followed that it ended so.
async fn ends_so(ground: &Ground, device: &mut Device, kind: OutcomeKind, reason: &str) {
    let (generation, slots) = device.directive(ground).await.unwrap();
    let mut slot = ended(&slots[0], generation, kind, Some(image("1")));
    let outcome = slot.outcome.as_mut().unwrap();
    (outcome.code, outcome.reason) = ("trial.latency".to_owned(), reason.to_owned());
    let slots = vec![slot];
    let report = Report { generation, refused: None, slots, at: NOW, trusted: None };
    device.report(ground, &report).await;
}

pub(super) async fn a_device_that_goes_back_after_the_end_is_counted_once_until_it_is_told_something_newer(
    ground: Ground,
) {
    let mut devices = ground.fleet(3).await;
    for version in ["1", "2", "3"] {
        ground.push(version).await;
    }
    ground.roll_out("1").await;
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    let id = ground.roll_out("2").await;
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    let row = ground.rollout(id).await;
    assert_eq!(
        (state(&row), row.late, row.finished_at),
        (RolloutState::Succeeded, None, Some(NOW))
    );
    let late = async || (ground.rollout(id).await.late, ground.store.astray(9).await.unwrap());

    ends_so(&ground, &mut devices[1], OutcomeKind::RolledBack, "15 ms, 10 ms before").await;

    let (first, astray) = late().await;
    let why = "trial.latency: 15 ms, 10 ms before".to_owned();
    let view = LateView { devices: 1, since: NOW, newest: device("cam-2"), why };
    assert_eq!(first.as_ref(), Some(&view));
    assert_eq!(astray, [Astray { rollout: id, devices: 1, since: NOW }]);
    // Said again in other words, and with something else in between, it is the same device.
    ends_so(&ground, &mut devices[1], OutcomeKind::RolledBack, "16 ms, 10 ms before").await;
    ends_so(&ground, &mut devices[1], OutcomeKind::Committed, "").await;
    assert_eq!(late().await, (first.clone(), Vec::new()), "it serves it");
    ends_so(&ground, &mut devices[1], OutcomeKind::RolledBack, "17 ms, 10 ms before").await;
    assert_eq!(late().await.0, first);
    ends_so(&ground, &mut devices[2], OutcomeKind::RolledBack, "18 ms, 10 ms before").await;
    let (second, astray) = late().await;
    let LateView { devices: count, newest, why, .. } = second.unwrap();
    let expected = (2, device("cam-3"), "trial.latency: 18 ms, 10 ms before");
    assert_eq!((count, newest, why.as_str()), expected);
    assert_eq!(astray[0].devices, 2);

    // What they took back is no news any more once they are to run something else; that they did stays written.
    ground.roll_out("3").await;
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    let (after, astray) = late().await;
    assert_eq!((after.map(|late| late.devices), astray), (Some(2), Vec::new()));
}

/// A rollout that waits for a device that was offline, so that it is not over, and is then retried.
async fn retry_rollout(ground: &Ground) -> RolloutId {
    ground.enrol("away-1", &[("site", "tokyo")]).await;
    let id = ground.roll_out("1").await;
    ground.reconciler.turn(NOW).await.unwrap();
    let action = (Action::Retry, "the sensor was replaced");
    order::act::take(&ground.reconciler, &ground.director, id, action, ASKER).await.unwrap();
    let mut change = ground.store.begin().await.unwrap();
    change.revoke_device(&device("away-1"), "stolen", NOW).await.unwrap();
    change.commit().await.unwrap();
    id
}

pub(super) async fn what_may_not_be_rolled_out_is_refused(ground: Ground) {
    ground.fleet(1).await;
    ground.push("1").await;
    let new = |version_text: &str, filter: &str| RolloutNew {
        model: digits(),
        version: version(version_text),
        filter: filter.to_owned(),
        waves: Vec::new(),
        trial: Trial::default(),
        start_at: None,
        budget: None,
        tail_s: None,
        draft: false,
        reason: String::new(),
    };
    let create = async |new: RolloutNew| {
        order::create(&ground.store, &new, ground.presence(NOW), ASKER).await
    };
    assert!(matches!(create(new("9", "")).await, Err(OrderError::NoVersion { .. })));
    assert!(matches!(create(new("1", "site")).await, Err(OrderError::Filter(_))));
    assert!(matches!(create(new("1", "site:mars")).await, Err(OrderError::NoDevices(_))));
    let wave = |percent| sealift_protocol::api::WavePlan { percent, ..order::everybody() };
    let endless = RolloutNew { waves: vec![wave(Some(f64::NAN))], ..new("1", "") };
    assert!(matches!(create(endless).await, Err(OrderError::Waves(_))));
    let behaviour = Behaviour { latency_rise_permille: 1, ..Behaviour::OFF };
    let trial = Trial { behaviour, ..Trial::default() };
    let nervous = RolloutNew { trial, ..new("1", "") };
    assert!(matches!(create(nervous).await, Err(OrderError::Behaviour(_))));
    let many = RolloutNew { waves: vec![wave(None); 65], ..new("1", "") };
    assert!(matches!(create(many).await, Err(OrderError::Waves(_))));

    let mut change = ground.store.begin().await.unwrap();
    let name = (ModelName::parse("vision/digits").unwrap(), version("1"));
    change.set_endorsement(&name, None, NOW).await.unwrap();
    change.commit().await.unwrap();
    assert!(matches!(create(new("1", "")).await, Err(OrderError::Unsigned { .. })));

    let silent =
        RollbackRequest { reason: " ".to_owned(), ..back(RollbackTarget::Previous, false) };
    assert!(matches!(roll_back(&ground, &silent).await, Err(OrderError::Reason)));
    let nowhere = roll_back(&ground, &back(RollbackTarget::Previous, false)).await;
    assert!(matches!(nowhere, Err(OrderError::NoEarlier(_))));
}
