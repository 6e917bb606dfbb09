//! An image is revoked: how long until no device serves it, by each policy, connected or not, on both brokers.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use sealift_protocol::api::{AlertView, RolloutState, RolloutView, VersionState, VersionView};
use sealift_protocol::id::RolloutId;
use sealift_tests::digits::{MODEL, Rows, as_version, directory as model_directory};
use sealift_tests::fleet::{Api, Device, DeviceOptions, Options, Server};
use sealift_tests::mosquitto::Mosquitto;
use sealift_tests::needs::onnxruntime;
use sealift_tests::story::{self, SOON, TIMING, answers_with, ended, security_event, serving};
use sealift_tests::wait::{Look, until};
use serde_json::{Value, json};

/// A revoked image has left a connected device after this time.
const GONE_MAX: Duration = Duration::from_secs(5);

/// What each device runs, by what its image wants to happen when it is revoked.
const POLICIES: [(&str, &str, &str); 3] =
    [("cam-1", "2.1", "fallback"), ("cam-2", "2.2", "stop"), ("cam-3", "2.3", "keep-with-alarm")];

async fn devices(server: &Server, directory: &Path) -> anyhow::Result<Vec<Device>> {
    let options = DeviceOptions {
        labels: vec!["site=tokyo".to_owned()],
        onnxruntime: Some(onnxruntime()?),
        extra: String::new(),
    };
    let mut devices = Vec::new();
    for (name, ..) in POLICIES {
        devices.push(Device::start(server, directory, name, &options).await?);
    }
    Ok(devices)
}

fn begin(server: &Server, version: &str, device: &str) -> anyhow::Result<RolloutId> {
    let (version, filter) = (format!("{MODEL}@{version}"), format!("id:{device}"));
    let create = ["rollout", "create", &version, "-l", &filter, "--probation-s", "1"];
    let create = [&create[..], &["--watch-s", "600", "--reason", "story"]].concat();
    let view: RolloutView = serde_json::from_value(server.ctl_json(&create)?)?;
    Ok(view.id)
}

fn revoke(server: &Server, version: &str) -> anyhow::Result<()> {
    let key = server.offline_key("revocations-1").display().to_string();
    let image = format!("{MODEL}@{version}");
    server.ctl(&["revoke", "image", &image, "--reason", "poisoned data", "--key", &key])?;
    Ok(())
}

/// Version 1 everywhere, then an image of its own on each device.
async fn fleet(server: &Server, directory: &Path) -> anyhow::Result<Vec<Device>> {
    let devices = devices(server, directory).await?;
    server.publish(&model_directory("v1"), "1")?;
    story::roll_out(server, "1").await?;
    let api = server.api()?;
    for (name, version, on_revoked) in POLICIES {
        let policy = format!("[policy]\non_revoked = \"{on_revoked}\"\n");
        server.publish(&as_version(directory, version, &policy)?, version)?;
        let rollout = begin(server, version, name)?;
        ended(&api, rollout, RolloutState::Succeeded).await?;
    }
    Ok(devices)
}

/// Waits until the server knows by the device's own report what it serves now.
async fn reports(api: &Api, device: &Device, expected: Option<&str>) -> anyhow::Result<()> {
    until(&format!("{} reports to serve {expected:?}", device.id), SOON, || async {
        let found = serving(&api.device(&device.id).await?);
        let is_reached = found.as_deref() == expected;
        Ok(if is_reached { Look::Done(()) } else { Look::NotYet(format!("{found:?}")) })
    })
    .await
}

/// Asks the model; returns status and body.
async fn ask(device: &Device) -> anyhow::Result<(u16, Value)> {
    let url = format!("{}/v2/models/{MODEL}/infer", device.endpoint()?);
    let request = Rows::held_out()?.batch(0, 1).request();
    let response = reqwest::Client::new().post(url).json(&request).send().await?;
    Ok((response.status().as_u16(), response.json().await?))
}

/// Revokes one image after the other, and looks from outside at what becomes of it.
async fn each_policy_is_followed(server: &Server, devices: &[Device]) -> anyhow::Result<()> {
    let api = server.api()?;
    let [first, second, third] = devices else { anyhow::bail!("three devices") };

    let begun = Instant::now();
    revoke(server, "2.1")?;
    reports(&api, first, Some("1")).await?;
    within(begun, "fallback")?;
    answers_with(first, "1").await?;

    let begun = Instant::now();
    revoke(server, "2.2")?;
    reports(&api, second, None).await?;
    within(begun, "stop")?;
    let (status, body) = ask(second).await?;
    let error = body["error"].as_str().context("a reason")?;
    ensure!(status == 503, "{status} {body}");
    ensure!(error.contains("version 2.2 was revoked"), "{error}");

    let begun = Instant::now();
    revoke(server, "2.3")?;
    security_event(&api, &third.id, "image.revoked").await?;
    within(begun, "keep-with-alarm")?;
    reports(&api, third, Some("2.3")).await?;
    answers_with(third, "2.3").await?;
    until("a critical alert is open", SOON, || async {
        let alerts: Vec<AlertView> = api.list("alerts?limit=100").await?;
        let is_meant = |alert: &&AlertView| {
            alert.severity == "critical" && alert.detail.contains("deny list")
                || alert.title.contains("image.revoked")
        };
        let found = alerts.iter().any(|alert| is_meant(&alert));
        Ok(if found { Look::Done(()) } else { Look::NotYet(format!("{alerts:?}")) })
    })
    .await
}

fn within(begun: Instant, policy: &str) -> anyhow::Result<()> {
    let took = begun.elapsed();
    println!("{policy}: {:.2} s from the submission to the report", took.as_secs_f64());
    ensure!(took < GONE_MAX, "{policy} took {took:?}");
    Ok(())
}

async fn nothing_brings_it_back(server: &Server) -> anyhow::Result<()> {
    let api = server.api()?;
    for (name, version, _) in POLICIES {
        let view: VersionView = api.get(&format!("models/{MODEL}/versions/{version}")).await?;
        ensure!(view.state == VersionState::Quarantined, "{version} is {:?}", view.state);
        ensure!(view.quarantine_reason.as_deref() == Some("revoked: poisoned data"), "{view:?}");
        ensure!(begin(server, version, name).is_err(), "{version} could be rolled out again");
    }
    let listed = server.ctl_json(&["revoke", "list"])?;
    let entries = listed.as_array().context("a list")?;
    ensure!(entries.len() == POLICIES.len(), "{listed}");
    ensure!(entries.iter().all(|entry| entry["reason"] == json!("poisoned data")), "{listed}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn revoked_images_leave_connected_devices_within_5_s_with_the_embedded_broker()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory.path(), &options).await?;
    let devices = fleet(&server, directory.path()).await?;

    each_policy_is_followed(&server, &devices).await?;
    nothing_brings_it_back(&server).await
}

#[tokio::test]
#[ignore = "needs ONNX Runtime and mosquitto"]
async fn revoked_images_leave_connected_devices_within_5_s_with_mosquitto() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    Server::init(directory.path())?;
    let names = POLICIES.map(|(name, ..)| name);
    let broker = Mosquitto::start(directory.path(), &names)?;
    let options =
        Options { mqtt: Some(broker.section()), extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory.path(), &options).await?;
    let devices = fleet(&server, directory.path()).await?;

    each_policy_is_followed(&server, &devices).await?;
    nothing_brings_it_back(&server).await
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn a_device_that_was_off_learns_of_it_when_it_returns_and_a_rollout_in_progress_halts()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory.path(), &options).await?;
    let mut devices = fleet(&server, directory.path()).await?;
    let api = server.api()?;
    devices[0].process.kill()?;
    // The second wave waits for ten minutes of the first.
    let version = format!("{MODEL}@2.1");
    let create = ["rollout", "create", &version, "--filter=-id:cam-1", "--waves", "1:10m,100%"];
    let create = [&create[..], &["--probation-s", "1", "--reason", "story"]].concat();
    let view: RolloutView = serde_json::from_value(server.ctl_json(&create)?)?;

    revoke(&server, "2.1")?;

    let halted = ended(&api, view.id, RolloutState::Halted).await?;
    ensure!(halted.why.contains("2.1 was revoked: poisoned data"), "{}", halted.why);
    let resume = ["rollout", "resume", &view.id.to_string(), "--reason", "story"];
    ensure!(server.ctl(&resume).is_err(), "a rollout of a revoked image goes on");
    devices[0].process.restart()?;
    devices[0].ready().await?;
    reports(&api, &devices[0], Some("1")).await?;
    answers_with(&devices[0], "1").await
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn a_revoked_director_and_a_revoked_device_are_refused() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory.path(), &options).await?;
    let devices = devices(&server, directory.path()).await?;
    server.publish(&model_directory("v1"), "1")?;
    story::roll_out(&server, "1").await?;
    let api = server.api()?;
    let key = server.offline_key("revocations-1").display().to_string();
    let because = ["--reason", "stolen", "--key", &key];

    let serial = serial_of(&api, &devices[1]).await?;
    let denied = server.ctl(&[&["revoke", "device", "cam-2"], &because[..]].concat())?;
    ensure!(denied.contains(&serial), "{denied}");
    let twice = server.ctl(&[&["revoke", "device", &serial], &because[..]].concat());
    ensure!(twice.is_err_and(|error| error.to_string().contains("already")), "it was not denied");
    let nobody = server.ctl(&[&["revoke", "device", "cam-9"], &because[..]].concat());
    ensure!(nobody.is_err_and(|error| error.to_string().contains("neither a device")), "who?");
    until("the device is revoked", SOON, || async {
        let view: Value = api.get("devices/cam-2").await?;
        let is_revoked = view["state"] == "revoked";
        Ok(if is_revoked { Look::Done(()) } else { Look::NotYet(view["state"].to_string()) })
    })
    .await?;
    answers_with(&devices[1], "1").await?;

    let unknown = server.ctl(&[&["revoke", "director", "0123456789abcdef"], &because[..]].concat());
    let refused = format!("{:#}", unknown.err().context("an unknown key was revoked")?);
    let director = refused.rsplit(": ").next().context("a key id")?.trim().to_owned();
    server.ctl(&[&["revoke", "director", &director[..12]], &because[..]].concat())?;
    server.publish(&model_directory("v2"), "2")?;
    begin(&server, "2", "cam-1")?;
    security_event(&api, &devices[0].id, "cose.key").await?;
    answers_with(&devices[0], "1").await
}

/// The serial number of a device's certificate, as the server issued it.
async fn serial_of(api: &Api, device: &Device) -> anyhow::Result<String> {
    let view: Value = api.get(&format!("devices/{}", device.id)).await?;
    Ok(view["certificate_serial"].as_str().context("no serial number")?.to_owned())
}
