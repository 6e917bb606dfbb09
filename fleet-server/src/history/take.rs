//! Looking back for a new baseline: what a version has seen in a span, on some devices, as one sum.

use std::sync::Arc;

use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, ModelName, UnixMillis};
use sealift_protocol::profile::{Baseline, Profile};
use sealift_protocol::report::ImageRef;

use super::sum::{Misfit, Sum};
use super::{History, HistoryError};
use crate::drift::Scope;
use crate::store::spans::{Length, SpanKey, StoredSpan};

/// Spans of one scope that are added up: five months of hours.
const SPANS_MAX: u32 = 4_000;
/// Devices whose own sums are added up, one after the other.
pub(crate) const DEVICES_MAX: u32 = 1_000;

/// What is to be added up.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) model: ModelName,
    pub(crate) image: ImageRef,
    pub(crate) from: UnixMillis,
    pub(crate) until: UnixMillis,
    /// These devices alone; otherwise the fleet, with those that are gone.
    pub(crate) devices: Option<Vec<DeviceId>>,
}

/// What was seen.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) baseline: Arc<Baseline>,
    pub(crate) profile: Profile,
    /// In each phase of the baseline's season; empty without one.
    pub(crate) phases: Vec<Profile>,
    pub(crate) windows: u64,
    /// Begin of the first span, and end of the last.
    pub(crate) from: UnixMillis,
    pub(crate) until: UnixMillis,
}

/// Why there is nothing to take.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    /// The history itself.
    #[error("what was seen cannot be read")]
    History(#[source] Box<HistoryError>),
    /// The image has no baseline, on whose bins anything could have been counted.
    #[error("{0} has no baseline, so nothing was counted")]
    NoBaseline(ModelName),
    /// Nothing was seen.
    #[error("nothing was seen in that span")]
    Nothing,
    /// Another image was counted under the same version.
    #[error(
        "windows of several baselines are in that span: version {version} was image {other}, too"
    )]
    Mixed {
        /// The version.
        version: String,
        /// The other image.
        other: Digest,
    },
    /// More than is added up at once.
    #[error("more than {SPANS_MAX} hours and days are in that span")]
    TooMany,
    /// Days cannot be told apart by the hour any more.
    #[error("a part of that span is kept by the day alone, and the season's phases are shorter")]
    Season,
}

impl From<HistoryError> for NotTaken {
    fn from(error: HistoryError) -> Self {
        Self::History(Box::new(error))
    }
}

impl From<Misfit> for NotTaken {
    fn from(misfit: Misfit) -> Self {
        HistoryError::Sum(misfit).into()
    }
}

impl History {
    /// Adds up everything that was counted for an image in a span. Hours count from the one that `from` is in; days if all of them is inside.
    pub(crate) async fn take(&self, wanted: &Wanted) -> Result<Taken, NotTaken> {
        let Wanted { model, image, devices, .. } = wanted;
        let baseline = self.baselines.of(model, image).await.map_err(HistoryError::from)?;
        let baseline = baseline.ok_or_else(|| NotTaken::NoBaseline(model.clone()))?;
        let mut sum = Adding::new(baseline);
        match devices {
            None => self.add_scope(&mut sum, wanted, &Scope::Fleet).await?,
            Some(devices) => {
                for device in devices {
                    self.add_scope(&mut sum, wanted, &Scope::Device(device.clone())).await?;
                }
            }
        }
        sum.finish()
    }

    async fn add_scope(
        &self,
        sum: &mut Adding,
        wanted: &Wanted,
        scope: &Scope,
    ) -> Result<(), NotTaken> {
        let Wanted { model, image, from, until, .. } = wanted;
        let span = (Length::Hour.floor(*from), *until);
        for length in [Length::Day, Length::Hour] {
            let spans = self.store.spans((model, scope), length, span, SPANS_MAX).await;
            let spans = spans.map_err(HistoryError::from)?;
            if spans.len() >= usize::try_from(SPANS_MAX).unwrap_or(usize::MAX) {
                return Err(NotTaken::TooMany);
            }
            let is_inside = |key: &SpanKey| {
                length == Length::Hour || key.from.plus(length.ms()) <= Length::Hour.ceil(*until)
            };
            for (key, span) in spans.into_iter().filter(|(key, _)| is_inside(key)) {
                if span.version == image.version {
                    sum.add(&key, span, image)?;
                }
            }
        }
        Ok(())
    }
}

impl Length {
    /// The end of the span that a moment is in, or the moment itself between two.
    const fn ceil(self, at: UnixMillis) -> UnixMillis {
        Self::floor(self, at.plus(self.ms() - 1))
    }
}

/// What was added up so far.
struct Adding {
    baseline: Arc<Baseline>,
    profile: Profile,
    phases: Vec<Profile>,
    windows: u64,
    range: Option<(UnixMillis, UnixMillis)>,
}

impl Adding {
    fn new(baseline: Arc<Baseline>) -> Self {
        let profile = Profile::empty(&baseline);
        let phases = vec![profile.clone(); baseline.phases().len()];
        Self { baseline, profile, phases, windows: 0, range: None }
    }

    fn add(&mut self, key: &SpanKey, span: StoredSpan, image: &ImageRef) -> Result<(), NotTaken> {
        if key.digest != image.index {
            let (version, other) = (image.version.to_string(), key.digest);
            return Err(NotTaken::Mixed { version, other });
        }
        let Sum { windows, profile, .. } = Sum::read(span)?;
        self.profile.merge(&profile).map_err(Misfit::from)?;
        if !self.phases.is_empty() {
            if self.baseline.phase_ms() % key.length.ms() != 0 {
                return Err(NotTaken::Season);
            }
            if let Some(phase) = self.phases.get_mut(self.baseline.phase_at(key.from)) {
                phase.merge(&profile).map_err(Misfit::from)?;
            }
        }
        self.windows = self.windows.saturating_add(windows);
        let (from, until) = (key.from, key.from.plus(key.length.ms()));
        let known = self.range.unwrap_or((from, until));
        self.range = Some((known.0.min(from), known.1.max(until)));
        Ok(())
    }

    fn finish(self) -> Result<Taken, NotTaken> {
        let Self { baseline, profile, phases, windows, range } = self;
        let (from, until) = range.ok_or(NotTaken::Nothing)?;
        Ok(Taken { baseline, profile, phases, windows, from, until })
    }
}
