//! The programs of the workspace: `fleet-server`, `fleet-agent`, `fleetctl`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use crate::{child, workspace};

/// A cold build for distribution on two slow cores.
const BUILD_LIMIT: Duration = Duration::from_mins(45);

const PACKAGES: [&str; 3] = ["sealift-fleet-server", "sealift-agent", "fleetctl"];
/// What goes to devices, and its program.
const ON_DEVICES: (&str, &str) = ("sealift-agent", "fleet-agent");

/// Builds the programs for development, unless `SEALIFT_BIN_DIR` says where they are already.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    if let Some(directory) = std::env::var_os("SEALIFT_BIN_DIR") {
        return Ok(PathBuf::from(directory));
    }
    let target = workspace::target()?;
    build_as("dev", &PACKAGES)?;
    Ok(target.join("debug"))
}

/// Builds the programs for distribution: stripped, without debug assertions; small for devices, fast for servers.
pub(crate) fn build_for_distribution() -> anyhow::Result<PathBuf> {
    let (package, program) = ON_DEVICES;
    let of_servers = PACKAGES.into_iter().filter(|&name| name != package);
    build_as("dist", &of_servers.collect::<Vec<_>>())?;
    build_as("edge", &[package])?;
    let (target, directory) = (workspace::target()?, workspace::target()?.join("dist"));
    fs::copy(target.join("edge").join(program), directory.join(program))
        .with_context(|| format!("cannot put {program} to the others"))?;
    Ok(directory)
}

/// Builds the operators' program alone, for distribution.
pub(crate) fn build_fleetctl() -> anyhow::Result<PathBuf> {
    const PACKAGE: &str = "fleetctl";
    if let Some(directory) = std::env::var_os("SEALIFT_BIN_DIR") {
        return Ok(PathBuf::from(directory).join(PACKAGE));
    }
    build_as("dist", &[PACKAGE])?;
    Ok(workspace::target()?.join("dist").join(PACKAGE))
}

fn build_as(profile: &str, packages: &[&str]) -> anyhow::Result<()> {
    let target = workspace::target()?;
    let mut command = workspace::cargo();
    command.args(["build", "--locked", "--bins", "--profile", profile]);
    for package in packages {
        command.args(["--package", package]);
    }
    let log = target.join(format!("build-{profile}.log"));
    let title = format!("building the programs ({profile})");
    child::succeed(&title, &mut command, &log, BUILD_LIMIT)
}
