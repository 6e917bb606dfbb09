//! `[otlp]`: where metrics are sent.

use std::path::PathBuf;

use sealift_protocol::otlp::Collector;
use serde::Deserialize;

use super::ConfigError;

/// An OpenTelemetry collector that takes metrics.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Otlp {
    /// Its address, such as `https://collector.example:4318`; `/v1/metrics` is added to it.
    pub endpoint: Collector,
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

impl Otlp {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let rule = |text: String, help| Err(ConfigError::Rule(text, help));
        if !(1..=3_600).contains(&self.interval_s) {
            return rule(
                format!("otlp.interval_s is {}", self.interval_s),
                "give 1 to 3600 seconds, or leave it out for 60",
            );
        }
        if self.headers_file.is_some() && !self.endpoint.keeps_secrets() {
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
