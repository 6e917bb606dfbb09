//! The owner of a device keeps what it serves, and everybody can see why.

use anyhow::ensure;
use sealift_protocol::api::RolloutState;
use sealift_tests::digits::directory as model_directory;
use sealift_tests::process::run;
use sealift_tests::story::{self, SOON, answers_with};
use sealift_tests::wait::{Look, until};

use super::{pretending, serving_1};

#[tokio::test]
#[ignore = "needs programs"]
async fn a_held_device_keeps_what_it_serves_and_says_so_until_it_is_released() -> anyhow::Result<()>
{
    let directory = tempfile::tempdir()?;
    let (server, device) = serving_1(directory.path(), &pretending(), &[]).await?;
    server.publish(&model_directory("v2"), "2")?;
    let store = device.store.display().to_string();
    let hold = ["hold", "--store", &store, "--for", "8h", "--reason", "visitors today"];
    run("fleet-agent", &hold, &[])?;
    is_shown(|| server.ctl(&["device", "get", "cam-1"])).await?;

    let rollout = story::begin(&server, "2")?;

    let id = rollout.to_string();
    is_shown(|| server.ctl(&["rollout", "why", &id])).await?;
    is_shown(|| run("fleet-agent", &["status", "--store", &store], &[])).await?;
    answers_with(&device, "1").await?;
    run("fleet-agent", &["release", "--store", &store], &[])?;
    story::ended(&server.api()?, rollout, RolloutState::Succeeded).await?;
    answers_with(&device, "2").await?;
    ensure!(!server.ctl(&["device", "get", "cam-1"])?.contains("visitors"));
    Ok(())
}

async fn is_shown(look: impl Fn() -> anyhow::Result<String>) -> anyhow::Result<()> {
    until("the reason is shown", SOON, || async {
        let text = look()?;
        Ok(if text.contains("visitors today") { Look::Done(()) } else { Look::NotYet(text) })
    })
    .await
}
