//! What was seen in one scope: rows that come together become windows.
//!
//! ```text
//!  device windows ──merge──▶ pending ──end of a round: enough rows, and from (nearly) everybody──▶ windows (newest 64)
//! ```
//! A window of a scope has rows of all of its devices. With whoever comes first, a fleet of three sites would be judged by one of them
//! at a time, and would drift and recover with each window.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sealift_protocol::api::DriftPoint;
use sealift_protocol::id::{DeviceId, UnixMillis};
use sealift_protocol::profile::{Baseline, Mismatch, Profile};

use crate::drift::{Subject, Window};

/// Merged windows that are kept of a scope: the longest span that verdicts look at.
const WINDOWS_MAX: usize = 64;
/// Points that are kept of a subject: an hour of windows of ten seconds.
const POINTS_MAX: usize = 360;
/// Windows in a histogram, so that it shows what is, and not what was.
const SHOWN_WINDOWS: usize = 4;
/// Rounds after which devices that had rows for the last window are not waited for: they are off, or idle.
const ROUNDS_MAX: u32 = 10;
/// A window may lack one in so many devices; in a large fleet some device is always late.
const LATE_SHARE: usize = 10;

/// What was seen in one scope.
#[derive(Default)]
pub(super) struct Seen {
    pending: Option<Pending>,
    /// Devices that had rows in the newest window.
    expected: BTreeSet<DeviceId>,
    windows: Vec<Window>,
    series: BTreeMap<Subject, VecDeque<DriftPoint>>,
}

/// Rows that are not a window yet.
struct Pending {
    window: Window,
    devices: BTreeSet<DeviceId>,
    rounds: u32,
}

impl Seen {
    /// The windows, oldest first.
    pub(super) fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// Takes the rows of one device.
    pub(super) fn take(&mut self, device: &DeviceId, taken: Window) -> Result<(), Mismatch> {
        let Some(pending) = &mut self.pending else {
            let devices = BTreeSet::from([device.clone()]);
            self.pending = Some(Pending { window: taken, devices, rounds: 0 });
            return Ok(());
        };
        let window = &mut pending.window;
        window.profile.merge(&taken.profile)?;
        window.from = window.from.min(taken.from);
        window.until = window.until.max(taken.until);
        if !pending.devices.contains(device) {
            pending.devices.insert(device.clone());
        }
        Ok(())
    }

    /// Makes a window of what is pending, if that is enough; returns whether it was.
    pub(super) fn end_round(&mut self, rows_min: u64) -> bool {
        let Some(mut pending) = self.pending.take() else { return false };
        pending.rounds += 1;
        let late = self.expected.difference(&pending.devices).count();
        let is_whole = late * LATE_SHARE <= self.expected.len() || pending.rounds >= ROUNDS_MAX;
        if pending.window.profile.rows() < rows_min || !is_whole {
            self.pending = Some(pending);
            return false;
        }
        let Pending { mut window, devices, .. } = pending;
        if let Some(newest) = self.windows.last() {
            // A clock that stepped back must not make rows look as if they were judged already.
            window.until = window.until.max(newest.until.plus(1));
        }
        if self.windows.len() == WINDOWS_MAX {
            self.windows.remove(0);
        }
        self.windows.push(window);
        self.expected = devices;
        true
    }

    /// Remembers where a subject stands.
    pub(super) fn remember(&mut self, subject: Subject, point: DriftPoint) {
        let series = self.series.entry(subject).or_default();
        if series.len() == POINTS_MAX {
            series.pop_front();
        }
        series.push_back(point);
    }

    /// What was remembered of a subject, oldest first.
    pub(super) fn series(&self, subject: &Subject) -> impl Iterator<Item = &DriftPoint> {
        self.series.get(subject).into_iter().flatten()
    }

    /// When the newest window ended.
    pub(super) fn until(&self) -> Option<UnixMillis> {
        self.windows.last().map(|window| window.until)
    }

    /// Rows that were passed over in so many windows up to one that ended then.
    pub(super) fn skipped(&self, until: UnixMillis, windows: usize) -> u64 {
        let judged = self.windows.iter().rev().filter(|window| window.until <= until).take(windows);
        judged.fold(0, |sum, window| sum.saturating_add(window.profile.skipped()))
    }

    /// The newest windows together; none if there are no rows.
    pub(super) fn newest(&self, baseline: &Baseline) -> Option<Profile> {
        let mut merged = Profile::empty(baseline);
        for window in self.windows.iter().rev().take(SHOWN_WINDOWS) {
            merged.merge(&window.profile).ok()?;
        }
        (merged.rows() > 0).then_some(merged)
    }
}
