//! How long it takes to plan a large fleet: `cargo xtask bench plan`.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement reads the clock, prints, and ends when something is wrong"
)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use sealift_fleet_server::rollout::{
    Desired, DeviceView, Fleet, Outcome, Plan, Rollout, Slot, Stage, Standing, Told, Wave, plan,
};
use sealift_protocol::api::WavePlan;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, Generation, RolloutId, UnixMillis};
use sealift_protocol::report::{OutcomeKind, Phase};

const OLD: Digest = Digest::from_bytes([1; 32]);
const NEW: Digest = Digest::from_bytes([2; 32]);
const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

fn main() -> ExitCode {
    let mut is_in_time = true;
    println!("{:>9}  {:>14}  {:>14}  {:>9}", "devices", "first plan", "half way", "told");
    for (devices, limit) in
        [(100_000, Duration::from_secs(1)), (1_000_000, Duration::from_secs(10))]
    {
        let (mut rollout, mut fleet) = (rollout(), fleet(devices));
        let (first, took_first) = timed(&rollout, &fleet);
        carry_out(&mut rollout, &mut fleet, &first);
        let (second, _) = timed(&rollout, &fleet);
        carry_out(&mut rollout, &mut fleet, &second);
        let (_, took_half) = timed(&rollout, &fleet);
        let told = first.tell.len() + second.tell.len();
        println!("{devices:>9}  {took_first:>14.1?}  {took_half:>14.1?}  {told:>9}");
        is_in_time &= took_first.max(took_half) < limit && told == devices / 2;
    }
    println!("limits: 1 s and 10 s");
    if is_in_time { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn timed(rollout: &Rollout, fleet: &Fleet) -> (Plan, Duration) {
    let begun = Instant::now();
    let plan = plan(rollout, fleet, NOW);
    (plan, begun.elapsed())
}

fn rollout() -> Rollout {
    let wave = |percent| Wave {
        plan: WavePlan { percent: Some(percent), ..WavePlan::default() },
        standing: Standing::Pending,
        comparisons: Vec::new(),
    };
    Rollout {
        id: RolloutId(2),
        image: NEW,
        waves: [1.0, 50.0, 100.0].into_iter().map(wave).collect(),
        stage: Stage::Running,
        probation_ms: 600_000,
        shadow_ms: 0,
        silent_after_ms: 300_000,
        is_rollback: false,
        start_at: None,
        turn: 2,
        budget: None,
        tail_ms: 604_800_000,
        reverted_by: Vec::new(),
        held_from: Some(2),
    }
}

fn fleet(devices: usize) -> Fleet {
    let device = |number| {
        let slot = Slot {
            generation: Generation(1),
            phase: Phase::Idle,
            serving: Some(OLD),
            outcome: None,
            shadow: None,
            reported_at: NOW,
        };
        let view = DeviceView {
            online_since: Some(UnixMillis(0)),
            desired: Some(Desired { rollout: RolloutId(1), turn: 1, image: OLD }),
            accepted: Generation(1),
            slot: Some(slot),
            ..DeviceView::default()
        };
        (DeviceId::parse(&format!("camera-{number:07}")).unwrap(), view)
    };
    (0..devices).map(device).collect()
}

/// Whoever is told keeps the image.
fn carry_out(rollout: &mut Rollout, fleet: &mut Fleet, plan: &Plan) {
    for (wave, reading) in rollout.waves.iter_mut().zip(&plan.waves) {
        wave.standing = reading.standing;
    }
    let generation = Generation(2);
    for (id, wave) in &plan.tell {
        let device = fleet.get_mut(id).unwrap();
        let served = device.served;
        device.told = Some(Told { wave: *wave, generation, at: NOW, served, is_excused: false });
        device.desired = Some(Desired { rollout: rollout.id, turn: rollout.turn, image: NEW });
        device.accepted = generation;
        let kind = OutcomeKind::Committed;
        let failure = sealift_fleet_server::rollout::Failure::default();
        device.slot = Some(Slot {
            generation,
            phase: Phase::Idle,
            serving: Some(NEW),
            outcome: Some(Outcome { generation, image: NEW, kind, failure }),
            shadow: None,
            reported_at: NOW,
        });
    }
}
