//! Agents that are killed at every effect and around every write, each at another one, while they take one version after another.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use sealift_protocol::api::{RolloutState, RolloutView, TimelineEntry};
use sealift_protocol::id::RolloutId;
use sealift_tests::digits::{MODEL, Rows, as_version, directory as model_directory};
use sealift_tests::fleet::{Device, DeviceOptions, Options, Server};
use sealift_tests::story::{ROLLOUT_LIMIT, SOON, TIMING, answers_with, serving};
use sealift_tests::wait::{Look, until};
use tokio::time::{Instant, sleep};

/// Agents at a time. All of them start, load and are judged together, on a machine of two cores.
const TOGETHER: u64 = 24;

/// How long a killed process may take to be gone.
const DYING: Duration = Duration::from_millis(500);

/// How often every agent is asked.
const INTERVAL: Duration = Duration::from_millis(100);

/// An agent that is killed at one point, and started again.
struct Victim {
    device: Device,
    point: u64,
    was_killed: bool,
    /// Whether it has answered since its last start: from then on it always does.
    answers: bool,
}

impl Victim {
    fn begin(
        server: &Server,
        directory: &Path,
        (batch, point): (&str, u64),
    ) -> anyhow::Result<Self> {
        let last = point.to_string();
        let environment = [("SEALIFT_DRILL_LAST", last.as_str())];
        let options = simulated(batch);
        let id = format!("cam-{point}");
        let device = Device::begin(server, directory, &id, (&options, &environment))?;
        Ok(Self { device, point, was_killed: false, answers: false })
    }

    /// Starts the agent again if it was killed, and asks it.
    async fn look(&mut self, rows: &Rows) -> anyhow::Result<()> {
        let answer = self.device.caller().infer(&rows.batch(0, 1)).await;
        if self.has_ended(answer.is_err()).await? {
            ensure!(!self.was_killed, "{} ended twice", self.device.id);
            (self.was_killed, self.answers) = (true, false);
            self.device.process.change_environment(&[]);
            return self.device.process.restart();
        }
        match answer {
            Ok(_) => self.answers = true,
            Err(error) if self.answers => {
                let log = self.device.process.log_tail();
                return Err(error.context(format!("point {} is not survived:\n{log}", self.point)));
            }
            Err(_) => {}
        }
        Ok(())
    }
}

impl Victim {
    /// Whether the agent has ended. One that does not answer gets a moment: its connections break before its parent is told.
    async fn has_ended(&mut self, is_silent: bool) -> anyhow::Result<bool> {
        let deadline = Instant::now() + DYING;
        loop {
            let has_ended = self.device.process.ended()?.is_some();
            if has_ended || !is_silent || Instant::now() > deadline {
                return Ok(has_ended);
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
}

fn simulated(batch: &str) -> DeviceOptions {
    let labels = vec![format!("batch={batch}")];
    DeviceOptions { labels, onnxruntime: None, extra: String::new() }
}

/// Begins a rollout to the devices of a batch.
fn begin(server: &Server, batch: &str, version: &str) -> anyhow::Result<RolloutId> {
    let (version, filter) = (format!("{MODEL}@{version}"), format!("batch:{batch}"));
    let times = ["--probation-s", "1", "--watch-s", "600", "--reason", "story"];
    let create = [&["rollout", "create", &version, "-l", &filter], &times[..]].concat();
    let view: RolloutView = serde_json::from_value(server.ctl_json(&create)?)?;
    Ok(view.id)
}

/// Keeps agents running until a rollout has succeeded.
async fn through(
    server: &Server,
    victims: &mut [Victim],
    rollout: RolloutId,
) -> anyhow::Result<()> {
    let (api, rows) = (server.api()?, Rows::held_out()?);
    let deadline = Instant::now() + ROLLOUT_LIMIT;
    loop {
        for victim in &mut *victims {
            victim.look(&rows).await?;
        }
        let view = api.rollout(rollout).await?;
        if view.state == RolloutState::Succeeded {
            return Ok(());
        }
        let at = format!("{:?}: {} {:?}", view.state, view.why, view.progress);
        ensure!(Instant::now() < deadline, "rollout {rollout} does not succeed; {at}");
        sleep(INTERVAL).await;
    }
}

/// How many points there are on the way through both versions, and a while after.
async fn points(server: &Server, directory: &Path) -> anyhow::Result<u64> {
    let passed = directory.join("points");
    let passed_text = passed.display().to_string();
    let environment = [("SEALIFT_DRILL_POINTS", passed_text.as_str())];
    let options = simulated("whole");
    let device = Device::begin(server, directory, "cam-whole", (&options, &environment))?;
    let mut whole = [Victim { device, point: 0, was_killed: false, answers: false }];
    for version in ["1", "2"] {
        through(server, &mut whole, begin(server, "whole", version)?).await?;
    }
    let [Victim { mut device, .. }] = whole;
    device.process.stop()?;
    let passed = std::fs::read_to_string(&passed)?;
    Ok(u64::try_from(passed.lines().count())?)
}

#[tokio::test]
#[ignore = "needs programs"]
async fn an_agent_killed_at_any_effect_ends_on_what_it_was_told_and_serves_all_the_while()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory.path(), &options).await?;
    server.publish(&model_directory("v1"), "1")?;
    server.publish(&model_directory("v2"), "2")?;
    server.publish(&as_version(directory.path(), "3", "")?, "3")?;
    let points = points(&server, directory.path()).await?;
    ensure!(points > 60, "only {points} points");

    for first in (1..=points).step_by(usize::try_from(TOGETHER)?) {
        let batch = first.to_string();
        let some = first..(first + TOGETHER).min(points + 1);
        let victims = some.map(|point| Victim::begin(&server, directory.path(), (&batch, point)));
        let mut victims = victims.collect::<anyhow::Result<Vec<_>>>()?;
        let mut taken = Vec::new();
        for version in ["1", "2", "3"] {
            // How many points there are varies a little, as some come with the clock: whoever has not come to its own takes one version more.
            if version != "3" || !victims.iter().all(|victim| victim.was_killed) {
                let rollout = begin(&server, &batch, version)?;
                through(&server, &mut victims, rollout).await?;
                taken.push(version);
            }
        }
        for victim in &mut victims {
            ensure!(victim.was_killed, "{} did not come to its point", victim.device.id);
            check(&server, victim, &taken).await?;
            victim.device.process.stop()?;
        }
    }
    Ok(())
}

/// It serves the last version, says so, and each rollout ended once.
async fn check(server: &Server, victim: &Victim, taken: &[&str]) -> anyhow::Result<()> {
    let (api, device) = (server.api()?, &victim.device);
    let last = taken.last().context("no version")?;
    answers_with(device, last).await?;
    until(&format!("{} reports version {last}", device.id), SOON, || async {
        let view = api.device(&device.id).await?;
        let serving = serving(&view);
        let is_there = serving.as_deref() == Some(*last);
        Ok(if is_there { Look::Done(()) } else { Look::NotYet(format!("{serving:?}")) })
    })
    .await?;
    let path = format!("devices/{}/timeline?limit=200", device.id);
    let entries: Vec<TimelineEntry> = api.list(&path).await?;
    let ended = entries.iter().filter(|entry| entry.kind == "outcome");
    let mut ended: Vec<_> = ended.map(|entry| entry.text.as_str()).collect();
    ended.sort_unstable();
    let expected: Vec<_> =
        taken.iter().map(|version| format!("{MODEL} {version} committed")).collect();
    ensure!(ended == expected, "point {}: {ended:?}", victim.point);
    Ok(())
}
