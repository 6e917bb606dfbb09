//! Where the server listens, and the broker that runs elsewhere.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;

use crate::certificate;

/// The port for people and tools.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Operators {
    /// Where it listens; beyond loopback only with TLS.
    pub listen: SocketAddr,
    /// Certificate chain, PEM.
    pub tls_certificate: Option<PathBuf>,
    /// Private key, PEM.
    pub tls_key: Option<PathBuf>,
    /// Under which address people reach it, such as `https://fleet.example`; where it listens if not given.
    pub url: Option<String>,
}

/// The port for devices.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Devices {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Names and addresses under which devices reach the server; the first is what they are told.
    pub hosts: Vec<String>,
    /// Days that a device's certificate lives; it is renewed at two thirds.
    pub certificate_days: u16,
}

/// The broker: the embedded one, unless another is named.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mqtt {
    /// Where the embedded broker listens.
    pub listen: SocketAddr,
    /// A broker that runs elsewhere.
    pub external: Option<External>,
}

/// A broker that runs elsewhere.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// Its host, for the server and, unless they are told another, for devices.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `host:port` for devices, where they come in by another listener.
    #[serde(default)]
    pub devices: Option<String>,
    /// Distinguishes servers that share one broker.
    #[serde(default = "fleet_server")]
    pub client_id: String,
    /// The CA of its certificate; the device CA if not given.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The server's certificate as its client; the one of the devices' port if not given.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// The key to it.
    #[serde(default)]
    pub key: Option<PathBuf>,
}

impl Default for Operators {
    fn default() -> Self {
        Self { listen: loopback(8080), tls_certificate: None, tls_key: None, url: None }
    }
}

impl Operators {
    /// The address for people, when the port listens on `local`.
    pub(crate) fn address(&self, local: SocketAddr) -> String {
        let scheme = if self.tls_certificate.is_some() { "https" } else { "http" };
        let own = || format!("{scheme}://{local}");
        self.url.as_ref().map_or_else(own, |url| url.trim_end_matches('/').to_owned())
    }
}

impl Default for Devices {
    fn default() -> Self {
        let hosts = ["localhost", "127.0.0.1"].map(str::to_owned).to_vec();
        let certificate_days = *certificate::DEVICE_LIFE_DAYS.end();
        Self { listen: loopback(8443), hosts, certificate_days }
    }
}

impl Default for Mqtt {
    fn default() -> Self {
        Self { listen: loopback(8883), external: None }
    }
}

pub(super) const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn fleet_server() -> String {
    "fleet-server".to_owned()
}
