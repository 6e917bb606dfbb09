//! The MQTT broker inside the server: for its devices, and for nobody else.
//!
//! ```text
//! session (one connection) ── gate ──▶ ingest ──▶ store          acknowledged after the commit
//!    ▲ mailbox (what waits for one device) ◀── hall ◀── Embedded::publish
//! ```
//! A device has two filters, and nothing that devices say goes to devices: what a broker for everybody spends on routes, queues and
//! stored sessions is not needed here (docs/adr/0026). Nothing relies on the broker's memory; what it retains is published anew at each
//! start.
//!
//! It runs on threads of its own. A fleet that comes at once is thousands of handshakes, a millisecond of work each, and whoever shared
//! their queue would wait behind all of them: operators, and the writer of the store.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder as Threads, Handle, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use self::hall::Hall;
use self::session::{Lobby, Session};
use super::gate::Gate;
use super::{BrokerError, Message};
use crate::certificate::{Identity, Presented};
use crate::listen::Door;
use crate::tls;

mod hall;
mod mailbox;
mod session;
mod wire;

/// Time for TLS, CONNECT and the store's word on it, so that half-open connections do not pile up. Where a whole fleet comes at once it
/// is the wait for one's turn, too.
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);

/// Handshakes at a time: 200 P-256 handshakes take two cores less than a second.
const HANDSHAKES_MAX: usize = 500;

/// Connections at a time, about 25 KB each.
const CONNECTIONS_MAX: usize = 100_000;

/// Connections that wait to be accepted, as far as the system allows: when a whole fleet comes at once, whoever finds no place here tries
/// again after one, three and seven seconds.
const BACKLOG: u32 = 4_096;

/// A pause after a connection was not accepted: descriptors are given back by others, not by trying again at once.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// The running broker.
#[derive(Clone)]
pub(super) struct Embedded {
    hall: Arc<Hall>,
    /// Lives and dies with this process: one memory, empty at first.
    memory: Arc<watch::Sender<u64>>,
    /// Ends with the last of these.
    _threads: Arc<OwnThreads>,
}

/// The threads that the broker runs on.
struct OwnThreads {
    handle: Handle,
    /// Taken when they end.
    runtime: Option<Runtime>,
}

impl OwnThreads {
    fn start() -> Result<Self, BrokerError> {
        let runtime = Threads::new_multi_thread().thread_name("broker").enable_all().build();
        let runtime = runtime.map_err(BrokerError::Threads)?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Drop for OwnThreads {
    fn drop(&mut self) {
        // To wait for them would block whoever drops the broker, and there is nothing to wait for: all is in the store.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Files of the broker's TLS, PEM.
#[derive(Debug)]
pub(crate) struct TlsFiles {
    /// Certificate chain.
    pub(crate) certificate: PathBuf,
    /// Private key.
    pub(crate) key: PathBuf,
    /// The CA of the devices.
    pub(crate) device_ca: PathBuf,
}

impl Embedded {
    /// Binds and starts; the task ends only when the broker does.
    pub(super) fn start(
        address: SocketAddr,
        files: &TlsFiles,
        gate: Gate,
    ) -> Result<(Self, SocketAddr, JoinHandle<()>), BrokerError> {
        let config = tls::broker_config(&files.certificate, &files.key, &files.device_ca)?;
        let threads = OwnThreads::start()?;
        let (listener, bound) = {
            // A socket belongs to the threads on which it is bound.
            let _own = threads.handle.enter();
            bind(address).map_err(|source| BrokerError::Bind { address, source })?
        };
        let hall = Arc::<Hall>::default();
        let lobby = Lobby { hall: Arc::clone(&hall), gate };
        let task = threads.handle.spawn(accept(listener, Door::new(config, HANDSHAKES_MAX), lobby));
        let memory = Arc::new(watch::Sender::new(1));
        Ok((Self { hall, memory, _threads: Arc::new(threads) }, bound, task))
    }

    /// Rises whenever the broker forgets everything.
    pub(super) fn memories(&self) -> watch::Receiver<u64> {
        self.memory.subscribe()
    }

    /// Publishes a message of the server's own.
    pub(super) fn publish(&self, message: Message) {
        self.hall.publish(message);
    }

    /// Ends the device's connection and session.
    pub(super) fn kick(&self, identity: &Identity) {
        self.hall.end(identity);
    }
}

fn bind(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Otherwise a quick restart finds its own address taken.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

async fn accept(listener: TcpListener, door: Door, lobby: Lobby) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a device's connection");
                tokio::time::sleep(REFUSED_PAUSE).await;
                continue;
            }
        };
        let (door, lobby) = (door.clone(), lobby.clone());
        tokio::spawn(async move {
            // In a box: the handshake is the larger part, and soon over.
            let begun = Box::pin(timeout(HANDSHAKE_MAX, begin(stream, address, door, lobby))).await;
            match begun {
                Ok(Some(session)) => session.run().await,
                Ok(None) => (), // it was told, or cannot be
                Err(_) => tracing::info!(%address, "no handshake in time"),
            }
            drop(permit);
        });
    }
}

async fn begin(
    stream: TcpStream,
    address: SocketAddr,
    door: Door,
    lobby: Lobby,
) -> Option<Session<TlsStream<TcpStream>>> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let stream = match door.open(stream).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::info!(%address, %error, "TLS handshake of a device refused");
            return None;
        }
    };
    let chain = stream.get_ref().1.peer_certificates();
    let certificate = chain.and_then(|chain| Presented::read(chain.first()?));
    Session::begin(stream, certificate.as_ref(), lobby).await
}
