//! The digits model under load: by every way to the agent, and by others that serve it.

mod peers;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use sealift_protocol::local::Question;
use sealift_protocol::tensor::Tensor;
use sealift_tests::digits::{MODEL, Rows, directory};
use sealift_tests::fleet::{Device, DeviceOptions, Options, Server};
use sealift_tests::process::root;
use sealift_tests::story::{TIMING, answers_with, roll_out};
use serde::Serialize;
use serde_json::Value;

use self::peers::Peer;
use super::load::{self, Target};
use super::machine::{Machine, cpu_us, pss_mb, round};
use crate::child;
use crate::fetch::{self, Obtained};

/// Before a measurement each way is asked for this long, so that nothing is done for the first time.
const WARM_UP: Duration = Duration::from_millis(500);

/// What is asked of `cargo xtask bench serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON alone.
    #[arg(long)]
    json: bool,
    /// Seconds of load for each way.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Connections that ask at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    connections: u8,
    /// Leave FastAPI and MLServer out.
    #[arg(long)]
    alone: bool,
}

/// One way under load.
#[derive(Debug, Serialize)]
struct Finding {
    way: String,
    requests_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    /// Processor time of the serving processes, for each request.
    cpu_us: f64,
    /// The same, without what the engine takes by itself.
    cpu_beyond_engine_us: f64,
    memory_mb: f64,
}

#[derive(Debug, Serialize)]
struct Findings {
    /// ONNX Runtime called in a loop, with nothing around it.
    engine_cpu_us: f64,
    ways: Vec<Finding>,
    missing: Vec<String>,
    connections: u8,
    machine: Machine,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let folder = tempfile::Builder::new().prefix("sealift-bench-").tempdir()?;
    let library = fetch::onnxruntime()?;
    let model = directory("v1").join("model.onnx");
    let engine_cpu_us = raw(&model)?;
    let mut found = Findings {
        engine_cpu_us: round(engine_cpu_us),
        ways: Vec::new(),
        missing: Vec::new(),
        connections: arguments.connections,
        machine: Machine::read()?,
    };
    let row = row()?;
    {
        let (_server, device) = runtime.block_on(fleet(folder.path(), library))?;
        for (way, target) in ways(&device, &row)? {
            let finding = measure(way, &target, device.process.id(), arguments, engine_cpu_us)?;
            found.ways.push(finding);
        }
    }
    if !arguments.alone {
        match fetch::peers()? {
            Obtained::Ready(python) => {
                found.ways.extend(others(
                    &Others { python, model, row },
                    folder.path(),
                    arguments,
                    engine_cpu_us,
                )?);
            }
            Obtained::Missing(why) => found.missing.push(why),
        }
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&found)?);
    } else {
        print(&found);
    }
    Ok(())
}

/// The device with version 1 live.
pub(super) async fn fleet(folder: &Path, library: PathBuf) -> anyhow::Result<(Server, Device)> {
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(folder, &options).await?;
    // A runtime's section comes after this; what is measured should not be interrupted by reports.
    let options =
        DeviceOptions { labels: Vec::new(), onnxruntime: Some(library), extra: String::new() };
    let device = Device::start(&server, folder, "bench", &options).await?;
    server.publish(&directory("v1"), "1")?;
    roll_out(&server, "1").await?;
    answers_with(&device, "1").await?;
    Ok((server, device))
}

/// Pixels of one digit.
pub(super) fn row() -> anyhow::Result<Vec<f32>> {
    let request = Rows::held_out()?.batch(0, 1).request();
    Ok(serde_json::from_value(request["inputs"][0]["data"].clone())?)
}

/// Every way to the agent, with the same row.
fn ways(device: &Device, row: &[f32]) -> anyhow::Result<Vec<(&'static str, Target)>> {
    let address = address(device)?;
    Ok(vec![
        (
            "Sealift, HTTP JSON",
            Target::Http(address, json_request(&format!("/v2/models/{MODEL}/infer"), row)),
        ),
        ("Sealift, HTTP binary", Target::Http(address, binary_request(row))),
        ("Sealift, gRPC", grpc(address, row)),
        ("Sealift, Unix socket", socket(device, MODEL, row)?),
    ])
}

fn address(device: &Device) -> anyhow::Result<SocketAddr> {
    Ok(device.endpoint()?.trim_start_matches("http://").parse()?)
}

/// The Unix socket, for a model that takes such rows.
pub(super) fn socket(device: &Device, model: &str, row: &[f32]) -> anyhow::Result<Target> {
    let inputs = vec![Tensor::fp32("pixels", &[1, 64], row)?];
    let (model, version) = (model.to_owned(), String::new());
    let frame = Question { model, version, timeout_ms: 0, inputs }.frame()?;
    let said: Value =
        serde_json::from_slice(&std::fs::read(device.store.join("run/endpoint.json"))?)?;
    let path = said["socket"].as_str().context("the agent has no socket")?;
    Ok(Target::Socket(PathBuf::from(path), frame))
}

fn json_request(path: &str, row: &[f32]) -> Vec<u8> {
    let body = serde_json::json!({ "inputs": [
        { "name": "pixels", "datatype": "FP32", "shape": [1, 64], "data": row }] });
    http(path, "Content-Type: application/json\r\n", body.to_string().as_bytes())
}

fn binary_request(row: &[f32]) -> Vec<u8> {
    let bytes: Vec<u8> = row.iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
    let head = serde_json::json!({
        "inputs": [{ "name": "pixels", "datatype": "FP32", "shape": [1, 64],
                     "parameters": { "binary_data_size": bytes.len() } }],
        "parameters": { "binary_data_output": true },
    })
    .to_string();
    let header = format!("Inference-Header-Content-Length: {}\r\n", head.len());
    http(&format!("/v2/models/{MODEL}/infer"), &header, &[head.as_bytes(), &bytes].concat())
}

fn http(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: bench\r\n{headers}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// `ModelInferRequest` by its field numbers, with raw contents.
fn grpc(address: SocketAddr, row: &[f32]) -> Target {
    let field = |number: u8, bytes: &[u8]| {
        // Two bytes hold any length here.
        let length = bytes.len();
        let low = u8::try_from(length & 0x7f).unwrap_or(0) | 0x80;
        let high = u8::try_from(length >> 7).unwrap_or(0);
        [&[number << 3 | 2, low, high], bytes].concat()
    };
    let bytes: Vec<u8> = row.iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
    let input = [field(1, b"pixels"), field(2, b"FP32"), field(3, &[1, 64])].concat();
    let message = [field(1, MODEL.as_bytes()), field(5, &input), field(7, &bytes)].concat();
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    let framed = [&[0], length.as_slice(), &message].concat();
    Target::Grpc(address, "/inference.GRPCInferenceService/ModelInfer".to_owned(), framed)
}

/// What others are started with.
struct Others {
    python: PathBuf,
    model: PathBuf,
    row: Vec<f32>,
}

fn others(
    others: &Others,
    folder: &Path,
    arguments: &Arguments,
    engine_cpu_us: f64,
) -> anyhow::Result<Vec<Finding>> {
    let Others { python, model, row } = others;
    let peer = Peer::fastapi(python, model, folder)?;
    let target = Target::Http(peer.address, json_request("/infer", row));
    let fastapi = measure("FastAPI, HTTP JSON", &target, peer.id(), arguments, engine_cpu_us)?;
    drop(peer);
    let peer = Peer::mlserver(python, model, folder)?;
    let target = Target::Http(peer.address, json_request("/v2/models/digits/infer", row));
    let mlserver = measure("MLServer, HTTP JSON", &target, peer.id(), arguments, engine_cpu_us)?;
    Ok(vec![fastapi, mlserver])
}

fn measure(
    way: &str,
    target: &Target,
    process: u32,
    arguments: &Arguments,
    engine_cpu_us: f64,
) -> anyhow::Result<Finding> {
    let connections = usize::from(arguments.connections);
    load::run(target, connections, WARM_UP).with_context(|| way.to_owned())?;
    let before = cpu_us(process)?;
    let load = load::run(target, connections, Duration::from_secs(arguments.seconds))
        .with_context(|| way.to_owned())?;
    let cpu_us = (cpu_us(process)? - before) / load.count();
    Ok(Finding {
        way: way.to_owned(),
        requests_per_s: round(load.per_second()),
        p50_us: round(load.quantile_us(50)),
        p99_us: round(load.quantile_us(99)),
        cpu_us: round(cpu_us),
        cpu_beyond_engine_us: round(cpu_us - engine_cpu_us),
        memory_mb: round(pss_mb(process)?),
    })
}

/// Processor time of one run of the model, called in a loop.
fn raw(model: &Path) -> anyhow::Result<f64> {
    let python = match fetch::venv()? {
        Obtained::Ready(python) => python,
        Obtained::Missing(why) => bail!("the engine alone cannot be measured: {why}"),
    };
    let mut raw = Command::new(python);
    let told = child::output(raw.arg(root().join("tests/bench/raw.py")).arg(model))?;
    told.trim().parse().with_context(|| format!("the bare loop has told `{told}`"))
}

fn print(found: &Findings) {
    println!("{} connections on {}", found.connections, found.machine);
    println!("ONNX Runtime alone: {} µs of processor time for each run", found.engine_cpu_us);
    println!(
        "{:<22} {:>10} {:>9} {:>9} {:>9} {:>11} {:>9}",
        "", "requests/s", "p50 µs", "p99 µs", "CPU µs", "less engine", "PSS MiB"
    );
    for way in &found.ways {
        println!(
            "{:<22} {:>10} {:>9} {:>9} {:>9} {:>11} {:>9}",
            way.way,
            way.requests_per_s,
            way.p50_us,
            way.p99_us,
            way.cpu_us,
            way.cpu_beyond_engine_us,
            way.memory_mb
        );
    }
    let of = |name: &str| found.ways.iter().find(|way| way.way.starts_with(name));
    if let Some(ours) = of("Sealift, HTTP JSON") {
        for peer in ["FastAPI", "MLServer"].into_iter().filter_map(of) {
            let (cpu, memory) = (peer.cpu_us / ours.cpu_us, peer.memory_mb / ours.memory_mb);
            let (cpu, memory) = (round(cpu), round(memory));
            println!("{} takes {cpu} times the processor and {memory} times the memory", peer.way);
        }
    }
    for why in &found.missing {
        println!("without a comparison: {why}");
    }
}
