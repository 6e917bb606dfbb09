//! Rollouts from a draft to their end: what was foreseen is what real agents then do.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use sealift_protocol::api::{
    DeviceProgress, FindingSeverity, RolloutCourse, RolloutState, RolloutView, WhyView,
};
use sealift_protocol::id::{DeviceId, RolloutId};
use sealift_tests::digits::{MODEL, as_version, directory as model_directory};
use sealift_tests::disk::SmallDisk;
use sealift_tests::fleet::{Api, Device, DeviceOptions, Options, Server};
use sealift_tests::story::{ROLLOUT_LIMIT, TIMING, ended};
use sealift_tests::wait::{Look, until};

/// Less than the reserve that every image must leave free.
const DISK_MIB: u32 = 40;

/// An agent says every minute how much of its disk is free.
const BEAT_LIMIT: Duration = Duration::from_mins(3);

fn pretending() -> DeviceOptions {
    DeviceOptions { labels: Vec::new(), onnxruntime: None, extra: String::new() }
}

/// What a device said how its attempt ended, or what was foreseen of it.
type Ends = BTreeMap<DeviceId, (DeviceProgress, String)>;

async fn foreseen(api: &Api, id: RolloutId) -> anyhow::Result<Ends> {
    let course: RolloutCourse = api.get(&format!("rollouts/{id}/forecast")).await?;
    let forecast = course.forecast.context("a forecast was kept")?;
    let ends = forecast.refusals.into_iter();
    Ok(ends.map(|refusal| (refusal.device, (refusal.progress, refusal.code))).collect())
}

/// Those that do not serve it in the end, with the code that they gave.
async fn in_fact(api: &Api, id: RolloutId) -> anyhow::Result<Ends> {
    let whys: Vec<WhyView> = api.list(&format!("rollouts/{id}/why")).await?;
    let others = whys.into_iter().filter(|why| why.progress != DeviceProgress::Succeeded);
    let code = |why: &str| {
        let words = why.split([' ', ':', '(', ')']);
        words.into_iter().find(|word| word.starts_with("image.")).unwrap_or(why).to_owned()
    };
    Ok(others.map(|why| (why.device, (why.progress, code(&why.why)))).collect())
}

fn order(server: &Server, version: &str, more: &[&str]) -> anyhow::Result<RolloutView> {
    let version = format!("{MODEL}@{version}");
    let create = ["rollout", "create", &version, "--probation-s", "1", "--max-bad-share", "1"];
    Ok(serde_json::from_value(server.ctl_json(&[&create, more].concat())?)?)
}

#[tokio::test]
#[ignore = "needs the programs and a disk to mount"]
async fn devices_that_are_foreseen_to_refuse_are_those_that_do() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory.path(), &options).await?;
    let disk = SmallDisk::mount(&directory.path().join("disk"), DISK_MIB)?;
    let roomy = Device::start(&server, directory.path(), "cam-1", &pretending()).await?;
    let small = Device::start(&server, disk.root(), "cam-2", &pretending()).await?;
    let api = server.api()?;
    for device in [&roomy, &small] {
        until("the device has said how much of its disk is free", BEAT_LIMIT, || async {
            let health = api.device(&device.id).await?.health;
            Ok(health.map_or_else(|| Look::NotYet("no heartbeat".to_owned()), |_| Look::Done(())))
        })
        .await?;
    }
    server.publish(&model_directory("v1"), "1")?;
    let wrong = as_version(directory.path(), "7", "accelerator = \"cuda\"\n")?;
    server.publish(&wrong, "7")?;
    let large = as_version(directory.path(), "8", "min_memory_mb = 99000000\n")?;
    server.publish(&large, "8")?;

    for (version, refusing) in [("1", 1), ("7", 2), ("8", 2)] {
        let view = order(&server, version, &[])?;
        ended(&api, view.id, RolloutState::Succeeded).await?;

        let (foreseen, fact) = (foreseen(&api, view.id).await?, in_fact(&api, view.id).await?);
        ensure!(foreseen == fact, "version {version}: foreseen {foreseen:?}, in fact {fact:?}");
        ensure!(foreseen.len() == refusing, "version {version}: {foreseen:?}");
    }
    let room = server.ctl(&["rollout", "get", "r-1"])?;
    ensure!(room.contains("image.no-room") && room.contains("foreseen"), "{room}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs programs"]
async fn a_draft_is_changed_started_looked_over_and_then_begins() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory.path(), &options).await?;
    let device = Device::start(&server, directory.path(), "cam-1", &pretending()).await?;
    server.publish(&model_directory("v1"), "1")?;
    let api = server.api()?;

    let draft = order(&server, "1", &["--draft", "--budget", "site=1"])?;
    ensure!(draft.state == RolloutState::Draft, "{:?}", draft.state);
    let id = draft.id.to_string();
    let file = directory.path().join("rollout.yaml");
    let text = format!(
        "model: {MODEL}\nversion: '1'\nwaves: [{{ percent: 100, min_devices: 1 }}]\n\
         trial: {{ probation_s: 1 }}\nreason: from a file\n"
    );
    fs::write(&file, text)?;
    let file = file.display().to_string();
    server.ctl(&["rollout", "edit", &id, "-f", &file])?;
    let changed = api.rollout(draft.id).await?;
    ensure!(changed.reason == "from a file" && changed.budget.is_none(), "{changed:?}");
    ensure!(api.device(&device.id).await?.slots.is_empty(), "a draft has told somebody");

    server.ctl(&["rollout", "start", &id, "--reason", "now"])?;
    ended(&api, draft.id, RolloutState::Succeeded).await?;

    let course: RolloutCourse = api.get(&format!("rollouts/{id}/forecast")).await?;
    let done = course.fact.last().map(|point| point.done);
    ensure!(course.begun_at.is_some() && done == Some(1), "{course:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs programs"]
async fn a_draft_of_a_version_that_was_taken_back_does_not_begin() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory.path(), &options).await?;
    let _device = Device::start(&server, directory.path(), "cam-1", &pretending()).await?;
    let api = server.api()?;
    let mut brought = Vec::new();
    for version in ["1", "2"] {
        server.publish(&model_directory(&format!("v{version}")), version)?;
        let view = order(&server, version, &[])?;
        ended(&api, view.id, RolloutState::Succeeded).await?;
        brought.push(view.id);
    }
    let draft = order(&server, "2", &["--draft"])?;
    let second = brought[1].to_string();
    let abort = ["rollout", "abort", &second, "--revert", "--reason", "reads 7 as 1"];
    let dry = server.ctl_json(&[&abort[..], &["--dry-run"]].concat())?;
    ensure!(dry["reverting"] == serde_json::json!([second]), "{dry}");
    server.ctl(&[&abort[..], &["--yes"]].concat())?;
    let reverted = ended(&api, brought[1], RolloutState::Reverted).await?;
    ensure!(reverted.reversion.is_some_and(|it| it.back == 1), "{reverted:?}");
    let shown = server.ctl(&["rollout", "get", &second])?;
    ensure!(shown.contains("reverted by") && shown.contains("1 proved back"), "{shown}");
    let log = server.ctl(&["audit", "list"])?;
    ensure!(log.contains("rollout.reverting") && log.contains("rollout.reverted"), "{log}");

    let id = draft.id.to_string();
    server.ctl(&["rollout", "start", &id])?;

    let again = until("preflight has looked", ROLLOUT_LIMIT, || async {
        let view = api.rollout(draft.id).await?;
        let looked = view.state == RolloutState::Draft && !view.findings.is_empty();
        Ok(if looked { Look::Done(view) } else { Look::NotYet(format!("{:?}", view.state)) })
    })
    .await?;
    let worst = &again.findings[0];
    ensure!(worst.code == "preflight.quarantined", "{worst:?}");
    ensure!(worst.severity == FindingSeverity::Error && again.why.starts_with("not begun"));
    Ok(())
}

/// One of each, all of which there is none of yet.
const FLEET: &str = "\
alert_kinds:
  device-silent: { hold_s: 900 }
alert_rules:
  - { name: all-off, filter: 'state:offline', at_least: { percent: 50 }, severity: critical }
channels:
  - name: ops
    least: warning
    destination: { kind: webhook, url: 'https://ops.example/hook' }
silences:
  - { matchers: [site=lab], reason: it is being moved, until: 'UNTIL' }
rollouts:
  - model: MODEL
    version: '1'
    waves: [{ percent: 100, min_devices: 1 }]
    trial: { probation_s: 1 }
    reason: from a file
";

/// What was done with each thing of the file.
fn actions(steps: &serde_json::Value) -> Vec<&str> {
    let steps = steps.as_array().map(Vec::as_slice).unwrap_or_default();
    steps.iter().filter_map(|step| step["action"].as_str()).collect()
}

#[tokio::test]
#[ignore = "needs programs"]
async fn a_file_that_is_applied_twice_changes_nothing_the_second_time() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory.path(), &options).await?;
    let _device = Device::start(&server, directory.path(), "cam-1", &pretending()).await?;
    server.publish(&model_directory("v1"), "1")?;
    let api = server.api()?;
    let path = directory.path().join("fleet.yaml");
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(48);
    let text = FLEET.replace("MODEL", MODEL).replace("UNTIL", &until.to_string());
    fs::write(&path, &text)?;
    let file = path.display().to_string();
    let apply = |more: &[&str]| server.ctl_json(&[&["apply", "-f", &file], more].concat());

    let dry = apply(&["--dry-run"])?;
    ensure!(actions(&dry) == ["change", "create", "create", "create", "create"], "{dry}");
    ensure!(api.list::<RolloutView>("rollouts").await?.is_empty(), "nothing was changed");
    let first = apply(&["--yes"])?;
    ensure!(actions(&first) == actions(&dry), "{first}");
    let secret = first[2]["secret"].as_str();
    ensure!(secret.is_some_and(|secret| secret.starts_with("whsec_")), "{first}");
    let drafts: Vec<RolloutView> = api.list("rollouts").await?;
    ensure!(drafts.len() == 1 && drafts[0].state == RolloutState::Draft, "{drafts:?}");

    let second = apply(&["--yes"])?;
    ensure!(actions(&second) == ["unchanged"; 5], "{second}");

    let changed = text.replace("percent: 50", "percent: 60").replace("from a file", "again");
    fs::write(&path, &changed)?;
    let third = apply(&["--yes"])?;
    let expected = ["unchanged", "change", "unchanged", "unchanged", "change"];
    ensure!(actions(&third) == expected, "{third}");
    let named = format!("{} {}", third[1]["changes"], third[4]["changes"]);
    ensure!(named.contains("50 → 60") && named.contains("from a file → again"), "{named}");

    server.ctl(&["rollout", "start", &drafts[0].id.to_string()])?;
    ended(&api, drafts[0].id, RolloutState::Succeeded).await?;
    ensure!(actions(&apply(&["--yes"])?) == ["unchanged"; 5], "what was started is not made again");

    fs::write(&path, changed.replace("least: warning", "leats: warning"))?;
    let (status, _, said) = server.ctl_to_end(&["apply", "-f", &file, "--yes"])?;
    ensure!(!status.success() && said.contains("fleet.yaml:7: channels[0]"), "{said}");
    Ok(())
}
