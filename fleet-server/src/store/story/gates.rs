//! Gates that compare devices, from heartbeats to a halt; and the rehearsal.

use sealift_protocol::api::{Action, ModelGates, WavePlan};
use sealift_protocol::directive::Shadow;
use sealift_protocol::report::{ShadowCounts, Shadowed};
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

pub(super) async fn devices_that_disagree_beside_the_live_image_halt_together(ground: Ground) {
    let mut devices = ground.fleet(5).await;
    ground.push("1").await;
    ground.push("2").await;
    ground.roll_out("1").await;
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    let gates = ModelGates { disagreement: Some(0.01), ..ModelGates::default() };
    let shadow = Shadow { span_s: 3_600, agreement_permille: 900, ..Shadow::OFF };
    let asked = RolloutNew {
        waves: vec![WavePlan { gates, ..order::everybody() }],
        trial: Trial { shadow, ..Trial::default() },
        ..new("2")
    };
    let id = order::create(&ground.store, &asked, ground.presence(NOW), ASKER).await.unwrap();
    // Told, and nothing that was counted before the first look is forgotten.
    for _ in 0..3 {
        ground.reconciler.turn(NOW).await.unwrap();
    }

    let mut looks = 0;
    while ground.rollout(id).await.stage != Stage::Halted {
        looks += 1;
        assert!(looks < 60, "{}", ground.rollout(id).await.why);
        for device in &mut devices {
            let counted =
                ShadowCounts { rows: looks * 100, agreed: looks * 97, ..ShadowCounts::default() };
            // Twice, as after a broken connection, and told twice.
            for _ in 0..2 {
                let report = beside(&ground, device, counted).await;
                device.report(&ground, &report).await;
            }
        }
        let at = NOW.plus(i64::try_from(looks).unwrap() * 6_000);
        ground.reconciler.turn(at).await.unwrap();
    }

    let row = ground.rollout(id).await;
    let why = "wave 1: disagrees with the live image on 3.0% of rows, 1.0% may be; e-value ";
    assert!(row.why.starts_with(why), "{}", row.why);
    let gate = row.waves[0].gates.iter().find(|gate| gate.name == "disagreement").unwrap();
    assert!(!gate.passed && (gate.value.unwrap() - 0.03).abs() < 1e-9, "{gate:?}");
    let view = ground.store.device(&devices[0].id, ground.presence(NOW)).await.unwrap().unwrap();
    assert_eq!(view.slots[0].phase, Some(Phase::Shadowing));
    assert_eq!(view.slots[0].shadow.as_ref().unwrap().counts.rows, looks * 100);

    // Somebody has seen it and goes on: only what comes from now on is looked at.
    let action = (Action::Resume, "it is meant to");
    let at = NOW.plus(1_000_000);
    order::act::take(&ground.reconciler, &ground.director, id, action, ASKER).await.unwrap();
    for look in 1..=3_i64 {
        ground.reconciler.turn(at.plus(look * 6_000)).await.unwrap();
    }
    assert_ne!(ground.rollout(id).await.stage, Stage::Halted);
}

/// What a device says that has the new image beside the live one.
async fn beside(ground: &Ground, device: &Device, counts: ShadowCounts) -> Report {
    let (generation, slots) = device.directive(ground).await.unwrap();
    let slot = &slots[0];
    let shadow = Shadowed { image: image("2"), live: image("1"), since: NOW, counts };
    let report = ended(slot, generation, OutcomeKind::Superseded, Some(image("1")));
    let slot = SlotReport {
        phase: Phase::Shadowing,
        next: Some(image("2")),
        outcome: None,
        shadow: Some(shadow),
        ..report
    };
    Report { generation, refused: None, slots: vec![slot], at: NOW, trusted: None }
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
