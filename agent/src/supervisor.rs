//! The shell around [`Device`]: brings it events, carries out its effects in order, and keeps what these need alive.
//!
//! One task owns everything. Work that takes time runs in tasks of its own and answers through one bounded queue; when the supervisor
//! goes, so do they.

mod behaviour;
mod capturing;
mod doorstep;
mod halted;
mod input;
mod keeper;
mod open;
mod poll;
mod renew;
mod report;
mod requests;
mod rest;
mod revoked;
mod shadow;
mod swap;
mod telemetry;
#[cfg(test)]
mod tests;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use rustls::ClientConfig;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{ModelName, UnixMillis};
use sealift_protocol::report::{Report, Trusted};
use sealift_protocol::request::DiagnosisTrouble;
use sealift_protocol::telemetry::Severity;
use sealift_protocol::topic::{Broadcast, Down, Topic};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{MissedTickBehavior, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::clock::{Clock, Wall};
use crate::config::Config;
use crate::crowd::Crowd;
use crate::device::{Device, Effect, Entry, Event, Fault, FaultKind, Local};
use crate::disk::Reserve;
use crate::download::Downloads;
use crate::drill;
use crate::health::Health;
use crate::identity::{Identity, IdentityError};
use crate::jobs::Jobs;
use crate::journal::{Journal, JournalError};
use crate::limits::IN_FLIGHT_MAX;
use crate::link::{LinkEvent, Session};
use crate::logs::Logs;
use crate::origin::{Origin, OriginError};
use crate::renewal::Schedule;
use crate::serve::{Live, ServeThread, Switchboard};
use crate::slots::{SlotError, Slots};
use crate::spool::{Spool, SpoolError};
use crate::trust::TrustError;
use crate::verify::Me;
use crate::watchdog::Watchdog;
use crate::worker::Budget;
use behaviour::Memory;
use capturing::Captures;
use halted::Halts;
use input::{Input, Purpose, Ready};
use requests::Requests;
use revoked::Denied;

/// Answers and messages that wait for the supervisor; whoever has more waits.
const INPUTS_MAX: usize = 64;

/// Seconds over which a fleet asks what a hint is about: all its devices get it at once.
const HINT_SPREAD: i64 = 2;

/// Deadlines are looked at this often.
const TICK: Duration = Duration::from_millis(500);

/// How an agent is run.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The device's directory.
    pub store: PathBuf,
    /// What its owner set.
    pub config: Config,
    /// What it shares as one of many simulated devices, without local endpoints; none for a device.
    pub crowd: Option<Crowd>,
    /// What tells the time of day.
    pub wall: Wall,
    /// Who restarts an agent that hangs; none if nobody does.
    pub watchdog: Option<Watchdog>,
    /// What the agent has logged lately.
    pub logs: Logs,
}

/// Why an agent does not run, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// The device is not enrolled, or its identity is damaged.
    #[error("device has no usable identity")]
    Identity(#[from] IdentityError),
    /// Another agent runs on the store.
    #[error("another agent uses {0}")]
    InUse(PathBuf),
    /// A file of the store cannot be read or written.
    #[error("cannot read or write {path}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The local endpoints cannot be opened.
    #[error("cannot listen on {listen}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The broker's address is not one.
    #[error("`{0}` is not the address of a broker")]
    Broker(String),
    /// A part of the agent could not be opened, or failed for good.
    #[error("{part} does not work: {reason}")]
    Part {
        /// Which part.
        part: &'static str,
        /// What it said.
        reason: String,
    },
}

macro_rules! part {
    ($error:ty, $part:literal) => {
        impl From<$error> for SupervisorError {
            fn from(error: $error) -> Self {
                Self::Part { part: $part, reason: crate::verify::with_cause(&error) }
            }
        }
    };
}
part!(JournalError, "journal");
part!(SlotError, "store of images");
part!(SpoolError, "spool");
part!(OriginError, "way to the fleet server");
part!(TrustError, "trust metadata");

/// Workers, and tasks about them, by model.
#[derive(Debug, Default)]
struct Workers {
    /// Tasks of an attempt.
    jobs: BTreeMap<ModelName, AbortHandle>,
    /// Starts of a worker for what is live, or to go back to.
    starts: BTreeMap<ModelName, AbortHandle>,
    /// Watchers of running workers.
    watchers: BTreeMap<(ModelName, Digest), AbortHandle>,
    /// Ready, and not live yet.
    warm: BTreeMap<ModelName, Live>,
    /// Beside what is live.
    shadows: BTreeMap<ModelName, shadow::Beside>,
    /// Swapped out, and still warm.
    kept: BTreeMap<ModelName, swap::Kept>,
    /// Live images whose worker has ended.
    dead: BTreeSet<ModelName>,
    /// What all of them may hold; none for no limit.
    budget: Option<Budget>,
}

impl Workers {
    fn new(budget: Option<Budget>) -> Self {
        Self { budget, ..Self::default() }
    }
}

/// The agent.
struct Supervisor {
    setup: Setup,
    me: Me,
    clock: Clock,
    /// Where the device stands, for maintenance windows.
    zone: TimeZone,
    device: Device,
    journal: Journal,
    slots: Slots,
    spool: Spool,
    switchboard: Switchboard,
    serving: ServeThread,
    origin: Origin,
    downloads: Downloads,
    reserve: Reserve,
    endpoint: Option<String>,
    certificate: Identity,
    renewal: Schedule,
    /// Where the link looks for its TLS settings.
    tls: watch::Sender<Arc<ClientConfig>>,
    health: Health,

    inputs: mpsc::Sender<Input>,
    keeper: mpsc::Sender<keeper::Question>,
    session: Option<Session>,
    /// The highest number that was handed to this connection.
    sent: u64,
    sent_at: UnixMillis,

    workers: Workers,
    denied: Denied,
    halts: Halts,
    captures: Captures,
    memory: Memory,
    requests: Requests,
    jobs: Jobs,
    /// How far the trust metadata have been followed.
    trusted: Option<Trusted>,

    last_message: Option<Digest>,
    last_refusal: Option<(Digest, String)>,
    /// Codes and images that people were told of since the agent started, so that they are told once.
    told: BTreeSet<(String, Digest)>,
    /// What people were told of since the agent started, the newest last.
    troubles: VecDeque<DiagnosisTrouble>,
    last_report: Option<Report>,
    /// Since when a report is due, or from when on it will be.
    report_due: Option<UnixMillis>,
    is_birth_due: bool,
    /// Alarms that may still be sent in this hour.
    alarms_left: u32,
    alarms_refilled_at: UnixMillis,
    restarts: u32,
    dropped_told: u64,
    next_poll: UnixMillis,
    next_beat: UnixMillis,
}

/// Runs an agent until `stop` is cancelled.
pub async fn run(mut setup: Setup, stop: CancellationToken) -> Result<(), SupervisorError> {
    // Workers run in directories of their own.
    setup.store = std::fs::canonicalize(&setup.store)
        .map_err(|source| SupervisorError::Disk { path: setup.store.clone(), source })?;
    let _lock = open::lock(&setup.store)?;
    let (supervisor, channels) = open::open(setup)?;
    supervisor.run(channels, stop).await
}

/// The ends of the queues that the supervisor reads.
struct Channels {
    inputs: mpsc::Receiver<Input>,
    link: mpsc::Receiver<LinkEvent>,
    served: Option<JoinHandle<io::Result<()>>>,
    /// Ends with the queues.
    exporting: Option<AbortOnDropHandle<()>>,
}

impl Supervisor {
    async fn run(
        mut self,
        mut channels: Channels,
        stop: CancellationToken,
    ) -> Result<(), SupervisorError> {
        self.tell_the_time()?;
        self.obey_owner()?;
        self.obey_kept_halt()?;
        self.follow_kept_captures();
        self.feed(Event::Started)?;
        self.enforce()?;
        let tick = self.setup.crowd.as_ref().map_or(TICK, Crowd::tick);
        let mut ticks = tokio::time::interval(tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let report_rests = self.report_rests();
            tokio::select! {
                () = sleep(report_rests.unwrap_or_default()), if report_rests.is_some() => {}
                Some(input) = channels.inputs.recv() => self.on_input(input)?,
                event = channels.link.recv() => match event {
                    Some(event) => self.on_link(event)?,
                    None => return Err(ended("link to the broker")),
                },
                _ = ticks.tick() => self.on_tick()?,
                () = stop.cancelled() => break,
            }
            if channels.served.as_ref().is_some_and(JoinHandle::is_finished) {
                return Err(ended("local endpoints"));
            }
            self.settle()?;
        }
        self.shut_down(channels).await;
        Ok(())
    }

    /// Gives the device an event and carries out what it says, with everything that follows from that at once.
    fn feed(&mut self, event: Event) -> Result<(), SupervisorError> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.clock.steady();
            for effect in self.device.on(event, now) {
                events.extend(self.carry_out(effect)?);
            }
        }
        // Without room for a shorter one, the long journal does.
        if self.journal.is_long()
            && let Err(error) = self.journal.compact(&self.device.entries())
        {
            tracing::warn!(%error, "journal is not shortened");
        }
        Ok(())
    }

    /// Carries out one effect. What it brings about at once is returned.
    fn carry_out(&mut self, effect: Effect) -> Result<Option<Event>, SupervisorError> {
        drill::pass("effect");
        match effect {
            Effect::Record(entry) => self.record(&entry)?,
            Effect::Cancel { model } => self.cancel(&model),
            Effect::Start { model, ticket, task } => return Ok(self.start(model, ticket, task)),
            Effect::Serve { model, image, after_ms } => {
                return Ok(self.serve(model, image, after_ms));
            }
            Effect::Alarm { model, image, fault } => self.alarm(model, image, &fault)?,
            Effect::Report => self.owe_report(),
        }
        Ok(None)
    }

    /// Writes to the journal; on a full disk, into the reserve.
    fn record(&mut self, entry: &Entry) -> Result<(), SupervisorError> {
        if let Entry::Directive { issued_at, .. } = entry {
            self.clock.raise_floor(*issued_at);
        }
        let Err(error) = self.journal.append(entry) else { return Ok(()) };
        tracing::warn!(%error, "journal cannot be written, its reserve is given up");
        self.reserve.give_up();
        Ok(self.journal.append(entry)?)
    }

    fn on_input(&mut self, input: Input) -> Result<(), SupervisorError> {
        match input {
            Input::Message(message) => self.on_message(message),
            Input::Halt(message) => return self.on_halt(message),
            Input::Capture(message) => return self.on_capture(message),
            Input::Again { message, followed } => return self.on_again(&message, followed),
            Input::Directors(directors, until) => self.halts.trust(directors, until),
            Input::Worked(worked) => return self.deliver(*worked),
            Input::Accepted(directive) => {
                let generation = directive.get().generation;
                tracing::info!(%generation, "directive accepted");
                return self.feed(Event::Directive(directive));
            }
            Input::NotAccepted { message, why } => return self.on_not_accepted(message, why),
            Input::Answer { model, ticket, answer } => {
                return self.feed(Event::Answer { model, ticket, answer });
            }
            Input::Worker { model, purpose, ready } => {
                if let Some(event) = self.on_worker(&model, purpose, ready) {
                    return self.feed(event);
                }
            }
            Input::Lie { model, image, fault } => return self.alarm(model, image, &fault),
            Input::Denied(images) => {
                self.denied.images = images;
                return self.enforce();
            }
            Input::Trusted(trusted) => {
                self.trusted = Some(*trusted);
                self.owe_report();
            }
            Input::Refreshed(refreshed) => return self.on_refreshed(refreshed),
            Input::MustRenew => self.renewal.ask_now(),
            Input::Renewed(renewed) => self.on_renewed(renewed),
            Input::Exited { model, image, reason } => return self.on_exited(model, image, reason),
        }
        Ok(())
    }

    fn on_link(&mut self, event: LinkEvent) -> Result<(), SupervisorError> {
        match event {
            LinkEvent::Connected(session) => self.on_connected(session)?,
            LinkEvent::Disconnected => self.session = None,
            LinkEvent::Message { topic, payload } => match topic {
                Topic::Down(_, _, Down::Directive) => self.on_message(payload.to_vec()),
                Topic::Down(_, _, Down::Ack) => self.on_ack(&payload),
                // The deny list may have changed, and the directive with it.
                Topic::Broadcast(_, Broadcast::Trust) => {
                    self.denied.hear(&payload);
                    let spread_ms = i64::from(crate::verify::spread_permille()) * HINT_SPREAD;
                    self.next_poll = self.clock.steady().plus(spread_ms);
                }
                Topic::Broadcast(_, Broadcast::Halt) => self.on_halt(payload.to_vec())?,
                Topic::Broadcast(_, Broadcast::Capture) => self.on_capture(payload.to_vec())?,
                Topic::Down(_, _, Down::Request) => self.on_request(payload.to_vec())?,
                Topic::Up(..) => {}
            },
        }
        Ok(())
    }

    /// Looks for what the device's owner has said.
    fn obey_owner(&mut self) -> Result<(), SupervisorError> {
        self.feed(Event::Held(crate::hold::read(&self.setup.store, self.clock.now())))
    }

    /// What the clocks show here. A clock that cannot be right says nothing: the steady one goes on from where that stood.
    fn tell_the_time(&mut self) -> Result<(), SupervisorError> {
        let (reading, steady) = (self.clock.read(), self.clock.steady());
        let is_trusted = reading.is_trusted;
        let ahead_ms = if is_trusted { reading.now.since(steady) } else { 0 };
        let zone = self.zone.clone();
        self.feed(Event::Clock(Local { zone, ahead_ms, is_trusted }))
    }

    fn on_tick(&mut self) -> Result<(), SupervisorError> {
        self.tell_the_time()?;
        self.obey_owner()?;
        let now = self.clock.steady();
        self.tell_shadows(now)?;
        self.feed(Event::Tick)?;
        self.retire_kept(now);
        self.doubt_the_clock()?;
        self.judge()?;
        self.enforce()?;
        self.renew_if_due(now);
        if self.next_poll <= now {
            self.poll(now);
        }
        self.observe(now)?;
        if let Some(watchdog) = &self.setup.watchdog {
            watchdog.alive();
        }
        Ok(())
    }

    /// Says once that the device's clock cannot be right: what is signed is then believed by its version alone.
    fn doubt_the_clock(&mut self) -> Result<(), SupervisorError> {
        if self.clock.read().is_trusted
            || !self.told.insert(("clock.behind".to_owned(), Digest::of(&[])))
        {
            return Ok(());
        }
        tracing::warn!("the clock shows a time before what was verified here; set it");
        let reason = "the device's clock shows a time that is over; newest versions count, whatever their date";
        self.tell(&Fault::new(FaultKind::Failed, "clock.behind", reason), Severity::Warning, None)
    }

    /// Sends what has become due.
    fn settle(&mut self) -> Result<(), SupervisorError> {
        if self.is_birth_due && self.session.is_some() {
            self.birth()?;
        }
        if let Some(since) = self.report_due.filter(|due| *due <= self.clock.steady()) {
            self.switchboard.withdraw(self.device.withdrawn());
            self.share_memory();
            self.report(since)?;
        }
        self.pump();
        Ok(())
    }

    /// Feeds the device what the live images have answered so far.
    fn judge(&mut self) -> Result<(), SupervisorError> {
        let models: Vec<_> = self.device.serving().map(|(model, _)| model.clone()).collect();
        for model in models {
            let Some(live) = self.switchboard.live(&model) else { continue };
            let counters = live.counters();
            let (requests, errors) = (counters.requests, counters.errors);
            let image = live.image().index;
            self.feed(Event::Counted { model, image, requests, errors })?;
        }
        self.judge_behaviour()
    }

    /// Stops in good order: no request is dropped, and everything that was said is on disk.
    async fn shut_down(mut self, channels: Channels) {
        self.workers.jobs.values().chain(self.workers.starts.values()).for_each(AbortHandle::abort);
        if let Err(error) = self.last_words() {
            tracing::warn!(%error, "last windows were not kept");
        }
        if let Some(session) = self.session.take() {
            session.close();
            let mut link = channels.link;
            let goodbye = async {
                while !matches!(link.recv().await, Some(LinkEvent::Disconnected) | None) {}
            };
            // A broker that does not answer sends the last will instead.
            let _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
        }
        let kept = std::mem::take(&mut self.workers.kept).into_values().map(|kept| kept.live);
        self.switchboard.all().iter().for_each(|live| self.memory.remember(live));
        for live in self.switchboard.all().into_iter().chain(kept) {
            self.switchboard.swap(&live.model().clone(), None);
            let _ = tokio::time::timeout(Duration::from_secs(3), live.retire()).await;
        }
        if let Some(served) = channels.served {
            served.abort();
        }
        drop(channels.exporting);
        tracing::info!("agent stopped");
    }
}

fn ended(part: &'static str) -> SupervisorError {
    SupervisorError::Part { part, reason: "its task has ended".to_owned() }
}

/// What may be without a receipt at the same time.
const WINDOW: u64 = IN_FLIGHT_MAX as u64;
