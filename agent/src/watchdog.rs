//! Tells the service manager that the agent still turns; one that hangs is killed and started again.
//!
//! The protocol is that of `sd_notify(3)`: a datagram `WATCHDOG=1` to the socket that the service manager names. It is sent by the
//! supervisor's own loop and by nobody else: a task beside it would go on saying that all is well while the loop hangs.

use std::future::Future;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// While the agent waits for its approval, its loop does not turn yet.
const INTERVAL: Duration = Duration::from_secs(5);

/// The way to the service manager. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Watchdog(Arc<UnixDatagram>);

impl Watchdog {
    /// Opens the way to the socket that the variable `NOTIFY_SOCKET` names: a path, or a name that begins with `@`.
    pub fn open(socket: &Path) -> io::Result<Self> {
        let address = match socket.as_os_str().as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(socket)?,
        };
        let datagrams = UnixDatagram::unbound()?;
        datagrams.connect_addr(&address)?;
        // A service manager that does not read must not stop the agent.
        datagrams.set_nonblocking(true)?;
        Ok(Self(Arc::new(datagrams)))
    }

    /// Says that the agent is alive.
    pub(crate) fn alive(&self) {
        if let Err(error) = self.0.send(b"WATCHDOG=1") {
            tracing::debug!(%error, "service manager was not told");
        }
    }

    /// Waits for `work`, and says meanwhile that the agent is alive.
    pub async fn beside<F: Future>(watchdog: Option<&Self>, work: F) -> F::Output {
        let mut work = std::pin::pin!(work);
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = ticks.tick() => watchdog.into_iter().for_each(Self::alive),
            }
        }
    }
}
