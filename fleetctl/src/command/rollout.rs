//! `fleetctl rollout`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::Method;
use sealift_protocol::api::{
    ModelGates, RolloutForecast, RolloutNew, RolloutState, RolloutView, WavePlan, WhyView,
};
use sealift_protocol::directive::Trial;
use sealift_protocol::id::RolloutId;
use tokio::time::{Instant, sleep, timeout_at};

use crate::cli::{Rollout, RolloutAction, RolloutCreate};
use crate::client::{Client, send};
use crate::failure::{Exit, Failure};
use crate::output::{Output, note, or_dash, table, word};
use crate::trust;

pub(crate) async fn run(client: &Client, output: Output, rollout: Rollout) -> anyhow::Result<()> {
    match rollout {
        Rollout::Plan(create) => {
            let forecast: RolloutForecast = client.post("rollouts/plan", &new(create)?).await?;
            output.text(&forecast, forecast_text)
        }
        Rollout::Create(create) => {
            let new = new(create)?;
            let view: RolloutView = client.post("rollouts", &new).await?;
            output.text(&view, text)
        }
        Rollout::List => list(client, output).await,
        Rollout::Get { rollout } => output.text(&get(client, rollout).await?, text),
        Rollout::Watch { rollout, timeout_s } => {
            let view = watch(client, rollout, Duration::from_secs(timeout_s)).await?;
            output.text(&view, text)?;
            ended(&view)
        }
        Rollout::Why { rollout, device } => {
            let device = device.map(|device| device.to_string()).unwrap_or_default();
            why(client, output, rollout, &device).await
        }
        Rollout::Approve(action) => act(client, output, "approve", action).await,
        Rollout::Reject(action) => act(client, output, "reject", action).await,
        Rollout::Pause(action) => act(client, output, "pause", action).await,
        Rollout::Resume(action) => act(client, output, "resume", action).await,
        Rollout::Promote(action) => act(client, output, "promote", action).await,
        Rollout::Abort(action) => act(client, output, "abort", action).await,
        Rollout::Retry(action) => act(client, output, "retry", action).await,
        Rollout::Cosign { rollout, key, tenant, root } => {
            let view = get(client, rollout).await?;
            note(&text(&view));
            let keys = (key.as_path(), root.as_deref());
            let signed = trust::approve::approve(client, &view, &tenant, keys).await?;
            let path = format!("/api/v1/rollouts/{rollout}/cosign");
            send(client.request(Method::POST, &path)?.json(&signed)).await?;
            output.text(&get(client, rollout).await?, text)
        }
    }
}

fn new(create: RolloutCreate) -> anyhow::Result<RolloutNew> {
    let (model, version) = create.version;
    let mut waves = waves(&create.waves)?;
    for wave in &mut waves {
        wave.max_bad_share = Some(create.max_bad_share);
        wave.max_error_share = create.max_error_share;
        if create.no_comparison {
            wave.gates = ModelGates::off();
        }
    }
    let start_in_ms = i64::from(seconds(&create.start_in)?) * 1_000;
    let start_at = (start_in_ms > 0).then(|| trust::now().plus(start_in_ms));
    let RolloutCreate { probation_s, watch_s, lease_s, .. } = create;
    let trial = Trial { probation_s, watch_s, lease_s, ..Trial::default() };
    Ok(RolloutNew {
        model,
        version,
        filter: create.filter,
        waves,
        trial,
        start_at,
        reason: create.reason,
    })
}

fn forecast_text(forecast: &RolloutForecast) -> String {
    let mut text = format!("{} devices", forecast.devices);
    for (number, devices) in forecast.waves.iter().enumerate() {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "\nwave {}: {devices} devices", number + 1);
    }
    for (reason, devices) in &forecast.not_told {
        let _ = write!(text, "\nnot now: {devices}: {reason}");
    }
    let megabytes = forecast.download_bytes >> 20;
    let _ = write!(
        text,
        "\ndownload: at most {megabytes} MiB in all; {} devices have the image already",
        forecast.without_download
    );
    if forecast.needs_approval {
        text.push_str("\nsomebody else must approve it");
    }
    for rollout in &forecast.superseded {
        let _ = write!(text, "\nends rollout {rollout}");
    }
    text
}

/// Reads `1:30s,25%:5m,100%`.
fn waves(text: &str) -> anyhow::Result<Vec<WavePlan>> {
    let waves = text.split(',').enumerate().map(|(index, text)| {
        wave(index, text.trim()).with_context(|| format!("`{text}` is not a wave"))
    });
    waves.collect()
}

fn wave(index: usize, text: &str) -> anyhow::Result<WavePlan> {
    let (size, soak) = text.split_once(':').unwrap_or((text, "0s"));
    let name = if index == 0 { "canary".to_owned() } else { format!("wave {}", index + 1) };
    let (percent, count) = match size.strip_suffix('%') {
        Some(percent) => (Some(percent.parse::<f64>()?), None),
        None => (None, Some(size.parse::<u64>()?)),
    };
    Ok(WavePlan {
        name,
        percent,
        count,
        soak_s: seconds(soak)?,
        max_bad_share: None,
        max_error_share: None,
        gates: ModelGates::default(),
    })
}

fn seconds(text: &str) -> anyhow::Result<u32> {
    let units = [('s', 1), ('m', 60), ('h', 3_600)];
    for (unit, seconds) in units {
        if let Some(number) = text.strip_suffix(unit) {
            let number: u32 = number.parse()?;
            return number.checked_mul(seconds).context("too long");
        }
    }
    bail!("a soak is a number and s, m or h")
}

pub(crate) async fn get(client: &Client, rollout: RolloutId) -> anyhow::Result<RolloutView> {
    client.get(&format!("rollouts/{rollout}"), &[]).await
}

async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let rollouts: Vec<RolloutView> = client.list("rollouts", &[]).await?;
    let rows = rollouts.iter().map(|rollout| {
        [
            rollout.id.to_string(),
            format!("{}@{}", rollout.model, rollout.version),
            word(rollout.state),
            progress(rollout),
            rollout.created_by.clone(),
            rollout.reason.clone(),
        ]
    });
    output.rows(&rollouts, ["ROLLOUT", "VERSION", "STATE", "DEVICES", "BY", "REASON"], rows)
}

/// `12 succeeded, 3 offline`
pub(crate) fn progress(rollout: &RolloutView) -> String {
    let counts: Vec<_> = rollout
        .progress
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(progress, count)| format!("{count} {}", word(*progress)))
        .collect();
    counts.join(", ")
}

fn text(rollout: &RolloutView) -> String {
    let kind = if rollout.is_rollback { "rollback to" } else { "rollout of" };
    let head = format!(
        "{}  {kind} {}@{}  {}\nwhy      {}\ndevices  {}\nreason   {}\ncampaign {}{}\n",
        rollout.id,
        rollout.model,
        rollout.version,
        word(rollout.state),
        rollout.why,
        progress(rollout),
        rollout.reason,
        or_dash(rollout.campaign),
        if rollout.is_cosigned { ", cosigned by an operator" } else { "" },
    );
    let rows = rollout.waves.iter().map(|wave| {
        let gates: Vec<_> = wave
            .gates
            .iter()
            .map(|gate| {
                let value = or_dash(gate.value.map(|value| format!("{value:.3}")));
                format!("{} {value} / {:.3}", gate.name, gate.limit)
            })
            .collect();
        [
            wave.plan.name.clone(),
            word(wave.state),
            wave.devices.to_string(),
            wave.succeeded.to_string(),
            wave.bad.to_string(),
            or_dash(wave.soak_until),
            gates.join(", "),
        ]
    });
    let columns = ["WAVE", "STATE", "DEVICES", "DONE", "BAD", "SOAKS UNTIL", "GATES"];
    format!("{head}\n{}", table(columns, rows))
}

/// How often a rollout that is watched is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Follows a rollout until it has ended or needs a person.
pub(crate) async fn watch(
    client: &Client,
    rollout: RolloutId,
    limit: Duration,
) -> anyhow::Result<RolloutView> {
    let deadline = Instant::now() + limit;
    let mut told = String::new();
    let follow = async {
        loop {
            let view = get(client, rollout).await?;
            let line = format!("{}: {}; {}", word(view.state), view.why, progress(&view));
            if line != told {
                note(&line);
                told = line;
            }
            if !matches!(view.state, RolloutState::Running | RolloutState::Paused) {
                return anyhow::Ok(view);
            }
            sleep(WATCH_INTERVAL).await;
        }
    };
    tokio::select! {
        followed = timeout_at(deadline, follow) => followed.unwrap_or_else(|_| {
            let what = format!("rollout {rollout} has not ended after {} s", limit.as_secs());
            Err(Failure::new(Exit::TimedOut, what).help("it goes on; `fleetctl rollout watch` follows").into())
        }),
        _ = tokio::signal::ctrl_c() => {
            let what = format!("no longer watching; rollout {rollout} goes on");
            Err(Failure::new(Exit::Interrupted, what).into())
        }
    }
}

/// A failure if the rollout ended badly.
pub(crate) fn ended(view: &RolloutView) -> anyhow::Result<()> {
    match view.state {
        RolloutState::Succeeded | RolloutState::Completing => Ok(()),
        RolloutState::Running
        | RolloutState::Paused
        | RolloutState::Halted
        | RolloutState::Aborted
        | RolloutState::Superseded => {
            let what = format!("rollout {} is {}: {}", view.id, word(view.state), view.why);
            let help = format!(
                "`fleetctl rollout why {}` lists the devices; `fleetctl rollback {} --reason …` goes back",
                view.id, view.model,
            );
            Err(Failure::new(Exit::RolloutEndedBadly, what).help(help).into())
        }
    }
}

async fn why(
    client: &Client,
    output: Output,
    rollout: RolloutId,
    device: &str,
) -> anyhow::Result<()> {
    let path = format!("rollouts/{rollout}/why");
    let whys: Vec<WhyView> = client.list(&path, &[("device", device)]).await?;
    let rows = whys.iter().map(|why| {
        [why.device.to_string(), (why.wave + 1).to_string(), word(why.progress), why.why.clone()]
    });
    output.rows(&whys, ["DEVICE", "WAVE", "WHERE", "WHY"], rows)
}

async fn act(
    client: &Client,
    output: Output,
    verb: &str,
    action: RolloutAction,
) -> anyhow::Result<()> {
    let path = format!("rollouts/{}/{verb}", action.rollout);
    let body = BTreeMap::from([("reason", action.reason)]);
    let view: RolloutView = client.post(&path, &body).await?;
    output.text(&view, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_are_read_as_people_write_them() {
        let waves = waves("1:30s, 25%:5m,100%").unwrap();
        let read: Vec<_> =
            waves.iter().map(|wave| (wave.count, wave.percent, wave.soak_s)).collect();
        assert_eq!(read, [(Some(1), None, 30), (None, Some(25.0), 300), (None, Some(100.0), 0)]);
        assert_eq!(waves[0].name, "canary");
    }

    #[test]
    fn a_wave_that_cannot_be_read_is_quoted() {
        for text in ["", "x", "5:3", "10%:5d", "1:99999999h"] {
            let refused = waves(text).unwrap_err().to_string();
            assert_eq!(refused, format!("`{text}` is not a wave"));
        }
    }
}
