//! Rollouts that begin at a time.

use super::*;

#[test]
fn nobody_is_told_before_the_time_and_then_as_ever() {
    let start_at = Some(NOW.plus(60_000));
    let mut rollout = Rollout { start_at, ..rollout(vec![wave(25.0, 0), wave(100.0, 0)]) };
    let mut fleet = fleet(4);

    let early = turn(&mut rollout, &mut fleet, NOW.plus(59_999));
    let due = turn(&mut rollout, &mut fleet, NOW.plus(60_000));

    assert_eq!((early.stage, early.tell.len()), (Stage::Scheduled, 0));
    assert!(early.why.starts_with("begins at "), "{}", early.why);
    assert_eq!(early.waves[0].standing, Standing::Pending);
    assert_eq!(due.tell.len(), 1);
}

#[test]
fn promoting_is_no_way_around_the_time() {
    let later = Rollout { start_at: Some(NOW.plus(1)), ..rollout(vec![wave(100.0, 0)]) };

    assert_eq!(action::apply(Action::Promote, &later, NOW), Err("its time has not come"));
    assert!(action::apply(Action::Promote, &later, NOW.plus(1)).is_ok());
    assert!(action::apply(Action::Abort, &later, NOW).is_ok());
}

#[test]
fn a_draft_tells_nobody_and_can_only_be_started_or_given_up() {
    let mut draft = Rollout { stage: Stage::Draft, ..rollout(vec![wave(100.0, 0)]) };

    let plan = turn(&mut draft, &mut fleet(4), NOW.plus(1_000_000));

    assert_eq!((plan.stage, plan.tell.len()), (Stage::Draft, 0));
    for action in [Action::Pause, Action::Resume, Action::Promote, Action::Retry] {
        assert_eq!(action::apply(action, &draft, NOW), Err("it is a draft; start it first"));
    }
    assert_eq!(action::apply(Action::Start, &draft, NOW).unwrap().stage, Stage::Preflight);
    assert_eq!(action::apply(Action::Abort, &draft, NOW).unwrap().stage, Stage::Aborted);
}
