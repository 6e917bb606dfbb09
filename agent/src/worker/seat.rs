//! A worker's process, or its empty place: a model that is marked so may be unloaded while nobody asks for it, and is loaded again by the
//! next request.
//!
//! ```text
//!  Awake ──▶ Asleep ──▶ Waking ──▶ Awake
//!                          └─────▶ Failed     as good as a crash: the supervisor starts another worker, or goes back
//! ```

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use sealift_protocol::tensor::Tensor;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::budget::{Budget, Lodger};
use super::link::Link;
use super::{InferError, Inferred, WorkerError, WorkerSpec, process, start_first};

/// The longest load of a model that somebody waits for; its own policy may allow less.
const WAKE_MAX: Duration = Duration::from_secs(30);

/// A place for a worker's process.
#[derive(Debug)]
pub(super) struct Seat {
    spec: WorkerSpec,
    state: watch::Sender<State>,
    /// Memory after the self-test, in MiB: what it needs when it is loaded again.
    memory_mb: u64,
    begin: Instant,
    /// Milliseconds from `begin` to the last request.
    used_ms: AtomicU64,
    /// Whether it may be unloaded now.
    may_sleep: AtomicBool,
    budget: Option<Budget>,
}

#[derive(Debug, Clone)]
enum State {
    Awake(Arc<Link>),
    Asleep,
    Waking,
    Failed(String),
}

impl Seat {
    /// A place for a process that runs.
    pub(super) fn new(
        spec: WorkerSpec,
        link: Link,
        memory_mb: u64,
        budget: Option<Budget>,
    ) -> Arc<Self> {
        let seat = Arc::new(Self {
            spec,
            state: watch::Sender::new(State::Awake(Arc::new(link))),
            memory_mb,
            begin: Instant::now(),
            used_ms: AtomicU64::new(0),
            may_sleep: AtomicBool::new(false),
            budget,
        });
        if let Some(budget) = &seat.budget {
            budget.lodge(Arc::downgrade(&seat));
        }
        seat
    }

    /// Asks the model, which is loaded first if it must be; the pictures at these places are looked at.
    pub(super) async fn infer(
        self: &Arc<Self>,
        asked: (&[Tensor], &[u16]),
        deadline: Duration,
    ) -> Result<Inferred, InferError> {
        loop {
            self.touch();
            let link = self.awake().await?;
            match link.infer(asked, deadline).await {
                // It was sent to sleep in this very moment, which is no crash.
                Err(InferError::WorkerGone { .. }) if !self.holds(&link) => (),
                answer => return answer,
            }
        }
    }

    /// Says whether it may be unloaded.
    pub(super) fn let_sleep(&self, may_sleep: bool) {
        self.may_sleep.store(may_sleep, Ordering::Relaxed);
    }

    /// Unloads the model after its requests in flight, if it may.
    pub(super) async fn sleep(&self) {
        if !self.may_sleep.load(Ordering::Relaxed) {
            return;
        }
        let mut was = None;
        self.state.send_if_modified(|state| {
            let State::Awake(link) = &*state else { return false };
            was = Some(Arc::clone(link));
            *state = State::Asleep;
            true
        });
        if let Some(link) = was {
            tracing::info!(worker = link.process_id(), "model unloaded to make room");
            link.stop().await;
        }
    }

    /// Waits for an end that nobody asked for, or for a load that failed.
    pub(super) async fn ended(&self) -> String {
        let mut changes = self.state.subscribe();
        loop {
            let state = changes.borrow_and_update().clone();
            match state {
                State::Failed(reason) => return reason,
                State::Awake(link) => tokio::select! {
                    biased;
                    moved_on = changes.changed() => if moved_on.is_err() { std::future::pending().await },
                    reason = link.ended_by_itself() => if self.holds(&link) { return reason },
                },
                State::Asleep | State::Waking => {
                    if changes.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    }

    pub(super) fn process_id(&self) -> Option<u32> {
        self.link().map(|link| link.process_id())
    }

    /// Ends the process after its requests in flight.
    pub(super) async fn stop(&self) {
        if let Some(link) = self.link() {
            link.stop().await;
        }
    }

    /// How it counts when room is needed.
    pub(super) fn lodger(&self) -> Lodger {
        let process_id = self.process_id();
        Lodger {
            memory_mb: process_id.map_or(0, process::memory_mb),
            used_ms: self.used_ms.load(Ordering::Relaxed).saturating_add(self.begin_ms()),
            may_sleep: process_id.is_some() && self.may_sleep.load(Ordering::Relaxed),
        }
    }

    fn begin_ms(&self) -> u64 {
        let origin = self.budget.as_ref().map_or(self.begin, Budget::begin);
        millis(self.begin.saturating_duration_since(origin))
    }

    fn touch(&self) {
        self.used_ms.store(millis(self.begin.elapsed()), Ordering::Relaxed);
    }

    fn link(&self) -> Option<Arc<Link>> {
        match &*self.state.borrow() {
            State::Awake(link) => Some(Arc::clone(link)),
            State::Asleep | State::Waking | State::Failed(_) => None,
        }
    }

    fn holds(&self, link: &Arc<Link>) -> bool {
        self.link().is_some_and(|now| Arc::ptr_eq(&now, link))
    }

    /// The process, once there is one. The load goes on when the request that began it is given up: the next one finds it done.
    async fn awake(self: &Arc<Self>) -> Result<Arc<Link>, InferError> {
        if let Some(link) = self.link() {
            return Ok(link);
        }
        let is_first = self.state.send_if_modified(|state| {
            let is_asleep = matches!(state, State::Asleep);
            if is_asleep {
                *state = State::Waking;
            }
            is_asleep
        });
        if is_first {
            tokio::spawn(Arc::clone(self).wake());
        }
        let mut changes = self.state.subscribe();
        loop {
            let state = changes.borrow_and_update().clone();
            match state {
                State::Awake(link) => return Ok(link),
                State::Failed(reason) => return Err(InferError::WorkerGone { reason }),
                State::Asleep | State::Waking => (),
            }
            let closed = || InferError::WorkerGone { reason: "it was stopped".to_owned() };
            changes.changed().await.map_err(|_| closed())?;
        }
    }

    async fn wake(self: Arc<Self>) {
        let begin = Instant::now();
        let loaded = timeout(WAKE_MAX, self.load()).await;
        let state = match loaded.unwrap_or(Err(WorkerError::Timeout(WAKE_MAX))) {
            Ok(link) => {
                let load_ms = millis(begin.elapsed());
                tracing::info!(worker = link.process_id(), load_ms, "model loaded for a request");
                State::Awake(Arc::new(link))
            }
            Err(error) => State::Failed(format!("it was unloaded and cannot be loaded: {error}")),
        };
        self.state.send_replace(state);
    }

    async fn load(&self) -> Result<Link, WorkerError> {
        if let Some(budget) = &self.budget {
            budget.make_room(self.memory_mb).await;
        }
        start_first(&self.spec).await.map(|(link, _)| link)
    }
}

/// What others hold of a place; they must not keep its process alive.
pub(super) type SeatHandle = Weak<Seat>;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
