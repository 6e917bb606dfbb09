//! How well drift is told from noise, beside what others use, on made streams whose points of drift are known.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use sealift_tests::process::programs;
use serde::{Deserialize, Serialize};

use crate::fetch::{self, Obtained};
use crate::workspace;

/// Seeds below this were used while thresholds were chosen; figures on them prove nothing.
const FIRST_FRESH_SEED: u32 = 1_000;

/// What is asked of `cargo xtask bench drift`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON alone.
    #[arg(long)]
    json: bool,
    /// The first seed. Those below 1,000 were tuned on.
    #[arg(long, default_value_t = FIRST_FRESH_SEED)]
    first_seed: u32,
    /// How many seeds; each makes some fifty streams.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    seeds: u32,
    /// Windows of each stream in which nothing drifts.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    windows: u32,
}

/// What one detector did.
#[derive(Debug, Serialize, Deserialize)]
struct Score {
    quiet_windows: u64,
    false_alarms_per_1000: f64,
    drifts: u64,
    missed: u64,
    mean_delay_windows: Option<f64>,
    missed_streams: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let python = match fetch::drift_venv()? {
        Obtained::Ready(python) => python,
        Obtained::Missing(why) => bail!("the streams are made with NumPy: {why}"),
    };
    let output = Command::new(python)
        .arg(workspace::root().join("tests/drift/bench.py"))
        .arg(programs()?.join("fleetctl"))
        .args([arguments.first_seed, arguments.seeds, arguments.windows].map(|n| n.to_string()))
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot start Python")?;
    ensure!(output.status.success(), "the measurement ended with {}", output.status);
    let scores: BTreeMap<String, Score> = serde_json::from_slice(&output.stdout)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&scores)?);
    } else {
        print(arguments, &scores);
    }
    Ok(())
}

fn print(arguments: &Arguments, scores: &BTreeMap<String, Score>) {
    let last = arguments.first_seed + arguments.seeds - 1;
    println!("seeds {} to {last}", arguments.first_seed);
    println!("{:24} {:>14} {:>12} {:>8}", "detector", "false / 1,000", "missed", "delay");
    for (name, score) in scores {
        let missed = format!("{} of {}", score.missed, score.drifts);
        let delay = score.mean_delay_windows.map_or_else(|| "-".to_owned(), |d| d.to_string());
        println!("{name:24} {:>14} {missed:>12} {delay:>8}", score.false_alarms_per_1000);
    }
    if let Some(ours) = scores.get("Sealift").filter(|ours| !ours.missed_streams.is_empty()) {
        println!("missed by Sealift: {}", ours.missed_streams.join(", "));
    }
}
