//! Processes that die at the worst moment: the loop carries on, and nothing is lost or stuck.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use sealift_protocol::api::RolloutState;
use sealift_protocol::profile::Profile;
use sealift_tests::digits::{Rows, directory as model_directory};
use sealift_tests::fleet::{Device, DeviceOptions, Options, Server};
use sealift_tests::needs::onnxruntime;
use sealift_tests::story::{self, SOON, TIMING, answers_with, ended};
use sealift_tests::wait::{Look, until};

/// A server and one device that serves version 1; version 2 is published.
async fn fleet(directory: &Path) -> anyhow::Result<(Server, Device)> {
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory, &options).await?;
    let options = DeviceOptions {
        labels: vec!["site=tokyo".to_owned()],
        onnxruntime: Some(onnxruntime()?),
        extra: String::new(),
    };
    let device = Device::start(&server, directory, "cam-1", &options).await?;
    server.publish(&model_directory("v1"), "1")?;
    server.publish(&model_directory("v2"), "2")?;
    story::roll_out(&server, "1").await?;
    Ok((server, device))
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn a_server_killed_in_the_middle_of_a_rollout_finishes_it() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (mut server, device) = fleet(directory.path()).await?;

    let rollout = story::begin(&server, "2")?;
    server.process.kill()?;
    answers_with(&device, "1").await?;
    server.process.restart()?;
    server.ready().await?;

    ended(&server.api()?, rollout, RolloutState::Succeeded).await?;
    answers_with(&device, "2").await
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn an_agent_killed_in_the_middle_of_a_rollout_finishes_it() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, mut device) = fleet(directory.path()).await?;

    let rollout = story::begin(&server, "2")?;
    for pause_ms in [0, 400] {
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        device.process.kill()?;
        device.process.restart()?;
        device.ready().await?;
    }

    ended(&server.api()?, rollout, RolloutState::Succeeded).await?;
    answers_with(&device, "2").await
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn an_agent_without_its_server_serves_what_it_served() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (mut server, mut device) = fleet(directory.path()).await?;

    server.process.kill()?;
    device.process.kill()?;
    device.process.restart()?;
    device.ready().await?;

    answers_with(&device, "1").await
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn a_killed_worker_is_replaced_and_the_device_answers_on() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (_server, device) = fleet(directory.path()).await?;
    let worker = worker_of(device.process.id())?;

    kill_process(worker, Signal::KILL)?;

    until("another worker has taken over", SOON, || async {
        let now = worker_of(device.process.id())?;
        Ok(if now == worker { Look::NotYet("the same".to_owned()) } else { Look::Done(()) })
    })
    .await?;
    answers_with(&device, "1").await
}

fn worker_of(agent: u32) -> anyhow::Result<Pid> {
    for task in fs::read_dir(format!("/proc/{agent}/task"))? {
        let children = fs::read_to_string(task?.path().join("children"))?;
        if let Some(child) = children.split_whitespace().next() {
            return Pid::from_raw(child.parse()?).context("a process id is not 0");
        }
    }
    anyhow::bail!("the agent has no worker")
}

/// The embedded broker keeps its sessions in memory: killing the server is a broker that lost its whole store.
#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn a_broker_killed_with_its_store_lost_loses_no_row() -> anyhow::Result<()> {
    const REQUESTS: usize = 240;
    const ROWS: usize = 10;
    let directory = tempfile::tempdir()?;
    let (mut server, device) = fleet(directory.path()).await?;
    let (caller, rows) = (device.caller(), Rows::held_out()?);

    for request in 0..REQUESTS {
        if request % 80 == 40 {
            server.process.kill()?;
        }
        if request % 80 == 79 {
            server.process.restart()?;
            server.ready().await?;
        }
        caller.infer(&rows.batch(request * ROWS, ROWS)).await?;
    }

    let stored = until("every row is stored", SOON, || async {
        let stored = stored_rows(&server).await?;
        let is_all = stored >= REQUESTS * ROWS;
        Ok(if is_all { Look::Done(stored) } else { Look::NotYet(format!("{stored} rows")) })
    })
    .await?;
    assert_eq!(stored, REQUESTS * ROWS, "each row is stored once");
    Ok(())
}

async fn stored_rows(server: &Server) -> anyhow::Result<usize> {
    sqlx::any::install_default_drivers();
    let database = format!("sqlite://{}?mode=ro", server.data().join("fleet.db").display());
    let pool = sqlx::AnyPool::connect(&database).await?;
    let query = sqlx::query_scalar("SELECT body FROM profile_windows");
    let windows: Vec<Vec<u8>> = query.fetch_all(&pool).await?;
    pool.close().await;
    let rows = windows.iter().map(|window| anyhow::Ok(Profile::decode(window)?.rows()));
    Ok(usize::try_from(rows.sum::<anyhow::Result<u64>>()?)?)
}
