//! Sends alerts to webhooks: a CloudEvents 1.0 body, signed as the Standard Webhooks specification says, tried again until it arrives.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::Url;
use sealift_protocol::api::AlertView;
use sealift_protocol::id::UnixMillis;
use serde_json::json;
use sha2::Sha256;
use tokio::time::sleep;

use crate::clock;
use crate::store::webhooks::Delivery;
use crate::store::{StoreError, TenantStore};

/// Messages sent to one webhook in one turn.
const BATCH: u32 = 20;
/// Between two looks for messages that are due.
const EVERY: Duration = Duration::from_secs(1);
/// A receiver that takes longer is tried again.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Tries of one message: the last comes about a day after the first.
const ATTEMPTS_MAX: u64 = 16;
/// The first pause; each further one is twice as long.
const PAUSE_MS: i64 = 5_000;
/// The longest pause.
const PAUSE_MAX_MS: i64 = 6 * 3_600 * 1_000;
/// Prefix of secrets, by the Standard Webhooks specification.
pub(crate) const SECRET_PREFIX: &str = "whsec_";

/// Why a webhook is not called.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsent {
    /// Not a URL with a host.
    #[error("not an HTTP address")]
    Address,
    /// A name that leads nowhere.
    #[error("the name of the receiver cannot be resolved")]
    Name(#[source] std::io::Error),
    /// A place where an attacker would like the server to call.
    #[error(
        "{0} is a loopback, link-local or private address, which the configuration does not allow"
    )]
    Forbidden(IpAddr),
    /// The call itself.
    #[error("the receiver cannot be reached")]
    Call(#[source] reqwest::Error),
    /// An answer that is no success.
    #[error("the receiver answered {0}")]
    Status(reqwest::StatusCode),
}

/// What became of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// It is new.
    Opened,
    /// It still holds, and nobody looks after it; or it became worse.
    Repeated,
    /// It is over.
    Closed,
}

impl Verb {
    /// The word for it, as it is sent.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Repeated => "repeated",
            Self::Closed => "closed",
        }
    }
}

/// Names what a message says: the same change of the same alert has the same name, whoever sends it.
pub(crate) fn message_id(tenant: &str, alert: &AlertView, now: UnixMillis) -> String {
    format!("{tenant}.{}.{}", alert.id, now.0)
}

/// The CloudEvents body that says what became of an alert.
pub(crate) fn body(
    tenant: &str,
    (alert, verb): (&AlertView, Verb),
    message: &str,
    now: UnixMillis,
) -> String {
    json!({
        "specversion": "1.0",
        "id": message,
        "source": format!("/sealift/{tenant}"),
        "type": format!("dev.sealift.alert.{}", verb.as_str()),
        "subject": alert.id.to_string(),
        "time": now.to_string(),
        "datacontenttype": "application/json",
        "data": alert,
    })
    .to_string()
}

/// Sends what is due; never returns.
pub(crate) async fn run(store: TenantStore, allow_loopback: bool) {
    loop {
        if let Err(error) = turn(&store, allow_loopback, clock::now()).await {
            tracing::error!(error = &error as &dyn std::error::Error, "webhooks wait");
        }
        sleep(EVERY).await;
    }
}

/// Calls the webhooks side by side: one that is slow holds up no other.
async fn turn(
    store: &TenantStore,
    allow_loopback: bool,
    now: UnixMillis,
) -> Result<(), StoreError> {
    for _ in 0..BATCH {
        let due = store.due_deliveries(now).await?;
        let calls =
            due.iter().map(async |delivery| (delivery, send(delivery, allow_loopback, now).await));
        let outcomes = join_all(calls).await;
        let has_arrived = outcomes.iter().any(|(_, outcome)| outcome.is_ok());
        for (delivery, outcome) in outcomes {
            note(store, delivery, outcome, now).await?;
        }
        if !has_arrived {
            break;
        }
    }
    Ok(())
}

async fn note(
    store: &TenantStore,
    delivery: &Delivery,
    outcome: Result<(), Unsent>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let mut change = store.begin().await?;
    match outcome {
        Ok(()) => change.finish_delivery(delivery, &format!("{now}: delivered")).await?,
        Err(unsent) if delivery.attempt + 1 >= ATTEMPTS_MAX => {
            tracing::warn!(webhook = delivery.webhook, %unsent, "webhook given up");
            change.finish_delivery(delivery, &format!("{now}: given up: {unsent}")).await?;
        }
        Err(unsent) => {
            let due_at = now.plus(pause_ms(delivery.attempt));
            let outcome = format!("{now}: {unsent}; tried again at {due_at}");
            change.retry_delivery(delivery, due_at, &outcome).await?;
        }
    }
    change.commit().await
}

fn pause_ms(attempt: u64) -> i64 {
    let doublings = u32::try_from(attempt).unwrap_or(u32::MAX);
    let factor = 2_i64.checked_pow(doublings).unwrap_or(i64::MAX);
    PAUSE_MS.saturating_mul(factor).min(PAUSE_MAX_MS)
}

async fn send(delivery: &Delivery, allow_loopback: bool, now: UnixMillis) -> Result<(), Unsent> {
    let url = address(&delivery.url)?;
    let (host, place) = resolve(&url, allow_loopback).await?;
    // The address that was checked is the one that is called, and neither an answer nor a proxy can send the call elsewhere.
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .resolve(&host, place)
        .build()
        .map_err(Unsent::Call)?;
    let seconds = now.0.div_euclid(1_000);
    let response = client
        .post(url)
        .header("content-type", "application/cloudevents+json")
        .header("webhook-id", &delivery.message)
        .header("webhook-timestamp", seconds)
        .header("webhook-signature", signature(delivery, seconds))
        .body(delivery.body.clone())
        .send()
        .await
        .map_err(|error| Unsent::Call(error.without_url()))?;
    let status = response.status();
    if status.is_success() { Ok(()) } else { Err(Unsent::Status(status)) }
}

/// `v1,` and the base64 of HMAC-SHA256 over id, time and body, by the Standard Webhooks specification.
fn signature(delivery: &Delivery, seconds: i64) -> String {
    let secret = delivery.secret.strip_prefix(SECRET_PREFIX).unwrap_or(&delivery.secret);
    let key = STANDARD.decode(secret).unwrap_or_default();
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else { return String::new() };
    mac.update(format!("{}.{seconds}.{}", delivery.message, delivery.body).as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// Reads the address of a webhook.
pub(crate) fn address(text: &str) -> Result<Url, Unsent> {
    let url = Url::parse(text).map_err(|_| Unsent::Address)?;
    let is_http = matches!(url.scheme(), "http" | "https");
    if is_http && url.has_host() { Ok(url) } else { Err(Unsent::Address) }
}

async fn resolve(url: &Url, allow_loopback: bool) -> Result<(String, SocketAddr), Unsent> {
    let host = url.host_str().ok_or(Unsent::Address)?.to_owned();
    let port = url.port_or_known_default().ok_or(Unsent::Address)?;
    let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let places = tokio::net::lookup_host((name, port)).await.map_err(Unsent::Name)?;
    let places: Vec<_> = places.collect();
    if let Some(place) = places.iter().find(|place| !allow_loopback && is_inside(place.ip())) {
        return Err(Unsent::Forbidden(place.ip()));
    }
    let place = places.first().copied().ok_or(Unsent::Address)?;
    Ok((host, place))
}

/// Whether an address is this machine's, its link's or its site's: what a request forged through the server would aim at.
fn is_inside(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            address.is_loopback()
                || address.is_private()
                || address.is_link_local()
                || address.is_unspecified()
                || address.is_broadcast()
                || address.is_multicast()
                || is_shared(address)
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_unique_local()
                || address.is_unicast_link_local()
                || address.is_multicast()
        }
    }
}

/// RFC 6598: 100.64.0.0/10 is a carrier's inside.
const fn is_shared(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 100 && second & 0b1100_0000 == 64
}

#[cfg(test)]
mod tests;
