//! Connections of applications: HTTP/1.1 and HTTP/2 on one port, told apart by how they begin; without TLS for those beside the agent, and
//! with TLS on another port for those elsewhere.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Service;

use super::endpoint::Endpoint;
use super::switchboard::Switchboard;
use super::tls::Certificates;
use super::{http, unix};

/// Connections at once, of each kind; more wait in the kernel. Each takes a descriptor and some kilobytes.
const CONNECTIONS_MAX: usize = 256;

/// From the connection, or the answer before, to the end of a request's header.
const HEADER_MAX: Duration = Duration::from_secs(30);

/// Questions at once on one connection of HTTP/2, as many as may be in flight at all.
const STREAMS_MAX: u32 = 64;

/// How much of bodies a connection of HTTP/2 takes before the other end must wait for leave; small windows make large tensors slow.
const WINDOW_BYTES: u32 = 4 << 20;

/// A pause after a connection was not accepted: descriptors are given back by others, not by trying again at once.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Routes of all protocols over HTTP.
pub fn router(board: Switchboard) -> Router {
    http::router(Endpoint::new(board))
}

/// Where applications come in.
#[derive(Debug)]
pub struct Doors {
    /// Without TLS.
    pub plain: TcpListener,
    /// The Unix socket.
    pub socket: Option<UnixListener>,
    /// With TLS.
    pub tls: Option<(TcpListener, Certificates)>,
}

/// Answers at all doors until one of them fails for good or the future is dropped.
pub async fn listen(doors: Doors, board: Switchboard) -> io::Result<()> {
    let Doors { plain, socket, tls } = doors;
    let endpoint = Endpoint::new(board);
    let router = http::router(endpoint.clone());
    let at_socket = async {
        match socket {
            Some(socket) => unix::serve(socket, endpoint).await,
            None => std::future::pending().await,
        }
    };
    let over_tls = async {
        match tls {
            Some((listener, certificates)) => {
                serve_http(listener, router.clone(), Some(Arc::new(certificates))).await
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = serve_http(plain, router.clone(), None) => ended,
        ended = at_socket => ended,
        ended = over_tls => ended,
    }
}

/// Room for another connection, given back when it ends.
pub(super) async fn room(connections: &Arc<Semaphore>) -> io::Result<OwnedSemaphorePermit> {
    Arc::clone(connections).acquire_owned().await.map_err(io::Error::other)
}

/// Connections that may be open at once.
pub(super) fn connections() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(CONNECTIONS_MAX))
}

/// A connection that could not be accepted is its own misfortune, or a lack of descriptors that passes.
pub(super) async fn not_accepted(error: &io::Error) {
    tracing::warn!(%error, "connection of an application was not accepted");
    tokio::time::sleep(REFUSED_PAUSE).await;
}

async fn serve_http(
    listener: TcpListener,
    router: Router,
    tls: Option<Arc<Certificates>>,
) -> io::Result<()> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_MAX);
    builder
        .http2()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let connections = connections();
    loop {
        let room = room(&connections).await?;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                not_accepted(&error).await;
                continue;
            }
        };
        // A held-back last packet would cost a client 40 ms.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "answers on a connection may be held back");
        }
        let (builder, router, tls) = (builder.clone(), router.clone(), tls.clone());
        tokio::spawn(async move {
            match tls {
                None => serve_connection(builder, router, stream).await,
                Some(certificates) => {
                    if let Some(stream) = certificates.accept(stream).await {
                        serve_connection(builder, router, stream).await;
                    }
                }
            }
            drop(room);
        });
    }
}

async fn serve_connection<S>(builder: Builder<TokioExecutor>, router: Router, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| router.clone().call(request));
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(error, "connection of an application ended early");
    }
}
