//! Measurements of the server's pure parts: benches of its crate, built with optimisation for what is measured alone.

use anyhow::{Context as _, ensure};

use crate::workspace;

/// What is measured; everything else is taken as development has built it.
const OPTIMISED: [&str; 2] = ["sealift-protocol", "sealift-fleet-server"];

/// Runs one bench.
pub(super) fn run(bench: &str) -> anyhow::Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["bench", "--profile", "dev", "-p", "sealift-fleet-server", "--bench", bench]);
    for package in OPTIMISED {
        cargo.arg("--config").arg(format!("profile.dev.package.{package}.opt-level=3"));
    }
    let status = cargo.status().context("cannot start cargo")?;
    ensure!(status.success(), "the measurement ended with {status}");
    Ok(())
}
