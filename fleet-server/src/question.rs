//! Puts questions to devices, and waits for what they say.
//!
//! ```text
//!  operator ──▶ ask ── row, audit ──▶ store ◀── answer: MQTT (ingest) or HTTPS, at whichever server ── device
//!                └──── signed, d/{device}/request ──▶ broker ──▶ device            │
//!  operator ◀── wait: signal of this server, or a look at the row ◀────────────────┘
//! ```
//!
//! The one thing that is sent and waited for, instead of desired and reported: nothing on the device changes by it, and whoever asks is there
//! to see that no answer came. A server that dies meanwhile loses the question, and nothing else.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::DefaultClock;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use sealift_protocol::api::{DeviceState, DeviceView};
use sealift_protocol::codec::{self, CodecError};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, UnixMillis};
use sealift_protocol::limits::INPUT_HERE_BYTES_MAX;
use sealift_protocol::request::{Answer, Ask, Batch, InvalidAnswer, Nonce, Outcome};
use sealift_protocol::topic::{Down, Topic};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

use crate::audit::Deed;
use crate::broker::{Broker, BrokerError, Message};
use crate::directive::Director;
use crate::signals::Signals;
use crate::store::requests::RequestRow;
use crate::store::{StoreError, TenantStore};

/// Questions that are waited for at a time by one server: each holds a connection, and maybe an input.
const WAITING_MAX: usize = 16;

/// Questions to one device that it has not answered; it works on two at a time.
const OPEN_MAX: u64 = 4;

/// Questions of one operator: one a second, and some at once, as a page does.
const A_SECOND: NonZeroU32 = NonZeroU32::MIN;
const AT_ONCE: u32 = 20;

/// Operators whose questions are counted; beyond that those are forgotten who have not asked lately.
const OPERATORS_MAX: usize = 1_000;

/// A device answers within 18 seconds, or says that it cannot.
const WAIT_MAX: Duration = Duration::from_secs(19);

/// The answer may have come to another server on the same database.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Until then a device may begin with it: clocks differ, and a broker holds messages back.
const LIFE_MS: i64 = 2 * 60_000;

/// Whoever asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    /// An operator.
    pub(crate) name: &'a str,
    /// Their own name for the question: asked twice, it is asked once.
    pub(crate) idempotency: Option<&'a str>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// It is not there to be asked.
    #[error("device {0} is offline")]
    Offline(DeviceId),
    /// It may not be asked.
    #[error("device {0} is revoked")]
    Revoked(DeviceId),
    /// It does not say anything.
    #[error("device {0} has not answered within {wait_s} s", wait_s = WAIT_MAX.as_secs())]
    Silent(DeviceId),
    /// Too many questions, of everybody or to this device.
    #[error("too many questions wait for their answers: {0}")]
    Busy(&'static str),
    /// The same name was given to another question.
    #[error("another question was asked by this Idempotency-Key")]
    Idempotency,
    /// What came is no answer at all.
    #[error("device {0} has sent what is no answer")]
    Invalid(DeviceId, #[source] InvalidAnswer),
    /// It was not sent.
    #[error("the question was not sent")]
    Broker(#[from] BrokerError),
    /// The store does not work.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The question cannot be written, or no random number be had.
    #[error("the question cannot be made")]
    Made(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<CodecError> for NoAnswer {
    fn from(error: CodecError) -> Self {
        Self::Made(error.into())
    }
}

/// Asks devices; cheap to clone.
#[derive(Clone)]
pub(crate) struct Questions {
    store: TenantStore,
    broker: Broker,
    director: Arc<Director>,
    signals: Signals,
    waiting: Arc<Semaphore>,
    rates: Arc<RateLimiter<String, HashMapStateStore<String>, DefaultClock>>,
}

impl Questions {
    /// Asks the devices of `store` over `broker`.
    pub(crate) fn new(
        store: TenantStore,
        broker: Broker,
        director: Arc<Director>,
        signals: Signals,
    ) -> Self {
        let at_once = NonZeroU32::new(AT_ONCE).unwrap_or(A_SECOND);
        let quota = Quota::per_second(A_SECOND).allow_burst(at_once);
        let (waiting, rates) = (Semaphore::new(WAITING_MAX), RateLimiter::hashmap(quota));
        let (waiting, rates) = (Arc::new(waiting), Arc::new(rates));
        Self { store, broker, director, signals, waiting, rates }
    }

    /// The tenant's part of the store.
    pub(crate) const fn store(&self) -> &TenantStore {
        &self.store
    }

    /// Asks a device and waits for its answer. `input` is what `ask` names, if that is too long for a message.
    pub(crate) async fn ask(
        &self,
        asker: Asker<'_>,
        device: &DeviceView,
        (ask, input): (Ask, &[u8]),
        now: UnixMillis,
    ) -> Result<Outcome, NoAnswer> {
        let id = &device.id;
        match device.state {
            DeviceState::Online | DeviceState::Unhealthy => {}
            DeviceState::Offline => return Err(NoAnswer::Offline(id.clone())),
            DeviceState::Revoked => return Err(NoAnswer::Revoked(id.clone())),
        }
        self.check_rate(asker)?;
        let of_server = NoAnswer::Busy("try again in some seconds");
        let _room = self.waiting.try_acquire().map_err(|_| of_server)?;
        let until = Instant::now() + WAIT_MAX;
        let nonce = match self.note(asker, id, (&ask, input), now).await? {
            Noted::Before(nonce) => nonce,
            Noted::New(nonce) => {
                self.send(asker, id, (nonce, ask), now)?;
                nonce
            }
        };
        let bytes = self.wait(nonce, until).await?.ok_or_else(|| NoAnswer::Silent(id.clone()))?;
        let answer = Answer::decode(&bytes).map_err(|it| NoAnswer::Invalid(id.clone(), it))?;
        Ok(answer.outcome)
    }

    fn check_rate(&self, asker: Asker<'_>) -> Result<(), NoAnswer> {
        if self.rates.len() > OPERATORS_MAX {
            self.rates.retain_recent();
        }
        let checked = self.rates.check_key(&asker.name.to_owned());
        checked.map_err(|_| NoAnswer::Busy("you ask faster than once a second"))
    }

    /// Writes down who asks what, without the input, before it is asked.
    async fn note(
        &self,
        asker: Asker<'_>,
        device: &DeviceId,
        (ask, input): (&Ask, &[u8]),
        now: UnixMillis,
    ) -> Result<Noted, NoAnswer> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| NoAnswer::Made(Box::new(error)))?;
        let nonce = Nonce::new(random);
        let fingerprint = Digest::of(&codec::encode(&(device, ask))?);
        let mut change = self.store.begin().await?;
        if let Some(name) = asker.idempotency
            && let Some((before, of)) = change.named_request(asker.name, name).await?
        {
            return if of == fingerprint {
                Ok(Noted::Before(before))
            } else {
                Err(NoAnswer::Idempotency)
            };
        }
        if change.open_requests(device, now).await? >= OPEN_MAX {
            return Err(NoAnswer::Busy("this device has not answered those of before"));
        }
        let row = RequestRow {
            nonce,
            device: device.clone(),
            actor: asker.name.to_owned(),
            idempotency: asker.idempotency.map(str::to_owned),
            fingerprint,
            asked_at: now,
            expires_at: now.plus(LIFE_MS),
            input: (input.len() > INPUT_HERE_BYTES_MAX).then(|| input.to_vec()),
        };
        change.add_request(row).await?;
        let action = match ask {
            Ask::Infer(_) => "device.infer",
            Ask::Logs(_) => "device.logs",
            Ask::Diagnose => "device.diagnose",
            Ask::Batch(Batch::Run(_)) => "device.batch-run",
            Ask::Batch(Batch::List) => "device.batch-list",
            Ask::Batch(Batch::Cancel(_)) => "device.batch-cancel",
        };
        let detail = format!("{ask}, request {nonce}, {} bytes of input", input.len());
        let (actor, subject) = (asker.name, device.as_str());
        let deed = Deed { actor, action, subject, reason: None, detail: &detail };
        change.audit(&deed, now).await?;
        change.commit().await?;
        Ok(Noted::New(nonce))
    }

    fn send(
        &self,
        asker: Asker<'_>,
        device: &DeviceId,
        (nonce, ask): (Nonce, Ask),
        now: UnixMillis,
    ) -> Result<(), NoAnswer> {
        let window = (now, now.plus(LIFE_MS));
        let payload = self.director.sign_request(device, (nonce, ask), window, asker.name)?;
        let topic = Topic::Down(self.store.tenant().clone(), device.clone(), Down::Request);
        tracing::info!(%device, %nonce, by = asker.name, "device is asked");
        Ok(self.broker.publish(Message { topic, payload, retain: false })?)
    }

    /// The answer, if it comes by `until`; to this server or to another one on the same database.
    async fn wait(&self, nonce: Nonce, until: Instant) -> Result<Option<Vec<u8>>, NoAnswer> {
        loop {
            // Listening begins before the look: what comes in between is heard.
            let heard = self.signals.answers().notified();
            tokio::pin!(heard);
            heard.as_mut().enable();
            if let Some(answer) = self.store.answer(nonce).await? {
                return Ok(Some(answer));
            }
            let now = Instant::now();
            if now >= until {
                return Ok(None);
            }
            tokio::select! {
                () = heard => {}
                () = sleep_until(until.min(now + LOOK_EVERY)) => {}
            }
        }
    }
}

/// A question that was written down.
enum Noted {
    New(Nonce),
    /// Asked before by the same name.
    Before(Nonce),
}
