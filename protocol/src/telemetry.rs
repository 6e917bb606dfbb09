//! Everything else that a device sends: the envelope of the spool and its receipt, presence, facts, health, profiles, events.
//!
//! What must not be lost ([`Up::is_spooled`]) travels in an [`Envelope`] and stays in the device's spool until an [`Ack`] covers it.

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::digest::Digest;
use crate::id::{Generation, ModelName, UnixMillis, Version};
use crate::report::{ImageRef, SlotReport, Trusted};
use crate::topic::Up;

/// One spool's life. A device whose spool was lost starts another, and its numbers start again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SpoolId(pub u64);

/// A numbered message: stored once by (device, spool, sequence), however often it comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Which spool.
    pub spool: SpoolId,
    /// Its number; rises by one.
    pub sequence: u64,
    /// The lowest number that the spool still holds: below it nothing will come any more.
    pub lowest: u64,
    /// The encoded body, by channel.
    #[serde(with = "codec::bytes")]
    pub body: Vec<u8>,
}

/// Receipt: everything up to and with `sequence` is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Which spool.
    pub spool: SpoolId,
    /// The highest number below which nothing is missing.
    pub sequence: u64,
}

impl Up {
    /// Whether messages of the channel travel in an [`Envelope`] and are kept until they are acknowledged.
    pub const fn is_spooled(self) -> bool {
        match self {
            Self::Birth | Self::Report | Self::Profile | Self::Event | Self::Result => true,
            Self::Conn | Self::Beat => false,
        }
    }
}

/// Presence; retained, and the last will.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conn {
    /// Connected or not.
    pub online: bool,
    /// Rises with each connection; a last will with an older one is ignored.
    pub epoch: u64,
}

/// What a device is, at connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    /// The connection it belongs to.
    pub epoch: u64,
    /// Version of the agent.
    pub agent: String,
    /// Hardware and system.
    pub facts: Facts,
    /// The newest directive that the device has accepted.
    pub generation: Generation,
    /// Reported state of each model.
    pub slots: Vec<SlotReport>,
    /// Where applications on the device reach the models, as `http://127.0.0.1:8080`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// When, by the device's clock.
    pub at: UnixMillis,
    /// What the device trusts; none from an agent that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted: Option<Trusted>,
}

/// Hardware and system of a device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Facts {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`.
    pub architecture: String,
    /// Logical processors.
    pub processors: u32,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Disk below the agent's store, in MiB.
    pub disk_mb: u64,
    /// Execution providers that the inference library offers, best first.
    #[serde(default)]
    pub providers: Vec<String>,
    /// Version of the inference library.
    #[serde(default)]
    pub runtime: String,
    /// Whether the device is a simulated one.
    #[serde(default)]
    pub simulated: bool,
    /// What this device's kernel cannot keep from a model's process, in words for people; empty if it shuts one in completely.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sandbox_gaps: Vec<String>,
}

/// Health, once a minute. Short keys: 160 bytes at most, with every field at its largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Beat {
    /// Seconds since the agent started.
    #[serde(rename = "u")]
    pub uptime_s: u32,
    /// Load of all processors, in per mille.
    #[serde(rename = "c")]
    pub cpu_permille: u16,
    /// Memory that is free, in MiB.
    #[serde(rename = "m")]
    pub memory_free_mb: u32,
    /// Disk that is free, in MiB.
    #[serde(rename = "d")]
    pub disk_free_mb: u32,
    /// Temperature of the hottest sensor, in degrees Celsius; -128 for none.
    #[serde(rename = "t")]
    pub temperature_c: i8,
    /// Requests answered since the agent started.
    #[serde(rename = "r")]
    pub requests: u64,
    /// Requests that failed by our fault since the agent started.
    #[serde(rename = "e")]
    pub errors: u64,
    /// Worker restarts since the agent started.
    #[serde(rename = "w")]
    pub restarts: u32,
    /// Messages in the spool.
    #[serde(rename = "s")]
    pub spooled: u32,
    /// Days until the device certificate expires.
    #[serde(rename = "x")]
    pub certificate_days: i16,
    /// 95th percentile of latency in the last minute, in microseconds.
    #[serde(rename = "l")]
    pub latency_p95_us: u32,
    /// Milliseconds since 1970 by the device's clock.
    #[serde(rename = "a")]
    pub at: i64,
    /// Processes that want to run, per processor, in per mille; 0 from an agent that does not say.
    #[serde(rename = "o", default)]
    pub load_permille: u16,
    /// How busy the accelerator is, in per mille; none where the system does not say.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    pub accelerator_permille: Option<u16>,
    /// Whether heat or a weak supply has slowed the processor down since the last heartbeat.
    #[serde(rename = "h", default)]
    pub is_throttled: bool,
    /// Requests that are being answered or wait for it.
    #[serde(rename = "q", default)]
    pub in_flight: u16,
    /// The newest timestamp of the trust metadata that the device has verified; none from an agent that does not say.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub trusted_timestamp: Option<u64>,
}

/// What a model saw in a window of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileWindow {
    /// The model.
    pub model: ModelName,
    /// The image that answered.
    pub image: ImageRef,
    /// Begin, by the device's clock.
    pub from: UnixMillis,
    /// End.
    pub until: UnixMillis,
    /// An encoded [`crate::profile::Profile`].
    #[serde(with = "codec::bytes")]
    pub profile: Vec<u8>,
    /// Requests that failed by the model's fault.
    #[serde(default)]
    pub errors: u64,
}

/// Something that people may have to know of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The stable code, such as `directive.audience`.
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// What happened, to what, what to do; at most 400 characters.
    pub text: String,
    /// The model concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelName>,
    /// The image concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<(Version, Digest)>,
    /// When, by the device's clock.
    pub at: UnixMillis,
}

/// How bad an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// It healed itself, or will.
    Warning,
    /// A person must act.
    Critical,
    /// Something was refused that should not have come.
    Security,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BEAT_BYTES_MAX;

    #[test]
    fn the_largest_heartbeat_fits_its_limit() {
        let beat = Beat {
            uptime_s: u32::MAX,
            cpu_permille: u16::MAX,
            memory_free_mb: u32::MAX,
            disk_free_mb: u32::MAX,
            temperature_c: i8::MIN,
            requests: u64::MAX,
            errors: u64::MAX,
            restarts: u32::MAX,
            spooled: u32::MAX,
            certificate_days: i16::MIN,
            latency_p95_us: u32::MAX,
            at: i64::MAX,
            load_permille: u16::MAX,
            accelerator_permille: Some(u16::MAX),
            is_throttled: true,
            in_flight: u16::MAX,
            trusted_timestamp: Some(u64::MAX),
        };
        assert!(codec::encode(&beat).unwrap().len() <= BEAT_BYTES_MAX);
    }

    #[test]
    fn a_heartbeat_of_an_agent_of_before_is_read() {
        let mut bytes = vec![0xac]; // a map of twelve
        for key in ["u", "c", "m", "d", "t", "r", "e", "w", "s", "x", "l", "a"] {
            bytes.extend([0x61, key.as_bytes()[0], 0x07]);
        }
        let beat: Beat = codec::decode("beat", &bytes, BEAT_BYTES_MAX).unwrap();
        assert_eq!((beat.uptime_s, beat.at, beat.load_permille), (7, 7, 0));
        assert_eq!((beat.trusted_timestamp, beat.is_throttled), (None, false));
    }

    #[test]
    fn unknown_fields_are_skipped_and_missing_ones_take_their_default() {
        #[derive(Serialize)]
        struct Newer {
            os: &'static str,
            architecture: &'static str,
            processors: u32,
            memory_mb: u64,
            disk_mb: u64,
            colour: &'static str,
        }
        let newer = Newer {
            os: "linux",
            architecture: "amd64",
            processors: 2,
            memory_mb: 3,
            disk_mb: 4,
            colour: "blue",
        };
        let facts: Facts = codec::decode("facts", &codec::encode(&newer).unwrap(), 1_000).unwrap();
        assert_eq!((facts.processors, facts.simulated), (2, false));
    }
}
