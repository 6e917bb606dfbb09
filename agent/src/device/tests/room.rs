//! A device without room says so once, and goes on by itself when room appears.

use super::*;

/// Version 2 was refused for lack of room.
fn without_room() -> World {
    let mut world = World::serving_1();
    world.feed(directive(2, vec![slot(&model(), 2)]));
    world.answer(&model(), fault(FaultKind::NoRoom, "image.no-room"));
    world
}

#[test]
fn lack_of_room_is_said_once_and_looked_at_again_less_and_less_often() {
    let mut world = without_room();
    let outcome = world.slot().outcome.unwrap();
    assert_eq!((outcome.result, outcome.generation), (OutcomeKind::Rejected, Generation(2)));
    assert_eq!((world.slot().phase, world.slot().serving), (Public::Waiting, Some(image(1))));
    assert_eq!(world.slot().wait.unwrap().code, "image.no-room");

    let mut pauses = Vec::new();
    for _ in 0..8 {
        let begin = world.now;
        while world.slot().phase == Public::Waiting {
            world.wait(1_000);
        }
        pauses.push(world.now.since(begin) / 1_000);
        world.answer(&model(), fault(FaultKind::NoRoom, "image.no-room"));
    }

    assert_eq!(pauses, [64, 128, 256, 512, 900, 900, 900, 900]);
    assert_eq!(world.slot().outcome, Some(outcome), "a result is said once");
    assert_eq!(world.alarms, ["image.no-room"]);
}

#[test]
fn once_there_is_room_the_same_directive_is_followed_to_its_end() {
    for is_restarted in [false, true] {
        let mut world = without_room();

        if is_restarted {
            world.restart();
        } else {
            world.wait(64_000);
        }
        world.obey_all();
        world.wait(i64::from(PROBATION_S) * 1_000);

        assert_eq!(world.slot().serving, Some(image(2)));
        let outcome = world.slot().outcome.unwrap();
        assert_eq!((outcome.result, outcome.generation), (OutcomeKind::Committed, Generation(2)));
    }
}

#[test]
fn whoever_says_it_again_has_it_looked_at_at_once() {
    let mut world = without_room();
    world.feed(directive(3, vec![slot(&model(), 2)]));
    world.wait(0);
    assert_eq!(world.slot().phase, Public::Checking);
    world.answer(&model(), fault(FaultKind::NoRoom, "image.no-room"));
    assert_eq!(world.slot().outcome.unwrap().generation, Generation(3), "of this directive, too");
}

#[test]
fn another_image_takes_over_and_the_result_stays_said() {
    let mut world = without_room();
    world.feed(directive(3, vec![slot(&model(), 1)]));
    assert_eq!(world.outcome().0, OutcomeKind::Committed, "version 1 is served already");

    let mut world = without_room();
    world.feed(directive(3, vec![slot(&model(), 3)]));
    assert_eq!(world.outcome(), (OutcomeKind::Rejected, "image.no-room".to_owned()));
    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(3)));
}
