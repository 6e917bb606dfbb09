//! Answers what the fleet's operators ask this device: a test inference, the tail of its log, a diagnosis.
//!
//! A request is checked as a halt is: here, with the keys that were trusted when the metadata were last followed, and only one of a key
//! that is not known yet after the metadata. What it asks for takes none of the device's decisions, and no model's place.

mod diagnosis;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use sealift_protocol::digest::Digest;
use sealift_protocol::id::{ModelName, UnixMillis, Version};
use sealift_protocol::limits::{ANSWER_BYTES_MAX, ANSWER_HERE_BYTES_MAX};
use sealift_protocol::report::ImageRef;
use sealift_protocol::request::{
    Answer, Ask, Asked, Batch, Infer, Inferred, Input as Given, Nonce, Outcome, Refused, Request,
    RequestRefused,
};
use sealift_protocol::telemetry::{Event as Alarm, Severity};
use sealift_protocol::topic::Up;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::doorstep::{Doorstep, Met};
use super::keeper::Unsigned;
use super::{Input, Supervisor, SupervisorError};
use crate::asked::Taken;
use crate::config::RemoteRequests;
use crate::device::Fault;
use crate::origin::Origin;
use crate::serve::{Probe, Switchboard, probe};
use crate::spool::Keep;

/// Requests that are worked on at a time. More are for somebody who looks at one device, fewer would let one wait for another.
const AT_ONCE: usize = 2;

/// Requests in a minute: a person who tries something out asks every few seconds.
const IN_A_MINUTE: usize = 30;

const MINUTE_MS: i64 = 60_000;

/// An answer that takes longer than this finds nobody who waits for it.
const ANSWER_MAX: Duration = Duration::from_secs(18);

/// Devices' clocks may be behind the server's by this much; as for directives.
const CLOCK_SKEW_MAX_MS: i64 = 5 * 60_000;

/// What the device remembers of requests.
#[derive(Debug)]
pub(super) struct Requests {
    taken: Taken,
    pub(super) door: Doorstep,
    room: Arc<Semaphore>,
    lately: VecDeque<UnixMillis>,
}

impl Requests {
    pub(super) fn new(taken: Taken) -> Self {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        Self { taken, door: Doorstep::default(), room, lately: VecDeque::new() }
    }

    /// Room for one more, unless there are too many at once, or were in the last minute.
    fn admit(&mut self, now: UnixMillis) -> Option<OwnedSemaphorePermit> {
        self.lately.retain(|at| now.since(*at) < MINUTE_MS);
        if self.lately.len() >= IN_A_MINUTE {
            return None;
        }
        let room = Arc::clone(&self.room).try_acquire_owned().ok()?;
        self.lately.push_back(now);
        Some(room)
    }
}

/// Whom an answer is for.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    nonce: Nonce,
    by: String,
    /// What was asked, for people.
    what: String,
}

/// A request that was worked on beside the supervisor.
#[derive(Debug)]
pub(super) struct Worked {
    asker: Asker,
    outcome: Outcome,
    /// Whether the answer is on the server already.
    is_up: bool,
    _room: OwnedSemaphorePermit,
}

impl Supervisor {
    /// Takes a request that nobody has checked.
    pub(super) fn on_request(&mut self, message: Vec<u8>) -> Result<(), SupervisorError> {
        let checked = self.check_request(&message);
        let met = self.meet(&Unsigned::Request(message), checked)?;
        self.take_request(met)
    }

    /// Takes a message of a key that was not known once more, after the metadata were followed, or could not be.
    pub(super) fn on_again(
        &mut self,
        message: &Unsigned,
        followed: Result<(), Fault>,
    ) -> Result<(), SupervisorError> {
        match message {
            Unsigned::Halt(_) => self.on_halt_again(message, followed),
            Unsigned::Capture(_) => self.on_capture_again(message, followed),
            Unsigned::Request(_) => {
                let met = self.meet_again(message, followed, Self::check_request)?;
                self.take_request(met)
            }
        }
    }

    fn check_request(&self, message: &[u8]) -> Result<Request, RequestRefused> {
        let clock = self.clock.read();
        let (tenant, device, now) = (&self.me.tenant, &self.me.device, clock.now);
        // Without a clock nobody knows whether a request is from the future; as for a directive, metadata of offline keys bound it.
        let issued_until = if clock.is_trusted {
            now.plus(CLOCK_SKEW_MAX_MS)
        } else {
            self.halts.earliest_expiry()
        };
        let asked = Asked { tenant, device, now, issued_until };
        Ok(Request::verify(message, self.halts.directors(), asked)?.into_inner())
    }

    fn take_request(&mut self, met: Met<Request, RequestRefused>) -> Result<(), SupervisorError> {
        let request = match met {
            Met::Taken(request) => request,
            Met::Waits => return Ok(()),
            Met::Refused(refused) => return self.answer_late(&refused),
        };
        // Redelivered, or replayed: either way it was answered.
        if let Err(error) = self.requests.taken.take(&request) {
            let Request { nonce, ask, .. } = request;
            tracing::info!(%nonce, %ask, %error, "request is not answered again");
            return Ok(());
        }
        let Request { nonce, by, ask, .. } = request;
        let asker = Asker { nonce, by, what: ask.to_string() };
        match self.admit_request(&ask) {
            Ok(room) => self.answer_request(asker, ask, room),
            Err(refused) => self.answered(&asker, Outcome::Refused(refused), false),
        }
    }

    /// What stands between a request that may be believed and its answer: the owner, room, and the promise to do it once.
    fn admit_request(&mut self, ask: &Ask) -> Result<OwnedSemaphorePermit, Refused> {
        let remote = self.setup.config.remote_requests;
        if !remote.lets(ask) {
            let is_harmless = !matches!(ask, Ask::Batch(_)) && remote == RemoteRequests::None;
            let needed = if is_harmless { "diagnose" } else { "all" };
            let reason = format!(
                "the device's owner lets nobody ask for this (remote_requests = \"{}\"); \
                 `remote_requests = \"{needed}\"` in its agent.toml would",
                remote.as_str()
            );
            return Err(Refused::new(403, "request.forbidden", &reason));
        }
        let Some(room) = self.requests.admit(self.clock.steady()) else {
            let reason = "the device is asked too much at once; try again in a minute";
            return Err(Refused::new(429, "request.busy", reason));
        };
        let (requests, store) = (&self.requests, &self.setup.store);
        let kept = self.reserve.spend(|| requests.taken.write(store));
        // A diagnosis costs nothing and changes nothing: it is what finds the full disk.
        match kept {
            Err(error) if *ask != Ask::Diagnose => {
                let reason = format!("the device cannot note that it was asked: {error}");
                Err(Refused::new(507, "request.not-kept", &reason))
            }
            Ok(()) | Err(_) => Ok(room),
        }
    }

    fn answer_request(
        &mut self,
        asker: Asker,
        ask: Ask,
        room: OwnedSemaphorePermit,
    ) -> Result<(), SupervisorError> {
        let outcome = match ask {
            Ask::Infer(infer) => {
                self.infer(asker, infer, room);
                return Ok(());
            }
            Ask::Batch(batch) => {
                self.batch(asker, batch, room);
                return Ok(());
            }
            Ask::Logs(wanted) => Outcome::Logs(self.setup.logs.tail(&wanted)),
            Ask::Diagnose => Outcome::Diagnosed(Box::new(self.diagnose())),
        };
        self.deliver(Worked { asker, outcome, is_up: false, _room: room })
    }

    fn infer(&self, asker: Asker, question: Infer, room: OwnedSemaphorePermit) {
        let (origin, board) = (self.origin.clone(), self.switchboard.clone());
        let (serving, inputs) = (self.serving.handle().clone(), self.inputs.clone());
        tokio::spawn(async move {
            let late = || {
                let reason = format!("there was no answer within {} s", ANSWER_MAX.as_secs());
                Err(Refused::new(504, "infer.late", &reason))
            };
            let nonce = asker.nonce;
            let answered = tokio::time::timeout(ANSWER_MAX, async {
                let body = input(&origin, nonce, question.input.clone()).await?;
                // The socket to a worker belongs to the runtime that applications are answered on.
                let told = serving.spawn(async move { ask_model(&board, &question, &body).await });
                let ended = |_| Err(Refused::new(503, "infer.ended", "the device stops"));
                told.await.unwrap_or_else(ended)
            });
            let answered = answered.await.unwrap_or_else(|_| late());
            let outcome = answered.map_or_else(Outcome::Refused, Outcome::Inferred);
            let worked = Worked { asker, outcome, is_up: false, _room: room };
            // The supervisor may have gone meanwhile.
            drop(inputs.send(Input::Worked(Box::new(worked))).await);
        });
    }

    fn batch(&self, asker: Asker, batch: Batch, room: OwnedSemaphorePermit) {
        let (jobs, inputs) = (self.jobs.clone(), self.inputs.clone());
        tokio::spawn(async move {
            let answered =
                tokio::time::timeout(ANSWER_MAX, jobs.ask(batch, asker.by.clone())).await;
            let late = |_| Err(Refused::new(503, "batch.ended", "the batches do not answer"));
            let answered = answered.unwrap_or_else(late);
            let outcome = answered.map_or_else(Outcome::Refused, Outcome::Batches);
            let worked = Worked { asker, outcome, is_up: false, _room: room };
            // The supervisor may have gone meanwhile.
            drop(inputs.send(Input::Worked(Box::new(worked))).await);
        });
    }

    /// Sends an answer: as a message, or up over HTTPS where it is too long for one.
    pub(super) fn deliver(&mut self, worked: Worked) -> Result<(), SupervisorError> {
        if worked.is_up {
            return self.answered(&worked.asker, worked.outcome, true);
        }
        let Worked { asker, outcome, _room: room, .. } = worked;
        let answer = Answer { nonce: asker.nonce, at: self.clock.now(), outcome };
        match answer.encode() {
            Ok(bytes) if bytes.len() > ANSWER_HERE_BYTES_MAX => {
                self.upload((asker, room), answer.outcome, bytes);
                Ok(())
            }
            Ok(_) | Err(_) => self.answered(&asker, answer.outcome, false),
        }
    }

    fn upload(
        &self,
        (asker, room): (Asker, OwnedSemaphorePermit),
        outcome: Outcome,
        bytes: Vec<u8>,
    ) {
        let (origin, inputs) = (self.origin.clone(), self.inputs.clone());
        tokio::spawn(async move {
            let put = if bytes.len() > ANSWER_BYTES_MAX {
                let reason = format!("the answer has {} bytes, too many to be sent", bytes.len());
                Err(Refused::new(413, "request.answer-too-large", &reason))
            } else {
                let path = format!("/requests/{}/answer", asker.nonce);
                let failed = |error: crate::origin::OriginError| {
                    Refused::new(503, "request.upload", &error.to_string())
                };
                origin.put(&path, bytes).await.map_err(failed)
            };
            let (outcome, is_up) = match put {
                Ok(()) => (outcome, true),
                Err(refused) => (Outcome::Refused(refused), false),
            };
            let worked = Worked { asker, outcome, is_up, _room: room };
            // The supervisor may have gone meanwhile.
            drop(inputs.send(Input::Worked(Box::new(worked))).await);
        });
    }

    /// Says what came of a request: to whoever asked, in the log, and on the device's timeline.
    fn answered(
        &mut self,
        asker: &Asker,
        outcome: Outcome,
        is_up: bool,
    ) -> Result<(), SupervisorError> {
        let Asker { nonce, by, what } = asker;
        let (code, text, about) = summary(&outcome);
        tracing::info!(%nonce, by, what, code, outcome = text, "request answered");
        let (model, image) = about.unzip();
        let event = Alarm {
            code: code.to_owned(),
            severity: Severity::Info,
            text: format!("{what}, asked by {by}: {text}"),
            model,
            image: image.map(|ImageRef { version, index }| (version, index)),
            at: self.clock.now(),
        };
        if !is_up {
            let answer = Answer { nonce: *nonce, at: self.clock.now(), outcome };
            self.spool(Up::Result, Keep::WhileThereIsRoom, &answer)?;
        }
        self.spool(Up::Event, Keep::WhileThereIsRoom, &event).map(drop)
    }

    /// Answers nobody but whoever has signed for this device: their clock, or this one's, is wrong.
    fn answer_late(&mut self, refused: &RequestRefused) -> Result<(), SupervisorError> {
        let RequestRefused::Window { nonce, .. } = refused else { return Ok(()) };
        let reason = crate::verify::with_cause(refused);
        let outcome = Outcome::Refused(Refused::new(409, refused.code(), &reason));
        let answer = Answer { nonce: *nonce, at: self.clock.now(), outcome };
        self.spool(Up::Result, Keep::WhileThereIsRoom, &answer).map(drop)
    }
}

/// Code and text for people, and the image that answered.
fn summary(outcome: &Outcome) -> (&str, String, Option<(ModelName, ImageRef)>) {
    const ANSWERED: &str = "request.answered";
    match outcome {
        Outcome::Inferred(Inferred { model, image, latency_us, body }) => {
            let bytes = body.len();
            let text =
                format!("{model}@{} answered {bytes} bytes in {latency_us} us", image.version);
            (ANSWERED, text, Some((model.clone(), image.clone())))
        }
        Outcome::Logs(tail) => (ANSWERED, format!("{} lines", tail.lines.len()), None),
        Outcome::Batches(jobs) => (ANSWERED, format!("{} batches", jobs.len()), None),
        Outcome::Diagnosed(_) => (ANSWERED, "done".to_owned(), None),
        Outcome::Refused(Refused { code, reason, .. }) => {
            (code, format!("refused: {reason}"), None)
        }
    }
}

/// The input of a test inference, wherever it is.
async fn input(origin: &Origin, nonce: Nonce, given: Given) -> Result<Vec<u8>, Refused> {
    let (digest, length) = match given {
        Given::Here(bytes) => return Ok(bytes),
        Given::There { digest, length } => (digest, length),
    };
    let failed = |reason: &str| Refused::new(503, "request.input", reason);
    let length = usize::try_from(length).map_err(|error| failed(&error.to_string()))?;
    let got = origin.get(&format!("/requests/{nonce}/input"), length).await;
    let bytes = got.map_err(|error| failed(&error.to_string()))?;
    let bytes = bytes.ok_or_else(|| failed("the server has no input for this request"))?;
    // Rule (trust.md, 10): bytes are those that were signed for, or are not looked at.
    if bytes.len() != length || Digest::of(&bytes) != digest {
        return Err(failed("the server's input is not the one that was signed for"));
    }
    Ok(bytes)
}

async fn ask_model(board: &Switchboard, infer: &Infer, body: &[u8]) -> Result<Inferred, Refused> {
    let model = infer.model.to_string();
    let header_bytes = infer.header_bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let question = Probe {
        model: &model,
        version: infer.version.as_ref().map(Version::as_str),
        content_type: &infer.content_type,
        header_bytes,
        body,
    };
    probe(board, question).await
}
