//! A model in a process of its own: loaded, self-tested, then answering requests until it is stopped or dies.
//!
//! ```text
//!  supervisor ── socket pair: frames with request numbers ──▶ fleet-agent worker ──▶ ONNX Runtime
//!      │     └── shared memory: large tensors ────────────────────────┤
//!      └── keeper thread: started it, waits for its end ─────────────┘
//! ```
//! Architecture invariant: the supervisor never loads an inference library. A crash of the library is the end of a child.

mod budget;
pub mod child;
mod frame;
mod line;
mod link;
mod loans;
mod outbox;
mod post;
mod process;
mod sandbox;
mod seat;
mod selftest;
mod shared;

use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sealift_protocol::digest::Digest;
use sealift_protocol::image::{Golden, IoContract, Policy};
use sealift_protocol::limits::{CONTRACT_BYTES_MAX, GOLDEN_BYTES_MAX, POLICY_BYTES_MAX};
use sealift_protocol::picture::Figures;
use sealift_protocol::tensor::Tensor;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::engine::fake::Fake;
use crate::engine::look::Look;
use crate::engine::{Engine, EngineError};
pub use budget::Budget;
use frame::{Loaded, Order};
use link::{CallError, Link};
use seat::Seat;

/// Longest wait for one answer. A worker that answered nobody for as long is taken for hung and is ended.
const INFER_MAX: Duration = Duration::from_secs(30);

/// What this device's kernel cannot keep from a worker, in words for people; empty if it shuts one in completely.
pub(crate) fn sandbox_gaps() -> Vec<String> {
    sandbox::gaps().into_iter().map(str::to_owned).collect()
}

/// What to run, and how.
#[derive(Debug, Clone)]
pub struct WorkerSpec {
    /// Directory of the image's files; the worker may read it and nothing beside it.
    pub slot_dir: PathBuf,
    /// The image's files.
    pub files: SlotFiles,
    /// What runs the graph.
    pub engine: EngineChoice,
    /// Where the worker may write.
    pub scratch_dir: PathBuf,
    /// The program that is started as `… worker`; none for the running one.
    pub executable: Option<PathBuf>,
}

/// Paths of an image's files.
#[derive(Debug, Clone)]
pub struct SlotFiles {
    /// The graph.
    pub weights: PathBuf,
    /// What was signed for it: the worker hashes the very file that it then loads.
    pub weights_digest: Digest,
    /// The I/O contract, JSON.
    pub contract: PathBuf,
    /// The golden tests, CBOR.
    pub golden: PathBuf,
    /// The training distribution, CBOR.
    pub baseline: Option<PathBuf>,
    /// The policy, JSON; none for the default one.
    pub policy: Option<PathBuf>,
}

/// What runs the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineChoice {
    /// ONNX Runtime: the first candidate that loads the model.
    OnnxRuntime(Vec<RuntimeCandidate>),
    /// Made-up answers, in this process; golden tests are not run.
    Fake,
}

/// A library to try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeCandidate {
    /// Full path of the ONNX Runtime library.
    pub library: PathBuf,
    /// Execution providers, best first, as `OpenVINOExecutionProvider`.
    pub providers: Vec<String>,
    /// Whether the model must run on these providers alone; else the CPU takes what they do not.
    #[serde(default)]
    pub strict: bool,
    /// Requests that a model does at once, each in a session of its own, which takes memory of its own.
    #[serde(default = "one")]
    pub sessions: NonZeroU8,
}

const fn one() -> NonZeroU8 {
    NonZeroU8::MIN
}

/// What a worker told about itself once it was ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warmed {
    /// Execution providers that really run the graph, with their count of nodes.
    pub providers: Vec<(String, u32)>,
    /// Name and version of the library.
    pub runtime: String,
    /// From the start of the load to a session.
    pub load_ms: u64,
    /// All golden cases once, warm.
    pub golden_ms: u64,
    /// Memory of the worker after the golden tests; 0 where it cannot be read.
    pub memory_mb: u64,
}

/// Why a worker did not become ready.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A file of the slot cannot be read.
    #[error("cannot read {path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file of the slot is not what it should be.
    #[error("{0}")]
    Content(String),
    /// The process was not started.
    #[error("cannot start a worker")]
    Spawn(#[source] std::io::Error),
    /// The library, a provider or the model does not load, or the worker died over it.
    #[error("{0}")]
    Load(String),
    /// An output differs from its golden one.
    #[error("{0}")]
    Golden(String),
    /// A golden case takes too long.
    #[error("{0}")]
    Latency(String),
    /// The worker holds more memory than the policy allows.
    #[error("worker holds {held_mb} MiB, the policy allows {allowed_mb}")]
    Memory {
        /// Held after the self-test.
        held_mb: u64,
        /// Allowed by the image's policy.
        allowed_mb: u64,
    },
    /// Loading and self-test took longer than the policy allows.
    #[error("load and self-test took more than {0:?}")]
    Timeout(Duration),
}

impl WorkerError {
    /// The stable code for reports.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::File { .. } | Self::Content(_) | Self::Spawn(_) | Self::Load(_) => {
                "self-test.load"
            }
            Self::Golden(_) => "self-test.golden",
            Self::Latency(_) => "self-test.latency",
            Self::Memory { .. } => "self-test.memory",
            Self::Timeout(_) => "self-test.timeout",
        }
    }
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// The worker ended; a newer one may answer.
    #[error("the model's worker ended: {reason}")]
    WorkerGone {
        /// How it ended.
        reason: String,
    },
    /// No answer in time.
    #[error("no answer within {} s", INFER_MAX.as_secs())]
    Deadline,
    /// The input cannot be handed to the model; whoever sent it is to blame.
    #[error("{0}")]
    Input(String),
    /// The model failed on an input that keeps its contract.
    #[error("the model failed: {0}")]
    Model(String),
}

/// An answer of the engine.
#[derive(Debug)]
pub(crate) struct Inferred {
    pub(crate) outputs: Vec<Tensor>,
    /// How long it took, without the wait for its turn.
    pub(crate) engine: Duration,
    /// Of the pictures that were to be looked at, in their order; empty if one of them was not there.
    pub(crate) figures: Vec<Figures>,
}

/// A model that is loaded, self-tested and ready. Cheap to clone; when the last clone goes, the process is ended.
#[derive(Debug, Clone)]
pub struct Worker(Arc<Place>);

#[derive(Debug)]
enum Place {
    Child(Arc<Seat>),
    Here { fake: Mutex<Fake> },
}

impl Worker {
    /// Loads and self-tests a model; with several candidates, by the first that loads it.
    pub async fn start(spec: WorkerSpec) -> Result<(Self, Warmed), WorkerError> {
        Self::start_within(spec, None).await
    }

    /// The same, as one of the workers that share a budget.
    pub async fn start_within(
        spec: WorkerSpec,
        budget: Option<Budget>,
    ) -> Result<(Self, Warmed), WorkerError> {
        if spec.engine == EngineChoice::Fake {
            read_policy(spec.files.policy.as_deref())?;
            read_golden(&spec.files.golden)?;
            return Ok(Self::made_up(Arc::new(read_contract(&spec.files.contract)?)));
        }
        let (link, warmed) = start_first(&spec).await?;
        let seat = Seat::new(spec, link, warmed.memory_mb, budget);
        Ok((Self(Arc::new(Place::Child(seat))), warmed))
    }

    /// One that makes its answers up, in this process, to a contract.
    pub(crate) fn made_up(contract: Arc<IoContract>) -> (Self, Warmed) {
        let fake = Fake::new(contract);
        let warmed = Warmed {
            providers: fake.providers().to_vec(),
            runtime: fake.runtime().to_owned(),
            load_ms: 0,
            golden_ms: 0,
            memory_mb: 0,
        };
        (Self(Arc::new(Place::Here { fake: Mutex::new(fake) })), warmed)
    }

    /// Says whether the model may be unloaded while nobody asks for it; at first it may not.
    pub fn let_sleep(&self, may_sleep: bool) {
        if let Place::Child(seat) = &*self.0 {
            seat.let_sleep(may_sleep);
        }
    }

    /// Asks the model. `inputs` keep the contract; the caller has checked it.
    pub async fn infer(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, InferError> {
        self.looked_at(inputs, &[]).await.map(|inferred| inferred.outputs)
    }

    /// The same, with how long the engine itself took, and what was seen of the pictures at `places`.
    pub(crate) async fn looked_at(
        &self,
        inputs: &[Tensor],
        places: &[u16],
    ) -> Result<Inferred, InferError> {
        match &*self.0 {
            Place::Child(seat) => seat.infer((inputs, places), INFER_MAX).await,
            Place::Here { fake } => {
                let mut fake = fake.lock().unwrap_or_else(PoisonError::into_inner);
                let mut look = Look::new(places.to_vec());
                let begin = Instant::now();
                let outputs = fake.run(inputs)?;
                let engine = begin.elapsed();
                look.decoded(fake.contract(), inputs);
                Ok(Inferred { outputs, engine, figures: look.into_figures() })
            }
        }
    }

    /// Waits until the process ends by itself and returns how. Waits for ever if it never does, or if it was stopped.
    pub async fn exited(&self) -> String {
        match &*self.0 {
            Place::Child(seat) => seat.ended().await,
            Place::Here { .. } => std::future::pending().await,
        }
    }

    /// Process id of the child; none for a fake, and while the model is unloaded.
    pub fn process_id(&self) -> Option<u32> {
        match &*self.0 {
            Place::Child(seat) => seat.process_id(),
            Place::Here { .. } => None,
        }
    }

    /// What the process has computed so far, in all its threads; none for a fake, and where it cannot be read.
    pub(crate) fn processor_time(&self) -> Option<Duration> {
        process::processor_time(self.process_id()?)
    }

    /// Takes no more requests, waits for those in flight up to a deadline, and ends the process.
    pub async fn stop(self) {
        if let Place::Child(seat) = &*self.0 {
            seat.stop().await;
        }
    }
}

impl From<EngineError> for InferError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Input(text) => Self::Input(text),
            EngineError::Load(text) | EngineError::Run(text) => Self::Model(text),
        }
    }
}

/// Loads and self-tests a model in a process, within the time that its policy allows.
async fn start_first(spec: &WorkerSpec) -> Result<(Link, Warmed), WorkerError> {
    let policy = read_policy(spec.files.policy.as_deref())?;
    let EngineChoice::OnnxRuntime(candidates) = &spec.engine else {
        return Err(WorkerError::Load("no ONNX Runtime library is configured".to_owned()));
    };
    let deadline = Duration::from_secs(u64::from(policy.warm_up_max_s));
    let started = tokio::time::timeout(deadline, try_all(spec, candidates, &policy));
    started.await.unwrap_or(Err(WorkerError::Timeout(deadline)))
}

/// Tries the candidates in order. A library that crashes while it loads is as good as one that does not load.
async fn try_all(
    spec: &WorkerSpec,
    candidates: &[RuntimeCandidate],
    policy: &Policy,
) -> Result<(Link, Warmed), WorkerError> {
    let mut refused = Vec::new();
    for candidate in candidates {
        match start_child(spec, candidate, policy).await {
            Err(WorkerError::Load(reason)) => {
                let library = candidate.library.display();
                tracing::info!(%library, reason, "runtime candidate does not load the model");
                refused.push(format!("{library}: {reason}"));
            }
            settled => return settled,
        }
    }
    let none = || "no ONNX Runtime library is configured".to_owned();
    let reasons = (!refused.is_empty()).then(|| refused.join("; "));
    Err(WorkerError::Load(reasons.unwrap_or_else(none)))
}

async fn start_child(
    spec: &WorkerSpec,
    candidate: &RuntimeCandidate,
    policy: &Policy,
) -> Result<(Link, Warmed), WorkerError> {
    let link = process::spawn(spec.executable.as_deref(), &spec.scratch_dir)
        .await
        .map_err(WorkerError::Spawn)?;
    let order = Order::load(spec, candidate, policy);
    let loaded = link.load(&order).await.map_err(|error| refusal(error, candidate))?;
    let held_mb = process::memory_mb(link.process_id());
    let allowed_mb = u64::from(policy.memory_max_mb);
    if held_mb > allowed_mb {
        return Err(WorkerError::Memory { held_mb, allowed_mb });
    }
    link.widen(candidate.sessions);
    let Loaded { providers, runtime, load_ms, golden_ms } = loaded;
    let warmed = Warmed { providers, runtime, load_ms, golden_ms, memory_mb: held_mb };
    Ok((link, warmed))
}

fn refusal(error: CallError, candidate: &RuntimeCandidate) -> WorkerError {
    match error {
        CallError::Fault { fault: frame::Fault::Golden, reason } => WorkerError::Golden(reason),
        CallError::Fault { fault: frame::Fault::Latency, reason } => WorkerError::Latency(reason),
        CallError::Fault { reason, .. } => WorkerError::Load(reason),
        CallError::Gone { reason } => {
            let library = candidate.library.display();
            WorkerError::Load(format!("worker ended while it loaded {library}: {reason}"))
        }
        CallError::TooLarge { bytes } => {
            WorkerError::Load(format!("order to load takes {bytes} bytes"))
        }
    }
}

fn read_policy(path: Option<&Path>) -> Result<Policy, WorkerError> {
    let Some(path) = path else { return Ok(Policy::default()) };
    let bytes = read_file(path, POLICY_BYTES_MAX)?;
    serde_json::from_slice(&bytes).map_err(|error| content(path, &error))
}

fn read_contract(path: &Path) -> Result<IoContract, WorkerError> {
    let bytes = read_file(path, CONTRACT_BYTES_MAX)?;
    IoContract::parse(&bytes).map_err(|error| content(path, &error))
}

fn read_golden(path: &Path) -> Result<Golden, WorkerError> {
    let bytes = read_file(path, GOLDEN_BYTES_MAX)?;
    Golden::parse(&bytes).map_err(|error| content(path, &error))
}

fn content(path: &Path, error: &dyn std::error::Error) -> WorkerError {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    WorkerError::Content(format!("{}: {error}{cause}", path.display()))
}

/// Reads a whole file that is no larger than its kind may be.
fn read_file(path: &Path, bytes_max: usize) -> Result<Vec<u8>, WorkerError> {
    use std::io::Read;
    let refused = |source| WorkerError::File { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(refused)?;
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(refused)?;
    if bytes.len() > bytes_max {
        return Err(WorkerError::Content(format!(
            "{}: more than {bytes_max} bytes",
            path.display()
        )));
    }
    Ok(bytes)
}
