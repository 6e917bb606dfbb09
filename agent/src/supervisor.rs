//! The shell around [`Device`]: brings it events, carries out its effects in order, and keeps what these need alive.
//!
//! One task owns everything. Work that takes time runs in tasks of its own and answers through one bounded queue; when the supervisor
//! goes, so do they.

mod keeper;
mod swap;
mod telemetry;
#[cfg(test)]
mod tests;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sealift_protocol::digest::Digest;
use sealift_protocol::directive::VerifiedDirective;
use sealift_protocol::id::{ModelName, UnixMillis};
use sealift_protocol::telemetry::SpoolId;
use sealift_protocol::topic::{Broadcast, Down, Topic};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Config;
use crate::device::{Answer, Device, Effect, Event, Fault, Ticket};
use crate::health::{self, Health};
use crate::identity::{Identity, IdentityError};
use crate::journal::{Journal, JournalError};
use crate::limits::{IN_FLIGHT_MAX, SPOOL_BYTES_MAX};
use crate::link::{self, Link, LinkEvent, Session};
use crate::origin::{Origin, OriginError};
use crate::serve::{self, Live, Switchboard};
use crate::slots::{SlotError, Slots};
use crate::spool::{Spool, SpoolError};
use crate::trust::{Trust, TrustError};
use crate::verify::{Me, NotAccepted};

/// Answers and messages that wait for the supervisor; whoever has more waits.
const INPUTS_MAX: usize = 64;

/// Deadlines are looked at this often.
const TICK: Duration = Duration::from_millis(500);

/// Room that is given up when the disk is full, so that the journal can still be written.
const RESERVE_BYTES: u64 = 256 << 10;

/// How an agent is run.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The device's directory.
    pub store: PathBuf,
    /// What its owner set.
    pub config: Config,
    /// Whether it is one of many simulated devices: without local endpoints.
    pub is_simulated: bool,
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

/// What comes to the supervisor from its tasks.
#[derive(Debug)]
enum Input {
    /// A signed directive, by whatever way it came.
    Message(Vec<u8>),
    Accepted(VerifiedDirective),
    NotAccepted { message: Digest, why: NotAccepted },
    Answer { model: ModelName, ticket: Ticket, answer: Answer },
    /// A worker is ready, or is not.
    Worker { model: ModelName, purpose: Purpose, ready: Result<Live, Fault> },
    /// A worker ended by itself.
    Exited { model: ModelName, image: Digest, reason: String },
}

/// What a worker was started for.
#[derive(Debug, Clone)]
enum Purpose {
    /// A new image, not live yet.
    Warm(Ticket),
    /// The image to go back to.
    Revert(Ticket),
    /// The live image again.
    Serve(Digest),
}

/// A model's worker that was swapped out and is still warm.
#[derive(Debug)]
struct Kept {
    live: Live,
    until: UnixMillis,
}

/// The agent.
struct Supervisor {
    setup: Setup,
    me: Me,
    clock: Clock,
    device: Device,
    journal: Journal,
    slots: Slots,
    spool: Spool,
    switchboard: Switchboard,
    origin: Origin,
    endpoint: Option<String>,
    certificate: Identity,
    health: Health,

    inputs: mpsc::Sender<Input>,
    keeper: mpsc::Sender<keeper::Question>,
    session: Option<Session>,
    /// The highest number that was handed to this connection.
    sent: u64,
    sent_at: UnixMillis,

    /// Tasks of one model's attempt, of its live worker's restart, and watchers of running workers.
    jobs: BTreeMap<ModelName, AbortHandle>,
    starts: BTreeMap<ModelName, AbortHandle>,
    watchers: BTreeMap<(ModelName, Digest), AbortHandle>,
    /// Ready, and not live yet.
    warm: BTreeMap<ModelName, Live>,
    kept: BTreeMap<ModelName, Kept>,
    /// Live images whose worker has ended.
    dead: BTreeSet<ModelName>,

    last_message: Option<Digest>,
    last_refusal: Option<(Digest, String)>,
    last_report: Option<sealift_protocol::report::Report>,
    is_report_due: bool,
    restarts: u32,
    dropped_told: u64,
    next_poll: UnixMillis,
    next_beat: UnixMillis,
}

/// Runs an agent until `stop` is cancelled.
pub async fn run(setup: Setup, stop: CancellationToken) -> Result<(), SupervisorError> {
    let _lock = lock(&setup.store)?;
    let (supervisor, channels) = open(setup).await?;
    supervisor.run(channels, stop).await
}

/// Two agents on one store would undo each other's work.
fn lock(store: &Path) -> Result<std::fs::File, SupervisorError> {
    let path = store.join("lock");
    let at = |source| SupervisorError::Disk { path: path.clone(), source };
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(at)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| SupervisorError::InUse(store.to_owned()))?;
    Ok(file)
}

/// The ends of the queues that the supervisor reads.
struct Channels {
    inputs: mpsc::Receiver<Input>,
    link: mpsc::Receiver<LinkEvent>,
    served: Option<JoinHandle<io::Result<()>>>,
}

async fn open(setup: Setup) -> Result<(Supervisor, Channels), SupervisorError> {
    let store = setup.store.clone();
    let identity = Identity::load(&store)?;
    let tls = identity.tls(&store)?;
    let (journal, entries) = Journal::open(&store.join("journal"))?;
    let mut device = Device::restore(entries);
    let slots = Slots::open(&store)?;
    if device == Device::default() {
        for pointer in slots.pointers()? {
            device.adopt(pointer.model, pointer.active, pointer.previous);
        }
    }
    let clock = Clock::new(device.issued_at());
    let fresh = SpoolId(getrandom::u64().unwrap_or_else(|_| clock.now().0.unsigned_abs()));
    let spool = Spool::open(&store.join("spool"), SPOOL_BYTES_MAX, fresh)?;
    let origin = Origin::new(&identity.url, std::sync::Arc::clone(&tls))?;
    let trust = Trust::open(&store.join("tuf"), origin.clone())?;
    let me = Me {
        tenant: identity.tenant.clone(),
        device: identity.device.clone(),
        facts: health::facts(&store, &setup.config, setup.is_simulated),
        accelerators: health::accelerators(&setup.config),
    };
    let switchboard = Switchboard::new();
    let (endpoint, served) = open_endpoint(&setup, &switchboard).await?;
    let (inputs, inputs_end) = mpsc::channel(INPUTS_MAX);
    let keeper = keeper::Keeper {
        trust,
        me: me.clone(),
        slots: slots.clone(),
        origin: origin.clone(),
        clock: clock.clone(),
        inputs: inputs.clone(),
    };
    let link = open_link(&setup, &identity, tls, clock.clone())?;
    reserve(&store)?;
    let now = clock.steady();
    let supervisor = Supervisor {
        setup,
        me,
        clock,
        device,
        journal,
        slots,
        sent: 0,
        sent_at: now,
        spool,
        switchboard,
        origin,
        endpoint,
        certificate: identity,
        health: Health::default(),
        inputs,
        keeper: keeper.start(),
        session: None,
        jobs: BTreeMap::new(),
        starts: BTreeMap::new(),
        watchers: BTreeMap::new(),
        warm: BTreeMap::new(),
        kept: BTreeMap::new(),
        dead: BTreeSet::new(),
        last_message: None,
        last_refusal: None,
        last_report: None,
        is_report_due: false,
        restarts: 0,
        dropped_told: 0,
        next_poll: now,
        next_beat: now,
    };
    Ok((supervisor, Channels { inputs: inputs_end, link, served }))
}

fn open_link(
    setup: &Setup,
    identity: &Identity,
    tls: std::sync::Arc<rustls::ClientConfig>,
    clock: Clock,
) -> Result<mpsc::Receiver<LinkEvent>, SupervisorError> {
    let refused = || SupervisorError::Broker(identity.mqtt.clone());
    let (host, port) = link::address(&identity.mqtt).ok_or_else(refused)?;
    let link = Link {
        tenant: identity.tenant.clone(),
        device: identity.device.clone(),
        host,
        port,
        tls,
        will_delay_s: setup.config.will_delay_s,
        epoch_file: setup.store.join("epoch"),
        clock,
    };
    let (events, events_end) = mpsc::channel(INPUTS_MAX);
    // It ends when the supervisor's end of the queue is gone.
    tokio::spawn(link.run(events));
    Ok(events_end)
}

type Served = (Option<String>, Option<JoinHandle<io::Result<()>>>);

async fn open_endpoint(
    setup: &Setup,
    switchboard: &Switchboard,
) -> Result<Served, SupervisorError> {
    if setup.is_simulated {
        return Ok((None, None));
    }
    let listen = setup.config.serve_listen;
    let refused = |source| SupervisorError::Listen { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(refused)?;
    let url = format!("http://{}", listener.local_addr().map_err(refused)?);
    let router = serve::router(switchboard.clone());
    let served = tokio::spawn(async move { axum::serve(listener, router).await });
    let run = setup.store.join("run");
    let written = crate::disk::private_dir(&run).and_then(|()| {
        let text = format!("{{\"http\":\"{url}\",\"pid\":{}}}\n", std::process::id());
        let path = run.join("endpoint.json");
        crate::disk::replace(&path, text.as_bytes(), crate::disk::Secrecy::Public)
    });
    written.map_err(|source| SupervisorError::Disk { path: run, source })?;
    tracing::info!(url, "models are served");
    Ok((Some(url), Some(served)))
}

/// Keeps room for the journal on a disk that others fill.
fn reserve(store: &Path) -> Result<(), SupervisorError> {
    let path = reserve_path(store);
    let length = usize::try_from(RESERVE_BYTES).unwrap_or(0);
    if path.metadata().is_ok_and(|metadata| metadata.len() == RESERVE_BYTES) {
        return Ok(());
    }
    crate::disk::replace(&path, &vec![0x5a; length], crate::disk::Secrecy::Private)
        .map_err(|source| SupervisorError::Disk { path, source })
}

fn reserve_path(store: &Path) -> PathBuf {
    store.join("reserve")
}

impl Supervisor {
    async fn run(
        mut self,
        mut channels: Channels,
        stop: CancellationToken,
    ) -> Result<(), SupervisorError> {
        self.feed(Event::Started)?;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
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
        if self.journal.is_long() {
            self.journal.compact(&self.device.entries())?;
        }
        Ok(())
    }

    /// Carries out one effect. What it brings about at once is returned.
    fn carry_out(&mut self, effect: Effect) -> Result<Option<Event>, SupervisorError> {
        match effect {
            Effect::Record(entry) => self.record(&entry)?,
            Effect::Cancel { model } => self.cancel(&model),
            Effect::Start { model, ticket, task } => return Ok(self.start(model, ticket, task)),
            Effect::Serve { model, image, after_ms } => {
                return Ok(self.serve(model, image, after_ms));
            }
            Effect::Alarm { model, image, fault } => self.alarm(model, image, &fault)?,
            Effect::Report => self.is_report_due = true,
        }
        Ok(None)
    }

    /// Writes to the journal; on a full disk, into the reserve.
    fn record(&mut self, entry: &crate::device::Entry) -> Result<(), SupervisorError> {
        if let crate::device::Entry::Directive { issued_at, .. } = entry {
            self.clock.raise_floor(*issued_at);
        }
        let Err(error) = self.journal.append(entry) else { return Ok(()) };
        tracing::warn!(%error, "journal cannot be written, its reserve is given up");
        let path = reserve_path(&self.setup.store);
        crate::disk::remove(&path).map_err(|source| SupervisorError::Disk { path, source })?;
        Ok(self.journal.append(entry)?)
    }

    fn on_input(&mut self, input: Input) -> Result<(), SupervisorError> {
        match input {
            Input::Message(message) => self.on_message(message),
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
                Topic::Down(_, _, Down::Ack) => self.on_ack(&payload)?,
                // Trust has changed: what is being checked will see it, and the directive may have changed with it.
                Topic::Broadcast(_, Broadcast::Trust) => self.next_poll = self.clock.steady(),
                Topic::Down(_, _, Down::Request)
                | Topic::Broadcast(_, Broadcast::Halt)
                | Topic::Up(..) => {}
            },
        }
        Ok(())
    }

    fn on_tick(&mut self) -> Result<(), SupervisorError> {
        self.feed(Event::Tick)?;
        let now = self.clock.steady();
        self.retire_kept(now);
        self.judge()?;
        if self.next_poll <= now {
            self.poll(now);
        }
        self.observe(now)
    }

    /// Sends what has become due.
    fn settle(&mut self) -> Result<(), SupervisorError> {
        if self.is_report_due {
            self.is_report_due = false;
            self.report()?;
        }
        self.pump()
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
        Ok(())
    }

    /// Asks for the directive over HTTPS: the broker may have lost it.
    fn poll(&mut self, now: UnixMillis) {
        use sealift_protocol::limits::DIRECTIVE_BYTES_MAX;
        let spread_permille = i64::from(crate::verify::spread_permille());
        let period_ms = i64::from(self.setup.config.poll_s) * 1_000;
        self.next_poll = now.plus(period_ms / 2 + period_ms * spread_permille / 1_000);
        let (origin, inputs) = (self.origin.clone(), self.inputs.clone());
        tokio::spawn(async move {
            match origin.get("/directive", DIRECTIVE_BYTES_MAX).await {
                // The supervisor may have gone meanwhile.
                Ok(Some(message)) => drop(inputs.send(Input::Message(message)).await),
                Ok(None) => tracing::debug!("no directive for this device"),
                Err(error) => tracing::info!(%error, "directive cannot be fetched"),
            }
        });
    }

    /// Stops in good order: no request is dropped, and everything that was said is on disk.
    async fn shut_down(mut self, channels: Channels) {
        self.jobs.values().chain(self.starts.values()).for_each(AbortHandle::abort);
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
        let kept = std::mem::take(&mut self.kept).into_values().map(|kept| kept.live);
        for live in self.switchboard.all().into_iter().chain(kept) {
            self.switchboard.swap(&live.model().clone(), None);
            let _ = tokio::time::timeout(Duration::from_secs(3), live.retire()).await;
        }
        if let Some(served) = channels.served {
            served.abort();
        }
        tracing::info!("agent stopped");
    }
}

fn ended(part: &'static str) -> SupervisorError {
    SupervisorError::Part { part, reason: "its task has ended".to_owned() }
}

/// What may be without a receipt at the same time.
const WINDOW: u64 = IN_FLIGHT_MAX as u64;
