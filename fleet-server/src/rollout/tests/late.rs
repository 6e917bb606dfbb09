//! Devices that take an image back after they had kept it: their wave is closed, and they count against it all the same.

use proptest::prelude::*;

use super::*;

/// The device did well, and then took the image back by itself.
fn turns_back_late(device: &mut DeviceView) {
    end(device, OutcomeKind::Committed);
    end(device, OutcomeKind::RolledBack);
    let reason = "the engine takes 15.10 ms, 10.00 ms with the image before";
    let failure = Failure { code: "trial.latency".to_owned(), reason: reason.to_owned() };
    let outcome = device.slot.as_mut().and_then(|slot| slot.outcome.as_mut());
    outcome.unwrap().failure = failure;
}

/// Plans until nothing moves, with every device that is told keeping the image.
fn settle(rollout: &mut Rollout, fleet: &mut Fleet, now: UnixMillis) -> Plan {
    for _ in 0..rollout.waves.len() * 2 {
        turn(rollout, fleet, now);
        end_all(fleet, OutcomeKind::Committed);
    }
    turn(rollout, fleet, now)
}

#[test]
fn a_device_that_turns_back_after_its_wave_has_passed_halts_the_next_wave() {
    let (mut rollout, mut fleet) =
        (rollout(vec![wave(10.0, 0), wave(50.0, 0), wave(100.0, 60)]), fleet(20));
    turn(&mut rollout, &mut fleet, NOW);
    end_all(&mut fleet, OutcomeKind::Committed);
    let canary = told(&fleet)[0].clone();
    let opened = turn(&mut rollout, &mut fleet, NOW);
    assert_eq!(opened.waves[0].standing, Standing::Passed { since: NOW });
    assert_eq!(opened.waves[1].standing, Standing::Open { since: NOW });

    turns_back_late(fleet.get_mut(&canary).unwrap());
    let plan = turn(&mut rollout, &mut fleet, NOW);

    assert_eq!((plan.stage, plan.tell.len()), (Stage::Halted, 0));
    assert_eq!(plan.waves[0].standing, Standing::Failed { since: NOW });
    assert_eq!(plan.why, "wave 1: 1 of 2 devices ended badly, at most 10% may");
    let position = position(&plan, &canary);
    assert_eq!((position.wave, position.progress), (Some(0), DeviceProgress::RolledBack));
    let why = position.why.to_string();
    assert!(why.starts_with("trial.latency: the engine takes 15.10 ms"), "{why}");
}

#[test]
fn while_devices_catch_up_one_that_turns_back_late_halts_what_is_left() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(50.0, 0), wave(100.0, 0)]), fleet(4));
    fleet.get_mut(&id(3)).unwrap().online_since = None;
    let plan = settle(&mut rollout, &mut fleet, NOW);
    assert_eq!(plan.stage, Stage::Completing { since: NOW });

    let late = told(&fleet)[0].clone();
    turns_back_late(fleet.get_mut(&late).unwrap());
    fleet.get_mut(&id(3)).unwrap().online_since = Some(NOW);
    let plan = turn(&mut rollout, &mut fleet, NOW);

    assert_eq!((plan.stage, plan.tell.len()), (Stage::Halted, 0), "{}", plan.why);
    assert!(plan.why.contains("ended badly"), "{}", plan.why);
}

#[test]
fn of_a_rollout_that_is_over_it_is_told() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(100.0, 0)]), fleet(3));
    assert_eq!(settle(&mut rollout, &mut fleet, NOW).stage, Stage::Succeeded);

    turns_back_late(fleet.get_mut(&id(1)).unwrap());
    let plan = turn(&mut rollout, &mut fleet, NOW);

    assert_eq!(plan.why, "2 devices serve it; 1 ended badly");
    assert_eq!((plan.waves[0].succeeded, plan.waves[0].bad), (2, 1));
}

proptest! {
    /// Whenever they turn back, and however many waves have passed since: devices count against the wave that told them, as they would
    /// have while it was open, and a wave with too many of them halts whatever is left of the rollout.
    #[test]
    fn late_counts_as_much_as_in_time(
        shares in prop::collection::vec(5.0..100.0_f64, 1..4),
        late in prop::collection::btree_set(0_usize..20, 0..5),
        is_completing in any::<bool>(),
    ) {
        let mut shares = shares;
        shares.sort_by(f64::total_cmp);
        // Somebody is away, so that it is not over; or the last wave is still watched.
        let last = if is_completing { wave(100.0, 0) } else { wave(100.0, 600) };
        let waves = shares.into_iter().map(|share| wave(share, 0)).chain([last]);
        let (mut rollout, mut fleet) = (rollout(waves.collect()), fleet(21));
        fleet.get_mut(&id(20)).unwrap().online_since = None;
        let before = settle(&mut rollout, &mut fleet, NOW);
        let is_under_way = matches!(before.stage, Stage::Running | Stage::Completing { .. });
        prop_assert!(is_under_way, "{:?}", before.stage);

        let mut bad = vec![0_u32; before.waves.len()];
        let mut all = bad.clone();
        for (device, view) in &fleet {
            let Some(told) = view.told else { continue };
            all[told.wave] += 1;
            bad[told.wave] += u32::from(late.iter().any(|&number| id(number) == *device));
        }
        for &number in &late {
            let device = fleet.get_mut(&id(number)).unwrap();
            if device.told.is_some() {
                turns_back_late(device);
            }
        }
        let plan = turn(&mut rollout, &mut fleet, NOW);

        let too_many = |(&bad, &all): (&u32, &u32)| all > 0 && f64::from(bad) > 0.1 * f64::from(all);
        let first = bad.iter().zip(&all).position(too_many);
        prop_assert_eq!(plan.stage == Stage::Halted, first.is_some(), "{:?} of {:?}: {}", bad, all, plan.why);
        if let Some(first) = first {
            prop_assert_eq!(&plan.tell, &[]);
            let begin = format!("wave {}: {} of {}", first + 1, bad[first], all[first]);
            prop_assert!(plan.why.starts_with(&begin), "{}", plan.why);
        }
    }
}
