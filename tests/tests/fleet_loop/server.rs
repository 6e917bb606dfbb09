//! The server's memory, and its loop: the real planner over what devices have said.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use sealift_fleet_server::rollout::action::{self, AtWork, BadDevices};
use sealift_fleet_server::rollout::{
    self, Desired, DeviceView, Failure, Fleet, Outcome, Plan, Refused, Rollout, Served, Slot,
    Stage, Standing, Told, Wave, WayBack,
};
use sealift_protocol::api::{Action, DeviceProgress, WavePlan};
use sealift_protocol::digest::Digest;
use sealift_protocol::directive::{Behaviour, DesiredSlot, Directive, Shadow, Trial};
use sealift_protocol::id::{
    DeviceId, Epoch, Generation, ModelName, RolloutId, TenantId, UnixMillis, Version,
};
use sealift_protocol::report::{Halted as HaltedAt, Hold, OutcomeKind, Report};

use super::recall::{Halted, campaign};

/// Longer than any story.
const DIRECTIVE_VALID_MS: i64 = 30 * 24 * 3_600 * 1_000;

/// How devices try what they are told.
pub(crate) const TRIAL: Trial = Trial {
    probation_s: 60,
    watch_s: 1_800,
    crashes_max: 2,
    errors_max_permille: 200,
    requests_min: 20,
    lease_s: 0,
    window: None,
    behaviour: Behaviour::OFF,
    shadow: Shadow::OFF,
};

/// Everything that survives the server's crash, since it is committed before it is acknowledged; and what a backup has.
#[derive(Clone)]
pub(crate) struct Server {
    pub(super) key: SigningKey,
    pub(super) tenant: TenantId,
    model: ModelName,
    pub(crate) rollouts: Vec<Ordered>,
    pub(crate) devices: BTreeMap<DeviceId, Known>,
    pub(super) quarantined: BTreeSet<Digest>,
    /// The deny list of images.
    pub(crate) denied: BTreeSet<Digest>,
    pub(crate) halted: Halted,
    /// How many rollouts were numbered.
    pub(super) rollout_numbers: u64,
}

/// A rollout and what it brings.
#[derive(Clone)]
pub(crate) struct Ordered {
    pub(crate) rollout: Rollout,
    trial: Trial,
    why: String,
}

/// What the server knows of a device.
#[derive(Clone, Default)]
pub(crate) struct Known {
    /// The connection that counts: older ones are ignored.
    epoch: u64,
    pub(super) online_since: Option<UnixMillis>,
    /// The newest report that was taken.
    sequence: u64,
    /// Counts its directives; jumps when the server has lost count.
    pub(crate) generation: Generation,
    /// That of its newest directive.
    pub(crate) signed: Generation,
    pub(crate) is_revoked: bool,
    /// The server was recovered, and has not heard from it since.
    pub(super) awaited_since: Option<UnixMillis>,
    /// When it was last told something.
    told_at: UnixMillis,
    pub(crate) desired: Option<Desired>,
    pub(crate) directive: Option<Vec<u8>>,
    /// What it was told before, newest last.
    history: Vec<(RolloutId, Digest)>,
    pub(crate) accepted: Generation,
    refused: Option<Refused>,
    pub(crate) slot: Option<Slot>,
    /// The trial that it wants countersigned.
    lease: Option<Generation>,
    /// What its owner has said.
    held: Option<Hold>,
    /// That it waits because everything is stopped, and the newest list of that kind that it obeys.
    halt: Option<HaltedAt>,
    pub(super) obeys: u64,
    told: BTreeMap<RolloutId, Told>,
    penalties: BTreeMap<Digest, Failure>,
    /// Every end that was reported, by the directive that asked for it.
    pub(crate) ends: BTreeMap<Generation, Outcome>,
}

pub(crate) fn image(version: u8) -> Digest {
    Digest::of(&[version])
}

impl Server {
    pub(crate) fn new(tenant: &TenantId, model: &ModelName, ids: &[DeviceId]) -> Self {
        let devices = ids.iter().map(|id| (id.clone(), Known::default())).collect();
        Self {
            key: SigningKey::from_bytes(&[7; 32]),
            tenant: tenant.clone(),
            model: model.clone(),
            rollouts: Vec::new(),
            devices,
            quarantined: BTreeSet::new(),
            denied: BTreeSet::new(),
            halted: Halted::default(),
            rollout_numbers: 0,
        }
    }

    pub(crate) fn director(&self) -> ed25519_dalek::VerifyingKey {
        self.key.verifying_key()
    }

    /// A device has connected, or its will was published.
    pub(crate) fn on_connection(
        &mut self,
        id: &DeviceId,
        epoch: u64,
        is_online: bool,
        now: UnixMillis,
    ) {
        let known = self.devices.get_mut(id).unwrap();
        if known.is_revoked {
            return;
        }
        if epoch < known.epoch || (epoch == known.epoch && is_online) {
            return; // of an older connection, or a second time
        }
        known.epoch = epoch;
        known.online_since = is_online.then_some(now);
    }

    /// Takes a report, unless a newer one was taken.
    pub(crate) fn on_report(
        &mut self,
        id: &DeviceId,
        sequence: u64,
        report: &Report,
        now: UnixMillis,
    ) {
        let known = self.devices.get_mut(id).unwrap();
        if known.is_revoked || sequence <= known.sequence {
            return;
        }
        known.sequence = sequence;
        known.accepted = known.accepted.max(report.generation);
        known.refused = report.refused.as_ref().map(|refusal| Refused {
            generation: refusal.generation.unwrap_or_default(),
            failure: failure(&refusal.code, &refusal.reason),
        });
        let slot = report.slots.iter().find(|slot| slot.model == self.model);
        known.held = slot.and_then(|slot| slot.held.clone());
        known.halt = slot.and_then(|slot| slot.halted.clone());
        known.obeys = report.trusted.as_ref().map_or(0, |trusted| trusted.halt);
        known.lease = slot.filter(|slot| slot.lease_until.is_some()).map(|slot| slot.generation);
        known.slot = slot.map(|slot| Slot {
            generation: slot.generation,
            phase: slot.phase,
            serving: slot.serving.as_ref().map(|image| image.index),
            outcome: slot.outcome.as_ref().map(|outcome| Outcome {
                generation: outcome.generation,
                image: outcome.image.index,
                kind: outcome.result,
                failure: failure(&outcome.code, &outcome.reason),
            }),
            shadow: slot.shadow.clone(),
            reported_at: now,
        });
        if !known.has_returned() {
            known.awaited_since = None;
        }
        let Some(outcome) = known.slot.as_ref().and_then(|slot| slot.outcome.clone()) else {
            return;
        };
        if outcome.kind.is_bad() && !known.ends.contains_key(&outcome.generation) {
            known.penalties.insert(outcome.image, outcome.failure.clone());
        }
        if outcome.kind == OutcomeKind::Committed {
            known.penalties.remove(&outcome.image);
        }
        known.ends.insert(outcome.generation, outcome);
    }

    /// Orders a version for everybody, if it may be rolled out; what is under way is superseded.
    pub(crate) fn order(&mut self, version: u8, waves: &[(f64, u32)], trial: Trial) {
        if !self.quarantined.contains(&image(version)) {
            self.write(version, waves, trial, false);
        }
    }

    fn write(
        &mut self,
        version: u8,
        waves: &[(f64, u32)],
        trial: Trial,
        is_rollback: bool,
    ) -> RolloutId {
        self.rollout_numbers += 1;
        let id = RolloutId(self.rollout_numbers);
        for earlier in &mut self.rollouts {
            let stage = earlier.rollout.stage;
            if !stage.is_over() && stage != Stage::Reverting {
                earlier.rollout.stage = Stage::Superseded;
            }
        }
        let rollout = Rollout {
            id,
            image: image(version),
            waves: waves.iter().map(|&wave| pending(wave, is_rollback)).collect(),
            stage: Stage::Running,
            probation_ms: i64::from(trial.probation_s) * 1_000,
            shadow_ms: i64::from(trial.shadow.span_s) * 1_000,
            silent_after_ms: 120_000,
            is_rollback,
            held_from: None,
            start_at: None,
            turn: id.0,
            budget: None,
            tail_ms: 604_800_000,
            reverted_by: Vec::new(),
        };
        self.rollouts.push(Ordered { rollout, trial, why: String::new() });
        id
    }

    /// Puts `bad` in quarantine, and goes back to `version`, if that may be rolled out. What brought it is taken back.
    pub(crate) fn roll_back(&mut self, bad: u8, version: u8, trial: Trial) {
        if self.quarantined.contains(&image(version)) {
            return;
        }
        self.quarantined.insert(image(bad));
        for known in self.devices.values_mut() {
            known.penalties.remove(&image(version));
        }
        let taken: BTreeSet<_> =
            self.devices.values().filter_map(|known| known.follows(bad)).collect();
        let way = self.write(version, &[(100.0, 0)], trial, true);
        for ordered in self.rollouts.iter_mut().filter(|it| taken.contains(&it.rollout.id)) {
            ordered.rollout.stage = Stage::Reverting;
            ordered.rollout.reverted_by.push(WayBack { id: way, stage: Stage::Running });
        }
    }

    /// What an operator does with the newest rollout, if it can be done now.
    pub(crate) fn act(&mut self, action: Action, now: UnixMillis) {
        let Some(index) = self.rollouts.len().checked_sub(1) else { return };
        let fleet = self.fleet(index);
        let rollout = &mut self.rollouts[index].rollout;
        let goes_on = matches!(action, Action::Resume | Action::Promote | Action::Retry);
        if goes_on && self.quarantined.contains(&rollout.image) {
            return;
        }
        let plan = rollout::plan(rollout, &fleet, now);
        let Ok(effect) = action::apply(action, rollout, now) else { return };
        rollout.stage = effect.stage;
        for (wave, standing) in rollout.waves.iter_mut().zip(effect.waves) {
            wave.standing = standing;
        }
        let (id, image) = (rollout.id, rollout.image);
        for (device, known) in &mut self.devices {
            use DeviceProgress as P;
            // A rollback is not about everybody.
            let Some(at) = plan.devices.get(device).map(|position| position.progress) else {
                continue;
            };
            let is_bad = matches!(at, P::Failed | P::Rejected | P::RolledBack | P::Silent);
            match effect.bad_devices {
                BadDevices::Excuse if is_bad => {
                    if let Some(told) = known.told.get_mut(&id) {
                        told.is_excused = true;
                    }
                }
                BadDevices::OfferAgain if is_bad => {
                    known.told.remove(&id);
                    known.penalties.remove(&image);
                }
                BadDevices::Excuse | BadDevices::OfferAgain | BadDevices::Count => {}
            }
        }
        if effect.devices_at_work == AtWork::TurnBack {
            use DeviceProgress as P;
            for (device, position) in &plan.devices {
                if matches!(position.progress, P::Offered | P::InProgress | P::Probation) {
                    self.turn_back(device, now);
                }
            }
        }
    }

    fn turn_back(&mut self, device: &DeviceId, now: UnixMillis) {
        let known = self.devices.get_mut(device).unwrap();
        known.history.pop();
        if let Some((rollout, image)) = known.history.pop() {
            self.tell(device, rollout, image, now);
        }
    }

    /// One turn of the loop. Returns whom a new directive is for.
    pub(crate) fn turn(&mut self, now: UnixMillis) -> Vec<DeviceId> {
        let mut told = Vec::new();
        for index in 0..self.rollouts.len() {
            if self.rollouts[index].rollout.stage.is_over() {
                continue;
            }
            let plan = self.plan(index, now);
            told.extend(plan.tell.iter().map(|(device, _)| device.clone()));
            told.extend(plan.countersign.iter().cloned());
            self.carry_out(index, plan, now);
        }
        told
    }

    /// While all rollouts are stopped, what would go on is planned as if it were paused.
    fn plan(&mut self, index: usize, now: UnixMillis) -> Plan {
        let ways: BTreeMap<_, _> =
            self.rollouts.iter().map(|it| (it.rollout.id, it.rollout.stage)).collect();
        for way in &mut self.rollouts[index].rollout.reverted_by {
            way.stage = ways.get(&way.id).copied().unwrap_or(way.stage);
        }
        let (rollout, fleet) = (&self.rollouts[index].rollout, self.fleet(index));
        if !self.halted.stops(rollout) {
            return rollout::plan(rollout, &fleet, now);
        }
        let paused = Rollout { stage: Stage::Paused, ..rollout.clone() };
        Plan { stage: rollout.stage, ..rollout::plan(&paused, &fleet, now) }
    }

    fn carry_out(&mut self, index: usize, plan: Plan, now: UnixMillis) {
        let ordered = &mut self.rollouts[index];
        ordered.rollout.stage = plan.stage;
        ordered.why = plan.why;
        for (wave, reading) in ordered.rollout.waves.iter_mut().zip(&plan.waves) {
            wave.standing = reading.standing;
        }
        let (id, image) = (ordered.rollout.id, ordered.rollout.image);
        for device in plan.countersign {
            self.sign_for(&device, (id, image), now);
        }
        for (device, wave) in plan.tell {
            let generation = self.tell(&device, id, image, now);
            let told =
                Told { wave, generation, at: now, served: Served::default(), is_excused: false };
            self.devices.get_mut(&device).unwrap().told.insert(id, told);
        }
    }

    pub(super) fn tell(
        &mut self,
        device: &DeviceId,
        rollout: RolloutId,
        image: Digest,
        now: UnixMillis,
    ) -> Generation {
        let known = self.devices.get_mut(device).unwrap();
        known.history.push((rollout, image));
        known.lease = None;
        self.sign_for(device, (rollout, image), now)
    }

    /// Signs the device's next directive; with it, that its trial was seen, if it was.
    fn sign_for(
        &mut self,
        device: &DeviceId,
        (rollout, image): (RolloutId, Digest),
        now: UnixMillis,
    ) -> Generation {
        let confirmed = self.devices.get_mut(device).unwrap().lease.take();
        // What is adopted after a restore is of no rollout; nor is what a lost one has told.
        let by = self.rollouts.iter().find(|ordered| ordered.rollout.id == rollout);
        let number = (1..=u8::MAX).find(|&version| self::image(version) == image).unwrap();
        let version = Version::parse(&number.to_string()).unwrap();
        let slot = DesiredSlot {
            epoch: Epoch(1),
            trial: by.map_or(TRIAL, |by| by.trial),
            rollout: by.map(|_| rollout),
            campaign: by.map(|_| campaign(rollout)),
            confirmed,
            ..DesiredSlot::new(self.model.clone(), version, image)
        };
        let known = self.devices.get_mut(device).unwrap();
        known.desired = Some(Desired { rollout, turn: rollout.0, image });
        known.history.push((rollout, image));
        self.sign(device, vec![slot], now)
    }

    /// It should run nothing.
    pub(super) fn tell_nothing(&mut self, device: &DeviceId, now: UnixMillis) {
        self.devices.get_mut(device).unwrap().desired = None;
        self.sign(device, Vec::new(), now);
    }

    fn sign(&mut self, device: &DeviceId, slots: Vec<DesiredSlot>, now: UnixMillis) -> Generation {
        let known = self.devices.get_mut(device).unwrap();
        known.generation = known.generation.next();
        (known.signed, known.told_at) = (known.generation, now);
        let (whom, window) =
            ((self.tenant.clone(), device.clone()), (now, now.plus(DIRECTIVE_VALID_MS)));
        let directive = Directive::new(whom, known.generation, window, slots);
        known.directive = Some(directive.sign(&self.key).unwrap());
        known.generation
    }

    /// The devices that a rollout is about, as the planner wants to know them.
    fn fleet(&self, index: usize) -> Fleet {
        let rollout = &self.rollouts[index].rollout;
        let is_concerned = |known: &Known| {
            let is_bad = |image: &Digest| self.quarantined.contains(image);
            let serves = known.slot.as_ref().and_then(|slot| slot.serving);
            let should = known.desired.as_ref().map(|desired| desired.image);
            let is_concerned = known.told.contains_key(&rollout.id)
                || !rollout.is_rollback
                || serves.iter().chain(&should).any(is_bad);
            is_concerned && !known.is_revoked && known.accepted <= known.generation
        };
        let concerned = self.devices.iter().filter(|(_, known)| is_concerned(known));
        concerned.map(|(id, known)| (id.clone(), known.view(rollout))).collect()
    }

    /// How many devices a rollout has told.
    pub(crate) fn told(&self, rollout: RolloutId) -> usize {
        self.devices.values().filter(|known| known.told.contains_key(&rollout)).count()
    }

    /// How many waves may have to wait for windows of their own, one after the other; one, if none waits for windows.
    pub(crate) fn waves_to_wait_for(&self) -> usize {
        let goes_on = |ordered: &&Ordered| !ordered.rollout.stage.is_over();
        let in_windows = |ordered: &&Ordered| ordered.trial.window.is_some();
        let at_work = self.rollouts.iter().filter(goes_on).filter(in_windows);
        at_work.map(|ordered| ordered.rollout.waves.len()).max().unwrap_or(1)
    }

    /// Every rollout and where it is, for whoever reads how a story ended badly.
    pub(crate) fn story(&self) -> String {
        let tell = |Ordered { rollout, trial, why }: &Ordered| {
            let (id, stage, window) = (rollout.id, rollout.stage, &trial.window);
            format!("rollout {id} is {stage:?} ({why}), window {window:?}, {:?}\n", rollout.waves)
        };
        self.rollouts.iter().map(tell).collect()
    }

    /// Where the newest rollout is, and why.
    pub(crate) fn newest(&self) -> (Stage, &str) {
        let newest = self.rollouts.last().unwrap();
        (newest.rollout.stage, &newest.why)
    }
}

impl Known {
    /// Whether it has followed more than is known here, or came back with something else.
    pub(super) fn is_ahead(&self) -> bool {
        self.accepted > self.generation || self.has_returned()
    }

    /// It was waited for since a recovery, and has followed what is not known here, or runs something else than it was to run before.
    fn has_returned(&self) -> bool {
        let Some(since) = self.awaited_since else { return false };
        if self.accepted > self.signed {
            return true;
        }
        let heard = self.slot.as_ref().filter(|slot| slot.reported_at > since);
        let Some(slot) = heard else { return false };
        let should = self.desired.as_ref().map(|desired| desired.image);
        slot.serving.is_some() && slot.serving != should && self.told_at <= since
    }

    /// The rollout that says that it should run a version.
    fn follows(&self, version: u8) -> Option<RolloutId> {
        let desired = self.desired.as_ref().filter(|desired| desired.image == image(version))?;
        (!self.is_revoked).then_some(desired.rollout)
    }

    /// What it was told, and when.
    pub(crate) fn story(&self) -> String {
        let Self { told_at, told, held, halt, .. } = self;
        format!(
            "told at {told_at:?}, {told:?}, online since {:?}, held {held:?}, halted {halt:?}",
            self.online_since
        )
    }

    fn view(&self, rollout: &Rollout) -> DeviceView {
        DeviceView {
            online_since: self.online_since,
            desired: self.desired.clone(),
            told: self.told.get(&rollout.id).copied(),
            told_now: self.desired.as_ref().and_then(|it| self.told.get(&it.rollout).copied()),
            accepted: self.accepted,
            refused: self.refused.clone(),
            slot: self.slot.clone(),
            penalty: self.penalties.get(&rollout.image).cloned(),
            served: Served::default(),
            lease: self.lease,
            held: self.held.clone(),
            halted: self.halt.clone(),
            ..DeviceView::default()
        }
    }
}

fn pending((percent, soak_s): (f64, u32), is_rollback: bool) -> Wave {
    let plan = WavePlan {
        percent: Some(percent),
        soak_s,
        max_bad_share: is_rollback.then_some(1.0),
        ..WavePlan::default()
    };
    Wave { plan, standing: Standing::Pending, comparisons: Vec::new() }
}

fn failure(code: &str, reason: &str) -> Failure {
    Failure { code: code.to_owned(), reason: reason.to_owned() }
}
