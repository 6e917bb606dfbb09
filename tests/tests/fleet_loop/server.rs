//! The server's memory, and its loop: the real planner over what devices have said.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use sealift_fleet_server::rollout::action::{self, AtWork, BadDevices};
use sealift_fleet_server::rollout::{
    self, Desired, DeviceView, Failure, Fleet, Outcome, Plan, Refused, Rollout, Served, Slot,
    Stage, Standing, Told, Wave,
};
use sealift_protocol::api::{Action, DeviceProgress, WavePlan};
use sealift_protocol::digest::Digest;
use sealift_protocol::directive::{Behaviour, DesiredSlot, Directive, Trial};
use sealift_protocol::id::{
    DeviceId, Epoch, Generation, ModelName, RolloutId, TenantId, UnixMillis, Version,
};
use sealift_protocol::report::{Hold, OutcomeKind, Report};

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
};

/// Everything that survives the server's crash, since it is committed before it is acknowledged.
pub(crate) struct Server {
    key: SigningKey,
    tenant: TenantId,
    model: ModelName,
    pub(crate) rollouts: Vec<Ordered>,
    pub(crate) devices: BTreeMap<DeviceId, Known>,
    quarantined: BTreeSet<Digest>,
}

/// A rollout and what it brings.
pub(crate) struct Ordered {
    pub(crate) rollout: Rollout,
    pub(crate) version: u8,
    trial: Trial,
    why: String,
}

/// What the server knows of a device.
#[derive(Default)]
pub(crate) struct Known {
    /// The connection that counts: older ones are ignored.
    epoch: u64,
    online_since: Option<UnixMillis>,
    /// The newest report that was taken.
    sequence: u64,
    pub(crate) generation: Generation,
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
        if sequence <= known.sequence {
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
            reported_at: now,
        });
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

    /// Orders a version for everybody; what is under way is superseded.
    pub(crate) fn order(&mut self, version: u8, waves: &[(f64, u32)], trial: Trial) -> RolloutId {
        self.write(version, waves, trial, false)
    }

    fn write(
        &mut self,
        version: u8,
        waves: &[(f64, u32)],
        trial: Trial,
        is_rollback: bool,
    ) -> RolloutId {
        for earlier in &mut self.rollouts {
            if !earlier.rollout.stage.is_over() {
                earlier.rollout.stage = Stage::Superseded;
            }
        }
        let id = RolloutId(u64::try_from(self.rollouts.len()).unwrap() + 1);
        let rollout = Rollout {
            id,
            image: image(version),
            waves: waves.iter().map(|&wave| pending(wave, is_rollback)).collect(),
            stage: Stage::Running,
            probation_ms: i64::from(trial.probation_s) * 1_000,
            silent_after_ms: 120_000,
            is_rollback,
            held_from: None,
            start_at: None,
            turn: id.0,
            budget: None,
            tail_ms: 604_800_000,
            reverted_by: Vec::new(),
        };
        self.rollouts.push(Ordered { rollout, version, trial, why: String::new() });
        id
    }

    /// Puts `bad` in quarantine, and goes back to `version`.
    pub(crate) fn roll_back(&mut self, bad: u8, version: u8, trial: Trial) -> RolloutId {
        self.quarantined.insert(image(bad));
        for known in self.devices.values_mut() {
            known.penalties.remove(&image(version));
        }
        self.write(version, &[(100.0, 0)], trial, true)
    }

    /// What an operator does with the newest rollout, if it can be done now.
    pub(crate) fn act(&mut self, action: Action, now: UnixMillis) {
        let Some(index) = self.rollouts.len().checked_sub(1) else { return };
        let fleet = self.fleet(index);
        let rollout = &mut self.rollouts[index].rollout;
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
            let plan = rollout::plan(&self.rollouts[index].rollout, &self.fleet(index), now);
            told.extend(plan.tell.iter().map(|(device, _)| device.clone()));
            told.extend(plan.countersign.iter().cloned());
            self.carry_out(index, plan, now);
        }
        told
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

    fn tell(
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
        let by = self.rollouts.iter().find(|ordered| ordered.rollout.id == rollout).unwrap();
        let version = Version::parse(&by.version.to_string()).unwrap();
        let slot = DesiredSlot {
            epoch: Epoch(1),
            trial: by.trial,
            rollout: Some(rollout),
            confirmed,
            ..DesiredSlot::new(self.model.clone(), version, image)
        };
        let known = self.devices.get_mut(device).unwrap();
        known.generation = known.generation.next();
        known.desired = Some(Desired { rollout, turn: rollout.0, image });
        known.history.push((rollout, image));
        let (whom, window) =
            ((self.tenant.clone(), device.clone()), (now, now.plus(DIRECTIVE_VALID_MS)));
        let directive = Directive::new(whom, known.generation, window, vec![slot]);
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
            known.told.contains_key(&rollout.id)
                || !rollout.is_rollback
                || serves.iter().chain(&should).any(is_bad)
        };
        let concerned = self.devices.iter().filter(|(_, known)| is_concerned(known));
        concerned.map(|(id, known)| (id.clone(), known.view(rollout))).collect()
    }

    /// How many devices a rollout has told.
    pub(crate) fn told(&self, rollout: RolloutId) -> usize {
        self.devices.values().filter(|known| known.told.contains_key(&rollout)).count()
    }

    /// Where the newest rollout is, and why.
    pub(crate) fn newest(&self) -> (Stage, &str) {
        let newest = self.rollouts.last().unwrap();
        (newest.rollout.stage, &newest.why)
    }
}

impl Known {
    fn view(&self, rollout: &Rollout) -> DeviceView {
        DeviceView {
            online_since: self.online_since,
            desired: self.desired.clone(),
            told: self.told.get(&rollout.id).copied(),
            accepted: self.accepted,
            refused: self.refused.clone(),
            slot: self.slot.clone(),
            penalty: self.penalties.get(&rollout.image).cloned(),
            served: Served::default(),
            lease: self.lease,
            held: self.held.clone(),
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
