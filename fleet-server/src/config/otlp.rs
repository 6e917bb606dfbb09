//! `[otlp]`: where metrics are sent.

use std::path::PathBuf;

use reqwest::Url;
use sealift_protocol::otlp::PATH;
use serde::{Deserialize, Deserializer, de};

use super::ConfigError;

/// An OpenTelemetry collector that takes metrics.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Otlp {
    /// Its address, such as `https://collector.example:4318`; `/v1/metrics` is added to it.
    #[serde(deserialize_with = "address")]
    pub endpoint: Url,
    /// Lines of `name: value` that are sent along, such as a token.
    #[serde(default)]
    pub headers_file: Option<PathBuf>,
    /// The CA of its certificate, PEM; those of the machine if not given.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// How often, in seconds.
    #[serde(default = "interval_s")]
    pub interval_s: u32,
}

const fn interval_s() -> u32 {
    60
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    let url = Url::parse(&text).map_err(de::Error::custom)?;
    let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain {
        return Ok(url);
    }
    Err(de::Error::custom("not an http or https address without a name, a password and a query"))
}

impl Otlp {
    /// Where metrics go: OTLP/HTTP, "Binary Protobuf Encoding"; a base address gets the path of the signal.
    pub(crate) fn metrics_url(&self) -> Url {
        let mut url = self.endpoint.clone();
        let path = format!("{}{PATH}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        url
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let rule = |text: String, help| Err(ConfigError::Rule(text, help));
        if !(1..=3_600).contains(&self.interval_s) {
            return rule(
                format!("otlp.interval_s is {}", self.interval_s),
                "give 1 to 3600 seconds, or leave it out for 60",
            );
        }
        let is_near = match self.endpoint.host_str() {
            Some("localhost") => true,
            Some(host) => {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
            None => false,
        };
        if self.headers_file.is_some() && self.endpoint.scheme() == "http" && !is_near {
            return rule(
                format!("otlp.headers_file would be sent to {} in plain text", self.endpoint),
                "use https, or a collector on this machine",
            );
        }
        Ok(())
    }

    /// The files that it names.
    pub(super) fn files(&mut self) -> [&mut Option<PathBuf>; 2] {
        [&mut self.headers_file, &mut self.ca]
    }
}
