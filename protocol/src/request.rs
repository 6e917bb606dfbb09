//! A question that the server puts to one device: a test inference, the tail of its log, a diagnosis.
//!
//! ```text
//!  operator ─▶ server ─ d/{device}/request: signed, nonce, expiry ─▶ device      input > 40 KiB:  GET /requests/{nonce}/input
//!  operator ◀─ server ◀─ u/{device}/result: nonce, outcome ───────── device      answer > 64 KiB: PUT /requests/{nonce}/answer
//! ```
//!
//! A request changes nothing of what a device runs. It is worth less to a thief than a directive, and still costs the device time and the
//! user what its answer tells: so it is signed, for one device, for minutes, and answered once.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::codec::{self, CodecError};
use crate::cose::{self, CoseError, KeyId, NotOpened, Purpose};
use crate::digest::{Digest, decode_hex, encode_hex};
use crate::id::{DeviceId, ModelName, TenantId, UnixMillis, Version};
use crate::limits::{
    INPUT_BYTES_MAX, INPUT_HERE_BYTES_MAX, LOG_LINES_MAX, REQUEST_BYTES_MAX, REQUEST_LIFE_MS_MAX,
};

mod answer;
mod batch;
#[cfg(test)]
mod tests;

pub use answer::{
    Answer, Diagnosis, DiagnosisClock, DiagnosisModel, DiagnosisTrouble, Inferred, InvalidAnswer,
    LogLine, LogTail, Outcome, Refused,
};

pub use batch::{
    BATCH_JOBS_MAX, BATCH_ROWS_MAX, Batch, BatchFormat, BatchJob, BatchRun, BatchState, BatchUpload,
};

/// The version of this format.
const VERSION: u16 = 1;

const KIND: cose::Kind =
    cose::Kind { purpose: Purpose::Request, name: "request", bytes_max: REQUEST_BYTES_MAX };

/// Characters of a media type, and of an operator's name.
const NAME_CHARS_MAX: usize = 120;

/// Names one request: 16 random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce([u8; 16]);

/// Why a text is not a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the 32 hex digits of a request")]
pub struct InvalidNonce;

/// What a device is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Version of the format.
    version: u16,
    /// Whose device.
    pub tenant: TenantId,
    /// Which device.
    pub device: DeviceId,
    /// Names the request; the answer carries it.
    pub nonce: Nonce,
    /// When it was signed.
    pub issued_at: UnixMillis,
    /// After this nobody waits for the answer any more.
    pub expires_at: UnixMillis,
    /// Who asks, as the server says; for the device's own log.
    pub by: String,
    /// What.
    pub ask: Ask,
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// What a model that is served makes of an input.
    Infer(Infer),
    /// The newest lines of the agent's log.
    Logs(Logs),
    /// How the device does, from the inside.
    Diagnose,
    /// A batch job over its files.
    Batch(Batch),
}

/// A test inference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Infer {
    /// The model.
    pub model: ModelName,
    /// Only this version; without it, whichever is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// The body that an application on the device would send.
    pub input: Input,
    /// Its media type: JSON or the binary form of the Open Inference Protocol, or an image.
    pub content_type: String,
    /// Length of the JSON before binary data, where there is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_bytes: Option<u32>,
}

/// Where the input of a test inference is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// In the request.
    Here(#[serde(with = "codec::bytes")] Vec<u8>),
    /// On the devices' port of the server.
    There {
        /// Of the bytes.
        digest: Digest,
        /// How many bytes.
        length: u64,
    },
}

/// A log tail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logs {
    /// The newest so many lines.
    pub lines: u32,
    /// Only what was written after this, by the device's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<UnixMillis>,
    /// Only lines that are at least this bad.
    #[serde(default)]
    pub level: LogLevel,
}

/// How bad a line of a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum LogLevel {
    /// A state changed.
    #[default]
    Info,
    /// It healed itself.
    Warn,
    /// A person must act.
    Error,
}

/// Whom a request must be for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The device's tenant.
    pub tenant: &'a TenantId,
    /// The device.
    pub device: &'a DeviceId,
    /// The device's best idea of the time.
    pub now: UnixMillis,
    /// A request may have been signed until then: the device's clock may be behind, or be known to be wrong.
    pub issued_until: UnixMillis,
}

/// A request that is signed, for this device and in time. Only [`Request::verify`] makes one. Whether it was answered before is for the
/// device to remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRequest(Request);

impl VerifiedRequest {
    /// The request.
    pub const fn get(&self) -> &Request {
        &self.0
    }

    /// The request, to be answered.
    pub fn into_inner(self) -> Request {
        self.0
    }
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub enum RequestRefused {
    /// More bytes than any request has.
    #[error("request has {0} bytes, at most {REQUEST_BYTES_MAX} are taken")]
    TooLarge(usize),
    /// The envelope, the key or the signature.
    #[error("request is not signed by a trusted director")]
    Cose(#[from] CoseError),
    /// Signed, but not a request that is known here.
    #[error("signed bytes are not a request")]
    Decode(#[source] CodecError),
    /// Another version of the format.
    #[error("request has format version {0}; {VERSION} is known")]
    Version(u16),
    /// For another device or tenant.
    #[error("request is for {tenant}:{device}")]
    Audience {
        /// Whose device it is for.
        tenant: TenantId,
        /// The device it is for.
        device: DeviceId,
    },
    /// Signed in the future, over, or good for longer than a request may be.
    #[error("request is valid from {issued_at} to {expires_at}; it is {now}")]
    Window {
        /// Which request: whoever signed it may be told what time it is here.
        nonce: Nonce,
        /// Begin.
        issued_at: UnixMillis,
        /// End.
        expires_at: UnixMillis,
        /// The device's time.
        now: UnixMillis,
    },
    /// It asks for more than can be asked for.
    #[error("request asks for {0}")]
    Size(&'static str),
}

impl From<NotOpened> for RequestRefused {
    fn from(error: NotOpened) -> Self {
        match error {
            NotOpened::TooLarge(bytes) => Self::TooLarge(bytes),
            NotOpened::Cose(error) => Self::Cose(error),
            NotOpened::Decode(error) => Self::Decode(error),
        }
    }
}

impl RequestRefused {
    /// The stable code of the refusal.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "request.too-large",
            Self::Cose(cose) => cose.code(),
            Self::Decode(_) => "request.form",
            Self::Version(_) => "request.version",
            Self::Audience { .. } => "request.audience",
            Self::Window { .. } => "request.window",
            Self::Size(_) => "request.size",
        }
    }
}

impl Request {
    /// Makes a request of the current format.
    pub fn new(
        (tenant, device): (TenantId, DeviceId),
        nonce: Nonce,
        (issued_at, expires_at): (UnixMillis, UnixMillis),
        by: &str,
        ask: Ask,
    ) -> Self {
        let by = by.chars().take(NAME_CHARS_MAX).collect();
        Self { version: VERSION, tenant, device, nonce, issued_at, expires_at, by, ask }
    }

    /// Encodes and signs it.
    pub fn sign(&self, director: &SigningKey) -> Result<Vec<u8>, CodecError> {
        cose::sign(codec::encode(self)?, Purpose::Request, director)
    }

    /// Checks a message in this order: size, signature by a trusted director, form, audience, time, size of what it asks for.
    pub fn verify(
        message: &[u8],
        directors: &BTreeMap<KeyId, VerifyingKey>,
        asked: Asked<'_>,
    ) -> Result<VerifiedRequest, RequestRefused> {
        let (request, _): (Self, _) = cose::open(message, directors, KIND)?;
        request.check(asked)?;
        Ok(VerifiedRequest(request))
    }

    fn check(&self, asked: Asked<'_>) -> Result<(), RequestRefused> {
        if self.version != VERSION {
            return Err(RequestRefused::Version(self.version));
        }
        // Rule (trust.md, 8): tenant and device are mine.
        if self.tenant != *asked.tenant || self.device != *asked.device {
            let (tenant, device) = (self.tenant.clone(), self.device.clone());
            return Err(RequestRefused::Audience { tenant, device });
        }
        // Rule (trust.md, 8): within its time. And that is minutes: a device remembers for no longer what it has answered.
        let Self { nonce, issued_at, expires_at, .. } = *self;
        let now = asked.now;
        let life_ms = expires_at.since(issued_at);
        let is_brief = (1..=REQUEST_LIFE_MS_MAX).contains(&life_ms);
        if !is_brief || asked.issued_until < issued_at || expires_at < now {
            return Err(RequestRefused::Window { nonce, issued_at, expires_at, now });
        }
        self.check_size().map_err(RequestRefused::Size)
    }

    fn check_size(&self) -> Result<(), &'static str> {
        if self.by.chars().count() > NAME_CHARS_MAX {
            return Err("somebody with too long a name");
        }
        match &self.ask {
            Ask::Logs(logs) if logs.lines > LOG_LINES_MAX => Err("more lines than there can be"),
            Ask::Infer(infer) if infer.content_type.chars().count() > NAME_CHARS_MAX => {
                Err("too long a media type")
            }
            Ask::Infer(infer) if infer.input.length() > INPUT_BYTES_MAX as u64 => {
                Err("an inference on too large an input")
            }
            Ask::Batch(batch) => batch.check(),
            Ask::Infer(_) | Ask::Logs(_) | Ask::Diagnose => Ok(()),
        }
    }
}

impl Ask {
    /// What is asked, in one word.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Infer(_) => "infer",
            Self::Logs(_) => "logs",
            Self::Diagnose => "diagnose",
            Self::Batch(batch) => batch.kind(),
        }
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Infer(Infer { model, version: Some(version), .. }) => {
                write!(f, "test inference of {model}@{version}")
            }
            Self::Infer(Infer { model, .. }) => write!(f, "test inference of {model}"),
            Self::Logs(logs) => write!(f, "tail of {} lines of the log", logs.lines),
            Self::Diagnose => f.write_str("diagnosis"),
            Self::Batch(Batch::Run(run)) => {
                write!(f, "batch `{}` of {} over {}", run.name, run.model, run.input)
            }
            Self::Batch(Batch::List) => f.write_str("list of batches"),
            Self::Batch(Batch::Cancel(name)) => write!(f, "end of batch `{name}`"),
        }
    }
}

impl Input {
    /// The input, in the request if it fits.
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.len() <= INPUT_HERE_BYTES_MAX {
            return Self::Here(bytes.to_vec());
        }
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Self::There { digest: Digest::of(bytes), length }
    }

    /// How many bytes it has.
    pub fn length(&self) -> u64 {
        match self {
            Self::Here(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Self::There { length, .. } => *length,
        }
    }
}

impl Nonce {
    /// The nonce of these random bytes.
    pub const fn new(random: [u8; 16]) -> Self {
        Self(random)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode_hex(&self.0))
    }
}

impl FromStr for Nonce {
    type Err = InvalidNonce;

    fn from_str(text: &str) -> Result<Self, InvalidNonce> {
        let bytes = decode_hex(text).ok_or(InvalidNonce)?;
        let bytes = bytes.try_into().map_err(|_| InvalidNonce)?;
        Ok(Self(bytes))
    }
}

impl Serialize for Nonce {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        codec::bytes::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = codec::bytes::deserialize(deserializer)?;
        let bytes = bytes.try_into().map_err(|_| de::Error::custom("a nonce has 16 bytes"))?;
        Ok(Self(bytes))
    }
}
