//! Steps that several stories share.

use std::time::Duration;

use anyhow::ensure;
use sealift_protocol::api::{
    AlertView, DeviceView, DriftView, RolloutState, RolloutView, TimelineEntry,
};
use sealift_protocol::id::{DeviceId, RolloutId};
use tokio::time::sleep;

use crate::digits::{MODEL, Rows};
use crate::fleet::{Api, Device, Server};
use crate::wait::{Look, until};

/// A rollout to a few devices on a busy machine.
pub const ROLLOUT_LIMIT: Duration = Duration::from_mins(3);
/// Anything that a device or server does by itself within seconds.
pub const SOON: Duration = Duration::from_mins(1);
/// Short intervals for the server, so that a story does not wait.
pub const TIMING: &str = "[timing]\nreconcile_ms = 200\ndrift_interval_s = 1\n";

/// Begins a rollout of a version to all devices, with a probation of a second.
pub fn begin(server: &Server, version: &str) -> anyhow::Result<RolloutId> {
    let version = format!("{MODEL}@{version}");
    let create = [
        "rollout",
        "create",
        &version,
        "--probation-s",
        "1",
        "--watch-s",
        "600",
        "--reason",
        "story",
    ];
    let view: RolloutView = serde_json::from_value(server.ctl_json(&create)?)?;
    Ok(view.id)
}

/// Rolls a version out to all devices, and waits until it has succeeded.
pub async fn roll_out(server: &Server, version: &str) -> anyhow::Result<RolloutView> {
    let id = begin(server, version)?;
    ended(&server.api()?, id, RolloutState::Succeeded).await
}

/// Waits until a rollout is in this state.
pub async fn ended(
    api: &Api,
    id: RolloutId,
    expected: RolloutState,
) -> anyhow::Result<RolloutView> {
    until(&format!("rollout {id} is {expected:?}"), ROLLOUT_LIMIT, || async {
        let view = api.rollout(id).await?;
        let at = format!("{:?}: {} {:?}", view.state, view.why, view.progress);
        Ok(if view.state == expected { Look::Done(view) } else { Look::NotYet(at) })
    })
    .await
}

/// What a device reports to serve of the digits.
pub fn serving(device: &DeviceView) -> Option<String> {
    let slot = device.slots.iter().find(|slot| slot.model.to_string() == MODEL)?;
    slot.serving.as_ref().map(ToString::to_string)
}

/// Asks the device itself which version answers.
pub async fn answers_with(device: &Device, version: &str) -> anyhow::Result<()> {
    let caller = device.caller();
    let batch = Rows::held_out()?.batch(0, 4);
    until(&format!("{} answers with {version}", device.id), SOON, || async {
        let (_, given) = caller.infer(&batch).await?;
        Ok(if given == version { Look::Done(()) } else { Look::NotYet(given) })
    })
    .await
}

/// Sends `requests` requests of ten rows; fails if one is not answered.
pub async fn ask(device: &Device, requests: usize) -> anyhow::Result<()> {
    let (caller, rows) = (device.caller(), Rows::held_out()?);
    for request in 0..requests {
        caller.infer(&rows.batch(request * 10, 10)).await?;
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Waits until the server has judged rows of the fleet.
pub async fn profiles_arrive(api: &Api) -> anyhow::Result<()> {
    until("profiles of the fleet are judged", SOON, || async {
        let verdicts: Vec<DriftView> = api.list("drift?limit=1000").await?;
        let judged = verdicts.iter().any(|verdict| verdict.scope == "fleet" && verdict.rows > 0);
        Ok(if judged {
            Look::Done(())
        } else {
            Look::NotYet(format!("{} verdicts", verdicts.len()))
        })
    })
    .await
}

/// Waits until an alert says that something drifted in `scope`.
pub async fn drift_alert(api: &Api, scope: &str) -> anyhow::Result<AlertView> {
    until(&format!("an alert about {scope}"), SOON, || async {
        let alerts: Vec<AlertView> = api.list("alerts?limit=1000").await?;
        let is_about = |alert: &&AlertView| alert.labels.get("scope").is_some_and(|at| at == scope);
        let found = alerts.iter().find(is_about).cloned();
        Ok(found.map_or_else(|| Look::NotYet(format!("{} alerts", alerts.len())), Look::Done))
    })
    .await
}

/// Waits until a device's timeline has a security event with this code.
pub async fn security_event(
    api: &Api,
    device: &DeviceId,
    code: &str,
) -> anyhow::Result<TimelineEntry> {
    until(&format!("{device} tells of {code}"), SOON, || async {
        let path = format!("devices/{device}/timeline?limit=200");
        let entries: Vec<TimelineEntry> = api.list(&path).await?;
        let found = entries.iter().find(|entry| entry.code == code && entry.severity == "security");
        let codes: Vec<_> = entries.iter().map(|entry| entry.code.as_str()).collect();
        Ok(found.cloned().map_or_else(|| Look::NotYet(format!("{codes:?}")), Look::Done))
    })
    .await
}

/// The loop of every set-up: version 1 to all, version 2 under traffic, profiles back, and back to version 1 again.
pub async fn whole_loop(server: &Server, devices: &[Device]) -> anyhow::Result<()> {
    server.publish(&crate::digits::directory("v1"), "1")?;
    server.publish(&crate::digits::directory("v2"), "2")?;
    roll_out(server, "1").await?;
    for device in devices {
        answers_with(device, "1").await?;
    }

    let second = begin(server, "2")?;
    for device in devices {
        ask(device, 100).await?;
    }
    let api = server.api()?;
    ended(&api, second, RolloutState::Succeeded).await?;
    for device in devices {
        answers_with(device, "2").await?;
        ask(device, 100).await?;
    }
    profiles_arrive(&api).await?;

    server.ctl(&["rollback", MODEL, "--reason", "the story says so", "--yes", "--wait"])?;
    for device in devices {
        let view = api.device(&device.id).await?;
        ensure!(
            serving(&view).as_deref() == Some("1"),
            "{} reports {:?}",
            device.id,
            serving(&view)
        );
        answers_with(device, "1").await?;
    }
    Ok(())
}
