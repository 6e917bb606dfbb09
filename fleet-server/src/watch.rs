//! The loop that watches the fleet: profile windows in, verdicts and alerts out.
//!
//! Verdicts are a function of the stored windows, taken in the order in which they were stored: after a restart, or on another
//! server, the same windows give the same verdicts, and no row is counted twice. Only alerts are written down.

mod memory;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealift_protocol::api::{DriftPoint, DriftView, HistogramView};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{ModelName, UnixMillis};
use sealift_protocol::limits::BASELINE_BYTES_MAX;
use sealift_protocol::profile::{Baseline, InvalidBaseline};
use sealift_protocol::telemetry::{self, Event};
use tokio::time::sleep;

use self::memory::Memory;
use crate::alert::{self, Change as AlertChange, Finding, Rules};
use crate::blobs::{BlobError, Blobs};
use crate::clock;
use crate::drift::{Policy, Scope, Subject};
use crate::events::Hub;
use crate::reconcile::Patience;
use crate::rollout::Stage;
use crate::signals::Signals;
use crate::store::profiles::StoredWindow;
use crate::store::{StoreError, TenantStore};

/// Windows that came before this are not looked at again after a restart.
const REPLAY_MS: i64 = 6 * 3_600 * 1_000;
/// Windows taken in one go, so that judging never holds the store for long.
const BATCH: u32 = 500;
/// Events of devices stay news for this long.
const NEWS_MS: i64 = 3_600 * 1_000;
/// Events and silent devices that may become alerts at one time; a fleet that is cut off is one piece of news, not ten thousand.
const FINDINGS_MAX: u32 = 100;
/// Rest between two turns: windows that come together are judged together.
const REST: Duration = Duration::from_millis(200);

/// Why a turn ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchError {
    /// The store.
    #[error("the fleet cannot be watched")]
    Store(#[from] StoreError),
    /// A version's baseline cannot be read.
    #[error("the baseline of {model} cannot be read")]
    Blob {
        /// The model.
        model: ModelName,
        /// Why.
        #[source]
        source: BlobError,
    },
    /// It can be read, and is none.
    #[error("the baseline of {model} is not valid")]
    Baseline {
        /// The model.
        model: ModelName,
        /// Why.
        #[source]
        source: InvalidBaseline,
    },
}

/// What the loop is made of; cheap to clone.
#[derive(Clone)]
pub(crate) struct Watch {
    store: TenantStore,
    blobs: Blobs,
    signals: Signals,
    hub: Hub,
    patience: Patience,
    labels: Arc<[String]>,
    memory: Arc<Mutex<Memory>>,
}

impl Watch {
    /// A watch over one tenant; `labels` are the keys whose values are cohorts.
    pub(crate) fn new(
        store: TenantStore,
        blobs: Blobs,
        (signals, hub): (Signals, Hub),
        patience: Patience,
        (policy, labels): (Policy, Vec<String>),
    ) -> Self {
        let memory = Arc::new(Mutex::new(Memory::new(policy)));
        Self { store, blobs, signals, hub, patience, labels: labels.into(), memory }
    }

    /// Looks every `pause`, and whenever a window comes; never returns.
    pub(crate) async fn run(self, pause: Duration) {
        loop {
            if let Err(error) = self.turn(clock::now()).await {
                tracing::error!(error = &error as &dyn std::error::Error, "drift is not judged");
            }
            sleep(REST).await;
            tokio::select! {
                () = self.signals.profiles().notified() => (),
                () = sleep(pause) => (),
            }
        }
    }

    /// Takes what has come since the last turn, judges it, and opens and closes alerts.
    pub(crate) async fn turn(&self, now: UnixMillis) -> Result<(), WatchError> {
        let served = self.store.served_images().await?;
        self.memory().keep_only(&served);
        loop {
            let known = self.memory().cursor();
            let after = match known {
                Some(after) => after,
                None => self.store.window_before(now.plus(-REPLAY_MS)).await?,
            };
            let windows = self.store.windows_after(after, BATCH).await?;
            self.memory().set_cursor(windows.last().map_or(after, |window| window.number));
            if windows.is_empty() {
                break;
            }
            self.take(windows, &served).await?;
        }
        let findings = self.findings(now).await?;
        self.tell(&findings, now).await
    }

    async fn take(
        &self,
        windows: Vec<StoredWindow>,
        served: &BTreeSet<(ModelName, Digest)>,
    ) -> Result<(), WatchError> {
        let mut cohorts = BTreeMap::new();
        for stored in windows {
            let image = (stored.window.model.clone(), stored.window.image.index);
            if !served.contains(&image) {
                continue;
            }
            if !self.memory().knows(&image) {
                let baseline = self.baseline(&stored).await?;
                self.memory().learn(image.clone(), &stored.window.image.version, baseline);
            }
            if !cohorts.contains_key(&stored.device) {
                let labels = self.store.labels_of(&stored.device).await?;
                cohorts.insert(stored.device.clone(), self.scopes(&labels));
            }
            let scopes = cohorts.get(&stored.device).map(Vec::as_slice).unwrap_or_default();
            if let Err(refused) = self.memory().take(&image, &stored.window, scopes) {
                let device = &stored.device;
                tracing::warn!(%device, %refused, "profile does not fit its baseline; left out");
            }
        }
        Ok(())
    }

    fn scopes(&self, labels: &BTreeMap<String, String>) -> Vec<Scope> {
        let cohort = |key: &String| {
            let value = labels.get(key)?.clone();
            Some(Scope::Cohort { key: key.clone(), value })
        };
        [Scope::Fleet].into_iter().chain(self.labels.iter().filter_map(cohort)).collect()
    }

    async fn baseline(&self, stored: &StoredWindow) -> Result<Option<Arc<Baseline>>, WatchError> {
        let model = &stored.window.model;
        let row = self.store.version(model, &stored.window.image.version).await?;
        let Some(digest) = row.and_then(|row| row.baseline) else { return Ok(None) };
        let bytes = self.blobs.read(digest, BASELINE_BYTES_MAX as u64).await;
        let bytes =
            bytes.map_err(|source| WatchError::Blob { model: model.clone(), source })?;
        let baseline = Baseline::decode(&bytes)
            .map_err(|source| WatchError::Baseline { model: model.clone(), source })?;
        Ok(Some(Arc::new(baseline)))
    }

    /// Everything that people may have to know of.
    async fn findings(&self, now: UnixMillis) -> Result<Vec<Finding>, WatchError> {
        let mut findings = self.memory().findings();
        for row in self.store.live_rollouts().await? {
            if row.stage == Stage::Halted {
                let since = row.created_at;
                findings.push(alert::rollout_halted(row.id, &row.order.model, &row.why, since));
            }
        }
        let news = self.store.grave_events_since(now.plus(-NEWS_MS), FINDINGS_MAX).await?;
        findings.extend(news.into_iter().map(|news| {
            let is_security = news.entry.severity == "security";
            let event = Event {
                code: news.entry.code,
                severity: if is_security {
                    telemetry::Severity::Security
                } else {
                    telemetry::Severity::Critical
                },
                text: news.entry.text,
                model: news.entry.model,
                image: None,
                at: news.entry.at,
            };
            alert::device_event(&news.device, &event)
        }));
        let heard_before = now.plus(-self.patience.offline_after_ms);
        for silent in self.store.silent_devices(heard_before, FINDINGS_MAX).await? {
            let labels = self.store.labels_of(&silent.device).await?;
            findings.push(alert::device_silent(&silent.device, &labels, silent.heard_at));
        }
        Ok(findings)
    }

    /// Writes down what changes, together with what is to be sent because of it.
    async fn tell(&self, findings: &[Finding], now: UnixMillis) -> Result<(), WatchError> {
        let open = self.store.live_alerts().await?;
        for change in alert::decide(&open, findings, &Rules::default(), now) {
            let mut writing = self.store.begin().await?;
            let id = match &change {
                AlertChange::Open(finding) => writing.open_alert(finding, now).await?,
                AlertChange::Repeat { id, finding, is_worse } => {
                    writing.repeat_alert(*id, finding, *is_worse, now).await?
                }
                AlertChange::Close(id) => writing.close_alert(*id, now).await?,
            };
            // Another server was quicker: it has told already.
            let Some(id) = id else { continue };
            let view = writing.alert(id).await?;
            writing.enqueue(&view, now).await?;
            writing.commit().await?;
            tracing::info!(alert = %view.id, state = ?view.state, title = view.title, "alert");
            self.hub.publish("alert", &view);
            self.hub.touch_status();
        }
        Ok(())
    }

    /// The newest verdict of each subject in each scope.
    pub(crate) fn verdicts(&self) -> Vec<DriftView> {
        self.memory().views()
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

    /// The memory is only ever changed by whole values, so that one whose holder panicked is still sound.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
