//! What models saw, long after the windows themselves are gone: exact sums by the hour, and then by the day.
//!
//! ```text
//!  profile_windows ──as they come──▶ hours ──when they are old──▶ days ──when they are old, or too many──▶ nothing
//! ```
//! There is a sum for each device and for each scope in which it is counted, so that a fleet of ten thousand is one row an hour, and what
//! one device has sent can be taken out of all sums again, to the last count.

mod look;
mod sum;
mod take;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, ModelName, UnixMillis};
use sealift_protocol::profile::{Baseline, Profile};
use sealift_protocol::report::ImageRef;
use tokio::time::sleep;

pub(crate) use self::look::{Question, SPANS_MAX};
use self::sum::{Misfit, Sum, Sums};
pub(crate) use self::take::{DEVICES_MAX as TAKEN_DEVICES_MAX, NotTaken, Taken, Wanted};
use crate::blobs::Blobs;
use crate::clock;
use crate::config::Retention;
use crate::drift::Policy;
use crate::store::profiles::StoredWindow;
use crate::store::spans::{DeletedRows, Length, SpanKey, StoredSpan};
use crate::store::{Change, StoreError, TenantStore};
use crate::watch::baselines::{BaselineError, Baselines};
use crate::watch::scopes_of;

/// Windows are left alone for this long: on PostgreSQL, numbers are not in the order of commits.
const SETTLED_MS: i64 = 15_000;
/// Windows summed up in one go, so that the store is never held for long.
const BATCH: u32 = 500;
/// Baselines that are kept at hand.
const BASELINES_MAX: usize = 32;

/// Why history was not written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HistoryError {
    /// The store.
    #[error("history is not at hand")]
    Store(#[from] StoreError),
    /// A baseline.
    #[error(transparent)]
    Baseline(#[from] BaselineError),
    /// A sum that was stored is none any more.
    #[error("a stored sum is not what it was")]
    Sum(#[source] Misfit),
}

/// What went with a device's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forgotten {
    /// What it had sent.
    pub(crate) rows: DeletedRows,
    /// Its hours and days.
    pub(crate) spans: usize,
}

/// The history of one tenant; cheap to clone.
#[derive(Clone)]
pub(crate) struct History {
    store: TenantStore,
    baselines: Baselines,
    labels: Arc<[String]>,
    policy: Policy,
    kept: Retention,
}

/// Baselines by image; none where an image has none.
type Known = BTreeMap<(ModelName, Digest), Option<Arc<Baseline>>>;

impl History {
    /// A history of one tenant. `labels` are those whose values are cohorts.
    pub(crate) fn new(
        store: TenantStore,
        blobs: Blobs,
        (policy, labels): (Policy, Vec<String>),
        kept: Retention,
    ) -> Self {
        let baselines = Baselines::new(store.clone(), blobs);
        Self { store, baselines, labels: labels.into(), policy, kept }
    }

    /// Sums up what has come, every `pause`; never returns.
    pub(crate) async fn run(self, pause: Duration) {
        let mut known = Known::new();
        loop {
            match self.turn(&mut known, clock::now()).await {
                // Another server was quicker, or data of a device was deleted: the next turn sees what is left.
                Ok(()) | Err(HistoryError::Store(StoreError::Changed(_))) => (),
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "history is not written"
                    );
                }
            }
            sleep(pause).await;
        }
    }

    /// Sums up what has come, turns old hours into days, and throws away what is past its time.
    pub(crate) async fn turn(
        &self,
        known: &mut Known,
        now: UnixMillis,
    ) -> Result<(), HistoryError> {
        while self.sum_up(known, now.plus(-SETTLED_MS)).await? {}
        while self.turn_into_days(now.plus(-self.kept.hours_ms())).await? {}
        self.throw_away(now).await
    }

    /// Sums up the next windows that came until a moment; returns whether there were any.
    async fn sum_up(&self, known: &mut Known, until: UnixMillis) -> Result<bool, HistoryError> {
        let forgotten = self.store.forgotten_devices().await?;
        let after = self.store.summed_windows().await?;
        let mut windows = self.store.windows_after(after, BATCH).await?;
        let settled = windows.iter().take_while(|stored| stored.received_at <= until).count();
        windows.truncate(settled);
        let Some(last) = windows.last().map(|stored| stored.number) else { return Ok(false) };

        let sums = self.sums(&windows, known).await?;
        let mut change = self.store.begin().await?;
        change.windows_summed((after, last), forgotten).await?;
        for (key, sum) in sums.0 {
            add(&mut change, &key, sum).await?;
        }
        change.commit().await?;
        Ok(true)
    }

    async fn sums(
        &self,
        windows: &[StoredWindow],
        known: &mut Known,
    ) -> Result<Sums, HistoryError> {
        let mut sums = Sums::default();
        let mut scopes = BTreeMap::new();
        for stored in windows {
            let window = &stored.window;
            let baseline = self.baseline(known, &window.model, &window.image).await?;
            let Some(baseline) = baseline else { continue };
            if !scopes.contains_key(&stored.device) {
                let labels = self.store.labels_of(&stored.device).await?;
                scopes.insert(stored.device.clone(), scopes_of(&labels, &self.labels));
            }
            let scopes = scopes.get(&stored.device).map(Vec::as_slice).unwrap_or_default();
            let taken =
                fitting(stored, &baseline).and_then(|profile| sums.take(stored, &profile, scopes));
            if let Err(misfit) = taken {
                let device = &stored.device;
                tracing::warn!(%device, %misfit, "profile window is not in the history");
            }
        }
        Ok(sums)
    }

    async fn baseline(
        &self,
        known: &mut Known,
        model: &ModelName,
        image: &ImageRef,
    ) -> Result<Option<Arc<Baseline>>, HistoryError> {
        let key = (model.clone(), image.index);
        if let Some(baseline) = known.get(&key) {
            return Ok(baseline.clone());
        }
        let baseline = self.baselines.of(model, image).await?;
        if known.len() >= BASELINES_MAX {
            known.clear();
        }
        known.insert(key, baseline.clone());
        Ok(baseline)
    }

    /// Turns the oldest hours that begin before a moment into days; returns whether there were any.
    async fn turn_into_days(&self, before: UnixMillis) -> Result<bool, HistoryError> {
        let hours = self.store.hours_before(Length::Day.floor(before), BATCH).await?;
        if hours.is_empty() {
            return Ok(false);
        }
        let mut change = self.store.begin().await?;
        let mut days = Sums::default();
        for (hour, span) in hours {
            change.remove_span(&hour).await?;
            let day = SpanKey { length: Length::Day, from: Length::Day.floor(hour.from), ..hour };
            let sum = Sum::read(span).map_err(HistoryError::Sum)?;
            days.add(day, sum).map_err(HistoryError::Sum)?;
        }
        for (key, sum) in days.0 {
            add(&mut change, &key, sum).await?;
        }
        change.commit().await?;
        Ok(true)
    }

    /// Throws away the oldest spans: those past their time, and as many as are too many.
    async fn throw_away(&self, now: UnixMillis) -> Result<(), HistoryError> {
        let sizes = self.store.span_bytes().await?;
        let limit = u64::from(self.kept.history_mb) << 20;
        let mut bytes: u64 = sizes.iter().map(|(_, bytes)| bytes).sum();
        let past = now.plus(-self.kept.days_ms());
        let mut first_kept = None;
        for (from, size) in sizes {
            if bytes <= limit && from >= past {
                break;
            }
            if from >= past && first_kept.is_none() {
                let limit_mb = self.kept.history_mb;
                tracing::warn!(
                    limit_mb,
                    "history is too large: its oldest spans go before their time; see retention.history_mb"
                );
            }
            bytes -= size;
            first_kept = Some(from.plus(1));
        }
        if let Some(first_kept) = first_kept {
            let mut change = self.store.begin().await?;
            let spans = change.remove_spans_before(first_kept).await?;
            change.commit().await?;
            tracing::info!(spans, "spans of history thrown away");
        }
        Ok(())
    }

    /// Deletes what a device has sent, and takes it out of every sum that it is in. The caller commits.
    pub(crate) async fn forget(
        &self,
        change: &mut Change,
        device: &DeviceId,
    ) -> Result<Forgotten, HistoryError> {
        change.begin_to_forget().await?;
        let own = change.spans_of(device).await?;
        let spans = own.len();
        let mut known = Known::new();
        for (key, span) in own {
            change.remove_span(&key).await?;
            let image = ImageRef { version: span.version.clone(), index: key.digest };
            let baseline = self.baseline(&mut known, &key.model, &image).await?;
            let part = Sum::read(span).map_err(HistoryError::Sum)?;
            for scope in &part.scopes {
                let whole = SpanKey { scope: scope.clone(), ..key.clone() };
                take_out(change, &whole, &part, baseline.as_deref()).await?;
            }
        }
        Ok(Forgotten { rows: change.delete_sent(device).await?, spans })
    }
}

/// The profile of a window, if it has the bins of its image.
fn fitting(stored: &StoredWindow, baseline: &Baseline) -> Result<Profile, Misfit> {
    let profile = Profile::decode(&stored.window.profile)?;
    profile.check(baseline)?;
    Ok(profile)
}

/// Adds to a span that may be there already. What does not fit is left out: it would keep everything else from being counted.
async fn add(change: &mut Change, key: &SpanKey, mut sum: Sum) -> Result<(), HistoryError> {
    if let Some(kept) = change.span(key).await? {
        let added = Sum::read(kept).and_then(|kept| sum.add(kept));
        if let Err(misfit) = added {
            let (scope, model) = (&key.scope, &key.model);
            tracing::warn!(%scope, %model, %misfit, "windows are not in the history");
            return Ok(());
        }
    }
    let span = sum.stored().map_err(HistoryError::Sum)?;
    Ok(change.put_span(key, &span).await?)
}

/// Takes a device's part out of a scope's span. A scope of that device alone goes whole, and so does one whose bins nobody knows any more.
async fn take_out(
    change: &mut Change,
    key: &SpanKey,
    part: &Sum,
    baseline: Option<&Baseline>,
) -> Result<(), HistoryError> {
    let Some(kept) = change.span(key).await? else { return Ok(()) };
    match rest(kept, part, baseline).map_err(HistoryError::Sum)? {
        Some(span) => Ok(change.put_span(key, &span).await?),
        None => Ok(change.remove_span(key).await?),
    }
}

fn rest(
    kept: StoredSpan,
    part: &Sum,
    baseline: Option<&Baseline>,
) -> Result<Option<StoredSpan>, Misfit> {
    let Some(baseline) = baseline else { return Ok(None) };
    let mut whole = Sum::read(kept)?;
    whole.windows = whole.windows.saturating_sub(part.windows);
    if whole.windows == 0 {
        return Ok(None);
    }
    whole.errors = whole.errors.saturating_sub(part.errors);
    whole.profile.take_out(&part.profile, baseline)?;
    whole.stored().map(Some)
}
