//! Windows as sums over an hour or a day. Pure.

use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::id::{UnixMillis, Version};
use sealift_protocol::profile::{InvalidProfile, Mismatch, Profile};
use sealift_protocol::report::ImageRef;

use crate::drift::Scope;
use crate::store::profiles::StoredWindow;
use crate::store::spans::{Length, SpanKey, StoredSpan};

const HOUR_MS: i64 = 3_600 * 1_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// A window is counted when it was measured, if that is not further back than this: spools of devices hold no more, and clocks are wrong.
const BACKLOG_MS: i64 = 7 * DAY_MS;

impl Length {
    /// Its milliseconds.
    pub(crate) const fn ms(self) -> i64 {
        match self {
            Self::Hour => HOUR_MS,
            Self::Day => DAY_MS,
        }
    }

    /// The beginning of the span that a moment is in.
    pub(crate) const fn floor(self, at: UnixMillis) -> UnixMillis {
        UnixMillis(at.0.div_euclid(self.ms()) * self.ms())
    }
}

/// Why something was left out of a sum.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Misfit {
    /// Its bytes.
    #[error(transparent)]
    Profile(#[from] InvalidProfile),
    /// Its bins.
    #[error(transparent)]
    Bins(#[from] Mismatch),
    /// What cannot be written.
    #[error("a sum cannot be encoded")]
    Codec(#[from] sealift_protocol::codec::CodecError),
}

/// What was seen in a span.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sum {
    pub(super) version: Version,
    pub(super) windows: u64,
    pub(super) errors: u64,
    pub(super) scopes: BTreeSet<Scope>,
    pub(super) profile: Profile,
}

impl Sum {
    /// What was stored.
    pub(super) fn read(stored: StoredSpan) -> Result<Self, Misfit> {
        let StoredSpan { version, windows, errors, scopes, profile } = stored;
        Ok(Self { version, windows, errors, scopes, profile: Profile::decode(&profile)? })
    }

    /// What is stored of it.
    pub(super) fn stored(&self) -> Result<StoredSpan, Misfit> {
        Ok(StoredSpan {
            version: self.version.clone(),
            windows: self.windows,
            errors: self.errors,
            scopes: self.scopes.clone(),
            profile: self.profile.encode()?,
        })
    }

    /// Adds what another sum of the same image has counted.
    pub(super) fn add(&mut self, other: Self) -> Result<(), Misfit> {
        self.profile.merge(&other.profile)?;
        self.windows = self.windows.saturating_add(other.windows);
        self.errors = self.errors.saturating_add(other.errors);
        self.scopes.extend(other.scopes);
        Ok(())
    }
}

/// Sums by their spans.
#[derive(Debug, Default)]
pub(super) struct Sums(pub(super) BTreeMap<SpanKey, Sum>);

impl Sums {
    /// Adds to the sum of a span.
    pub(super) fn add(&mut self, key: SpanKey, sum: Sum) -> Result<(), Misfit> {
        if let Some(kept) = self.0.get_mut(&key) {
            return kept.add(sum);
        }
        self.0.insert(key, sum);
        Ok(())
    }

    /// Adds a device's window to the hours of the device and of all the scopes that it is counted in.
    pub(super) fn take(
        &mut self,
        stored: &StoredWindow,
        profile: &Profile,
        scopes: &[Scope],
    ) -> Result<(), Misfit> {
        let ImageRef { version, index } = &stored.window.image;
        let received = stored.received_at;
        let measured = stored.window.until.min(received);
        let is_late = received.since(measured) > BACKLOG_MS;
        let from = Length::Hour.floor(if is_late { received } else { measured });
        let device = Scope::Device(stored.device.clone());
        for scope in scopes.iter().chain([&device]) {
            let counted_in = if *scope == device { scopes } else { &[] };
            let key = SpanKey {
                scope: scope.clone(),
                model: stored.window.model.clone(),
                digest: *index,
                length: Length::Hour,
                from,
            };
            let sum = Sum {
                version: version.clone(),
                windows: 1,
                errors: stored.window.errors,
                scopes: counted_in.iter().cloned().collect(),
                profile: profile.clone(),
            };
            self.add(key, sum)?;
        }
        Ok(())
    }
}
