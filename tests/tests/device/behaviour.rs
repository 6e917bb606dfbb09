//! An image that is well at first, and goes slow or unsure once it was kept: the device takes it back by itself, and the server counts
//! it against the wave that was closed.

use anyhow::{Context as _, ensure};
use sealift_protocol::api::{AlertView, Page, RolloutState, RolloutView};
use sealift_protocol::id::RolloutId;
use sealift_protocol::report::{Outcome, OutcomeKind, Phase};
use sealift_tests::digits::moody::{self, Mood};
use sealift_tests::digits::{MODEL, Rows, as_version};
use sealift_tests::fleet::{Api, Device, Server};
use sealift_tests::story::{ROLLOUT_LIMIT, SOON, answers_with, ended};
use sealift_tests::wait::{Look, until};

use super::{ends_with, inferring, outcome_of, serving_1};

/// Rows of a request.
const ROWS: usize = 4;

fn begin(server: &Server, version: &str, rules: &[&str]) -> anyhow::Result<RolloutId> {
    let version = format!("{MODEL}@{version}");
    let create = ["rollout", "create", &version, "--probation-s", "2", "--reason", "story"];
    let view: RolloutView =
        serde_json::from_value(server.ctl_json(&[&create[..], rules].concat())?)?;
    Ok(view.id)
}

async fn ask(
    device: &Device,
    requests: std::ops::Range<usize>,
    is_marked: bool,
) -> anyhow::Result<()> {
    let (caller, rows) = (device.caller(), Rows::held_out()?);
    for request in requests {
        let batch = rows.batch(request * ROWS, ROWS);
        caller.infer(&if is_marked { batch.marked() } else { batch }).await?;
    }
    Ok(())
}

/// Waits until the image is kept and watched.
async fn watched(api: &Api, device: &Device) -> anyhow::Result<()> {
    until("the image is watched", SOON, || async {
        let phase = api.device(&device.id).await?.slots.first().and_then(|slot| slot.phase);
        Ok(if phase == Some(Phase::Watch) {
            Look::Done(())
        } else {
            Look::NotYet(format!("{phase:?}"))
        })
    })
    .await
}

/// Has a device keep a version that then gets into a mood, and asks it until it has turned back.
async fn turned_back_late(
    server: &Server,
    device: &Device,
    (version, rules): (&str, &[&str]),
) -> anyhow::Result<(RolloutId, Outcome)> {
    let api = server.api()?;
    let rollout = begin(server, version, rules)?;
    answers_with(device, version).await?;
    ask(device, 0..100, false).await?;
    watched(&api, device).await?;
    ask(device, 100..300, false).await?;
    let kept = outcome_of(&api, device, version).await?;
    ensure!(kept.result == OutcomeKind::Committed, "well, and yet {kept:?}");

    let outcome = until("the device turns back", ROLLOUT_LIMIT, || async {
        ask(device, 0..50, true).await?;
        let outcome = outcome_of(&api, device, version).await?;
        let is_back = outcome.result == OutcomeKind::RolledBack;
        Ok(if is_back { Look::Done(outcome) } else { Look::NotYet(format!("{outcome:?}")) })
    })
    .await?;
    answers_with(device, "1").await?;
    Ok((rollout, outcome))
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn an_image_that_goes_slow_after_it_was_kept_is_taken_back_and_halts_the_rollout_that_is_left()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, device) = serving_1(directory.path(), &inferring()?, &[]).await?;
    // Somebody is away: the rollout is not over when its waves have passed.
    let mut away = Device::start(&server, directory.path(), "cam-2", &inferring()?).await?;
    away.process.kill()?;
    let copy = as_version(directory.path(), "2.1", "")?;
    moody::give(&copy, Mood::Slow)?;
    server.publish(&copy, "2.1")?;
    ask(&device, 0..500, false).await?;
    let api = server.api()?;

    let rules = ["--latency-rise", "150%", "--steady", "2s"];
    let (rollout, outcome) = turned_back_late(&server, &device, ("2.1", &rules)).await?;

    ensure!(outcome.code == "trial.latency" && outcome.is_late(), "{outcome:?}");
    ensure!(outcome.reason.contains("with the image before"), "{}", outcome.reason);
    let view = ended(&api, rollout, RolloutState::Halted).await?;
    ensure!(view.why == "wave 1: 1 of 1 devices ended badly, at most 10% may", "{}", view.why);
    let why = server.ctl(&["rollout", "why", &rollout.to_string()])?;
    ensure!(why.contains("trial.latency") && why.contains("150 % may be"), "{why}");

    // It stays where it went back to, also when it is started again.
    away.process.restart()?;
    away.ready().await?;
    ends_with((&api, &device), "2.1", (OutcomeKind::RolledBack, "trial.latency")).await?;
    answers_with(&device, "1").await
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn an_image_that_grows_unsure_is_taken_back_by_what_the_image_before_showed_before_a_restart()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, mut device) = serving_1(directory.path(), &inferring()?, &[]).await?;
    let copy = as_version(directory.path(), "2.1", "")?;
    moody::give(&copy, Mood::Unsure)?;
    server.publish(&copy, "2.1")?;
    ask(&device, 0..500, false).await?;
    // What an image has shown is kept on disk.
    device.process.stop()?;
    device.process.restart()?;
    device.ready().await?;
    answers_with(&device, "1").await?;

    let rules = ["--confidence-drop", "10%", "--class-loss", "90%", "--steady", "2s"];
    let (rollout, outcome) = turned_back_late(&server, &device, ("2.1", &rules)).await?;

    ensure!(outcome.code == "trial.confidence" && outcome.is_late(), "{outcome:?}");
    told_of_what_is_over(&server, rollout, &outcome.reason).await
}

/// Nothing is left to halt: people hear of it, and the rollout says so.
async fn told_of_what_is_over(
    server: &Server,
    rollout: RolloutId,
    reason: &str,
) -> anyhow::Result<()> {
    let api = server.api()?;
    let view = ended(&api, rollout, RolloutState::Succeeded).await?;
    let late = view.late.as_ref().context("nobody went back late")?;
    ensure!(late.devices == 1 && late.why == format!("trial.confidence: {reason}"), "{late:?}");
    let told = server.ctl(&["rollout", "get", &rollout.to_string()])?;
    ensure!(told.contains("late     1 took it back after the end"), "{told}");
    until("an alert tells of it", SOON, || async {
        let alerts: Page<AlertView> = api.get("alerts?state=open&match=kind%3Dlate").await?;
        let about = alerts.items.first().filter(|alert| alert.severity == "critical");
        Ok(match about {
            Some(alert) if alert.detail.contains(reason) => Look::Done(()),
            Some(_) | None => Look::NotYet(format!("{:?}", alerts.items)),
        })
    })
    .await
}
