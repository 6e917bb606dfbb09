//! The dead-man lease with a real server: it countersigns what it has heard of, and what it does not hear of turns back by itself.

use anyhow::ensure;
use sealift_protocol::api::{RolloutState, RolloutView};
use sealift_protocol::id::RolloutId;
use sealift_protocol::report::{OutcomeKind, Phase};
use sealift_tests::digits::{MODEL, directory as model_directory};
use sealift_tests::fleet::{Device, Options, Server};
use sealift_tests::mosquitto::Mosquitto;
use sealift_tests::story::{self, ROLLOUT_LIMIT, SOON, TIMING, answers_with};
use sealift_tests::wait::{Look, until};

use super::{ends_with, pretending, serving_1};

fn begin(server: &Server, version: &str, lease_s: &str) -> anyhow::Result<RolloutId> {
    let version = format!("{MODEL}@{version}");
    let times = ["--probation-s", "1", "--watch-s", "12", "--lease-s", lease_s];
    let create = [&["rollout", "create", &version, "--reason", "story"], &times[..]].concat();
    let view: RolloutView = serde_json::from_value(server.ctl_json(&create)?)?;
    Ok(view.id)
}

#[tokio::test]
#[ignore = "needs programs"]
async fn a_trial_that_the_server_has_heard_of_is_countersigned_and_stays() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, mut device) = serving_1(directory.path(), &pretending(), &[]).await?;
    server.publish(&model_directory("v2"), "2")?;

    let rollout = begin(&server, "2", "8")?;

    let api = server.api()?;
    story::ended(&api, rollout, RolloutState::Succeeded).await?;
    // The countersign is on the device's disk, and the watch is longer than the lease.
    device.process.kill()?;
    device.process.restart()?;
    device.ready().await?;
    until("the watch is over", SOON, || async {
        let slot = api.device(&device.id).await?.slots.into_iter().next();
        let phase = slot.as_ref().and_then(|slot| slot.phase);
        ensure!(phase != Some(Phase::Reverting), "it went back: {slot:?}");
        let is_over = phase == Some(Phase::Idle);
        Ok(if is_over { Look::Done(()) } else { Look::NotYet(format!("{slot:?}")) })
    })
    .await?;
    ends_with((&api, &device), "2", (OutcomeKind::Committed, "")).await?;
    answers_with(&device, "2").await
}

#[tokio::test]
#[ignore = "needs mosquitto"]
async fn a_trial_that_nobody_can_hear_of_turns_back_by_itself() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    Server::init(directory.path())?;
    let broker = Mosquitto::start(directory.path(), &["cam-1"])?;
    let options =
        Options { mqtt: Some(broker.section()), extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory.path(), &options).await?;
    let device = Device::start(&server, directory.path(), "cam-1", &pretending()).await?;
    server.publish(&model_directory("v1"), "1")?;
    server.publish(&model_directory("v2"), "2")?;
    story::roll_out(&server, "1").await?;

    // The directive comes over HTTPS; what the device says goes nowhere.
    let port = broker.port;
    drop(broker);
    begin(&server, "2", "4")?;
    until("the device has turned back", ROLLOUT_LIMIT, || async {
        let log = device.process.log();
        let has_turned = log.contains("trial.lease");
        Ok(if has_turned { Look::Done(()) } else { Look::NotYet(device.process.log_tail()) })
    })
    .await?;
    answers_with(&device, "1").await?;

    let _broker = Mosquitto::start_at(port, directory.path(), &["cam-1"])?;
    let api = server.api()?;
    // The server looks for its broker every half minute, and after as long the device says again what nobody has acknowledged.
    until("the server has heard of it", ROLLOUT_LIMIT, || async {
        let slot = api.device(&device.id).await?.slots.into_iter().next();
        let outcome = slot.and_then(|slot| slot.outcome);
        let is_heard = outcome.as_ref().is_some_and(|it| it.image.version.as_str() == "2");
        Ok(if is_heard { Look::Done(()) } else { Look::NotYet(format!("{outcome:?}")) })
    })
    .await?;
    let expected = (OutcomeKind::RolledBack, "trial.lease");
    ends_with((&api, &device), "2", expected).await?;
    Ok(())
}
