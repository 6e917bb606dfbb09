//! Waves by filter, and waves that want enough devices to judge by.

use super::*;

fn of_lab(percent: Option<f64>) -> Wave {
    let mut wave = wave(100.0, 0);
    wave.plan.percent = percent;
    wave.plan.filter = "site:lab".to_owned();
    wave
}

/// The first `members` devices match the first wave's own filter.
fn with_lab(devices: usize, members: usize) -> Fleet {
    let mut fleet = fleet(devices);
    for number in 0..members {
        fleet.get_mut(&id(number)).unwrap().waves = 1;
    }
    fleet
}

#[test]
fn a_wave_with_a_filter_tells_only_those_it_names() {
    let mut rollout = rollout(vec![of_lab(None), wave(50.0, 0), wave(100.0, 0)]);
    let mut fleet = with_lab(20, 3);

    let lab = turn(&mut rollout, &mut fleet, NOW);
    let mut first: Vec<_> = lab.tell.iter().map(|(id, _)| id.clone()).collect();
    first.sort();
    assert_eq!(first, [id(0), id(1), id(2)]);
    assert_eq!(lab.waves[0].devices, 3);

    end_all(&mut fleet, OutcomeKind::Committed);
    let half = turn(&mut rollout, &mut fleet, NOW);
    assert_eq!(half.tell.len(), 7, "half of twenty, with those of the lab");
}

#[test]
fn a_share_of_a_wave_with_a_filter_is_of_those_it_names() {
    let mut rollout = rollout(vec![of_lab(Some(50.0)), wave(100.0, 0)]);

    let lab = turn(&mut rollout, &mut with_lab(20, 4), NOW);

    assert_eq!(lab.tell.len(), 2);
    assert!(lab.tell.iter().all(|(device, _)| (0..4).any(|number| *device == id(number))));
}

#[test]
fn nobody_outside_the_last_waves_filter_is_told() {
    let mut rollout = rollout(vec![of_lab(None)]);
    let mut fleet = with_lab(5, 2);
    turn(&mut rollout, &mut fleet, NOW);
    end_all(&mut fleet, OutcomeKind::Committed);

    let plan = turn(&mut rollout, &mut fleet, NOW);

    assert_eq!(plan.stage, Stage::Succeeded);
    assert_eq!(told(&fleet), [id(0), id(1)]);
    assert_eq!(position(&plan, &id(4)).why, Why::BeyondLastWave);
}

#[test]
fn a_wave_is_not_judged_by_too_few_and_the_others_come_when_they_are_there() {
    let mut strict = wave(30.0, 60);
    strict.plan.min_devices = Some(3);
    let mut rollout = rollout(vec![strict, wave(100.0, 0)]);
    let mut fleet = fleet(10);
    let first: Vec<_> = turn(&mut rollout, &mut fleet, NOW).tell;
    assert_eq!(first.len(), 3);
    let away = first[2].0.clone();
    fleet.get_mut(&away).unwrap().online_since = None;
    for (id, _) in &first[..2] {
        end(fleet.get_mut(id).unwrap(), OutcomeKind::Committed);
    }

    let waiting = turn(&mut rollout, &mut fleet, NOW);
    assert_eq!(waiting.why, "wave 1: 2 of at least 3 devices are done, 1 offline");
    assert_eq!(waiting.waves[0].standing, Standing::Open { since: NOW });

    let device = fleet.get_mut(&away).unwrap();
    device.online_since = Some(NOW);
    end(device, OutcomeKind::Committed);
    let soaking = turn(&mut rollout, &mut fleet, NOW);
    assert!(matches!(soaking.waves[0].standing, Standing::Soaking { .. }));
    let next = turn(&mut rollout, &mut fleet, NOW.plus(60_000));
    assert_eq!(next.tell.len(), 7);
}

#[test]
fn a_wave_that_cannot_be_judged_waits_in_sight_until_somebody_promotes_it() {
    let mut strict = wave(20.0, 0);
    strict.plan.min_devices = Some(3);
    let mut rollout = rollout(vec![strict, wave(100.0, 0)]);
    let mut fleet = fleet(10);
    turn(&mut rollout, &mut fleet, NOW);
    end_all(&mut fleet, OutcomeKind::Committed);

    let evaluating = turn(&mut rollout, &mut fleet, NOW);
    assert_eq!(evaluating.waves[0].standing, Standing::Evaluating { since: NOW });
    assert_eq!((evaluating.stage, evaluating.tell.len()), (Stage::Running, 0));
    assert_eq!(evaluating.why, "wave 1: 2 of at least 3 devices are done");

    act(&mut rollout, &mut fleet, Action::Promote);
    assert_eq!(turn(&mut rollout, &mut fleet, NOW).tell.len(), 8);
}

#[test]
fn a_late_device_is_judged_and_halts_what_was_completing() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(100.0, 0)]), fleet(5));
    fleet.get_mut(&id(3)).unwrap().online_since = None;
    turn(&mut rollout, &mut fleet, NOW);
    end_all(&mut fleet, OutcomeKind::Committed);
    turn(&mut rollout, &mut fleet, NOW);
    assert_eq!(rollout.stage, Stage::Completing { since: NOW });

    fleet.get_mut(&id(3)).unwrap().online_since = Some(NOW);
    turn(&mut rollout, &mut fleet, NOW);
    end(fleet.get_mut(&id(3)).unwrap(), OutcomeKind::RolledBack);

    assert_eq!(turn(&mut rollout, &mut fleet, NOW).stage, Stage::Halted);
}

#[test]
fn the_tail_is_as_long_as_somebody_asked_for() {
    let mut short = Rollout { tail_ms: 1_000, ..rollout(vec![wave(100.0, 0)]) };
    let mut fleet = fleet(2);
    fleet.get_mut(&id(0)).unwrap().online_since = None;
    turn(&mut short, &mut fleet, NOW);
    end_all(&mut fleet, OutcomeKind::Committed);
    turn(&mut short, &mut fleet, NOW);

    assert_eq!(plan(&short, &fleet, NOW.plus(999)).stage, Stage::Completing { since: NOW });
    assert_eq!(plan(&short, &fleet, NOW.plus(1_000)).stage, Stage::Succeeded);
}

#[test]
fn a_device_that_waits_for_its_window_is_not_stuck() {
    let mut rollout = rollout(vec![wave(100.0, 0)]);
    let mut fleet = fleet(1);
    turn(&mut rollout, &mut fleet, NOW);
    let device = fleet.get_mut(&id(0)).unwrap();
    device.accepted = Generation(2);
    device.slot = Some(slot(Generation(2), Phase::Staged, OLD, None));

    let tomorrow = plan(&rollout, &fleet, NOW.plus(86_400_000));
    assert_eq!(position(&tomorrow, &id(0)).why, Why::WaitsForWindow);

    let device = fleet.get_mut(&id(0)).unwrap();
    device.slot = Some(slot(Generation(2), Phase::Waiting, OLD, None));
    let stuck = plan(&rollout, &fleet, NOW.plus(86_400_000));
    assert_eq!(position(&stuck, &id(0)).progress, DeviceProgress::Silent);
}

#[test]
fn a_draft_that_is_started_late_takes_devices_from_rollouts_with_higher_numbers() {
    let mut late = Rollout { turn: NEWER.0 + 1, ..rollout(vec![wave(100.0, 0)]) };
    let mut fleet = fleet(2);
    for device in fleet.values_mut() {
        device.desired = Some(Desired { rollout: NEWER, turn: NEWER.0, image: OLD });
    }
    assert_eq!(turn(&mut late, &mut fleet, NOW).tell.len(), 2);
}
