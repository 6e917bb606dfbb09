//! The thread on which applications are answered and workers are heard. With all of a request on one thread nothing has to wake another,
//! which would cost more than the request itself; and what the supervisor writes to disk holds no answer up.

use std::io;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The deepest task needs a fraction of it.
const STACK_BYTES: usize = 1 << 20;

/// Threads that hash images before their worker is started.
const FILE_THREADS_MAX: usize = 2;

/// Where requests are answered. What runs there ends when this is dropped.
#[derive(Debug)]
pub struct ServeThread {
    handle: Handle,
    /// Dropped, it ends the thread; none on a borrowed runtime.
    _stop: Option<oneshot::Sender<()>>,
}

impl ServeThread {
    /// A thread of its own.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .max_blocking_threads(FILE_THREADS_MAX)
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("serve".to_owned())
            .stack_size(STACK_BYTES)
            // Nothing is ever sent: the end of the sender is the word to stop.
            .spawn(move || drop(runtime.block_on(stopped)))?;
        Ok(Self { handle, _stop: Some(stop) })
    }

    /// The runtime of the caller, for the many simulated devices of one process, which answer nobody.
    pub fn borrowed() -> Self {
        Self { handle: Handle::current(), _stop: None }
    }

    /// Where to put what belongs to requests.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_runs_there_runs_on_one_thread_and_ends_with_it() {
        let serving = ServeThread::start().unwrap();
        let name = || std::thread::current().name().map(str::to_owned);
        let first = serving.handle().spawn(async move { name() }).await.unwrap();
        assert_eq!(first.as_deref(), Some("serve"));
        let endless = serving.handle().spawn(std::future::pending::<()>());

        drop(serving);

        assert!(endless.await.unwrap_err().is_cancelled());
    }
}
