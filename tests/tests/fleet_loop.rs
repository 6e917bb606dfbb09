//! A whole fleet in one loop: the real planner, the real devices' state machines, and a world that is a function of a seed.
//!
//! Messages are late, lost, doubled and out of order; links break, the power goes between any two effects, workers crash, clocks lie,
//! disks fill up, the server is away; operators pause, promote, abort, go back, halt everything, revoke images and devices, and restore
//! the server from an old copy. Then there is peace, and what was promised must be so.

#[path = "fleet_loop/recall.rs"]
mod recall;
#[path = "fleet_loop/server.rs"]
mod server;
#[path = "fleet_loop/weather.rs"]
mod weather;
#[path = "fleet_loop/world.rs"]
mod world;

use std::io::Write as _;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use fastrand::Rng;
use sealift_fleet_server::rollout::Stage;
use sealift_protocol::api::Action;
use sealift_protocol::directive::{MaintenanceWindow, Shadow, Trial};
use sealift_protocol::id::RolloutId;
use sealift_protocol::report::{OutcomeKind, Phase};

use self::server::{TRIAL, image};
use self::world::{Deed, HOUR, World};

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
    recall(&mut world, &mut people, count);
    world.run_for(8 * HOUR);
    world
}

/// What is taken back, of everything and of some: a third of all stories have each.
fn recall(world: &mut World, people: &mut Rng, count: usize) {
    let is_so = |people: &mut Rng| people.u32(0..3) == 0;
    if is_so(people) {
        let (after, length) = (people.i64(0..6 * HOUR), people.i64(HOUR / 60..3 * HOUR));
        world.plan_deed(after, Deed::HaltAll);
        world.plan_deed(after + length, Deed::ResumeAll);
    }
    if is_so(people) {
        // Sometimes what everybody could go back to.
        let version = if people.u32(0..4) == 0 { 1 } else { 2 };
        world.plan_deed(people.i64(0..8 * HOUR), Deed::RevokeImage(version));
    }
    if is_so(people) {
        for _ in 0..=people.usize(0..3) {
            let number = people.usize(0..count);
            world.plan_deed(people.i64(0..8 * HOUR), Deed::RevokeDevice(number));
        }
    }
    if is_so(people) {
        let copied = people.i64(0..4 * HOUR);
        let restored = copied + people.i64(HOUR / 60..3 * HOUR);
        world.plan_deed(copied, Deed::BackUp);
        world.plan_deed(restored, Deed::Restore);
        // Or nobody notices before there is peace.
        if people.bool() {
            world.plan_deed(restored + people.i64(0..2 * HOUR), Deed::Recover);
        }
    }
}

/// People look after a server that was restored until it is behind nobody.
fn get_ahead(world: &mut World) {
    for _ in 0..4 {
        if !world.server.is_behind() {
            return;
        }
        world.plan_deed(0, Deed::Recover);
        world.run_for(26 * HOUR);
    }
    assert!(!world.server.is_behind(), "devices are ahead of the server for ever");
}

/// A third of what is ordered may disturb devices in a window alone, a third stays only when the server has seen it, and a third is
/// compared with the live image first.
fn terms(people: &mut Rng) -> Trial {
    const SHADOW: Shadow = Shadow { span_s: 1_200, agreement_permille: 980, ..Shadow::OFF };
    let hour = people.u16(0..24);
    let window = MaintenanceWindow::new(0b111_1111, hour * 60, (hour + 2) % 24 * 60).unwrap();
    Trial {
        window: (people.u32(0..3) == 0).then_some(window),
        lease_s: if people.u32(0..3) == 0 { 900 } else { 0 },
        shadow: if hour.is_multiple_of(3) { SHADOW } else { Shadow::OFF },
        ..TRIAL
    }
}

fn tell(seed: u64, count: usize) -> World {
    let mut world = wild_days(seed, count);
    world.make_peace();
    // A window comes back within a day, for one wave after the other, and an image serves its probation after that.
    for _ in 0..world.server.waves_to_wait_for() {
        world.run_for(26 * HOUR);
    }
    get_ahead(&mut world);
    server_and_devices_agree(&world);

    world.plan_deed(0, Deed::Order(3));
    world.run_for(12 * HOUR);
    server_and_devices_agree(&world);
    everybody_serves(&world, 3);
    world
}

/// What the server believes of a device is what the device is; and the device is at rest, having followed the last word.
fn server_and_devices_agree(world: &World) {
    let trusted = |device: &&world::Device| !world.server.is_revoked(device.twin.id());
    for device in world.devices.iter().filter(trusted) {
        let id = device.twin.id();
        let (known, report) = (&world.server.devices[id], device.twin.report(world.now));
        assert_eq!(report.generation, known.signed, "{id} has not followed the last word");
        assert_eq!(known.accepted, report.generation, "{id}: what the server knows is old");
        let Some(slot) = report.slots.first() else {
            assert!(known.desired.is_none(), "{id} has nothing of what it was told");
            continue;
        };
        let at_rest = matches!(slot.phase, Phase::Idle | Phase::Watch);
        let story = || format!("{}\n{}", known.story(), world.server.story());
        assert!(at_rest, "{id} is not at rest in peace: {slot:?}\n{}", story());
        let serving = slot.serving.as_ref().map(|image| image.index);
        let is_denied = serving.is_some_and(|image| world.server.denied.contains(&image));
        assert!(!is_denied, "{id} serves what was revoked: {slot:?}");
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
        let nothing_is_denied = world.server.denied.is_empty();
        assert!(
            !has_kept || serving.is_some() || !nothing_is_denied,
            "{id} has lost its working image: {slot:?}"
        );
    }
    for ordered in &world.server.rollouts {
        let stage = ordered.rollout.stage;
        let waits = |stage| matches!(stage, Stage::Paused | Stage::Halted);
        // What is taken back waits for nobody but the ways back.
        let mut ways = ordered.rollout.reverted_by.iter().map(|way| way.stage);
        let waits_for_people = waits(stage) || (stage == Stage::Reverting && ways.any(waits));
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
    let trusted = |device: &&world::Device| !world.server.is_revoked(device.twin.id());
    for device in world.devices.iter().filter(trusted) {
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
                eprintln!("story of seed {seed} with {count} devices; keep it as a test");
                std::panic::resume_unwind(panic);
            }
        }
    }
    events
}

/// Which stories to tell: `SEALIFT_LOOP=SEED..SEED` tells others, to look for one that ends badly or at one that did.
fn seeds() -> Range<u64> {
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
}

/// It was downloading what was ordered after the backup, and served what the restored server thought: nobody would have noticed.
#[test]
fn a_device_on_its_way_to_what_was_lost_is_noticed_after_a_restore() {
    tell(60, 40);
}

/// The second wave was told when its windows had shut, since those of the first came late: the story ended before they came again.
#[test]
fn a_wave_waits_for_its_windows_when_the_wave_before_has_had_its_own() {
    tell(785, 40);
}

/// Its link came back half a minute before its window shut, and the download took longer: it went on when the window came again.
#[test]
fn a_device_that_has_missed_the_end_of_its_window_goes_on_in_the_next() {
    tell(1_887, 40);
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

/// Which worlds, and of how many devices: `SEALIFT_WORLDS=5x1000` is a sample of five, `SEALIFT_WORLDS=388..389x1000` is one that ended
/// badly.
fn worlds() -> (Range<u64>, usize) {
    let Ok(asked) = std::env::var("SEALIFT_WORLDS") else { return (0..1_000, 1_000) };
    let (worlds, devices) = asked.split_once('x').expect("SEALIFT_WORLDS is WORLDSxDEVICES");
    let (from, to) = worlds.split_once("..").unwrap_or(("0", worlds));
    let range = from.parse().expect("a seed")..to.parse().expect("a number of worlds, or a seed");
    (range, devices.parse().expect("devices"))
}

/// One world at a time for each processor: what is over is forgotten. Those that end badly are all told at the end.
#[test]
#[ignore = "takes hours"]
fn a_thousand_devices_in_a_thousand_worlds() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (worlds, devices) = worlds();
    let count = worlds.end - worlds.start;
    let (next, told, events) = (AtomicU64::new(worlds.start), AtomicU64::new(0), AtomicU64::new(0));
    let bad = Mutex::new(Vec::new());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= worlds.end {
                        break;
                    }
                    match std::panic::catch_unwind(|| tell_all(seed..=seed, devices)) {
                        Ok(more) => _ = events.fetch_add(more, Ordering::Relaxed),
                        Err(_) => bad.lock().unwrap().push(seed),
                    }
                    let (told, took) = (told.fetch_add(1, Ordering::Relaxed) + 1, began.elapsed());
                    let left = took / u32::try_from(told).unwrap() * u32::try_from(count - told).unwrap();
                    // Past the test's captured output: whoever waits for hours wants to see it.
                    let _ = writeln!(
                        std::io::stderr(),
                        "{told} of {count} worlds of {devices} devices, {} events in {} s, about {} min left",
                        events.load(Ordering::Relaxed),
                        took.as_secs(),
                        left.as_secs() / 60,
                    );
                }
            });
        }
    });
    let bad = bad.into_inner().unwrap();
    assert!(bad.is_empty(), "the stories of seeds {bad:?} with {devices} devices ended badly");
}
