//! What a device says to a request. The nonce says to which.

use serde::{Deserialize, Serialize};

use super::{BATCH_JOBS_MAX, BatchJob, LogLevel, Nonce};
use crate::codec::{self, CodecError};
use crate::id::{Generation, ModelName, UnixMillis, Version};
use crate::limits::{ANSWER_BYTES_MAX, LOG_LINES_MAX, REASON_CHARS_MAX, SLOTS_MAX};
use crate::report::{ImageRef, SlotReport, Trusted};
use crate::telemetry::Facts;

/// Characters of a code such as `infer.input`.
const CODE_CHARS_MAX: usize = 80;

/// Troubles that a diagnosis tells, newest last.
const TROUBLES_MAX: usize = 32;

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Of the request.
    pub nonce: Nonce,
    /// When, by the device's clock.
    pub at: UnixMillis,
    /// What came out.
    pub outcome: Outcome,
}

/// What came out of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// A model has answered.
    Inferred(Inferred),
    /// Lines of the log.
    Logs(LogTail),
    /// How the device does.
    Diagnosed(Box<Diagnosis>),
    /// Its batch jobs, the newest last.
    Batches(Vec<BatchJob>),
    /// Nothing.
    Refused(Refused),
}

/// What a model has answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inferred {
    /// The model.
    pub model: ModelName,
    /// The image that answered.
    pub image: ImageRef,
    /// Microseconds that it took, without the way.
    pub latency_us: u64,
    /// The body that an application on the device would have got: JSON of the Open Inference Protocol.
    #[serde(with = "codec::bytes")]
    pub body: Vec<u8>,
}

/// Lines of a log, newest last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogTail {
    /// The lines.
    pub lines: Vec<LogLine>,
    /// Lines that the device had written since it started, and has forgotten for lack of room.
    #[serde(default)]
    pub forgotten: u64,
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogLine {
    /// When, by the device's clock.
    pub at: UnixMillis,
    /// How bad it is.
    pub level: LogLevel,
    /// The part of the agent that wrote it.
    pub target: String,
    /// The message and its facts.
    pub text: String,
}

/// Why nothing came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The status that HTTP has for it.
    pub status: u16,
    /// The stable code.
    pub code: String,
    /// What happened, to what, what to do.
    pub reason: String,
}

/// How a device does, from the inside: what its reports and heartbeats say, and what they leave out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Diagnosis {
    /// Version of the agent.
    pub agent: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Hardware and system.
    pub facts: Facts,
    /// What its clocks show.
    pub clock: DiagnosisClock,
    /// Free memory in MiB.
    pub memory_free_mb: u32,
    /// Free disk below the agent's store, in MiB.
    pub disk_free_mb: u32,
    /// Messages that wait for the server's receipt.
    pub spooled: u64,
    /// Messages that were dropped for lack of room since the agent started.
    pub dropped: u64,
    /// Starts of a worker since the agent started that were not the first.
    pub restarts: u32,
    /// Days until its certificate expires.
    pub certificate_days: i16,
    /// The newest directive that it has accepted.
    pub generation: Generation,
    /// One entry per model, as it reports them.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub slots: Vec<SlotReport>,
    /// What is served now.
    pub models: Vec<DiagnosisModel>,
    /// The trust metadata that it has verified.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub trusted: Trusted,
    /// Keys of directors that it believes.
    pub directors: Vec<String>,
    /// Where applications on the device reach the models.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// What its owner lets others ask: `all`, `diagnose`.
    pub remote_requests: String,
    /// What it has told people about since it started, newest last.
    pub troubles: Vec<DiagnosisTrouble>,
}

/// What a device's clocks show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiagnosisClock {
    /// The time of day that it believes in.
    pub now: UnixMillis,
    /// Whether the wall clock can be right.
    pub is_trusted: bool,
    /// Its time zone.
    pub zone: String,
}

/// A model that a device serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiagnosisModel {
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// Requests of applications since it went live.
    pub requests: u64,
    /// Of these, the ones that failed by our fault.
    pub errors: u64,
    /// 95 % of the answers took at most this many microseconds.
    pub latency_p95_us: u32,
    /// Execution providers that really run the graph, with their count of nodes.
    pub providers: Vec<(String, u32)>,
}

/// Something that a device has told people about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiagnosisTrouble {
    /// When, by the device's clock.
    pub at: UnixMillis,
    /// The stable code.
    pub code: String,
    /// What happened.
    pub reason: String,
}

/// Why bytes are not an answer.
#[derive(Debug, thiserror::Error)]
pub enum InvalidAnswer {
    /// Not CBOR of the right shape, or too many bytes.
    #[error("not an answer to a request")]
    Form(#[from] CodecError),
    /// Decoded, but out of its bounds.
    #[error("an answer with {0}")]
    Bounds(&'static str),
}

impl Answer {
    /// Reads an answer of a device that nobody trusts: whatever is in it is bounded then, but not yet plain text.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidAnswer> {
        let answer: Self = codec::decode("answer", bytes, ANSWER_BYTES_MAX)?;
        answer.outcome.check().map_err(InvalidAnswer::Bounds)?;
        Ok(answer)
    }

    /// Encodes it.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode(self)
    }
}

impl Outcome {
    fn check(&self) -> Result<(), &'static str> {
        let lines_max = usize::try_from(LOG_LINES_MAX).unwrap_or(usize::MAX);
        match self {
            Self::Logs(tail) if tail.lines.len() > lines_max => {
                Err("more lines than were asked for")
            }
            Self::Batches(jobs) if jobs.len() > BATCH_JOBS_MAX => {
                Err("more batches than a device keeps")
            }
            Self::Inferred(_) | Self::Logs(_) | Self::Batches(_) => Ok(()),
            Self::Diagnosed(diagnosis) => diagnosis.check(),
            Self::Refused(refused) => refused.check(),
        }
    }
}

impl Refused {
    /// A refusal whose reason is cut to what people read.
    pub fn new(status: u16, code: &str, reason: &str) -> Self {
        let reason = reason.chars().take(REASON_CHARS_MAX).collect();
        Self { status, code: code.to_owned(), reason }
    }

    fn check(&self) -> Result<(), &'static str> {
        let is_short = |text: &str, max: usize| text.chars().count() <= max;
        if !(400..=599).contains(&self.status) {
            return Err("a refusal of no status");
        }
        if !is_short(&self.code, CODE_CHARS_MAX) || !is_short(&self.reason, REASON_CHARS_MAX) {
            return Err("a refusal that is a novel");
        }
        Ok(())
    }
}

impl Diagnosis {
    /// Leaves out the oldest troubles beyond what an answer may tell.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let surplus = self.troubles.len().saturating_sub(TROUBLES_MAX);
        self.troubles.drain(..surplus);
        self
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.slots.len() > SLOTS_MAX || self.models.len() > SLOTS_MAX {
            return Err("more models than a device has slots");
        }
        if self.troubles.len() > TROUBLES_MAX {
            return Err("more troubles than a device tells");
        }
        Ok(())
    }
}
