//! A whole fleet in one loop: the real planner, the real devices' state machines, and a world that is a function of a seed.
//!
//! Messages are late, lost, doubled and out of order; links break, the power goes between any two effects, workers crash, clocks lie,
//! disks fill up, the server is away; operators pause, promote, abort and go back. Then there is peace, and what was promised must be so.

#[path = "fleet_loop/server.rs"]
mod server;
#[path = "fleet_loop/weather.rs"]
mod weather;
#[path = "fleet_loop/world.rs"]
mod world;

use std::panic::AssertUnwindSafe;

use fastrand::Rng;
use sealift_fleet_server::rollout::Stage;
use sealift_protocol::api::Action;
use sealift_protocol::directive::{MaintenanceWindow, Trial};
use sealift_protocol::id::RolloutId;
use sealift_protocol::report::{OutcomeKind, Phase};

use self::server::{TRIAL, image};
use self::world::{Deed, HOUR, World};

/// Stories that once ended badly; each is told again in every run.
const KEPT: &[(u64, usize)] = &[];

/// The first versions to everybody, in wild weather, with people who interfere.
fn wild_days(seed: u64, count: usize) -> World {
    let mut world = World::new(seed, count);
    let mut people = Rng::with_seed(!seed);
    world.plan_deed(HOUR / 60, Deed::Order(1));
    world.run_for(8 * HOUR);
    world.plan_deed(0, Deed::OrderOn(2, terms(&mut people)));
    if people.u32(0..3) == 0 {
        world.plan_outage(people.i64(0..4 * HOUR), people.i64(HOUR / 60..2 * HOUR));
    }
    for _ in 0..people.usize(0..4) {
        let actions =
            [Action::Pause, Action::Resume, Action::Promote, Action::Retry, Action::Abort];
        let deed = match people.usize(0..7) {
            action @ 0..5 => Deed::Act(actions[action]),
            _ => Deed::RollBack { bad: 2, to: 1 },
        };
        world.plan_deed(people.i64(0..8 * HOUR), deed);
    }
    world.run_for(8 * HOUR);
    world
}

/// A third of what is ordered may disturb devices in a window alone, and a third stays only when the server has seen it.
fn terms(people: &mut Rng) -> Trial {
    let hour = people.u16(0..24);
    let window = MaintenanceWindow::new(0b111_1111, hour * 60, (hour + 2) % 24 * 60).unwrap();
    Trial {
        window: (people.u32(0..3) == 0).then_some(window),
        lease_s: if people.u32(0..3) == 0 { 900 } else { 0 },
        ..TRIAL
    }
}

fn tell(seed: u64, count: usize) -> World {
    let mut world = wild_days(seed, count);
    world.make_peace();
    // A window comes back within a day, and an image serves its probation after that.
    world.run_for(26 * HOUR);
    server_and_devices_agree(&world);

    world.plan_deed(0, Deed::Order(3));
    world.run_for(12 * HOUR);
    server_and_devices_agree(&world);
    everybody_serves(&world, 3);
    world
}

/// What the server believes of a device is what the device is; and the device is at rest, having followed the last word.
fn server_and_devices_agree(world: &World) {
    for device in &world.devices {
        let id = device.twin.id();
        let (known, report) = (&world.server.devices[id], device.twin.report(world.now));
        assert_eq!(report.generation, known.generation, "{id} has not followed the last word");
        assert_eq!(known.accepted, report.generation, "{id}: what the server knows is old");
        let Some(slot) = report.slots.first() else {
            assert!(known.desired.is_none(), "{id} has nothing of what it was told");
            continue;
        };
        let at_rest = matches!(slot.phase, Phase::Idle | Phase::Watch);
        assert!(at_rest, "{id} is not at rest in peace: {slot:?}");
        let serving = slot.serving.as_ref().map(|image| image.index);
        let seen = known.slot.as_ref().expect("the server has seen its slot");
        assert_eq!(seen.serving, serving, "{id}: the server believes something else");
        let desired = known.desired.as_ref().expect("it was told").image;
        let outcome = slot.outcome.as_ref().expect("an attempt has ended");
        if serving != Some(desired) {
            assert!(outcome.result != OutcomeKind::Committed, "{id}: {slot:?}");
        }
        // A terminal result arrives, and is the one that the device has.
        let told = known.ends.get(&outcome.generation).expect("the end was reported");
        assert_eq!((told.image, told.kind), (outcome.image.index, outcome.result), "{id}");
        // Who has kept an image has an image.
        let has_kept = known.ends.values().any(|end| end.kind == OutcomeKind::Committed);
        assert!(!has_kept || serving.is_some(), "{id} has lost its working image: {slot:?}");
    }
    for ordered in &world.server.rollouts {
        let stage = ordered.rollout.stage;
        let waits_for_people = matches!(stage, Stage::Paused | Stage::Halted);
        assert!(
            stage.is_over() || waits_for_people,
            "{:?} goes on for ever: {stage:?}",
            ordered.rollout.id
        );
    }
}

fn everybody_serves(world: &World, version: u8) {
    let (stage, why) = world.server.newest();
    assert_eq!(stage, Stage::Succeeded, "{why}");
    for device in &world.devices {
        let slot = device.twin.report(world.now).slots.into_iter().next().expect("a slot");
        let serving = slot.serving.as_ref().map(|image| image.index);
        assert_eq!(serving, Some(image(version)), "{}: {slot:?}", device.twin.id());
    }
}

/// Tells stories; a failure names its seed.
fn tell_all(seeds: impl Iterator<Item = u64>, count: usize) -> u64 {
    let mut events = 0;
    for seed in seeds {
        let told = std::panic::catch_unwind(AssertUnwindSafe(|| tell(seed, count)));
        match told {
            Ok(world) => events += world.events,
            Err(panic) => {
                eprintln!("story of seed {seed} with {count} devices; keep it in KEPT");
                std::panic::resume_unwind(panic);
            }
        }
    }
    events
}

/// Which stories to tell: `SEALIFT_LOOP=SEED..SEED` tells others, to look for one that ends badly or at one that did.
fn seeds() -> std::ops::Range<u64> {
    let asked = std::env::var("SEALIFT_LOOP").ok();
    let range = asked.as_deref().map(|text| {
        let (from, to) = text.split_once("..").expect("SEALIFT_LOOP is SEED..SEED");
        from.parse().expect("a seed")..to.parse().expect("a seed")
    });
    range.unwrap_or(0..24)
}

#[test]
fn whatever_happened_a_fleet_in_peace_ends_where_it_was_told() {
    let events = tell_all(seeds(), 40);
    println!("{events} events");
    for &(seed, count) in KEPT {
        tell(seed, count);
    }
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let (first, second) = (tell(7, 30), tell(7, 30));
    assert_eq!((first.trace, first.events), (second.trace, second.events));
    assert_ne!(first.trace, tell(8, 30).trace);
}

/// A version that works nowhere reaches the canaries and nobody else, however the messages come, as long as nobody lets it pass.
#[test]
fn a_version_that_works_nowhere_stops_at_the_canaries() {
    for seed in 0..12 {
        let mut world = World::new(seed, 100);
        world.sick = (2, 1_000);
        world.plan_deed(0, Deed::Order(1));
        world.run_for(8 * HOUR);
        world.fall_sick();
        world.plan_deed(0, Deed::Order(2));
        world.run_for(8 * HOUR);
        let told = world.server.told(RolloutId(2));
        assert!(told <= 5, "seed {seed}: {told} devices were told a version that works nowhere");
        world.make_peace();
        world.run_for(12 * HOUR);
        assert!(world.server.told(RolloutId(2)) <= 5, "seed {seed}");
        server_and_devices_agree(&world);
    }
}

#[test]
#[ignore = "takes minutes"]
fn a_thousand_devices_in_a_thousand_worlds() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || tell_all((thread as u64..1_000).step_by(threads), 1_000));
        }
    });
}
