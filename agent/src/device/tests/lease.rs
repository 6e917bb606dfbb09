//! The dead-man lease: an image that keeps its device from being heard does not stay.

use super::*;

const LEASE_S: u32 = 300;

fn leased(version: u8, confirmed: Option<u64>) -> DesiredSlot {
    let slot = slot(&model(), version);
    let trial = Trial { lease_s: LEASE_S, ..slot.trial };
    DesiredSlot { trial, confirmed: confirmed.map(Generation), ..slot }
}

/// Version 1 is kept, version 2 is on probation by leave of the server.
fn trying_2() -> World {
    let mut world = World::serving_1();
    world.feed(directive(2, vec![leased(2, None)]));
    world.obey_all();
    world
}

fn wait_s(world: &mut World, seconds: u32) {
    world.wait(i64::from(seconds) * 1_000);
}

#[test]
fn without_the_servers_word_a_trial_ends_where_it_began() {
    let mut world = trying_2();
    wait_s(&mut world, PROBATION_S);
    assert_eq!(world.slot().phase, Public::Watch, "what it has to prove it has proved");
    assert!(world.slot().lease_until.is_some());
    wait_s(&mut world, LEASE_S - PROBATION_S - 1);
    assert_eq!(world.slot().serving, Some(image(2)));

    wait_s(&mut world, 1);

    world.obey_all();
    assert_eq!(world.outcome(), (OutcomeKind::RolledBack, "trial.lease".to_owned()));
    assert_eq!(world.slot().serving, Some(image(1)));
}

#[test]
fn with_the_servers_word_it_stays_and_the_word_outlives_a_restart() {
    let mut world = trying_2();
    world.feed(directive(3, vec![leased(2, Some(2))]));
    assert_eq!((world.slot().phase, world.slot().lease_until), (Public::Probation, None));
    world.restart();

    wait_s(&mut world, LEASE_S);
    wait_s(&mut world, WATCH_S);

    assert_eq!((world.slot().phase, world.slot().serving), (Public::Idle, Some(image(2))));
}

#[test]
fn the_word_about_another_trial_or_another_image_is_none() {
    let mut world = trying_2();
    // Sent before the server had heard of this trial, and about version 3.
    world.feed(directive(3, vec![leased(2, Some(1))]));
    assert!(world.slot().lease_until.is_some());
    world.feed(directive(4, vec![leased(3, Some(4))]));
    world.obey_all();
    assert!(world.slot().lease_until.is_some(), "nobody can know of a trial that has not begun");

    wait_s(&mut world, LEASE_S);

    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(1)));
}

#[test]
fn while_the_agent_did_not_run_nobody_could_have_heard_it() {
    let mut world = trying_2();
    wait_s(&mut world, PROBATION_S);
    world.now = world.now.plus(86_400_000);

    world.restart();
    world.wait(0);

    assert_eq!(world.slot().serving, Some(image(2)));
    world.feed(directive(3, vec![leased(2, Some(2))]));
    wait_s(&mut world, LEASE_S);
    assert_eq!(world.slot().serving, Some(image(2)));
}
