//! Batches that operators ask a device for, as stories do: a fleet of one, rows of digits, predictions in their order.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::digits::{MODEL, Rows, directory as model_directory};
use crate::fleet::{Device, DeviceOptions, Options, Server};
use crate::needs::onnxruntime;
use crate::story::{TIMING, answers_with, roll_out};

/// A server, and a device whose owner has opened `data` for batches and lets others ask for as much as `remote` says.
pub async fn fleet(
    folder: &Path,
    remote: &str,
    mut options: Options,
) -> anyhow::Result<(Server, Device, PathBuf)> {
    options.extra = format!("{TIMING}{}", options.extra);
    let server = Server::start(folder, &options).await?;
    let open = folder.join("data");
    fs::create_dir_all(&open)?;
    let options = DeviceOptions {
        labels: vec!["site=osaka".to_owned()],
        onnxruntime: Some(onnxruntime()?),
        extra: format!(
            "remote_requests = \"{remote}\"\nbatch.directories = [{:?}]\n",
            open.display().to_string()
        ),
    };
    let device = Device::start(&server, folder, "cam-1", &options).await?;
    server.publish(&model_directory("v1"), "1")?;
    roll_out(&server, "1").await?;
    answers_with(&device, "1").await?;
    Ok((server, device, open))
}

/// So many rows of digits as lines of JSON.
pub fn json_lines(count: usize) -> anyhow::Result<String> {
    let request = Rows::held_out()?.batch(0, count).request();
    let data: Vec<f32> = serde_json::from_value(request["inputs"][0]["data"].clone())?;
    let lines = data.chunks(64).map(serde_json::to_string);
    Ok(lines.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

/// Has the device begin a batch, with more words for the command.
pub fn begin(
    server: &Server,
    name: &str,
    (input, output): (&Path, &Path),
    more: &[&str],
) -> anyhow::Result<Value> {
    let (input, output) = (input.display().to_string(), output.display().to_string());
    let whom = ["-l", "site:osaka", "--model", MODEL, "--name", name];
    let what = ["--input", &input, "--into", &output];
    server.ctl_json(&[["batch", "run"].as_slice(), &whom, &what, more].concat())
}

/// How a batch stands.
pub fn show(server: &Server, name: &str) -> anyhow::Result<Value> {
    server.ctl_json(&["batch", "show", name, "--device", "cam-1"])
}

/// Waits until a batch is over, as it should be.
pub fn ends(server: &Server, name: &str, expected: &str) -> anyhow::Result<Value> {
    let wait = ["batch", "show", name, "--device", "cam-1", "--wait", "--timeout", "240"];
    let (_, stdout, stderr) = server.ctl_to_end(&[["-o", "json"].as_slice(), &wait].concat())?;
    let job: Value = serde_json::from_str(&stdout).with_context(|| stderr)?;
    ensure!(job["state"] == expected, "{job}");
    Ok(job)
}

/// The lines of a job's predictions, in order, once its parts are seen to be without a gap.
pub fn lines(output: &Path) -> anyhow::Result<String> {
    let done: Value = serde_json::from_slice(&fs::read(output.join("done.json"))?)?;
    let parts = done["parts"].as_u64().context("no parts")?;
    let mut lines = String::new();
    for part in 0..parts {
        lines += &fs::read_to_string(output.join(format!("part-{part:08}.jsonl")))?;
    }
    ensure!(!output.join(format!("part-{parts:08}.jsonl")).exists(), "a part too many");
    let count = lines.lines().count();
    ensure!(done["rows"] == count, "{done} and {count} lines");
    Ok(lines)
}

/// All predictions of a job, in order.
pub fn predictions(output: &Path) -> anyhow::Result<Vec<Value>> {
    lines(output)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}
