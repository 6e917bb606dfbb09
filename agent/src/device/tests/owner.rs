//! The owner's word on the device itself.

use sealift_protocol::image::OnRevoked;
use sealift_protocol::report::Hold;

use super::*;

fn hold() -> Event {
    Event::Held(Some(Hold { until: UnixMillis(9_999_999_999), reason: "a visit".to_owned() }))
}

#[test]
fn while_it_is_held_a_device_begins_nothing_and_then_does_what_it_was_told_last() {
    let mut world = World::serving_1();
    world.feed(hold());
    world.feed(directive(2, vec![slot(&model(), 2)]));
    world.feed(directive(3, vec![slot(&model(), 3)]));
    world.wait(86_400_000);
    assert!(world.tasks.is_empty());
    assert_eq!((world.slot().phase, world.slot().serving), (Public::Idle, Some(image(1))));
    assert_eq!(world.slot().held.unwrap().reason, "a visit");

    world.feed(Event::Held(None));

    world.obey_all();
    assert_eq!((world.slot().serving, world.slot().held), (Some(image(3)), None));
}

#[test]
fn what_is_under_way_is_given_up_and_begun_again_from_its_beginning() {
    for steps in 0..3 {
        let mut world = World::serving_1();
        world.feed(directive(2, vec![slot(&model(), 2)]));
        (0..steps).for_each(|_| assert!(world.obey(&model())));

        world.feed(hold());

        assert_eq!((world.slot().phase, world.slot().serving), (Public::Idle, Some(image(1))));
        assert_eq!(world.slot().outcome.unwrap().generation, Generation(1), "nothing has ended");
        world.restart();
        world.feed(Event::Held(None));
        world.obey_all();
        assert_eq!(world.slot().serving, Some(image(2)));
    }
}

#[test]
fn a_trial_goes_back_and_a_revoked_image_goes_all_the_same() {
    let mut world = World::trying_2();
    world.feed(hold());
    (0..2).for_each(|_| world.crash(2));
    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(1)));

    let fallback = Some(image(3));
    world.feed(directive(3, vec![DesiredSlot { fallback, ..slot(&model(), 1) }]));
    world.feed(Event::Revoked { image: image(1).index, action: OnRevoked::Fallback });
    world.obey_all();
    world.wait(1_000);
    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(3)), "there was nothing left to keep");
}
