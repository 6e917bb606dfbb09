//! The only place that reads a clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ConfigBuilder, WantsVerifier};
use rustls_pki_types::UnixTime;
use sealift_protocol::id::UnixMillis;

use crate::limits::BUILT_AT;

/// The device's time. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    started: Instant,
    started_at: UnixMillis,
    floor: Arc<AtomicI64>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the shell's one clock; everything else is given the time"
)]
fn wall() -> UnixMillis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the shell's one clock; everything else is given the time"
)]
fn instant() -> Instant {
    Instant::now()
}

impl Clock {
    /// A clock that never shows a time before `floor`: a directive of that time was verified here.
    pub(crate) fn new(floor: UnixMillis) -> Self {
        let floor = floor.max(BUILT_AT);
        let floor = Arc::new(AtomicI64::new(floor.0));
        let started_at = wall().max(UnixMillis(floor.load(Ordering::Relaxed)));
        Self { started: instant(), started_at, floor }
    }

    /// The best idea of the time of day, for what is signed: the wall clock, but not before what was verified.
    pub(crate) fn now(&self) -> UnixMillis {
        wall().max(UnixMillis(self.floor.load(Ordering::Relaxed)))
    }

    /// What the wall clock shows, right or wrong: for a person's command, on metadata of any age.
    pub(crate) fn unfloored_now() -> UnixMillis {
        wall()
    }

    /// A time that runs evenly while the agent runs, for deadlines: nobody can set it.
    pub(crate) fn steady(&self) -> UnixMillis {
        self.started_at.plus(i64::try_from(self.uptime().as_millis()).unwrap_or(i64::MAX))
    }

    /// Time since the agent started.
    pub(crate) fn uptime(&self) -> Duration {
        instant().saturating_duration_since(self.started)
    }

    /// Notes that the time is not before `at`.
    pub(crate) fn raise_floor(&self, at: UnixMillis) {
        self.floor.fetch_max(at.0, Ordering::Relaxed);
    }
}

/// Certificates are checked for the device's best idea of the time: a device without a battery wakes up in 1970.
impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.now().0 / 1_000).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// Begins TLS by this clock, with the one crypto provider of the process.
pub(crate) fn tls(
    clock: &Clock,
) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    let provider = ClientConfig::builder().crypto_provider().clone();
    ClientConfig::builder_with_details(provider, Arc::new(clock.clone()))
        .with_safe_default_protocol_versions()
}
