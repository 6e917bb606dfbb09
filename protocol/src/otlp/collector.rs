//! Where a collector is, and what may be sent to it.

use std::str::FromStr;

use serde::Deserialize;
use url::{Host, Url};

use super::PATH;

/// The address of a collector, such as `https://collector.example:4318`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Collector(Url);

/// Why a text is no address of a collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an http or https address without a name, a password and a query")]
pub struct NoCollector;

impl FromStr for Collector {
    type Err = NoCollector;

    fn from_str(text: &str) -> Result<Self, NoCollector> {
        let url = Url::parse(text).map_err(|_| NoCollector)?;
        let has_secrets =
            !url.username().is_empty() || url.password().is_some() || url.query().is_some();
        let is_http = matches!(url.scheme(), "http" | "https") && url.has_host();
        if is_http && !has_secrets { Ok(Self(url)) } else { Err(NoCollector) }
    }
}

impl TryFrom<String> for Collector {
    type Error = NoCollector;

    fn try_from(text: String) -> Result<Self, NoCollector> {
        text.parse()
    }
}

impl Collector {
    /// Where metrics go: OTLP/HTTP, "Binary Protobuf Encoding"; a base address gets the path of the signal.
    pub fn metrics_url(&self) -> Url {
        let mut url = self.0.clone();
        let path = format!("{}{PATH}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        url
    }

    /// Whether nobody on the network reads what is sent there: it is encrypted, or stays on this machine. Tokens go nowhere else.
    pub fn keeps_secrets(&self) -> bool {
        let is_near = match self.0.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        self.0.scheme() == "https" || is_near
    }
}

impl std::fmt::Display for Collector {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collector(text: &str) -> Collector {
        text.parse().unwrap()
    }

    #[test]
    fn a_base_address_gets_the_path_of_the_signal() {
        let url = |text| collector(text).metrics_url().to_string();
        assert_eq!(url("http://127.0.0.1:4318"), "http://127.0.0.1:4318/v1/metrics");
        assert_eq!(url("https://a.example/base/"), "https://a.example/base/v1/metrics");
    }

    #[test]
    fn an_address_holds_no_secret_and_speaks_http() {
        for text in ["collector:4318", "ftp://a", "http://ann:pw@a", "http://a?token=1", ""] {
            assert_eq!(text.parse::<Collector>(), Err(NoCollector), "{text}");
        }
    }

    #[test]
    fn secrets_stay_on_the_machine_or_are_encrypted() {
        for near in ["http://127.0.0.1:4318", "http://[::1]:4318", "http://localhost", "https://a"]
        {
            assert!(collector(near).keeps_secrets(), "{near}");
        }
        for far in ["http://a.example", "http://localhost.example", "http://10.0.0.1:4318"] {
            assert!(!collector(far).keeps_secrets(), "{far}");
        }
    }
}
