//! What an image is said to do worse than the one before: by the rules of its directive, and late where it was kept.

use sealift_protocol::directive::Behaviour;

use super::*;
use crate::behaviour::{Kind, Misstep};

const RULES: Behaviour =
    Behaviour { latency_rise_permille: 250, class_loss_permille: 600, ..Behaviour::OFF };

fn judged(version: u8, behaviour: Behaviour) -> DesiredSlot {
    let slot = slot(&model(), version);
    DesiredSlot { trial: Trial { behaviour, ..slot.trial }, ..slot }
}

/// Version 1 is kept, version 2 is on probation by rules.
fn trying_2() -> World {
    let mut world = World::serving_1();
    world.feed(directive(2, vec![judged(2, RULES)]));
    world.obey_all();
    world
}

fn misbehave(world: &mut World, version: u8, kind: Kind) {
    let misstep = Misstep { kind, before: 10_000, now: 15_100, requests: 320, lasted_s: 301 };
    world.feed(Event::Misbehaved { model: model(), image: image(version).index, misstep });
}

#[test]
fn on_probation_and_long_after_an_image_goes_back_with_the_figures_and_says_whether_it_is_late() {
    for is_late in [false, true] {
        let mut world = trying_2();
        if is_late {
            world.wait(i64::from(PROBATION_S) * 1_000);
            assert_eq!(world.slot().phase, Public::Watch);
            world.restart();
        }

        misbehave(&mut world, 2, Kind::Latency);

        assert_eq!(world.slot().phase, Public::Reverting);
        world.obey_all();
        let outcome = world.slot().outcome.unwrap();
        assert_eq!(
            (outcome.result, outcome.code.as_str()),
            (OutcomeKind::RolledBack, "trial.latency")
        );
        assert_eq!(outcome.is_late(), is_late);
        assert!(
            outcome.reason.starts_with("the engine takes 15.10 ms, 10.00 ms with"),
            "{}",
            outcome.reason
        );
        assert_eq!(
            (world.slot().serving, world.alarms.concat()),
            (Some(image(1)), "trial.latency".to_owned())
        );
    }
}

#[test]
fn where_no_rule_forbids_it_or_another_image_is_meant_it_stays() {
    let mut world = trying_2();
    misbehave(&mut world, 2, Kind::Confidence);
    misbehave(&mut world, 1, Kind::Latency);
    assert_eq!((world.slot().phase, world.slot().serving), (Public::Probation, Some(image(2))));
    // A newer directive says that nothing is judged any more.
    world.feed(directive(3, vec![judged(2, Behaviour::OFF)]));
    misbehave(&mut world, 2, Kind::Latency);
    assert_eq!(world.slot().phase, Public::Probation);

    world.wait(i64::from(PROBATION_S) * 1_000);
    world.wait(i64::from(WATCH_S) * 1_000);
    misbehave(&mut world, 2, Kind::Latency);
    assert_eq!((world.slot().phase, world.slot().serving), (Public::Idle, Some(image(2))));
}

#[test]
fn the_first_image_of_a_device_is_not_judged_for_there_is_none_to_go_back_to() {
    let mut world = World::new();
    world.feed(directive(1, vec![judged(1, RULES)]));
    world.obey_all();
    assert_eq!(world.device.trial(&model()), None);
    misbehave(&mut world, 1, Kind::Class(3));
    assert_eq!((world.slot().phase, world.slot().serving), (Public::Probation, Some(image(1))));

    let world = trying_2();
    let (rules, previous) = world.device.trial(&model()).unwrap();
    assert_eq!((rules.behaviour, previous), (RULES, image(1).index));
}
