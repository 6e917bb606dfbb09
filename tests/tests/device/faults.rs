//! Images that do not fit, do not answer as they should, or break: each leaves the device on the image before.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::ensure;
use sealift_protocol::api::RolloutState;
use sealift_protocol::id::RolloutId;
use sealift_protocol::report::{OutcomeKind, Phase};
use sealift_tests::digits::{MODEL, as_version};
use sealift_tests::fleet::{Api, Device, Server};
use sealift_tests::process::write;
use sealift_tests::story::{self, SOON, answers_with, ended};
use sealift_tests::wait::{Look, until};

use super::workers::newest;
use super::{ends_with, inferring, outcome_of, pretending, serving_1};

/// Publishes a copy of version 2 under another version, with lines for its `model.toml`.
fn publish(server: &Server, directory: &Path, version: &str, lines: &str) -> anyhow::Result<()> {
    server.publish(&as_version(directory, version, lines)?, version)
}

async fn abort(api: &Api, rollout: RolloutId) -> anyhow::Result<()> {
    let reason = BTreeMap::from([("reason", "story")]);
    let path = format!("rollouts/{rollout}/abort");
    api.post::<_, serde_json::Value>(&path, &reason).await.map(drop)
}

#[tokio::test]
#[ignore = "needs programs"]
async fn an_image_for_other_hardware_is_no_failure_and_says_what_is_missing() -> anyhow::Result<()>
{
    let directory = tempfile::tempdir()?;
    let (server, device) = serving_1(directory.path(), &pretending(), &[]).await?;
    let api = server.api()?;
    for (version, lines) in
        [("2.1", "platform = \"linux/riscv64\""), ("2.2", "min_memory_mb = 99999999")]
    {
        publish(&server, directory.path(), version, lines)?;

        let rollout = story::begin(&server, version)?;

        let expected = (OutcomeKind::NotApplicable, "image.no-variant");
        let outcome = ends_with((&api, &device), version, expected).await?;
        ensure!(outcome.reason.contains("MiB and cpu"), "facts are missing: {}", outcome.reason);
        ended(&api, rollout, RolloutState::Succeeded).await?;
        answers_with(&device, "1").await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn an_image_that_is_wrong_slow_or_big_fails_its_self_test_before_any_request()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, device) = serving_1(directory.path(), &inferring()?, &[]).await?;
    let api = server.api()?;
    let images = [
        ("2.1", "self-test.golden", ""),
        ("2.2", "self-test.latency", "[policy]\nlatency_max_ms = 0"),
        ("2.3", "self-test.memory", "[policy]\nmemory_max_mb = 1"),
    ];
    for (version, code, lines) in images {
        let copy = as_version(directory.path(), version, lines)?;
        if lines.is_empty() {
            let golden = fs::read_to_string(copy.join("golden.json"))?;
            let wrong = golden.replace("\"shape\":[1],\"data\":[8]", "\"shape\":[1],\"data\":[3]");
            ensure!(wrong != golden, "the golden case has changed");
            write(&copy.join("golden.json"), &wrong)?;
        }
        server.publish(&copy, version)?;

        let rollout = story::begin(&server, version)?;

        ends_with((&api, &device), version, (OutcomeKind::Failed, code)).await?;
        ended(&api, rollout, RolloutState::Halted).await?;
        answers_with(&device, "1").await?;
        abort(&api, rollout).await?;
    }
    Ok(())
}

/// Ends the worker of the newest image, and then the one that takes its place: each once it answers, as one that ends before that is a start that failed.
async fn crash_twice(device: &Device, version: &str) -> anyhow::Result<()> {
    answers_with(device, version).await?;
    let mut before = None;
    for _ in 0..2 {
        let worker = newest(device, before).await?;
        answers_with(device, version).await?;
        worker.kill()?;
        before = Some(worker);
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn an_image_whose_worker_crashes_twice_is_taken_back_on_probation_and_long_after()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, device) = serving_1(directory.path(), &inferring()?, &[]).await?;
    let api = server.api()?;
    publish(&server, directory.path(), "2.1", "")?;
    publish(&server, directory.path(), "2.2", "")?;

    // Kept: it was good for as long as the rollout has looked.
    story::roll_out(&server, "2.1").await?;
    crash_twice(&device, "2.1").await?;
    let taken_back = (OutcomeKind::RolledBack, "worker.crashed");
    ends_with((&api, &device), "2.1", taken_back).await?;
    answers_with(&device, "1").await?;

    let version = format!("{MODEL}@2.2");
    let create = ["rollout", "create", &version, "--probation-s", "600", "--reason", "story"];
    server.ctl(&create)?;
    on_probation(&api, &device).await?;
    crash_twice(&device, "2.2").await?;
    ends_with((&api, &device), "2.2", taken_back).await?;
    answers_with(&device, "1").await
}

async fn on_probation(api: &Api, device: &Device) -> anyhow::Result<()> {
    until("the image is on probation", SOON, || async {
        let phase = api.device(&device.id).await?.slots.first().and_then(|slot| slot.phase);
        let is_there = phase == Some(Phase::Probation);
        Ok(if is_there { Look::Done(()) } else { Look::NotYet(format!("{phase:?}")) })
    })
    .await
}

#[tokio::test]
#[ignore = "needs programs"]
async fn an_outcome_is_known_to_the_server_after_the_device_was_away() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (mut server, device) = serving_1(directory.path(), &pretending(), &[]).await?;
    publish(&server, directory.path(), "2.1", "")?;
    let rollout = story::begin(&server, "2.1")?;
    answers_with(&device, "2.1").await?;

    // Nobody hears how the probation ends.
    server.process.kill()?;
    answers_with(&device, "2.1").await?;
    server.process.restart()?;
    server.ready().await?;

    let api = server.api()?;
    ended(&api, rollout, RolloutState::Succeeded).await?;
    let outcome = outcome_of(&api, &device, "2.1").await?;
    ensure!(outcome.result == OutcomeKind::Committed, "{outcome:?}");
    Ok(())
}
