//! The fleet server's disk is stolen, with every online key on it. No device runs an image that no publisher signed.

use std::path::Path;

use anyhow::ensure;
use sealift_tests::digits::directory as model_directory;
use sealift_tests::fleet::{Device, DeviceOptions, Options, Server};
use sealift_tests::needs::onnxruntime;
use sealift_tests::story::{TIMING, answers_with};
use sealift_tests::thief::{self, Attack, TEAMS, Thief};

/// A device that has kept a good version of security epoch 2, and whose server was then stolen.
async fn theft(directory: &Path) -> anyhow::Result<(Thief, Device, String)> {
    Server::init_for(directory, &TEAMS)?;
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory, &options).await?;
    let options = DeviceOptions {
        labels: vec!["site=tokyo".to_owned()],
        onnxruntime: Some(onnxruntime()?),
        extra: String::new(),
    };
    let mut device = Device::start(&server, directory, "cam-1", &options).await?;
    server.publish(&model_directory("v1"), "1")?;
    let targets = thief::prepare(&server, directory, "1").await?;
    let good = targets.good.clone();
    thief::hurry(directory, &mut device).await?;
    answers_with(&device, &good).await?;
    let thief = Thief::steal(server, directory, targets).await?;
    Ok((thief, device, good))
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn a_stolen_server_with_every_online_key_runs_no_image_that_no_publisher_signed()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (mut thief, mut device, good) = theft(directory.path()).await?;

    for attack in Attack::ALL {
        let refused = thief.attempt(attack, &device).await?;
        println!("{:<58} {:<26} {:.1} s", attack.name(), refused.code, refused.seconds);
    }

    // Nothing that was tried has left a trace that a restart brings to life.
    device.process.kill()?;
    device.process.restart()?;
    device.ready().await?;
    answers_with(&device, &good).await?;
    let log = device.process.log();
    ensure!(!log.contains("panicked"), "{}", device.process.log_tail());
    Ok(())
}
