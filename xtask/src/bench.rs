//! `cargo xtask bench`: what the agent needs, measured on this machine beside something that everybody knows; and what the server's
//! pure parts do and take.

mod agent;
mod drift;
mod fleet;
mod load;
mod machine;
mod observe;
mod pure;
mod serve;
mod swap;

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
    /// How often common causes of devices' troubles are found, and how often invented.
    Blame,
    /// False alarms, delays and misses of drift verdicts, beside those of others.
    Drift(drift::Arguments),
    /// Connections, memory, rollout, rollback and reconnection of many simulated devices on one server.
    Fleet(fleet::Arguments),
    /// Requests under load while the model is changed again and again: failed, stale, late.
    Swap(swap::Arguments),
    /// How often gates halt a harmless rollout and how soon a harmful one, over 1,000 simulated rollouts of each kind.
    Gates,
    /// How long it takes to plan 100,000 and 1,000,000 devices.
    Plan,
    /// What counting a value costs a device, how large a window of profiles is, and how many requests a second it costs.
    Profile(observe::Arguments),
    /// Requests a second, latency, processor time and memory of a model under load, by every way to the agent and beside others.
    Serve(serve::Arguments),
}

/// Measures what is asked.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.subject {
        Subject::Agent(_)
        | Subject::Fleet(_)
        | Subject::Profile(_)
        | Subject::Serve(_)
        | Subject::Swap(_)
            if std::env::var_os("SEALIFT_BIN_DIR").is_none() =>
        {
            again_with_distributed_programs()
        }
        Subject::Agent(arguments) => agent::run(arguments),
        Subject::Drift(arguments) => drift::run(arguments),
        Subject::Fleet(arguments) => fleet::run(arguments),
        Subject::Swap(arguments) => swap::run(arguments),
        Subject::Blame => pure::run("sealift-fleet-server", "blame"),
        Subject::Gates => pure::run("sealift-fleet-server", "gates"),
        Subject::Plan => pure::run("sealift-fleet-server", "plan"),
        Subject::Profile(arguments) => {
            pure::run("sealift-protocol", "profile")?;
            observe::run(arguments)
        }
        Subject::Serve(arguments) => serve::run(arguments),
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
