//! Applications beside the devices: rows of digits, several requests a second, from begin to end of the demo.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sealift_tests::digits::Rows;
use sealift_tests::fleet::Caller;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

/// Rows of one request.
const BATCH: usize = 10;
/// Time between two requests to one device.
const PERIOD: Duration = Duration::from_millis(50);
/// Failed requests whose text is kept.
const FAILURES_KEPT: usize = 3;

/// What the applications of one device have seen since [`Tally::reset`].
#[derive(Debug, Default)]
pub(super) struct Tally {
    rows: AtomicU64,
    correct: AtomicU64,
    requests: AtomicU64,
    failed: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Tally {
    /// Share of rows whose digit was named right; none before the first answer.
    #[expect(clippy::cast_precision_loss, reason = "a share of some thousand rows, for people")]
    pub(super) fn accuracy(&self) -> Option<f64> {
        let rows = self.rows.load(Ordering::Relaxed);
        (rows > 0).then(|| self.correct.load(Ordering::Relaxed) as f64 / rows as f64)
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// The first failures, for the error of a step.
    pub(super) fn failures(&self) -> String {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).join("; ")
    }

    pub(super) fn reset(&self) {
        for count in [&self.rows, &self.correct, &self.requests, &self.failed] {
            count.store(0, Ordering::Relaxed);
        }
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn add(&self, outcome: anyhow::Result<(usize, usize)>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok((rows, correct)) => {
                self.rows.fetch_add(rows as u64, Ordering::Relaxed);
                self.correct.fetch_add(correct as u64, Ordering::Relaxed);
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let mut kept = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() < FAILURES_KEPT {
                    kept.push(format!("{error:#}"));
                }
            }
        }
    }
}

/// The applications of one device; they stop when this is dropped.
pub(super) struct Traffic {
    pub(super) site: &'static str,
    pub(super) tally: Arc<Tally>,
    is_drifted: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Traffic {
    /// Begins to ask.
    pub(super) fn start(site: &'static str, caller: Caller) -> anyhow::Result<Self> {
        let (held_out, drifted) = (Rows::held_out()?, Rows::drifted()?);
        let tally = Arc::new(Tally::default());
        let is_drifted = Arc::new(AtomicBool::new(false));
        let (counts, switch) = (Arc::clone(&tally), Arc::clone(&is_drifted));
        let task = tokio::spawn(async move {
            let mut ticks = interval(PERIOD);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            for position in (0..).step_by(BATCH) {
                ticks.tick().await;
                let rows = if switch.load(Ordering::Relaxed) { &drifted } else { &held_out };
                counts.add(ask(&caller, rows, position).await);
            }
        });
        Ok(Self { site, tally, is_drifted, task })
    }

    /// From now on the rows are rotated and noisy.
    pub(super) fn drift(&self) {
        self.is_drifted.store(true, Ordering::Relaxed);
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn ask(caller: &Caller, rows: &Rows, position: usize) -> anyhow::Result<(usize, usize)> {
    let batch = rows.batch(position, BATCH);
    let (answer, _version) = caller.infer(&batch).await?;
    Ok((BATCH, batch.correct(&answer)?))
}
