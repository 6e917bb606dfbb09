//! Network, disks, clocks and people, all of them functions of a seed; and the queue of what happens next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use ed25519_dalek::VerifyingKey;
use fastrand::Rng;
use sealift_agent::twin::{Ask, End, Twin, Work, WorkKind};
use sealift_protocol::cose::KeyId;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, Generation, ModelName, TenantId, UnixMillis};
use sealift_protocol::report::{Hold, Report};

use super::server::{Server, TRIAL, image};
use super::weather::Weather;

#[path = "happening.rs"]
mod happening;
#[path = "restore.rs"]
mod restore;
#[path = "trouble.rs"]
mod trouble;

pub(crate) use happening::Deed;
use happening::{Boot, Happening, Incident, Next};

pub(crate) const SECOND: i64 = 1_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
pub(crate) const HOUR: i64 = 60 * MINUTE;

/// The agent asks for its directive again.
const POLL: i64 = 15 * MINUTE;
/// What was not acknowledged is sent again.
const RESEND: i64 = 20 * SECOND;
/// The broker publishes a will after this.
const WILL: i64 = 30 * SECOND;
/// The server plans so soon after anything has changed, or later where there are many devices: it rests after a turn for as long as that
/// asks for.
const TURN: i64 = 5 * SECOND;
const TURN_EACH: i64 = 30;
/// It plans now and then although nothing has changed.
const IDLE: i64 = 2 * MINUTE;
const BEGIN: UnixMillis = UnixMillis(1_800_000_000_000);

pub(crate) struct Device {
    pub(crate) twin: Twin,
    boot: Boot,
    is_linked: bool,
    is_powered: bool,
    /// Counts connections; on disk.
    epoch: u64,
    /// Number of the newest report; on disk, like the report.
    sequence: u64,
    unacknowledged: Option<(u64, Report)>,
    /// Versions that do not work on this device.
    sick: Option<Sickness>,
    tick_at: Option<UnixMillis>,
    /// In a file on the device.
    hold: Option<Hold>,
    /// The newest directive that it had ever followed.
    newest: Generation,
    /// When it made its newest report.
    told_at: UnixMillis,
}

/// How a version fails on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sickness {
    GoldenTests,
    Crashes,
}

pub(crate) struct World {
    pub(crate) now: UnixMillis,
    pub(crate) server: Server,
    backup: Option<Server>,
    pub(crate) devices: Vec<Device>,
    dice: Rng,
    weather: Weather,
    queue: BinaryHeap<Reverse<Next>>,
    numbers: u64,
    is_server_up: bool,
    /// How many turns the server has not planned, as nothing had changed.
    idle_for: i64,
    model: ModelName,
    numbers_of: BTreeMap<DeviceId, usize>,
    directors: BTreeMap<KeyId, VerifyingKey>,
    /// The version that is sick, and on which share of the devices, in per mille.
    pub(crate) sick: (u8, u32),
    /// Everything that happened, in one number.
    pub(crate) trace: u64,
    pub(crate) events: u64,
}

impl World {
    pub(crate) fn new(seed: u64, count: usize) -> Self {
        let mut dice = Rng::with_seed(seed);
        let (tenant, model) =
            (TenantId::parse("main").unwrap(), ModelName::parse("vision/digits").unwrap());
        let ids: Vec<_> =
            (0..count).map(|number| DeviceId::parse(&format!("cam-{number}")).unwrap()).collect();
        let server = Server::new(&tenant, &model, &ids);
        let numbers_of = ids.iter().cloned().zip(0..).collect();
        let director = server.director();
        let weather = Weather::wild(&mut dice);
        let sick = (2, [0, 0, 30, 300, 1_000][dice.usize(0..5)]);
        let devices = ids.into_iter().map(|id| Device {
            twin: Twin::new(tenant.clone(), id),
            boot: 0,
            is_linked: false,
            is_powered: false,
            epoch: 0,
            sequence: 0,
            unacknowledged: None,
            sick: None,
            tick_at: None,
            hold: None,
            newest: Generation::default(),
            told_at: BEGIN,
        });
        let mut world = Self {
            now: BEGIN,
            server,
            backup: None,
            devices: devices.collect(),
            dice,
            weather,
            queue: BinaryHeap::new(),
            numbers: 0,
            is_server_up: true,
            idle_for: IDLE,
            model,
            numbers_of,
            directors: BTreeMap::from([(KeyId::of(&director), director)]),
            sick,
            trace: 0,
            events: 0,
        };
        world.later(0, Happening::Turn);
        for number in 0..count {
            if world.dice.u32(0..1_000) < sick.1 {
                let sicknesses = [Sickness::GoldenTests, Sickness::Crashes];
                world.devices[number].sick = Some(sicknesses[world.dice.usize(0..2)]);
            }
            world.incident(number, 0, Incident::PowerOn);
            world.plan_trouble(number);
        }
        world
    }

    /// The sick version works on no device.
    pub(crate) fn fall_sick(&mut self) {
        for (number, device) in self.devices.iter_mut().enumerate() {
            let sicknesses = [Sickness::GoldenTests, Sickness::Crashes];
            device.sick = Some(sicknesses[number % 2]);
        }
    }

    /// From now on people do this, after so long.
    pub(crate) fn plan_deed(&mut self, after: i64, deed: Deed) {
        self.later(after, Happening::Operator(deed));
    }

    /// The server goes down after so long, for so long.
    pub(crate) fn plan_outage(&mut self, after: i64, length: i64) {
        self.later(after, Happening::ServerDown);
        self.later(after + length, Happening::ServerUp);
    }

    /// Nothing fails any more: everybody has power, a link and the right time.
    pub(crate) fn make_peace(&mut self) {
        self.weather = Weather::CALM;
        self.is_server_up = true;
        self.operate(Deed::ResumeAll);
        for number in 0..self.devices.len() {
            self.devices[number].twin.set_clock(0);
            self.look(number);
            if !self.devices[number].is_powered {
                self.power_on(number);
            }
            if !self.devices[number].is_linked {
                self.link_up(number);
            }
        }
    }

    pub(crate) fn run_for(&mut self, span: i64) {
        let end = self.now.plus(span);
        while let Some(Reverse(next)) = self.queue.pop() {
            if next.at > end {
                self.queue.push(Reverse(next));
                break;
            }
            self.now = next.at;
            self.events += 1;
            self.happen(next.happening);
        }
        self.now = end;
    }

    fn later(&mut self, after: i64, happening: Happening) {
        self.numbers += 1;
        let at = self.now.plus(after.max(0));
        self.queue.push(Reverse(Next { at, number: self.numbers, happening }));
    }

    fn incident(&mut self, number: usize, after: i64, incident: Incident) {
        let boot = self.devices[number].boot;
        self.later(after, Happening::Device(number, boot, incident));
    }

    fn happen(&mut self, happening: Happening) {
        self.note(&happening);
        match happening {
            Happening::Turn => {
                let turn = TURN.max(TURN_EACH * i64::try_from(self.devices.len()).unwrap());
                self.idle_for += turn;
                if self.is_server_up && self.idle_for > IDLE {
                    self.idle_for = 0;
                    for device in self.server.turn(self.now) {
                        self.idle_for = IDLE;
                        self.push_directive(&device);
                    }
                }
                self.later(turn, Happening::Turn);
            }
            Happening::ServerDown => {
                self.is_server_up = false;
                // Every connection breaks; devices come back in their own time.
                for number in 0..self.devices.len() {
                    self.link_down(number);
                }
            }
            Happening::ServerUp => self.is_server_up = true,
            Happening::Operator(deed) => self.operate(deed),
            Happening::Device(number, boot, incident) => {
                if self.devices[number].boot == boot {
                    self.befall(number, incident);
                }
            }
            Happening::Report(number, sequence, report) => {
                if self.is_server_up {
                    let id = self.devices[number].twin.id().clone();
                    self.server.on_report(&id, sequence, &report, self.now);
                    self.idle_for = IDLE;
                    self.down(number, &Incident::Acknowledged(sequence));
                }
            }
            Happening::Connected(number, epoch) => self.presence(number, epoch, true),
            Happening::Will(number, epoch) => {
                if self.is_server_up {
                    self.presence(number, epoch, false);
                } else {
                    // Whatever the broker remembers of it: once it is back, the device is gone.
                    self.later(MINUTE, Happening::Will(number, epoch));
                }
            }
            Happening::Poll(number, newest) => {
                let id = self.devices[number].twin.id();
                let known = &self.server.devices[id];
                if known.is_revoked {
                    return;
                }
                let newer = known.directive.clone().filter(|_| known.generation > newest);
                if let Some(directive) = newer.filter(|_| self.is_server_up) {
                    self.down(number, &Incident::Directive(directive));
                }
                if self.is_server_up {
                    self.send_lists(number);
                }
            }
        }
    }

    fn presence(&mut self, number: usize, epoch: u64, is_online: bool) {
        if self.is_server_up {
            let id = self.devices[number].twin.id().clone();
            self.server.on_connection(&id, epoch, is_online, self.now);
            self.idle_for = IDLE;
        }
    }

    fn operate(&mut self, deed: Deed) {
        self.idle_for = IDLE;
        match deed {
            Deed::Order(version) => {
                let waves = [(5.0, 60), (30.0, 60), (100.0, 0)];
                self.server.order(version, &waves, TRIAL);
            }
            Deed::OrderOn(version, trial) => {
                self.server.order(version, &[(20.0, 60), (100.0, 0)], trial);
            }
            Deed::RollBack { bad, to } => {
                self.server.roll_back(bad, to, TRIAL);
            }
            Deed::Act(action) => self.server.act(action, self.now),
            Deed::HaltAll | Deed::ResumeAll | Deed::RevokeImage(_) => self.recall(deed),
            Deed::RevokeDevice(number) => {
                let id = self.devices[number].twin.id().clone();
                self.server.revoke_device(&id);
                self.link_down(number);
            }
            Deed::BackUp => self.backup = Some(self.server.clone()),
            Deed::Restore => self.restore(),
            Deed::Recover => {
                for device in self.server.recover(self.now) {
                    self.push_directive(&device);
                }
                self.recall(deed);
            }
        }
    }

    fn befall(&mut self, number: usize, incident: Incident) {
        if !self.devices[number].is_powered && !matches!(incident, Incident::PowerOn) {
            return;
        }
        match incident {
            Incident::Trouble => self.trouble(number),
            Incident::LinkUp => self.link_up(number),
            Incident::PowerOn => self.power_on(number),
            Incident::Tick => {
                self.devices[number].tick_at = None;
                let asks = self.devices[number].twin.tick(self.now);
                self.answer(number, asks);
            }
            Incident::Poll => {
                self.poll(number);
                self.report_anew(number);
                let spread = self.dice.i64(-POLL / 2..POLL / 2);
                self.incident(number, POLL + spread, Incident::Poll);
            }
            Incident::Resend => self.send_report(number),
            Incident::Acknowledged(sequence) => {
                let device = &mut self.devices[number];
                device.unacknowledged.take_if(|(waiting, _)| *waiting == sequence);
            }
            Incident::Directive(message) => {
                let asks = self.devices[number].twin.told(&message, &self.directors, self.now);
                self.answer(number, asks);
            }
            Incident::Done(work) => {
                let end = self.end(number, &work);
                let asks = self.devices[number].twin.done(&work, end, self.now);
                self.answer(number, asks);
            }
            Incident::Released => self.obey_owner(number),
            Incident::Denied(images) => {
                let asks = self.devices[number].twin.denied(&images, self.now);
                self.answer(number, asks);
            }
            Incident::Halts(list) => {
                let asks = self.devices[number].twin.halted(&list, &self.directors, self.now);
                self.answer(number, asks);
            }
            Incident::Serve(image) => self.serve(number, image),
            Incident::Crash => {
                let twin = &mut self.devices[number].twin;
                let Some(image) = twin.serving(&self.model).map(|image| image.index) else {
                    return;
                };
                let asks = twin.crashed(&self.model, image, self.now);
                self.answer(number, asks);
            }
        }
    }

    /// Does what the device wants of the world.
    fn answer(&mut self, number: usize, asks: Vec<Ask>) {
        if self.devices[number].twin.is_dark() {
            return self.power_off(number);
        }
        self.devices[number].is_lawful();
        for ask in asks {
            match ask {
                Ask::Work(work) => {
                    if self.dice.u32(0..1_000) >= self.weather.hangs {
                        let span = self.span(work.kind);
                        self.incident(number, span, Incident::Done(Box::new(work)));
                    }
                }
                Ask::Serve { image, after_ms, .. } => {
                    let span = after_ms + self.dice.i64(100..5 * SECOND);
                    self.incident(number, span, Incident::Serve(image.index));
                }
                Ask::Report => self.report(number),
            }
        }
        let device = &mut self.devices[number];
        let due = device.twin.deadline();
        if let Some(at) = due
            && device.tick_at.is_none_or(|planned| at < planned)
        {
            device.tick_at = Some(at);
            let after = at.since(self.now);
            self.incident(number, after, Incident::Tick);
        }
    }

    fn span(&mut self, kind: WorkKind) -> i64 {
        match kind {
            WorkKind::Check => self.dice.i64(100..5 * SECOND),
            WorkKind::Download => self.dice.i64(SECOND..10 * MINUTE),
            WorkKind::Verify => self.dice.i64(100..20 * SECOND),
            WorkKind::Warm => self.dice.i64(SECOND..30 * SECOND),
            WorkKind::Shadow => self.dice.i64(MINUTE..20 * MINUTE),
            WorkKind::Activate | WorkKind::Revert | WorkKind::Retire => self.dice.i64(1..SECOND),
        }
    }

    fn end(&mut self, number: usize, work: &Work) -> End {
        let spread_permille = self.dice.u16(0..1_000);
        let device = &self.devices[number];
        let is_sick = work.image.as_ref().is_some_and(|image| self.is_sick(device, image.index));
        let needs_link = matches!(work.kind, WorkKind::Check | WorkKind::Download);
        if needs_link && !(device.is_linked && self.is_server_up) {
            return End::OutOfReach { spread_permille };
        }
        if work.kind == WorkKind::Warm && is_sick && device.sick == Some(Sickness::GoldenTests) {
            return End::Fails;
        }
        if self.dice.u32(0..1_000) >= self.weather.failures {
            if work.kind == WorkKind::Activate && is_sick {
                // It crashes as soon as it serves, and again.
                self.incident(number, 5 * SECOND, Incident::Crash);
                self.incident(number, 25 * SECOND, Incident::Crash);
            }
            return End::Well;
        }
        match (work.kind, self.dice.u32(0..4)) {
            (WorkKind::Check, 0) => End::NoRoom,
            (WorkKind::Check | WorkKind::Download, _) => End::OutOfReach { spread_permille },
            (WorkKind::Verify, _) => End::Damaged,
            (WorkKind::Warm | WorkKind::Shadow, 0) => End::Fails,
            (WorkKind::Shadow, 1) => End::Differs,
            (
                WorkKind::Shadow
                | WorkKind::Warm
                | WorkKind::Activate
                | WorkKind::Revert
                | WorkKind::Retire,
                _,
            ) => End::Well,
        }
    }

    fn is_sick(&self, device: &Device, image_digest: Digest) -> bool {
        device.sick.is_some() && image_digest == image(self.sick.0)
    }

    fn serve(&mut self, number: usize, image: Digest) {
        let is_up = self.dice.u32(0..1_000) >= self.weather.failures / 4;
        let asks = self.devices[number].twin.served(&self.model, image, is_up, self.now);
        self.answer(number, asks);
    }

    fn poll(&mut self, number: usize) {
        let newest = self.devices[number].twin.report(self.now).generation;
        self.up(number, &Happening::Poll(number, newest));
    }

    fn push_directive(&mut self, id: &DeviceId) {
        let number = self.numbers_of[id];
        let directive = self.server.devices[id].directive.clone().unwrap();
        self.down(number, &Incident::Directive(directive));
    }

    fn send_report(&mut self, number: usize) {
        let device = &self.devices[number];
        let Some((sequence, report)) = device.unacknowledged.clone().filter(|_| device.is_linked)
        else {
            return;
        };
        self.up(number, &Happening::Report(number, sequence, Box::new(report)));
        self.incident(number, RESEND, Incident::Resend);
    }

    /// A message to the server: late, lost, twice, out of order.
    fn up(&mut self, number: usize, happening: &Happening) {
        for delay in self.copies(number) {
            self.later(delay, happening.clone());
        }
    }

    /// A message to a device.
    fn down(&mut self, number: usize, incident: &Incident) {
        for delay in self.copies(number) {
            self.incident(number, delay, incident.clone());
        }
    }

    fn copies(&mut self, number: usize) -> Vec<i64> {
        if !self.devices[number].is_linked || self.dice.u32(0..1_000) < self.weather.loss {
            return Vec::new();
        }
        let twice = self.dice.u32(0..1_000) < self.weather.duplicates;
        (0..=usize::from(twice)).map(|_| self.dice.i64(1..=self.weather.delay_max)).collect()
    }

    /// What happened, and when, changes the trace.
    fn note(&mut self, happening: &Happening) {
        let what = match happening {
            Happening::Turn => 1,
            Happening::ServerDown => 2,
            Happening::ServerUp => 3,
            Happening::Operator(_) => 4,
            Happening::Device(number, boot, _) => 5 + number * 31 + usize::try_from(*boot).unwrap(),
            Happening::Report(number, sequence, _) => {
                6 + number * 37 + usize::try_from(*sequence).unwrap()
            }
            Happening::Connected(number, _) | Happening::Will(number, _) => 7 + number * 41,
            Happening::Poll(number, _) => 8 + number * 43,
        };
        let mixed = self.trace ^ u64::try_from(what).unwrap() ^ self.now.0.cast_unsigned();
        self.trace = mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }
}
