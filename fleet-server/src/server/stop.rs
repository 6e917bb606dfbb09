//! How the server is told to end.

use tokio::signal::unix::{SignalKind, signal};

/// Waits for a signal to stop, from a terminal or a supervisor.
pub(super) async fn asked_to_stop() {
    let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    match (terminate, interrupt) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => (),
                _ = interrupt.recv() => (),
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "signals cannot be waited for; the server stops only when it is killed");
            std::future::pending::<()>().await;
        }
    }
}
