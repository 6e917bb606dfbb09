//! Which image is live for which model. A swap is one pointer: requests that began before it finish on the old image, all others
//! go to the new one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use sealift_protocol::id::{ModelName, UnixMillis};
use sealift_protocol::profile::LatencySketch;
use sealift_protocol::telemetry::ProfileWindow;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::challenger::Challenger;
use super::live::Live;
use crate::capture::Captor;
use crate::observe::{Counters, Observer, WindowLimits, p95_us};

/// How long a request whose worker died waits for the next one; a restart takes a fraction of it.
const REPLACEMENT_MAX: Duration = Duration::from_secs(5);

/// The latency that a heartbeat tells is that of the last one to two of these.
const RECENT: Duration = Duration::from_mins(1);

/// Models and their live images. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Switchboard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    live: RwLock<BTreeMap<ModelName, Live>>,
    /// Images beside the live ones.
    challengers: RwLock<BTreeMap<ModelName, Challenger>>,
    /// Whether there is any: most requests need not look.
    is_challenged: AtomicBool,
    /// Models that answer nobody, and why.
    withdrawn: RwLock<BTreeMap<ModelName, String>>,
    /// Observers of images that were swapped out: their last window is still to be told.
    retired: Mutex<Vec<Arc<Observer>>>,
    swaps: watch::Sender<u64>,
    totals: Mutex<Totals>,
    captor: Captor,
}

#[derive(Debug)]
struct Totals {
    requests: u64,
    errors: u64,
    since: Instant,
    latency: LatencySketch,
    latency_before: LatencySketch,
}

impl Default for Switchboard {
    fn default() -> Self {
        Self::new()
    }
}

impl Switchboard {
    /// A switchboard with no model.
    pub fn new() -> Self {
        let totals = Totals {
            requests: 0,
            errors: 0,
            since: Instant::now(),
            latency: LatencySketch::default(),
            latency_before: LatencySketch::default(),
        };
        Self(Arc::new(Inner {
            live: RwLock::default(),
            challengers: RwLock::default(),
            is_challenged: AtomicBool::new(false),
            withdrawn: RwLock::default(),
            retired: Mutex::default(),
            swaps: watch::Sender::new(0),
            totals: Mutex::new(totals),
            captor: Captor::default(),
        }))
    }

    /// Makes `live` answer for `model` from now on, or nothing, and returns what did before.
    ///
    /// Dropping what is returned ends its worker after the last request in flight; [`Live::retire`] does so in good order.
    pub fn swap(&self, model: &ModelName, live: Option<Live>) -> Option<Live> {
        let mut board = self.0.live.write().unwrap_or_else(PoisonError::into_inner);
        let mut retired = self.0.retired.lock().unwrap_or_else(PoisonError::into_inner);
        let is_live = live.as_ref().map(Live::observer);
        let before = match live {
            Some(live) => board.insert(model.clone(), live),
            None => board.remove(model),
        };
        retired.extend(before.as_ref().map(Live::observer));
        // An image can come back, or be put where it already is.
        retired
            .retain(|observer| !is_live.as_ref().is_some_and(|live| Arc::ptr_eq(live, observer)));
        drop((retired, board));
        self.0.swaps.send_modify(|swaps| *swaps += 1);
        before
    }

    /// Puts an image beside what answers for `model`, or takes away the one that is there; its last window is still to be told.
    pub(crate) fn challenge(&self, model: &ModelName, challenger: Option<Challenger>) {
        let mut beside = self.0.challengers.write().unwrap_or_else(PoisonError::into_inner);
        let before = match challenger {
            Some(challenger) => beside.insert(model.clone(), challenger),
            None => beside.remove(model),
        };
        self.0.is_challenged.store(!beside.is_empty(), Ordering::Release);
        let mut retired = self.0.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.extend(before.map(|before| before.live().observer()));
    }

    /// What is beside the image that answers for `model`.
    pub(super) fn challenger(&self, model: &ModelName) -> Option<Challenger> {
        if !self.0.is_challenged.load(Ordering::Acquire) {
            return None;
        }
        let beside = self.0.challengers.read().unwrap_or_else(PoisonError::into_inner);
        beside.get(model).cloned()
    }

    /// All images that are beside live ones, by model.
    pub(super) fn challengers(&self) -> Vec<Challenger> {
        let beside = self.0.challengers.read().unwrap_or_else(PoisonError::into_inner);
        beside.values().cloned().collect()
    }

    /// What answers for `model`.
    pub fn live(&self, model: &ModelName) -> Option<Live> {
        self.0.live.read().unwrap_or_else(PoisonError::into_inner).get(model).cloned()
    }

    /// Says which models answer nobody although the device should have them, and why.
    pub(crate) fn withdraw(&self, withdrawn: BTreeMap<ModelName, String>) {
        *self.0.withdrawn.write().unwrap_or_else(PoisonError::into_inner) = withdrawn;
    }

    /// Why nothing answers for a model, by `team/name` or its name alone.
    pub(super) fn withdrawn(&self, text: &str) -> Option<(ModelName, String)> {
        let withdrawn = self.0.withdrawn.read().unwrap_or_else(PoisonError::into_inner);
        let is_meant = |model: &&ModelName| model.name() == text || model.to_string() == text;
        let model = withdrawn.keys().find(is_meant)?;
        Some((model.clone(), withdrawn.get(model)?.clone()))
    }

    /// All that is live, by model.
    pub fn all(&self) -> Vec<Live> {
        self.0.live.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Finds a model by `team/name`, or by its name alone if only one team has one of that name.
    pub(super) fn find(&self, text: &str) -> Option<Live> {
        if let Ok(model) = ModelName::parse(text) {
            return self.live(&model);
        }
        let board = self.0.live.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = board.values().filter(|live| live.model().name() == text);
        let first = found.next()?;
        found.next().is_none().then(|| first.clone())
    }

    /// Waits until something else than `dead` answers for its model.
    pub(super) async fn replacement(&self, dead: &Live) -> Option<Live> {
        let mut swaps = self.0.swaps.subscribe();
        let replaced = async {
            loop {
                let live = self.live(dead.model());
                if let Some(live) = live.filter(|live| !live.is(dead)) {
                    return Some(live);
                }
                swaps.changed().await.ok()?;
            }
        };
        timeout(REPLACEMENT_MAX, replaced).await.ok().flatten()
    }

    /// Ends the windows that are due, or all with `force`, and returns those that saw something.
    pub fn drain_windows(
        &self,
        now: UnixMillis,
        limits: WindowLimits,
        force: bool,
    ) -> Vec<ProfileWindow> {
        let beside = self.challengers().into_iter().map(|beside| beside.live().clone());
        let live: Vec<_> = self.all().into_iter().chain(beside).collect();
        let mut windows: Vec<_> =
            live.iter().filter_map(|live| live.observer().drain(now, limits, force)).collect();
        let mut retired = self.0.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|observer| {
            // Asked before draining: whoever could still count has gone, so that this window is the last.
            let is_last = Arc::strong_count(observer) == 1;
            windows.extend(observer.drain(now, limits, force || is_last));
            !is_last
        });
        windows
    }

    /// Counts of all models since the agent started; the latency is that of the last minutes.
    pub fn counters(&self) -> Counters {
        let mut totals = self.totals();
        totals.turn(Instant::now());
        let mut latency = totals.latency_before.clone();
        latency.merge(&totals.latency);
        let latency_p95_us = p95_us(&latency);
        Counters { requests: totals.requests, errors: totals.errors, latency_p95_us }
    }

    /// Names inferences, and keeps some for people to look at.
    pub(crate) fn captor(&self) -> &Captor {
        &self.0.captor
    }

    /// Requests that are being answered by any model, or wait for it.
    pub fn in_flight(&self) -> usize {
        self.all().iter().map(Live::in_flight).sum()
    }

    /// Counts of the image that answers for `model`, since it went live.
    pub fn model_counters(&self, model: &ModelName) -> Option<Counters> {
        self.live(model).map(|live| live.counters())
    }

    /// Counts a request that was answered, or failed by our fault.
    pub(super) fn count(&self, latency: Duration, is_error: bool) {
        let mut totals = self.totals();
        totals.turn(Instant::now());
        totals.requests += 1;
        totals.errors += u64::from(is_error);
        totals.latency.take(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    fn totals(&self) -> MutexGuard<'_, Totals> {
        self.0.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Totals {
    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        if age < RECENT {
            return;
        }
        let latency = std::mem::take(&mut self.latency);
        self.latency_before = if age < RECENT * 2 { latency } else { LatencySketch::default() };
        self.since = now;
    }
}
