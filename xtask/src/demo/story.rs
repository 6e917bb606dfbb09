//! The steps of the demo. Each is verified from outside: through the HTTP API and the devices' own endpoints.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use sealift_protocol::api::{
    AlertView, DeviceState, DeviceView, DriftState, DriftView, RolloutState, RolloutView,
    VersionState, VersionView,
};
use sealift_protocol::id::RolloutId;
use sealift_tests::digits::{MODEL, Rows, directory as model_directory};
use sealift_tests::fleet::Server;
use sealift_tests::wait::{Look, until};
use serde_json::json;
use tokio::time::sleep;

use super::fleet::{Fleet, SITES, start_server};
use super::stage::Stage;

/// A whole wave on a busy machine, with its probation.
const ROLLOUT_LIMIT: Duration = Duration::from_mins(5);
const ENROL_LIMIT: Duration = Duration::from_mins(3);
const DRIFT_LIMIT: Duration = Duration::from_mins(2);
/// Ordinary traffic after which nothing may be said to drift.
const QUIET: Duration = Duration::from_secs(4);
/// What the weaker of the two versions reaches on rows that it has not seen.
const ACCURACY_MIN: f64 = 0.85;

/// Tells the whole story; returns the fleet, still running.
pub(super) async fn run(
    stage: &mut Stage,
    simulated: u32,
    directory: &Path,
    onnxruntime: PathBuf,
) -> anyhow::Result<Fleet> {
    let server = stage.step("A fleet server starts, with its own keys", server(directory)).await?;
    let enrol = enrol(server, directory, simulated, onnxruntime);
    let mut fleet = stage.step("Devices enrol with keys they made themselves", enrol).await?;
    stage.step("Two versions of a model are published and signed", publish(&fleet)).await?;
    stage.step("Version 1 is rolled out to all", roll_out_first(&fleet)).await?;
    fleet.start_traffic()?;
    stage.step("Applications ask the devices", ordinary_traffic(&fleet)).await?;
    stage.step("Version 2 is rolled out in waves, canary first", roll_out_second(&fleet)).await?;
    stage.step("The digits of one site drift", drift(&fleet)).await?;
    stage.step("An operator goes back to version 1", roll_back(&fleet)).await?;
    Ok(fleet)
}

type Step<T> = anyhow::Result<(T, String)>;

async fn server(directory: &Path) -> Step<Server> {
    let server = start_server(directory).await?;
    let unauthorised = reqwest::get(format!("{}/api/v1/status", server.endpoints.operator_url));
    let status = unauthorised.await?.status();
    ensure!(status == 401, "without a token the API answers {status}, not 401");
    let offline = server.offline_key("root-1");
    ensure!(offline.exists(), "there is no {}", offline.display());
    let found = format!(
        "operators {}, devices {} (TLS), broker {} (TLS); offline keys are apart, in offline-keys/",
        server.endpoints.operator_url, server.endpoints.device_url, server.endpoints.mqtt,
    );
    Ok((server, found))
}

async fn enrol(
    server: Server,
    directory: &Path,
    simulated: u32,
    onnxruntime: PathBuf,
) -> Step<Fleet> {
    let fleet = Fleet::enrol(server, directory, simulated, onnxruntime).await?;
    let expected = SITES.len() + simulated as usize;
    let api = fleet.server.api()?;
    until("every device is online", ENROL_LIMIT, || async {
        let devices: Vec<DeviceView> = api.list("devices?limit=1000").await?;
        let online = devices.iter().filter(|device| device.state == DeviceState::Online).count();
        Ok(if online == expected && devices.len() == expected {
            Look::Done(())
        } else {
            Look::NotYet(format!("{online} of {} online", devices.len()))
        })
    })
    .await?;
    for (site, device) in SITES.iter().zip(&fleet.devices) {
        let view = api.device(&device.id).await?;
        ensure!(view.labels.get("site").is_some_and(|label| label == site), "{:?}", view.labels);
    }
    let found = format!("{expected} devices online, three of them agents at {}", SITES.join(", "));
    Ok((fleet, found))
}

async fn publish(fleet: &Fleet) -> Step<()> {
    let server = &fleet.server;
    for (directory, version) in [("v1", "1"), ("v2", "2")] {
        server.publish(&model_directory(directory), version)?;
        server.ctl(&["model", "verify", &format!("{MODEL}@{version}")])?;
        let path = format!("models/{MODEL}/versions/{version}");
        let view: VersionView = server.api()?.get(&path).await?;
        ensure!(view.state == VersionState::Signed, "version {version} is {:?}", view.state);
        ensure!(view.has_baseline, "version {version} has no baseline");
    }
    let found = format!("{MODEL}@1 and @2: signed away from the server, checked byte for byte");
    Ok(((), found))
}

async fn roll_out_first(fleet: &Fleet) -> Step<()> {
    let create = [
        "rollout",
        "create",
        &format!("{MODEL}@1"),
        "--probation-s",
        "1",
        "--watch-s",
        "600",
        "--reason",
        "first version",
    ];
    let rollout = roll_out(fleet, &create).await?;
    let devices = serves_everywhere(fleet, "1").await?;
    let found = format!("{}: {devices} devices verified, self-tested and serve it", rollout.id);
    Ok(((), found))
}

/// Creates a rollout with `fleetctl` and waits until it has succeeded.
async fn roll_out(fleet: &Fleet, create: &[&str]) -> anyhow::Result<RolloutView> {
    let created: RolloutView = serde_json::from_value(fleet.server.ctl_json(create)?)?;
    succeeded(fleet, created.id).await
}

async fn succeeded(fleet: &Fleet, id: RolloutId) -> anyhow::Result<RolloutView> {
    let api = fleet.server.api()?;
    until("the rollout has succeeded", ROLLOUT_LIMIT, || async {
        let rollout = api.rollout(id).await?;
        let at = format!("{:?}: {} {:?}", rollout.state, rollout.why, rollout.progress);
        match rollout.state {
            RolloutState::Succeeded => Ok(Look::Done(Ok(rollout))),
            RolloutState::Halted
            | RolloutState::Aborted
            | RolloutState::Superseded
            | RolloutState::Reverting
            | RolloutState::Reverted
            | RolloutState::Unknown => Ok(Look::Done(Err(anyhow::anyhow!("{at}")))),
            RolloutState::Draft
            | RolloutState::Preflight
            | RolloutState::AwaitingApproval
            | RolloutState::Scheduled
            | RolloutState::Running
            | RolloutState::Paused
            | RolloutState::Completing => Ok(Look::NotYet(at)),
        }
    })
    .await?
}

/// Every device reports the version, and the three agents answer with it.
async fn serves_everywhere(fleet: &Fleet, version: &str) -> anyhow::Result<usize> {
    let devices: Vec<DeviceView> = fleet.server.api()?.list("devices?limit=1000").await?;
    for device in &devices {
        let slot = device.slots.iter().find(|slot| slot.model.to_string() == MODEL);
        let serving = slot.and_then(|slot| slot.serving.as_ref()).map(ToString::to_string);
        ensure!(serving.as_deref() == Some(version), "{} reports {serving:?}", device.id);
    }
    let rows = Rows::held_out()?;
    for device in &fleet.devices {
        let (_, answered) = device.caller().infer(&rows.batch(0, 1)).await?;
        ensure!(answered == version, "{} answers with version {answered}", device.id);
    }
    Ok(devices.len())
}

async fn ordinary_traffic(fleet: &Fleet) -> Step<()> {
    sleep(QUIET).await;
    let api = fleet.server.api()?;
    until("profiles of every site are judged", DRIFT_LIMIT, || async {
        let verdicts: Vec<DriftView> = api.list("drift?limit=1000").await?;
        let missing: Vec<_> = SITES
            .iter()
            .filter(|site| {
                let scope = format!("site={site}");
                !verdicts.iter().any(|v| v.scope == scope && v.state == DriftState::Steady)
            })
            .collect();
        Ok(if missing.is_empty() { Look::Done(()) } else { Look::NotYet(format!("{missing:?}")) })
    })
    .await?;
    let alerts = drift_alerts(fleet).await?;
    ensure!(alerts.is_empty(), "ordinary traffic raised {alerts:?}");
    no_failed_requests(fleet)?;
    Ok(((), format!("{}; no drift", accuracies(fleet)?.join(", "))))
}

fn accuracies(fleet: &Fleet) -> anyhow::Result<Vec<String>> {
    let mut texts = Vec::new();
    for traffic in &fleet.traffic {
        let accuracy = traffic.tally.accuracy().context("no answers yet")?;
        ensure!(accuracy >= ACCURACY_MIN, "{}: accuracy {accuracy:.3}", traffic.site);
        let percent = accuracy * 100.0;
        texts.push(format!(
            "{} {percent:.1} % right of {} rows",
            traffic.site,
            traffic.tally.rows()
        ));
    }
    Ok(texts)
}

fn no_failed_requests(fleet: &Fleet) -> anyhow::Result<u64> {
    for traffic in &fleet.traffic {
        let (failed, tally) = (traffic.tally.failed(), &traffic.tally);
        ensure!(failed == 0, "{}: {failed} requests failed: {}", traffic.site, tally.failures());
    }
    Ok(fleet.traffic.iter().map(|traffic| traffic.tally.requests()).sum())
}

async fn roll_out_second(fleet: &Fleet) -> Step<()> {
    let create = [
        "rollout",
        "create",
        &format!("{MODEL}@2"),
        "--waves",
        "1:2s,25%:1s,100%",
        "--max-error-share",
        "0.02",
        "--probation-s",
        "1",
        "--watch-s",
        "600",
        "--reason",
        "better on unseen digits",
    ];
    let rollout = roll_out(fleet, &create).await?;
    serves_everywhere(fleet, "2").await?;
    let requests = no_failed_requests(fleet)?;
    let waves: Vec<_> = rollout.waves.iter().map(|wave| wave.devices.to_string()).collect();
    let found = format!(
        "{}: waves of {} devices, each gate passed; {requests} requests meanwhile, none failed",
        rollout.id,
        waves.join(", "),
    );
    Ok(((), found))
}

async fn drift(fleet: &Fleet) -> Step<()> {
    let osaka = fleet.traffic.iter().find(|traffic| traffic.site == "osaka").context("osaka")?;
    fleet.traffic.iter().for_each(|traffic| traffic.tally.reset());
    osaka.drift();
    let began = Instant::now();
    let alert = until("a drift alert names osaka and a feature group", DRIFT_LIMIT, || async {
        let alerts = drift_alerts(fleet).await?;
        let alert = alerts.iter().find(|alert| is_about(alert, "site=osaka")).cloned();
        Ok(alert.map_or_else(|| Look::NotYet(format!("{} alerts", alerts.len())), Look::Done))
    })
    .await?;
    let delay = began.elapsed().as_secs_f64();
    for site in ["site=tokyo", "site=nagoya"] {
        let alerts = drift_alerts(fleet).await?;
        ensure!(!alerts.iter().any(|alert| is_about(alert, site)), "an alert about {site} too");
    }
    let accuracy = osaka.tally.accuracy().context("no answers")? * 100.0;
    let found = format!(
        "alert {} after {delay:.1} s: {} ({}); accuracy in osaka is {accuracy:.0} %, and nobody had to label a row",
        alert.id, alert.title, alert.detail,
    );
    Ok(((), found))
}

async fn drift_alerts(fleet: &Fleet) -> anyhow::Result<Vec<AlertView>> {
    let alerts: Vec<AlertView> = fleet.server.api()?.list("alerts?limit=1000").await?;
    Ok(alerts.into_iter().filter(|alert| alert.kind == "drift").collect())
}

fn is_about(alert: &AlertView, scope: &str) -> bool {
    let label = |key: &str| alert.labels.get(key);
    label("scope").is_some_and(|value| value == scope) && label("group").is_some()
}

async fn roll_back(fleet: &Fleet) -> Step<()> {
    let began = Instant::now();
    let rollback = ["rollback", MODEL, "--reason", "accuracy fell in osaka", "--yes", "--wait"];
    let result: serde_json::Value = fleet.server.ctl_json(&rollback)?;
    let seconds = began.elapsed().as_secs_f64();
    let id: RolloutId = serde_json::from_value(result["rollout"].clone())?;
    let rollout = succeeded(fleet, id).await?;
    ensure!(rollout.is_rollback, "{id} is not marked as a rollback");
    let devices = serves_everywhere(fleet, "1").await?;
    let version: VersionView =
        fleet.server.api()?.get(&format!("models/{MODEL}/versions/2")).await?;
    ensure!(version.state == VersionState::Quarantined, "version 2 is {:?}", version.state);
    let refused: BTreeMap<&str, serde_json::Value> =
        [("model", json!(MODEL)), ("version", json!("2"))].into();
    let again: anyhow::Result<RolloutView> = fleet.server.api()?.post("rollouts", &refused).await;
    ensure!(again.is_err(), "a quarantined version could be rolled out again");
    let requests = no_failed_requests(fleet)?;
    let found = format!(
        "{id}: proved by the reports of {devices} devices in {seconds:.1} s, {} without a download; version 2 is \
         quarantined; {requests} requests since the drift, none failed",
        result["without_download"],
    );
    Ok(((), found))
}
