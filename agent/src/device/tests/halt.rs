//! The list of halted rollouts.

use proptest::prelude::*;
use sealift_protocol::halt::HaltList;
use sealift_protocol::image::OnRevoked;

use super::*;

fn campaign(version: u8) -> Digest {
    Digest::of(&[version, 77])
}

/// A slot of a rollout of its own.
fn of_rollout(version: u8) -> DesiredSlot {
    DesiredSlot { campaign: Some(campaign(version)), ..slot(&model(), version) }
}

fn list(sequence: u64, versions: &[u8]) -> Event {
    let campaigns = versions.iter().map(|version| campaign(*version)).collect();
    let tenant = TenantId::parse("main").unwrap();
    let times = (sequence, UnixMillis(5));
    Event::Halts(HaltList::new(tenant, times, "smoke".to_owned(), campaigns))
}

/// A device that serves 1 and has come so many steps towards 2: 0 is CHECKING, 3 is WARMING, 4 is PROBATION.
fn towards_2(steps: usize) -> World {
    let mut world = World::serving_1();
    world.feed(directive(2, vec![of_rollout(2)]));
    for _ in 0..steps {
        assert!(world.obey(&model()));
    }
    world
}

#[test]
fn what_is_before_the_swap_stops_at_once_keeps_its_bytes_and_goes_on_later() {
    for steps in 0..4 {
        let mut world = towards_2(steps);
        assert!(world.tasks.contains_key(&model()), "a task runs");

        world.feed(list(1, &[2]));

        assert!(world.tasks.is_empty(), "it was ended");
        let slot = world.slot();
        assert_eq!((slot.phase, slot.serving), (Public::Waiting, Some(image(1))));
        assert_eq!(slot.halted.unwrap().reason, "smoke");
        assert!(world.device.images().contains(&image(2).index), "what is on disk stays");
        world.wait(30 * 86_400_000);
        assert!(world.tasks.is_empty(), "and no deadline begins it again");

        world.feed(list(2, &[]));
        assert_eq!(world.slot().halted, None);
        world.obey_all();
        assert_eq!(world.slot().serving, Some(image(2)));
    }
}

#[test]
fn from_the_swap_on_it_carries_on() {
    let mut world = towards_2(4);
    assert_eq!(world.slot().phase, Public::Activating);
    world.feed(list(1, &[2]));
    world.obey_all();
    assert_eq!((world.slot().phase, world.slot().serving), (Public::Probation, Some(image(2))));
    assert_eq!(world.slot().halted, None);

    (0..2).for_each(|_| world.crash(2));
    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(1)), "it goes back all the same");
}

#[test]
fn what_a_halted_rollout_asks_for_is_not_begun_and_survives_a_restart() {
    let mut world = World::serving_1();
    world.feed(list(1, &[2]));
    world.feed(directive(2, vec![of_rollout(2)]));
    assert!(world.tasks.is_empty() && world.slot().halted.is_some());

    world.restart_with(list(1, &[2]));

    assert!(world.tasks.is_empty() && world.slot().halted.is_some());
    world.feed(list(2, &[]));
    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(2)));
}

#[test]
fn a_way_back_that_was_ordered_later_is_not_on_the_list() {
    let mut world = towards_2(2);
    world.feed(list(1, &[2]));

    let back = DesiredSlot { campaign: Some(campaign(9)), ..slot(&model(), 1) };
    world.feed(directive(3, vec![back]));

    world.obey_all();
    let slot = world.slot();
    assert_eq!((slot.phase, slot.serving, slot.halted), (Public::Idle, Some(image(1)), None));
}

#[test]
fn the_same_image_under_a_rollout_that_goes_on_goes_on() {
    let mut world = towards_2(1);
    world.feed(list(1, &[2]));

    let again = DesiredSlot { campaign: Some(campaign(9)), ..slot(&model(), 2) };
    world.feed(directive(3, vec![again]));

    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(2)));
}

#[test]
fn a_revoked_image_is_left_under_a_halt() {
    let mut world = World::serving_1();
    let fallback = Some(image(3));
    let told = DesiredSlot { fallback, campaign: Some(campaign(1)), ..slot(&model(), 1) };
    world.feed(directive(2, vec![told]));
    world.feed(list(1, &[1]));

    world.feed(Event::Revoked { image: image(1).index, action: OnRevoked::Fallback });

    world.obey_all();
    world.wait(1_000);
    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(3)));
}

/// What happens to a device, as far as halts are concerned.
#[derive(Debug, Clone)]
enum Turn {
    /// It is told a version by a rollout of its own, halted or not.
    Told(u8),
    /// All lists name some of the versions.
    Halted(Vec<u8>),
    Obey,
    /// Time passes where no task runs: one that takes too long fails, halt or not.
    Wait(i64),
    /// At most three times: more starts of the agent end an attempt, halt or not.
    Restart,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        2 => (1_u8..5).prop_map(Turn::Told),
        2 => proptest::collection::vec(1_u8..5, 0..4).prop_map(Turn::Halted),
        6 => Just(Turn::Obey),
        1 => (0_i64..200_000).prop_map(Turn::Wait),
        1 => Just(Turn::Restart),
    ];
    proptest::collection::vec(turn, 0..40)
}

proptest! {
    /// Nothing of a halted rollout moves before the swap, whatever else happens; and once nothing is halted, the device ends on what it
    /// was told last.
    #[test]
    fn halts_in_any_order_lose_nothing_and_let_nothing_through(turns in turns()) {
        let mut world = World::serving_1();
        let (mut generation, mut sequence, mut told) = (1, 0, 1);
        let mut newest = list(0, &[]);
        let (mut halted, mut restarts) = (Vec::new(), 0);
        for turn in turns {
            let served = world.slot().serving;
            match turn {
                Turn::Told(version) => {
                    (generation, told) = (generation + 1, version);
                    world.feed(directive(generation, vec![of_rollout(version)]));
                }
                Turn::Halted(versions) => {
                    sequence += 1;
                    newest = list(sequence, &versions);
                    world.feed(newest.clone());
                    halted = versions;
                }
                Turn::Obey => {
                    let was_activating = world.slot().phase == Public::Activating;
                    world.obey(&model());
                    let now = world.slot().serving;
                    let is_halted = halted.iter().any(|version| now == Some(image(*version)));
                    prop_assert!(now == served || was_activating || !is_halted);
                }
                Turn::Wait(millis) if world.tasks.is_empty() => world.wait(millis),
                Turn::Restart if restarts < 3 => {
                    restarts += 1;
                    world.restart_with(newest.clone());
                }
                Turn::Wait(_) | Turn::Restart => {}
            }
            let slot = world.slot();
            if let Some(next) = slot.next.filter(|_| slot.phase != Public::Activating) {
                let is_named = halted.iter().any(|version| next == image(*version));
                prop_assert_eq!(is_named, slot.halted.is_some(), "{:?}", slot.phase);
                prop_assert!(!is_named || !world.tasks.contains_key(&model()));
            }
        }

        world.feed(list(sequence + 1, &[]));

        for _ in 0..20 {
            world.obey_all();
            world.wait(i64::from(PROBATION_S + WATCH_S) * 1_000);
        }
        prop_assert_eq!(world.slot().serving, Some(image(told)));
    }
}
