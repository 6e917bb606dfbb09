//! Asks the server itself, now and then, for what the broker should have brought.

use sealift_protocol::id::UnixMillis;
use sealift_protocol::limits::DIRECTIVE_BYTES_MAX;

use super::{Input, Supervisor, capturing, halted, renew};

impl Supervisor {
    /// Asks for directive, halts and captures over HTTPS: the broker may have lost them.
    pub(super) fn poll(&mut self, now: UnixMillis) {
        let spread_permille = i64::from(crate::verify::spread_permille());
        let period_ms = i64::from(self.setup.config.poll_s) * 1_000;
        self.next_poll = now.plus(period_ms / 2 + period_ms * spread_permille / 1_000);
        self.ask_for_the_deny_list();
        let (origin, inputs) = (self.origin.clone(), self.inputs.clone());
        tokio::spawn(async move {
            // The list first: what it names must not be begun.
            if let Some(halt) = halted::fetch(&origin).await {
                drop(inputs.send(halt).await);
            }
            if let Some(capture) = capturing::fetch(&origin).await {
                drop(inputs.send(capture).await);
            }
            match origin.get("/directive", DIRECTIVE_BYTES_MAX).await {
                // The supervisor may have gone meanwhile.
                Ok(Some(message)) => drop(inputs.send(Input::Message(message)).await),
                Ok(None) => tracing::debug!("no directive for this device"),
                Err(error) => {
                    tracing::info!(%error, "directive cannot be fetched");
                    if renew::is_asked_for(&error) {
                        drop(inputs.send(Input::MustRenew).await);
                    }
                }
            }
        });
    }
}
