//! Rows in, verdicts out: what device and server do together, in one place and without a network between them.

use crate::drift::{Against, Case, Policy, Scope, Verdict, Window, judge};
use crate::id::UnixMillis;
use crate::profile::{Baseline, Cell, Mismatch, Profile, Profiler};

/// Windows that are kept: the longest span that verdicts look at.
const WINDOWS_MAX: usize = 64;
/// How long a window lasts where rows have no time.
pub const WINDOW_MS: i64 = 60_000;

/// Lives through rows, window by window, and judges each window as the server does for a fleet of one device.
#[derive(Debug, Clone)]
pub struct Watcher {
    baseline: Baseline,
    policy: Policy,
    profiler: Profiler,
    windows: Vec<Window>,
    verdicts: Vec<Verdict>,
}

impl Watcher {
    /// A watcher that has seen nothing.
    pub fn new(baseline: Baseline, policy: Policy) -> Self {
        let profiler = Profiler::new(&baseline);
        Self { baseline, policy, profiler, windows: Vec::new(), verdicts: Vec::new() }
    }

    /// Counts a row, the place of its predicted class and its confidence.
    pub fn observe(&mut self, row: &[Cell], prediction: Option<usize>, confidence: Option<f32>) {
        self.profiler.observe_cells(row, prediction, confidence, None);
    }

    /// Rows of the window so far.
    pub const fn rows(&self) -> u64 {
        self.profiler.rows()
    }

    /// Ends the window and judges it.
    pub fn close(&mut self) -> Result<&[Verdict], Mismatch> {
        let from = self.windows.last().map_or(UnixMillis(0), |window| window.until);
        let window = Window { from, until: from.plus(WINDOW_MS), profile: self.profiler.close() };
        if self.windows.len() == WINDOWS_MAX {
            self.windows.remove(0);
        }
        self.windows.push(window);
        let case = Case { scope: Scope::Fleet, windows: &self.windows, against: Against::Baseline };
        self.verdicts = judge(&self.baseline, &[case], &self.verdicts, &self.policy)?;
        Ok(&self.verdicts)
    }

    /// What rows are compared with.
    pub const fn baseline(&self) -> &Baseline {
        &self.baseline
    }

    /// The counts of the newest window.
    pub fn newest(&self) -> Option<&Profile> {
        self.windows.last().map(|window| &window.profile)
    }
}
