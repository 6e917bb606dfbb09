//! `[otlp]`: where the agent's metrics are sent.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sealift_protocol::otlp::Collector;
use serde::Deserialize;

/// Words by which a collector tells devices apart, such as site and line.
const ATTRIBUTES_MAX: usize = 16;
/// The longest name, and the longest value, in bytes.
const ATTRIBUTE_BYTES_MAX: usize = 256;
/// Names that the agent itself gives begin so.
const OWN: [&str; 2] = ["service.", "sealift."];

/// An OpenTelemetry collector that takes metrics.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtlpConfig {
    /// Its address, such as `https://collector.example:4318`; `/v1/metrics` is added to it.
    pub endpoint: Collector,
    /// Lines of `name: value` that are sent along, such as a token.
    pub headers_file: Option<PathBuf>,
    /// The CA of its certificate, PEM; those of the machine if not given.
    pub ca: Option<PathBuf>,
    /// How often, in seconds.
    #[serde(default = "interval_s")]
    pub interval_s: u32,
    /// What else is said of the device, such as `site = "osaka"`.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

const fn interval_s() -> u32 {
    60
}

impl OtlpConfig {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if !(1..=3_600).contains(&self.interval_s) {
            return Err("otlp.interval_s must be 1 to 3600 seconds");
        }
        if [&self.headers_file, &self.ca].into_iter().flatten().any(|file| file.is_relative()) {
            return Err("the files of [otlp] must be full paths");
        }
        if self.headers_file.is_some() && !self.endpoint.keeps_secrets() {
            return Err(
                "otlp.headers_file would be sent in plain text; use https, or a collector \
                        on this machine",
            );
        }
        let is_short = |text: &String| (1..=ATTRIBUTE_BYTES_MAX).contains(&text.len());
        let is_sound = |(name, value): (&String, &String)| {
            is_short(name) && is_short(value) && !OWN.iter().any(|own| name.starts_with(own))
        };
        if self.attributes.len() > ATTRIBUTES_MAX || !self.attributes.iter().all(is_sound) {
            return Err("otlp.attributes must be at most 16 names with values of 1 to 256 bytes, \
                        and no name may begin with `service.` or `sealift.`");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn read(text: &str) -> Result<Config, String> {
        let store = tempfile::tempdir().unwrap();
        std::fs::write(store.path().join("agent.toml"), format!("[otlp]\n{text}")).unwrap();
        Config::read(store.path(), None).map_err(|error| error.to_string())
    }

    fn refused(text: &str) -> String {
        read(text).unwrap_err()
    }

    #[test]
    fn nothing_is_sent_unless_the_owner_names_a_collector() {
        assert_eq!(Config::default().otlp, None);
        let otlp = read("endpoint = 'https://collector.example:4318/base/'").unwrap().otlp.unwrap();
        assert_eq!(otlp.interval_s, 60);
        assert!(refused("interval_s = 60").contains("endpoint"));
        assert!(refused("endpoint = 'http://a?token=1'").contains("a query"));
    }

    #[test]
    fn headers_never_go_over_the_network_in_plain_text() {
        let with = |address: &str| read(&format!("endpoint = '{address}'\nheaders_file = '/h'"));
        assert!(with("http://127.0.0.1:4318").is_ok());
        assert!(with("https://collector.example").is_ok());
        assert!(with("http://collector.example").unwrap_err().contains("plain text"));
    }

    #[test]
    fn files_are_full_paths_and_times_have_limits() {
        let with = |more: &str| read(&format!("endpoint = 'http://127.0.0.1:4318'\n{more}"));
        assert!(with("ca = '/etc/ca.pem'").is_ok());
        assert!(with("ca = 'ca.pem'").unwrap_err().contains("full paths"));
        assert!(with("interval_s = 0").is_err());
        assert!(with("interval_s = 3601").is_err());
        assert!(with("every_s = 5").unwrap_err().contains("every_s"));
    }

    #[test]
    fn attributes_are_few_and_short_and_do_not_speak_for_the_agent() {
        let with = |lines: &str| {
            read(&format!("endpoint = 'http://127.0.0.1:4318'\n[otlp.attributes]\n{lines}"))
        };
        let otlp = with("site = 'osaka'\n\"line.number\" = '7'").unwrap().otlp.unwrap();
        assert_eq!(otlp.attributes["site"], "osaka");
        assert!(with("\"sealift.device\" = 'cam-8'").is_err());
        assert!(with("\"service.name\" = 'mine'").is_err());
        assert!(with(&format!("site = '{}'", "x".repeat(257))).is_err());
        let many = (0..17).map(|place| format!("a{place} = 'x'\n")).collect::<Vec<_>>().concat();
        assert!(with(&many).is_err());
    }
}
