//! Where the server may call, and the call itself. A request that somebody makes the server send must not reach what only the server
//! can reach (OWASP ASVS 5.0, 1.3.6). Rule: names are resolved once, addresses on the inside are refused unless the configuration
//! allows them, and the address that was checked is the one that is called.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;

use super::Unsent;

/// A receiver that takes longer is tried again.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// Which places on the inside may be called. The outside always may.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inside {
    /// All of them: for trials.
    pub(crate) is_open: bool,
    /// Those in these networks.
    pub(crate) networks: Vec<Network>,
}

/// A network as `10.1.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no network such as `10.1.0.0/16`")]
pub struct InvalidNetwork(String);

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = u32::from(32_u8.saturating_sub(self.bits));
                let first = |address: Ipv4Addr| u32::from(address).checked_shr(shift);
                first(network) == first(address)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = u32::from(128_u8.saturating_sub(self.bits));
                u128::from(network).checked_shr(shift) == u128::from(address).checked_shr(shift)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let invalid = || InvalidNetwork(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(invalid)?;
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let bits: u8 = bits.parse().map_err(|_| invalid())?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        if bits > bits_max { Err(invalid()) } else { Ok(Self { address, bits }) }
    }
}

impl TryFrom<String> for Network {
    type Error = InvalidNetwork;

    fn try_from(text: String) -> Result<Self, InvalidNetwork> {
        text.parse()
    }
}

impl Inside {
    fn may_call(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.is_open
            || !is_inside(address)
            || self.networks.iter().any(|network| network.contains(address))
    }

    /// The address that stands behind a name, if it may be called. A name with one forbidden address is refused as a whole.
    pub(super) async fn resolve(&self, host: &str, port: u16) -> Result<SocketAddr, Unsent> {
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let looked_up = tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((name, port)));
        let places = looked_up.await.map_err(|_| Unsent::Late)?.map_err(Unsent::Name)?;
        let places: Vec<_> = places.collect();
        if let Some(place) = places.iter().find(|place| !self.may_call(place.ip())) {
            return Err(Unsent::Forbidden(place.ip()));
        }
        places.first().copied().ok_or(Unsent::Address)
    }

    /// A client that calls the host of `url` at the address that was checked; neither an answer nor a proxy can send the call elsewhere.
    pub(super) async fn client(&self, url: &Url) -> Result<reqwest::Client, Unsent> {
        let host = url.host_str().ok_or(Unsent::Address)?.to_owned();
        let port = url.port_or_known_default().ok_or(Unsent::Address)?;
        let place = self.resolve(&host, port).await?;
        reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .resolve(&host, place)
            .build()
            .map_err(|error| Unsent::Call(error.without_url()))
    }
}

/// Sends a request; only a success is one. The answer is not read: it may be as long as it likes.
pub(super) async fn send(request: reqwest::RequestBuilder) -> Result<(), Unsent> {
    let response = request.send().await.map_err(|error| Unsent::Call(error.without_url()))?;
    let status = response.status();
    if status.is_success() { Ok(()) } else { Err(Unsent::Status(status)) }
}

/// Reads the address of a receiver.
pub(crate) fn address(text: &str) -> Result<Url, Unsent> {
    let url = Url::parse(text).map_err(|_| Unsent::Address)?;
    let is_http = matches!(url.scheme(), "http" | "https");
    if is_http && url.has_host() { Ok(url) } else { Err(Unsent::Address) }
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
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_servers_own_network_are_refused() {
        for inside in [
            "127.0.0.1",
            "10.1.2.3",
            "100.127.0.1",
            "169.254.169.254",
            "224.0.0.1",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_inside(inside.parse().unwrap()), "{inside}");
            assert!(!Inside::default().may_call(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["203.0.113.7", "100.128.0.1", "2001:db8::1"] {
            assert!(!is_inside(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn only_the_networks_that_are_named_are_open() {
        let networks = ["10.1.0.0/16", "fd00::/8"].map(|text| text.parse().unwrap()).into();
        let inside = Inside { is_open: false, networks };
        for (address, expected) in [
            ("10.1.255.255", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.0.1", false),
            ("fd12::1", true),
            ("fe80::1", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(inside.may_call(address.parse().unwrap()), expected, "{address}");
        }
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("127.0.0.1".parse().unwrap()));
        for text in ["", "10.0.0.0", "10.0.0.0/33", "x/8", "::/129"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_http_addresses_with_a_host_are_taken() {
        assert!(address("https://hooks.example/alerts").is_ok());
        for text in ["", "hooks", "file:///etc/passwd", "ftp://hooks.example"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
