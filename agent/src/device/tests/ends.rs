//! How phases end: by their deadline, by a newer directive, late.

use super::*;

#[test]
fn an_image_that_does_badly_after_it_was_kept_is_taken_back_late_and_the_report_says_since_when() {
    let mut world = World::trying_2();
    (0..2).for_each(|_| world.crash(2));
    world.obey_all();
    let outcome = world.slot().outcome.unwrap();
    assert!(outcome.result == OutcomeKind::RolledBack && !outcome.is_late(), "{outcome:?}");

    let mut world = World::trying_2();
    world.wait(i64::from(PROBATION_S) * 1_000);
    let kept_at = world.now;
    world.restart();
    world.wait(60_000);
    (0..2).for_each(|_| world.crash(2));
    world.restart();
    world.obey_all();
    let outcome = world.slot().outcome.unwrap();
    assert!(outcome.is_late(), "{outcome:?}");
    assert_eq!((outcome.kept_at, outcome.generation), (Some(kept_at), Generation(2)));
}

/// Each phase with a deadline, the time after which it ends by itself, and where it goes from there.
#[test]
fn every_phase_ends_by_itself_when_its_time_is_over() {
    for (steps, phase, seconds, next, code) in [
        (0, Public::Checking, 30, Public::Waiting, ""),
        (1, Public::Downloading, 3_600, Public::Waiting, "download.stalled"),
        (2, Public::Verifying, 600, Public::Idle, "verify.timeout"),
        (3, Public::Warming, 120, Public::Idle, "self-test.timeout"),
        (4, Public::Activating, 30, Public::Reverting, "activate.timeout"),
    ] {
        let mut world = World::serving_1();
        world.feed(directive(2, vec![slot(&model(), 2)]));
        (0..steps).for_each(|_| assert!(world.obey(&model())));
        assert_eq!(world.slot().phase, phase);

        world.wait(seconds * 1_000 - 1);
        assert_eq!(world.slot().phase, phase);
        world.wait(1);

        assert_eq!(world.slot().phase, next, "after {phase:?}");
        assert_eq!(world.alarms.concat(), code);
        assert_eq!(world.slot().serving.is_some(), next != Public::Reverting);
    }
    let mut world = World::trying_2();
    (0..2).for_each(|_| world.crash(2));
    world.tasks.clear();
    world.wait(180_000);
    assert_eq!((world.slot().phase, world.slot().serving), (Public::SafeMode, None));
    assert_eq!(world.outcome().0, OutcomeKind::RolledBack);
}

#[test]
fn a_download_that_asks_and_gets_nothing_is_called_stalled() {
    let progress = |done_bytes| Answer::Progress(Progress { done_bytes, total_bytes: 10 });
    let mut world = World::serving_1();
    world.feed(directive(2, vec![slot(&model(), 2)]));
    world.obey(&model());
    world.answer(&model(), progress(1));
    for _ in 0..5 {
        world.wait(600_000);
        world.answer(&model(), progress(1));
    }
    assert_eq!(world.slot().phase, Public::Downloading);
    world.wait(600_000);
    assert_eq!(world.slot().phase, Public::Waiting);
    assert_eq!(world.slot().wait.unwrap().code, "download.stalled");
    world.obey_all();
    world.wait(900_000);
    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(2)), "it is tried again");
}

/// Going on in each phase but the swap: what was wanted before leaves no trace but its result.
#[test]
fn a_newer_directive_takes_over_in_every_phase_but_the_swap() {
    for steps in 0..4 {
        for is_waiting in [false, true] {
            let mut world = World::serving_1();
            world.feed(directive(2, vec![slot(&model(), 2)]));
            (0..steps).for_each(|_| assert!(world.obey(&model())));
            if is_waiting {
                world.answer(&model(), unreachable());
            }

            world.feed(directive(3, vec![slot(&model(), 3)]));

            assert_eq!((world.slot().phase, world.slot().next), (Public::Checking, Some(image(3))));
            assert_eq!(world.outcome().0, OutcomeKind::Superseded);
            assert_eq!(world.tasks.len(), 1);
            world.obey_all();
            assert_eq!(world.slot().serving, Some(image(3)));
        }
    }
    for until_watch in [false, true] {
        let mut world = World::trying_2();
        if until_watch {
            world.wait(i64::from(PROBATION_S) * 1_000);
        }
        world.feed(directive(3, vec![slot(&model(), 3)]));
        assert_eq!(world.slot().phase, Public::Checking);
        let result = if until_watch { OutcomeKind::Committed } else { OutcomeKind::Superseded };
        assert_eq!(world.outcome().0, result);
    }
}
