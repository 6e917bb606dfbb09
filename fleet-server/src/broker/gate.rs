//! Between any broker and the store: who is it, may it, store it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use sealift_protocol::codec;
use sealift_protocol::id::UnixMillis;
use sealift_protocol::topic::Up;

use super::access::{self, Connect, Filter, Refusal};
use super::budget::Budget;
use crate::certificate::Identity;
use crate::clock;
use crate::ingest::Ingest;
use crate::metrics::Metrics;
use crate::store::certificates::Worth;
use crate::store::{Store, StoreError};

/// One security event of a kind and device in this time: a device that tries a thousand times a second is one event a minute.
const QUIET_MS: i64 = 60_000;

/// Devices and kinds remembered for that; beyond it the oldest are forgotten.
const REMEMBERED_MAX: usize = 10_000;

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Committed; the encoded receipt, if one is due.
    Stored(Option<Vec<u8>>),
    /// Not the device's to send.
    Refused,
    /// The store did not take it.
    NotStored,
}

/// Decides on connections, subscriptions and messages; cheap to clone.
#[derive(Clone)]
pub(crate) struct Gate {
    store: Store,
    ingest: Ingest,
    metrics: Metrics,
    budget: Arc<Budget>,
    quiet: Arc<Mutex<BTreeMap<(Identity, &'static str), UnixMillis>>>,
}

impl Gate {
    /// A gate in front of `store`.
    pub(crate) fn new(store: Store, ingest: Ingest, metrics: Metrics) -> Self {
        let (budget, quiet) = Default::default();
        Self { store, ingest, metrics, budget, quiet }
    }

    /// Whether a client may connect: it is who its certificate says, and the certificate is the device's present one.
    pub(super) async fn connect(&self, given: Connect<'_>, serial: Option<&str>) -> bool {
        let identity = match access::identify(given) {
            Ok(identity) => identity,
            Err((Some(identity), refusal)) => {
                self.report(&identity, &refusal).await;
                return false;
            }
            Err((None, refusal)) => {
                tracing::info!(code = refusal.code(), "connection refused");
                return false;
            }
        };
        match self.stands(&identity, serial).await {
            Ok(Ok(())) => true,
            Ok(Err(refusal)) => {
                self.report(&identity, &refusal).await;
                false
            }
            Err(error) => {
                tracing::error!(%error, "cannot look up a device that connects");
                false
            }
        }
    }

    /// What a device subscribes to; none if it may not.
    pub(super) async fn subscribe(&self, identity: &Identity, filter: &str) -> Option<Filter> {
        match access::may_subscribe(identity, filter) {
            Ok(filter) => Some(filter),
            Err(refusal) => {
                self.report(identity, &refusal).await;
                None
            }
        }
    }

    /// Stores a message that a device sent; one that comes too fast waits first.
    pub(super) async fn publish(
        &self,
        identity: &Identity,
        topic: &str,
        payload: &[u8],
        is_retained: bool,
    ) -> Verdict {
        let wait = self.budget.take(identity, payload.len(), clock::now());
        if !wait.is_zero() {
            self.metrics.count_message("slowed");
            tokio::time::sleep(wait).await;
        }
        let allowed = access::may_publish(identity, topic).and_then(|channel| {
            if is_retained {
                access::may_retain(channel, topic)?;
            }
            Ok(channel)
        });
        match allowed {
            Ok(channel) => self.take(identity, channel, payload).await,
            Err(refusal) => {
                self.report(identity, &refusal).await;
                Verdict::Refused
            }
        }
    }

    /// Stores a message that came through a broker which knows the sender's certificate; whether that is still good is asked here.
    pub(super) async fn publish_relayed(
        &self,
        identity: &Identity,
        channel: Up,
        payload: &[u8],
    ) -> Verdict {
        match self.is_good(identity).await {
            Ok(true) => self.take(identity, channel, payload).await,
            Ok(false) => {
                self.report(identity, &Refusal::Standing).await;
                Verdict::Refused
            }
            Err(error) => {
                tracing::error!(%error, "cannot look up a device that sends");
                Verdict::NotStored
            }
        }
    }

    async fn take(&self, identity: &Identity, channel: Up, payload: &[u8]) -> Verdict {
        let device = &identity.device;
        let channel_name = channel.as_str();
        match self.ingest.accept(identity, channel, payload, clock::now()).await {
            Ok(ack) => {
                self.metrics.count_message("stored");
                Verdict::Stored(ack.and_then(|ack| codec::encode(&ack).ok()))
            }
            Err(error) if error.is_refusal() => {
                self.metrics.count_message("refused");
                tracing::info!(%device, channel = channel_name, %error, "message refused");
                Verdict::Refused
            }
            Err(error) => {
                self.metrics.count_message("failed");
                tracing::error!(%device, channel = channel_name, %error, "message not stored");
                Verdict::NotStored
            }
        }
    }

    async fn is_good(&self, identity: &Identity) -> Result<bool, StoreError> {
        let papers = self.store.tenant(&identity.tenant).papers(&identity.device).await?;
        Ok(papers.is_some_and(|papers| !papers.is_revoked()))
    }

    /// Rule: the certificate is the device's present one, or the next one, which thereby becomes the present one.
    async fn stands(
        &self,
        Identity { tenant, device }: &Identity,
        serial: Option<&str>,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let store = self.store.tenant(tenant);
        let (Some(serial), Some(papers)) = (serial, store.papers(device).await?) else {
            return Ok(Err(Refusal::Standing));
        };
        match papers.worth(serial) {
            Worth::Present => Ok(Ok(())),
            Worth::Next => {
                let taken = store.take_into_use(device, serial, clock::now()).await?;
                Ok(if taken { Ok(()) } else { Err(Refusal::Standing) })
            }
            Worth::Superseded | Worth::Revoked => Ok(Err(Refusal::Standing)),
        }
    }

    /// In a box: whoever is not refused, and waits for a commit among thousands, has no room for it.
    async fn report(&self, identity: &Identity, refusal: &Refusal) {
        Box::pin(self.note(identity, refusal.code(), &refusal.to_string())).await;
    }

    /// Writes a security event about a device, once a minute for each code.
    pub(crate) async fn note(&self, identity: &Identity, code: &'static str, text: &str) {
        let now = clock::now();
        if !self.is_news(identity, code, now) {
            return;
        }
        let device = &identity.device;
        tracing::warn!(%device, code, text, "device refused");
        match self.store.tenant(&identity.tenant).papers(device).await {
            Ok(Some(_)) => (),
            // A device that was never enrolled has no timeline; the log has it.
            Ok(None) => return,
            Err(error) => return tracing::error!(%error, "cannot look up a device"),
        }
        let recorded = self.ingest.security_event(identity, code, text, now).await;
        if let Err(error) = recorded {
            tracing::error!(%device, code, %error, "security event not stored");
        }
    }

    fn is_news(&self, identity: &Identity, code: &'static str, now: UnixMillis) -> bool {
        // The map holds plain times, so a panic elsewhere leaves it usable.
        let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        if quiet.len() >= REMEMBERED_MAX {
            quiet.retain(|_, at| now.since(*at) < QUIET_MS);
        }
        if quiet.len() >= REMEMBERED_MAX {
            quiet.clear();
        }
        let last = quiet.get(&(identity.clone(), code)).copied();
        let is_news = last.is_none_or(|at| now.since(at) >= QUIET_MS);
        if is_news {
            quiet.insert((identity.clone(), code), now);
        }
        is_news
    }
}
