//! What the publisher asks of a device that runs the image; a layer of the signed image.

use serde::{Deserialize, Serialize};

/// What a device does with an image that is revoked while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnRevoked {
    /// Goes back to the previous image, if that is not revoked; else stops.
    #[default]
    Fallback,
    /// Stops serving.
    Stop,
    /// Serves on, and says so.
    KeepWithAlarm,
}

/// The policy layer. Every field has a default, and unknown fields are skipped, so that it can grow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Version of this format.
    pub schema: u32,
    /// What happens on revocation.
    pub on_revoked: OnRevoked,
    /// Longest time that loading and self-test may take, in seconds.
    pub warm_up_max_s: u32,
    /// Most memory that the worker may hold, in MiB.
    pub memory_max_mb: u32,
    /// Longest time that one golden case may take once warm, in milliseconds.
    pub latency_max_ms: u32,
    /// Below this confidence, in per mille, a prediction is for review; 0 switches review off.
    pub review_below_permille: u16,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            schema: 1,
            on_revoked: OnRevoked::Fallback,
            warm_up_max_s: 120,
            memory_max_mb: 4_096,
            latency_max_ms: 10_000,
            review_below_permille: 0,
        }
    }
}
