//! What every protocol has in common: requests are let in, checked against the contract, and asked; once more if the worker died.

use std::sync::Arc;
use std::time::Duration;

use sealift_protocol::capture::InferenceId;
use sealift_protocol::tensor::Tensor;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::challenger::Split;
use super::live::Live;
use super::refusal::Refusal;
use super::switchboard::Switchboard;
use crate::worker::{InferError, Inferred};

/// One request's body: a batch of 50 images of 224 x 224 in FP32.
pub(super) const BODY_BYTES_MAX: usize = 32 << 20;

/// Requests in flight, in parts of [`PART_BYTES`]: 64 small ones, or 8 of the largest, so that bodies take at most 256 MiB.
const PARTS_MAX: u32 = 64;

/// What one part of the requests in flight may hold.
const PART_BYTES: u64 = 4 << 20;

/// Longest time for one request: a slow body, one answer and one more from the worker after it.
pub(super) const REQUEST_MAX: Duration = Duration::from_secs(75);

/// Which models there are, and how many requests may be in flight by all protocols together. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub(super) board: Switchboard,
    parts: Arc<Semaphore>,
}

/// A request whose form has been read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// What it is called.
    pub(super) inference: &'a InferenceId,
    pub(super) inputs: &'a [Tensor],
    /// After it, if there is one, nobody wants the answer any more.
    pub(super) deadline: Option<Duration>,
    pub(super) split: Split<'a>,
}

impl Endpoint {
    pub(super) fn new(board: Switchboard) -> Self {
        let parts = Semaphore::new(usize::try_from(PARTS_MAX).unwrap_or(usize::MAX));
        Self { board, parts: Arc::new(parts) }
    }

    /// Takes as many parts as a body needs that announces so many bytes.
    pub(super) fn admit(&self, announced: u64) -> Result<Admitted, Refusal> {
        let parts = Arc::clone(&self.parts).try_acquire_many_owned(parts_of(announced));
        parts.map(|parts| Admitted { parts }).map_err(|_| Refusal::Busy)
    }

    /// Finds the model that is live under a name, in the version asked for.
    pub(super) fn find(&self, name: &str, version: Option<&str>) -> Result<Live, Refusal> {
        let board = &self.board;
        let Some(live) = board.find(name) else {
            if let Some((model, why)) = board.withdrawn(name) {
                return Err(Refusal::Withdrawn { model: model.to_string(), why });
            }
            return Err(Refusal::UnknownModel { name: name.to_owned(), served: self.served() });
        };
        let served = live.image().version.as_str();
        match version.filter(|version| !version.is_empty()) {
            Some(given) if given != served => Err(Refusal::UnknownVersion {
                model: live.model().to_string(),
                given: given.to_owned(),
                served: served.to_owned(),
            }),
            Some(_) | None => Ok(live),
        }
    }

    /// The model that is meant where none is named: the only one there is.
    pub(super) fn only(&self) -> Result<Live, Refusal> {
        let mut all = self.board.all().into_iter();
        match (all.next(), all.next()) {
            (Some(live), None) => Ok(live),
            (None, _) => Err(Refusal::NothingServed),
            (Some(_), Some(_)) => Err(Refusal::Unnamed { served: self.served() }),
        }
    }

    /// What an inference is called: as its sender does, or else a name of its own.
    pub(super) fn name(&self, given: Option<&str>) -> InferenceId {
        let given = given.and_then(|given| InferenceId::parse(given).ok());
        given.unwrap_or_else(|| self.board.captor().name())
    }

    /// Names of all models, for people.
    fn served(&self) -> String {
        let names: Vec<_> = self.board.all().iter().map(|live| live.model().to_string()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// Checks the inputs, asks the model, counts the answer, and keeps it where it is to be kept. Returns which image has answered,
    /// too.
    pub(super) async fn ask(
        &self,
        live: Live,
        asked: Asked<'_>,
    ) -> Result<(Live, Vec<Tensor>), Refusal> {
        let Asked { inference, inputs, deadline, split } = asked;
        live.contract().check_inputs(inputs)?;
        let begin = Instant::now();
        let asked = ask_either(&self.board, live, (inference, inputs, split));
        let answer = match deadline {
            None => asked.await,
            Some(deadline) => {
                let late = Err(Refusal::TooLate(deadline));
                timeout(deadline, asked).await.unwrap_or(late)
            }
        };
        match &answer {
            Ok(Answered { live, outputs, is_compared }) => {
                self.board.count(begin.elapsed(), false);
                if !is_compared {
                    self.board.captor().look(live, inference, (inputs, outputs), None);
                }
            }
            // The sender's fault, or its wish.
            Err(
                Refusal::Infer(InferError::Input(_)) | Refusal::Contract(_) | Refusal::TooLate(_),
            ) => (),
            Err(_) => self.board.count(begin.elapsed(), true),
        }
        answer.map(|answer| (answer.live, answer.outputs))
    }
}

/// What a request may take of the device while it is held.
#[derive(Debug)]
pub(super) struct Admitted {
    parts: OwnedSemaphorePermit,
}

impl Admitted {
    /// Takes more parts for a body that has come to so many bytes, which it need not have announced.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let held = u32::try_from(self.parts.num_permits()).unwrap_or(PARTS_MAX);
        let more = parts_of(bytes as u64).saturating_sub(held);
        if more > 0 {
            let parts = Arc::clone(self.parts.semaphore()).try_acquire_many_owned(more);
            self.parts.merge(parts.map_err(|_| Refusal::Busy)?);
        }
        Ok(())
    }
}

/// How many parts so many bytes take; what is too large is refused by its length, not by this.
fn parts_of(bytes: u64) -> u32 {
    let parts = bytes.min(BODY_BYTES_MAX as u64).div_ceil(PART_BYTES).max(1);
    u32::try_from(parts).unwrap_or(PARTS_MAX)
}

/// What a request was answered, and by which image.
struct Answered {
    live: Live,
    outputs: Vec<Tensor>,
    /// The image beside the live one has a copy, and says whether it agrees.
    is_compared: bool,
}

/// A request that falls to an image beside the live one is answered by that. What it does not answer, and all others, the live one does,
/// and the other is shown what was answered.
async fn ask_either(
    board: &Switchboard,
    live: Live,
    (inference, inputs, split): (&InferenceId, &[Tensor], Split<'_>),
) -> Result<Answered, Refusal> {
    let challenger = board.challenger(live.model());
    if let Some(asked) = challenger.as_ref().filter(|asked| asked.is_asked(&live, &split))
        && let Some(outputs) = asked.answer(inputs).await
    {
        return Ok(Answered { live: asked.live().clone(), outputs, is_compared: false });
    }
    let (live, answer) = ask_twice(board, live, inputs).await?;
    let is_compared =
        challenger.is_some_and(|other| other.offer(&live, (inference, inputs), &answer));
    Ok(Answered { live, outputs: answer.outputs, is_compared })
}

/// A request whose worker dies is tried once on what replaces it, so that a crash is no outage. Never more often: the request may be
/// what kills workers.
async fn ask_twice(
    board: &Switchboard,
    live: Live,
    inputs: &[Tensor],
) -> Result<(Live, Inferred), Refusal> {
    let gone = match live.timed(inputs).await {
        Ok(answer) => return Ok((live, answer)),
        Err(InferError::WorkerGone { reason }) => InferError::WorkerGone { reason },
        Err(error) => return Err(error.into()),
    };
    let live = board.replacement(&live).await.ok_or(gone)?;
    live.contract().check_inputs(inputs)?;
    let answer = live.timed(inputs).await?;
    Ok((live, answer))
}
