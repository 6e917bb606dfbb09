//! A store that was restored from a backup, and is behind its devices.

use super::*;
use crate::store::recover::Unknown;

/// Three devices that run version 1; then `cam-1` says that it has followed much more, and runs version 2.
async fn restored(ground: &Ground) -> Vec<Device> {
    let mut devices = ground.fleet(3).await;
    ground.push("1").await;
    ground.roll_out("1").await;
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    runs(ground, &mut devices[0], "2", 9).await;
    devices
}

/// A report as after a directive that this store has never signed.
async fn runs(ground: &Ground, device: &mut Device, version: &str, generation: u64) {
    let slot = DesiredSlot::new(digits(), image(version).version, image(version).index);
    let generation = Generation(generation);
    let slots = vec![ended(&slot, generation, OutcomeKind::Committed, None)];
    let report = Report { generation, refused: None, slots, at: NOW, trusted: None };
    let message = device.envelope(codec::encode(&report).unwrap());
    ground.accept(&device.id, Up::Report, &message, NOW.plus(10)).await.unwrap();
}

async fn versions(ground: &Ground, devices: &[Device]) -> Vec<String> {
    let mut versions = Vec::new();
    for device in devices {
        let (generation, slots) = device.directive(ground).await.unwrap();
        versions.push(format!("{generation}:{}", slots[0].version));
    }
    versions
}

pub(super) async fn a_device_that_is_ahead_is_noticed_and_left_out_of_rollouts(ground: Ground) {
    let mut devices = restored(&ground).await;

    let behind = ground.store.behind().await.unwrap();
    assert_eq!((behind.ahead, behind.first.as_deref()), (1, Some("cam-1")));
    assert!(behind.to_string().contains("cam-1"), "{behind}");

    ground.push("3").await;
    let rollout = ground.roll_out("3").await;
    ground.settle(&mut devices, OutcomeKind::Committed).await;

    let row = ground.rollout(rollout).await;
    assert!(row.stage.is_over(), "it does not wait for a device that is ahead: {}", row.why);
    assert_eq!(versions(&ground, &devices).await, ["1:1", "2:3", "2:3"]);
}

pub(super) async fn a_device_that_is_ahead_is_adopted_above_everything(ground: Ground) {
    let devices = restored(&ground).await;
    let slot = DesiredSlot::new(digits(), image("2").version, image("2").index);

    let mut change = ground.store.begin().await.unwrap();
    let place = (Generation(1_000), &*ground.director);
    change.adopt(&devices[0].id, Some(&[slot]), place, NOW).await.unwrap();
    change.raise_generations(Generation(1_000), NOW).await.unwrap();
    change.commit().await.unwrap();

    assert!(ground.store.behind().await.unwrap().is_nobody());
    assert_eq!(versions(&ground, &devices).await, ["1001:2", "1:1", "1:1"]);
    ground.push("3").await;
    ground.roll_out("3").await;
    ground.reconciler.turn(NOW).await.unwrap();
    let told = versions(&ground, &devices).await;
    assert!(told.contains(&"1002:3".to_owned()) || told.contains(&"1001:3".to_owned()), "{told:?}");
}

pub(super) async fn a_device_that_comes_back_after_a_recovery_is_noticed(ground: Ground) {
    let mut devices = ground.fleet(3).await;
    ground.push("1").await;
    ground.roll_out("1").await;
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    let mut change = ground.store.begin().await.unwrap();
    change.raise_generations(Generation(1_000), NOW).await.unwrap();
    change.commit().await.unwrap();
    assert!(ground.store.behind().await.unwrap().is_nobody());

    runs(&ground, &mut devices[0], "1", 1).await;
    runs(&ground, &mut devices[1], "2", 7).await;
    // It serves what it should, and may be on its way to what was ordered in the lost time.
    runs(&ground, &mut devices[2], "1", 2).await;

    let behind = ground.store.behind().await.unwrap();
    assert_eq!((behind.ahead, behind.returned), (0, 2));
    // One that runs what it should is waited for no longer, whatever it runs later.
    runs(&ground, &mut devices[0], "3", 1).await;
    assert_eq!(ground.store.behind().await.unwrap().returned, 2);
}

pub(super) async fn a_certificate_of_the_lost_time_is_taken_once_and_no_other(ground: Ground) {
    let device = ground.enrol("cam-1", &[]).await;
    let store = &ground.store;
    let unknown = |serial, at| Unknown { serial, issued_at: at, expires_at: NOW.plus(1_000) };
    let taken =
        async |serial, at| store.readmit(&device.id, unknown(serial, at), NOW).await.unwrap();
    assert!(!taken("9", NOW.plus(-50)).await, "nothing was lost");

    let mut change = store.begin().await.unwrap();
    change.add_recovery(NOW.plus(-100), NOW).await.unwrap();
    change.commit().await.unwrap();

    assert!(!taken("8", NOW.plus(-101)).await, "issued before");
    assert!(!taken("8", NOW.plus(1)).await, "issued later");
    assert!(!taken("1", NOW.plus(-50)).await, "known");
    assert!(taken("9", NOW.plus(-50)).await);
    assert!(!taken("9", NOW.plus(-50)).await, "known by now");
    let papers = store.papers(&device.id).await.unwrap().unwrap();
    assert_eq!(papers.worth("9"), crate::store::certificates::Worth::Present);
}
