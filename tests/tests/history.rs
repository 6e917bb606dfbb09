//! What was seen is looked back at after the windows, and what one device has sent is deleted on request.

use anyhow::{Context as _, ensure};
use sealift_tests::digits::{MODEL, directory as model_directory};
use sealift_tests::fleet::{Device, DeviceOptions, Options, Server};
use sealift_tests::needs::onnxruntime;
use sealift_tests::story::{self, SOON, TIMING, ask, profiles_arrive};
use sealift_tests::wait::{Look, until};
use serde_json::Value;

/// How the predictions of a scope stood in the days known, or an empty list.
fn history(server: &Server, scope: &str) -> anyhow::Result<Vec<Value>> {
    let points = server.ctl_json(&["drift", "history", MODEL, scope, "prediction"])?;
    points.as_array().cloned().context("a list")
}

fn rows(points: &[Value]) -> u64 {
    points.iter().filter_map(|point| point["rows"].as_u64()).sum()
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn a_device_is_forgotten_in_every_hour_of_the_fleet() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory.path(), &options).await?;
    let mut devices = Vec::new();
    for site in ["tokyo", "osaka"] {
        let options = DeviceOptions {
            labels: vec![format!("site={site}")],
            onnxruntime: Some(onnxruntime()?),
            extra: String::new(),
        };
        let id = format!("cam-{site}");
        devices.push(Device::start(&server, directory.path(), &id, &options).await?);
    }
    server.publish(&model_directory("v1"), "1")?;
    story::roll_out(&server, "1").await?;
    for device in &devices {
        ask(device, 40).await?;
    }
    profiles_arrive(&server.api()?).await?;
    let scopes = ["device:cam-tokyo", "device:cam-osaka"];
    let seen = until("all rows are in hours", SOON, || async {
        let seen = scopes.map(|scope| history(&server, scope).map(|points| rows(&points)));
        let seen: Vec<_> = seen.into_iter().collect::<anyhow::Result<_>>()?;
        let fleet = rows(&history(&server, "fleet")?);
        let is_all = seen == [400, 400] && fleet == 800;
        Ok(if is_all { Look::Done(seen) } else { Look::NotYet(format!("{seen:?}, {fleet}")) })
    })
    .await?;

    let forget = ["device", "forget", "cam-osaka", "--reason", "their wish", "--yes"];
    let gone = server.ctl_json(&forget)?;

    ensure!(gone["windows"].as_u64() > Some(0) && gone["spans"].as_u64() > Some(0), "{gone}");
    ensure!(rows(&history(&server, "fleet")?) == seen[0], "{:?}", history(&server, "fleet"));
    for scope in ["device:cam-osaka", "site=osaka"] {
        ensure!(history(&server, scope)?.is_empty(), "{scope} is not forgotten");
    }
    let log = server.ctl_json(&["audit", "list"])?.to_string();
    ensure!(log.contains("device.forget") && log.contains("their wish"), "{log}");
    Ok(())
}
