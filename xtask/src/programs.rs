//! The programs of the workspace: `fleet-server`, `fleet-agent`, `fleetctl`.

use std::path::PathBuf;
use std::time::Duration;

use crate::{child, workspace};

/// A cold build for distribution on two slow cores.
const BUILD_LIMIT: Duration = Duration::from_mins(45);

const PACKAGES: [&str; 3] = ["sealift-fleet-server", "sealift-agent", "fleetctl"];

/// Builds the programs for development, unless `SEALIFT_BIN_DIR` says where they are already.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    if let Some(directory) = std::env::var_os("SEALIFT_BIN_DIR") {
        return Ok(PathBuf::from(directory));
    }
    build_as("dev", "debug")
}

/// Builds the programs for distribution: small, stripped, without debug assertions.
pub(crate) fn build_for_distribution() -> anyhow::Result<PathBuf> {
    build_as("dist", "dist")
}

fn build_as(profile: &str, directory: &str) -> anyhow::Result<PathBuf> {
    let target = workspace::target()?;
    let mut command = workspace::cargo();
    command.args(["build", "--locked", "--bins", "--profile", profile]);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    let log = target.join(format!("build-{profile}.log"));
    child::succeed("building the programs", &mut command, &log, BUILD_LIMIT)?;
    Ok(target.join(directory))
}
