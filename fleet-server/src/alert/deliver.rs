//! Sends alerts to channels, and tries again until they arrive.
//!
//! ```text
//!  deliveries ──due──▶ claim ──▶ open the sealed destination ──▶ webhook │ slack │ smtp │ alertmanager ──▶ log
//!                                                                                       ▲ every minute, while active
//! ```

mod adopt;
mod alertmanager;
mod message;
mod place;
mod slack;
mod smtp;
mod webhook;

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use sealift_protocol::api::{AlertView, Destination};
use sealift_protocol::id::UnixMillis;
use tokio::time::sleep;

pub(crate) use adopt::adopt;
pub(crate) use message::{Verb, message_id, test_alert};
pub(crate) use place::{Inside, Network};
pub(crate) use webhook::{is_secret, new_secret};

use crate::auth::{Purpose, Seal};
use crate::clock;
use crate::store::channels::{Channel, Delivery, Due};
use crate::store::{StoreError, TenantStore};

/// Messages sent to one channel in one turn.
const ROUNDS: u32 = 20;
/// Between two looks for messages that are due.
const EVERY: Duration = Duration::from_secs(1);
/// Tries of one message: the last comes about a day after the first.
const ATTEMPTS_MAX: u64 = 16;
/// The first pause; each further one is twice as long.
const PAUSE_MS: i64 = 5_000;
/// The longest pause.
const PAUSE_MAX_MS: i64 = 6 * 3_600 * 1_000;
/// A message that somebody has begun to send is left to them for this long: several servers share one queue.
const CLAIMED_MS: i64 = 60_000;
/// Characters of an outcome in the log.
const OUTCOME_CHARS_MAX: usize = 300;

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsent {
    /// Not a URL with a host.
    #[error("not an HTTP address")]
    Address,
    /// What was sealed cannot be opened with this server's key.
    #[error("what the channel needs cannot be read with this server's key; add it again")]
    Sealed,
    /// A name that leads nowhere.
    #[error("the name of the receiver cannot be resolved")]
    Name(#[source] std::io::Error),
    /// A place where an attacker would like the server to call.
    #[error(
        "{0} is a loopback, link-local or private address, which the configuration does not allow \
         (`allow_networks` in `[alerts]`)"
    )]
    Forbidden(IpAddr),
    /// Nothing came back in time.
    #[error("the receiver took longer than {} s", place::TIMEOUT.as_secs())]
    Late,
    /// The call itself.
    #[error("the receiver cannot be reached")]
    Call(#[source] reqwest::Error),
    /// An answer that is no success.
    #[error("the receiver answered {0}")]
    Status(reqwest::StatusCode),
    /// A mail that cannot be written, such as to an address that is none.
    #[error("the mail cannot be written")]
    Letter(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The mail server.
    #[error("the mail server did not take the mail")]
    Mail(#[source] lettre::transport::smtp::Error),
}

impl Unsent {
    /// What happened and why, on one line.
    pub(crate) fn in_words(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        let plain = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
        plain.take(OUTCOME_CHARS_MAX).collect()
    }
}

/// Sends what is queued; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Dispatch {
    store: TenantStore,
    seal: Seal,
    inside: Inside,
    /// Where operators look, for links.
    url: String,
}

/// What is sent together.
pub(super) struct Parcel<'a> {
    /// The messages, oldest first; never none.
    deliveries: &'a [Delivery],
    /// The mail with which each alert was first told of, if it was.
    threads: Vec<Option<String>>,
    /// The operators' URL.
    url: &'a str,
    /// Whose alerts they are.
    tenant: &'a str,
    now: UnixMillis,
}

impl Dispatch {
    /// Sends for one tenant.
    pub(crate) fn new(store: TenantStore, seal: Seal, inside: Inside, url: &str) -> Self {
        Self { store, seal, inside, url: url.trim_end_matches('/').to_owned() }
    }

    /// Sends what is due, and keeps Alertmanagers up to date; never returns.
    pub(crate) async fn run(self) {
        tokio::join!(self.send_queued(), alertmanager::keep_active(&self));
    }

    async fn send_queued(&self) {
        loop {
            if let Err(error) = self.turn(clock::now()).await {
                tracing::error!(error = &error as &dyn std::error::Error, "alerts wait");
            }
            sleep(EVERY).await;
        }
    }

    /// Serves the channels side by side: one that is slow holds up no other for longer than a call may take.
    pub(crate) async fn turn(&self, now: UnixMillis) -> Result<(), StoreError> {
        for _ in 0..ROUNDS {
            let mut claimed = Vec::new();
            for due in self.store.due_deliveries(now).await? {
                let mut change = self.store.begin().await?;
                let due = change.claim(due, now.plus(CLAIMED_MS)).await?;
                change.commit().await?;
                claimed.extend(due);
            }
            let calls = claimed.iter().map(async |due| (due, self.send(due, now).await));
            let outcomes = join_all(calls).await;
            let has_arrived = outcomes.iter().any(|(_, outcome)| outcome.is_ok());
            for (due, outcome) in outcomes {
                self.note(due, outcome, now).await?;
            }
            if !has_arrived {
                break;
            }
        }
        Ok(())
    }

    /// Sends one message at once, whatever waits, and notes what became of it. It must be claimed.
    pub(crate) async fn send_now(&self, due: &Due, now: UnixMillis) -> Result<(), StoreError> {
        let outcome = self.send(due, now).await;
        let mut change = self.store.begin().await?;
        match &outcome {
            Ok(thread) => change.finish_deliveries(due, &arrived(now), thread.as_deref()).await?,
            Err(unsent) => change.give_up_deliveries(due, &failed(unsent, now)).await?,
        }
        change.commit().await
    }

    /// Returns the id of the mail, if it is one.
    async fn send(&self, due: &Due, now: UnixMillis) -> Result<Option<String>, Unsent> {
        let destination = self.open(&due.channel)?;
        let threads = self.threads(due).await;
        let parcel = Parcel {
            deliveries: &due.deliveries,
            threads,
            url: &self.url,
            tenant: self.store.id(),
            now,
        };
        match destination {
            Destination::Webhook { url, secret } => {
                let secret = secret.unwrap_or_default();
                webhook::send(&self.inside, (&url, &secret), &parcel).await.map(|()| None)
            }
            Destination::Slack { url } => {
                slack::send(&self.inside, &url, &parcel).await.map(|()| None)
            }
            Destination::Smtp(mail) => smtp::send(&self.inside, &mail, &parcel).await.map(Some),
            Destination::Alertmanager { url, username, password } => {
                let door = alertmanager::Door { url, username, password };
                alertmanager::send(&self.inside, &door, &parcel).await.map(|()| None)
            }
        }
    }

    fn open(&self, channel: &Channel) -> Result<Destination, Unsent> {
        let owner = channel.id.to_string();
        let text = self.seal.open(Purpose::Channel, &owner, &channel.destination);
        serde_json::from_str(&text.ok_or(Unsent::Sealed)?).map_err(|_| Unsent::Sealed)
    }

    /// A mail whose thread cannot be looked up begins a new one.
    async fn threads(&self, due: &Due) -> Vec<Option<String>> {
        let mut threads = Vec::new();
        for delivery in &due.deliveries {
            let thread = match delivery.alert {
                Some(alert) => self.store.thread_of(due.channel.id, alert).await.unwrap_or(None),
                None => None,
            };
            threads.push(thread);
        }
        threads
    }

    async fn note(
        &self,
        due: &Due,
        outcome: Result<Option<String>, Unsent>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let channel = &due.channel.name;
        let attempt = due.attempt();
        let mut change = self.store.begin().await?;
        match outcome {
            Ok(thread) => change.finish_deliveries(due, &arrived(now), thread.as_deref()).await?,
            Err(unsent) if attempt + 1 >= ATTEMPTS_MAX => {
                let why = unsent.in_words();
                tracing::warn!(channel, why, "message given up; `fleetctl notify log` lists it");
                let outcome = format!("{now}: given up: {why}");
                change.give_up_deliveries(due, &outcome).await?;
            }
            Err(unsent) => {
                let due_at = now.plus(pause_ms(attempt));
                let outcome = format!("{}; tried again at {due_at}", failed(&unsent, now));
                change.retry_deliveries(due, due_at, &outcome).await?;
            }
        }
        change.commit().await
    }
}

fn arrived(now: UnixMillis) -> String {
    format!("{now}: delivered")
}

fn failed(unsent: &Unsent, now: UnixMillis) -> String {
    format!("{now}: {}", unsent.in_words())
}

fn pause_ms(attempt: u64) -> i64 {
    let doublings = u32::try_from(attempt).unwrap_or(u32::MAX);
    let factor = 2_i64.checked_pow(doublings).unwrap_or(i64::MAX);
    PAUSE_MS.saturating_mul(factor).min(PAUSE_MAX_MS)
}

/// Seals what a channel needs to send.
pub(crate) fn sealed(
    seal: &Seal,
    id: u64,
    destination: &Destination,
) -> Result<String, crate::auth::AuthError> {
    // The type has string keys alone, so that it can always be written.
    let text = serde_json::to_string(destination).unwrap_or_default();
    seal.seal(Purpose::Channel, &id.to_string(), &text)
}

/// Where a channel sends to, for people who may see channels but not secrets: the rest of an address may be one.
pub(crate) fn shown(destination: &Destination) -> Result<String, Unsent> {
    let host = |url: &str| {
        let url = place::address(url)?;
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        Ok(format!("{}://{}{port}/…", url.scheme(), url.host_str().unwrap_or_default()))
    };
    match destination {
        Destination::Webhook { url, .. }
        | Destination::Slack { url }
        | Destination::Alertmanager { url, .. } => host(url),
        Destination::Smtp(mail) => {
            smtp::check(mail)?;
            Ok(format!("{}:{} to {}", mail.host, mail.port, mail.to.join(", ")))
        }
    }
}

/// Whether an alert is of the channel.
pub(crate) fn concerns(channel: &Channel, alert: &AlertView) -> bool {
    use super::matcher::all_hold;
    let is_grave = super::severity(&alert.severity) >= channel.least;
    is_grave && all_hold(&channel.matchers, alert)
}

#[cfg(test)]
mod tests;
