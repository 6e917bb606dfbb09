//! The supervisor's way to one worker: many requests at once, each answered, refused or told that the worker is gone.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU8;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};
use sealift_protocol::tensor::Tensor;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::frame::{self, Answer, Fault, FrameError, Loaded, Order, Reply, Request};
use super::line::{NOTES_MAX, Note, Taker};
use super::loans::Loans;
use super::outbox::Outbox;
use super::post::{Bell, Post};
use super::process::Started;
use super::shared::{Area, Place};
use super::{InferError, Inferred};

/// Requests at one worker, for a single session, which does them one by one: enough that it never waits for the next. More wait in their
/// callers, which have deadlines; one that is given up there never costs the worker anything.
const CALLS_MAX: usize = 4;

/// Requests more, for each further session.
const CALLS_PER_SESSION: usize = 2;

/// With the orders to load and to stop: no line is ever full.
const _: () = assert!(CALLS_MAX + CALLS_PER_SESSION * u8::MAX as usize + 2 <= NOTES_MAX);

/// How long a stop waits for requests in flight; as long as one may take.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// How long a worker that was told to end may take; it has nothing left to do.
const END_MAX: Duration = Duration::from_secs(5);

/// Bytes that are read from the socket at once; larger bodies pass the buffer by.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// How long memory that a large request took is kept for the next one.
const TIDY_AFTER: Duration = Duration::from_secs(10);

/// Why an order did not reach the worker.
#[derive(Debug)]
enum SendError {
    Gone,
    Frame(FrameError),
}

impl From<FrameError> for SendError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

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
    tasks: Vec<AbortHandle>,
    calls: Arc<Semaphore>,
    ended: watch::Receiver<Option<String>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    started: Started,
    /// Memory that both have; none where the system has none, and all goes through the socket.
    post: Option<Post>,
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
    /// By request, until the worker has answered, also if nobody waits for that any more.
    asked: BTreeMap<u64, Asked>,
    is_closed: bool,
}

#[derive(Debug)]
struct Asked {
    /// None once it was given up.
    waiting: Option<oneshot::Sender<Answer>>,
    /// The worker has it to do, whoever waits.
    _call: OwnedSemaphorePermit,
}

/// A place at the desk; given back when the answer is there or nobody wants it any more.
struct Ticket<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Link {
    /// Begins to read and write `socket`, whose other end `started` holds, and `post` as well.
    pub(super) fn new(
        socket: UnixStream,
        post: Option<(Post, Bell)>,
        started: Started,
        ended: watch::Receiver<Option<String>>,
    ) -> io::Result<Self> {
        let (post, bell) = post.unzip();
        let bell = bell.map(Bell::listen).transpose()?;
        let shared = Arc::new(Shared {
            started,
            post,
            loans: Mutex::default(),
            overfull: Arc::default(),
            desk: Mutex::default(),
            left: Notify::new(),
            replies: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        });
        let (reader, writer) = socket.into_split();
        let outbox = Arc::new(Outbox::new(writer));
        tokio::spawn(read_replies(reader, Arc::downgrade(&shared), ended.clone()));
        let tidying = tidy(Arc::clone(&shared.overfull), Arc::downgrade(&shared));
        let taking = bell.map(|bell| tokio::spawn(take_replies(bell, Arc::downgrade(&shared))));
        let tasks = [tokio::spawn(flush(Arc::clone(&outbox))), tokio::spawn(tidying)];
        let tasks = tasks.into_iter().chain(taking).map(|task| task.abort_handle()).collect();
        let calls = Arc::new(Semaphore::new(CALLS_MAX));
        Ok(Self { outbox, tasks, calls, ended, shared })
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
            // An error means that the child is gone already.
            let _gone = self.shared.write(0, &Order::Stop, &self.outbox);
            self.end().await
        };
        if timeout(END_MAX, end).await.is_err() {
            self.shared.kill();
            self.end().await;
        }
    }

    async fn call(&self, order: &Order<'_>) -> Result<Answer, CallError> {
        let Ok(call) = Arc::clone(&self.calls).acquire_owned().await else {
            return Err(self.gone().await);
        };
        let (answered, answer) = oneshot::channel();
        let Some(ticket) = self.shared.take_ticket(answered, call) else {
            return Err(self.gone().await);
        };
        match self.shared.send(ticket.id, order, &self.outbox) {
            Ok(()) => (),
            Err(SendError::Gone) => return Err(self.gone().await),
            Err(SendError::Frame(error)) => {
                self.shared.forget(ticket.id);
                return Err(not_sent(&error));
            }
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

    fn take_ticket(
        &self,
        answered: oneshot::Sender<Answer>,
        call: OwnedSemaphorePermit,
    ) -> Option<Ticket<'_>> {
        let mut desk = self.desk();
        if desk.is_closed {
            return None;
        }
        desk.last_id += 1;
        let id = desk.last_id;
        desk.asked.insert(id, Asked { waiting: Some(answered), _call: call });
        Some(Ticket { shared: self, id })
    }

    /// Leaves an order where the worker finds it, or writes it.
    fn send(&self, id: u64, order: &Order<'_>, outbox: &Outbox) -> Result<(), SendError> {
        if let (Order::Run(..), Some(post)) = (order, &self.post) {
            let place = self.loans().lend(id);
            if let Some(place) = place {
                let mut area = post.memory.writer(place, Area::Inputs);
                if let Ok(bytes) = Request::leave(id, order, &mut area) {
                    self.note(self.loans().used(place, Area::Inputs, bytes as usize));
                    post.tell(Note::At(place, bytes));
                    return Ok(());
                }
                self.loans().take_back(id); // too large for a place
            }
        }
        self.write(id, order, outbox)
    }

    fn write(&self, id: u64, order: &Order<'_>, outbox: &Outbox) -> Result<(), SendError> {
        outbox.send(Request::frame(id, order)?).map_err(|_| SendError::Gone)?;
        if let Some(post) = &self.post {
            post.tell(Note::OnSocket);
        }
        Ok(())
    }

    /// The reply that the worker says lies at a place.
    fn fetch(&self, (place, bytes): (Place, u32)) -> Result<Reply, FrameError> {
        let bytes = bytes as usize;
        let copy =
            self.post.as_ref().and_then(|post| post.memory.copy(place, Area::Outputs, bytes));
        let nowhere = || FrameError::Form("there is no such request".to_owned());
        let reply = Reply::read(&copy.ok_or_else(nowhere)?)?;
        if !self.loans().is_held(reply.id, place) {
            return Err(nowhere());
        }
        self.note(self.loans().used(place, Area::Outputs, bytes));
        Ok(reply)
    }

    /// Delivers all that the worker has left; an error if something of it is no reply.
    fn take_all(&self, taker: &mut Taker) -> io::Result<()> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let Some(post) = &self.post else { return Ok(()) };
        loop {
            match post.take(taker).map_err(|error| invalid(error.to_string()))? {
                Some(Note::At(place, bytes)) => {
                    let reply = self.fetch((place, bytes));
                    self.deliver(reply.map_err(|error| invalid(error.to_string()))?);
                }
                Some(Note::OnSocket) => return Err(invalid("a note without a place".to_owned())),
                None if post.dozes(taker) => return Ok(()),
                None => (), // there is something after all
            }
        }
    }

    fn note(&self, is_overfull: bool) {
        if is_overfull {
            self.overfull.notify_one();
        }
    }

    /// Gives back what no request needs now.
    fn tidy(&self) {
        let mut loans = self.loans();
        let Some(post) = &self.post else { return };
        // Under the lock, so that nobody is lent a place meanwhile.
        loans.overfull().into_iter().for_each(|(place, area)| post.memory.tidy(place, area));
        self.note(loans.is_overfull());
    }

    fn loans(&self) -> MutexGuard<'_, Loans> {
        self.loans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliver(&self, reply: Reply) {
        self.loans().take_back(reply.id);
        self.replies.fetch_add(1, Ordering::Relaxed);
        let asked = self.desk().asked.remove(&reply.id);
        if let Some(waiting) = asked.and_then(|asked| asked.waiting) {
            // Whoever asked may have given up meanwhile.
            let _given_up = waiting.send(reply.answer);
        }
    }

    /// It was never sent.
    fn forget(&self, id: u64) {
        self.desk().asked.remove(&id);
    }

    /// Tells everyone who waits that no answer will come.
    fn close(&self) {
        let mut desk = self.desk();
        desk.is_closed = true;
        desk.asked.clear();
    }

    async fn drained(&self) {
        loop {
            let left = self.left.notified();
            if self.desk().asked.values().all(|asked| asked.waiting.is_none()) {
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
        if let Some(asked) = self.shared.desk().asked.get_mut(&self.id) {
            asked.waiting = None;
        }
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

/// Delivers what the worker leaves in the memory. The bell is not read: each ring is an event, and a worker can only make it ring too often.
async fn take_replies(bell: AsyncFd<OwnedFd>, shared: Weak<Shared>) {
    let mut taker = Taker::default();
    loop {
        {
            let Some(shared) = shared.upgrade() else { return };
            if let Err(error) = shared.take_all(&mut taker) {
                tracing::warn!(%error, "worker left what is no reply and is killed");
                shared.close();
                return shared.kill();
            }
        }
        match bell.readable().await {
            Ok(mut rung) => rung.clear_ready(),
            Err(error) => return tracing::warn!(%error, "worker is not heard any more"),
        }
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
        match Reply::read(&body) {
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
mod tests;
