//! `fleetctl halt` and `fleetctl resume`: stop all rollouts at once, and let them go on.

use std::time::Duration;

use sealift_protocol::api::{HaltNew, HaltOrder, HaltView};
use tokio::time::{Instant, sleep};

use crate::cli::{Halt, Resume};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::{Output, confirm, note};

/// How often it is looked whether devices have confirmed.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub(crate) async fn halt(client: &Client, output: Output, halt: Halt) -> anyhow::Result<()> {
    let Some(reason) = halt.reason.filter(|_| halt.all) else {
        return output.text(&get(client).await?, text);
    };
    if !halt.yes && !confirm("stop all rollouts on all devices?")? {
        return Err(Failure::new(Exit::Declined, "nothing was changed")
            .help("--yes halts without asking")
            .into());
    }
    let begun = Instant::now();
    let view: HaltView = client.post("halt", &HaltNew { reason: reason.clone() }).await?;
    if let Some(order) = view.halt.as_ref().filter(|order| order.reason != reason) {
        note(&format!("they were halted before, by {}: {}", order.by, order.reason));
    }
    let view = confirmed(client, view, (halt.wait, halt.timeout_s), begun).await?;
    output.text(&view, text)
}

pub(crate) async fn resume(client: &Client, output: Output, resume: Resume) -> anyhow::Result<()> {
    let before = get(client).await?;
    match &before.halt {
        Some(order) => note(&said(order)),
        None => note("no rollout is halted"),
    }
    if before.halt.is_some() && !resume.yes && !confirm("let all rollouts go on?")? {
        return Err(Failure::new(Exit::Declined, "nothing was changed")
            .help("--yes lets them go on without asking")
            .into());
    }
    let begun = Instant::now();
    let view: HaltView = client.delete_for("halt", &[("reason", &resume.reason)]).await?;
    let view = confirmed(client, view, (resume.wait, resume.timeout_s), begun).await?;
    output.text(&view, text)
}

async fn get(client: &Client) -> anyhow::Result<HaltView> {
    client.get("halt", &[]).await
}

/// Looks until every device that is connected has said that it obeys.
async fn confirmed(
    client: &Client,
    mut view: HaltView,
    (is_waited_for, timeout_s): (bool, u64),
    begun: Instant,
) -> anyhow::Result<HaltView> {
    let limit = Duration::from_secs(timeout_s);
    while is_waited_for && view.unconfirmed > 0 {
        if begun.elapsed() >= limit {
            let what = format!(
                "{} connected devices have not confirmed after {timeout_s} s; {} have",
                view.unconfirmed, view.confirmed
            );
            let help = "it goes on; a device that hears nothing over MQTT asks the server itself";
            return Err(Failure::new(Exit::TimedOut, what).help(help).into());
        }
        sleep(LOOK_EVERY).await;
        view = get(client).await?;
    }
    if is_waited_for {
        let seconds = begun.elapsed().as_secs_f64();
        note(&format!("{} devices confirmed within {seconds:.1} s", view.confirmed));
    }
    Ok(view)
}

fn said(order: &HaltOrder) -> String {
    let HaltOrder { since, by, reason, rollouts, .. } = order;
    format!("all rollouts are halted by {by} since {since}: {reason}\nstopped  {rollouts} rollouts")
}

fn text(view: &HaltView) -> String {
    let head = view.halt.as_ref().map_or_else(|| "rollouts go on".to_owned(), said);
    let HaltView { confirmed, unconfirmed, offline, .. } = view;
    format!("{head}\ndevices  {confirmed} confirm it, {unconfirmed} not yet, {offline} offline")
}
