//! A thousand devices in each of a thousand worlds: the real planner and the real devices' state machines, for hours.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::count::Counted;
use super::report::Report;
use super::{Run, WORLDS, log};
use crate::workspace;

/// A slow machine with one processor; what is slower stands still.
const LIMIT: Duration = Duration::from_hours(48);
/// How often it is said how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(30);
/// What a world spends its time in. Unoptimised it takes several times as long; the rest of the tree stays as it is built already.
const OPTIMISED: [&str; 4] =
    ["sealift-protocol", "sealift-agent", "sealift-fleet-server", "sealift-tests"];

/// Runs it, and says now and then how far it is. `SEALIFT_WORLDS=5x1000` is a sample.
pub(super) fn run(logs: &Path, report: &mut Report) -> anyhow::Result<()> {
    let began = Instant::now();
    let run = Run { name: WORLDS, log: log(logs, WORLDS), counted: Counted::Libtest };
    let (end, ended) = mpsc::channel::<()>();
    let outcome = thread::scope(|scope| {
        let log = &run.log;
        scope.spawn(move || {
            let mut told = String::new();
            while ended.recv_timeout(PROGRESS_EVERY) == Err(RecvTimeoutError::Timeout) {
                let text = fs::read_to_string(log).unwrap_or_default();
                let last = text.lines().last().unwrap_or_default();
                if last != told {
                    println!("{WORLDS}: {last}");
                    last.clone_into(&mut told);
                }
            }
        });
        let outcome = run.outcome_within(&mut command(), LIMIT);
        drop(end);
        outcome
    });
    report.add(WORLDS, outcome?, began.elapsed());
    Ok(())
}

fn command() -> Command {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--locked", "-p", "sealift-tests", "--test", "fleet_loop"]);
    for package in OPTIMISED {
        cargo.arg("--config").arg(format!("profile.dev.package.{package}.opt-level=2"));
    }
    let test = "a_thousand_devices_in_a_thousand_worlds";
    cargo.args(["--", "--ignored", "--exact", test]);
    cargo
}
