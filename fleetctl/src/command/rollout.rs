//! `fleetctl rollout`.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use sealift_protocol::api::{RolloutCourse, RolloutForecast, RolloutState, RolloutView, WhyView};
use sealift_protocol::id::RolloutId;
use tokio::time::{Instant, sleep, timeout_at};

use crate::cli::{Rollback, Rollout, RolloutAbort, RolloutAction};
use crate::client::{Client, send};
use crate::failure::{Exit, Failure};
use crate::output::{Output, note, word};
use crate::trust;

pub(crate) mod order;
mod text;

pub(crate) async fn run(client: &Client, output: Output, rollout: Rollout) -> anyhow::Result<()> {
    match rollout {
        Rollout::Plan(create) => {
            let new = order::new(create)?;
            let forecast: RolloutForecast = client.post("rollouts/plan", &new).await?;
            output.text(&forecast, text::forecast)
        }
        Rollout::Create(create) => {
            let view: RolloutView = client.post("rollouts", &order::new(create)?).await?;
            output.text(&view, text::rollout)
        }
        Rollout::Edit { rollout, order } => {
            let path = format!("/api/v1/rollouts/{rollout}");
            let request = client.request(Method::PUT, &path)?.json(&order::new(order)?);
            let view: RolloutView = client.send(request).await?.json().await?;
            output.text(&view, text::rollout)
        }
        Rollout::Start(action) => act(client, output, "start", action).await,
        Rollout::List => list(client, output).await,
        Rollout::Get { rollout } => {
            let view = get(client, rollout).await?;
            let path = format!("rollouts/{rollout}/forecast");
            let course: RolloutCourse = client.get(&path, &[]).await?;
            output.text(&view, |view| text::rollout(view) + &text::course(&course))
        }
        Rollout::Watch { rollout, timeout_s } => {
            let view = watch(client, rollout, Duration::from_secs(timeout_s)).await?;
            output.text(&view, text::rollout)?;
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
        Rollout::Abort(RolloutAbort { action, revert: false, .. }) => {
            act(client, output, "abort", action).await
        }
        // Going back is one thing, whoever asks for it.
        Rollout::Abort(RolloutAbort { action, dry_run, yes, .. }) => {
            let back = Rollback::of_rollout(action.rollout, action.reason, (dry_run, yes));
            super::rollback::run(client, output, back).await
        }
        Rollout::Retry(action) => act(client, output, "retry", action).await,
        Rollout::Cosign { rollout, key, tenant, root } => {
            let view = get(client, rollout).await?;
            note(&text::rollout(&view));
            let keys = (key.as_path(), root.as_deref());
            let signed = trust::approve::approve(client, &view, &tenant, keys).await?;
            let path = format!("/api/v1/rollouts/{rollout}/cosign");
            send(client.request(Method::POST, &path)?.json(&signed)).await?;
            output.text(&get(client, rollout).await?, text::rollout)
        }
    }
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
            if !is_under_way(view.state) {
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

/// Whether it may still come to an end by itself, or once a person lets it go on.
const fn is_under_way(state: RolloutState) -> bool {
    match state {
        RolloutState::Preflight
        | RolloutState::AwaitingApproval
        | RolloutState::Scheduled
        | RolloutState::Running
        | RolloutState::Paused
        | RolloutState::Reverting => true,
        RolloutState::Draft
        | RolloutState::Halted
        | RolloutState::Completing
        | RolloutState::Succeeded
        | RolloutState::Aborted
        | RolloutState::Superseded
        | RolloutState::Reverted
        // Nobody knows what it would be waited for.
        | RolloutState::Unknown => false,
    }
}

/// A failure if the rollout ended badly.
pub(crate) fn ended(view: &RolloutView) -> anyhow::Result<()> {
    match view.state {
        RolloutState::Succeeded | RolloutState::Completing => Ok(()),
        RolloutState::Draft
        | RolloutState::Preflight
        | RolloutState::AwaitingApproval
        | RolloutState::Scheduled
        | RolloutState::Running
        | RolloutState::Paused
        | RolloutState::Halted
        | RolloutState::Aborted
        | RolloutState::Superseded
        | RolloutState::Reverting
        | RolloutState::Reverted
        | RolloutState::Unknown => {
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
    output.text(&view, text::rollout)
}
