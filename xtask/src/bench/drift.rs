//! How well drift is told from noise, beside what others use, on made streams whose points of drift are known.

mod table;

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use self::table::Outcome;
use crate::fetch::{self, Obtained};
use crate::{programs, workspace};

/// Seeds below this were used while thresholds were chosen; figures on them prove nothing.
const FIRST_FRESH_SEED: u32 = 1_000;

/// What is asked of `cargo xtask bench drift`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON alone: a line for each stream and detector.
    #[arg(long)]
    json: bool,
    /// The first seed. Those below 1,000 were tuned on.
    #[arg(long, default_value_t = FIRST_FRESH_SEED)]
    first_seed: u32,
    /// How many seeds; each makes some 290 streams. Evidently sees the first one alone, and of each stream 20 windows.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    seeds: u32,
    /// Which streams: `streams`, `wider`, `field` and `further`, separated by commas.
    #[arg(long, default_value = "streams,wider,field,further")]
    lists: String,
    /// Words of which a detector's name has one, such as `Sealift,PSI`; all detectors if not given.
    #[arg(long, default_value = "")]
    detectors: String,
    /// Windows of each stream in which nothing drifts.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    windows: u32,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let python = match fetch::drift_venv()? {
        Obtained::Ready(python) => python,
        Obtained::Missing(why) => bail!("the streams are made with NumPy: {why}"),
    };
    let output = Command::new(python)
        .arg(workspace::root().join("tests/drift/bench.py"))
        .arg(programs::build_fleetctl()?)
        .args([arguments.first_seed, arguments.seeds, arguments.windows].map(|n| n.to_string()))
        .args([&arguments.lists, &arguments.detectors])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start Python")?;
    ensure!(output.status.success(), "the measurement ended with {}", output.status);
    if arguments.json {
        println!("{}", String::from_utf8(output.stdout)?);
        return Ok(());
    }
    let outcomes: Vec<Outcome> = serde_json::from_slice(&output.stdout)?;
    let last = arguments.first_seed + arguments.seeds - 1;
    println!("seeds {} to {last}\n", arguments.first_seed);
    print!("{}", table::of(&outcomes));
    Ok(())
}
