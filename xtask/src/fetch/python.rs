//! Python as it is on this machine, and an environment of our own made with it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sealift_protocol::digest::Digest;

use super::Obtained;
use crate::{child, install, workspace};

/// Some 200 MB of wheels on a slow line.
const INSTALL_LIMIT: Duration = Duration::from_mins(20);

/// What is pinned: for the scripts that train and check the model fixtures, those that compare our TUF with another's, and the clients
/// that try the registry.
const REQUIREMENTS: [&str; 3] = [
    "tests/fixtures/digits/requirements.txt",
    "tests/fixtures/tuf/requirements.txt",
    "tests/interop/requirements.txt",
];

/// The clients that try the agent's endpoints and the object store that servers share, in an environment of their own.
const CLIENTS: [&str; 2] = ["tests/interop/serving.txt", "tests/interop/s3.txt"];

/// What alerts are sent to in tests, in an environment of its own.
const RECEIVERS: [&str; 1] = ["tests/notify/requirements.txt"];

/// What the agent is measured beside.
const PEERS: [&str; 1] = ["tests/bench/requirements.txt"];

/// What drift verdicts are compared with.
const DRIFT_REQUIREMENTS: [&str; 1] = ["tests/drift/requirements.txt"];

/// Says what is missing, if Python or pip is.
pub(super) fn missing() -> Option<String> {
    if install::find("python3").is_none() {
        return Some("`python3` is not installed (3.11 or newer is needed)".to_owned());
    }
    let without = |_| "Python has no pip (Debian: python3-pip, python3-venv)".to_owned();
    child::output(pip().arg("--version")).err().map(without)
}

pub(super) fn pip() -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "--disable-pip-version-check"]);
    command
}

/// Runs pip. That a registry is out of reach only means that something is missing; wrong bytes are an error.
pub(super) fn attempt(
    title: &str,
    pip: &mut Command,
    log: &Path,
    limit: Duration,
) -> anyhow::Result<Option<String>> {
    if child::run(title, pip, log, limit)?.success() {
        return Ok(None);
    }
    let printed = fs::read_to_string(log)?;
    anyhow::ensure!(!printed.contains("DO NOT MATCH THE HASHES"), "{title}: {printed}");
    let reason = printed.lines().rfind(|line| line.starts_with("ERROR"));
    let reason = reason.unwrap_or("pip did not succeed");
    Ok(Some(format!("{title}: {reason} (see {})", log.display())))
}

/// Returns the interpreter of an environment with [`REQUIREMENTS`].
pub(super) fn obtain_venv(target: &Path) -> anyhow::Result<Obtained> {
    environment(target, &REQUIREMENTS)
}

/// Returns the interpreter of an environment with [`CLIENTS`].
pub(super) fn obtain_clients(target: &Path) -> anyhow::Result<Obtained> {
    environment(target, &CLIENTS)
}

/// Returns the interpreter of an environment with [`RECEIVERS`].
pub(super) fn obtain_receivers(target: &Path) -> anyhow::Result<Obtained> {
    environment(target, &RECEIVERS)
}

/// Returns the interpreter of an environment with [`PEERS`].
pub(super) fn obtain_peers(target: &Path) -> anyhow::Result<Obtained> {
    environment(target, &PEERS)
}

/// Returns the interpreter of an environment with [`DRIFT_REQUIREMENTS`].
pub(super) fn obtain_drift_venv(target: &Path) -> anyhow::Result<Obtained> {
    environment(target, &DRIFT_REQUIREMENTS)
}

/// An environment is made once for each content of its files.
fn environment(target: &Path, files: &[&str]) -> anyhow::Result<Obtained> {
    if let Some(why) = missing() {
        return Ok(Obtained::Missing(why));
    }
    let requirements: Vec<_> = files.iter().map(|file| workspace::root().join(file)).collect();
    let mut made_from = child::output(Command::new("python3").arg("--version"))?.into_bytes();
    for file in &requirements {
        made_from.extend(fs::read(file)?);
    }
    let made_from = Digest::of(&made_from);
    let directory = target.join("venv").join(made_from.short());
    let interpreter = directory.join("bin/python");
    let complete = directory.join("complete");
    if complete.is_file() {
        return Ok(Obtained::Ready(interpreter));
    }
    let log = target.join("venv/log.txt");
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(&directory);
    if !child::run("making a Python environment", &mut make, &log, INSTALL_LIMIT)?.success() {
        let why = "Python cannot make environments (Debian: python3-venv)";
        return Ok(Obtained::Missing(why.to_owned()));
    }
    let mut pip = Command::new(&interpreter);
    pip.args(["-m", "pip", "--disable-pip-version-check", "install", "--require-hashes"]);
    pip.args(["--only-binary=:all:", "--no-input"]);
    for file in &requirements {
        pip.arg("--requirement").arg(file);
    }
    if let Some(why) = attempt("installing Python packages", &mut pip, &log, INSTALL_LIMIT)? {
        return Ok(Obtained::Missing(why));
    }
    fs::write(complete, "")?;
    Ok(Obtained::Ready(interpreter))
}
