//! What a device is asked from afar.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::digest::Digest;
use crate::id::{ModelName, UnixMillis, Version};
use crate::request::LogLevel;

/// The answer to `POST /devices/{id}/infer`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InferView {
    /// The model.
    pub model: ModelName,
    /// The version that answered.
    pub version: Version,
    /// Digest of the image that answered.
    pub digest: Digest,
    /// Microseconds that the model took, as the device says.
    pub latency_us: u64,
    /// Milliseconds from the question to the answer, at the server.
    pub took_ms: u64,
    /// What an application on the device would have got, byte for byte: JSON of the Open Inference Protocol v2.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub answer: Box<RawValue>,
}

/// `POST /devices/{id}/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogsNew {
    /// The newest so many lines; 200 if not given, at most 1,000.
    #[serde(default)]
    pub lines: Option<u32>,
    /// Only what was written after this, by the device's clock.
    #[serde(default)]
    pub since: Option<UnixMillis>,
    /// Only lines that are at least this bad.
    #[serde(default)]
    pub level: Option<LogLevel>,
}
