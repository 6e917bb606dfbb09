//! The supervisor's end of the socket to one worker: many requests at once, each answered, refused or told that the worker is gone.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU8;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};
use sealift_protocol::tensor::{Tensor, wire};
use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::frame::{self, Answer, Fault, FrameError, Loaded, Order, Reply, Request};
use super::loans::Loans;
use super::outbox::Outbox;
use super::process::Started;
use super::shared::{Area, Shared as Memory};
use super::{InferError, Inferred};

/// Requests at one worker, for a single session, which does them one by one: enough that it never waits for the next. More wait in their
/// callers, which have deadlines; one that is given up there never costs the worker anything.
const CALLS_MAX: usize = 4;

/// Requests more, for each further session.
const CALLS_PER_SESSION: usize = 2;

/// How long a stop waits for requests in flight; as long as one may take.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// How long a worker that was told to end may take; it has nothing left to do.
const END_MAX: Duration = Duration::from_secs(5);

/// Bytes that are read from the socket at once; larger bodies pass the buffer by.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// How long memory that a large request took is kept for the next one.
const TIDY_AFTER: Duration = Duration::from_secs(10);

/// Why a request was not done.
#[derive(Debug)]
pub(super) enum CallError {
    Gone { reason: String },
    Fault { fault: Fault, reason: String },
    TooLarge { bytes: usize },
}

/// A running child. Dropped, it kills the child.
#[derive(Debug)]
pub(super) struct Link {
    outbox: Arc<Outbox>,
    tasks: [AbortHandle; 2],
    calls: Semaphore,
    ended: watch::Receiver<Option<String>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    started: Started,
    /// For large tensors; none where the system has none, and all goes through the socket.
    memory: Option<Memory>,
    /// Who has which place of it.
    loans: Mutex<Loans>,
    /// The memory holds more than it keeps.
    overfull: Arc<Notify>,
    desk: Mutex<Desk>,
    /// A request left the desk.
    left: Notify,
    /// Replies so far; a worker that answers others is slow, one that answers nobody is hung.
    replies: AtomicU64,
    stopping: AtomicBool,
}

/// Who waits for what.
#[derive(Debug, Default)]
struct Desk {
    last_id: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Answer>>,
    is_closed: bool,
}

/// A place at the desk; given back when the answer is there or nobody wants it any more.
struct Ticket<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Link {
    /// Begins to read and write `socket`, whose other end `started` holds, and `memory` as well.
    pub(super) fn new(
        socket: UnixStream,
        memory: Option<Memory>,
        started: Started,
        ended: watch::Receiver<Option<String>>,
    ) -> Self {
        let shared = Arc::new(Shared {
            started,
            memory,
            loans: Mutex::default(),
            overfull: Arc::default(),
            desk: Mutex::default(),
            left: Notify::new(),
            replies: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        });
        let (reader, writer) = socket.into_split();
        let outbox = Arc::new(Outbox::new(writer));
        let flushing = tokio::spawn(flush(Arc::clone(&outbox))).abort_handle();
        tokio::spawn(read_replies(reader, Arc::downgrade(&shared), ended.clone()));
        let tidying = tidy(Arc::clone(&shared.overfull), Arc::downgrade(&shared));
        let tidying = tokio::spawn(tidying).abort_handle();
        let calls = Semaphore::new(CALLS_MAX);
        Self { outbox, tasks: [flushing, tidying], calls, ended, shared }
    }

    pub(super) fn process_id(&self) -> u32 {
        self.shared.started.process_id
    }

    /// Takes more requests at once, for a worker of several sessions.
    pub(super) fn widen(&self, sessions: NonZeroU8) {
        self.calls.add_permits((usize::from(sessions.get()) - 1) * CALLS_PER_SESSION);
    }

    /// Has the model loaded and self-tested. The caller sets the deadline.
    pub(super) async fn load(&self, order: &Order<'_>) -> Result<Loaded, CallError> {
        match self.call(order).await? {
            Answer::Loaded(loaded) => Ok(loaded),
            Answer::Refused { fault, reason } => Err(CallError::Fault { fault, reason }),
            Answer::Outputs { .. } => Err(self.broken("it answered a load with outputs")),
        }
    }

    /// Has the model answer within `deadline`. A worker that has answered nobody for so long is killed.
    pub(super) async fn infer(
        &self,
        (inputs, places): (&[Tensor], &[u16]),
        deadline: Duration,
    ) -> Result<Inferred, InferError> {
        let replies = self.shared.replies.load(Ordering::Relaxed);
        let order = Order::Run(Cow::Borrowed(inputs), Cow::Borrowed(places));
        let Ok(answer) = timeout(deadline, self.call(&order)).await else {
            if self.shared.replies.load(Ordering::Relaxed) == replies {
                tracing::error!(worker = self.process_id(), "worker hangs and is killed");
                self.shared.kill();
            }
            return Err(InferError::Deadline);
        };
        let answer = answer.and_then(|answer| match answer {
            Answer::Outputs { outputs, engine_us, figures } => {
                let engine = Duration::from_micros(engine_us.into());
                Ok(Inferred { outputs, engine, figures })
            }
            Answer::Refused { fault, reason } => Err(CallError::Fault { fault, reason }),
            Answer::Loaded(_) => Err(self.broken("it answered a request with a load")),
        });
        answer.map_err(|error| match error {
            CallError::Gone { reason } => InferError::WorkerGone { reason },
            CallError::Fault { fault: Fault::Input, reason } => InferError::Input(reason),
            CallError::Fault { reason, .. } => InferError::Model(reason),
            CallError::TooLarge { bytes } => {
                let bytes_max = frame::FRAME_BYTES_MAX;
                InferError::Input(format!("inputs take {bytes} bytes, at most {bytes_max} can be"))
            }
        })
    }

    /// Waits for an end that nobody asked for.
    pub(super) async fn ended_by_itself(&self) -> String {
        let reason = self.end().await;
        if self.shared.stopping.load(Ordering::Acquire) {
            std::future::pending::<()>().await;
        }
        reason
    }

    /// Ends the child after the requests in flight.
    pub(super) async fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.desk().is_closed = true;
        if timeout(DRAIN_MAX, self.shared.drained()).await.is_err() {
            tracing::warn!(worker = self.process_id(), "requests in flight were given up");
        }
        let end = async {
            if let Ok(frame) = Request::frame(0, &Order::Stop, None) {
                // An error means that the child is gone already.
                let _gone = self.outbox.send(frame);
            }
            self.end().await
        };
        if timeout(END_MAX, end).await.is_err() {
            self.shared.kill();
            self.end().await;
        }
    }

    async fn call(&self, order: &Order<'_>) -> Result<Answer, CallError> {
        let _call = self.calls.acquire().await;
        let (answered, answer) = oneshot::channel();
        let Some(ticket) = self.shared.take_ticket(answered) else {
            return Err(self.gone().await);
        };
        let frame = self.shared.frame(ticket.id, order).map_err(|error| not_sent(&error))?;
        if self.outbox.send(frame).is_err() {
            return Err(self.gone().await);
        }
        match answer.await {
            Ok(answer) => Ok(answer),
            Err(_closed) => Err(self.gone().await),
        }
    }

    /// How the child ended, once the desk is closed: stopped, or soon reaped by its keeper.
    async fn gone(&self) -> CallError {
        if self.shared.stopping.load(Ordering::Acquire) {
            return CallError::Gone { reason: "it was stopped".to_owned() };
        }
        let reason = timeout(END_MAX, self.end()).await;
        let reason = reason.unwrap_or_else(|_| "it closed its socket".to_owned());
        CallError::Gone { reason }
    }

    fn broken(&self, reason: &str) -> CallError {
        self.shared.kill();
        CallError::Gone { reason: reason.to_owned() }
    }

    async fn end(&self) -> String {
        end_of(self.ended.clone()).await
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.kill();
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

fn not_sent(error: &FrameError) -> CallError {
    match error {
        FrameError::TooLarge { bytes } => CallError::TooLarge { bytes: *bytes },
        FrameError::Form(_) => CallError::Fault { fault: Fault::Input, reason: error.to_string() },
    }
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_ticket(&self, answered: oneshot::Sender<Answer>) -> Option<Ticket<'_>> {
        let mut desk = self.desk();
        if desk.is_closed {
            return None;
        }
        desk.last_id += 1;
        let id = desk.last_id;
        desk.waiting.insert(id, answered);
        Some(Ticket { shared: self, id })
    }

    /// The frame of an order, with a place for what is large.
    fn frame(&self, id: u64, order: &Order<'_>) -> Result<Vec<u8>, FrameError> {
        let (Order::Run(inputs, _), Some(memory)) = (order, &self.memory) else {
            return Request::frame(id, order, None);
        };
        let Some(place) = self.loans().lend(id) else { return Request::frame(id, order, None) };
        let frame = Request::frame(id, order, Some((place, memory)));
        match &frame {
            Ok(_) => self.note(self.loans().used(place, Area::Inputs, wire::length(inputs))),
            Err(_) => self.loans().take_back(id), // never sent
        }
        frame
    }

    /// A copy of what the worker has left at the place of request `id`; none if it was given none.
    fn fetch(&self, id: u64, bytes: usize) -> Option<Vec<u8>> {
        let place = self.loans().place(id)?;
        let copy = self.memory.as_ref()?.copy(place, Area::Outputs, bytes)?;
        self.note(self.loans().used(place, Area::Outputs, bytes));
        Some(copy)
    }

    fn note(&self, is_overfull: bool) {
        if is_overfull {
            self.overfull.notify_one();
        }
    }

    /// Gives back what no request needs now.
    fn tidy(&self) {
        let mut loans = self.loans();
        let Some(memory) = &self.memory else { return };
        // Under the lock, so that nobody is lent a place meanwhile.
        loans.overfull().into_iter().for_each(|(place, area)| memory.tidy(place, area));
        self.note(loans.is_overfull());
    }

    fn loans(&self) -> MutexGuard<'_, Loans> {
        self.loans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliver(&self, reply: Reply) {
        self.loans().take_back(reply.id);
        self.replies.fetch_add(1, Ordering::Relaxed);
        let waiting = self.desk().waiting.remove(&reply.id);
        if let Some(waiting) = waiting {
            // Whoever asked may have given up meanwhile.
            let _given_up = waiting.send(reply.answer);
        }
    }

    /// Tells everyone who waits that no answer will come.
    fn close(&self) {
        let mut desk = self.desk();
        desk.is_closed = true;
        desk.waiting.clear();
    }

    async fn drained(&self) {
        loop {
            let left = self.left.notified();
            if self.desk().waiting.is_empty() {
                return;
            }
            left.await;
        }
    }

    fn kill(&self) {
        // A process that has ended cannot be killed, which is as good.
        let _ended = pidfd_send_signal(&self.started.handle, Signal::KILL);
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.shared.desk().waiting.remove(&self.id);
        self.shared.left.notify_one();
    }
}

/// Writes what the socket does not take at once. A child that reads no more is noticed by the reader, too.
async fn flush(outbox: Arc<Outbox>) {
    if let Err(error) = outbox.flush().await {
        tracing::debug!(%error, "worker does not read");
    }
}

/// Gives memory back some time after a large request: others may follow, and to take it anew costs as much as the copy.
async fn tidy(overfull: Arc<Notify>, shared: Weak<Shared>) {
    loop {
        overfull.notified().await;
        tokio::time::sleep(TIDY_AFTER).await;
        let Some(shared) = shared.upgrade() else { return };
        shared.tidy();
    }
}

async fn read_replies(
    socket: OwnedReadHalf,
    shared: Weak<Shared>,
    ended: watch::Receiver<Option<String>>,
) {
    let mut socket = BufReader::with_capacity(READ_BUFFER_BYTES, socket);
    let mut body = Vec::new();
    let error = loop {
        if let Err(error) = read_body(&mut socket, &mut body).await {
            break error;
        }
        let Some(shared) = shared.upgrade() else { return };
        match Reply::read(&body, |id, bytes| shared.fetch(id, bytes)) {
            Ok(reply) => shared.deliver(reply),
            Err(error) => break io::Error::new(io::ErrorKind::InvalidData, error),
        }
    };
    let Some(shared) = shared.upgrade() else { return };
    shared.close();
    if error.kind() != io::ErrorKind::UnexpectedEof {
        tracing::warn!(%error, "worker sent what is no reply and is killed");
        shared.kill();
    }
    // A child that closes its socket and lives on would never be noticed otherwise.
    if timeout(END_MAX, end_of(ended)).await.is_err() {
        shared.kill();
    }
}

async fn end_of(mut ended: watch::Receiver<Option<String>>) -> String {
    let reason = ended.wait_for(Option::is_some).await;
    reason.ok().and_then(|reason| reason.clone()).unwrap_or_else(|| "unknown".to_owned())
}

async fn read_body(socket: &mut BufReader<OwnedReadHalf>, body: &mut Vec<u8>) -> io::Result<()> {
    let mut header = [0; frame::HEADER_BYTES];
    socket.read_exact(&mut header).await?;
    let length = frame::body_length(header)?;
    body.clear();
    let given = (&mut *socket).take(length as u64).read_to_end(body).await?;
    if given == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::worker::process;

    /// The shell takes the argument `worker` for the name of a script.
    async fn program(directory: &Path, script: &str) -> Link {
        fs::write(directory.join("worker"), script).unwrap();
        process::spawn(Some(Path::new("/bin/sh")), directory).await.unwrap()
    }

    #[tokio::test]
    async fn a_worker_that_answers_nobody_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let link = program(directory.path(), "exec sleep 60").await;

        let answer = link.infer((&[], &[]), Duration::from_millis(20)).await;

        assert_eq!(answer.unwrap_err(), InferError::Deadline);
        assert_eq!(link.ended_by_itself().await, "signal: 9 (SIGKILL)");
    }

    #[tokio::test]
    async fn a_program_that_ends_at_once_is_told_with_its_status() {
        let directory = tempfile::tempdir().unwrap();
        let link = program(directory.path(), "exit 7").await;

        let answer = link.infer((&[], &[]), Duration::from_secs(9)).await;

        let reason = "exit status: 7".to_owned();
        assert_eq!(answer.unwrap_err(), InferError::WorkerGone { reason });
    }

    #[tokio::test]
    async fn a_program_that_sends_what_is_no_reply_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        // Standard input is the socket, and open both ways.
        let link =
            program(directory.path(), "printf '\\377\\377\\377\\377' >&0; exec sleep 60").await;

        let answer = link.infer((&[], &[]), Duration::from_secs(9)).await;

        let reason = "signal: 9 (SIGKILL)".to_owned();
        assert_eq!(answer.unwrap_err(), InferError::WorkerGone { reason });
    }

    #[tokio::test]
    async fn a_program_that_cannot_be_started_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        assert!(process::spawn(Some(&missing), directory.path()).await.is_err());
    }
}
