//! How an agent begins: its store, its identity, its way to the server, its endpoints.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use sealift_protocol::telemetry::SpoolId;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::behaviour::Memory;
use super::capturing::Captures;
use super::halted::Halts;
use super::keeper;
use super::requests::Requests;
use super::revoked::Denied;
use super::telemetry::ALARMS_MAX;
use super::{Channels, INPUTS_MAX, Input, Setup, Supervisor, SupervisorError, Workers};
use crate::asked::Taken;
use crate::clock::Clock;
use crate::device::{Device, Entry};
use crate::disk::{self, Reserve, Secrecy};
use crate::download::Downloads;
use crate::health::{self, Health};
use crate::identity::Identity;
use crate::jobs::Jobs;
use crate::journal::Journal;
use crate::kept::{self, Kept};
use crate::key;
use crate::limits::SPOOL_BYTES_MAX;
use crate::link::{self, Link, LinkEvent};
use crate::origin::Origin;
use crate::otlp::Exporter;
use crate::renewal::{self, Schedule};
use crate::serve::{self, Certificates, Doors, ServeThread, Switchboard};
use crate::slots::Slots;
use crate::spool::Spool;
use crate::trust::{self, Trust};
use crate::verify::Me;

/// Room that is given up when the disk is full, so that the journal can still be written.
const RESERVE_BYTES: usize = 256 << 10;

/// Two agents on one store would undo each other's work.
pub(super) fn lock(store: &Path) -> Result<std::fs::File, SupervisorError> {
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

/// Opens everything that an agent needs, and starts its tasks.
pub(super) fn open(setup: Setup) -> Result<(Supervisor, Channels), SupervisorError> {
    let (store, identity) = (setup.store.clone(), Identity::load(&setup.store)?);
    key::tidy(&store, &identity.key);
    let (journal, slots, device) = open_device(&store)?;
    // The fleet's authority signed the certificate at that time, or the server its newest directive.
    let floor = device.issued_at().max(*identity.valid().start());
    let clock = Clock::new(floor, setup.wall);
    let tls = identity.tls(&store, &trust::authorities(&store.join("tuf")), &clock)?;
    let spool = open_spool(&store, &clock)?;
    let origin = Origin::new(&identity.url, Arc::clone(&tls))?;
    let trust = Trust::open(&store.join("tuf"), origin.clone())?;
    let me = introduce(&setup, &identity);
    let (denied, trusted) = (Denied::new(trust.denied(), trust.announced()), Some(trust.trusted()));
    let reserve = Reserve::open(store.join("reserve"), RESERVE_BYTES);
    let (switchboard, serving) = (Switchboard::new(), open_thread(&setup)?);
    let (endpoint, served) = open_endpoint(&setup, (&switchboard, &serving), &reserve)?;
    let (inputs, inputs_end) = mpsc::channel(INPUTS_MAX);
    let keeper = keep(trust, &me, (&slots, &origin, &clock), &inputs);
    let (tls, tls_of_link) = watch::channel(tls);
    let link = open_link(&setup, &identity, tls_of_link, clock.clone())?;
    let downloads = Downloads::new(&setup.config, &origin, slots.clone(), clock.clone());
    let (now, asked) = (clock.steady(), Taken::read(&store, clock.now()));
    let captures = open_captures(&setup, &switchboard, (&me, &origin, &clock));
    let exporting = open_export(&setup, &me, (&switchboard, &clock));
    let jobs = start_jobs(&setup, (&origin, &clock));
    let supervisor = Supervisor {
        workers: Workers::new(setup.config.budget()),
        zone: setup.config.zone(),
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
        serving,
        origin,
        downloads,
        reserve,
        endpoint,
        renewal: Schedule::new(&identity.valid(), renewal::own_spread_permille(&identity)),
        certificate: identity,
        tls,
        health: Health::default(),
        inputs,
        keeper: keeper.start(),
        session: None,
        denied,
        halts: Halts::new(Kept::read(&store, kept::HALTS)),
        captures,
        jobs,
        memory: Memory::new(&store, now),
        requests: Requests::new(asked),
        trusted,
        last_message: None,
        last_refusal: None,
        told: BTreeSet::new(),
        troubles: VecDeque::new(),
        last_report: None,
        report_due: None,
        is_birth_due: false,
        alarms_left: ALARMS_MAX,
        alarms_refilled_at: now,
        restarts: 0,
        dropped_told: 0,
        next_poll: now,
        next_beat: now,
    };
    Ok((supervisor, Channels { inputs: inputs_end, link, served, exporting }))
}

fn start_jobs(setup: &Setup, (origin, clock): (&Origin, &Clock)) -> Jobs {
    let batches = setup.config.batch.directories.clone();
    Jobs::start(setup.store.clone(), batches, (clock.clone(), origin.clone()))
}

fn open_device(store: &Path) -> Result<(Journal, Slots, Device), SupervisorError> {
    let (journal, entries) = Journal::open(&store.join("journal"))?;
    let slots = Slots::open(store)?;
    let device = restore(entries, &slots)?;
    Ok((journal, slots, device))
}

fn keep(
    trust: Trust,
    me: &Me,
    (slots, origin, clock): (&Slots, &Origin, &Clock),
    inputs: &mpsc::Sender<Input>,
) -> keeper::Keeper {
    let (me, inputs) = (me.clone(), inputs.clone());
    let (slots, origin, clock) = (slots.clone(), origin.clone(), clock.clone());
    keeper::Keeper { trust, me, slots, origin, clock, inputs }
}

/// Who this device is and what it has, for itself and for the server.
fn introduce(setup: &Setup, identity: &Identity) -> Me {
    let me = Me {
        tenant: identity.tenant.clone(),
        device: identity.device.clone(),
        facts: health::facts(&setup.store, &setup.config, setup.crowd.is_some()),
        accelerators: health::accelerators(&setup.config),
        require_cosign: setup.config.require_cosign,
    };
    for gap in &me.facts.sandbox_gaps {
        tracing::warn!(gap, "kernel does not shut a model's process in completely");
    }
    me
}

/// What is captured lies on the disk and goes up by itself. Without room for it nothing is captured, and models are served all the same.
fn open_captures(
    setup: &Setup,
    switchboard: &Switchboard,
    (me, origin, clock): (&Me, &Origin, &Clock),
) -> Captures {
    let captor = switchboard.captor().clone();
    let whose = (me.tenant.clone(), me.device.clone());
    if let Err(error) = captor.open(&setup.store, whose, (origin.clone(), clock.clone())) {
        tracing::error!(%error, "nothing is captured: its place on the disk cannot be opened");
    }
    Captures::new(captor, Kept::read(&setup.store, kept::CAPTURES))
}

/// Metrics go out in a task of their own, if the owner has named a collector. Simulated devices have none: it would take them for one.
fn open_export(
    setup: &Setup,
    me: &Me,
    (switchboard, clock): (&Switchboard, &Clock),
) -> Option<AbortOnDropHandle<()>> {
    let settings = setup.config.otlp.clone().filter(|_| setup.crowd.is_none())?;
    let exporter = Exporter::new(settings, me, clock.clone());
    Some(AbortOnDropHandle::new(tokio::spawn(exporter.run(switchboard.clone()))))
}

fn open_spool(store: &Path, clock: &Clock) -> Result<Spool, SupervisorError> {
    let fresh = SpoolId(getrandom::u64().unwrap_or_else(|_| clock.now().0.unsigned_abs()));
    Ok(Spool::open(&store.join("spool"), SPOOL_BYTES_MAX, fresh)?)
}

/// The device that the journal tells of; without a journal, the one that the pointers show.
fn restore(entries: Vec<Entry>, slots: &Slots) -> Result<Device, SupervisorError> {
    let mut device = Device::restore(entries);
    if device == Device::default() {
        for pointer in slots.pointers()? {
            device.adopt(pointer.model, pointer.active, pointer.previous);
        }
    }
    Ok(device)
}

fn open_link(
    setup: &Setup,
    identity: &Identity,
    tls: watch::Receiver<Arc<rustls::ClientConfig>>,
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

fn open_thread(setup: &Setup) -> Result<ServeThread, SupervisorError> {
    if setup.crowd.is_some() {
        return Ok(ServeThread::borrowed());
    }
    let refused = |error: io::Error| SupervisorError::Part {
        part: "thread for requests",
        reason: error.to_string(),
    };
    ServeThread::start().map_err(refused)
}

fn open_endpoint(
    setup: &Setup,
    (switchboard, serving): (&Switchboard, &ServeThread),
    reserve: &Reserve,
) -> Result<Served, SupervisorError> {
    if setup.crowd.is_some() {
        return Ok((None, None));
    }
    // Connections belong to the runtime that their listener was made in.
    let _inside = serving.handle().enter();
    let (plain, address) = bind(setup.config.serve_listen)?;
    let url = format!("http://{address}");
    let tls = setup.config.serve_tls.clone().map(|files| {
        let (listener, address) = bind(files.listen)?;
        Ok::<_, SupervisorError>((
            (listener, Certificates::new(files)),
            format!("https://{address}"),
        ))
    });
    let (tls, tls_url) = tls.transpose()?.unzip();
    let run = setup.store.join("run");
    let socket_path = setup.config.serve_socket.clone().unwrap_or_else(|| run.join("infer.sock"));
    // Who knows the port can ask all the same: a full disk ends no model.
    if let Err(error) = disk::private_dir(&run) {
        tracing::error!(%error, run = %run.display(), "there is no directory for the endpoints");
    }
    let socket = open_socket(&socket_path, setup.config.serve_socket.is_some())?;
    let told = serde_json::json!({
        "http": url,
        "https": tls_url,
        "socket": socket.is_some().then(|| socket_path.display().to_string()),
        "pid": std::process::id(),
    });
    let doors = Doors { plain, socket, tls };
    let served = serving.handle().spawn(serve::listen(doors, switchboard.clone()));
    let (path, text) = (run.join("endpoint.json"), format!("{told}\n"));
    let written = reserve.spend(|| disk::replace(&path, text.as_bytes(), Secrecy::Public));
    if let Err(error) = written {
        tracing::error!(%error, path = %path.display(), "the address of the endpoint is not written");
    }
    tracing::info!(url, tls_url, "models are served");
    // Where others reach it is what the fleet should know.
    Ok((Some(tls_url.unwrap_or(url)), Some(served)))
}

fn bind(listen: SocketAddr) -> Result<(TcpListener, SocketAddr), SupervisorError> {
    let bound = std::net::TcpListener::bind(listen).and_then(|listener| {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, address))
    });
    bound.map_err(|source| SupervisorError::Listen { listen, source })
}

/// Opens the Unix socket in place of one that an earlier agent has left. Without room or with a path too long for a socket's name there
/// is none, unless the owner has named it.
fn open_socket(path: &Path, is_named: bool) -> Result<Option<UnixListener>, SupervisorError> {
    use std::os::unix::fs::FileTypeExt;
    let refused = |source| SupervisorError::Disk { path: path.to_owned(), source };
    if path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket()) {
        std::fs::remove_file(path).map_err(refused)?;
    }
    match UnixListener::bind(path) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if !is_named => {
            let path = path.display();
            tracing::warn!(%path, %error, "no Unix socket; name another path as serve_socket");
            Ok(None)
        }
        Err(error) => Err(refused(error)),
    }
}
