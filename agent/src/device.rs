//! The life of a device, as a pure state machine: events in, effects out.
//!
//! ```text
//!  newer directive                                                     pointer swap
//! IDLE ─> CHECKING ─> DOWNLOADING ─> VERIFYING ─> STAGED ─> WARMING ─> ACTIVATING ─> PROBATION ─> WATCH ─> IDLE
//!   ^        │  ^         │              │       window      │  └ SHADOWING ┘          │           │
//!   │        v  └ WAITING <┘ out of reach, no room, not as signed         │            │           │
//!   └── failed, rejected, not applicable: live image untouched ┘          └─────── REVERTING ──────┘
//!                                                                                      │  ^
//!                                            previous image does not start either: SAFE_MODE, retried for ever
//! ```
//! A newer directive takes over in every phase but the three swaps (ACTIVATING, REVERTING, REMOVING), which end by themselves.
//! A halt of its rollout stops whatever is before ACTIVATING where it is (HALTED), until a newer list lets it go on with CHECKING.
//!
//! Architecture Invariant: an effect that changes what is live comes after the journal record of the decision to do so.

mod fault;
mod halt;
mod phase;
mod retry;
mod shadow;
mod slot;
mod staged;
mod trial;
mod view;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::digest::Digest;
use sealift_protocol::directive::{DesiredSlot, Shadow, Trial, VerifiedDirective};
use sealift_protocol::halt::HaltList;
use sealift_protocol::id::{Epoch, Generation, ModelName, UnixMillis};
use sealift_protocol::image::OnRevoked;
use sealift_protocol::report::{
    Hold, ImageRef, Progress, Refusal, Report, ShadowCounts, SlotReport,
};
use serde::{Deserialize, Serialize};

use crate::behaviour::Misstep;
pub(crate) use phase::{Fault, FaultKind};
pub(crate) use retry::pause_ms;
pub(crate) use slot::Slot;
pub(crate) use staged::Local;

/// What happened outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The agent has started; what was under way is taken up again.
    Started,
    /// A directive has passed all its checks.
    Directive(VerifiedDirective),
    /// A directive was refused.
    Refused(Refusal),
    /// A task answers.
    Answer { model: ModelName, ticket: Ticket, answer: Answer },
    /// The worker of a live image answers requests.
    Served { model: ModelName, image: Digest, providers: Providers },
    /// The worker of a live image could not be started.
    NotServed { model: ModelName, image: Digest, reason: String },
    /// The worker of a live image ended by itself.
    Crashed { model: ModelName, image: Digest, reason: String },
    /// Requests that a live image has answered since it is live, and how many of them failed by its fault.
    Counted { model: ModelName, image: Digest, requests: u64, errors: u64 },
    /// A live image behaves worse than the image before.
    Misbehaved { model: ModelName, image: Digest, misstep: Misstep },
    /// An image is on the deny list; its policy says what follows where it is live.
    Revoked { image: Digest, action: OnRevoked },
    /// The device's owner keeps what it serves, or does so no longer.
    Held(Option<Hold>),
    /// What the clocks show where the device stands.
    Clock(Local),
    /// The newest list of halted rollouts, which has passed its checks.
    Halts(HaltList),
    /// Time has passed.
    Tick,
}

/// Execution providers with their count of nodes.
pub(crate) type Providers = Vec<(String, u32)>;

/// Tells the answer of a task from that of an earlier, given-up one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Ticket(pub(crate) u64);

/// How a task ended, or how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Checked {
        epoch: Epoch,
        total_bytes: u64,
    },
    Progress(Progress),
    Downloaded,
    Verified,
    Warmed,
    /// What was counted since the shadow began.
    Compared(ShadowCounts),
    Activated {
        providers: Providers,
    },
    Reverted {
        providers: Providers,
    },
    Retired,
    Failed(Fault),
}

/// What the shell must now do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Appends to the journal and waits until it is on disk.
    Record(Entry),
    /// Gives up the model's task, if one runs.
    Cancel { model: ModelName },
    /// Starts a task that will answer.
    Start { model: ModelName, ticket: Ticket, task: Task },
    /// Makes sure that a worker answers for the live image, and says whether one does.
    Serve { model: ModelName, image: ImageRef, after_ms: i64 },
    /// Tells people.
    Alarm { model: ModelName, image: ImageRef, fault: Fault },
    /// Sends the reported state.
    Report,
}

/// Work on one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    /// Signatures, digests, revocations, epoch, hardware, space; index and manifest.
    Check { desired: Box<DesiredSlot>, floor: Epoch },
    /// All blobs into the staging directory; at once, or when the owner lets it.
    Download { image: ImageRef, is_urgent: bool },
    /// Hashes and scans what is staged, and gives it its final name.
    Verify { image: ImageRef },
    /// A worker that has loaded the image and passed its golden tests.
    Warm { image: ImageRef },
    /// The warm worker beside the live one, on its inputs, until the task is given up.
    Shadow { image: ImageRef, rules: Shadow },
    /// The pointer, then the warm worker in the place of the live one.
    Activate { image: ImageRef, previous: Option<ImageRef> },
    /// The pointer, then a worker of the image to go back to; without one, nothing is served.
    Revert { to: Option<ImageRef> },
    /// Removes pointer and worker.
    Retire,
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// A directive was accepted.
    Directive { generation: Generation, issued_at: UnixMillis, slots: Vec<DesiredSlot> },
    /// A model's slot has changed to this.
    Slot { model: ModelName, slot: Box<Slot> },
    /// A model's slot is gone.
    Gone { model: ModelName },
    /// Images of the model below this epoch are refused for ever. A slot notes what raises its floor itself; this outlives the slot.
    Floor { model: ModelName, epoch: Epoch },
}

/// A device: the newest directive it has accepted, and a slot for each model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Device {
    generation: Generation,
    issued_at: UnixMillis,
    refused: Option<Refusal>,
    slots: BTreeMap<ModelName, Slot>,
    floors: BTreeMap<ModelName, Epoch>,
    /// Said on the device itself, and kept there: not in the journal.
    hold: Option<Hold>,
    /// Read anew again and again: not in the journal.
    local: Local,
    /// Kept in a file of its own: it is about rollouts, not about a model.
    halt: Option<HaltList>,
}

impl Device {
    /// The device that the journal tells of. [`Event::Started`] sets it going.
    pub(crate) fn restore(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut device = Self::default();
        for entry in entries {
            device.replay(entry);
        }
        device
    }

    fn replay(&mut self, entry: Entry) {
        match entry {
            Entry::Directive { generation, issued_at, slots } => {
                self.accept(generation, issued_at, slots);
            }
            Entry::Slot { model, slot } => {
                self.raise_floor(&model, slot.kept_epoch);
                self.slots.insert(model, *slot);
            }
            Entry::Gone { model } => {
                self.slots.remove(&model);
            }
            Entry::Floor { model, epoch } => self.raise_floor(&model, epoch),
        }
    }

    /// A floor never falls.
    fn raise_floor(&mut self, model: &ModelName, epoch: Epoch) {
        if epoch > self.floor(model) {
            self.floors.insert(model.clone(), epoch);
        }
    }

    /// Images of the model below this epoch are refused.
    pub(crate) fn floor(&self, model: &ModelName) -> Epoch {
        self.floors.get(model).copied().unwrap_or_default()
    }

    /// The fewest entries that restore this device.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let (generation, issued_at) = (self.generation, self.issued_at);
        // The directive's slots are in the entries of the slots themselves.
        let directive = Entry::Directive { generation, issued_at, slots: Vec::new() };
        let slot = |(model, slot): (&ModelName, &Slot)| Entry::Slot {
            model: model.clone(),
            slot: Box::new(slot.clone()),
        };
        let floor = |(model, epoch): (&ModelName, &Epoch)| Entry::Floor {
            model: model.clone(),
            epoch: *epoch,
        };
        let slots = self.slots.iter().map(slot);
        [directive].into_iter().chain(slots).chain(self.floors.iter().map(floor)).collect()
    }

    /// Takes a model that is live by its pointer and that the journal does not know: the journal was lost.
    pub(crate) fn adopt(&mut self, model: ModelName, image: ImageRef, previous: Option<ImageRef>) {
        self.slots.entry(model).or_insert_with(|| Slot::adopted(image, previous));
    }

    /// The newest directive that was accepted.
    pub(crate) const fn generation(&self) -> Generation {
        self.generation
    }

    /// When that was signed: the time is not earlier.
    pub(crate) const fn issued_at(&self) -> UnixMillis {
        self.issued_at
    }

    /// Images that must stay on disk.
    pub(crate) fn images(&self) -> BTreeSet<Digest> {
        self.slots.values().flat_map(Slot::images).collect()
    }

    /// Images whose use can be ended now: a swap ends by itself first.
    pub(crate) fn revocable(&self) -> BTreeSet<Digest> {
        let slots = self.slots.values().filter(|slot| !slot.is_swapping());
        slots.flat_map(Slot::images).collect()
    }

    /// Models that answer nobody because their image was revoked, and why.
    pub(crate) fn withdrawn(&self) -> BTreeMap<ModelName, String> {
        let withdrawn =
            |(model, slot): (&ModelName, &Slot)| Some((model.clone(), slot.withdrawn()?));
        self.slots.iter().filter_map(withdrawn).collect()
    }

    /// What each model serves, if anything.
    pub(crate) fn serving(&self) -> impl Iterator<Item = (&ModelName, &ImageRef)> {
        self.slots.iter().filter_map(|(model, slot)| Some((model, slot.serving()?)))
    }

    /// The rules by which a model's image is on trial, and the image that can be gone back to; none where either is not so.
    pub(crate) fn trial(&self, model: &ModelName) -> Option<(&Trial, Digest)> {
        self.slots.get(model)?.trial()
    }

    /// By which rules a model's next image is compared with the live one now, and until when.
    pub(crate) fn shadow(&self, model: &ModelName) -> Option<(&Shadow, UnixMillis)> {
        self.slots.get(model)?.shadow_rules()
    }

    /// When the first of its phases ends by itself.
    pub(crate) fn deadline(&self) -> Option<UnixMillis> {
        self.slots.values().filter_map(Slot::deadline).min()
    }

    /// The whole truth about the device.
    pub(crate) fn report(&self, now: UnixMillis) -> Report {
        let held = || self.hold.clone();
        let report = |(model, slot): (&ModelName, &Slot)| SlotReport {
            held: held(),
            halted: self.halted().filter(|_| slot.is_halted()),
            ..slot.report(model)
        };
        let slots = self.slots.iter().map(report).collect();
        Report {
            generation: self.generation,
            refused: self.refused.clone(),
            slots,
            at: now,
            trusted: None, // what stands beside the device says so
        }
    }

    /// Takes one event and returns what to do about it.
    pub(crate) fn on(&mut self, event: Event, now: UnixMillis) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Directive(directive) => self.on_directive(&directive, now, &mut effects),
            Event::Refused(refusal) => {
                if self.refused.as_ref() != Some(&refusal) {
                    self.refused = Some(refusal);
                    effects.push(Effect::Report);
                }
            }
            Event::Started => {
                self.each(now, &mut effects, Slot::on_started);
                effects.push(Effect::Report);
            }
            Event::Held(hold) => self.on_held(hold, now, &mut effects),
            Event::Clock(local) => self.local.set(local),
            Event::Halts(list) => self.on_halt(list, now, &mut effects),
            Event::Tick => self.each(now, &mut effects, Slot::on_tick),
            Event::Answer { model, ticket, answer } => {
                self.one(&model, now, &mut effects, |slot, turn| {
                    slot.on_answer(ticket, answer, turn);
                });
            }
            Event::Served { model, image, providers } => {
                self.one(&model, now, &mut effects, |slot, _| slot.on_served(image, providers));
            }
            Event::NotServed { model, image, reason } => {
                self.one(&model, now, &mut effects, |slot, turn| {
                    slot.on_not_served(image, &reason, turn);
                });
            }
            Event::Crashed { model, image, reason } => {
                self.one(&model, now, &mut effects, |slot, turn| {
                    slot.on_crashed(image, &reason, turn);
                });
            }
            Event::Revoked { image, action } => {
                self.each(now, &mut effects, |slot, turn| slot.on_revoked(image, action, turn));
            }
            Event::Misbehaved { model, image, misstep } => {
                self.one(&model, now, &mut effects, |slot, turn| {
                    slot.on_misbehaved(image, &misstep, turn);
                });
            }
            Event::Counted { model, image, requests, errors } => {
                self.one(&model, now, &mut effects, |slot, turn| {
                    slot.on_counted(image, (requests, errors), turn);
                });
            }
        }
        effects
    }

    /// Revocation and the way back from a trial go on all the same.
    fn on_held(&mut self, hold: Option<Hold>, now: UnixMillis, effects: &mut Vec<Effect>) {
        if self.hold == hold {
            return;
        }
        let begins = self.hold.is_none();
        self.hold = hold;
        self.each(now, effects, |slot, turn| {
            if begins && turn.is_held {
                slot.on_held(turn);
            }
        });
        effects.push(Effect::Report);
    }

    fn on_directive(
        &mut self,
        directive: &VerifiedDirective,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let directive = directive.get();
        if directive.generation <= self.generation {
            return;
        }
        let (generation, issued_at) = (directive.generation, directive.issued_at);
        let slots = directive.slots.clone();
        effects.push(Effect::Record(Entry::Directive { generation, issued_at, slots }));
        self.accept(generation, issued_at, directive.slots.clone());
        self.each(now, effects, |_, _| ());
        effects.push(Effect::Report);
    }

    fn accept(&mut self, generation: Generation, issued_at: UnixMillis, slots: Vec<DesiredSlot>) {
        self.generation = generation;
        self.issued_at = self.issued_at.max(issued_at);
        self.refused = None;
        for slot in self.slots.values_mut() {
            slot.want(generation, None);
        }
        for desired in slots {
            let slot = self.slots.entry(desired.model.clone()).or_default();
            slot.want(generation, Some(desired));
        }
    }

    fn each(
        &mut self,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
        step: impl Fn(&mut Slot, &mut Turn<'_>),
    ) {
        let models: Vec<_> = self.slots.keys().cloned().collect();
        for model in models {
            self.one(&model, now, effects, &step);
        }
    }

    /// Lets one slot take a step, begins what it was told meanwhile, and records what has changed before anything is done about it.
    fn one(
        &mut self,
        model: &ModelName,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
        step: impl FnOnce(&mut Slot, &mut Turn<'_>),
    ) {
        let floor = self.floor(model);
        let local = &self.local;
        let Some(slot) = self.slots.get_mut(model) else { return };
        let before = slot.clone();
        // Where the image was revoked there is nothing to keep.
        let is_held = self.hold.is_some() && slot.withdrawn().is_none();
        let halt = self.halt.as_ref();
        let mut turn = Turn { model, now, local, floor, is_held, halt, effects: Vec::new() };
        step(slot, &mut turn);
        slot.begin_newest(&mut turn);
        slot.obey_halt(&mut turn);
        let Turn { effects: follow, .. } = turn;
        let kept_epoch = slot.kept_epoch;
        let changed = *slot != before;
        if slot.is_gone() {
            self.slots.remove(model);
            effects.push(Effect::Record(Entry::Gone { model: model.clone() }));
        } else if changed && !slot.is_same_on_disk(&before) {
            let slot = Box::new(slot.clone());
            effects.push(Effect::Record(Entry::Slot { model: model.clone(), slot }));
        }
        self.raise_floor(model, kept_epoch);
        effects.extend(follow);
        if changed {
            effects.push(Effect::Report);
        }
    }
}

/// One step of one slot.
struct Turn<'a> {
    model: &'a ModelName,
    now: UnixMillis,
    local: &'a Local,
    /// The model's epoch floor.
    floor: Epoch,
    /// Whether nothing new is begun.
    is_held: bool,
    /// Which rollouts are halted.
    halt: Option<&'a HaltList>,
    effects: Vec<Effect>,
}

impl Turn<'_> {
    fn until(&self, millis: i64) -> UnixMillis {
        self.now.plus(millis)
    }

    fn start(&mut self, ticket: Ticket, task: Task) {
        self.effects.push(Effect::Start { model: self.model.clone(), ticket, task });
    }

    fn cancel(&mut self) {
        self.effects.push(Effect::Cancel { model: self.model.clone() });
    }

    fn serve(&mut self, image: &ImageRef, after_ms: i64) {
        let (model, image) = (self.model.clone(), image.clone());
        self.effects.push(Effect::Serve { model, image, after_ms });
    }

    fn alarm(&mut self, image: &ImageRef, fault: &Fault) {
        let (model, image, fault) = (self.model.clone(), image.clone(), fault.clone());
        self.effects.push(Effect::Alarm { model, image, fault });
    }
}
