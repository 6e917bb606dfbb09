//! Accepts connections, plain or TLS, and serves a router on them; tells each request who is at the other end.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use sealift_protocol::id::UnixMillis;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::Layer as _;
use tower::util::MapRequestLayer;

use crate::certificate::{Identity, Presented, Whose};
use crate::signals::Signals;

/// Connections to one port at a time, about 30 KB each. Devices connect for a request or a download, not for ever.
const CONNECTIONS_MAX: usize = 4_096;

/// TLS handshakes at a time, about 1 ms of work each: more would only make all of them late, and whoever else waits for the processor.
const HANDSHAKES_MAX: usize = 128;

/// Time for which a handshake has its turn; a slower one goes on, while the next begins.
const TURN_MAX: Duration = Duration::from_secs(1);

/// Time for the TLS handshake, and for the wait until it is its turn.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Time to send the head of a request: slow ones do not hold connections.
const HEAD_MAX: Duration = Duration::from_secs(20);

/// Time that requests in flight have when the server stops.
const GRACE: Duration = Duration::from_secs(3);

/// Who is at the other end of a connection; an extension of each request.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// The address it comes from.
    pub(crate) address: SocketAddr,
    /// The device certificate that it showed, if any.
    pub(crate) certificate: Option<Presented>,
    /// Whom it was let in as, and when; of this connection.
    admitted: Arc<Mutex<Option<(Identity, UnixMillis)>>>,
}

impl Peer {
    fn new(address: SocketAddr, certificate: Option<Presented>) -> Self {
        Self { address, certificate, admitted: Arc::default() }
    }

    /// Whom it was let in as less than `within_ms` ago.
    pub(crate) fn admitted(&self, now: UnixMillis, within_ms: i64) -> Option<Identity> {
        let admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        let (identity, at) = admitted.as_ref()?;
        (0..within_ms).contains(&now.since(*at)).then(|| identity.clone())
    }

    /// Remembers that it was let in.
    pub(crate) fn admit(&self, identity: Identity, now: UnixMillis) {
        *self.admitted.lock().unwrap_or_else(PoisonError::into_inner) = Some((identity, now));
    }
}

/// What ends connections early.
#[derive(Debug, Clone)]
pub(crate) struct Until {
    /// The server stops.
    pub(crate) stop: CancellationToken,
    /// The device at the other end is revoked.
    pub(crate) signals: Signals,
}

impl Until {
    /// Waits for the device to be revoked; for ever, if it is none.
    async fn revoked(&self, peer: &Peer) {
        let mut revoked = self.signals.revoked();
        let Some(Presented { whose: Whose::Device(identity), .. }) = &peer.certificate else {
            return std::future::pending().await;
        };
        loop {
            match revoked.recv().await {
                Ok(device) if device != identity.device => (),
                // With signals lost it may have been this one: it connects again, if it may.
                Ok(_) | Err(RecvError::Lagged(_) | RecvError::Closed) => return,
            }
        }
    }
}

/// Where TLS begins.
#[derive(Clone)]
pub(crate) struct Door {
    acceptor: TlsAcceptor,
    turns: Arc<Semaphore>,
}

impl Door {
    /// With so many handshakes at a time.
    pub(crate) fn new(config: Arc<ServerConfig>, handshakes_max: usize) -> Self {
        let turns = Arc::new(Semaphore::new(handshakes_max));
        Self { acceptor: TlsAcceptor::from(config), turns }
    }

    /// Waits for its turn, and shakes hands. Whoever has said nothing yet is not in turn: a crowd that only connects keeps nobody waiting.
    pub(crate) async fn open(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        stream.peek(&mut [0]).await?;
        let turn = self.turns.acquire().await.map_err(io::Error::other)?;
        let shaken = self.acceptor.accept(stream);
        tokio::pin!(shaken);
        if let Ok(shaken) = timeout(TURN_MAX, &mut shaken).await {
            return shaken;
        }
        drop(turn);
        shaken.await
    }
}

/// Binds a port.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves `router` until `stop`, then lets requests in flight finish for a moment.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    until: Until,
) {
    let Until { stop, signals } = until;
    let door = tls.map(|tls| Door::new(tls, HANDSHAKES_MAX));
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &room) => accepted,
        };
        let Some((stream, address, permit)) = accepted else { continue };
        let (door, router) = (door.clone(), router.clone());
        let until = Until { stop: stop.clone(), signals: signals.clone() };
        connections.spawn(async move {
            connection(stream, address, door, router, until).await;
            drop(permit);
        });
    }
    let finished = async { while connections.join_next().await.is_some() {} };
    if timeout(GRACE, finished).await.is_err() {
        tracing::info!("connections cut short at the end");
    }
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> Option<Accepted> {
    let permit = Arc::clone(room).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, address)) => Some((stream, address, permit)),
        Err(error) => {
            // Mostly too many open files: others must close first.
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    door: Option<Door>,
    router: Router,
    until: Until,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let Some(door) = door else {
        return exchange(stream, Peer::new(address, None), router, until).await;
    };
    match timeout(HANDSHAKE_MAX, door.open(stream)).await {
        Ok(Ok(stream)) => {
            let chain = stream.get_ref().1.peer_certificates();
            let certificate = chain.and_then(|chain| Presented::read(chain.first()?));
            exchange(stream, Peer::new(address, certificate), router, until).await;
        }
        Ok(Err(error)) => tracing::info!(%address, %error, "TLS handshake refused"),
        Err(_) => tracing::debug!(%address, "TLS handshake too slow"),
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: Peer,
    router: Router,
    until: Until,
) {
    let shown = peer.clone();
    let with_peer = MapRequestLayer::new(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(shown.clone());
        request.map(Body::new)
    });
    let service = with_peer.layer(router);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(64);
    let exchange =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(exchange);
    let ended = tokio::select! {
        ended = &mut exchange => ended,
        () = until.revoked(&peer) => return, // and a download that is under way with it
        () = until.stop.cancelled() => {
            exchange.as_mut().graceful_shutdown();
            exchange.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs;
    use rustls::server::ResolvesServerCertUsingSni;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn door() -> Door {
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
        Door { acceptor: TlsAcceptor::from(Arc::new(config)), turns: Arc::new(Semaphore::new(1)) }
    }

    #[tokio::test]
    async fn attack_a_crowd_that_only_connects_takes_no_turn() {
        let (door, listener) = (door(), bind(([127, 0, 0, 1], 0).into()).await.unwrap());
        let mut silent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let opening = door.clone();
        let opening = tokio::spawn(async move { opening.open(stream).await.map(drop) });

        tokio::task::yield_now().await;

        assert_eq!(door.turns.available_permits(), 1);
        silent.write_all(&[0x16]).await.unwrap();
        let begun = async {
            while door.turns.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(HANDSHAKE_MAX, begun).await.expect("its turn comes once it has begun");
        drop(silent);
        assert!(opening.await.unwrap().is_err());
    }
}
