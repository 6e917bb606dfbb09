//! Threads of their own for what people wait for: however many devices come at once, the system gives these their share.

use std::future::Future;
use std::net;
use std::thread;

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use super::ServerError;

/// Threads that answer people.
const THREADS: usize = 2;

/// Takes a socket from the runtime that bound it, for another one.
pub(super) fn socket(listener: TcpListener) -> Result<net::TcpListener, ServerError> {
    listener.into_std().map_err(|source| failed("the operators' port", source))
}

/// Runs a task on threads of its own. What is returned ends with it.
pub(super) fn on_own_threads<F: Future<Output = ()>>(
    name: &'static str,
    task: impl FnOnce() -> F + Send + 'static,
) -> Result<impl Future<Output = ()> + Send + 'static, ServerError> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(|source| failed(name, source))?;
    let (ended, end) = oneshot::channel::<()>();
    let run = move || {
        runtime.block_on(task());
        drop(ended);
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|source| failed(name, source))?;
    // A sender that is gone is the end, in peace or by a panic.
    Ok(async move { end.await.unwrap_or_default() })
}

fn failed(part: &'static str, source: std::io::Error) -> ServerError {
    ServerError::Part { part, source: source.into() }
}
