//! `[otlp]`: where the agent's metrics are sent.

use std::collections::BTreeMap;
use std::path::PathBuf;

use reqwest::Url;
use sealift_protocol::otlp::PATH;
use serde::{Deserialize, Deserializer, de};

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
    #[serde(deserialize_with = "address")]
    pub endpoint: Url,
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

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    let url = Url::parse(&text).map_err(de::Error::custom)?;
    let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain {
        return Ok(url);
    }
    Err(de::Error::custom("not an http or https address without a name, a password and a query"))
}

impl OtlpConfig {
    /// Where metrics go: a base address gets the path of the signal.
    pub(crate) fn metrics_url(&self) -> Url {
        let mut url = self.endpoint.clone();
        let path = format!("{}{PATH}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        url
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        if !(1..=3_600).contains(&self.interval_s) {
            return Err("otlp.interval_s must be 1 to 3600 seconds");
        }
        if [&self.headers_file, &self.ca].into_iter().flatten().any(|file| file.is_relative()) {
            return Err("the files of [otlp] must be full paths");
        }
        if self.headers_file.is_some() && self.endpoint.scheme() == "http" && !self.is_near() {
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

    /// Whether what is sent stays on this machine.
    fn is_near(&self) -> bool {
        let host = self.endpoint.host_str().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
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
        let url = otlp.metrics_url();
        assert_eq!(url.as_str(), "https://collector.example:4318/base/v1/metrics");
        assert_eq!(otlp.interval_s, 60);
        assert!(refused("interval_s = 60").contains("endpoint"));
        for address in ["collector:4318", "ftp://a", "http://ann:pw@a", "http://a?token=1"] {
            assert!(read(&format!("endpoint = '{address}'")).is_err(), "{address}");
        }
    }

    #[test]
    fn headers_never_go_over_the_network_in_plain_text() {
        let with = |address: &str| read(&format!("endpoint = '{address}'\nheaders_file = '/h'"));
        for near in ["http://127.0.0.1:4318", "http://[::1]:4318", "http://localhost:4318"] {
            assert!(with(near).is_ok(), "{near}");
        }
        assert!(with("https://collector.example").is_ok());
        assert!(with("http://collector.example").unwrap_err().contains("plain text"));
        assert!(with("http://localhost.example").is_err());
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
