//! A complete image that waits for the maintenance window: only then is it loaded, tested and made live.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use sealift_protocol::directive::{MaintenanceWindow, Opening};
use sealift_protocol::id::UnixMillis;
use sealift_protocol::report::{OUTSIDE_WINDOW, Wait};
use serde::{Deserialize, Serialize};

use super::phase::{Attempt, Live, Phase, Step};
use super::slot::Slot;
use super::{Task, Turn};
use crate::limits::{LOOK_MS, LOOKS_MAX, STARTS_FAILED_MAX, WARMING_MAX_MS};

/// What the clocks show where the device stands; the shell says it before anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Local {
    /// The zone that windows are meant in; UTC where nobody knows it.
    pub(crate) zone: TimeZone,
    /// By how much the time of day is ahead of the clock that nobody can set.
    pub(crate) ahead_ms: i64,
    /// Whether the time of day can be right.
    pub(crate) is_trusted: bool,
}

impl Default for Local {
    fn default() -> Self {
        Self { zone: TimeZone::UTC, ahead_ms: 0, is_trusted: true }
    }
}

/// Less is no setting of the clock.
const STEP_MS: i64 = 1_000;

impl Local {
    pub(super) fn set(&mut self, now: Self) {
        let is_near = self.ahead_ms.abs_diff(now.ahead_ms) < STEP_MS.unsigned_abs();
        let ahead_ms = if is_near { self.ahead_ms } else { now.ahead_ms };
        *self = Self { ahead_ms, ..now };
    }
}

/// What an image waits for on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Staged {
    /// When to look again, by the clock that nobody can set.
    pub(super) until: UnixMillis,
    /// When the window opens, by the time of day.
    opens_at: UnixMillis,
    reason: String,
}

impl Staged {
    pub(super) fn wait(&self) -> Wait {
        let (code, reason) = (OUTSIDE_WINDOW.to_owned(), self.reason.clone());
        Wait { code, reason, until: self.opens_at }
    }
}

impl Slot {
    /// The image is complete: it is loaded now, or when its window opens.
    pub(super) fn on_complete(
        &mut self,
        attempt: Attempt,
        live: Option<Live>,
        turn: &mut Turn<'_>,
    ) {
        self.stage(attempt, live, turn.until(LOOK_MS), turn);
    }

    /// Looks again: the clock may have been set, the zone too.
    pub(super) fn look_again(
        &mut self,
        mut attempt: Attempt,
        live: Option<Live>,
        staged: &Staged,
        turn: &mut Turn<'_>,
    ) {
        if turn.local.is_trusted || turn.now < staged.until {
            let look_at = staged.until.clamp(turn.until(1), turn.until(LOOK_MS));
            return self.stage(attempt, live, look_at, turn);
        }
        // Each is written down: a device that is switched off every night must not wait for ever.
        attempt.looks = attempt.looks.saturating_add(1);
        self.on_complete(attempt, live, turn);
    }

    fn stage(
        &mut self,
        attempt: Attempt,
        live: Option<Live>,
        look_at: UnixMillis,
        turn: &mut Turn<'_>,
    ) {
        let step = if let Some(staged) = waits(&attempt, live.as_ref(), look_at, turn) {
            Step::Staged(staged)
        } else {
            turn.start(self.ticket.next(), Task::Warm { image: attempt.image() });
            Step::Warming { until: turn.until(WARMING_MAX_MS) }
        };
        self.phase = Phase::Preparing { attempt, live, step };
    }
}

/// What the image must wait for, if it must.
///
/// A device that answers nobody has nothing that could be disturbed. A window comes back within a week; by a clock that cannot be right
/// it may not, and then the image waits for about a day of running, whatever the clock shows.
pub(super) fn waits(
    attempt: &Attempt,
    live: Option<&Live>,
    look_at: UnixMillis,
    turn: &Turn<'_>,
) -> Option<Staged> {
    let window = attempt.desired.trial.window?;
    let is_down = live.is_none_or(|live| live.starts_failed >= STARTS_FAILED_MAX);
    let local = turn.local;
    if is_down || (!local.is_trusted && attempt.looks >= LOOKS_MAX) {
        return None;
    }
    let Opening::Shut { opens_at } = window.at(turn.now.plus(local.ahead_ms), &local.zone) else {
        return None;
    };
    let opens = opens_at.plus(-local.ahead_ms);
    let until = if local.is_trusted { opens } else { opens.min(look_at) };
    Some(Staged { until, opens_at, reason: reason(window, opens_at, local) })
}

fn reason(window: MaintenanceWindow, opens_at: UnixMillis, local: &Local) -> String {
    let at = Timestamp::from_millisecond(opens_at.0).unwrap_or_default();
    let at = at.to_zoned(local.zone.clone()).strftime("%Y-%m-%d %H:%M");
    let zone = if local.zone.is_unknown() || local.zone == TimeZone::UTC {
        "UTC"
    } else {
        local.zone.iana_name().unwrap_or("local time")
    };
    let doubt = if local.is_trusted {
        ""
    } else {
        "; the clock cannot be right, and it is waited for a day at most"
    };
    format!("outside the maintenance window {window}, opens at {at} ({zone}){doubt}")
}
