//! `fleetctl rollback`: says what it will do, asks once, does it, and waits for the devices to prove it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use sealift_protocol::api::{
    DeviceView, RollbackRequest, RollbackResult, RollbackStep, RollbackTarget, RolloutView,
};
use sealift_protocol::id::{ModelName, RolloutId};

use super::rollout;
use crate::cli::{Rollback, RollbackOf};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::{Output, confirm, note};

/// Devices that stay as they are and are named; the rest is counted.
const NAMED_MAX: usize = 20;

pub(crate) async fn run(client: &Client, output: Output, rollback: Rollback) -> anyhow::Result<()> {
    let (model, filter) = resolve(client, &rollback).await?;
    let to = rollback.to_time.map_or_else(|| rollback.to.clone(), RollbackTarget::Time);
    let mut request = RollbackRequest {
        model,
        to,
        filter,
        devices: rollback.device.clone(),
        reason: rollback.reason.clone(),
        dry_run: true,
    };
    let plan: RollbackResult = client.post("rollback", &request).await?;
    note(&text(&request, &plan));
    if rollback.dry_run {
        return output.text(&plan, |plan| format!("nothing was changed: {} devices", plan.devices));
    }
    if !rollback.yes && !confirm("go back?")? {
        return Err(Failure::new(Exit::Declined, "nothing was changed")
            .help("--yes goes back without asking")
            .into());
    }
    request.dry_run = false;
    let result: RollbackResult = client.post("rollback", &request).await?;
    output.text(&result, |result| done(&request, result))?;
    if rollback.wait {
        let limit = Duration::from_secs(rollback.timeout_s);
        for id in result.steps.iter().filter_map(|step| step.rollout) {
            let view = rollout::watch(client, id, limit).await?;
            rollout::ended(&view)?;
            note(&format!("proved by the devices' own reports: {}", rollout::progress(&view)));
        }
    }
    Ok(())
}

/// Which model, and which devices: of a rollout those that it was for.
async fn resolve(client: &Client, rollback: &Rollback) -> anyhow::Result<(ModelName, String)> {
    match &rollback.of {
        Some(RollbackOf::Model(model)) => Ok((model.clone(), rollback.filter.clone())),
        Some(RollbackOf::Rollout(id)) => {
            let view: RolloutView = client.get(&format!("rollouts/{id}"), &[]).await?;
            let filter = format!("{} {}", view.filter, rollback.filter);
            Ok((view.model, filter.trim().to_owned()))
        }
        None => Ok((only_model(client, &rollback.filter).await?, rollback.filter.clone())),
    }
}

/// The model that the devices of a filter run, where it is one.
async fn only_model(client: &Client, filter: &str) -> anyhow::Result<ModelName> {
    let devices: Vec<DeviceView> = client.list("devices", &[("filter", filter)]).await?;
    let slots = devices.iter().flat_map(|device| &device.slots);
    let models: BTreeSet<&ModelName> = slots.map(|slot| &slot.model).collect();
    let names: Vec<_> = models.iter().map(ToString::to_string).collect();
    match models.into_iter().collect::<Vec<_>>().as_slice() {
        [only] => Ok((*only).clone()),
        [] => Err(Failure::new(Exit::Failed, "no device that matches runs a model").into()),
        _ => {
            let what = format!("these devices run several models: {}", names.join(", "));
            let help = "say which one goes back: `fleetctl rollback MODEL --reason …`";
            Err(Failure::new(Exit::Failed, what).help(help).into())
        }
    }
}

fn done(request: &RollbackRequest, result: &RollbackResult) -> String {
    let way = |step: &RollbackStep| {
        let id = step.rollout?;
        Some(format!("{id} goes back to {}@{}", request.model, step.version))
    };
    let ways: Vec<_> = result.steps.iter().filter_map(way).collect();
    if ways.is_empty() { "no device has to change".to_owned() } else { ways.join("\n") }
}

fn text(request: &RollbackRequest, plan: &RollbackResult) -> String {
    let versions: Vec<_> = plan.quarantined.iter().map(ToString::to_string).collect();
    let names = |ids: &[RolloutId]| -> Vec<_> { ids.iter().map(ToString::to_string).collect() };
    let (rollouts, reverting) = (names(&plan.superseded), names(&plan.reverting));
    let in_part = match names(&plan.reverting_in_part) {
        none if none.is_empty() => String::new(),
        some => format!("\ntaken back in part: {}", some.join(", ")),
    };
    let step = |step: &RollbackStep| {
        let RollbackStep { version, devices, without_download, penalised, .. } = step;
        let again = match penalised {
            0 => String::new(),
            count => format!("; {count} ended badly with it before, and are offered it again"),
        };
        format!(
            "{} goes back to version {version} on {devices} devices, {without_download} of them \
             without a download{again}\n",
            request.model
        )
    };
    let steps: String = plan.steps.iter().map(step).collect();
    let whose = if plan.is_quarantine_scoped { " (for these devices)" } else { "" };
    format!(
        "{steps}{}quarantined: {}{whose}\nstopped: {}\ntaken back: {}{in_part}",
        untouched(plan),
        or_nothing(&versions),
        or_nothing(&rollouts),
        or_nothing(&reverting),
    )
}

fn untouched(plan: &RollbackResult) -> String {
    let mut lines = String::new();
    // Writing to a `String` cannot fail.
    for it in plan.untouched.iter().take(NAMED_MAX) {
        let _ = writeln!(lines, "not {}: {} ({})", it.device, it.why, it.code);
    }
    let named = u64::try_from(plan.untouched.len().min(NAMED_MAX)).unwrap_or(u64::MAX);
    let more = plan.untouched_devices.saturating_sub(named);
    if more > 0 {
        let _ = writeln!(lines, "not {more} more devices; `-o json` names them");
    }
    lines
}

fn or_nothing(texts: &[String]) -> String {
    if texts.is_empty() { "nothing".to_owned() } else { texts.join(", ") }
}
