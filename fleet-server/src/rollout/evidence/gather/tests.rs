use sealift_protocol::api::WavePlan;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{Generation, ModelName, RolloutId, Version};
use sealift_protocol::profile::{BaselineBuilder, Column, Profiler};
use sealift_protocol::report::{ImageRef, Phase};

use super::*;
use crate::rollout::{Desired, Slot, Stage, Standing, Told, Wave, plan};

const OLD: Digest = Digest::from_bytes([1; 32]);
const NEW: Digest = Digest::from_bytes([2; 32]);
const NOW: UnixMillis = UnixMillis(1_000_000_000);

fn id(number: usize) -> DeviceId {
    DeviceId::parse(&format!("cam-{number}")).unwrap()
}

fn rollout() -> Rollout {
    let plan = WavePlan {
        percent: None,
        count: Some(3),
        soak_s: 600,
        max_bad_share: None,
        ..WavePlan::default()
    };
    let standing = Standing::Open { since: NOW };
    Rollout {
        id: RolloutId(2),
        image: NEW,
        waves: vec![Wave { plan, standing, comparisons: Vec::new() }],
        stage: Stage::Running,
        probation_ms: 1_000,
        shadow_ms: 0,
        silent_after_ms: 120_000,
        is_rollback: false,
        start_at: None,
        turn: 2,
        budget: None,
        tail_ms: 604_800_000,
        reverted_by: Vec::new(),
        held_from: None,
    }
}

/// Three devices with the new image and ten with the old one.
fn fleet() -> Fleet {
    let device = |number: usize| {
        let (rollout, image) = if number < 3 { (2, NEW) } else { (1, OLD) };
        let told = Told {
            wave: 0,
            generation: Generation(2),
            at: NOW,
            served: Served::default(),
            is_excused: false,
        };
        let slot = Slot {
            generation: Generation(2),
            phase: Phase::Idle,
            serving: Some(image),
            outcome: None,
            shadow: None,
            reported_at: NOW,
        };
        let view = DeviceView {
            online_since: Some(NOW),
            desired: Some(Desired { rollout: RolloutId(rollout), turn: rollout, image }),
            told: (number < 3).then_some(told),
            accepted: Generation(2),
            slot: Some(slot),
            ..DeviceView::default()
        };
        (id(number), view)
    };
    (0..13).map(device).collect()
}

/// Each device serves so many requests, of which canaries fail a share.
fn serve(fleet: &mut Fleet, canaries_fail: u64) {
    for device in fleet.values_mut() {
        let failed = if device.told.is_some() { canaries_fail } else { 0 };
        device.served.requests += 100 - failed;
        device.served.errors += failed;
    }
}

fn look(observation: &mut Observation, rollout: &Rollout, fleet: &Fleet, came: &[Came]) {
    let roles = Roles::of(rollout, fleet);
    observation.look(Scene { rollout, fleet, roles: &roles }, came, NOW);
}

fn window(device: usize, image: Digest, failed: u64) -> Came {
    let columns = vec![Column::numeric("a", "g")];
    let mut builder = BaselineBuilder::new(columns, vec!["no".to_owned(), "yes".to_owned()]);
    (0..100_u32).for_each(|row| builder.push(&[f64::from(row)], Some("yes"), None).unwrap());
    let mut profiler = Profiler::new(&builder.build().unwrap());
    (0..100).for_each(|_| profiler.observe(&[5.0], None, Some(0.9), Some(1_000)));
    let window = ProfileWindow {
        model: ModelName::parse("vision/digits").unwrap(),
        image: ImageRef { version: Version::parse("1").unwrap(), index: image },
        from: NOW,
        until: NOW.plus(1),
        profile: profiler.close().encode().unwrap(),
        errors: failed,
    };
    Came { device: id(device), window }
}

#[test]
fn heartbeats_alone_show_that_canaries_fail_and_an_agent_that_restarts_does_not_hide_it() {
    let (mut rollout, mut fleet) = (rollout(), fleet());
    let mut observation = Observation::begin(0, NOW);
    for turn in 0..40 {
        serve(&mut fleet, 8);
        if turn == 20 {
            for device in fleet.values_mut() {
                device.served = Served::default();
            }
        }
        look(&mut observation, &rollout, &fleet, &[]);
    }

    let rules = Rules { gates: &rollout.waves[0].plan.gates, waves: 1 };
    rollout.waves[0].comparisons = observation.waves[0].comparisons(rules);
    let plan = plan(&rollout, &fleet, NOW);

    assert_eq!(plan.stage, Stage::Halted);
    let begin = "wave 1: error rate is 8.0% against 0.0% in control; e-value ";
    assert!(plan.why.starts_with(begin), "{}", plan.why);
}

#[test]
fn healthy_heartbeats_halt_nothing() {
    let (rollout, mut fleet) = (rollout(), fleet());
    let mut observation = Observation::begin(0, NOW);
    for _ in 0..200 {
        serve(&mut fleet, 0);
        look(&mut observation, &rollout, &fleet, &[]);
    }

    let rules = Rules { gates: &rollout.waves[0].plan.gates, waves: 1 };
    assert!(observation.waves[0].comparisons(rules).iter().all(|gate| gate.is_held));
}

#[test]
fn windows_count_by_the_image_that_answered() {
    let (rollout, fleet) = (rollout(), fleet());
    let roles = Roles::of(&rollout, &fleet);
    let scene = Scene { rollout: &rollout, fleet: &fleet, roles: &roles };
    let mut observation = Observation::begin(0, NOW);
    let came = [window(0, NEW, 3), window(1, OLD, 3), window(5, OLD, 1), window(6, NEW, 1)];

    let readings = observation.windows(scene, &came);

    let seen: Vec<_> = readings.iter().map(|(id, reading)| (id, reading.requests())).collect();
    assert_eq!(seen, [(&id(0), 103), (&id(5), 101)]);
}

#[test]
fn a_device_that_sends_windows_is_not_counted_by_its_heartbeats_as_well() {
    let (rollout, mut fleet) = (rollout(), fleet());
    let roles = Roles::of(&rollout, &fleet);
    let mut observation = Observation::begin(0, NOW);
    let scene = Scene { rollout: &rollout, fleet: &fleet, roles: &roles };
    let mut readings = observation.windows(scene, &[window(0, NEW, 0)]);
    observation.beats(&fleet, &roles, &mut readings);
    serve(&mut fleet, 0);
    readings.clear();

    observation.beats(&fleet, &roles, &mut readings);

    assert!(!readings.contains_key(&id(0)) && readings.contains_key(&id(1)));
}

#[test]
fn the_last_canaries_are_compared_with_what_they_did_before() {
    let (rollout, mut fleet) = (rollout(), fleet());
    fleet.retain(|_, device| device.told.is_some());
    let roles = Roles::of(&rollout, &fleet);
    let scene = Scene { rollout: &rollout, fleet: &fleet, roles: &roles };
    let mut observation = Observation::begin(0, NOW);
    let wanting: Vec<_> =
        observation.wanting_past(&roles).map(|(wave, ids)| (wave, ids.len())).collect();
    let past: Vec<_> = (0..30).map(|number| window(number % 3, OLD, 1)).collect();
    observation.set_past(0, &past);
    for _ in 0..40 {
        let came = [window(0, NEW, 10), window(1, NEW, 10), window(2, NEW, 10)];
        observation.look(scene, &came, NOW);
    }

    let judged = Rules { gates: &rollout.waves[0].plan.gates, waves: 1 };
    let failed = observation.waves[0].comparisons(judged).into_iter().find(|gate| !gate.is_held);

    assert_eq!(wanting, [(0, 3)]);
    assert_eq!(observation.wanting_past(&roles).count(), 0);
    assert!(failed.is_some_and(|gate| gate.is_against_past));
}
