//! How applications on a device reach its models: the clients that they really use, and the examples of `docs/inference.md`.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use sealift_protocol::local::{CallError, Client, Question};
use sealift_protocol::tensor::Tensor;
use sealift_tests::digits::{MODEL, Rows, directory};
use sealift_tests::fleet::{Device, DeviceOptions, Options, Server};
use sealift_tests::needs::{onnxruntime, variable};
use sealift_tests::process::root;
use sealift_tests::story::{TIMING, answers_with, roll_out};
use serde_json::{Value, json};

const ROWS: usize = 8;

#[tokio::test]
#[ignore = "needs ONNX Runtime and clients of inference"]
async fn real_clients_of_every_protocol_get_the_same_answers() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (_server, device) = serving(folder.path()).await?;
    let batch = Rows::held_out()?.batch(0, ROWS);
    let (answer, _) = device.caller().infer(&batch).await?;
    let expected = output(&answer, "label")?;

    let rows = rows(&batch.request())?;
    let file = folder.path().join("rows.json");
    fs::write(&file, json!(rows).to_string())?;
    let mut python = Command::new(variable("SEALIFT_SERVING_PYTHON")?);
    python.arg(root().join("tests/interop/serving.py"));
    python.args([&device.endpoint()?, MODEL]).arg(&file);
    let told = succeed(&mut python)?;
    ensure!(serde_json::from_str::<Value>(&told)? == expected, "{told} is not {expected}");

    let pixels: Vec<f32> = rows.into_iter().flatten().collect();
    let labels = by_socket(&device, &pixels)?;
    ensure!(json!(labels) == expected, "{labels:?} is not {expected}");
    Ok(())
}

/// What the page shows is run as it stands there, with the address of this device in place of the page's.
#[tokio::test]
#[ignore = "needs ONNX Runtime and clients of inference"]
async fn the_examples_of_the_page_work() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (_server, device) = serving(folder.path()).await?;
    let address = device.endpoint()?.replace("http://", "");
    let socket = said(&device, "socket")?;
    let page = fs::read_to_string(root().join("docs/inference.md"))?;
    let page = page.replace("127.0.0.1:8080", &address);
    let page = page.replace("/var/lib/sealift/run/infer.sock", &socket);
    let python = variable("SEALIFT_SERVING_PYTHON")?;
    let (mut shells, mut pythons) = (0, 0);
    for (language, code) in examples(&page) {
        let mut command = match language {
            "sh" => {
                shells += 1;
                Command::new("bash")
            }
            "python" => {
                pythons += 1;
                Command::new(&python)
            }
            _ => continue, // answers and configuration
        };
        let options: &[&str] = if language == "sh" { &["-euo", "pipefail", "-c"] } else { &["-c"] };
        let told = succeed(command.args(options).arg(code).current_dir(folder.path()));
        let told = told.with_context(|| format!("the example\n{code}"))?;
        ensure!(!told.contains("\"error\"") && !told.contains("error_code"), "{code}\n{told}");
    }
    ensure!(shells >= 5 && pythons >= 3, "{shells} of the shell, {pythons} of Python");
    Ok(())
}

async fn serving(folder: &Path) -> anyhow::Result<(Server, Device)> {
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(folder, &options).await?;
    let options = DeviceOptions {
        labels: Vec::new(),
        onnxruntime: Some(onnxruntime()?),
        extra: String::new(),
    };
    let device = Device::start(&server, folder, "cam-1", &options).await?;
    server.publish(&directory("v1"), "1")?;
    roll_out(&server, "1").await?;
    answers_with(&device, "1").await?;
    Ok((server, device))
}

fn by_socket(device: &Device, pixels: &[f32]) -> anyhow::Result<Vec<i64>> {
    let mut client = Client::new(UnixStream::connect(said(device, "socket")?)?);
    let rows = pixels.len() as u64 / 64;
    let question = Question {
        model: MODEL.to_owned(),
        version: String::new(),
        timeout_ms: 10_000,
        inputs: vec![Tensor::fp32("pixels", &[rows, 64], pixels)?],
    };
    let letters = Question { model: "letters".to_owned(), ..question.clone() };
    let refused = client.ask(&letters);
    ensure!(matches!(refused, Err(CallError::Refused { status: 404, .. })), "{refused:?}");
    let (version, outputs) = client.ask(&question)?;
    ensure!(version == "1", "version {version} has answered");
    let label = outputs.iter().find(|tensor| tensor.name == "label").context("no label")?;
    Ok(label.bytes.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
}

/// What an agent says of its endpoint.
fn said(device: &Device, key: &str) -> anyhow::Result<String> {
    let said: Value = serde_json::from_slice(&fs::read(device.store.join("run/endpoint.json"))?)?;
    Ok(said[key].as_str().with_context(|| format!("no {key} in {said}"))?.to_owned())
}

fn output(answer: &Value, name: &str) -> anyhow::Result<Value> {
    let outputs = answer["outputs"].as_array().context("no outputs")?;
    let output = outputs.iter().find(|output| output["name"] == name).context("no such output")?;
    Ok(output["data"].clone())
}

fn rows(request: &Value) -> anyhow::Result<Vec<Vec<f32>>> {
    let data: Vec<f32> = serde_json::from_value(request["inputs"][0]["data"].clone())?;
    Ok(data.chunks(64).map(<[f32]>::to_vec).collect())
}

fn succeed(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (told, errors) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.success(), "{}:\n{told}\n{errors}", output.status);
    Ok(told)
}

/// Blocks of code, with their language.
fn examples(page: &str) -> Vec<(&str, &str)> {
    let mut parts = page.split("\n```");
    let mut found = Vec::new();
    // Before, block, between, block, …
    while let (Some(_), Some(block)) = (parts.next(), parts.next()) {
        found.extend(block.split_once('\n'));
    }
    found
}

#[test]
fn blocks_of_code_are_found_with_their_language() {
    let page = "text\n```sh\necho one\n```\nmore\n```python\nprint(2)\n```\nend\n";
    assert_eq!(examples(page), [("sh", "echo one"), ("python", "print(2)")]);
}
