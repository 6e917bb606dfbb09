use super::*;
use crate::rollout::pace::room;

/// A rollout to so many devices at once, all told, and looked at so much later.
fn told(devices: usize, after_ms: i64) -> (Rollout, Fleet, Plan, UnixMillis) {
    let (rollout, mut fleet) = (rollout(vec![wave(100.0, 0)]), fleet(devices));
    let first = plan(&rollout, &fleet, NOW);
    assert_eq!(first.tell.len(), devices);
    tell(&mut fleet, &first, NOW);
    let later = NOW.plus(after_ms);
    let second = plan(&rollout, &fleet, later);
    (rollout, fleet, second, later)
}

fn room_of((rollout, fleet, plan, now): &(Rollout, Fleet, Plan, UnixMillis)) -> usize {
    room(rollout, fleet, plan, *now)
}

#[test]
fn no_more_devices_begin_than_a_server_can_serve_at_once() {
    assert_eq!(room_of(&told(0, 0)), 500);
    assert_eq!(room_of(&told(200, 1)), 300);
    assert_eq!(room_of(&told(600, 1)), 0);
}

#[test]
fn devices_that_take_long_keep_nobody_back() {
    assert_eq!(room_of(&told(600, 29_999)), 0);
    assert_eq!(room_of(&told(600, 30_000)), 500);
}

#[test]
fn whoever_serves_makes_room() {
    let (rollout, mut fleet, _, now) = told(600, 1);
    for number in 0..250 {
        let device = fleet.get_mut(&id(number)).unwrap();
        let generation = device.told.unwrap().generation;
        device.accepted = generation;
        device.slot = Some(slot(generation, Phase::Probation, NEW, None));
    }
    let plan = plan(&rollout, &fleet, now);
    assert_eq!(room(&rollout, &fleet, &plan, now), 150);
}

#[test]
fn a_way_back_waits_for_nobody() {
    let (mut rollout, fleet, plan, now) = told(600, 1);
    rollout.is_rollback = true;
    assert_eq!(room(&rollout, &fleet, &plan, now), usize::MAX);
}
