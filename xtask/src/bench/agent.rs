//! The agent at rest: enrolled, connected to a server, no model yet.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use sealift_tests::fleet::{Device, DeviceOptions, Options, Server};
use sealift_tests::process::{Process, programs};
use serde::Serialize;
use serde_json::Value;

use super::machine::{Machine, median, pss_mb, round};
use crate::dist::megabytes;
use crate::fetch::{self, Obtained};

/// Longer than any start that is worth a measurement.
const READY_LIMIT: Duration = Duration::from_mins(1);
/// How exactly a start is timed.
const LOOK_INTERVAL: Duration = Duration::from_micros(500);
/// After this an agent has connected, reported and come to rest.
const SETTLE: Duration = Duration::from_secs(3);

/// What everybody has beside whom the agent is measured.
const PYTHON: &str = "import onnxruntime, sys; print('ready', flush=True); sys.stdin.read()";

/// What is asked of `cargo xtask bench agent`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON alone.
    #[arg(long)]
    json: bool,
    /// Starts of each program; the medians count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
}

/// Medians of all runs. Python's are missing where it cannot be had.
#[derive(Debug, Serialize)]
struct Findings {
    pss_idle_mb: f64,
    ready_us: f64,
    binary_mb: f64,
    python_pss_mb: Option<f64>,
    python_start_us: Option<f64>,
    /// How many times less memory the agent takes, and how many times sooner it is ready.
    pss_ratio: Option<f64>,
    start_ratio: Option<f64>,
    runs: u32,
    ready_us_all: Vec<f64>,
    pss_idle_mb_all: Vec<f64>,
    machine: Machine,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let directory = tempfile::Builder::new().prefix("sealift-bench-").tempdir()?;
    let onnxruntime = fetch::onnxruntime()?;
    let (server, mut device) = runtime.block_on(fleet(directory.path(), onnxruntime))?;
    let python = match fetch::venv()? {
        Obtained::Ready(python) => Some(python),
        Obtained::Missing(why) => {
            eprintln!("without a comparison: {why}");
            None
        }
    };
    let (mut of_agent, mut of_python) = (Samples::default(), Samples::default());
    // In turn, so that whatever else the machine does falls on both.
    for _ in 0..arguments.runs {
        of_agent.add(measure_agent(&mut device)?);
        if let Some(python) = &python {
            of_python.add(measure_python(python)?);
        }
    }
    drop(server);
    let findings = findings(arguments.runs, &of_agent, &of_python)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        print(&findings);
    }
    Ok(())
}

async fn fleet(
    directory: &Path,
    onnxruntime: std::path::PathBuf,
) -> anyhow::Result<(Server, Device)> {
    let server = Server::start(directory, &Options::default()).await?;
    let options =
        DeviceOptions { labels: Vec::new(), onnxruntime: Some(onnxruntime), extra: String::new() };
    let device = Device::start(&server, directory, "bench", &options).await?;
    Ok((server, device))
}

/// One start of a program: milliseconds until it was ready, and its memory at rest.
#[derive(Clone, Copy)]
struct Sample {
    start_us: f64,
    pss_mb: f64,
}

#[derive(Default)]
struct Samples {
    start_us: Vec<f64>,
    pss_mb: Vec<f64>,
}

impl Samples {
    fn add(&mut self, sample: Sample) {
        self.start_us.push(round(sample.start_us));
        self.pss_mb.push(round(sample.pss_mb));
    }
}

fn measure_agent(device: &mut Device) -> anyhow::Result<Sample> {
    device.process.stop()?;
    let endpoint = device.store.join("run/endpoint.json");
    if endpoint.exists() {
        fs::remove_file(&endpoint)?;
    }
    let began = Instant::now();
    device.process.restart()?;
    while !says_ready(&endpoint, &device.process) {
        device.process.check()?;
        ensure!(began.elapsed() < READY_LIMIT, "the agent is not ready after {READY_LIMIT:?}");
        sleep(LOOK_INTERVAL);
    }
    let start_us = began.elapsed().as_secs_f64() * 1e6;
    sleep(SETTLE);
    device.process.check()?;
    Ok(Sample { start_us, pss_mb: pss_mb(device.process.id())? })
}

fn says_ready(endpoint: &Path, process: &Process) -> bool {
    let Ok(bytes) = fs::read(endpoint) else { return false };
    let Ok(said) = serde_json::from_slice::<Value>(&bytes) else { return false };
    said["pid"] == process.id()
}

fn measure_python(python: &Path) -> anyhow::Result<Sample> {
    let began = Instant::now();
    let mut child = Command::new(python)
        .args(["-c", PYTHON])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start Python")?;
    let printed = child.stdout.take().context("its output is piped")?;
    let mut line = String::new();
    BufReader::new(printed).read_line(&mut line)?;
    let start_us = began.elapsed().as_secs_f64() * 1e6;
    if line.trim() != "ready" {
        bail!("Python cannot load ONNX Runtime: {}", child.wait()?);
    }
    sleep(SETTLE);
    let pss_mb = pss_mb(child.id());
    // The end of its input ends it.
    drop(child.stdin.take());
    child.wait()?;
    Ok(Sample { start_us, pss_mb: pss_mb? })
}

fn findings(runs: u32, of_agent: &Samples, of_python: &Samples) -> anyhow::Result<Findings> {
    let pss_idle_mb = median(&of_agent.pss_mb);
    let ready_us = median(&of_agent.start_us);
    let of_python = (!of_python.pss_mb.is_empty())
        .then(|| (median(&of_python.pss_mb), median(&of_python.start_us)));
    Ok(Findings {
        pss_idle_mb,
        ready_us,
        binary_mb: round(megabytes(&programs()?.join("fleet-agent"))?),
        python_pss_mb: of_python.map(|(pss, _)| pss),
        python_start_us: of_python.map(|(_, start)| start),
        pss_ratio: of_python.map(|(pss, _)| round(pss / pss_idle_mb)),
        start_ratio: of_python.map(|(_, start)| round(start / ready_us)),
        runs,
        ready_us_all: of_agent.start_us.clone(),
        pss_idle_mb_all: of_agent.pss_mb.clone(),
        machine: Machine::read()?,
    })
}

fn print(found: &Findings) {
    println!("medians of {} runs on {}", found.runs, found.machine);
    println!("agent at rest, no model:  {:>8} MiB PSS", found.pss_idle_mb);
    println!("agent ready after start:  {:>8} ms", round(found.ready_us / 1e3));
    println!("agent's program:          {:>8} MB", found.binary_mb);
    if let (Some(pss), Some(start)) = (found.python_pss_mb, found.python_start_us) {
        println!("Python + onnxruntime:     {pss:>8} MiB PSS, {} ms", round(start / 1e3));
    }
    if let (Some(pss), Some(start)) = (found.pss_ratio, found.start_ratio) {
        println!("the agent takes {pss} times less memory and is ready {start} times sooner");
    }
}
