//! Gates that compare devices, from heartbeats to a halt; and the rehearsal.

use sealift_protocol::api::{Action, WavePlan};
use sealift_protocol::telemetry::Beat;

use super::*;
use crate::config::Approval;
use crate::rollout::Stage;

fn new(version_text: &str) -> RolloutNew {
    let canary = WavePlan { count: Some(3), percent: None, soak_s: 3_600, ..order::everybody() };
    RolloutNew {
        model: digits(),
        version: version(version_text),
        filter: "site:tokyo".to_owned(),
        waves: vec![canary, order::everybody()],
        trial: Trial::default(),
        start_at: None,
        budget: None,
        tail_s: None,
        draft: false,
        reason: String::new(),
    }
}

async fn serves(ground: &Ground, device: &Device, version_text: &str) -> bool {
    let slots = device.directive(ground).await.map(|(_, slots)| slots).unwrap_or_default();
    slots.iter().any(|slot| slot.version == version(version_text))
}

pub(super) async fn canaries_that_fail_more_than_others_halt_while_they_are_watched(
    ground: Ground,
) {
    let mut devices = ground.fleet(12).await;
    ground.push("1").await;
    ground.push("2").await;
    ground.roll_out("1").await;
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    let id = order::create(&ground.store, &new("2"), ground.presence(NOW), ASKER).await.unwrap();
    ground.settle(&mut devices, OutcomeKind::Committed).await;

    let mut halted_after = None;
    for look in 1..=60_u32 {
        let at = NOW.plus(i64::from(look) * 6_000);
        for device in &devices {
            let failed = if serves(&ground, device, "2").await { 10 } else { 0 };
            let (requests, errors) = ((100 - failed) * u64::from(look), failed * u64::from(look));
            let beat = Beat { requests, errors, at: at.0, ..Beat::default() };
            let payload = codec::encode(&beat).unwrap();
            ground.accept(&device.id, Up::Beat, &payload, at).await.unwrap();
        }
        ground.reconciler.turn(at).await.unwrap();
        if ground.rollout(id).await.stage == Stage::Halted {
            halted_after = Some(look);
            break;
        }
    }

    let row = ground.rollout(id).await;
    assert!(halted_after.is_some(), "{}", row.why);
    assert!(
        row.why.starts_with("wave 1: error rate is 10.0% against 0.0% in control"),
        "{}",
        row.why
    );
    let gate = row.waves[0].gates.iter().find(|gate| gate.name == "error-rise").unwrap();
    let evidence = gate.evidence.as_ref().unwrap();
    assert!(!gate.passed && evidence.e_value >= evidence.e_limit);
    let reconciler = &ground.reconciler;
    let action = (Action::Resume, "we know");
    order::act::take(reconciler, &ground.director, id, action, ASKER).await.unwrap();
    assert_eq!(ground.store.observation(id).await.unwrap(), None, "what was seen halts no more");
}

pub(super) async fn a_rehearsal_says_whom_a_rollout_would_tell_and_changes_nothing(ground: Ground) {
    let mut devices = ground.fleet(5).await;
    ground.push("1").await;
    ground.push("2").await;
    ground.roll_out("1").await;
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    let presence = ground.presence(NOW);
    let away = Conn { online: false, epoch: 9 };
    let payload = codec::encode(&away).unwrap();
    ground.accept(&devices[0].id, Up::Conn, &payload, NOW).await.unwrap();

    let order = order::checked(&ground.store, &new("2"), presence, ASKER).await.unwrap();
    let reconciler = &ground.reconciler;
    let found = order::forecast::forecast(reconciler, &order, Approval::Always, ASKER).await;

    let found = found.unwrap();
    assert_eq!((found.devices, found.waves.iter().sum::<u64>()), (5, 4));
    let offline = "offline; it is told when it comes back".to_owned();
    assert_eq!(found.not_told, BTreeMap::from([(offline, 1)]));
    assert!(found.needs_approval);
    assert_eq!(ground.store.count_rollouts(None).await.unwrap(), 1);
    assert_eq!(ground.store.live_rollouts().await.unwrap().len(), 0);
}
