//! Workers that die: whoever asks does not notice, and nothing of them is left.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::ensure;
use sealift_tests::digits::{MODEL, Rows, as_version};
use sealift_tests::fleet::Device;
use sealift_tests::story::{SOON, answers_with};
use sealift_tests::wait::{Look, until};

use super::workers::{self, newest};
use super::{inferring, serving_1};

/// Who asks without a pause, and which versions have answered since it was looked at.
#[derive(Default)]
struct Askers {
    is_over: AtomicBool,
    answered: Mutex<BTreeSet<String>>,
}

impl Askers {
    /// Asks until it is over; fails with the first request that is not answered.
    async fn ask(&self, device: &Device, from: usize) -> anyhow::Result<u32> {
        let (caller, rows) = (device.caller(), Rows::held_out()?);
        let mut requests = 0;
        while !self.is_over.load(Ordering::Relaxed) {
            let (_, version) = caller.infer(&rows.batch(from, 2)).await?;
            self.answered.lock().unwrap().insert(version);
            requests += 1;
        }
        Ok(requests)
    }

    async fn see(&self, version: &str) -> anyhow::Result<()> {
        self.answered.lock().unwrap().clear();
        until(&format!("version {version} answers"), SOON, || async {
            let answered = self.answered.lock().unwrap().clone();
            Ok(if answered.contains(version) {
                Look::Done(())
            } else {
                Look::NotYet(format!("{answered:?}"))
            })
        })
        .await
    }
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn when_the_worker_of_a_new_image_is_killed_the_old_one_answers_and_then_gives_its_memory_back()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, device) = serving_1(directory.path(), &inferring()?, &[]).await?;
    server.publish(&as_version(directory.path(), "2.1", "")?, "2.1")?;
    let askers = Askers::default();
    let story = async {
        let ended = async {
            let version = format!("{MODEL}@2.1");
            let create =
                ["rollout", "create", &version, "--probation-s", "600", "--reason", "story"];
            server.ctl(&create)?;
            askers.see("2.1").await?;
            ensure!(workers::all(&device)?.len() == 2, "the old worker is kept warm");
            let killed = newest(&device, None).await?;
            // Between the kill and the next worker, the old one is the only one there is.
            killed.kill()?;
            askers.see("1").await?;
            askers.see("2.1").await?;
            newest(&device, Some(killed)).await?;
            until("the old worker has ended", SOON, || async {
                let left = workers::all(&device)?;
                Ok(if left.len() == 1 { Look::Done(()) } else { Look::NotYet(format!("{left:?}")) })
            })
            .await?;
            askers.see("2.1").await
        }
        .await;
        askers.is_over.store(true, Ordering::Relaxed);
        ended
    };
    let [one, two, three] = [0, 20, 40].map(|from| askers.ask(&device, from));

    let (ended, one, two, three) = tokio::join!(story, one, two, three);

    ended?;
    let requests = one? + two? + three?;
    ensure!(requests > 100, "{requests} requests were asked");
    Ok(())
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn workers_end_with_their_agent_and_are_started_again_with_it() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (_server, mut device) = serving_1(directory.path(), &inferring()?, &[]).await?;
    answers_with(&device, "1").await?;
    let before = newest(&device, None).await?;

    device.process.kill()?;

    until("the worker has ended with its agent", SOON, || async {
        Ok(if before.is_running() { Look::NotYet(format!("{before:?}")) } else { Look::Done(()) })
    })
    .await?;
    device.process.restart()?;
    device.ready().await?;
    answers_with(&device, "1").await?;
    newest(&device, Some(before)).await?;
    Ok(())
}
