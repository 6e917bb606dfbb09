//! A new image beside the live one, with real workers: what agrees is made live, what does not never answers anybody, and whoever is killed
//! meanwhile comes back with the old one.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use sealift_protocol::api::{RolloutState, RolloutView, SlotView, TimelineEntry};
use sealift_protocol::id::RolloutId;
use sealift_protocol::report::{OutcomeKind, Phase, ShadowCounts};
use sealift_tests::digits::{MODEL, Rows, as_version};
use sealift_tests::fleet::{Api, Device, Server};
use sealift_tests::process::write;
use sealift_tests::story::{ROLLOUT_LIMIT, SOON, answers_with, ended};
use sealift_tests::wait::{Look, until};
use serde_json::Value;

use super::{ends_with, inferring, serving_1};

/// Rows of a request.
const ROWS: usize = 4;

fn begin(server: &Server, version: &str, rules: &[&str]) -> anyhow::Result<RolloutId> {
    let version = format!("{MODEL}@{version}");
    let create = ["rollout", "create", &version, "--probation-s", "1", "--reason", "story"];
    let view: RolloutView =
        serde_json::from_value(server.ctl_json(&[&create[..], rules].concat())?)?;
    Ok(view.id)
}

/// A version that computes what version 2 does, and calls each digit by the name of the next.
fn misnamed(directory: &Path, version: &str) -> anyhow::Result<std::path::PathBuf> {
    let copy = as_version(directory, version, "")?;
    let path = copy.join("contract.json");
    let mut contract: Value = serde_json::from_slice(&fs::read(&path)?)?;
    let outputs = contract["outputs"].as_array_mut().context("no outputs")?;
    let labels = outputs.iter_mut().find_map(|output| output.get_mut("labels")?.as_array_mut());
    labels.context("no labels")?.rotate_left(1);
    write(&path, &serde_json::to_string_pretty(&contract)?)?;
    Ok(copy)
}

async fn slot(api: &Api, device: &Device) -> anyhow::Result<SlotView> {
    api.device(&device.id).await?.slots.into_iter().next().context("no slot")
}

async fn in_phase(api: &Api, device: &Device, phase: Phase) -> anyhow::Result<()> {
    until(&format!("{} is {phase:?}", device.id), SOON, || async {
        let slot = slot(api, device).await?;
        let is_there = slot.phase == Some(phase);
        Ok(if is_there { Look::Done(()) } else { Look::NotYet(format!("{slot:?}")) })
    })
    .await
}

/// Sends a request; every one is answered. Returns which version did.
async fn ask(device: &Device, rows: &Rows, request: usize) -> anyhow::Result<String> {
    let (_, version) = device.caller().infer(&rows.batch(request * ROWS, ROWS)).await?;
    Ok(version)
}

fn counts(slot: &SlotView) -> anyhow::Result<ShadowCounts> {
    Ok(slot.shadow.as_ref().context("no shadow is told")?.counts)
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn an_image_that_agrees_beside_the_live_one_is_made_live() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, device) = serving_1(directory.path(), &inferring()?, &[]).await?;
    server.publish(&as_version(directory.path(), "2.1", "")?, "2.1")?;
    let api = server.api()?;

    let rules =
        ["--shadow", "10m", "--agreement", "80%", "--shadow-rows", "300", "--shadow-cpu", "50%"];
    let rollout = begin(&server, "2.1", &rules)?;
    in_phase(&api, &device, Phase::Shadowing).await?;
    let rows = Rows::held_out()?;
    let mut request = 0;
    while ask(&device, &rows, request).await? == "1" {
        request += 1;
        ensure!(request < 20_000, "{:?}", slot(&api, &device).await?);
    }

    ensure!(request >= 300 / ROWS, "made live after {request} requests");
    ended(&api, rollout, RolloutState::Succeeded).await?;
    let slot = slot(&api, &device).await?;
    let counts = counts(&slot)?;
    ensure!(counts.rows >= 300 && counts.agreed * 10 >= counts.rows * 8, "{counts:?}");
    ensure!(counts.failed == 0 && counts.live_us > 0 && counts.shadow_us > 0, "{counts:?}");
    let told = server.ctl(&["device", "get", device.id.as_str()])?;
    ensure!(told.contains("2.1 beside 1: agrees on"), "{told}");
    let view = api.rollout(rollout).await?;
    let gate = view.waves[0].gates.iter().find(|gate| gate.name == "disagreement");
    ensure!(gate.is_none_or(|gate| gate.passed), "{gate:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn an_image_that_disagrees_is_rejected_and_no_application_ever_had_its_answer()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, device) = serving_1(directory.path(), &inferring()?, &[]).await?;
    server.publish(&misnamed(directory.path(), "2.2")?, "2.2")?;
    let api = server.api()?;

    let rules = ["--shadow", "10m", "--agreement", "90%", "--shadow-rows", "200"];
    let rollout = begin(&server, "2.2", &rules)?;
    let rows = Rows::held_out()?;
    let request = std::cell::Cell::new(0);
    let outcome = until("the image is rejected", ROLLOUT_LIMIT, || async {
        for _ in 0..20 {
            let version = ask(&device, &rows, request.get()).await?;
            ensure!(version == "1", "version {version} has answered");
            request.set(request.get() + 1);
        }
        let outcome = slot(&api, &device).await?.outcome;
        let ended = outcome.clone().filter(|outcome| outcome.result == OutcomeKind::Rejected);
        Ok(ended.map_or_else(|| Look::NotYet(format!("{outcome:?}")), Look::Done))
    })
    .await?;

    ensure!(outcome.code == "shadow.disagreement", "{outcome:?}");
    ensure!(outcome.reason.contains("90.0 % is asked for"), "{}", outcome.reason);
    let view = ended(&api, rollout, RolloutState::Halted).await?;
    ensure!(view.progress.len() == 1, "{:?}", view.progress);
    let why = server.ctl(&["rollout", "why", &rollout.to_string()])?;
    ensure!(why.contains("shadow.disagreement"), "{why}");
    answers_with(&device, "1").await
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn an_agent_that_is_killed_beside_it_comes_back_with_the_old_image_and_compares_anew()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, mut device) = serving_1(directory.path(), &inferring()?, &[]).await?;
    server.publish(&as_version(directory.path(), "2.3", "")?, "2.3")?;
    let (api, rows) = (server.api()?, Rows::held_out()?);

    let rules = ["--shadow", "10m", "--agreement", "80%", "--shadow-rows", "200"];
    begin(&server, "2.3", &rules)?;
    in_phase(&api, &device, Phase::Shadowing).await?;
    for request in 0..10 {
        ensure!(ask(&device, &rows, request).await? == "1", "nothing is shown yet");
    }
    device.process.kill()?;
    device.process.restart()?;
    device.ready().await?;

    answers_with(&device, "1").await?;
    until("it is beside the live image again", SOON, || async {
        let path = format!("devices/{}/timeline?limit=200", device.id);
        let entries: Vec<TimelineEntry> = api.list(&path).await?;
        let times = entries.iter().filter(|entry| entry.code == "shadowing").count();
        Ok(if times >= 2 { Look::Done(()) } else { Look::NotYet(format!("{times} times")) })
    })
    .await?;
    let mut request = 0;
    while ask(&device, &rows, request).await? == "1" {
        request += 1;
        ensure!(request < 20_000, "{:?}", slot(&api, &device).await?);
    }
    ends_with((&api, &device), "2.3", (OutcomeKind::Committed, "")).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn a_fifth_of_the_requests_is_answered_by_the_new_version_and_counted_by_it()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, device) = serving_1(directory.path(), &inferring()?, &[]).await?;
    server.publish(&as_version(directory.path(), "2.4", "")?, "2.4")?;
    let (api, rows) = (server.api()?, Rows::held_out()?);

    let rules = ["--shadow", "40s", "--split", "20%", "--shadow-rows", "1"];
    let rollout = begin(&server, "2.4", &rules)?;
    in_phase(&api, &device, Phase::Shadowing).await?;
    let mut new = 0_u64;
    for request in 0..500 {
        let version = ask(&device, &rows, request).await?;
        ensure!(version == "1" || version == "2.4", "{version}");
        new += u64::from(version == "2.4");
    }
    ensure!((60..150).contains(&new), "{new} of 500 were answered by the new version");
    let metrics = reqwest::get(format!("{}/metrics", device.endpoint()?)).await?.text().await?;
    let counted =
        format!("sealift_model_requests_total{{model=\"{MODEL}\",version=\"2.4\"}} {new}\n");
    ensure!(metrics.contains(&counted), "{counted} is not in {metrics}");

    ended(&api, rollout, RolloutState::Succeeded).await?;
    let counts = counts(&slot(&api, &device).await?)?;
    ensure!((counts.answered, counts.returned) == (new, 0), "{counts:?}");
    ensure!(counts.requests > 0, "the rest was compared: {counts:?}");
    answers_with(&device, "2.4").await
}
