//! What the owner of a device may set about downloads.

use std::num::NonZeroU64;

use jiff::tz::TimeZone;
use serde::Deserialize;

use sealift_protocol::directive::{InvalidWindow, MaintenanceWindow};

/// Addresses that are tried before the server's.
const SOURCES_MAX: usize = 8;

/// Below it, the smallest pieces that the network brings would take minutes each.
const RATE_MIN_BYTES_S: u64 = 16 << 10;

/// A window as people write it: `22:00-06:00`, `sat,sun 00:00-24:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DownloadWindow(pub(crate) MaintenanceWindow);

impl TryFrom<String> for DownloadWindow {
    type Error = InvalidWindow;

    fn try_from(text: String) -> Result<Self, InvalidWindow> {
        text.parse().map(Self)
    }
}

/// How and when layers are fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DownloadConfig {
    /// Servers that are asked for layers before the fleet server, in this order: `https://` with a certificate of the fleet's authority,
    /// or `http://`. What they send is checked like everything else.
    pub sources: Vec<String>,
    /// Most bytes in a second, of all downloads together.
    pub rate_bytes_s: Option<NonZeroU64>,
    /// Local times at which downloads may run; at any time, if there are none.
    pub windows: Vec<DownloadWindow>,
    /// Whose local time: a name such as `Asia/Tokyo`; the device's own, if there is none.
    pub time_zone: Option<String>,
}

impl DownloadConfig {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let is_address = |source: &String| {
            let rest =
                ["https://", "http://"].iter().find_map(|scheme| source.strip_prefix(scheme));
            rest.is_some_and(|host| !host.is_empty())
        };
        if self.sources.len() > SOURCES_MAX || !self.sources.iter().all(is_address) {
            return Err("download.sources must be at most 8 addresses with http:// or https://");
        }
        if self.rate_bytes_s.is_some_and(|rate| rate.get() < RATE_MIN_BYTES_S) {
            return Err("download.rate_bytes_s must be 16384 at least");
        }
        if self.time_zone.is_some() && self.zone().is_none() {
            return Err("download.time_zone is not known on this device");
        }
        Ok(())
    }

    /// The time zone of the windows, where they have one of their own that this device knows.
    pub(crate) fn zone(&self) -> Option<TimeZone> {
        self.time_zone.as_ref().and_then(|name| TimeZone::get(name).ok())
    }
}
