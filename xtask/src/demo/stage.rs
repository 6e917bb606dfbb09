//! Prints the steps of the demo as they happen.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

/// How often the spinner turns.
const TURN: Duration = Duration::from_millis(120);

/// Numbers the steps, shows the present one, and keeps what each found.
pub(super) struct Stage {
    began: Instant,
    steps: u32,
}

impl Stage {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), steps: 0 }
    }

    /// Runs a step; its error names it, its success is a line of the story.
    pub(super) async fn step<T, S: Display>(
        &mut self,
        name: &str,
        work: impl Future<Output = anyhow::Result<(T, S)>>,
    ) -> anyhow::Result<T> {
        self.steps += 1;
        let began = Instant::now();
        let spinner = ProgressBar::new_spinner().with_message(format!("{}. {name}", self.steps));
        spinner.set_style(ProgressStyle::with_template("{spinner} {msg} {elapsed}")?);
        spinner.enable_steady_tick(TURN);
        let outcome = work.await;
        spinner.finish_and_clear();
        let seconds = began.elapsed().as_secs_f64();
        match outcome {
            Ok((value, found)) => {
                println!("{:>3}. {name} ({seconds:.1} s)\n     {found}", self.steps);
                Ok(value)
            }
            Err(error) => {
                println!("{:>3}. {name}: FAILED after {seconds:.1} s", self.steps);
                Err(error).with_context(|| format!("step {} ({name}) failed", self.steps))
            }
        }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}
