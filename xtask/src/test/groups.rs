//! Groups of Rust tests, side by side where there are processors for it: some of them have deadlines for other processes.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use super::binaries::Binary;
use super::count::{self, Counted, Ignored};
use super::needs::Needs;
use super::report::{Outcome, Report, Tally};
use super::{Run, log};

/// A group has agents, servers and a broker of its own; with fewer processors for them its deadlines are not met.
const PROCESSORS_PER_GROUP: usize = 2;

/// More groups would wait for the disk.
const SIDE_BY_SIDE_MAX: usize = 4;

/// How groups are run.
pub(super) struct Groups<'a> {
    pub(super) needs: &'a Needs,
    pub(super) logs: &'a Path,
    /// Whether the tests that take minutes run, too.
    pub(super) long: bool,
}

impl Groups<'_> {
    /// Runs them all, and reports each when it ends.
    pub(super) fn run(
        &self,
        chosen: &[(&Binary, Vec<String>)],
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let next = AtomicUsize::new(0);
        let databases = Mutex::new(());
        let (say, ended) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..side_by_side() {
                let (say, next, databases) = (say.clone(), &next, &databases);
                scope.spawn(move || {
                    while let Some((binary, filters)) =
                        chosen.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        let began = Instant::now();
                        let outcome = self.group(binary, filters, databases);
                        if say.send((&binary.name, outcome, began.elapsed())).is_err() {
                            break; // an error ends the run
                        }
                    }
                });
            }
            drop(say);
            for (name, outcome, took) in ended {
                report.add(name, outcome?, took);
            }
            Ok(())
        })
    }

    /// Runs a group of tests, then those of it that wait for something which is here.
    fn group(
        &self,
        binary: &Binary,
        filters: &[String],
        databases: &Mutex<()>,
    ) -> anyhow::Result<Outcome> {
        let name = &binary.name;
        let environment = {
            let _one_at_a_time = databases.lock();
            self.needs.environment(name)?
        };
        let mut command = binary.command(filters);
        let run = Run { name, log: log(self.logs, name), counted: Counted::Libtest };
        let mut outcome = run.outcome(command.envs(environment.clone()))?;
        let (names, rest) = self.sort(count::ignored(&run.log)?);
        outcome.replace_left_out(rest);
        if !names.is_empty() {
            let mut command = binary.command_for_ignored(&names);
            let run = Run { log: log(self.logs, &format!("{name} needing")), ..run };
            outcome = outcome.and(run.outcome(command.envs(environment))?);
        }
        Ok(outcome)
    }

    /// Says which tests can run although they do not by themselves, and counts the others.
    fn sort(&self, ignored: Vec<Ignored>) -> (Vec<String>, Tally) {
        let (mut names, mut rest) = (Vec::new(), Tally::default());
        for Ignored { name, reason } in ignored {
            let is_long = reason.starts_with("takes ");
            // What takes hours has a step of its own.
            let runs = self.long && reason.starts_with("takes minutes");
            if runs || self.needs.meet(&reason) {
                names.push(name);
            } else if is_long {
                rest.left_out += 1;
            } else {
                rest.skipped += 1;
                rest.reasons.insert(reason);
            }
        }
        (names, rest)
    }
}

fn side_by_side() -> usize {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    (processors / PROCESSORS_PER_GROUP).clamp(1, SIDE_BY_SIDE_MAX)
}
