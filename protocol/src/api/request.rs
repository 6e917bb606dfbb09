//! What a device is asked from afar.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::digest::Digest;
use crate::id::{DeviceId, ModelName, UnixMillis, Version};
use crate::request::{BatchFormat, LogLevel};

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

/// How a batch's predictions stand on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum BatchResultState {
    /// The device has sent nothing yet.
    Awaited,
    /// Some of it is here.
    Coming,
    /// All of it is here.
    Here,
}

/// What a device has brought up of a batch's predictions, or is to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchResultView {
    /// The device.
    pub device: DeviceId,
    /// The batch.
    pub name: String,
    /// The model that answered.
    pub model: ModelName,
    /// What the file is.
    pub format: BatchFormat,
    /// How it stands.
    pub state: BatchResultState,
    /// Bytes that are here.
    pub bytes: u64,
    /// Bytes in all; none before the device has said so.
    pub size_bytes: Option<u64>,
    /// Digest of all of them.
    pub digest: Option<Digest>,
    /// Who asked for it.
    pub asked_by: String,
    /// When.
    pub asked_at: UnixMillis,
    /// When all of it was here.
    pub done_at: Option<UnixMillis>,
    /// When it is deleted.
    pub delete_at: UnixMillis,
}
