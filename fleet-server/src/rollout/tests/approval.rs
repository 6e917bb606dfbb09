//! Rollouts that wait for somebody else.

use super::*;

fn held(from: usize) -> Rollout {
    Rollout { held_from: Some(from), ..rollout(vec![wave(25.0, 0), wave(100.0, 0)]) }
}

#[test]
fn a_held_rollout_tells_nobody_before_somebody_approves() {
    let (mut held, mut fleet) = (held(0), fleet(4));

    let plan = turn(&mut held, &mut fleet, NOW);
    assert_eq!((plan.stage, plan.tell.len()), (Stage::AwaitingApproval, 0));
    assert_eq!(plan.why, "wave 1: waits for approval");
    assert!(held.waits_for_approval());

    held.held_from = None;
    assert_eq!(turn(&mut held, &mut fleet, NOW).tell.len(), 1);
    assert!(!held.waits_for_approval());
}

#[test]
fn the_canary_goes_ahead_and_the_rest_waits() {
    let (mut held, mut fleet) = (held(1), fleet(4));

    assert_eq!(turn(&mut held, &mut fleet, NOW).tell.len(), 1);
    assert!(!held.waits_for_approval(), "the canary is at work");
    end_all(&mut fleet, OutcomeKind::Committed);
    let plan = turn(&mut held, &mut fleet, NOW);

    assert_eq!((plan.tell.len(), plan.why.as_str()), (0, "wave 2: waits for approval"));
    assert!(held.waits_for_approval());
    held.held_from = None;
    assert_eq!(turn(&mut held, &mut fleet, NOW).tell.len(), 3);
}

#[test]
fn promoting_is_no_way_around_an_approval() {
    let held = held(0);
    assert_eq!(action::apply(Action::Promote, &held, NOW), Err("it waits for approval"));
    assert!(action::apply(Action::Pause, &held, NOW).is_ok());
    let rejected = action::apply(Action::Reject, &held, NOW).unwrap();
    assert_eq!((rejected.stage, rejected.devices_at_work), (Stage::Aborted, AtWork::TurnBack));
    assert_eq!(action::apply(Action::Approve, &held, NOW).unwrap().stage, Stage::Running);
}

#[test]
fn what_does_not_wait_is_neither_approved_nor_rejected() {
    let free = rollout(vec![wave(100.0, 0)]);
    for action in [Action::Approve, Action::Reject] {
        assert_eq!(action::apply(action, &free, NOW), Err("nothing waits for approval"));
    }
    let over = Rollout { stage: Stage::Aborted, ..held(0) };
    assert!(!over.waits_for_approval());
}

#[test]
fn what_is_approved_early_still_waits_for_its_time() {
    let (mut held, mut fleet) = (held(0), fleet(4));
    held.start_at = Some(NOW.plus(1));

    let waiting = turn(&mut held, &mut fleet, NOW).stage;
    held.held_from = None;
    let approved = turn(&mut held, &mut fleet, NOW).stage;
    let due = turn(&mut held, &mut fleet, NOW.plus(1));

    assert_eq!((waiting, approved), (Stage::AwaitingApproval, Stage::Scheduled));
    assert_eq!((due.stage, due.tell.len()), (Stage::Running, 1));
}
