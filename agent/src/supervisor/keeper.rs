//! Keeps the trust metadata, and answers what depends on them, one question after the other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sealift_protocol::digest::Digest;
use sealift_protocol::directive::DesiredSlot;
use sealift_protocol::id::{Epoch, Generation};
use sealift_protocol::report::Trusted;
use tokio::sync::mpsc;

use super::Input;
use crate::clock::Clock;
use crate::device::{Answer, Fault, FaultKind, Ticket};
use crate::limits::CHECKING_MAX_MS;
use crate::origin::Origin;
use crate::slots::Slots;
use crate::trust::Trust;
use crate::verify::{self, Checked, Me, NotAccepted};

/// Questions that wait: one for each model of a device, and a few directives.
const QUESTIONS_MAX: usize = 48;

/// No answer is worth more than this: the device has begun the question anew by then.
const QUESTION_MAX: Duration = Duration::from_millis(CHECKING_MAX_MS.unsigned_abs());

/// What depends on trust metadata.
#[derive(Debug)]
pub(super) enum Question {
    /// May the device follow this message?
    Directive { message: Vec<u8>, newest: Generation },
    /// Who may sign? This message is of a key that was not known.
    Directors(Unsigned),
    /// Is anything new on the deny list?
    DenyList,
    /// May the device prepare this image?
    Image { desired: Box<DesiredSlot>, floor: Epoch, ticket: Ticket },
}

/// A message of a key that was not known.
#[derive(Debug, Clone)]
pub(super) enum Unsigned {
    /// A list of halted rollouts.
    Halt(Vec<u8>),
    /// A request.
    Request(Vec<u8>),
    /// A list of what is kept for people to look at.
    Capture(Vec<u8>),
}

pub(super) struct Keeper {
    pub(super) trust: Trust,
    pub(super) me: Me,
    pub(super) slots: Slots,
    pub(super) origin: Origin,
    pub(super) clock: Clock,
    pub(super) inputs: mpsc::Sender<Input>,
}

impl Keeper {
    /// Starts the task; it ends when nobody can ask any more.
    pub(super) fn start(mut self) -> mpsc::Sender<Question> {
        let (questions, mut queue) = mpsc::channel(QUESTIONS_MAX);
        tokio::spawn(async move {
            let mut told = self.trust.denied();
            let mut trusted = Trusted::default();
            let mut directors = None;
            while let Some(question) = queue.recv().await {
                let answer = self.answer(question).await;
                // Whatever was asked may have brought a newer list, which counts before the answer does.
                let denied = self.trust.denied();
                let news = (!is_same(&told, &denied)).then(|| Input::Denied(Arc::clone(&denied)));
                told = denied;
                let versions = self.trust.trusted();
                let followed =
                    (versions != trusted).then(|| Input::Trusted(Box::new(versions.clone())));
                trusted = versions;
                let until = self.trust.earliest_expiry();
                let keys = self.trust.present_directors().map(|keys| (keys, until));
                let keys = keys.filter(|keys| directors.as_ref() != Some(keys));
                directors = keys.clone().or(directors);
                let keys = keys.map(|(keys, until)| Input::Directors(keys, until));
                for input in news.into_iter().chain(followed).chain(keys).chain([answer]) {
                    if self.inputs.send(input).await.is_err() {
                        return;
                    }
                }
            }
        });
        questions
    }

    /// Answers in bounded time, whatever the server does: other questions wait. What was begun leaves nothing behind, for each question
    /// begins anew, and what is kept was checked.
    async fn answer(&mut self, question: Question) -> Input {
        let late = match &question {
            Question::Directive { message, .. } => {
                let why = NotAccepted::Refused(too_late());
                Input::NotAccepted { message: Digest::of(message), why }
            }
            Question::DenyList => Input::Refreshed(Err(too_late())),
            Question::Directors(message) => {
                Input::Again { message: message.clone(), followed: Err(too_late()) }
            }
            Question::Image { desired, ticket, .. } => {
                let (model, answer) = (desired.model.clone(), Answer::Failed(too_late()));
                Input::Answer { model, ticket: *ticket, answer }
            }
        };
        let answered = tokio::time::timeout(QUESTION_MAX, self.answer_at_length(question)).await;
        let answer = answered.unwrap_or(late);
        if let Input::Answer { model, answer: Answer::Failed(fault), .. } = &answer {
            let Fault { code, reason, .. } = fault;
            tracing::info!(%model, code, reason, "check of an image did not pass");
        }
        answer
    }

    async fn answer_at_length(&mut self, question: Question) -> Input {
        let clock = self.clock.read();
        let now = clock.now;
        match question {
            Question::Directive { message, newest } => {
                let (here, times) = ((&self.me, &self.slots), (newest, clock));
                match verify::directive(&mut self.trust, here, &message, times).await {
                    Ok(directive) => Input::Accepted(directive),
                    Err(why) => Input::NotAccepted { message: Digest::of(&message), why },
                }
            }
            Question::DenyList => {
                let refreshed = self.trust.refresh_now(now).await;
                Input::Refreshed(refreshed.map_err(|error| error.fault(verify::spread_permille())))
            }
            Question::Directors(message) => {
                let followed = self.trust.refresh(now).await;
                let followed = followed.map_err(|error| error.fault(verify::spread_permille()));
                Input::Again { message, followed }
            }
            Question::Image { desired, floor, ticket } => {
                let place = (&self.me, &self.slots, &self.origin);
                let checked = verify::image(&mut self.trust, place, (&desired, floor), now).await;
                let answer = match checked {
                    Ok(Checked { epoch, total_bytes }) => Answer::Checked { epoch, total_bytes },
                    Err(fault) => Answer::Failed(fault),
                };
                Input::Answer { model: desired.model, ticket, answer }
            }
        }
    }
}

fn too_late() -> Fault {
    let kind = FaultKind::Unreachable { spread_permille: verify::spread_permille() };
    let reason = format!("the check took longer than {} s", QUESTION_MAX.as_secs());
    Fault::new(kind, "check.timeout", &reason)
}

fn is_same(told: &Arc<BTreeSet<Digest>>, denied: &Arc<BTreeSet<Digest>>) -> bool {
    Arc::ptr_eq(told, denied) || told == denied
}
