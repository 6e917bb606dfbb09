use sealift_protocol::api::Action;

use super::*;
use crate::rollout::action::{AtWork, BadDevices};

mod approval;
mod budget;
mod late;
mod laws;
mod pace;
mod revert;
mod schedule;
mod waves;

const OLD: Digest = Digest::from_bytes([1; 32]);
const NEW: Digest = Digest::from_bytes([2; 32]);
const NOW: UnixMillis = UnixMillis(1_000_000_000);
const EARLIER: RolloutId = RolloutId(1);
const THIS: RolloutId = RolloutId(2);
const NEWER: RolloutId = RolloutId(3);
const TAIL_MS: i64 = TAIL_S as i64 * 1_000;

pub(super) fn id(number: usize) -> DeviceId {
    DeviceId::parse(&format!("cam-{number}")).unwrap()
}

pub(super) fn wave(percent: f64, soak_s: u32) -> Wave {
    let plan = WavePlan { percent: Some(percent), soak_s, ..WavePlan::default() };
    Wave { plan, standing: Standing::Pending, comparisons: Vec::new() }
}

pub(super) fn rollout(waves: Vec<Wave>) -> Rollout {
    Rollout {
        held_from: None,
        id: THIS,
        image: NEW,
        waves,
        stage: Stage::Running,
        probation_ms: 10_000,
        shadow_ms: 0,
        silent_after_ms: 120_000,
        is_rollback: false,
        start_at: None,
        turn: THIS.0,
        budget: None,
        tail_ms: TAIL_MS,
        reverted_by: Vec::new(),
    }
}

/// Devices that are online and serve the old image, as an earlier rollout has told them.
pub(super) fn fleet(devices: usize) -> Fleet {
    (0..devices).map(|number| (id(number), idle())).collect()
}

fn idle() -> DeviceView {
    DeviceView {
        online_since: Some(UnixMillis(0)),
        desired: Some(Desired { rollout: EARLIER, turn: EARLIER.0, image: OLD }),
        accepted: Generation(1),
        slot: Some(slot(Generation(1), Phase::Idle, OLD, None)),
        ..DeviceView::default()
    }
}

fn slot(generation: Generation, phase: Phase, serving: Digest, outcome: Option<Outcome>) -> Slot {
    Slot { generation, phase, serving: Some(serving), outcome, shadow: None, reported_at: NOW }
}

/// Writes down that the plan's devices were told, as the reconciler does.
fn tell(fleet: &mut Fleet, plan: &Plan, now: UnixMillis) {
    for (device, wave) in &plan.tell {
        let device = fleet.get_mut(device).unwrap();
        let generation = device.accepted.next();
        device.told = Some(Told {
            wave: *wave,
            generation,
            at: now,
            served: device.served,
            is_excused: false,
        });
        device.desired = Some(Desired { rollout: THIS, turn: THIS.0, image: NEW });
    }
}

/// The device ends its attempt.
fn end(device: &mut DeviceView, kind: OutcomeKind) {
    let generation = device.told.unwrap().generation;
    let serving = if kind == OutcomeKind::Committed { NEW } else { OLD };
    let outcome = Outcome { generation, image: NEW, kind, failure: Failure::default() };
    device.accepted = generation;
    device.slot = Some(slot(generation, Phase::Idle, serving, Some(outcome)));
}

fn take_over(rollout: &mut Rollout, plan: &Plan) {
    rollout.stage = plan.stage;
    for (wave, reading) in rollout.waves.iter_mut().zip(&plan.waves) {
        wave.standing = reading.standing;
    }
}

/// Plans, takes over and tells.
fn turn(rollout: &mut Rollout, fleet: &mut Fleet, now: UnixMillis) -> Plan {
    let plan = plan(rollout, fleet, now);
    take_over(rollout, &plan);
    tell(fleet, &plan, now);
    plan
}

fn told(fleet: &Fleet) -> Vec<DeviceId> {
    fleet.iter().filter(|(_, view)| view.told.is_some()).map(|(id, _)| id.clone()).collect()
}

fn end_all(fleet: &mut Fleet, kind: OutcomeKind) {
    let working = fleet.values_mut().filter(|view| view.told.is_some() && view.accepted.0 == 1);
    working.for_each(|view| end(view, kind));
}

fn position<'a>(plan: &'a Plan, device: &DeviceId) -> &'a Position {
    &plan.devices[device]
}

#[test]
fn the_first_wave_goes_to_its_share_of_devices_only() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(10.0, 0), wave(100.0, 0)]), fleet(20));

    let plan = turn(&mut rollout, &mut fleet, NOW);

    assert_eq!(plan.tell.len(), 2);
    assert_eq!(plan.waves[0].standing, Standing::Open { since: NOW });
    assert_eq!(plan.waves[1].standing, Standing::Pending);
    assert_eq!(turn(&mut rollout, &mut fleet, NOW).tell, []);
}

#[test]
fn the_next_wave_opens_when_all_are_done_and_the_soak_is_over() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(10.0, 60), wave(100.0, 0)]), fleet(20));
    turn(&mut rollout, &mut fleet, NOW);
    end_all(&mut fleet, OutcomeKind::Committed);

    let soaking = turn(&mut rollout, &mut fleet, NOW);
    let still = turn(&mut rollout, &mut fleet, NOW.plus(59_999));
    let opened = turn(&mut rollout, &mut fleet, NOW.plus(60_000));

    let until = NOW.plus(60_000);
    assert_eq!(soaking.waves[0].standing, Standing::Soaking { since: NOW, until });
    assert_eq!((soaking.tell.len(), still.tell.len(), opened.tell.len()), (0, 0, 18));
}

#[test]
fn one_bad_canary_halts_before_anybody_else_is_told() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(5.0, 0), wave(100.0, 0)]), fleet(20));
    let canary = turn(&mut rollout, &mut fleet, NOW).tell[0].0.clone();
    end(fleet.get_mut(&canary).unwrap(), OutcomeKind::RolledBack);

    let halted = turn(&mut rollout, &mut fleet, NOW);

    assert_eq!(halted.stage, Stage::Halted);
    assert_eq!(halted.waves[0].standing, Standing::Failed { since: NOW });
    assert_eq!(halted.why, "wave 1: 1 of 1 devices ended badly, at most 10% may");
    assert_eq!(turn(&mut rollout, &mut fleet, NOW).tell, []);
}

#[test]
fn a_device_that_fails_after_its_wave_has_passed_still_halts() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(10.0, 0), wave(100.0, 0)]), fleet(20));
    let canary = turn(&mut rollout, &mut fleet, NOW).tell[0].0.clone();
    end_all(&mut fleet, OutcomeKind::Committed);
    turn(&mut rollout, &mut fleet, NOW);
    end(fleet.get_mut(&canary).unwrap(), OutcomeKind::RolledBack);

    let halted = turn(&mut rollout, &mut fleet, NOW);

    assert_eq!(halted.stage, Stage::Halted);
    assert_eq!(halted.waves[0].standing, Standing::Failed { since: NOW });
}

#[test]
fn a_device_that_says_nothing_while_online_is_bad_and_one_that_is_offline_is_not() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(100.0, 0)]), fleet(2));
    turn(&mut rollout, &mut fleet, NOW);
    fleet.get_mut(&id(0)).unwrap().online_since = None;

    let in_time = plan(&rollout, &fleet, NOW.plus(120_000));
    let late = plan(&rollout, &fleet, NOW.plus(120_001));

    assert_eq!(position(&in_time, &id(1)).progress, DeviceProgress::Offered);
    assert_eq!(position(&late, &id(1)).progress, DeviceProgress::Silent);
    assert_eq!(position(&late, &id(0)).progress, DeviceProgress::Offline);
    assert_eq!(late.stage, Stage::Halted);
}

#[test]
fn a_device_that_comes_back_has_the_full_time_to_answer() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(100.0, 0)]), fleet(1));
    turn(&mut rollout, &mut fleet, NOW);
    let tomorrow = NOW.plus(86_400_000);
    fleet.get_mut(&id(0)).unwrap().online_since = Some(tomorrow);

    let back = plan(&rollout, &fleet, tomorrow.plus(1_000));

    assert_eq!(position(&back, &id(0)).progress, DeviceProgress::Offered);
}

#[test]
fn a_device_that_vanishes_while_it_tries_the_image_is_bad() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(100.0, 0)]), fleet(1));
    turn(&mut rollout, &mut fleet, NOW);
    let device = fleet.get_mut(&id(0)).unwrap();
    device.accepted = Generation(2);
    device.slot = Some(slot(Generation(2), Phase::Probation, NEW, None));
    device.online_since = None;

    let soon = plan(&rollout, &fleet, NOW.plus(130_000));
    let late = plan(&rollout, &fleet, NOW.plus(130_001));

    assert_eq!(position(&soon, &id(0)).progress, DeviceProgress::Offline);
    assert_eq!(position(&late, &id(0)).progress, DeviceProgress::Silent);
}

#[test]
fn offline_devices_catch_up_after_the_last_wave_and_are_judged() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(100.0, 0)]), fleet(10));
    fleet.get_mut(&id(3)).unwrap().online_since = None;
    turn(&mut rollout, &mut fleet, NOW);
    end_all(&mut fleet, OutcomeKind::Committed);

    let completing = turn(&mut rollout, &mut fleet, NOW);
    fleet.get_mut(&id(3)).unwrap().online_since = Some(NOW);
    let caught_up = turn(&mut rollout, &mut fleet, NOW);
    end_all(&mut fleet, OutcomeKind::Committed);
    let succeeded = turn(&mut rollout, &mut fleet, NOW);

    assert_eq!(completing.stage, Stage::Completing { since: NOW });
    assert_eq!(caught_up.tell, [(id(3), 0)]);
    assert_eq!(succeeded.stage, Stage::Succeeded);
}

#[test]
fn the_tail_for_offline_devices_ends() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(100.0, 0)]), fleet(2));
    fleet.get_mut(&id(0)).unwrap().online_since = None;
    turn(&mut rollout, &mut fleet, NOW);
    end_all(&mut fleet, OutcomeKind::Committed);
    turn(&mut rollout, &mut fleet, NOW);

    let waiting = plan(&rollout, &fleet, NOW.plus(TAIL_MS - 1));
    let over = plan(&rollout, &fleet, NOW.plus(TAIL_MS));

    assert_eq!(waiting.stage, Stage::Completing { since: NOW });
    assert_eq!(over.stage, Stage::Succeeded);
    assert_eq!(over.why, "1 device serves it; 1 stayed offline");
}

#[test]
fn a_wave_without_anybody_to_judge_by_does_not_pass() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(10.0, 0), wave(100.0, 0)]), fleet(10));
    let canary = turn(&mut rollout, &mut fleet, NOW).tell[0].0.clone();
    fleet.get_mut(&canary).unwrap().online_since = None;

    let waiting = turn(&mut rollout, &mut fleet, NOW);

    assert_eq!(waiting.waves[0].standing, Standing::Open { since: NOW });
    assert_eq!(waiting.tell, []);
    assert_eq!(waiting.why, "wave 1: nothing to judge by yet, 1 offline");
}

#[test]
fn where_the_image_does_not_run_another_device_takes_the_place() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(10.0, 0), wave(100.0, 0)]), fleet(10));
    let first = turn(&mut rollout, &mut fleet, NOW).tell[0].0.clone();
    end(fleet.get_mut(&first).unwrap(), OutcomeKind::NotApplicable);

    let second = turn(&mut rollout, &mut fleet, NOW);

    assert_eq!(second.stage, Stage::Running);
    assert_eq!((second.tell.len(), second.tell[0].1), (1, 0));
    assert_ne!(second.tell[0].0, first);
}

#[test]
fn a_device_that_failed_the_image_before_is_not_offered_it() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(100.0, 0)]), fleet(2));
    let failure = Failure { code: "self-test.golden".to_owned(), reason: "7 is not 1".to_owned() };
    fleet.get_mut(&id(0)).unwrap().penalty = Some(failure);

    let plan = turn(&mut rollout, &mut fleet, NOW);

    assert_eq!(plan.tell, [(id(1), 0)]);
    assert_eq!(
        position(&plan, &id(0)).why.to_string(),
        "not offered: it ended badly with this image before (self-test.golden: 7 is not 1)"
    );
}

#[test]
fn a_newer_rollout_takes_devices_from_an_older_one() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(100.0, 0)]), fleet(2));
    turn(&mut rollout, &mut fleet, NOW);
    fleet.get_mut(&id(0)).unwrap().desired =
        Some(Desired { rollout: NEWER, turn: NEWER.0, image: OLD });

    let plan = plan(&rollout, &fleet, NOW);

    assert_eq!(position(&plan, &id(0)).progress, DeviceProgress::Superseded);
    assert_eq!(position(&plan, &id(0)).why, Why::TakenBy(NEWER));
}

#[test]
fn a_device_that_serves_the_image_already_is_left_alone() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(100.0, 0)]), fleet(1));
    let device = fleet.get_mut(&id(0)).unwrap();
    device.desired = Some(Desired { rollout: EARLIER, turn: EARLIER.0, image: NEW });
    device.slot = Some(slot(Generation(1), Phase::Watch, NEW, None));

    let plan = turn(&mut rollout, &mut fleet, NOW);

    assert_eq!(plan.tell, []);
    assert_eq!(plan.stage, Stage::Succeeded);
}

#[test]
fn a_device_on_its_way_to_another_image_is_told_although_it_serves_the_right_one() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(100.0, 0)]), fleet(1));
    let device = fleet.get_mut(&id(0)).unwrap();
    device.slot = Some(slot(Generation(1), Phase::Downloading, NEW, None));

    assert_eq!(turn(&mut rollout, &mut fleet, NOW).tell.len(), 1);
}

#[test]
fn going_back_reaches_offline_devices_at_once() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(100.0, 0)]), fleet(2));
    rollout.is_rollback = true;
    fleet.get_mut(&id(0)).unwrap().online_since = None;

    let told = turn(&mut rollout, &mut fleet, NOW);
    end(fleet.get_mut(&id(1)).unwrap(), OutcomeKind::Committed);
    let waiting = turn(&mut rollout, &mut fleet, NOW.plus(TAIL_MS - 1));

    assert_eq!(told.tell.len(), 2);
    assert_eq!(position(&waiting, &id(0)).why, Why::OfflineTold);
    assert_eq!(waiting.stage, Stage::Completing { since: NOW.plus(TAIL_MS - 1) });
}

#[test]
fn a_refused_directive_is_bad() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(100.0, 0)]), fleet(1));
    turn(&mut rollout, &mut fleet, NOW);
    let failure = Failure { code: "directive.window".to_owned(), reason: String::new() };
    fleet.get_mut(&id(0)).unwrap().refused = Some(Refused { generation: Generation(2), failure });

    let plan = plan(&rollout, &fleet, NOW);

    assert_eq!(position(&plan, &id(0)).progress, DeviceProgress::Rejected);
    assert_eq!(plan.stage, Stage::Halted);
}

#[test]
fn an_outcome_of_an_earlier_attempt_counts_for_nothing() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(100.0, 0)]), fleet(1));
    turn(&mut rollout, &mut fleet, NOW);
    end(fleet.get_mut(&id(0)).unwrap(), OutcomeKind::Failed);
    let device = fleet.get_mut(&id(0)).unwrap();
    device.told = device.told.map(|told| Told { generation: Generation(3), ..told });

    assert_eq!(position(&plan(&rollout, &fleet, NOW), &id(0)).progress, DeviceProgress::Offered);
}

#[test]
fn failed_requests_halt_where_a_gate_asks_for_it() {
    let mut strict = wave(100.0, 60);
    strict.plan.max_error_share = Some(0.05);
    let (mut rollout, mut fleet) = (rollout(vec![strict]), fleet(1));
    fleet.get_mut(&id(0)).unwrap().served = Served { requests: 1_000, errors: 900 };
    turn(&mut rollout, &mut fleet, NOW);
    end_all(&mut fleet, OutcomeKind::Committed);
    fleet.get_mut(&id(0)).unwrap().served = Served { requests: 1_090, errors: 910 };

    let halted = turn(&mut rollout, &mut fleet, NOW);

    assert_eq!(halted.stage, Stage::Halted);
    assert_eq!(halted.why, "wave 1: 10.0% of requests failed, at most 5.0% may");
}

fn act(rollout: &mut Rollout, fleet: &mut Fleet, action: Action) {
    let plan = plan(rollout, fleet, NOW);
    let effect = action::apply(action, rollout, NOW).unwrap();
    rollout.stage = effect.stage;
    for (wave, standing) in rollout.waves.iter_mut().zip(effect.waves) {
        wave.standing = standing;
    }
    for (id, device) in fleet.iter_mut() {
        let is_bad = judge::is_bad(plan.devices[id].progress);
        match effect.bad_devices {
            BadDevices::Excuse if is_bad => {
                device.told = device.told.map(|told| Told { is_excused: true, ..told });
            }
            BadDevices::OfferAgain if is_bad => (device.told, device.penalty) = (None, None),
            BadDevices::Excuse | BadDevices::OfferAgain | BadDevices::Count => (),
        }
    }
}

#[test]
fn after_resume_another_device_is_the_canary() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(5.0, 0), wave(100.0, 0)]), fleet(20));
    let first = turn(&mut rollout, &mut fleet, NOW).tell[0].0.clone();
    end_all(&mut fleet, OutcomeKind::Failed);
    turn(&mut rollout, &mut fleet, NOW);

    act(&mut rollout, &mut fleet, Action::Resume);
    let resumed = turn(&mut rollout, &mut fleet, NOW);

    assert_eq!(resumed.stage, Stage::Running);
    assert_eq!(resumed.tell.len(), 1);
    assert_ne!(resumed.tell[0].0, first);
}

#[test]
fn retry_offers_the_image_to_those_that_failed() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(5.0, 0), wave(100.0, 0)]), fleet(20));
    let first = turn(&mut rollout, &mut fleet, NOW).tell[0].0.clone();
    end_all(&mut fleet, OutcomeKind::Failed);
    turn(&mut rollout, &mut fleet, NOW);

    act(&mut rollout, &mut fleet, Action::Retry);

    assert_eq!(turn(&mut rollout, &mut fleet, NOW).tell, [(first, 0)]);
}

#[test]
fn promote_opens_the_next_wave_whatever_the_soak_says() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(5.0, 86_400), wave(100.0, 0)]), fleet(20));
    turn(&mut rollout, &mut fleet, NOW);
    end_all(&mut fleet, OutcomeKind::Failed);
    turn(&mut rollout, &mut fleet, NOW);

    act(&mut rollout, &mut fleet, Action::Promote);

    assert_eq!(turn(&mut rollout, &mut fleet, NOW).tell.len(), 19);
}

#[test]
fn abort_turns_devices_back_and_nothing_follows() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(5.0, 0), wave(100.0, 0)]), fleet(20));
    turn(&mut rollout, &mut fleet, NOW);

    let effect = action::apply(Action::Abort, &rollout, NOW).unwrap();
    act(&mut rollout, &mut fleet, Action::Abort);

    assert_eq!(effect.devices_at_work, AtWork::TurnBack);
    assert_eq!(turn(&mut rollout, &mut fleet, NOW).tell, []);
    for action in [Action::Pause, Action::Resume, Action::Promote, Action::Abort, Action::Retry] {
        assert!(action::apply(action, &rollout, NOW).is_err(), "{action:?}");
    }
    assert_eq!(action::refusal(Action::Rollback, Stage::Aborted), None);
}

#[test]
fn counts_and_shares_reach_their_number_of_devices() {
    for (percent, count, reached) in [
        (Some(0.0), None, 0),
        (Some(0.1), None, 1),
        (Some(50.0), None, 5),
        (Some(100.0), None, 10),
        (None, Some(3), 3),
        (None, Some(99), 10),
        (None, None, 10),
    ] {
        let mut only = wave(0.0, 0);
        (only.plan.percent, only.plan.count) = (percent, count);
        let plan = plan(&rollout(vec![only]), &fleet(10), NOW);
        assert_eq!(plan.tell.len(), reached, "{percent:?} {count:?}");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test of speed reads the clock")]
fn a_hundred_thousand_devices_are_planned_quickly() {
    let (mut rollout, mut fleet) =
        (rollout(vec![wave(1.0, 0), wave(10.0, 0), wave(100.0, 0)]), fleet(100_000));
    let begun = std::time::Instant::now();

    let plan = turn(&mut rollout, &mut fleet, NOW);

    let limit_ms = if cfg!(debug_assertions) { 10_000 } else { 500 };
    assert_eq!(plan.tell.len(), 1_000);
    assert!(begun.elapsed().as_millis() < limit_ms, "{:?}", begun.elapsed());
}

#[test]
fn a_rollout_that_no_device_may_be_offered_halts_and_says_so() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(100.0, 0)]), fleet(2));
    for device in fleet.values_mut() {
        device.penalty = Some(Failure { code: "golden.mismatch".to_owned(), ..Failure::default() });
    }

    let plan = turn(&mut rollout, &mut fleet, NOW);

    assert_eq!(plan.stage, Stage::Halted);
    let why = "no device serves it; 2 not offered it, having ended badly with it before";
    assert_eq!(plan.why, why);
}

#[test]
fn a_success_names_those_who_were_left_out() {
    let (mut rollout, mut fleet) = (rollout(vec![wave(100.0, 0)]), fleet(3));
    fleet.get_mut(&id(0)).unwrap().penalty = Some(Failure::default());
    turn(&mut rollout, &mut fleet, NOW);
    end_all(&mut fleet, OutcomeKind::Committed);

    let plan = turn(&mut rollout, &mut fleet, NOW);

    assert_eq!(plan.stage, Stage::Succeeded);
    let why = "2 devices serve it; 1 not offered it, having ended badly with it before";
    assert_eq!(plan.why, why);
}
