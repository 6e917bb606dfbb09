//! Measurements of pure parts: benches of the crates that have them, built with optimisation for what is measured alone.

use anyhow::{Context as _, ensure};

use crate::workspace;

/// What is measured; everything else is taken as development has built it.
const OPTIMISED: [&str; 2] = ["sealift-protocol", "sealift-fleet-server"];

/// Runs one bench of a crate.
pub(super) fn run(package: &str, bench: &str) -> anyhow::Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["bench", "--profile", "dev", "-p", package, "--bench", bench]);
    for package in OPTIMISED {
        cargo.arg("--config").arg(format!("profile.dev.package.{package}.opt-level=3"));
    }
    let status = cargo.status().context("cannot start cargo")?;
    ensure!(status.success(), "the measurement ended with {status}");
    Ok(())
}
