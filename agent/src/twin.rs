//! A device without disk, sockets and processes: the real state machine and journal, in a world that the caller makes up.
//!
//! It is for rehearsing whole fleets. What the machine asks for comes out as an [`Ask`]; whether and when that is done, the caller
//! decides, and says so by [`Twin::done`].

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::VerifyingKey;
use jiff::tz::TimeZone;
use sealift_protocol::cose::KeyId;
use sealift_protocol::digest::Digest;
use sealift_protocol::directive::{Audience, Directive};
use sealift_protocol::halt::{HaltList, Listener};
use sealift_protocol::id::{DeviceId, Generation, ModelName, TenantId, UnixMillis};
use sealift_protocol::image::OnRevoked;
use sealift_protocol::report::{Hold, ImageRef, Refusal, Report, ShadowCounts, Trusted};

use crate::device::{Answer, Device, Effect, Entry, Event, Fault, FaultKind, Local, Task, Ticket};
use crate::limits::BUILT_AT;

/// How long the metadata of offline keys are good that bound what a director can claim.
const METADATA_MS: i64 = 30 * 24 * 3_600 * 1_000;

/// A device that exists in memory alone.
#[derive(Debug, Clone)]
pub struct Twin {
    tenant: TenantId,
    id: DeviceId,
    device: Device,
    journal: Vec<Entry>,
    /// How many more effects are carried out before the power goes.
    power: Option<usize>,
    /// By how much its clock is wrong.
    skew_ms: i64,
    /// Where it stands.
    zone: TimeZone,
    /// When it started, by the world's time and by its own.
    started: (UnixMillis, UnixMillis),
    /// The deny list as it has heard it; on disk.
    denied: BTreeSet<Digest>,
    /// The newest list of halted rollouts, and who signed it; on disk.
    halts: Option<(HaltList, KeyId)>,
    /// The message it came in.
    heard: Vec<u8>,
}

/// What the device wants of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// To do something that takes time.
    Work(Work),
    /// To start the worker of a live image, after a pause.
    Serve {
        /// The model.
        model: ModelName,
        /// The image.
        image: ImageRef,
        /// The pause.
        after_ms: i64,
    },
    /// To send its report.
    Report,
}

/// Something that takes time and may fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The model.
    pub model: ModelName,
    /// What.
    pub kind: WorkKind,
    /// The image that it is about; none for what goes away.
    pub image: Option<ImageRef>,
    task: Task,
    ticket: Ticket,
}

/// The steps of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkKind {
    /// Signatures, digests, hardware, room.
    Check,
    /// All blobs.
    Download,
    /// Every byte again.
    Verify,
    /// Loading, golden tests.
    Warm,
    /// Beside the live image.
    Shadow,
    /// The pointer to the new image.
    Activate,
    /// The pointer back.
    Revert,
    /// Nothing is served any more.
    Retire,
}

/// How work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As it should.
    Well,
    /// The server or the registry was out of reach.
    OutOfReach {
        /// The device's share of the span over which a crowd spreads, in per mille.
        spread_permille: u16,
    },
    /// Bytes were not those that were signed.
    Damaged,
    /// There is no room for it.
    NoRoom,
    /// It does not fit this hardware.
    DoesNotFit,
    /// It does not load, or its golden tests fail.
    Fails,
    /// The image is not like the live one.
    Differs,
}

/// Signed lists that rise, and who may sign them.
type Directors = BTreeMap<KeyId, VerifyingKey>;

impl Twin {
    /// A new device, which was never told anything.
    pub fn new(tenant: TenantId, id: DeviceId) -> Self {
        let (device, journal) = (Device::default(), Vec::new());
        let started = (UnixMillis::default(), UnixMillis::default());
        let (power, skew_ms, zone) = (None, 0, TimeZone::UTC);
        let (denied, halts, heard) = (BTreeSet::new(), None, Vec::new());
        Self { tenant, id, device, journal, power, skew_ms, zone, started, denied, halts, heard }
    }

    /// Its name.
    pub const fn id(&self) -> &DeviceId {
        &self.id
    }

    /// The agent starts, after a kill with nothing but its journal. All times are the world's; what the device believes is another matter.
    pub fn start(&mut self, at: UnixMillis) -> Vec<Ask> {
        self.power = None;
        self.device = Device::restore(self.journal.clone());
        self.journal = self.device.entries();
        self.started = (at, self.reading(at).0);
        let mut asks = match &self.halts {
            Some((list, _)) => self.feed(Event::Halts(list.clone()), at),
            None => Vec::new(),
        };
        asks.extend(self.feed(Event::Started, at));
        asks.extend(self.enforce(at));
        asks
    }

    /// It has followed trust metadata with this deny list.
    pub fn denied(&mut self, images: &BTreeSet<Digest>, at: UnixMillis) -> Vec<Ask> {
        self.denied.clone_from(images);
        self.tick(at)
    }

    /// A signed list of halted rollouts arrives. It is verified as on a device; one that is not newer changes nothing.
    pub fn halted(&mut self, message: &[u8], directors: &Directors, at: UnixMillis) -> Vec<Ask> {
        if self.heard == message {
            return Vec::new(); // is not newer than itself
        }
        let newest = self.halts.as_ref().map(|(list, signer)| (list.sequence, signer));
        let listener = Listener { tenant: &self.tenant, newest };
        let Ok(verified) = HaltList::verify(message, directors, listener) else {
            return Vec::new();
        };
        let list = verified.get().clone();
        self.halts = Some((list.clone(), verified.signer().clone()));
        message.clone_into(&mut self.heard);
        self.feed(Event::Halts(list), at)
    }

    /// Whether nothing that it has heard to be denied answers requests; but while it swaps, for a swap ends by itself.
    pub fn obeys_deny_list(&self) -> bool {
        let at_hand =
            if self.denied.is_empty() { BTreeSet::new() } else { self.device.revocable() };
        let is_denied =
            |image: &ImageRef| self.denied.contains(&image.index) && at_hand.contains(&image.index);
        !self.device.serving().any(|(_, image)| is_denied(image))
    }

    /// The newest directive that it has followed.
    pub const fn generation(&self) -> Generation {
        self.device.generation()
    }

    /// Its clock is set: wrong by so much from now on.
    pub const fn set_clock(&mut self, skew_ms: i64) {
        self.skew_ms = skew_ms;
    }

    /// It is carried to another place.
    pub fn set_zone(&mut self, zone: TimeZone) {
        self.zone = zone;
    }

    /// A signed directive arrives. It is verified as on a device; one that is not newer changes nothing.
    pub fn told(&mut self, message: &[u8], directors: &Directors, at: UnixMillis) -> Vec<Ask> {
        let (now, is_trusted) = self.reading(at);
        let newest = self.device.generation();
        let audience = Audience { tenant: &self.tenant, device: &self.id, newest, now };
        let verified = if is_trusted {
            Directive::verify(message, directors, &audience)
        } else {
            Directive::verify_until(message, directors, &audience, now.plus(METADATA_MS))
        };
        match verified {
            Ok(directive) => self.feed(Event::Directive(directive), at),
            Err(error) if !error.is_security_event() => Vec::new(),
            Err(error) => {
                let code = "directive.refused".to_owned();
                let refusal = Refusal { generation: None, code, reason: error.to_string() };
                self.feed(Event::Refused(refusal), at)
            }
        }
    }

    /// The time that it believes, and whether its clock says so (ADR 10).
    fn reading(&self, at: UnixMillis) -> (UnixMillis, bool) {
        let (wall, floor) = (at.plus(self.skew_ms), self.device.issued_at().max(BUILT_AT));
        (wall.max(floor), wall >= floor)
    }

    /// The clock that nobody can set.
    fn steady(&self, at: UnixMillis) -> UnixMillis {
        let (begun, believed) = self.started;
        believed.plus(at.since(begun))
    }

    fn local(&self, at: UnixMillis) -> Local {
        let (now, is_trusted) = self.reading(at);
        let ahead_ms = if is_trusted { now.since(self.steady(at)) } else { 0 };
        Local { zone: self.zone.clone(), ahead_ms, is_trusted }
    }

    /// Time has passed. The deny list is looked at with every tick, as the agent does.
    pub fn tick(&mut self, at: UnixMillis) -> Vec<Ask> {
        let mut asks = self.feed(Event::Tick, at);
        asks.extend(self.enforce(at));
        asks
    }

    /// Takes what is on the deny list out of use: first what is prepared or could be gone back to, then what is live.
    fn enforce(&mut self, at: UnixMillis) -> Vec<Ask> {
        let at_hand = self.device.revocable();
        let revoked: Vec<_> = at_hand.intersection(&self.denied).copied().collect();
        let is_live = |image: &Digest| self.device.serving().any(|(_, live)| live.index == *image);
        let (live, others): (Vec<_>, Vec<_>) = revoked.into_iter().partition(is_live);
        let images = others.into_iter().chain(live);
        let action = OnRevoked::Fallback;
        images.flat_map(|image| self.feed(Event::Revoked { image, action }, at)).collect()
    }

    /// What the device's owner has said.
    pub fn held(&mut self, hold: Option<Hold>, at: UnixMillis) -> Vec<Ask> {
        self.feed(Event::Held(hold), at)
    }

    /// Work has ended. What was given up meanwhile is passed over.
    pub fn done(&mut self, work: &Work, end: End, at: UnixMillis) -> Vec<Ask> {
        let is_denied = work.image.as_ref().is_some_and(|image| self.denied.contains(&image.index));
        let looks = matches!(work.kind, WorkKind::Check | WorkKind::Verify);
        let answer = match end {
            End::Well if is_denied && looks => failed(FaultKind::Untrusted, "image.revoked"),
            End::Well => well(&work.task),
            End::OutOfReach { spread_permille } => {
                failed(FaultKind::Unreachable { spread_permille }, "server.out-of-reach")
            }
            End::Damaged => failed(FaultKind::Corrupt, "blob.digest"),
            End::NoRoom => failed(FaultKind::NoRoom, "disk.full"),
            End::DoesNotFit => failed(FaultKind::NotApplicable, "image.no-variant"),
            End::Fails => failed(FaultKind::Failed, "self-test.golden"),
            End::Differs => Answer::Compared(UNLIKE),
        };
        let (model, ticket) = (work.model.clone(), work.ticket);
        let mut asks = self.feed(Event::Answer { model, ticket, answer }, at);
        // What a swap in progress did not let happen happens after it.
        asks.extend(self.enforce(at));
        asks
    }

    /// The worker of a live image answers, or could not be started.
    pub fn served(
        &mut self,
        model: &ModelName,
        image: Digest,
        is_up: bool,
        at: UnixMillis,
    ) -> Vec<Ask> {
        let model = model.clone();
        let event = if is_up {
            Event::Served { model, image, providers: Vec::new() }
        } else {
            Event::NotServed { model, image, reason: "does not load".to_owned() }
        };
        self.feed(event, at)
    }

    /// The worker of a live image has ended by itself.
    pub fn crashed(&mut self, model: &ModelName, image: Digest, at: UnixMillis) -> Vec<Ask> {
        let reason = "signal 11".to_owned();
        self.feed(Event::Crashed { model: model.clone(), image, reason }, at)
    }

    /// The power will go after so many more effects: between any two of them.
    pub const fn lose_power_after(&mut self, effects: usize) {
        self.power = Some(effects);
    }

    /// Whether the power has gone; the device is then to be [started](Twin::start) again.
    pub fn is_dark(&self) -> bool {
        self.power == Some(0)
    }

    /// The whole truth about it.
    pub fn report(&self, at: UnixMillis) -> Report {
        let halts = self.halts.as_ref();
        let trusted = halts.map(|(list, _)| Trusted { halt: list.sequence, ..Trusted::default() });
        Report { trusted, ..self.device.report(self.steady(at)) }
    }

    /// What answers requests.
    pub fn serving(&self, model: &ModelName) -> Option<&ImageRef> {
        self.device.serving().find(|(found, _)| *found == model).map(|(_, image)| image)
    }

    /// The earliest moment at which a phase ends by itself.
    pub fn deadline(&self) -> Option<UnixMillis> {
        let (begun, believed) = self.started;
        self.device.deadline().map(|deadline| begun.plus(deadline.since(believed)))
    }

    fn feed(&mut self, event: Event, at: UnixMillis) -> Vec<Ask> {
        if self.is_dark() {
            return Vec::new();
        }
        let (mut asks, steady) = (Vec::new(), self.steady(at));
        let local = self.local(at);
        // Sets what it goes by, and has no effect of its own.
        self.device.on(Event::Clock(local), steady);
        for effect in self.device.on(event, steady) {
            match &mut self.power {
                Some(0) => return Vec::new(),
                Some(effects) => *effects -= 1,
                None => {}
            }
            match effect {
                Effect::Record(entry) => self.journal.push(entry),
                Effect::Start { model, ticket, task } => {
                    asks.push(Ask::Work(Work::new(model, ticket, task)));
                }
                Effect::Serve { model, image, after_ms } => {
                    asks.push(Ask::Serve { model, image, after_ms });
                }
                Effect::Report => asks.push(Ask::Report),
                // The ticket of what was given up is not that of what is under way.
                Effect::Cancel { .. } | Effect::Alarm { .. } => {}
            }
        }
        if self.is_dark() { Vec::new() } else { asks }
    }
}

impl Work {
    fn new(model: ModelName, ticket: Ticket, task: Task) -> Self {
        let (kind, image) = match &task {
            Task::Check { desired, .. } => {
                let (version, index) = (desired.version.clone(), desired.index);
                (WorkKind::Check, Some(ImageRef { version, index }))
            }
            Task::Download { image, .. } => (WorkKind::Download, Some(image.clone())),
            Task::Verify { image } => (WorkKind::Verify, Some(image.clone())),
            Task::Warm { image } => (WorkKind::Warm, Some(image.clone())),
            Task::Shadow { image, .. } => (WorkKind::Shadow, Some(image.clone())),
            Task::Activate { image, .. } => (WorkKind::Activate, Some(image.clone())),
            Task::Revert { to } => (WorkKind::Revert, to.clone()),
            Task::Retire => (WorkKind::Retire, None),
        };
        Self { model, kind, image, task, ticket }
    }
}

/// So many rows that every share is shown by them.
const ROWS: u64 = 1 << 40;
const ALIKE: ShadowCounts = compared(ROWS);
const UNLIKE: ShadowCounts = compared(0);

const fn compared(agreed: u64) -> ShadowCounts {
    ShadowCounts {
        rows: ROWS,
        agreed,
        requests: ROWS,
        failed: 0,
        skipped: 0,
        live_us: ROWS,
        shadow_us: ROWS,
        answered: 0,
        returned: 0,
    }
}

fn well(task: &Task) -> Answer {
    let providers = Vec::new();
    match task {
        Task::Check { desired, floor } if desired.epoch < *floor => {
            failed(FaultKind::Untrusted, "image.epoch")
        }
        Task::Check { desired, .. } => Answer::Checked { epoch: desired.epoch, total_bytes: 1 },
        Task::Download { .. } => Answer::Downloaded,
        Task::Verify { .. } => Answer::Verified,
        Task::Warm { .. } => Answer::Warmed,
        Task::Shadow { .. } => Answer::Compared(ALIKE),
        Task::Activate { .. } => Answer::Activated { providers },
        Task::Revert { .. } => Answer::Reverted { providers },
        Task::Retire => Answer::Retired,
    }
}

fn failed(kind: FaultKind, code: &'static str) -> Answer {
    Answer::Failed(Fault::new(kind, code, "in a rehearsal"))
}
