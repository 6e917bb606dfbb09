//! The only place that reads a clock. ADR 10 says what is believed of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use sealift_protocol::id::UnixMillis;

use crate::limits::BUILT_AT;

/// What tells the time of day.
pub type Wall = fn() -> UnixMillis;

/// The device's time. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    wall: Wall,
    started: Instant,
    started_at: UnixMillis,
    floor: Arc<AtomicI64>,
}

/// The time, and whether the device's own clock says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) now: UnixMillis,
    /// Whether the clock shows a time that can be: not one before what was verified here. One that was never set cannot.
    pub(crate) is_trusted: bool,
}

/// The system's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the shell's one clock; everything else is given the time"
)]
pub fn system_time() -> UnixMillis {
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
    pub(crate) fn new(floor: UnixMillis, wall: Wall) -> Self {
        let floor = floor.max(BUILT_AT);
        let started_at = wall().max(floor);
        let floor = Arc::new(AtomicI64::new(floor.0));
        Self { wall, started: instant(), started_at, floor }
    }

    /// The best idea of the time of day, for what is signed: the wall clock, but not before what was verified.
    pub(crate) fn now(&self) -> UnixMillis {
        self.read().now
    }

    /// The same, with whether the wall clock says so.
    pub(crate) fn read(&self) -> Reading {
        let (wall, floor) = ((self.wall)(), UnixMillis(self.floor.load(Ordering::Relaxed)));
        Reading { now: wall.max(floor), is_trusted: wall >= floor }
    }

    /// What the wall clock shows, right or wrong: for a person's command, on metadata of any age.
    pub(crate) fn unfloored_now() -> UnixMillis {
        system_time()
    }

    /// A time that runs evenly while the agent runs, for deadlines: nobody can set it.
    pub(crate) fn steady(&self) -> UnixMillis {
        self.started_at.plus(i64::try_from(self.uptime().as_millis()).unwrap_or(i64::MAX))
    }

    /// Time since the agent started.
    pub(crate) fn uptime(&self) -> Duration {
        instant().saturating_duration_since(self.started)
    }

    /// Notes that the time is not before `at`, which somebody has signed. The wall clock never raises it: one that once showed 2099
    /// would keep the device from everything until then.
    pub(crate) fn raise_floor(&self, at: UnixMillis) {
        self.floor.fetch_max(at.0, Ordering::Relaxed);
    }
}
