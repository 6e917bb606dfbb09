//! What observing costs the requests of a device: the same model with a baseline and without one, on one agent, by turns.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use sealift_protocol::api::RolloutState;
use sealift_tests::digits::{MODEL, directory};
use sealift_tests::fleet::{Device, Server};
use sealift_tests::process::write;
use sealift_tests::story;
use serde::Serialize;

use super::load::{self, Target};
use super::machine::{Machine, cpu_us, round};
use super::serve;
use crate::fetch;

/// The same weights without a reference, so that nothing is observed but how many there were and how long they took.
const PLAIN: &str = "vision/plain";

/// The model by turns, so that what else the machine does meanwhile hits both alike.
const ROUNDS: usize = 10;
const ROUND: Duration = Duration::from_secs(2);

/// Connections that ask at once.
const CONNECTIONS: usize = 4;

/// What is asked of `cargo xtask bench profile`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON alone.
    #[arg(long)]
    json: bool,
}

/// Medians of all rounds, over the Unix socket, which costs the least beside.
#[derive(Debug, Serialize)]
struct Findings {
    observed_per_s: f64,
    plain_per_s: f64,
    observed_cpu_us: f64,
    plain_cpu_us: f64,
    /// How many fewer requests a second there are with a baseline, in per cent.
    fewer_percent: f64,
    machine: Machine,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let folder = tempfile::Builder::new().prefix("sealift-bench-").tempdir()?;
    let (server, device) = runtime.block_on(serve::fleet(folder.path(), fetch::onnxruntime()?))?;
    runtime.block_on(roll_out_plain(&server, folder.path()))?;
    let row = serve::row()?;
    let targets = [serve::socket(&device, MODEL, &row)?, serve::socket(&device, PLAIN, &row)?];
    let mut rounds = [Vec::new(), Vec::new()];
    for target in &targets {
        load::run(target, CONNECTIONS, ROUND)?;
    }
    for _ in 0..ROUNDS {
        for (target, rounds) in targets.iter().zip(&mut rounds) {
            rounds.push(measure(target, &device)?);
        }
    }
    let [observed, plain] = rounds;
    let (observed_per_s, observed_cpu_us) = medians(observed);
    let (plain_per_s, plain_cpu_us) = medians(plain);
    let fewer_percent = round(100.0 * (1.0 - observed_per_s / plain_per_s));
    let machine = Machine::read()?;
    let found = Findings {
        observed_per_s,
        plain_per_s,
        observed_cpu_us,
        plain_cpu_us,
        fewer_percent,
        machine,
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&found)?);
    } else {
        print(&found);
    }
    Ok(())
}

/// Has the device serve the model without a reference as well.
async fn roll_out_plain(server: &Server, folder: &Path) -> anyhow::Result<()> {
    let model = plain(folder)?;
    let key = server.offline_key("publisher-vision-1").display().to_string();
    let version = format!("{PLAIN}@1");
    server.ctl(&["model", "push", &model.display().to_string()])?;
    server.ctl(&["model", "sign", &version, "--key", &key])?;
    let create = ["rollout", "create", &version, "--reason", "bench"];
    let trial = ["--probation-s", "1", "--watch-s", "600"];
    let created = server.ctl_json(&[&create[..], &trial].concat())?;
    let id = serde_json::from_value(created["id"].clone())?;
    story::ended(&server.api()?, id, RolloutState::Succeeded).await?;
    Ok(())
}

fn plain(folder: &Path) -> anyhow::Result<PathBuf> {
    let copy = folder.join("plain");
    fs::create_dir_all(&copy)?;
    for entry in fs::read_dir(directory("v1"))? {
        let entry = entry?;
        fs::copy(entry.path(), copy.join(entry.file_name()))?;
    }
    let file = copy.join("model.toml");
    let text = fs::read_to_string(&file)?;
    let kept = text.lines().filter(|line| !line.starts_with("reference"));
    let kept: Vec<_> = kept.map(|line| line.replace(MODEL, PLAIN)).collect();
    ensure!(kept.len() + 1 == text.lines().count(), "{} has no reference", file.display());
    write(&file, &kept.join("\n"))?;
    Ok(copy)
}

/// Requests a second, and processor time of each, in microseconds.
fn measure(target: &Target, device: &Device) -> anyhow::Result<(f64, f64)> {
    let before = cpu_us(device.process.id())?;
    let load = load::run(target, CONNECTIONS, ROUND)?;
    Ok((load.per_second(), (cpu_us(device.process.id())? - before) / load.count()))
}

fn medians(rounds: Vec<(f64, f64)>) -> (f64, f64) {
    let (per_s, cpu_us): (Vec<_>, Vec<_>) = rounds.into_iter().unzip();
    (round(median(per_s)), round(median(cpu_us)))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn print(found: &Findings) {
    println!("the digits model, {CONNECTIONS} connections on the Unix socket, {}", found.machine);
    println!(
        "observed {:>9} requests/s, {:>6} µs of processor time each",
        found.observed_per_s, found.observed_cpu_us
    );
    println!(
        "plain    {:>9} requests/s, {:>6} µs of processor time each",
        found.plain_per_s, found.plain_cpu_us
    );
    println!("observing 64 inputs and the answer costs {} % of the requests", found.fewer_percent);
}
