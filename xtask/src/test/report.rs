//! The account of a test run: a line when a step ends, a table at the end, and one last line with the sums.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::child;

/// Lines quoted from the log of a failed step.
const QUOTED_LINES: usize = 40;

/// Numbers of tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: u32,
    pub(super) failed: u32,
    pub(super) skipped: u32,
    /// Not run because they take long and nobody asked for them.
    pub(super) left_out: u32,
    /// Why tests were skipped, each reason once.
    pub(super) reasons: BTreeSet<String>,
}

impl Tally {
    fn plus(mut self, other: Self) -> Self {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.left_out += other.left_out;
        self.reasons.extend(other.reasons);
        self
    }
}

/// How a step ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Ran(Tally),
    Failed { tally: Tally, why: Option<String>, log: PathBuf },
    Skipped(String),
}

impl Outcome {
    /// A check that passed.
    pub(super) fn check() -> Self {
        Self::Ran(Tally { passed: 1, ..Tally::default() })
    }

    /// A check that did not pass.
    pub(super) fn failed(log: &Path) -> Self {
        Self::Failed { tally: Tally::default(), why: None, log: log.to_owned() }
    }

    /// A step that did not come to its end.
    pub(super) fn broken(why: &str, log: &Path) -> Self {
        Self::Failed { tally: Tally::default(), why: Some(why.to_owned()), log: log.to_owned() }
    }

    /// What it adds to the sums. A failed step without a failed test counts as one failure.
    fn tally(&self) -> Tally {
        match self {
            Self::Ran(tally) => tally.clone(),
            Self::Failed { tally, .. } => Tally { failed: tally.failed.max(1), ..tally.clone() },
            Self::Skipped(_) => Tally { skipped: 1, ..Tally::default() },
        }
    }

    /// Puts what became of the tests that did not run in the place of their bare number.
    pub(super) fn replace_left_out(&mut self, rest: Tally) {
        if let Self::Ran(tally) | Self::Failed { tally, .. } = self {
            tally.left_out = 0;
            *tally = std::mem::take(tally).plus(rest);
        }
    }

    /// Adds what came of the tests that ran in a second turn.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Ran(one), Self::Ran(two)) => Self::Ran(one.plus(two)),
            (Self::Failed { tally, why, log }, other) => {
                Self::Failed { tally: tally.plus(other.tally()), why, log }
            }
            (one, Self::Failed { tally, why, log }) => {
                Self::Failed { tally: one.tally().plus(tally), why, log }
            }
            (Self::Skipped(_), other) => other,
            (one, Self::Skipped(_)) => one,
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Ran(tally) if tally.skipped > 0 => {
                format!("ran, {} SKIPPED ({})", tally.skipped, joined(&tally.reasons))
            }
            Self::Ran(tally) if tally.left_out > 0 => {
                format!("ran, {} long ones left out (--long)", tally.left_out)
            }
            Self::Ran(_) => "ran".to_owned(),
            Self::Failed { why: None, .. } => "FAILED".to_owned(),
            Self::Failed { why: Some(why), .. } => format!("FAILED ({})", first_line(why)),
            Self::Skipped(why) => format!("SKIPPED ({})", first_line(why)),
        }
    }
}

fn joined(reasons: &BTreeSet<String>) -> String {
    reasons.iter().map(String::as_str).collect::<Vec<_>>().join("; ")
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// What has been run so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: Vec<(String, Outcome, Duration)>,
}

impl Report {
    /// Notes and prints how a step ended. A group of tests in which none was asked for is not worth a line.
    pub(super) fn add(&mut self, name: &str, outcome: Outcome, took: Duration) {
        if matches!(&outcome, Outcome::Ran(tally) if *tally == Tally::default()) {
            return;
        }
        child::say(&format!("{name}: {} ({:.0} s)", outcome.words(), took.as_secs_f64()));
        self.rows.push((name.to_owned(), outcome, took));
    }

    /// Prints the ends of failed steps' logs, the table and the sums.
    pub(super) fn print(&self, require_all: bool) -> ExitCode {
        for (name, outcome, _) in &self.rows {
            if let Outcome::Failed { why, log, .. } = outcome {
                println!("\n== {name} failed; the end of {}:", log.display());
                println!(
                    "{}{}",
                    child::tail(log, QUOTED_LINES),
                    why.as_deref().unwrap_or_default()
                );
            }
        }
        let (text, sums) = self.table();
        println!("\n{text}");
        let missing = require_all && sums.skipped > 0;
        if missing {
            println!("what was skipped counts as failed (--require-all)");
        }
        println!("{} passed, {} failed, {} skipped", sums.passed, sums.failed, sums.skipped);
        let nothing = sums.passed == 0;
        if sums.failed > 0 || missing || nothing { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    fn table(&self) -> (String, Tally) {
        let longest =
            self.rows.iter().map(|(name, ..)| name.len()).max().unwrap_or_default().max(4);
        let mut text =
            format!("{:<longest$}  {:>6}  {:>7}  outcome\n", "step", "passed", "seconds");
        let mut sums = Tally::default();
        for (name, outcome, took) in &self.rows {
            let tally = outcome.tally();
            let seconds = took.as_secs_f64();
            // Writing into a string cannot fail.
            let _ = writeln!(
                text,
                "{name:<longest$}  {:>6}  {seconds:>7.1}  {}",
                tally.passed,
                outcome.words()
            );
            sums.passed += tally.passed;
            sums.failed += tally.failed;
            sums.skipped += tally.skipped;
        }
        (text, sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_count_tests_and_checks_and_steps_that_broke() {
        let mut report = Report::default();
        report.add("lint", Outcome::check(), Duration::from_secs(3));
        let tally = Tally { passed: 5, skipped: 2, ..Tally::default() };
        report.add("agent", Outcome::Ran(tally), Duration::from_secs(1));
        report.add("crashed", Outcome::broken("signal 11", Path::new("x.log")), Duration::ZERO);
        report.add("digits", Outcome::Skipped("no Python".to_owned()), Duration::ZERO);
        report.add("empty", Outcome::Ran(Tally::default()), Duration::ZERO);

        let (text, sums) = report.table();

        assert_eq!((sums.passed, sums.failed, sums.skipped), (6, 1, 3));
        assert!(text.contains("SKIPPED (no Python)") && !text.contains("empty"), "{text}");
    }
}
