//! `cargo xtask bench`: what the agent needs, measured on this machine beside something that everybody knows.

mod agent;
mod drift;
mod fleet;
mod machine;

use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::programs;

/// What is asked of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, clap::Subcommand)]
enum Subject {
    /// Memory, start time and size of the idle agent, beside a Python interpreter that has loaded ONNX Runtime.
    Agent(agent::Arguments),
    /// False alarms, delays and misses of drift verdicts, beside those of others.
    Drift(drift::Arguments),
    /// Connections, memory, rollout, rollback and reconnection of many simulated devices on one server.
    Fleet(fleet::Arguments),
}

/// Measures what is asked.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if std::env::var_os("SEALIFT_BIN_DIR").is_none() {
        return again_with_distributed_programs();
    }
    match &arguments.subject {
        Subject::Agent(arguments) => agent::run(arguments),
        Subject::Drift(arguments) => drift::run(arguments),
        Subject::Fleet(arguments) => fleet::run(arguments),
    }
}

/// Runs this very command with `SEALIFT_BIN_DIR` set, by which the harness finds the programs.
fn again_with_distributed_programs() -> anyhow::Result<()> {
    let programs = programs::build_for_distribution()?;
    let mut same = Command::new(std::env::current_exe()?);
    same.args(std::env::args_os().skip(1)).env("SEALIFT_BIN_DIR", programs);
    let status = same.status().context("cannot start the measurement")?;
    ensure!(status.success(), "the measurement ended with {status}");
    Ok(())
}
