//! A device through everything that can happen to it: real agents, killed, misled and neglected.

#[path = "device/behaviour.rs"]
mod behaviour;
#[path = "device/clock.rs"]
mod clock;
#[path = "device/crash.rs"]
mod crash;
#[path = "device/faults.rs"]
mod faults;
#[path = "device/hang.rs"]
mod hang;
#[path = "device/kill.rs"]
mod kill;
#[path = "device/lease.rs"]
mod lease;
#[path = "device/owner.rs"]
mod owner;
#[path = "device/shadow.rs"]
mod shadow;
#[path = "device/workers.rs"]
mod workers;

use std::path::Path;

use sealift_protocol::report::{Outcome, OutcomeKind};
use sealift_tests::digits::{MODEL, directory as model_directory};
use sealift_tests::fleet::{Api, Device, DeviceOptions, Options, Server};
use sealift_tests::needs::onnxruntime;
use sealift_tests::story::{self, SOON, TIMING};
use sealift_tests::wait::{Look, until};

/// A server and a device that serves version 1. The device's agent has these variables, and pretends if it has no library.
async fn serving_1(
    directory: &Path,
    options: &DeviceOptions,
    environment: &[(&str, &str)],
) -> anyhow::Result<(Server, Device)> {
    let server_options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory, &server_options).await?;
    let mut device = Device::begin(&server, directory, "cam-1", (options, environment))?;
    device.ready().await?;
    server.publish(&model_directory("v1"), "1")?;
    story::roll_out(&server, "1").await?;
    Ok((server, device))
}

/// An agent without an inference library, which asks for its directive every other second.
fn pretending() -> DeviceOptions {
    DeviceOptions { labels: Vec::new(), onnxruntime: None, extra: String::new() }
}

/// The same with ONNX Runtime.
fn inferring() -> anyhow::Result<DeviceOptions> {
    Ok(DeviceOptions { onnxruntime: Some(onnxruntime()?), ..pretending() })
}

/// Waits until the device says how its attempt at a version ended.
async fn outcome_of(api: &Api, device: &Device, version: &str) -> anyhow::Result<Outcome> {
    until(&format!("the attempt at {version} has ended"), SOON, || async {
        let view = api.device(&device.id).await?;
        let slot = view.slots.into_iter().find(|slot| slot.model.to_string() == MODEL);
        let outcome = slot.and_then(|slot| slot.outcome);
        let found = outcome.clone().filter(|outcome| outcome.image.version.as_str() == version);
        Ok(found.map_or_else(|| Look::NotYet(format!("{outcome:?}")), Look::Done))
    })
    .await
}

/// The same, and that it ended with this result and code.
async fn ends_with(
    (api, device): (&Api, &Device),
    version: &str,
    (result, code): (OutcomeKind, &str),
) -> anyhow::Result<Outcome> {
    let outcome = until(&format!("version {version} ends as {result:?}"), SOON, || async {
        let outcome = outcome_of(api, device, version).await?;
        let is_it = outcome.result == result;
        Ok(if is_it { Look::Done(outcome) } else { Look::NotYet(format!("{outcome:?}")) })
    })
    .await?;
    anyhow::ensure!(outcome.code == code, "{outcome:?}");
    Ok(outcome)
}
