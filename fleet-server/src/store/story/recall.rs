//! All rollouts stopped at once, and ways back to several versions.

use sealift_protocol::api::{RollbackRequest, RollbackResult, RollbackTarget, RolloutState};
use sealift_protocol::halt::{HaltList, Listener};
use sealift_protocol::report::Trusted;

use super::*;
use crate::filter::Filter;
use crate::halt;
use crate::order::OrderError;
use crate::rollback;
use crate::rollout::Stage;
use crate::store::halt::{Confirmations, List};
use crate::store::rollouts::stage_words;

const HOUR_MS: i64 = 3_600_000;

fn back(to: RollbackTarget, devices: &[&str]) -> RollbackRequest {
    RollbackRequest {
        model: digits(),
        to,
        filter: String::new(),
        devices: devices.iter().map(|name| device(name)).collect(),
        reason: "reads 7 as 1".to_owned(),
        dry_run: false,
    }
}

async fn roll_back(
    ground: &Ground,
    request: &RollbackRequest,
) -> Result<RollbackResult, OrderError> {
    rollback::roll_back(&ground.store, request, ground.presence(NOW), ASKER).await
}

async fn desired(ground: &Ground, device: &Device) -> Option<String> {
    let (_, slots) = device.directive(ground).await?;
    slots.first().map(|slot| slot.version.to_string())
}

/// How many devices should run a version.
async fn told(ground: &Ground, devices: &[Device], version: &str) -> usize {
    let mut count = 0;
    for device in devices {
        count += usize::from(desired(ground, device).await.as_deref() == Some(version));
    }
    count
}

async fn state(ground: &Ground, id: RolloutId) -> RolloutState {
    stage_words(ground.rollout(id).await.stage).0
}

/// A fleet whose devices have all kept a version.
async fn on_version(ground: &Ground, count: usize, version: &str) -> Vec<Device> {
    let mut devices = ground.fleet(count).await;
    for text in ["1", "2", "3"] {
        ground.push(text).await;
    }
    ground.roll_out(version).await;
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    devices
}

/// The list that a device would obey now.
async fn list(ground: &Ground) -> HaltList {
    let message = ground.store.signed_halt().await.unwrap().unwrap();
    let key = director_key().verifying_key();
    let keys = BTreeMap::from([(KeyId::of(&key), key)]);
    let listener = Listener { tenant: ground.tenant(), newest: None };
    HaltList::verify(&message, &keys, listener).unwrap().get().clone()
}

async fn halt_all(ground: &Ground) {
    halt::halt(&ground.store, &ground.director, "smoke", ASKER).await.unwrap();
}

pub(super) async fn a_halt_tells_nobody_and_a_way_back_that_comes_later_goes_on(ground: Ground) {
    let mut devices = on_version(&ground, 3, "1").await;
    let second = ground.roll_out("2").await;
    ground.reconciler.turn(NOW).await.unwrap();
    let campaign = ground.rollout(second).await.campaign.unwrap();

    halt_all(&ground).await;

    assert!(list(&ground).await.stops(Some(campaign)));
    let third = ground.roll_out("3").await;
    for _ in 0..3 {
        ground.reconciler.turn(NOW).await.unwrap();
    }
    assert_eq!(told(&ground, &devices, "2").await, 1, "the canary, and nobody else");
    assert_eq!(told(&ground, &devices, "3").await, 0);
    let row = ground.rollout(third).await;
    assert_eq!(stage_words(row.stage).0, RolloutState::Running);
    assert!(row.why.contains("halted by ann") && row.why.contains("smoke"), "{}", row.why);
    let plan = ground.reconciler.look(&row, NOW).await.unwrap();
    assert!(plan.devices.values().all(|it| it.why.to_string().contains("halted")), "{plan:?}");

    let back = roll_back(&ground, &back(RollbackTarget::Version(version("1")), &[])).await.unwrap();
    ground.reconciler.turn(NOW).await.unwrap();
    assert_eq!(told(&ground, &devices, "1").await, 3, "told under the halt");
    let way = ground.rollout(back.rollout.unwrap()).await;
    assert!(!list(&ground).await.stops(way.campaign));

    halt::resume(&ground.store, &ground.director, "the smoke is gone", ASKER).await.unwrap();
    assert!(list(&ground).await.campaigns.is_empty());
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    assert_eq!(state(&ground, back.rollout.unwrap()).await, RolloutState::Succeeded);
}

pub(super) async fn halts_follow_each_other_and_a_second_one_changes_nothing(ground: Ground) {
    let mut devices = on_version(&ground, 2, "1").await;
    ground.roll_out("2").await;
    halt_all(&ground).await;
    let first = list(&ground).await;

    halt_all(&ground).await;
    assert_eq!(list(&ground).await, first, "it must not stop what was done since");

    halt::resume(&ground.store, &ground.director, "", ASKER).await.unwrap();
    let resumed = list(&ground).await;
    assert!(resumed.sequence > first.sequence && first.sequence >= 1_790_000_000_000);
    halt::resume(&ground.store, &ground.director, "", ASKER).await.unwrap();
    assert_eq!(list(&ground).await, resumed);

    let refused = halt::halt(&ground.store, &ground.director, " ", ASKER).await.unwrap_err();
    assert!(matches!(refused, OrderError::Reason));
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    for device in &devices {
        assert_eq!(desired(&ground, device).await.as_deref(), Some("2"), "it went on");
    }
}

pub(super) async fn a_rollout_that_is_over_is_halted_where_a_device_is_still_to_follow(
    ground: Ground,
) {
    let mut devices = on_version(&ground, 2, "1").await;
    let second = ground.roll_out("2").await;
    ground.settle(&mut devices[..1], OutcomeKind::Committed).await;
    let mut row = ground.rollout(second).await;
    row.stage = crate::rollout::Stage::Succeeded;
    let mut change = ground.store.begin().await.unwrap();
    change.save_rollout(&row, NOW).await.unwrap();
    change.commit().await.unwrap();

    halt_all(&ground).await;

    assert_eq!(desired(&ground, &devices[1]).await.as_deref(), Some("2"), "told, not followed");
    assert!(list(&ground).await.stops(row.campaign));
}

pub(super) async fn devices_that_confirm_a_halt_are_counted(ground: Ground) {
    let mut devices = ground.fleet(3).await;
    halt_all(&ground).await;
    let sequence = list(&ground).await.sequence;
    let gone = codec::encode(&Conn { online: false, epoch: 1 }).unwrap();
    ground.accept(&devices[2].id, Up::Conn, &gone, NOW).await.unwrap();
    let trusted = Some(Trusted { halt: sequence, ..Trusted::default() });
    let generation = Generation(0);
    let report = Report { generation, refused: None, slots: Vec::new(), at: NOW, trusted };

    devices[0].report(&ground, &report).await;

    let filter = Filter::default();
    let counts = ground
        .store
        .confirmations((List::Halts, sequence), &filter, ground.presence(NOW))
        .await
        .unwrap();
    assert_eq!(counts, Confirmations { confirmed: 1, unconfirmed: 1, offline: 1 });
}

/// Has a device say, at a time, that it serves a version.
async fn served(ground: &Ground, device: &mut Device, version: &str, at: UnixMillis) {
    let (generation, slots) = device.directive(ground).await.unwrap();
    let kind = OutcomeKind::Committed;
    let slots = slots.iter().map(|slot| {
        let slot = DesiredSlot { version: self::version(version), ..slot.clone() };
        let slot = DesiredSlot { index: image(version).index, ..slot };
        ended(&slot, generation, kind, Some(image("1")))
    });
    let report = Report { generation, refused: None, slots: slots.collect(), at, trusted: None };
    let message = device.envelope(codec::encode(&report).unwrap());
    ground.accept(&device.id, Up::Report, &message, at).await.unwrap();
}

pub(super) async fn each_device_goes_back_to_what_it_itself_ran(ground: Ground) {
    let mut devices = on_version(&ground, 3, "3").await;
    let fresh = ground.enrol("new-1", &[]).await;
    ground.connect(&fresh, NOW).await;
    for (device, version) in devices.iter_mut().zip(["1", "2", "3"]) {
        served(&ground, device, version, NOW.plus(HOUR_MS)).await;
        served(&ground, device, "3", NOW.plus(2 * HOUR_MS)).await;
    }
    let then = RollbackTarget::Time(NOW.plus(HOUR_MS + 60_000));

    let dry = RollbackRequest { dry_run: true, ..back(then.clone(), &[]) };
    let plan = roll_back(&ground, &dry).await.unwrap();
    let steps: Vec<_> = plan.steps.iter().map(|it| (it.version.as_str(), it.devices)).collect();
    assert_eq!(steps, [("1", 1), ("2", 1)]);
    assert_eq!((plan.devices, plan.rollout), (2, None));
    assert_eq!(ground.store.live_rollouts().await.unwrap().len(), 0, "nothing was written");

    let result = roll_back(&ground, &back(then, &[])).await.unwrap();
    assert!(result.quarantined.is_empty(), "the third device stays on 3: {result:?}");
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    for (device, version) in devices.iter().zip(["1", "2", "3"]) {
        assert_eq!(desired(&ground, device).await.as_deref(), Some(version), "{}", device.id);
    }
    for step in result.steps {
        assert_eq!(state(&ground, step.rollout.unwrap()).await, RolloutState::Succeeded);
    }

    let before = roll_back(&ground, &back(RollbackTarget::Time(UnixMillis(5)), &[])).await;
    let Err(OrderError::NobodyGoesBack { why, .. }) = before else { panic!("{before:?}") };
    assert!(why.contains("not known"), "{why}");
}

pub(super) async fn some_devices_go_back_and_a_rollout_goes_on_without_them(ground: Ground) {
    let mut devices = on_version(&ground, 3, "1").await;
    let second = ground.roll_out("2").await;
    ground.reconciler.turn(NOW).await.unwrap();
    let mut canary = 0;
    while desired(&ground, &devices[canary]).await.as_deref() != Some("2") {
        canary += 1;
    }
    devices[canary].follow(&ground, OutcomeKind::Committed).await;
    let name = devices[canary].id.to_string();

    let request = back(RollbackTarget::Version(version("1")), &[&name]);
    let result = roll_back(&ground, &request).await.unwrap();

    assert_eq!((result.devices, result.is_quarantine_scoped), (1, true));
    assert!(result.superseded.is_empty(), "others go on: {result:?}");
    assert_eq!((result.reverting.len(), result.reverting_in_part.as_slice()), (0, &[second][..]));
    let row = ground.rollout(second).await;
    assert_eq!((row.stage, row.revert.by.len()), (Stage::Running, 1), "taken back in part");
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    for device in &devices {
        let expected = if device.id.as_str() == name { "1" } else { "2" };
        assert_eq!(desired(&ground, device).await.as_deref(), Some(expected), "{}", device.id);
    }
    assert!(order::rollable(&ground.store, &digits(), &version("2")).await.is_ok());
    let ended = state(&ground, second).await;
    assert!(matches!(ended, RolloutState::Succeeded | RolloutState::Completing), "{ended:?}");

    let again = ground.roll_out("2").await;
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    assert_eq!(desired(&ground, &devices[canary]).await.as_deref(), Some("1"));
    let plan = ground.reconciler.look(&ground.rollout(again).await, NOW).await.unwrap();
    let why = plan.devices[&devices[canary].id].why.to_string();
    assert!(why.contains("an operator went back from it: reads 7 as 1"), "{why}");

    let stranger = back(RollbackTarget::Previous, &["cam-9"]);
    let refused = roll_back(&ground, &stranger).await.unwrap_err();
    assert!(matches!(refused, OrderError::NotPlaced(..)), "{refused}");
}

pub(super) async fn a_device_that_failed_the_image_to_go_back_to_is_said(ground: Ground) {
    let mut devices = on_version(&ground, 1, "1").await;
    ground.roll_out("2").await;
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    ground.roll_out("1").await;
    ground.settle(&mut devices, OutcomeKind::RolledBack).await;

    let request = back(RollbackTarget::Version(version("1")), &["cam-1"]);
    let result = roll_back(&ground, &request).await.unwrap();

    assert_eq!(result.steps[0].penalised, 1);
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    assert_eq!(state(&ground, result.rollout.unwrap()).await, RolloutState::Succeeded);
}

pub(super) async fn a_rollout_is_reverted_when_the_last_of_its_devices_is_taken_back(
    ground: Ground,
) {
    let mut devices = on_version(&ground, 3, "1").await;
    let second = ground.roll_out("2").await;
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    assert_eq!(state(&ground, second).await, RolloutState::Succeeded);
    let to_one = |names: &[&str]| back(RollbackTarget::Version(version("1")), names);

    let part = roll_back(&ground, &to_one(&["cam-1"])).await.unwrap();
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    assert_eq!(part.reverting_in_part, [second]);
    assert_eq!(state(&ground, second).await, RolloutState::Succeeded, "two keep it");

    let dry = RollbackRequest { dry_run: true, ..to_one(&["cam-2", "cam-3"]) };
    assert_eq!(roll_back(&ground, &dry).await.unwrap().reverting, [second]);
    assert_eq!(state(&ground, second).await, RolloutState::Succeeded, "nothing was changed");
    let gone = codec::encode(&Conn { online: false, epoch: 1 }).unwrap();
    ground.accept(&devices[2].id, Up::Conn, &gone, NOW).await.unwrap();
    let rest = roll_back(&ground, &to_one(&["cam-2", "cam-3"])).await.unwrap();
    assert_eq!(state(&ground, second).await, RolloutState::Reverting);
    for _ in 0..3 {
        ground.reconciler.turn(NOW).await.unwrap();
        devices[1].follow(&ground, OutcomeKind::Committed).await;
    }
    let row = ground.rollout(second).await;
    assert_eq!(row.revert.by, [part.rollout.unwrap(), rest.rollout.unwrap()]);
    let reversion = row.revert.reversion.unwrap();
    assert_eq!((reversion.back, reversion.offline), (2, 1), "{}", row.why);
    assert_eq!((row.stage, row.finished_at), (Stage::Reverting, None));

    let came = codec::encode(&Conn { online: true, epoch: 2 }).unwrap();
    ground.accept(&devices[2].id, Up::Conn, &came, NOW).await.unwrap();
    ground.settle(&mut devices, OutcomeKind::Committed).await;

    let row = ground.rollout(second).await;
    assert_eq!((row.stage, row.finished_at), (Stage::Reverted, Some(NOW)), "{}", row.why);
    let plan = ground.reconciler.look(&row, NOW).await.unwrap();
    let why = plan.devices[&devices[2].id].why.to_string();
    assert!(why.contains("took it back"), "{why}");
}

pub(super) async fn what_is_taken_back_is_not_halted_superseded_or_paused(ground: Ground) {
    let mut devices = on_version(&ground, 2, "1").await;
    let second = ground.roll_out("2").await;
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    halt_all(&ground).await;
    let way = roll_back(&ground, &back(RollbackTarget::Previous, &[])).await.unwrap();
    assert_eq!(way.reverting, [second]);
    let filter = Filter::default();
    let presence = ground.presence(NOW);
    let overlapping =
        crate::reconcile::begin::overlapping(&ground.store, &digits(), &filter, presence).await;
    let ids: Vec<_> = overlapping.unwrap().iter().map(|row| row.id).collect();
    assert_eq!(ids, [way.rollout.unwrap()], "the way back alone");

    ground.settle(&mut devices, OutcomeKind::Committed).await;

    assert_eq!(state(&ground, second).await, RolloutState::Reverted, "under the halt");
    assert_eq!(state(&ground, way.rollout.unwrap()).await, RolloutState::Succeeded);
}
