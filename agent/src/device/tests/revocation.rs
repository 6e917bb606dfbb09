//! Images that are put on the deny list, at every point of a device's life.

use sealift_protocol::image::OnRevoked;

use super::*;

fn revoked(version: u8, action: OnRevoked) -> Event {
    Event::Revoked { image: image(version).index, action }
}

#[test]
fn a_revoked_image_goes_back_stops_or_stays_as_its_publisher_wishes() {
    for (action, serving) in [
        (OnRevoked::Fallback, Some(image(1))),
        (OnRevoked::Stop, None),
        (OnRevoked::KeepWithAlarm, Some(image(2))),
    ] {
        let mut world = World::trying_2();

        world.feed(revoked(2, action));

        world.obey_all();
        assert_eq!((world.slot().serving, world.alarms), (serving, vec!["image.revoked".into()]));
    }
}

#[test]
fn work_on_another_image_goes_on_after_the_live_one_was_revoked() {
    let mut world = World::trying_2();
    world.feed(directive(3, vec![slot(&model(), 3)]));
    world.feed(revoked(2, OnRevoked::Fallback));
    assert_eq!(world.slot().phase, Public::Reverting);
    world.obey_all();
    assert_eq!((world.slot().serving, world.slot().previous), (Some(image(3)), Some(image(1))));
}

#[test]
fn a_revoked_image_is_not_gone_back_to() {
    let mut world = World::trying_2();
    world.feed(revoked(1, OnRevoked::Fallback));
    assert_eq!(world.alarms, [""; 0], "version 1 is not live");
    assert_eq!((world.slot().serving, world.slot().previous), (Some(image(2)), None));

    world.crash(2);
    world.crash(2);

    world.obey_all();
    assert_ne!(world.slot().serving, Some(image(1)));
}

#[test]
fn an_image_that_is_revoked_while_it_is_prepared_is_rejected() {
    let mut world = World::serving_1();
    world.feed(directive(2, vec![slot(&model(), 2)]));
    world.obey(&model());
    world.feed(revoked(2, OnRevoked::KeepWithAlarm));

    assert_eq!(world.outcome(), (OutcomeKind::Rejected, "image.revoked".to_owned()));
    assert_eq!((world.slot().phase, world.slot().serving), (Public::Idle, Some(image(1))));
    assert!(world.tasks.is_empty());
}

#[test]
fn a_swap_ends_before_its_image_is_taken_away() {
    let mut world = World::serving_1();
    world.feed(directive(2, vec![slot(&model(), 2)]));
    while world.slot().phase != Public::Activating {
        world.obey(&model());
    }
    world.feed(revoked(2, OnRevoked::Fallback));
    assert_eq!(world.slot().phase, Public::Activating);
    assert!(world.device.revocable().is_empty(), "the list is looked at again after the swap");

    world.obey_all();
    world.feed(revoked(2, OnRevoked::Fallback));

    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(1)));
}

#[test]
fn without_a_previous_image_the_fallback_of_the_directive_is_fetched_and_checked_like_any_other() {
    let mut world = World::new();
    let fallback = Some(image(1));
    world.feed(directive(1, vec![DesiredSlot { fallback, ..slot(&model(), 2) }]));
    world.obey_all();
    world.wait(i64::from(PROBATION_S) * 1_000);

    world.feed(revoked(2, OnRevoked::Fallback));
    world.obey(&model());
    assert!(world.device.withdrawn()[&model()].contains("version 2 was revoked"));
    world.restart();
    let (_, task) = &world.tasks[&model()];
    assert!(matches!(task, Task::Check { desired, .. } if desired.index == image(1).index));

    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(1)));
    assert!(world.device.withdrawn().is_empty());
    world.feed(directive(1, vec![slot(&model(), 2)]));
    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(1)), "the directive was followed already");
}

#[test]
fn a_stopped_model_says_why_until_it_serves_again_and_after_a_restart_too() {
    let mut world = World::serving_1();
    world.feed(revoked(1, OnRevoked::Stop));
    world.obey_all();
    world.restart();
    let why = &world.device.withdrawn()[&model()];
    assert!(why.contains("version 1 was revoked") && why.contains("stopped"), "{why}");

    world.feed(directive(2, vec![slot(&model(), 2)]));
    world.obey_all();

    assert_eq!(world.slot().serving, Some(image(2)));
    assert!(world.device.withdrawn().is_empty());
}
