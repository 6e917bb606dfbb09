//! Sends the agent's metrics to an OpenTelemetry collector, if its owner has named one: OTLP over HTTP with protobuf.
//!
//! What is sent is what `/metrics` says. A task of its own does it: models answer, whatever the collector does. After a failure its files
//! are read again, so that a new token or another authority counts without a restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url};
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sealift_protocol::id::UnixMillis;
use sealift_protocol::otlp::{
    ANSWER_MAX, Answer, CONTENT_TYPE, HEADERS_BYTES_MAX, Series, Tries, headers,
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::clock::Clock;
use crate::config::OtlpConfig;
use crate::disk;
use crate::identity::roots;
use crate::serve::{self, Switchboard};
use crate::tls_clock::Verifier;
use crate::verify::{Me, spread_permille, with_cause};

/// A bundle of a hundred authorities.
const CA_BYTES_MAX: u64 = 256 << 10;
/// What a thousand models say. Collectors take 20 MiB and more.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Why an export did not arrive.
#[derive(Debug, thiserror::Error)]
enum Unsent {
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] std::io::Error),
    #[error("{0} is not there")]
    Absent(PathBuf),
    /// Its values are secrets, and are never printed.
    #[error("line {line} of {file} is no header, or the file has more than 8 KiB")]
    Header { file: PathBuf, line: usize },
    #[error("{0} holds no certificates")]
    Ca(PathBuf),
    #[error("authorities of the collector cannot be used")]
    Authorities(#[source] rustls::Error),
    #[error("no client for the collector can be made")]
    Client(#[source] reqwest::Error),
    #[error("the collector cannot be reached: {0}")]
    Call(String),
    #[error("the collector answers {0}")]
    Status(StatusCode, Option<u64>),
    #[error("the collector took longer than the interval")]
    Late,
    #[error("metrics are {0} bytes")]
    TooLong(usize),
}

impl Unsent {
    const fn answer(&self) -> Answer {
        match self {
            Self::Status(status, asked) => Answer::Status(status.as_u16(), *asked),
            Self::Read(..)
            | Self::Absent(_)
            | Self::Header { .. }
            | Self::Ca(_)
            | Self::Authorities(_)
            | Self::Client(_)
            | Self::Call(_)
            | Self::Late
            | Self::TooLong(_) => Answer::None,
        }
    }
}

/// Sends metrics to one collector.
#[derive(Debug)]
pub(crate) struct Exporter {
    settings: Arc<OtlpConfig>,
    clock: Clock,
    url: Url,
    /// None before the first export, and after one that failed.
    client: Option<Client>,
    series: Series,
    is_failing: bool,
}

impl Exporter {
    /// An exporter for an agent that starts now.
    pub(crate) fn new(settings: OtlpConfig, me: &Me, clock: Clock) -> Self {
        let mut instance = [0; 16];
        // Without chance two starts look like one, and nothing worse.
        let _ = getrandom::fill(&mut instance);
        let own = [
            ("service.name", "sealift-agent".to_owned()),
            ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("service.instance.id", sealift_protocol::digest::encode_hex(&instance)),
            ("sealift.tenant", me.tenant.to_string()),
            ("sealift.device", me.device.to_string()),
        ];
        let own = own.map(|(key, value)| (key.to_owned(), value)).into_iter();
        let about = own.chain(settings.attributes.clone()).collect();
        let (url, series) = (settings.endpoint.metrics_url(), Series::new(about, clock.now()));
        let settings = Arc::new(settings);
        Self { settings, clock, url, client: None, series, is_failing: false }
    }

    /// Exports what is counted of the live models, in every interval; never returns.
    pub(crate) async fn run(mut self, board: Switchboard) {
        let every = self.every();
        // Devices that start together do not export together.
        sleep(every.saturating_mul(spread_permille().into()) / 1_000).await;
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = self.clock.now();
            self.export(&serve::exposition(&board), now).await;
        }
    }

    fn every(&self) -> Duration {
        Duration::from_secs(self.settings.interval_s.into())
    }

    /// Sends what `/metrics` says; says once that a collector does not take it, and once that it does again.
    async fn export(&mut self, text: &str, now: UnixMillis) {
        let body = self.series.request(text, now);
        let sent = timeout(self.every(), self.send(body)).await.unwrap_or(Err(Unsent::Late));
        if sent.is_err() {
            self.client = None;
        }
        let was_failing = std::mem::replace(&mut self.is_failing, sent.is_err());
        match (sent, was_failing) {
            (Ok(()), true) => tracing::info!("metrics are exported again"),
            (Err(error), false) => {
                let error = with_cause(&error);
                tracing::warn!(error, "metrics are not exported; see [otlp] in agent.toml");
            }
            (Ok(()), false) | (Err(_), true) => (), // is known
        }
    }

    async fn send(&mut self, body: Vec<u8>) -> Result<(), Unsent> {
        let until = Instant::now() + self.every();
        if body.len() > BODY_BYTES_MAX {
            return Err(Unsent::TooLong(body.len()));
        }
        let client = self.client().await?;
        let (body, mut tries) = (bytes::Bytes::from(body), Tries::default());
        loop {
            let Err(error) = self.post(&client, body.clone()).await else { return Ok(()) };
            let Some(wait) = tries.after(error.answer()) else { return Err(error) };
            // What has happened says more than that it took too long.
            if Instant::now() + wait >= until {
                return Err(error);
            }
            sleep(wait).await;
        }
    }

    /// The answer is not read: it may be as long as it likes.
    async fn post(&self, client: &Client, body: bytes::Bytes) -> Result<(), Unsent> {
        let request = client.post(self.url.clone()).header("content-type", CONTENT_TYPE).body(body);
        let response = request.send().await.map_err(|error| Unsent::Call(innermost(&error)))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        Err(Unsent::Status(status, asked.and_then(|seconds| seconds.parse().ok())))
    }

    /// The client, made from the files if there is none. They may lie anywhere: a slow disk keeps nobody waiting but this.
    async fn client(&mut self) -> Result<Client, Unsent> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let (settings, clock) = (Arc::clone(&self.settings), self.clock.clone());
        let made = tokio::task::spawn_blocking(move || client(&settings, &clock)).await;
        let client = made.unwrap_or(Err(Unsent::Late))?;
        Ok(self.client.insert(client).clone())
    }
}

/// What happened; the errors above it repeat the address.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn client(settings: &OtlpConfig, clock: &Clock) -> Result<Client, Unsent> {
    let mut builder = Client::builder()
        .timeout(ANSWER_MAX)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    if let Some(file) = &settings.headers_file {
        builder = builder.default_headers(headers_of(file)?);
    }
    if let Some(file) = &settings.ca {
        builder = builder.tls_backend_preconfigured(tls(file, clock)?);
    }
    builder.build().map_err(Unsent::Client)
}

/// TLS that trusts the authorities of a file alone, by the device's own idea of the time.
fn tls(file: &Path, clock: &Clock) -> Result<ClientConfig, Unsent> {
    let pem = read(file, CA_BYTES_MAX)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.ok().filter(|found| !found.is_empty());
    let found = found.ok_or_else(|| Unsent::Ca(file.to_owned()))?;
    let trusted = roots(&found).map_err(Unsent::Authorities)?;
    let verifier = Verifier::new(trusted, clock.clone()).map_err(Unsent::Authorities)?;
    let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier);
    Ok(config.with_no_client_auth())
}

fn headers_of(file: &Path) -> Result<HeaderMap, Unsent> {
    let invalid = |line| Unsent::Header { file: file.to_owned(), line };
    let bytes = read(file, HEADERS_BYTES_MAX as u64)?;
    let text = String::from_utf8(bytes).map_err(|_| invalid(1))?;
    let mut found = HeaderMap::new();
    for (name, value, line) in headers(&text).map_err(invalid)? {
        let name = HeaderName::try_from(name).map_err(|_| invalid(line))?;
        let mut value = HeaderValue::try_from(value).map_err(|_| invalid(line))?;
        value.set_sensitive(true);
        found.insert(name, value);
    }
    Ok(found)
}

fn read(file: &Path, bytes_max: u64) -> Result<Vec<u8>, Unsent> {
    let bytes =
        disk::read(file, bytes_max).map_err(|error| Unsent::Read(file.to_owned(), error))?;
    bytes.ok_or_else(|| Unsent::Absent(file.to_owned()))
}

#[cfg(test)]
mod tests;
