use proptest::prelude::*;

use super::*;
use crate::rollout::{Reversion, WayBack};

/// A rollout that is being taken back by [`NEWER`], and the devices that have kept what it brought.
fn taken_back(devices: usize) -> (Rollout, Fleet) {
    let (mut rollout, mut fleet) = (rollout(vec![wave(100.0, 0)]), fleet(devices));
    turn(&mut rollout, &mut fleet, NOW);
    end_all(&mut fleet, OutcomeKind::Committed);
    turn(&mut rollout, &mut fleet, NOW);
    rollout.stage = Stage::Reverting;
    rollout.reverted_by = vec![WayBack { id: NEWER, stage: Stage::Running }];
    (rollout, fleet)
}

/// The way back tells a device.
fn send_back(device: &mut DeviceView) {
    let generation = device.accepted.next();
    device.desired = Some(Desired { rollout: NEWER, turn: NEWER.0, image: OLD });
    let served = Served::default();
    device.told_now = Some(Told { wave: 0, generation, at: NOW, served, is_excused: false });
}

/// The device ends its way back.
fn arrive(device: &mut DeviceView, kind: OutcomeKind) {
    let Some(told) = device.told_now else { return };
    let serving = if kind == OutcomeKind::Committed { OLD } else { NEW };
    let failure = Failure { code: "disk.full".to_owned(), reason: "no room".to_owned() };
    let outcome = Outcome { generation: told.generation, image: OLD, kind, failure };
    device.accepted = told.generation;
    device.slot = Some(slot(told.generation, Phase::Idle, serving, Some(outcome)));
}

fn counts(plan: &Plan) -> Reversion {
    plan.reversion.unwrap()
}

#[test]
fn a_rollout_is_reverted_when_all_its_devices_have_proved_it() {
    let (mut rollout, mut fleet) = taken_back(3);
    let waits = turn(&mut rollout, &mut fleet, NOW);
    assert_eq!((waits.stage, waits.tell.len(), counts(&waits).at_work), (Stage::Reverting, 0, 3));
    assert_eq!(position(&waits, &id(0)).why, Why::NotTakenBackYet);

    fleet.values_mut().for_each(send_back);
    arrive(fleet.get_mut(&id(0)).unwrap(), OutcomeKind::Committed);
    let one = turn(&mut rollout, &mut fleet, NOW);
    assert_eq!((one.stage, counts(&one).back, counts(&one).at_work), (Stage::Reverting, 1, 2));
    let why = position(&one, &id(0)).why.to_string();
    assert_eq!(why, "rollback r-3 took it back: it says that it serves the earlier image");
    assert_eq!(
        position(&one, &id(1)).why.to_string(),
        format!("rollback r-3 takes it back: told at {NOW}; no answer yet")
    );

    for device in fleet.values_mut() {
        arrive(device, OutcomeKind::Committed);
    }
    let all = turn(&mut rollout, &mut fleet, NOW);
    assert_eq!((all.stage, counts(&all).back), (Stage::Reverted, 3));
    let why = "taken back by r-3: 3 of 3 devices have proved that they serve an earlier image";
    assert_eq!(all.why, why);
}

#[test]
fn what_was_sent_is_no_proof() {
    let (mut rollout, mut fleet) = taken_back(1);
    let device = fleet.get_mut(&id(0)).unwrap();
    // It is still on the earlier image when it is told to go back to it.
    device.slot = Some(slot(device.accepted, Phase::Idle, OLD, None));
    send_back(device);

    assert_eq!(turn(&mut rollout, &mut fleet, NOW).stage, Stage::Reverting);
    fleet.get_mut(&id(0)).unwrap().accepted = Generation(3);
    assert_eq!(turn(&mut rollout, &mut fleet, NOW).stage, Stage::Reverted);
}

#[test]
fn offline_devices_are_waited_for_as_long_as_the_way_back_waits() {
    let (mut rollout, mut fleet) = taken_back(2);
    fleet.values_mut().for_each(send_back);
    arrive(fleet.get_mut(&id(0)).unwrap(), OutcomeKind::Committed);
    fleet.get_mut(&id(1)).unwrap().online_since = None;
    rollout.reverted_by[0].stage = Stage::Completing { since: NOW };
    let waits = turn(&mut rollout, &mut fleet, NOW.plus(TAIL_MS * 2));
    assert_eq!((waits.stage, counts(&waits).offline), (Stage::Reverting, 1));

    rollout.reverted_by[0].stage = Stage::Succeeded;
    let over = turn(&mut rollout, &mut fleet, NOW.plus(TAIL_MS * 2));

    assert_eq!((over.stage, counts(&over).back, counts(&over).offline), (Stage::Reverted, 1, 1));
    assert!(
        over.why
            .ends_with("1 of 2 devices have proved that they serve an earlier image; 1 offline")
    );
}

#[test]
fn devices_that_do_not_come_back_are_named_and_waited_for_no_longer_than_the_way_back_lasts() {
    let (mut rollout, mut fleet) = taken_back(2);
    fleet.values_mut().for_each(send_back);
    for device in fleet.values_mut() {
        arrive(device, OutcomeKind::Failed);
    }
    rollout.reverted_by[0].stage = Stage::Halted;
    let waits = turn(&mut rollout, &mut fleet, NOW);
    assert_eq!((waits.stage, counts(&waits).bad), (Stage::Reverting, 2), "a person looks");
    assert!(waits.why.starts_with("taken back by r-3 (halted): 0 of 2"), "{}", waits.why);
    let why = position(&waits, &id(0)).why.to_string();
    assert_eq!(why, "rollback r-3 did not get it back: disk.full: no room");

    rollout.reverted_by[0].stage = Stage::Aborted;
    let over = turn(&mut rollout, &mut fleet, NOW);
    assert_eq!((over.stage, counts(&over).bad), (Stage::Reverted, 2));
}

#[test]
fn a_device_that_no_way_back_has_taken_is_left_on_it_and_said() {
    let (mut rollout, mut fleet) = taken_back(2);
    send_back(fleet.get_mut(&id(0)).unwrap());
    arrive(fleet.get_mut(&id(0)).unwrap(), OutcomeKind::Committed);
    rollout.reverted_by[0].stage = Stage::Succeeded;

    let plan = turn(&mut rollout, &mut fleet, NOW);

    assert_eq!((plan.stage, counts(&plan).back, counts(&plan).kept), (Stage::Reverted, 1, 1));
    assert_eq!(position(&plan, &id(1)).why, Why::NotTakenBack);
}

#[test]
fn a_device_that_went_on_to_something_newer_is_not_waited_for() {
    let (mut rollout, mut fleet) = taken_back(1);
    let device = fleet.get_mut(&id(0)).unwrap();
    device.desired = Some(Desired { rollout: RolloutId(9), turn: 9, image: NEW });

    let plan = turn(&mut rollout, &mut fleet, NOW);

    assert_eq!((plan.stage, counts(&plan)), (Stage::Reverted, Reversion::default()));
}

#[test]
fn what_is_taken_back_can_only_be_taken_further_back() {
    use Action as A;
    for stage in [Stage::Reverting, Stage::Reverted] {
        for action in [A::Start, A::Pause, A::Resume, A::Promote, A::Abort, A::Retry, A::Approve] {
            assert!(action::refusal(action, stage).is_some(), "{action:?} in {stage:?}");
        }
        assert_eq!(action::refusal(A::Rollback, stage), None);
    }
}

#[derive(Debug, Clone, Copy)]
enum Happening {
    Told(usize),
    Ends(usize, OutcomeKind),
    Goes(usize),
    Comes(usize),
    MovesOn(usize),
    WayBack(Stage),
    Time(i64),
}

fn happenings() -> impl Strategy<Value = Happening> {
    let device = 0_usize..6;
    let kinds = prop_oneof![
        3 => Just(OutcomeKind::Committed),
        1 => Just(OutcomeKind::Failed),
        1 => Just(OutcomeKind::RolledBack),
        1 => Just(OutcomeKind::NotApplicable),
    ];
    let stages = prop_oneof![
        3 => Just(Stage::Running),
        1 => Just(Stage::Paused),
        1 => Just(Stage::Halted),
        1 => Just(Stage::Completing { since: NOW }),
        1 => Just(Stage::Succeeded),
        1 => Just(Stage::Aborted),
    ];
    prop_oneof![
        4 => device.clone().prop_map(Happening::Told),
        4 => (device.clone(), kinds).prop_map(|(device, kind)| Happening::Ends(device, kind)),
        1 => device.clone().prop_map(Happening::Goes),
        1 => device.clone().prop_map(Happening::Comes),
        1 => device.prop_map(Happening::MovesOn),
        1 => stages.prop_map(Happening::WayBack),
        1 => (0_i64..400_000_000).prop_map(Happening::Time),
    ]
}

fn happen(rollout: &mut Rollout, fleet: &mut Fleet, what: Happening, now: &mut UnixMillis) {
    let device = |fleet: &mut Fleet, number, change: &dyn Fn(&mut DeviceView)| {
        change(fleet.get_mut(&id(number)).unwrap());
    };
    match what {
        Happening::Told(number) => device(fleet, number, &|it| {
            if it.told_now.is_none() {
                send_back(it);
            }
        }),
        Happening::Ends(number, kind) => device(fleet, number, &|it| arrive(it, kind)),
        Happening::Goes(number) => device(fleet, number, &|it| it.online_since = None),
        Happening::Comes(number) => {
            let at = *now;
            device(fleet, number, &|it| it.online_since = Some(at));
        }
        Happening::MovesOn(number) => device(fleet, number, &|it| {
            it.desired = Some(Desired { rollout: RolloutId(9), turn: 9, image: NEW });
        }),
        // What is over stays over.
        Happening::WayBack(stage) if !rollout.reverted_by[0].stage.is_over() => {
            rollout.reverted_by[0].stage = stage;
        }
        Happening::WayBack(_) => (),
        Happening::Time(ms) => *now = now.plus(ms),
    }
}

proptest! {
    /// Whatever happens: it tells nobody, never goes on, ends once, and in peace it ends with every device accounted for.
    #[test]
    fn what_is_taken_back_ends_reverted(story in prop::collection::vec(happenings(), 0..60)) {
        let ((mut rollout, mut fleet), mut now) = (taken_back(6), NOW);
        let mut was_over = false;
        for what in story {
            happen(&mut rollout, &mut fleet, what, &mut now);
            let plan = turn(&mut rollout, &mut fleet, now);
            prop_assert_eq!(&plan.tell, &[]);
            prop_assert!(matches!(plan.stage, Stage::Reverting | Stage::Reverted));
            prop_assert!(!was_over || plan.stage == Stage::Reverted);
            was_over = plan.stage == Stage::Reverted;
            if was_over && !rollout.reverted_by[0].stage.is_over() {
                prop_assert!(fleet.values().all(|it| it.desired.as_ref().unwrap().rollout != THIS));
            }
        }
        // Peace: everybody is there, is told, and comes home; the way back ends.
        for device in fleet.values_mut() {
            device.online_since = Some(now);
            if device.told_now.is_none() {
                send_back(device);
            }
            arrive(device, OutcomeKind::Committed);
        }
        if !rollout.reverted_by[0].stage.is_over() {
            rollout.reverted_by[0].stage = Stage::Succeeded;
        }

        let plan = turn(&mut rollout, &mut fleet, now);

        prop_assert_eq!(plan.stage, Stage::Reverted);
        let Reversion { back, at_work, offline, bad, kept } = counts(&plan);
        let gone_on = fleet.values().filter(|it| it.desired.as_ref().unwrap().rollout == RolloutId(9));
        let gone_on = u64::try_from(gone_on.count()).unwrap();
        prop_assert_eq!((back, at_work, offline, bad, kept), (6 - gone_on, 0, 0, 0, 0));
    }
}
