//! Sends the server's metrics to an OpenTelemetry collector, if one is configured: OTLP over HTTP with protobuf, OTLP 1.x.
//!
//! What is sent is what `/metrics` says, so that both always say the same. Counters count from the start of the process: an export that
//! does not arrive loses nothing that the next does not bring.

use std::path::Path;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{StatusCode, Url};
use sealift_protocol::id::{TenantId, UnixMillis};
use sealift_protocol::otlp::{ANSWER_MAX, Answer, CONTENT_TYPE, Series, Tries, headers};
use tokio::time::{Instant, sleep, timeout};

use crate::config::Otlp;

/// Why metrics cannot be sent at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OtlpError {
    /// The file of the headers, or of the CA.
    #[error("cannot read {0}")]
    Read(std::path::PathBuf, #[source] std::io::Error),
    /// A line of it.
    #[error(
        "line {line} of {file} is no header\nhelp: give one a line, `name: value`, 8 KiB in all"
    )]
    Header {
        /// Which file.
        file: std::path::PathBuf,
        /// Which line, from 1.
        line: usize,
    },
    /// The CA, or the client.
    #[error("no client for the collector can be made")]
    Client(#[source] reqwest::Error),
}

/// Why an export did not arrive.
#[derive(Debug, thiserror::Error)]
enum Unsent {
    #[error("the collector cannot be reached")]
    Call(#[source] reqwest::Error),
    #[error("the collector answers {0}")]
    Status(StatusCode, Option<u64>),
    #[error("the collector took longer than the interval")]
    Late,
}

impl Unsent {
    const fn answer(&self) -> Answer {
        match self {
            Self::Call(_) | Self::Late => Answer::None,
            Self::Status(status, asked) => Answer::Status(status.as_u16(), *asked),
        }
    }
}

/// Sends metrics to one collector.
pub(crate) struct Exporter {
    client: reqwest::Client,
    url: Url,
    interval: Duration,
    series: Series,
    is_failing: bool,
}

impl Exporter {
    /// An exporter for the process that started at `started`.
    pub(crate) fn new(
        settings: &Otlp,
        tenant: &TenantId,
        started: UnixMillis,
    ) -> Result<Self, OtlpError> {
        let mut builder = reqwest::Client::builder()
            .timeout(ANSWER_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if let Some(file) = &settings.headers_file {
            builder = builder.default_headers(headers_of(file)?);
        }
        if let Some(file) = &settings.ca {
            let pem = std::fs::read(file).map_err(|error| OtlpError::Read(file.clone(), error))?;
            let authorities =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(OtlpError::Client)?;
            builder = builder.tls_certs_only(authorities);
        }
        let mut instance = [0; 16];
        // Without chance two servers look like one, and nothing worse.
        let _ = getrandom::fill(&mut instance);
        let about = vec![
            ("service.name", "sealift-fleet-server".to_owned()),
            ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("service.instance.id", sealift_protocol::digest::encode_hex(&instance)),
            ("sealift.tenant", tenant.to_string()),
        ];
        let about = about.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Ok(Self {
            client: builder.build().map_err(OtlpError::Client)?,
            url: settings.endpoint.metrics_url(),
            interval: Duration::from_secs(settings.interval_s.into()),
            series: Series::new(about, started),
            is_failing: false,
        })
    }

    /// How long to wait from one export to the next.
    pub(crate) const fn interval(&self) -> Duration {
        self.interval
    }

    /// Sends what `/metrics` says; says once that a collector does not take it, and once that it does again.
    pub(crate) async fn export(&mut self, text: &str, now: UnixMillis) {
        let body = self.series.request(text, now);
        let sent = match timeout(self.interval, self.send(&body)).await {
            Ok(sent) => sent,
            Err(_) => Err(Unsent::Late),
        };
        let was_failing = std::mem::replace(&mut self.is_failing, sent.is_err());
        match (sent, was_failing) {
            (Ok(()), true) => tracing::info!("metrics are exported again"),
            (Err(error), false) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "metrics are not exported; see [otlp] in the configuration"
            ),
            (Ok(()), false) | (Err(_), true) => (), // is known
        }
    }

    async fn send(&self, body: &[u8]) -> Result<(), Unsent> {
        let mut tries = Tries::default();
        loop {
            let Err(error) = self.post(body).await else { return Ok(()) };
            let Some(wait) = tries.after(error.answer()) else { return Err(error) };
            sleep(wait).await;
        }
    }

    /// The answer is not read: it may be as long as it likes.
    async fn post(&self, body: &[u8]) -> Result<(), Unsent> {
        let request = self.client.post(self.url.clone());
        let request = request.header("content-type", CONTENT_TYPE).body(body.to_vec());
        let response = request.send().await.map_err(|error| Unsent::Call(error.without_url()))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let asked = asked.and_then(|seconds| seconds.parse().ok());
        Err(Unsent::Status(status, asked))
    }
}

/// Calls `read` in every interval and exports what it says; never returns.
pub(crate) async fn run<F, R>(mut exporter: Exporter, read: F)
where
    F: Fn() -> R,
    R: Future<Output = Option<(String, UnixMillis)>>,
{
    let mut next = Instant::now();
    loop {
        next += exporter.interval();
        if let Some((text, now)) = read().await {
            exporter.export(&text, now).await;
        }
        tokio::time::sleep_until(next).await;
        next = next.max(Instant::now() - exporter.interval());
    }
}

/// The headers of a file. Values are secrets and are never printed.
fn headers_of(file: &Path) -> Result<HeaderMap, OtlpError> {
    let text =
        std::fs::read_to_string(file).map_err(|error| OtlpError::Read(file.to_owned(), error))?;
    let invalid = |line| OtlpError::Header { file: file.to_owned(), line };
    let mut found = HeaderMap::new();
    for (name, value, line) in headers(&text).map_err(invalid)? {
        let name = HeaderName::try_from(name).map_err(|_| invalid(line))?;
        let mut value = HeaderValue::try_from(value).map_err(|_| invalid(line))?;
        value.set_sensitive(true);
        found.insert(name, value);
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
