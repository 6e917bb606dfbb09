//! `cargo xtask test`: every check and test, and an account of what was not run.

mod binaries;
mod count;
mod groups;
mod needs;
mod report;
mod worlds;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::bail;

use self::count::Counted;
use self::groups::Groups;
use self::needs::Needs;
use self::report::{Outcome, Report};
use crate::fetch::Obtained;
use crate::{child, fetch, workspace};

/// A cold build of everything on two slow cores.
const BUILD_LIMIT: Duration = Duration::from_mins(45);
/// The slowest group of tests.
const STEP_LIMIT: Duration = Duration::from_mins(20);

/// The steps that are not groups of Rust tests: before those, and after them.
const BEFORE: [&str; 6] =
    ["format", "lint", "console-types", "console-tests", "console-build", "console-size"];
const AFTER: [&str; 2] = ["doc-tests", "digits"];
/// The last one of a long run.
const WORLDS: &str = "worlds";

/// What is asked of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Count whatever was skipped as failed.
    #[arg(long)]
    require_all: bool,
    /// Run the tests that take minutes, too, and at last `worlds`, which takes hours.
    #[arg(long)]
    long: bool,
    /// Only these: format, lint, console-types, console-tests, console-build, console-size, doc-tests, digits, worlds
    /// (with --long), a group of Rust tests, or part of a Rust test's name.
    names: Vec<String>,
}

/// Runs what is asked and prints the account; whether all went well is the exit code.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let names = &arguments.names;
    let is_check = |name: &&String| {
        BEFORE.iter().chain(&AFTER).any(|check| check == name) || name.as_str() == WORLDS
    };
    let of_rust: Vec<_> = names.iter().filter(|name| !is_check(name)).cloned().collect();
    let asked = |check: &&str| names.is_empty() || names.iter().any(|name| name == check);
    let mut session = Session::new(arguments.long)?;
    for check in BEFORE.into_iter().filter(asked) {
        session.check(check)?;
    }
    if names.is_empty() || !of_rust.is_empty() {
        session.rust(&of_rust)?;
    }
    for check in AFTER.into_iter().filter(asked) {
        session.check(check)?;
    }
    if arguments.long && asked(&WORLDS) {
        worlds::run(&session.logs, &mut session.report)?;
    }
    Ok(session.report.print(arguments.require_all))
}

/// One run of `cargo xtask test`.
struct Session {
    logs: PathBuf,
    long: bool,
    report: Report,
    /// Programs and services, once something needs them and all is built.
    needs: Option<Needs>,
}

impl Session {
    fn new(long: bool) -> anyhow::Result<Self> {
        let logs = workspace::target()?.join("test-logs");
        Ok(Self { logs, long, report: Report::default(), needs: None })
    }

    fn check(&mut self, name: &str) -> anyhow::Result<()> {
        match name {
            "format" => self.command(name, workspace::cargo().args(["fmt", "--all", "--check"])),
            "lint" => self.command(name, &mut lint()),
            "console-types" => self.console(name, "check", Counted::Itself),
            "console-tests" => self.console(name, "test", Counted::Vitest),
            "console-build" => self.build_console(name),
            "console-size" => self.console(name, "size", Counted::Itself),
            "doc-tests" => {
                let mut cargo = workspace::cargo();
                cargo.args(["test", "--locked", "--workspace", "--no-fail-fast", "--doc"]);
                self.step(name, &mut cargo, Counted::Libtest)
            }
            _ => self.digits(name),
        }
    }

    /// Runs every Rust test that `names` ask for, with whatever services this machine can have.
    fn rust(&mut self, names: &[String]) -> anyhow::Result<()> {
        let began = Instant::now();
        let Some(binaries) = binaries::build(&self.logs)? else {
            let log = self.logs.join("build.log");
            self.report.add("build", Outcome::failed(&log), began.elapsed());
            return Ok(());
        };
        self.report.add("build", Outcome::check(), began.elapsed());
        let chosen = binaries::chosen(&binaries, names);
        let (long, logs) = (self.long, self.logs.clone());
        self.needs()?;
        let Self { needs: Some(needs), report, .. } = self else { return Ok(()) };
        Groups { needs, logs: &logs, long }.run(&chosen, report)
    }

    /// Programs and services for tests; what is missing is reported the first time.
    fn needs(&mut self) -> anyhow::Result<&Needs> {
        let mut needs = match self.needs.take() {
            Some(needs) => needs,
            None => Needs::obtain(&self.logs)?,
        };
        for (name, outcome) in needs.missing.drain(..) {
            self.report.add(&format!("needs {name}"), outcome, Duration::ZERO);
        }
        Ok(self.needs.insert(needs))
    }

    fn build_console(&mut self, name: &str) -> anyhow::Result<()> {
        let began = Instant::now();
        if self.ready(name, fetch::console())?.is_some() {
            self.report.add(name, Outcome::check(), began.elapsed());
        }
        Ok(())
    }

    /// Runs a script of the console's.
    fn console(&mut self, name: &str, script: &str, counted: Counted) -> anyhow::Result<()> {
        if self.ready(name, fetch::console_packages())?.is_some() {
            self.step(name, fetch::npm().args(["run", "--silent", script]), counted)?;
        }
        Ok(())
    }

    /// Trains the fixtures' models again and compares them with the committed files.
    fn digits(&mut self, name: &str) -> anyhow::Result<()> {
        if std::env::consts::ARCH != "x86_64" {
            return self.skip(name, "the pinned packages are for x86_64");
        }
        if let Some(python) = self.ready(name, fetch::venv())? {
            let mut train = Command::new(python);
            let fixtures = workspace::root().join("tests/fixtures/digits");
            self.command(name, train.args(["train.py", "--check"]).current_dir(fixtures))?;
        }
        Ok(())
    }

    /// Returns what a step needs, or notes that it was skipped for lack of it, or failed because making it did.
    fn ready(
        &mut self,
        name: &str,
        obtained: anyhow::Result<Obtained>,
    ) -> anyhow::Result<Option<PathBuf>> {
        let outcome = match obtained {
            Ok(Obtained::Ready(path)) => return Ok(Some(path)),
            Ok(Obtained::Missing(why)) => Outcome::Skipped(why),
            Err(_) if child::is_interrupted() => bail!("interrupted"),
            Err(error) => Outcome::broken(&format!("{error:#}"), &self.logs.join(name)),
        };
        self.report.add(name, outcome, Duration::ZERO);
        Ok(None)
    }

    fn skip(&mut self, name: &str, why: &str) -> anyhow::Result<()> {
        self.ready(name, Ok(Obtained::Missing(why.to_owned()))).map(drop)
    }

    fn command(&mut self, name: &str, command: &mut Command) -> anyhow::Result<()> {
        self.step(name, command, Counted::Itself)
    }

    fn step(&mut self, name: &str, command: &mut Command, counted: Counted) -> anyhow::Result<()> {
        let began = Instant::now();
        let outcome = Run { name, log: log(&self.logs, name), counted }.outcome(command)?;
        self.report.add(name, outcome, began.elapsed());
        Ok(())
    }
}

/// Where a step's output goes.
fn log(logs: &Path, name: &str) -> PathBuf {
    logs.join(format!("{}.log", name.replace(": ", "-").replace(' ', "-")))
}

/// A command of a step, and how what it prints is read.
struct Run<'a> {
    name: &'a str,
    log: PathBuf,
    counted: Counted,
}

impl Run<'_> {
    fn outcome(&self, command: &mut Command) -> anyhow::Result<Outcome> {
        self.outcome_within(command, STEP_LIMIT)
    }

    fn outcome_within(&self, command: &mut Command, limit: Duration) -> anyhow::Result<Outcome> {
        match child::run(self.name, command, &self.log, limit) {
            Ok(status) => self.counted.outcome(status.success(), &self.log),
            Err(_) if child::is_interrupted() => bail!("interrupted"),
            // Not started, or ended at its limit: a failure of this step, and the next one still runs.
            Err(error) => Ok(Outcome::broken(&format!("{error:#}"), &self.log)),
        }
    }
}

fn lint() -> Command {
    let mut cargo = workspace::cargo();
    cargo.args(["clippy", "--locked", "--workspace", "--all-targets"]);
    cargo.args(["--features", "fleetctl/pkcs11,sealift-agent/pkcs11", "--", "--deny", "warnings"]);
    cargo
}
