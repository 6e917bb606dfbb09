//! Predictions that devices keep for people to look at: from the answer to the label, and to whoever trains the model anew.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc;

use anyhow::{Context as _, ensure};
use sealift_protocol::api::{
    AccuracyReport, AgreementView, AuditEntry, CaptureView, LabelsTaken, Page, QueueView,
};
use sealift_tests::digits::{Batch, MODEL, Rows, directory as model_directory};
use sealift_tests::fleet::{Device, DeviceOptions, Options, Server};
use sealift_tests::needs::onnxruntime;
use sealift_tests::process::{run, run_to_end, write};
use sealift_tests::story::{SOON, TIMING, roll_out};
use sealift_tests::wait::{Look, until};
use serde_json::{Value, json};

/// Requests of an application; more than the budget's first part, so that chances differ.
const REQUESTS: usize = 120;

/// What the owner's and the fleet's people were told.
const NOTICE: &str = "Pictures of digits are kept for 30 days to improve the model.";

async fn device(
    server: &Server,
    directory: &Path,
    name: &str,
    extra: &str,
) -> anyhow::Result<Device> {
    let options = DeviceOptions {
        labels: vec![format!("site={name}")],
        onnxruntime: Some(onnxruntime()?),
        extra: extra.to_owned(),
    };
    Device::start(server, directory, name, &options).await
}

/// A server that may call this machine, a device, one whose owner forbids capture, and version 1 on both.
async fn fleet(directory: &Path) -> anyhow::Result<(Server, Device, Device)> {
    let extra = format!("{TIMING}[alerts]\nallow_networks = [\"127.0.0.0/8\"]\n");
    let options = Options { extra, ..Options::default() };
    let server = Server::start(directory, &options).await?;
    let open = device(&server, directory, "cam-1", "").await?;
    let shut = device(&server, directory, "cam-2", "capture = \"forbidden\"\n").await?;
    server.publish(&model_directory("v1"), "1")?;
    roll_out(&server, "1").await?;
    Ok((server, open, shut))
}

/// Files of samples that wait on a device.
fn waiting(device: &Device) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(device.store.join("captures"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "sample") {
            let name = path.file_name().context("a name")?.to_string_lossy().into_owned();
            // Uploaded and deleted in between.
            found.extend(std::fs::read(&path).ok().map(|bytes| (name, bytes)));
        }
    }
    Ok(found)
}

/// Asks with an id that the application gives; returns the digit that the model named.
async fn ask(device: &Device, number: usize, batch: &Batch) -> anyhow::Result<(String, bool)> {
    let url = format!("{}/v2/models/{MODEL}/infer", device.endpoint()?);
    let mut request = batch.request();
    request["id"] = json!(format!("order-{number}"));
    let response = reqwest::Client::new().post(url).json(&request).send().await?;
    let named = response.headers().get("x-sealift-inference-id").cloned();
    ensure!(named.is_some_and(|name| name == format!("order-{number}").as_str()));
    let answer: Value = response.error_for_status()?.json().await?;
    let outputs = answer["outputs"].as_array().context("outputs")?;
    let label = outputs.iter().find(|output| output["name"] == "label").context("a label")?;
    Ok((label["data"][0].to_string(), batch.correct(&answer)? == 1))
}

fn status(server: &Server) -> anyhow::Result<CaptureView> {
    let views: Vec<CaptureView> = serde_json::from_value(server.ctl_json(&["review", "status"])?)?;
    views.into_iter().next().context("a policy")
}

async fn samples(server: &Server, count: u64) -> anyhow::Result<CaptureView> {
    until(&format!("{count} samples are on the server"), SOON, || async {
        let view = status(server)?;
        let seen = format!("{view:?}");
        Ok(if view.samples == count { Look::Done(view) } else { Look::NotYet(seen) })
    })
    .await
}

/// An operator beside the one that the server was made with.
fn other_operator(directory: &Path) -> anyhow::Result<String> {
    let config = directory.join("fleet-server.toml").display().to_string();
    let make = ["token", "create", "--config", &config, "--name", "ben", "--role", "operator"];
    Ok(run("fleet-server", &make, &[])?.trim().to_owned())
}

fn as_other(server: &Server, token: &str, arguments: &[&str]) -> anyhow::Result<Value> {
    let environment =
        [("SEALIFT_URL", server.endpoints.operator_url.as_str()), ("SEALIFT_TOKEN", token)];
    let text = run("fleetctl", &[&["-o", "json"], arguments].concat(), &environment)?;
    if text.trim().is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn predictions_are_kept_encrypted_labelled_measured_exported_and_forgotten()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (mut server, open, shut) = fleet(directory.path()).await?;
    let enable = [
        "review", "enable", MODEL, "--below", "60%", "--share", "100%", "--budget", "400",
        "--keep", "30d", "--notice", NOTICE,
    ];
    let text = server.ctl(&enable)?;
    ensure!(text.contains(NOTICE) && text.contains("deleted after 30 days"), "{text}");
    until("both devices have the list", SOON, || async {
        let has = |device: &Device| device.store.join("capture.cbor").exists();
        let has = (has(&open), has(&shut));
        Ok(if has == (true, true) { Look::Done(()) } else { Look::NotYet(format!("{has:?}")) })
    })
    .await?;

    // The server is away: what is kept waits, and says nothing to whoever has the disk.
    server.process.stop()?;
    let rows = Rows::held_out()?;
    let (mut truths, mut right) = (Vec::new(), 0);
    for number in 0..REQUESTS {
        let batch = rows.batch(number, 1);
        let (_, is_right) = ask(&open, number, &batch).await?;
        ask(&shut, number, &batch).await?;
        right += usize::from(is_right);
        let truth = (0..10).find(|digit| batch.is(*digit)).context("a digit")?;
        truths.push(json!({ "inference": format!("order-{number}"), "label": truth.to_string() }));
    }
    let kept = kept_whole(&open).await?;
    ensure!((20..=200).contains(&kept.len()), "{} samples", kept.len());
    ensure!(waiting(&shut)?.is_empty(), "its owner has forbidden it");
    for bytes in kept.values() {
        let holds = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        ensure!(!holds(b"pixels") && !holds(b"order-"), "a sample lies there in plain");
        ensure!((0..REQUESTS).all(|number| !holds(&rows.batch(number, 1).plain())));
    }

    let mut restarted = open;
    server.process.restart()?;
    server.ready().await?;
    restarted.process.kill()?;
    restarted.process.restart()?;
    restarted.ready().await?;
    // What a burst has cost, because a busy disk did not take it, is counted.
    let view = samples(&server, kept.len() as u64).await?;
    ensure!(kept.len() as u64 + view.lost >= 50, "{view:?}");

    let file = directory.path().join("truth.jsonl");
    let lines: Vec<_> = truths.iter().map(Value::to_string).collect();
    write(&file, &lines.join("\n"))?;
    labelled_by_two(&server, directory.path())?;
    measured(&server, &file, (right, kept.len()))?;
    exported(&server, directory.path(), kept.len())?;
    trained_anew(&server).await?;
    forgotten(&server, &restarted).await
}

/// The files, once no more come.
async fn kept_whole(device: &Device) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut before = 0;
    until("all samples are on the disk", SOON, || {
        let kept = waiting(device);
        let last = std::mem::replace(&mut before, kept.as_ref().map_or(0, BTreeMap::len));
        async move {
            let kept = kept?;
            let is_still = !kept.is_empty() && kept.len() == last;
            Ok(if is_still { Look::Done(kept) } else { Look::NotYet(last.to_string()) })
        }
    })
    .await
}

/// What really happened is joined by inference id, once, and the interval holds the share that an application would count.
fn measured(server: &Server, file: &Path, (right, kept): (usize, usize)) -> anyhow::Result<()> {
    let path = file.display().to_string();
    let taken: LabelsTaken = serde_json::from_value(server.ctl_json(&["review", "truth", &path])?)?;
    ensure!(taken.changed == REQUESTS as u64 && taken.joined == kept as u64, "{taken:?}");
    let again: LabelsTaken = serde_json::from_value(server.ctl_json(&["review", "truth", &path])?)?;
    ensure!(again.changed == 0 && again.known == REQUESTS as u64, "{again:?}");

    let truth = f64::from(u32::try_from(right)?) / f64::from(u32::try_from(REQUESTS)?);
    for by in [&[][..], &["--by", "site"], &["--by", "day"]] {
        let report = server.ctl_json(&[&["review", "accuracy", MODEL], by].concat())?;
        let report: AccuracyReport = serde_json::from_value(report)?;
        let labels: u64 = report.items.iter().map(|item| item.labels).sum();
        ensure!(labels == kept as u64 && report.left_out == 0, "{report:?}");
        for item in &report.items {
            ensure!((item.low..=item.high).contains(&truth), "{truth} is not in {item:?}");
            ensure!(item.high - item.low < 0.4, "{item:?}");
        }
    }
    let text = server.ctl(&["review", "accuracy", MODEL])?;
    ensure!(text.contains("hajek/wilson"), "{text}");
    Ok(())
}

/// What two people have labelled says how far they agree.
fn labelled_by_two(server: &Server, directory: &Path) -> anyhow::Result<()> {
    let token = other_operator(directory)?;
    let queue: QueueView = serde_json::from_value(server.ctl_json(&["review", "queue"])?)?;
    ensure!(queue.items.len() == 20 && queue.left == queue.budget, "{queue:?}");
    let chosen: Vec<_> = queue.items.iter().take(4).map(|item| item.id.to_string()).collect();
    for (place, id) in chosen.iter().enumerate() {
        server.ctl(&["review", "label", id, &(place % 2).to_string()])?;
        as_other(server, &token, &["review", "label", id, "1"])?;
    }
    let pairs: Vec<AgreementView> =
        serde_json::from_value(server.ctl_json(&["review", "agreement", MODEL])?)?;
    let [pair] = &pairs[..] else { anyhow::bail!("{pairs:?}") };
    let same = chosen.len() / 2;
    ensure!((pair.common, pair.same) == (chosen.len() as u64, same as u64), "{pair:?}");

    let first = chosen.first().context("one")?;
    server.ctl(&["review", "label", first, "--undo"])?;
    let (code, _, stderr) = server.ctl_to_end(&["review", "label", first, "--undo"])?;
    ensure!(code.code() == Some(1) && stderr.contains("sample.not-found"), "{stderr}");
    Ok(())
}

fn exported(server: &Server, directory: &Path, kept: usize) -> anyhow::Result<()> {
    let lines = directory.join("samples.jsonl").display().to_string();
    let table = directory.join("samples.parquet").display().to_string();
    server.ctl(&["review", "export", MODEL, "-f", &lines])?;
    server.ctl(&["review", "export", MODEL, "--format", "parquet", "-f", &table])?;
    let text = std::fs::read_to_string(&lines)?;
    let rows: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let ids: BTreeSet<_> = rows.iter().filter_map(|row| row["id"].as_str()).collect();
    ensure!(rows.len() == kept && ids.len() == kept, "{} rows", rows.len());
    let first = rows.first().context("a row")?;
    ensure!(
        first["inputs"]["pixels"]["data"].as_array().is_some_and(|it| it.len() == 64),
        "{first}"
    );
    ensure!(first["label"].is_string() && first["chance"].as_f64() > Some(0.0), "{first}");
    let bytes = std::fs::read(&table)?;
    ensure!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"), "no Parquet file");
    read_by_pyarrow(&table, kept)?;
    let log = server.ctl_json(&["audit", "list", "--action", "review.export"])?;
    let log: Vec<AuditEntry> = serde_json::from_value(log)?;
    ensure!(log.len() == 2 && log.iter().all(|entry| entry.subject == MODEL), "{log:?}");
    Ok(())
}

/// Where Python's Parquet is at hand, another than our own reader reads it.
fn read_by_pyarrow(table: &str, kept: usize) -> anyhow::Result<()> {
    let Ok(python) = std::env::var("SEALIFT_DRIFT_PYTHON") else { return Ok(()) };
    let script = "import sys, pyarrow.parquet as p; t = p.read_table(sys.argv[1]).to_pylist(); \
                  print(len(t), len(t[0]['input_0']), t[0]['label'] is not None)";
    let output = std::process::Command::new(python).args(["-c", script, table]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(
        text == format!("{kept} 256 True"),
        "{text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// A receiver of one webhook: the body that was posted.
fn receiver() -> anyhow::Result<(u16, mpsc::Receiver<Value>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (port, (sender, receiver)) = (listener.local_addr()?.port(), mpsc::channel());
    std::thread::spawn(move || -> anyhow::Result<()> {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream?);
            let mut length = 0;
            loop {
                let mut line = String::new();
                stream.read_line(&mut line)?;
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse()?;
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body)?;
            stream.get_mut().write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")?;
            sender.send(serde_json::from_slice(&body)?)?;
        }
        Ok(())
    });
    Ok((port, receiver))
}

/// The circle closes: whoever trains the model hears of it.
async fn trained_anew(server: &Server) -> anyhow::Result<()> {
    let (port, hook) = receiver()?;
    let address = format!("http://127.0.0.1:{port}/train");
    server.ctl(&["notify", "add", "training", "webhook", "--address", &address])?;
    server.ctl(&["review", "request-retraining", MODEL, "--reason", "new cameras"])?;
    let told = tokio::task::spawn_blocking(move || hook.recv_timeout(SOON)).await??;
    ensure!(told["type"] == "dev.sealift.retraining.requested", "{told}");
    ensure!(told["data"]["labels"]["model"] == MODEL && told["specversion"] == "1.0", "{told}");
    ensure!(told["data"]["detail"] == "new cameras", "{told}");
    Ok(())
}

async fn forgotten(server: &Server, device: &Device) -> anyhow::Result<()> {
    server.ctl(&["review", "disable", MODEL])?;
    let log: Page<AuditEntry> = server.api()?.get("audit?action=review.disable").await?;
    ensure!(log.items.len() == 1, "{:?}", log.items);
    let text = server.ctl(&["device", "forget", "cam-1", "--reason", "asked to", "--yes"])?;
    ensure!(text.contains("samples"), "{text}");
    samples(server, 0).await?;
    until("nothing is kept any more", SOON, || async {
        ask(device, 0, &Rows::held_out()?.batch(0, 1)).await?;
        let left = waiting(device)?.len();
        let list = std::fs::read(device.store.join("capture.cbor"))?;
        let is_off = !list.windows(MODEL.len()).any(|window| window == MODEL.as_bytes());
        let seen = format!("{left} samples, off: {is_off}");
        Ok(if left == 0 && is_off { Look::Done(()) } else { Look::NotYet(seen) })
    })
    .await?;
    let (code, _, stderr) = run_to_end(
        "fleetctl",
        &["review", "enable", MODEL, "--share", "200%", "--notice", "x"],
        &[],
    )?;
    ensure!(code.code() == Some(2) && stderr.contains("not a share"), "{stderr}");
    Ok(())
}
