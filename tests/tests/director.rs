//! The server's own keys are replaced, the director's above all, and no agent is restarted for it.

use std::fs;

use anyhow::{Context as _, ensure};
use sealift_protocol::api::{RolloutState, Status, TimelineEntry};
use sealift_tests::digits::directory as model_directory;
use sealift_tests::keys::{device, holder, keys, server, text};
use sealift_tests::story::{self, SOON, answers_with, ended};
use sealift_tests::wait::{Look, until};

#[tokio::test]
async fn a_directors_key_is_replaced_and_the_agent_obeys_the_new_one_without_a_restart()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let server = server(directory.path()).await?;
    let device = device(&server, directory.path()).await?;
    server.publish(&model_directory("v1"), "1")?;
    server.publish(&model_directory("v2"), "2")?;
    story::roll_out(&server, "1").await?;
    let agent = device.process.id();
    let before = keys(&server, "director")?;
    let old = before[0]["key_id"].as_str().context("an id")?.to_owned();
    let secret = fs::read(server.data().join("keys/director.pem"))?;

    let stick = text(&directory.path().join("stick"));
    server.ctl(&["key", "rotate", "director", "--stage", &stick])?;
    ensure!(fs::read(server.data().join("keys/director.pem"))? == secret, "nobody has signed yet");
    for name in ["targets-3", "targets-1"] {
        let key = text(&server.offline_key(name));
        holder(&["trust", "sign", &stick, "--key", &key, "--yes"])?;
    }
    server.ctl(&["trust", "submit", &stick])?;
    ensure!(fs::read(server.data().join("keys/director.pem"))? != secret, "the old key stays");
    ensure!(keys(&server, "director")?.len() == 2, "there is no overlap");
    story::roll_out(&server, "2").await?;
    answers_with(&device, "2").await?;

    let on_call = text(&server.offline_key("revocations-1"));
    server.ctl(&["key", "revoke", &old, "--reason", "replaced", "--key", &on_call])?;
    let obeyed = keys(&server, "director")?;
    let of = |id: &str| obeyed.iter().find(|key| key["key_id"] == id).cloned();
    ensure!(of(&old).is_some_and(|key| key["threshold"] == "revoked"), "{obeyed:?}");
    let rollout = story::begin(&server, "1")?;
    ended(&server.api()?, rollout, RolloutState::Succeeded).await?;
    answers_with(&device, "1").await?;
    ensure!(device.process.id() == agent, "the agent was restarted");
    let last = server.ctl_to_end(&[
        "key",
        "revoke",
        obeyed[1]["key_id"].as_str().unwrap_or(""),
        "--reason",
        "x",
        "--key",
        &on_call,
    ])?;
    ensure!(last.2.contains("only director key"), "{}", last.2);
    Ok(())
}

#[tokio::test]
async fn a_device_that_was_away_while_the_director_was_replaced_is_told_anew() -> anyhow::Result<()>
{
    let directory = tempfile::tempdir()?;
    let server = server(directory.path()).await?;
    let mut device = device(&server, directory.path()).await?;
    server.publish(&model_directory("v1"), "1")?;
    server.publish(&model_directory("v2"), "2")?;
    story::roll_out(&server, "1").await?;
    let api = server.api()?;
    device.process.kill()?;
    let rollout = story::begin(&server, "2")?;
    let path = format!("devices/{}/timeline?limit=200", device.id);
    until("the device is told of version 2", SOON, || async {
        let entries: Vec<TimelineEntry> = api.list(&path).await?;
        let is_told =
            entries.iter().any(|entry| entry.text.contains("told to run vision/digits 2"));
        Ok(if is_told {
            Look::Done(())
        } else {
            Look::NotYet(format!("{} entries", entries.len()))
        })
    })
    .await?;
    let old = keys(&server, "director")?;
    let old = old[0]["key_id"].as_str().context("an id")?.to_owned();

    let file = |name: &str| text(&server.offline_key(name));
    let with = ["--key", &file("targets-1"), "--key", &file("targets-2")].map(str::to_owned);
    let with: Vec<_> = with.iter().map(String::as_str).collect();
    server.ctl(&[&["key", "rotate", "director"], &with[..]].concat())?;
    let revoke = ["key", "revoke", &old, "--reason", "stolen", "--key", &file("revocations-1")]
        .map(str::to_owned);
    server.ctl(&revoke.iter().map(String::as_str).collect::<Vec<_>>())?;
    device.process.restart()?;
    device.ready().await?;

    ended(&api, rollout, RolloutState::Succeeded).await?;
    answers_with(&device, "2").await
}

#[tokio::test]
async fn a_stolen_directors_key_is_revoked_at_once_and_another_follows() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut server = server(directory.path()).await?;
    let device = device(&server, directory.path()).await?;
    server.publish(&model_directory("v1"), "1")?;
    let stolen = keys(&server, "director")?;
    let stolen = stolen[0]["key_id"].as_str().context("an id")?.to_owned();
    let on_call = text(&server.offline_key("revocations-1"));

    server.ctl(&["key", "revoke", &stolen, "--last", "--reason", "stolen", "--key", &on_call])?;
    // A restart in between must not lock the operators out.
    server.process.stop()?;
    server.process.restart()?;
    server.ready().await?;
    let status: Status = server.api()?.get("status").await?;
    let finding = status.attention.iter().find(|item| item.title.contains("devices obey none"));
    ensure!(finding.is_some_and(|it| it.severity == "critical"), "{:?}", status.attention);
    let targets = ["targets-1", "targets-2"].map(|name| text(&server.offline_key(name)));
    server.ctl(&["key", "rotate", "director", "--key", &targets[0], "--key", &targets[1]])?;

    story::roll_out(&server, "1").await?;
    answers_with(&device, "1").await?;
    let status: Status = server.api()?.get("status").await?;
    ensure!(!status.attention.iter().any(|item| item.title.contains("devices obey none")));
    Ok(())
}

#[tokio::test]
async fn the_servers_own_keys_are_replaced_while_devices_follow() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut server = server(directory.path()).await?;
    let device = device(&server, directory.path()).await?;
    let roots = ["root-1", "root-2"].map(|name| text(&server.offline_key(name)));
    for role in ["snapshot", "timestamp"] {
        let file = server.data().join(format!("keys/{role}.pem"));
        let before = fs::read(&file)?;
        server.ctl(&["key", "rotate", role, "--key", &roots[0], "--key", &roots[1]])?;
        ensure!(fs::read(&file)? != before, "{role} has its old key");
        ensure!(keys(&server, role)?.len() == 1, "{role} has two keys");
    }
    server.publish(&model_directory("v1"), "1")?;
    story::roll_out(&server, "1").await?;
    answers_with(&device, "1").await?;
    server.process.stop()?;
    server.process.restart()?;
    server.ready().await
}
