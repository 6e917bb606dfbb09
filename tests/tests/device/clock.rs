//! Clocks that were never set, are far ahead, or step back while the agent runs.

use std::path::Path;

use sealift_protocol::api::TimelineEntry;
use sealift_tests::digits::directory as model_directory;
use sealift_tests::fleet::{Api, Device};
use sealift_tests::process::write;
use sealift_tests::story::{self, SOON, answers_with};
use sealift_tests::wait::{Look, until};

use super::{pretending, serving_1};

const YEAR_MS: i64 = 31_556_952_000;

/// How far the agent's clock is ahead from now on.
fn set(clock: &Path, ahead_ms: i64) -> anyhow::Result<()> {
    write(&clock.with_extension("new"), &ahead_ms.to_string())?;
    Ok(std::fs::rename(clock.with_extension("new"), clock)?)
}

async fn says_that_its_clock_is_wrong(api: &Api, device: &Device) -> anyhow::Result<()> {
    until("the device says that its clock is wrong", SOON, || async {
        let path = format!("devices/{}/timeline?limit=200", device.id);
        let entries: Vec<TimelineEntry> = api.list(&path).await?;
        let is_there = entries.iter().any(|entry| entry.code == "clock.behind");
        Ok(if is_there { Look::Done(()) } else { Look::NotYet(format!("{entries:?}")) })
    })
    .await
}

#[tokio::test]
#[ignore = "needs programs"]
async fn a_device_in_1970_takes_what_is_new_and_says_that_its_clock_is_wrong() -> anyhow::Result<()>
{
    let directory = tempfile::tempdir()?;
    let clock = directory.path().join("clock");
    set(&clock, -60 * YEAR_MS)?;
    let clock_text = clock.display().to_string();
    let environment = [("SEALIFT_DRILL_CLOCK", clock_text.as_str())];
    let (server, mut device) = serving_1(directory.path(), &pretending(), &environment).await?;
    server.publish(&model_directory("v2"), "2")?;

    story::roll_out(&server, "2").await?;

    answers_with(&device, "2").await?;
    says_that_its_clock_is_wrong(&server.api()?, &device).await?;
    // Deadlines that were written down at another time do not keep it.
    device.process.kill()?;
    set(&clock, 0)?;
    device.process.restart()?;
    device.ready().await?;
    answers_with(&device, "2").await
}

#[tokio::test]
#[ignore = "needs programs"]
async fn a_clock_that_jumps_to_2099_and_steps_back_stops_nothing_but_changes() -> anyhow::Result<()>
{
    let directory = tempfile::tempdir()?;
    let clock = directory.path().join("clock");
    set(&clock, 0)?;
    let clock_text = clock.display().to_string();
    let environment = [("SEALIFT_DRILL_CLOCK", clock_text.as_str())];
    let (server, device) = serving_1(directory.path(), &pretending(), &environment).await?;
    server.publish(&model_directory("v2"), "2")?;

    set(&clock, 73 * YEAR_MS)?;
    let rollout = story::begin(&server, "2")?;
    until("the device refuses what has expired by its clock", SOON, || async {
        let log = device.process.log();
        let is_refused = log.contains("expired");
        Ok(if is_refused { Look::Done(()) } else { Look::NotYet(device.process.log_tail()) })
    })
    .await?;
    answers_with(&device, "1").await?;

    // Five days behind: before what was verified here, so the date of what comes is not believed, its version is.
    set(&clock, -5 * 86_400_000)?;
    let api = server.api()?;
    story::ended(&api, rollout, sealift_protocol::api::RolloutState::Succeeded).await?;
    answers_with(&device, "2").await?;
    says_that_its_clock_is_wrong(&api, &device).await
}
