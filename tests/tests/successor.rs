//! What a version has seen becomes the baseline of the next one: added up by the server, made and signed by the publisher.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use sealift_protocol::profile::Baseline;
use sealift_tests::digits::{MODEL, directory as model_directory};
use sealift_tests::fleet::{Device, DeviceOptions, Options, Server};
use sealift_tests::needs::onnxruntime;
use sealift_tests::process::write;
use sealift_tests::story::{SOON, TIMING, answers_with, ask, profiles_arrive, roll_out};
use sealift_tests::wait::{Look, until};

/// Requests of ten rows to each device: more rows than a baseline needs.
const REQUESTS: usize = 60;
const ROWS: u64 = 10 * REQUESTS as u64;

async fn device(server: &Server, directory: &Path, site: &str) -> anyhow::Result<Device> {
    let options = DeviceOptions {
        labels: vec![format!("site={site}")],
        onnxruntime: Some(onnxruntime()?),
        extra: String::new(),
    };
    Device::start(server, directory, &format!("cam-{site}"), &options).await
}

fn take(server: &Server, file: &Path, more: &[&str]) -> anyhow::Result<serde_json::Value> {
    let (version, file) = (format!("{MODEL}@1"), file.display().to_string());
    let what = ["model", "baseline", "--from-production", &version, "--since", "2h ago"];
    server.ctl_json(&[what.as_slice(), &["--file", &file], more].concat())
}

fn bins(baseline: &Baseline) -> Vec<(&str, &[f32])> {
    let bins = baseline
        .features()
        .iter()
        .filter_map(|feature| Some((feature.name.as_str(), feature.numeric()?.edges.as_slice())));
    bins.collect()
}

/// The same model, with another baseline in place of its reference rows.
fn next_version(folder: &Path, baseline: &Path) -> anyhow::Result<PathBuf> {
    let (from, into) = (model_directory("v1"), folder.join("next"));
    fs::create_dir_all(&into)?;
    for entry in fs::read_dir(&from)? {
        let entry = entry?;
        fs::copy(entry.path(), into.join(entry.file_name()))?;
    }
    fs::copy(baseline, into.join("baseline.cbor"))?;
    let text = fs::read_to_string(from.join("model.toml"))?;
    let lines = text.lines().filter(|line| !line.starts_with("reference"));
    let text = lines.collect::<Vec<_>>().join("\n");
    let text = text.replace("version = \"1\"", "version = \"5\"\nbaseline = \"baseline.cbor\"");
    ensure!(text.contains("baseline.cbor"), "{text}");
    write(&into.join("model.toml"), &text)?;
    Ok(into)
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn what_a_version_has_seen_becomes_the_baseline_of_the_next() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(folder.path(), &options).await?;
    let mut devices = Vec::new();
    for site in ["tokyo", "osaka", "nara"] {
        devices.push(device(&server, folder.path(), site).await?);
    }
    server.publish(&model_directory("v1"), "1")?;
    roll_out(&server, "1").await?;
    for device in devices.iter().take(2) {
        ask(device, REQUESTS).await?;
    }
    profiles_arrive(&server.api()?).await?;
    let (fleet, osaka) = (folder.path().join("fleet.cbor"), folder.path().join("osaka.cbor"));
    let made = until("all rows are in hours", SOON, || async {
        match take(&server, &fleet, &["--reason", "new lamps"]) {
            Ok(made) if made["rows"] == 2 * ROWS => Ok(Look::Done(made)),
            told => Ok(Look::NotYet(format!("{told:?}"))),
        }
    })
    .await?;
    ensure!(made["moved"].as_array().is_some_and(|moved| !moved.is_empty()), "{made}");
    let of_osaka = take(&server, &osaka, &["-l", "site:osaka"])?;
    ensure!(of_osaka["rows"] == ROWS && of_osaka["devices"] == 1, "{of_osaka}");

    let local = folder.path().join("old.cbor");
    let (contract, data) = (model_directory("v1").join("contract.json"), reference()?);
    let text = |path: &Path| path.display().to_string();
    let (contract, data, into) = (text(&contract), text(&data), text(&local));
    server.ctl(&["model", "baseline", "--contract", &contract, "--data", &data, "-f", &into])?;
    let (old, new) = (Baseline::decode(&fs::read(&local)?)?, Baseline::decode(&fs::read(&fleet)?)?);
    ensure!(bins(&old) == bins(&new) && !bins(&new).is_empty(), "the bins are others");
    ensure!(new.rows() == 2 * ROWS && old.digest() != new.digest(), "{} rows", new.rows());

    for (more, code) in [
        (["-l", "site:nara"], "nothing was seen"),
        (["-l", "site:nowhere"], "no device matches"),
        (["--until", "90m ago"], "nothing was seen"),
    ] {
        let refused = take(&server, &folder.path().join("no.cbor"), &more).unwrap_err();
        ensure!(format!("{refused:#}").contains(code), "{more:?}: {refused:#}");
        ensure!(!folder.path().join("no.cbor").exists(), "{more:?} made a baseline");
    }
    let log = server.ctl_json(&["audit", "list"])?.to_string();
    ensure!(log.contains("baseline.take") && log.contains("new lamps"), "{log}");

    server.publish(&next_version(folder.path(), &fleet)?, "5")?;
    roll_out(&server, "5").await?;
    answers_with(devices.first().context("a device")?, "5").await?;
    Ok(())
}

/// The rows that version 1 names in its `model.toml`.
fn reference() -> anyhow::Result<PathBuf> {
    let directory = model_directory("v1");
    let text = fs::read_to_string(directory.join("model.toml"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("reference = "));
    Ok(directory.join(line.context("version 1 names its reference")?.trim_matches('"')))
}
