//! Measurements of pure parts: benches of the crates that have them, built with optimisation for what is measured alone.

use anyhow::{Context as _, ensure};

use crate::workspace;

/// What is measured; everything else is taken as development has built it.
const OPTIMISED: [&str; 2] = ["sealift-protocol", "sealift-fleet-server"];

/// In one piece and without checks for development, as it is for a device: otherwise small functions are called, not put in their place.
const AS_RELEASED: [&str; 4] =
    ["opt-level=3", "codegen-units=1", "debug-assertions=false", "overflow-checks=false"];

/// Runs one bench of a crate.
pub(super) fn run(package: &str, bench: &str) -> anyhow::Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["bench", "--profile", "dev", "-p", package, "--bench", bench]);
    for package in OPTIMISED {
        for setting in AS_RELEASED {
            cargo.arg("--config").arg(format!("profile.dev.package.{package}.{setting}"));
        }
    }
    let status = cargo.status().context("cannot start cargo")?;
    ensure!(status.success(), "the measurement ended with {status}");
    Ok(())
}
