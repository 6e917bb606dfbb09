//! What goes down to devices: signed directives, hints that trust changed, and the end of connections that may not be.

use std::time::Duration;

use sealift_protocol::codec;
use sealift_protocol::id::{DeviceId, Generation, UnixMillis};
use sealift_protocol::topic::{Broadcast, Down, Topic};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep;

use super::{Broker, BrokerError, Message};
use crate::clock;
use crate::signals::Signals;
use crate::store::desired::Unpublished;
use crate::store::{StoreError, TenantStore};

/// A lost signal delays a directive by this at most.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Devices that were revoked this lately are looked for again and again.
const REVOKED_LATELY_MS: i64 = 2 * 60_000;

/// Directives read at a time.
const PAGE: u32 = 500;

/// Directives published before it is noted. Noting waits for whoever else writes, and devices should not; what was published and not
/// noted is published again.
const UNNOTED_MAX: usize = 4_000;

/// Brings one tenant's messages to the broker; cheap to clone.
#[derive(Clone)]
pub(crate) struct Courier {
    store: TenantStore,
    broker: Broker,
    signals: Signals,
}

#[derive(Debug, thiserror::Error)]
enum CourierError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl Courier {
    /// A courier from `store` to `broker`.
    pub(crate) const fn new(store: TenantStore, broker: Broker, signals: Signals) -> Self {
        Self { store, broker, signals }
    }

    /// Publishes whatever the broker does not have, and ends the connections of revoked devices; never returns.
    pub(crate) async fn run(self) {
        let (mut memories, mut revoked) = (self.broker.memories(), self.signals.revoked());
        let mut known = 0;
        loop {
            let memory = *memories.borrow_and_update();
            if let Err(error) = self.deliver(memory != known).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "directives wait");
            } else {
                known = memory;
            }
            if let Err(error) = self.end_unwelcome(clock::now()).await {
                tracing::error!(%error, "cannot look up whose connections must end");
            }
            tokio::select! {
                () = self.signals.directives().notified() => (),
                () = sleep(LOOK_EVERY) => (),
                Ok(()) = memories.changed() => (),
                device = revoked.recv() => self.end(device).await,
            }
        }
    }

    /// Tells every device of the tenant the newest timestamp. One that misses the hint finds out by itself, later.
    pub(crate) fn hint(&self, timestamp: u64) {
        let topic = Topic::Broadcast(self.store.tenant().clone(), Broadcast::Trust);
        let payload = match codec::encode(&timestamp) {
            Ok(payload) => payload,
            Err(error) => return tracing::error!(%error, "trust hint not encoded"),
        };
        if let Err(error) = self.broker.publish(Message { topic, payload, retain: true }) {
            tracing::warn!(%error, "trust hint not published");
        }
    }

    async fn deliver(&self, is_forgetful: bool) -> Result<(), CourierError> {
        if is_forgetful {
            let mut change = self.store.begin().await?;
            change.mark_all_unpublished().await?;
            change.mark_halt_unpublished().await?;
            change.mark_captures_unpublished().await?;
            change.commit().await?;
            if let Some(timestamp) = self.store.metadata_head().await? {
                self.hint(timestamp);
            }
        }
        self.deliver_captures().await?;
        let mut after: Option<DeviceId> = None;
        let mut published = Vec::new();
        loop {
            // Before each page: a halt waits for no directive.
            self.deliver_halt().await?;
            let page = self.store.unpublished_directives(after.as_ref(), PAGE).await?;
            if page.is_empty() || published.len() >= UNNOTED_MAX {
                self.note_published(&std::mem::take(&mut published)).await?;
            }
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.device.clone());
            for Unpublished { device, generation, body } in page {
                published.push((device.clone(), generation));
                let topic = Topic::Down(self.store.tenant().clone(), device, Down::Directive);
                self.broker.publish(Message { topic, payload: body, retain: true })?;
            }
        }
    }

    async fn note_published(
        &self,
        directives: &[(DeviceId, Generation)],
    ) -> Result<(), StoreError> {
        if directives.is_empty() {
            return Ok(());
        }
        let mut change = self.store.begin().await?;
        change.mark_published(directives).await?;
        change.commit().await?;
        tracing::debug!(directives = directives.len(), "directives published");
        Ok(())
    }

    /// Publishes the list of halted rollouts, if the broker does not have the newest one.
    async fn deliver_halt(&self) -> Result<(), CourierError> {
        let Some((sequence, payload)) = self.store.unpublished_halt().await? else {
            return Ok(());
        };
        let topic = Topic::Broadcast(self.store.tenant().clone(), Broadcast::Halt);
        self.broker.publish(Message { topic, payload, retain: true })?;
        let mut change = self.store.begin().await?;
        change.mark_halt_published(sequence).await?;
        change.commit().await?;
        tracing::info!(sequence, "list of halted rollouts published");
        Ok(())
    }

    /// Publishes the list of what devices keep, if the broker does not have the newest one.
    async fn deliver_captures(&self) -> Result<(), CourierError> {
        let Some((sequence, payload)) = self.store.unpublished_captures().await? else {
            return Ok(());
        };
        let topic = Topic::Broadcast(self.store.tenant().clone(), Broadcast::Capture);
        self.broker.publish(Message { topic, payload, retain: true })?;
        let mut change = self.store.begin().await?;
        change.mark_captures_published(sequence).await?;
        change.commit().await?;
        tracing::info!(sequence, "capture list published");
        Ok(())
    }

    async fn end(&self, device: Result<DeviceId, RecvError>) {
        match device {
            Ok(device) => self.kick(&device).await,
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "connections of revoked devices end at the next look");
            }
            // The signals live as long as this task.
            Err(RecvError::Closed) => (),
        }
    }

    /// Looks again: a signal may have been lost, a device may have come back through a broker that does not know yet, and certificates
    /// expire while their connections last.
    async fn end_unwelcome(&self, now: UnixMillis) -> Result<(), StoreError> {
        for device in self.store.unwelcome_devices(now.plus(-REVOKED_LATELY_MS), now).await? {
            self.kick(&device).await;
        }
        Ok(())
    }

    async fn kick(&self, device: &DeviceId) {
        match self.broker.kick(self.store.tenant(), device).await {
            Ok(()) => tracing::info!(%device, "connection ended, if there was one"),
            Err(error) => tracing::error!(%device, %error, "device may still be connected"),
        }
    }
}
