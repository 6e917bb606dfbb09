//! The loop that watches the fleet: profile windows in, verdicts and alerts out.
//!
//! ```text
//!  profile_windows ──in the order in which they were stored──▶ memory ──end of a round──▶ verdicts ──▶ findings ──▶ alerts
//! ```
//! Verdicts are a function of the stored windows: after a restart, or on another server, the same windows give the same verdicts, and
//! no row is counted twice. Only alerts are written down.

pub(crate) mod baselines;
mod causes;
pub(crate) mod health;
mod histogram;
mod memory;
mod news;
mod seen;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealift_protocol::api::{DeviceDriftView, DriftPoint, DriftView, HistogramView};
use sealift_protocol::id::{ModelName, UnixMillis};
use sealift_protocol::profile::Mismatch;
use tokio::time::sleep;

use self::baselines::{BaselineError, Baselines};
use self::causes::Causes;
use self::health::Vitals;
use self::memory::{Memory, Served};
use crate::blobs::Blobs;
use crate::clock;
use crate::drift::{Policy, Scope, Subject};
use crate::events::Hub;
use crate::reconcile::Patience;
use crate::signals::Signals;
use crate::store::profiles::StoredWindow;
use crate::store::{StoreError, TenantStore};

/// Windows that came before this are not looked at again after a restart.
const REPLAY_MS: i64 = 6 * 3_600 * 1_000;
/// Windows that are looked at again after a restart: about a minute of work.
const REPLAYED_MAX: u32 = 50_000;
/// Windows taken in one go, so that judging never holds the store for long.
const BATCH: u32 = 500;
/// Rest between two turns: windows that come together are judged together.
const REST: Duration = Duration::from_millis(200);
/// A turn may take a tenth of the time: with a large fleet the loop looks less often.
const REST_FACTOR: u32 = 9;

/// Why a turn ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchError {
    /// The store.
    #[error("the fleet cannot be watched")]
    Store(#[from] StoreError),
    /// A version's baseline cannot be read now.
    #[error(transparent)]
    Baseline(#[from] BaselineError),
    /// Windows that were taken do not fit their baseline.
    #[error("windows cannot be judged")]
    Judge(#[from] Mismatch),
}

/// What is looked at, and how.
#[derive(Debug, Clone)]
pub(crate) struct Outlook {
    /// What counts as drift.
    pub(crate) policy: Policy,
    /// Labels whose values are cohorts.
    pub(crate) labels: Vec<String>,
    /// Windows that come within this are judged together.
    pub(crate) interval: Duration,
}

/// What the loop is made of; cheap to clone.
#[derive(Clone)]
pub(crate) struct Watch {
    store: TenantStore,
    baselines: Baselines,
    signals: Signals,
    hub: Hub,
    patience: Patience,
    labels: Arc<[String]>,
    interval: Duration,
    memory: Arc<Mutex<Memory>>,
    causes: Arc<Mutex<Causes>>,
    vitals: Arc<Mutex<Vitals>>,
}

impl Watch {
    /// A watch over one tenant.
    pub(crate) fn new(
        store: TenantStore,
        blobs: Blobs,
        (signals, hub): (Signals, Hub),
        patience: Patience,
        outlook: Outlook,
    ) -> Self {
        let Outlook { policy, labels, interval } = outlook;
        let round_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
        let memory = Arc::new(Mutex::new(Memory::new(policy, round_ms)));
        let (causes, vitals) = (Arc::default(), Arc::default());
        let labels = labels.into();
        let baselines = Baselines::new(store.clone(), blobs);
        Self { store, baselines, signals, hub, patience, labels, interval, memory, causes, vitals }
    }

    /// Looks in every interval, and whenever a window comes; never returns.
    pub(crate) async fn run(self) {
        loop {
            let begun = clock::now();
            if let Err(error) = self.turn(begun).await {
                tracing::error!(error = &error as &dyn std::error::Error, "drift is not judged");
            }
            let took = clock::now().since(begun).max(0).unsigned_abs();
            let rest = Duration::from_millis(took).saturating_mul(REST_FACTOR).min(self.interval);
            sleep(rest.max(REST)).await;
            tokio::select! {
                () = self.signals.profiles().notified() => (),
                () = sleep(self.interval) => (),
            }
        }
    }

    /// Takes what has come since the last turn, judges it, and opens and closes alerts.
    pub(crate) async fn turn(&self, now: UnixMillis) -> Result<(), WatchError> {
        let served = self.served().await?;
        let forgotten = self.store.forgotten_devices().await?;
        self.memory().begin(now);
        self.memory().keep_only(&served);
        self.memory().forget_unless(forgotten);
        loop {
            let taken = self.memory().cursor();
            let after = match taken {
                Some(after) => after,
                None => self.store.window_before(now.plus(-REPLAY_MS), REPLAYED_MAX).await?,
            };
            let windows = self.store.windows_after(after, BATCH).await?;
            self.memory().set_cursor(after);
            if windows.is_empty() {
                break;
            }
            self.take(&windows, &served).await?;
        }
        self.memory().advance(now)?;
        news::tell(self, &served, now).await?;
        Ok(())
    }

    /// Takes windows one by one; one that was taken is not taken again, even if the next cannot be.
    async fn take(&self, windows: &[StoredWindow], served: &Served) -> Result<(), WatchError> {
        let mut scopes = BTreeMap::new();
        for stored in windows {
            let image = (stored.window.model.clone(), stored.window.image.index);
            let Some((version, _)) = served.get(&image) else {
                self.memory().set_cursor(stored.number);
                continue;
            };
            let is_known = self.memory().knows(&image);
            if !is_known {
                let StoredWindow { window, .. } = stored;
                let baseline = self.baselines.of(&window.model, &window.image).await?;
                self.memory().learn(image, version, baseline);
            }
            if !scopes.contains_key(&stored.device) {
                let labels = self.store.labels_of(&stored.device).await?;
                scopes.insert(stored.device.clone(), scopes_of(&labels, &self.labels));
            }
            let scopes = scopes.get(&stored.device).map(Vec::as_slice).unwrap_or_default();
            let mut memory = self.memory();
            memory.advance(stored.received_at)?;
            memory.set_cursor(stored.number);
            if let Err(refused) = memory.take(stored, scopes) {
                let device = &stored.device;
                tracing::warn!(%device, %refused, "profile window left out");
            }
        }
        Ok(())
    }

    /// What devices say they serve, and in which scopes.
    async fn served(&self) -> Result<Served, StoreError> {
        let mut served = Served::new();
        for row in self.store.served_images(&self.labels).await? {
            let image = served.entry((row.model, row.digest));
            let (_, scopes) = image.or_insert_with(|| (row.version, [Scope::Fleet].into()));
            scopes.extend(row.label.map(|(key, value)| Scope::Cohort { key, value }));
        }
        Ok(served)
    }

    /// The newest verdict of each subject in each scope.
    pub(crate) fn verdicts(&self) -> Vec<DriftView> {
        self.memory().views()
    }

    /// Where devices stand, each by itself.
    pub(crate) fn devices(&self) -> Vec<DeviceDriftView> {
        self.memory().device_views()
    }

    /// What a subject's verdicts were, oldest first.
    pub(crate) fn series(
        &self,
        model: &ModelName,
        scope: &Scope,
        subject: &Subject,
    ) -> Vec<DriftPoint> {
        self.memory().series(model, scope, subject)
    }

    /// Reference and current rows of a subject; none if there is no such subject.
    pub(crate) fn histogram(
        &self,
        model: &ModelName,
        scope: &Scope,
        subject: &Subject,
    ) -> Option<HistogramView> {
        self.memory().histogram(model, scope, subject)
    }

    /// As with the memory: changed by whole values.
    fn causes<T>(&self, with: impl FnOnce(&mut Causes) -> T) -> T {
        with(&mut self.causes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is remembered of devices' health is changed by whole values as well.
    fn vitals(&self) -> MutexGuard<'_, Vitals> {
        self.vitals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The memory is only ever changed by whole values, so that one whose holder panicked is still sound.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The scopes in which a device with these labels is counted; cohorts by the values of `keys`.
pub(crate) fn scopes_of(labels: &BTreeMap<String, String>, keys: &[String]) -> Vec<Scope> {
    let cohort = |key: &String| {
        let value = labels.get(key)?.clone();
        Some(Scope::Cohort { key: key.clone(), value })
    };
    [Scope::Fleet].into_iter().chain(keys.iter().filter_map(cohort)).collect()
}
