//! A device's life, told step by step.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use sealift_protocol::cose::KeyId;
use sealift_protocol::digest::Digest;
use sealift_protocol::directive::{Audience, DesiredSlot, Directive, Trial, VerifiedDirective};
use sealift_protocol::id::{
    DeviceId, Epoch, Generation, ModelName, RolloutId, TenantId, UnixMillis, Version,
};
use sealift_protocol::report::{OutcomeKind, Phase as Public, SlotReport};

use super::*;

mod behaviour;
mod ends;
mod halt;
mod lease;
mod owner;
mod revocation;
mod room;
mod shadow;
mod window;

pub(super) const PROBATION_S: u32 = 60;
pub(super) const WATCH_S: u32 = 600;

pub(super) fn model() -> ModelName {
    ModelName::parse("vision/digits").unwrap()
}

pub(super) fn image(version: u8) -> ImageRef {
    let index = Digest::of(&[version]);
    ImageRef { version: Version::parse(&version.to_string()).unwrap(), index }
}

pub(super) fn slot(model: &ModelName, version: u8) -> DesiredSlot {
    let ImageRef { version, index } = image(version);
    let trial = Trial { probation_s: PROBATION_S, watch_s: WATCH_S, ..Trial::default() };
    let rollout = Some(RolloutId(1));
    let slot = DesiredSlot::new(model.clone(), version, index);
    DesiredSlot { epoch: Epoch(1), trial, rollout, ..slot }
}

/// A directive that has passed its checks, made as the server makes it.
pub(super) fn directive(generation: u64, slots: Vec<DesiredSlot>) -> Event {
    Event::Directive(verified(generation, slots))
}

fn verified(generation: u64, slots: Vec<DesiredSlot>) -> VerifiedDirective {
    let key = SigningKey::from_bytes(&[7; 32]);
    let (tenant, device) = (TenantId::parse("main").unwrap(), DeviceId::parse("cam-1").unwrap());
    let window = (UnixMillis(0), UnixMillis(1_000));
    let whom = (tenant.clone(), device.clone());
    let message = Directive::new(whom, Generation(generation), window, slots).sign(&key).unwrap();
    let public = key.verifying_key();
    let directors = BTreeMap::from([(KeyId::of(&public), public)]);
    let (newest, now) = (Generation(0), UnixMillis(0));
    let audience = Audience { tenant: &tenant, device: &device, newest, now };
    Directive::verify(&message, &directors, &audience).unwrap()
}

/// A device and whatever carries out its effects, as obediently as the story wants.
pub(super) struct World {
    pub(super) device: Device,
    pub(super) now: UnixMillis,
    pub(super) journal: Vec<Entry>,
    /// The newest task of each model.
    pub(super) tasks: BTreeMap<ModelName, (Ticket, Task)>,
    pub(super) alarms: Vec<String>,
    pub(super) serves: Vec<(ModelName, ImageRef)>,
    /// What was reported last.
    pub(super) reported: Vec<SlotReport>,
    /// What the publisher has signed for a version.
    pub(super) epoch_of: fn(&DesiredSlot) -> Epoch,
    /// What the shell says of the clocks.
    pub(super) local: Local,
    /// How many more effects are carried out before the power goes.
    pub(super) power: Option<usize>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            device: Device::default(),
            now: UnixMillis(1_000_000),
            journal: Vec::new(),
            tasks: BTreeMap::new(),
            alarms: Vec::new(),
            serves: Vec::new(),
            reported: Vec::new(),
            epoch_of: |_| Epoch(1),
            local: Local::default(),
            power: None,
        }
    }

    pub(super) fn feed(&mut self, event: Event) {
        for effect in self.device.on(event, self.now) {
            if self.power == Some(0) {
                self.power = None;
                return self.restart();
            }
            self.power = self.power.map(|effects| effects - 1);
            match effect {
                Effect::Record(entry) => self.journal.push(entry),
                Effect::Cancel { model } => drop(self.tasks.remove(&model)),
                Effect::Start { model, ticket, task } => {
                    self.tasks.insert(model, (ticket, task));
                }
                Effect::Alarm { fault, .. } => self.alarms.push(fault.code),
                Effect::Serve { model, image, .. } => self.serves.push((model, image)),
                Effect::Report => self.reported = self.device.report(self.now).slots,
            }
        }
    }

    /// Answers the model's newest task. What is beside the live image goes on.
    pub(super) fn answer(&mut self, model: &ModelName, answer: Answer) {
        let Some((ticket, _)) = self.tasks.get(model).cloned() else { return };
        let goes_on = matches!(answer, Answer::Progress(_) | Answer::Compared(_));
        if !goes_on {
            self.tasks.remove(model);
        }
        self.feed(Event::Answer { model: model.clone(), ticket, answer });
    }

    /// Carries out the newest task as a device does on which nothing fails; false if there is none.
    pub(super) fn obey(&mut self, model: &ModelName) -> bool {
        let Some((_, task)) = self.tasks.get(model) else { return false };
        let providers = Vec::new();
        let answer = match task {
            Task::Check { desired, floor } => self.check(desired, *floor),
            Task::Download { .. } => Answer::Downloaded,
            Task::Verify { .. } => Answer::Verified,
            Task::Warm { .. } => Answer::Warmed,
            Task::Shadow { .. } => Answer::Compared(compared(1_000_000, 1_000_000)),
            Task::Activate { .. } => Answer::Activated { providers },
            Task::Revert { .. } => Answer::Reverted { providers },
            Task::Retire => Answer::Retired,
        };
        if matches!(answer, Answer::Compared(_)) {
            // Where nothing follows from so much, nothing will before its end.
            let shadow = self.tasks.remove(model);
            let ticket = shadow.map(|(ticket, _)| ticket).unwrap();
            self.feed(Event::Answer { model: model.clone(), ticket, answer });
        } else {
            self.answer(model, answer);
        }
        true
    }

    fn check(&self, desired: &DesiredSlot, floor: Epoch) -> Answer {
        let epoch = (self.epoch_of)(desired);
        if epoch < floor {
            return fault(FaultKind::Untrusted, "image.epoch");
        }
        Answer::Checked { epoch, total_bytes: 10 }
    }

    pub(super) fn obey_all(&mut self) {
        while let Some(model) = self.tasks.keys().next().cloned() {
            self.obey(&model);
        }
        let served = std::mem::take(&mut self.serves);
        for (model, image) in served {
            self.feed(Event::Served { model, image: image.index, providers: Vec::new() });
        }
    }

    pub(super) fn wait(&mut self, millis: i64) {
        self.now = self.now.plus(millis);
        self.feed(Event::Tick);
    }

    /// Kills the agent and starts it again from its journal.
    pub(super) fn restart(&mut self) {
        self.device = Device::restore(self.journal.clone());
        self.tasks.clear();
        self.serves.clear();
        self.set_clock(self.local.clone());
        self.feed(Event::Started);
    }

    /// The clocks show something else from now on.
    pub(super) fn set_clock(&mut self, local: Local) {
        self.local = local.clone();
        self.feed(Event::Clock(local));
    }

    /// The same on a device that has kept a list of halted rollouts.
    fn restart_with(&mut self, list: Event) {
        self.device = Device::restore(self.journal.clone());
        self.tasks.clear();
        self.serves.clear();
        self.feed(list);
        self.feed(Event::Started);
    }

    fn slot(&self) -> SlotReport {
        let report = self.device.report(self.now);
        report.slots.into_iter().find(|slot| slot.model == model()).unwrap()
    }

    fn outcome(&self) -> (OutcomeKind, String) {
        let outcome = self.slot().outcome.unwrap();
        (outcome.result, outcome.code)
    }

    /// A device that serves version 1 and has kept it.
    fn serving_1() -> Self {
        let mut world = Self::new();
        world.feed(directive(1, vec![slot(&model(), 1)]));
        world.obey_all();
        world.wait(i64::from(PROBATION_S) * 1_000);
        world.wait(i64::from(WATCH_S) * 1_000);
        assert_eq!(world.slot().phase, Public::Idle);
        world
    }

    /// … and has version 2 on probation.
    fn trying_2() -> Self {
        let mut world = Self::serving_1();
        world.feed(directive(2, vec![slot(&model(), 2)]));
        world.obey_all();
        assert_eq!(world.slot().phase, Public::Probation);
        world
    }

    fn crash(&mut self, version: u8) {
        let (image, reason) = (image(version).index, "signal 11".to_owned());
        self.feed(Event::Crashed { model: model(), image, reason });
    }
}

/// So many rows were compared, and on so many both agree.
pub(super) fn compared(rows: u64, agreed: u64) -> ShadowCounts {
    ShadowCounts { rows, agreed, requests: rows, ..ShadowCounts::default() }
}

fn unreachable() -> Answer {
    let kind = FaultKind::Unreachable { spread_permille: 1_000 };
    Answer::Failed(Fault::new(kind, "x", "no route"))
}

fn fault(kind: FaultKind, code: &str) -> Answer {
    Answer::Failed(Fault::new(kind, code, "a reason"))
}

#[test]
fn a_new_image_is_checked_fetched_verified_warmed_and_tried_before_it_is_kept() {
    let mut world = World::serving_1();
    world.feed(directive(2, vec![slot(&model(), 2)]));
    let phases: Vec<_> = std::iter::from_fn(|| {
        let phase = world.slot().phase;
        assert_eq!(world.slot().serving == Some(image(2)), phase == Public::Probation);
        world.obey(&model()).then_some(phase)
    })
    .collect();
    assert_eq!(
        phases,
        [
            Public::Checking,
            Public::Downloading,
            Public::Verifying,
            Public::Warming,
            Public::Activating
        ]
    );
    assert_eq!(world.slot().previous, Some(image(1)));
    assert_eq!(world.outcome().0, OutcomeKind::Committed, "still that of version 1");
    assert_eq!(world.slot().outcome.unwrap().generation, Generation(1));

    world.wait(i64::from(PROBATION_S) * 1_000);

    assert_eq!((world.slot().phase, world.slot().serving), (Public::Watch, Some(image(2))));
    assert_eq!(world.slot().outcome.unwrap().generation, Generation(2));
    world.wait(i64::from(WATCH_S) * 1_000);
    assert_eq!((world.slot().phase, world.slot().previous), (Public::Idle, Some(image(1))));
}

#[test]
fn a_redelivered_or_older_directive_changes_nothing() {
    let mut world = World::trying_2();
    let before = world.device.clone();
    world.feed(directive(2, vec![slot(&model(), 3)]));
    world.feed(directive(1, vec![slot(&model(), 1)]));
    assert_eq!(world.device, before);
}

#[test]
fn an_error_before_the_swap_leaves_the_live_image_and_is_final() {
    for (kind, result) in [
        (FaultKind::Untrusted, OutcomeKind::Rejected),
        (FaultKind::NotApplicable, OutcomeKind::NotApplicable),
        (FaultKind::Failed, OutcomeKind::Failed),
    ] {
        for steps in 0..4 {
            let mut world = World::serving_1();
            world.feed(directive(2, vec![slot(&model(), 2)]));
            (0..steps).for_each(|_| assert!(world.obey(&model())));

            world.answer(&model(), fault(kind, "image.bad"));

            assert_eq!(world.outcome(), (result, "image.bad".to_owned()));
            assert_eq!((world.slot().phase, world.slot().serving), (Public::Idle, Some(image(1))));
            world.wait(86_400_000);
            assert!(world.tasks.is_empty(), "not retried until the generation changes");
            world.feed(directive(3, vec![slot(&model(), 2)]));
            assert_eq!(world.slot().phase, Public::Checking);
        }
    }
}

#[test]
fn a_server_out_of_reach_is_tried_again_for_ever() {
    let mut world = World::serving_1();
    world.feed(directive(2, vec![slot(&model(), 2)]));
    let mut pauses = Vec::new();
    for _ in 0..20 {
        world.answer(&model(), unreachable());
        assert_eq!((world.slot().phase, world.slot().serving), (Public::Waiting, Some(image(1))));
        let begin = world.now;
        while world.slot().phase == Public::Waiting {
            world.wait(1_000);
        }
        pauses.push(world.now.since(begin));
    }
    assert_eq!(pauses[..3], [2_000, 4_000, 8_000]);
    assert_eq!(pauses[19], 900_000);
    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(2)));
}

#[test]
fn bytes_that_are_not_those_that_were_signed_are_fetched_three_times() {
    let mut world = World::serving_1();
    world.feed(directive(2, vec![slot(&model(), 2)]));
    for _ in 0..3 {
        while world.slot().phase != Public::Downloading {
            world.obey(&model());
            world.wait(1_000);
        }
        world.answer(&model(), fault(FaultKind::Corrupt, "image.digest"));
    }
    assert_eq!(world.outcome(), (OutcomeKind::Failed, "image.digest".to_owned()));
    assert_eq!(world.alarms, ["image.digest"; 3]);
    assert_eq!(world.slot().serving, Some(image(1)));
}

#[test]
fn two_crashes_on_trial_turn_back_to_the_previous_image() {
    let mut world = World::trying_2();
    world.crash(2);
    assert_eq!(world.slot().phase, Public::Probation);
    assert_eq!(world.serves.last(), Some(&(model(), image(2))));

    world.crash(2);

    assert_eq!(world.slot().phase, Public::Reverting);
    world.obey_all();
    assert_eq!(world.outcome(), (OutcomeKind::RolledBack, "worker.crashed".to_owned()));
    assert_eq!((world.slot().phase, world.slot().serving), (Public::Idle, Some(image(1))));
}

#[test]
fn failed_requests_turn_back_once_there_are_enough_to_judge_by() {
    let counted = |requests, errors| Event::Counted {
        model: model(),
        image: image(2).index,
        requests,
        errors,
    };
    let mut world = World::trying_2();
    world.wait(i64::from(PROBATION_S) * 1_000);
    world.feed(counted(19, 19));
    world.feed(counted(100, 20));
    assert_eq!(world.slot().phase, Public::Watch, "too few, or not more than allowed");

    world.feed(counted(100, 21));

    world.obey_all();
    assert_eq!(world.outcome(), (OutcomeKind::RolledBack, "trial.errors".to_owned()));
    assert_eq!(world.slot().serving, Some(image(1)));
}

#[test]
fn too_many_starts_on_probation_turn_back() {
    let mut world = World::trying_2();
    for _ in 0..3 {
        world.restart();
        assert_eq!((world.slot().phase, world.slot().serving), (Public::Probation, Some(image(2))));
    }
    world.restart();
    world.obey_all();
    assert_eq!(world.outcome(), (OutcomeKind::RolledBack, "trial.boots".to_owned()));
    assert_eq!(world.slot().serving, Some(image(1)));
}

#[test]
fn an_image_that_stops_the_agent_while_it_loads_is_given_up() {
    let mut world = World::serving_1();
    world.feed(directive(2, vec![slot(&model(), 2)]));
    for _ in 0..4 {
        while world.slot().phase != Public::Warming {
            assert!(world.obey(&model()));
        }
        world.restart();
    }
    assert_eq!(world.outcome(), (OutcomeKind::Failed, "warming.boots".to_owned()));
    assert_eq!(world.slot().serving, Some(image(1)));
}

#[test]
fn a_newer_directive_takes_over_and_says_so() {
    let mut world = World::trying_2();
    world.feed(directive(3, vec![slot(&model(), 3)]));
    assert_eq!(world.outcome().0, OutcomeKind::Superseded);
    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(3)));
    assert_eq!(world.slot().previous, Some(image(1)), "the one that has proved itself");
}

#[test]
fn going_back_to_the_previous_version_is_an_ordinary_directive() {
    let mut world = World::trying_2();
    world.feed(directive(3, vec![slot(&model(), 1)]));
    world.obey_all();
    world.wait(i64::from(PROBATION_S) * 1_000);
    assert_eq!(world.outcome().0, OutcomeKind::Committed);
    assert_eq!((world.slot().serving, world.slot().previous), (Some(image(1)), Some(image(2))));
}

#[test]
fn the_same_image_under_a_newer_generation_loses_no_work() {
    let mut world = World::serving_1();
    world.feed(directive(2, vec![slot(&model(), 2)]));
    world.obey(&model());
    let task = world.tasks.clone();
    world.feed(directive(3, vec![slot(&model(), 2)]));
    assert_eq!((world.slot().phase, &world.tasks), (Public::Downloading, &task));
    world.obey_all();
    world.wait(i64::from(PROBATION_S) * 1_000);
    assert_eq!(world.slot().outcome.unwrap().generation, Generation(3));
}

#[test]
fn a_directive_that_comes_during_the_swap_waits_for_its_end() {
    let mut world = World::serving_1();
    world.feed(directive(2, vec![slot(&model(), 2)]));
    while world.slot().phase != Public::Activating {
        world.obey(&model());
    }
    world.feed(directive(3, vec![slot(&model(), 3)]));
    assert_eq!(world.slot().phase, Public::Activating);
    world.obey(&model());
    assert_eq!((world.slot().phase, world.slot().next), (Public::Checking, Some(image(3))));
}

#[test]
fn a_model_that_is_no_longer_named_is_removed() {
    let mut world = World::serving_1();
    world.feed(directive(2, Vec::new()));
    assert!(matches!(world.tasks.values().next(), Some((_, Task::Retire))));
    world.obey_all();
    assert_eq!(world.device.report(world.now).slots, []);
    assert!(world.device.images().is_empty());
    world.restart();
    assert_eq!(world.device.report(world.now).slots, []);
}

#[test]
fn a_live_image_that_does_not_start_gives_way_to_the_previous_one() {
    let mut world = World::trying_2();
    world.wait(i64::from(PROBATION_S) * 1_000);
    world.wait(i64::from(WATCH_S) * 1_000);
    world.restart();
    for _ in 0..3 {
        let (image, reason) = (image(2).index, "damaged".to_owned());
        world.feed(Event::NotServed { model: model(), image, reason });
    }
    world.obey_all();
    assert_eq!((world.slot().phase, world.slot().serving), (Public::Idle, Some(image(1))));
}

#[test]
fn safe_mode_is_left_when_the_image_starts_or_another_comes() {
    let safe = || {
        let mut world = World::serving_1();
        for _ in 0..3 {
            let (image, reason) = (image(1).index, "damaged".to_owned());
            world.feed(Event::NotServed { model: model(), image, reason });
        }
        assert_eq!((world.slot().phase, world.slot().serving), (Public::SafeMode, None));
        world.serves.clear();
        world
    };
    let mut world = safe();
    world.wait(900_000);
    assert_eq!(world.serves, [(model(), image(1))]);
    world.obey_all();
    assert_eq!((world.slot().phase, world.slot().serving), (Public::Idle, Some(image(1))));

    let mut world = safe();
    world.feed(directive(2, vec![slot(&model(), 2)]));
    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(2)));
}

#[test]
fn an_answer_of_a_task_that_was_given_up_comes_too_late() {
    let mut world = World::serving_1();
    world.feed(directive(2, vec![slot(&model(), 2)]));
    let (old, _) = world.tasks[&model()];
    world.feed(directive(3, vec![slot(&model(), 3)]));
    let before = world.device.clone();
    let answer = Answer::Checked { epoch: Epoch(9), total_bytes: 1 };
    world.feed(Event::Answer { model: model(), ticket: old, answer });
    assert_eq!(world.device, before);
}

#[test]
fn the_epoch_floor_rises_only_with_an_image_that_is_kept() {
    let mut world = World::serving_1();
    let floor = |world: &mut World, generation, version| {
        world.feed(directive(generation, vec![slot(&model(), version)]));
        let Some((_, Task::Check { floor, .. })) = world.tasks.get(&model()) else { panic!() };
        *floor
    };
    assert_eq!(floor(&mut world, 2, 2), Epoch(1));
    world.answer(&model(), Answer::Checked { epoch: Epoch(5), total_bytes: 1 });
    world.obey_all();
    assert_eq!(floor(&mut world, 3, 3), Epoch(1), "version 2 is still on trial");
    world.answer(&model(), Answer::Checked { epoch: Epoch(6), total_bytes: 1 });
    world.obey_all();
    world.wait(i64::from(PROBATION_S) * 1_000);
    world.restart();
    assert_eq!(floor(&mut world, 4, 4), Epoch(6));
}

#[test]
fn an_image_below_the_floor_is_not_gone_back_to_once_a_newer_one_was_kept() {
    let epochs = |desired: &DesiredSlot| Epoch(if desired.index == image(2).index { 5 } else { 1 });
    let mut world = World::trying_2();
    assert_eq!(world.slot().previous, Some(image(1)));
    world.epoch_of = epochs;
    // Its epoch was found to be 1 as well: begin again with what the publisher signed.
    world.feed(directive(3, vec![slot(&model(), 1)]));
    world.obey_all();
    world.feed(directive(4, vec![slot(&model(), 2)]));
    world.obey_all();

    (0..2).for_each(|_| world.crash(2));
    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(1)), "nothing was kept: going back is possible");

    world.feed(directive(5, vec![slot(&model(), 2)]));
    world.obey_all();
    world.wait(i64::from(PROBATION_S) * 1_000);
    assert_eq!((world.slot().phase, world.slot().previous), (Public::Watch, None));
    world.restart();
    (0..2).for_each(|_| world.crash(2));
    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(2)), "a crash does not bring the hole back");
}

#[test]
fn a_lost_journal_is_made_up_for_by_the_pointers() {
    let mut world = World::new();
    world.device.adopt(model(), image(1), Some(image(2)));
    world.feed(Event::Started);
    assert_eq!(world.serves, [(model(), image(1))]);
    assert_eq!(world.device.images().len(), 2);
    world.feed(directive(9, vec![slot(&model(), 1)]));
    assert_eq!(world.outcome().0, OutcomeKind::Committed);
}
