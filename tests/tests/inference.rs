//! How applications on a device reach its models: the clients that they really use, and the examples of `docs/inference.md`.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sealift_protocol::local::{CallError, Client, Question};
use sealift_protocol::tensor::Tensor;
use sealift_tests::digits::{MODEL, Rows, directory};
use sealift_tests::fleet::{Device, DeviceOptions, Options, Server};
use sealift_tests::needs::{onnxruntime, variable};
use sealift_tests::pictures;
use sealift_tests::process::{root, run, write};
use sealift_tests::story::{TIMING, answers_with, roll_out};
use sealift_tests::wait::{Look, until};
use serde_json::{Value, json};

const ROWS: usize = 8;

/// Longer than a rollout to one device takes.
const SOON: Duration = Duration::from_mins(1);

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

/// Two builds of one version, both behind steps, of which one is too large for any device: pushed from a directory, signed, tested on the device with its golden pictures, asked with
/// a picture and then with a file of rows.
#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn a_model_of_pictures_in_two_variants_goes_from_a_directory_to_an_answer()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let too_large =
        "[[variant]]\nweights = \"model.onnx\"\nprecision = \"int8\"\nmin_memory_mb = 99999999\n";
    let directory = pictures::model(folder.path(), too_large)?;
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(folder.path(), &options).await?;
    let options = DeviceOptions {
        labels: Vec::new(),
        onnxruntime: Some(onnxruntime()?),
        extra: String::new(),
    };
    let device = Device::start(&server, folder.path(), "cam-1", &options).await?;
    server.publish(&directory, "1")?;
    roll_out(&server, "1").await?;

    let pixels = rows(&Rows::held_out()?.batch(0, 1).request())?.remove(0);
    let url = format!("{}/v2/models/{MODEL}/infer", device.endpoint()?);
    let asked = until("a picture is answered", SOON, || async {
        let request = reqwest::Client::new().post(&url).header("content-type", "image/png");
        let answer = request.body(pictures::of_digit(&pixels)?).send().await?.error_for_status()?;
        Ok(Look::Done(answer.json::<Value>().await?))
    });
    let answer = asked.await?;
    let label = output(&answer, "label")?[0].clone();
    ensure!(output(&answer, "best")?[0] == format!("digit {label}"), "{answer}");
    let refused = reqwest::Client::new().post(&url).header("content-type", "image/png");
    let refused = refused.body("GIF89a").send().await?;
    ensure!(refused.status() == 400, "{}", refused.status());
    let log = device.process.log();
    ensure!(log.contains("cpu/int8 needs 99999999 MiB"), "the choice is not explained");

    let text = BASE64.encode(pictures::of_digit(&pixels)?);
    let lines = format!("{{\"image\": \"{text}\"}}\n").repeat(3);
    write(&folder.path().join("pictures.jsonl"), &lines)?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let store = device.store.display().to_string();
    let told = run(
        "fleet-agent",
        &[
            "batch",
            "--store",
            &store,
            "--model",
            MODEL,
            "--input",
            &path("pictures.jsonl"),
            "--output",
            &path("out"),
        ],
        &[],
    )?;
    ensure!(told.contains("3 rows in 1 parts"), "{told}");
    let part = fs::read_to_string(folder.path().join("out/part-00000000.jsonl"))?;
    let row: Value = serde_json::from_str(part.lines().last().context("no rows")?)?;
    ensure!(part.lines().count() == 3 && row["label"] == label, "{part}");
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
