//! `fleetctl rollback`: says what it will do, asks once, does it, and waits for the devices to prove it.

use std::time::Duration;

use sealift_protocol::api::{RollbackRequest, RollbackResult};

use super::rollout;
use crate::cli::Rollback;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::{Output, confirm, note};

pub(crate) async fn run(client: &Client, output: Output, rollback: Rollback) -> anyhow::Result<()> {
    let filter = match &rollback.device {
        Some(device) => format!("id:{device}"),
        None => rollback.filter.clone(),
    };
    let mut request = RollbackRequest {
        model: rollback.model.clone(),
        to: rollback.to.clone(),
        filter,
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
    output.text(&result, |result| match result.rollout {
        Some(rollout) => format!("{rollout} goes back to {}@{}", request.model, result.version),
        None => "no device has to change".to_owned(),
    })?;
    match result.rollout {
        Some(id) if rollback.wait => {
            let limit = Duration::from_secs(rollback.timeout_s);
            let view = rollout::watch(client, id, limit).await?;
            rollout::ended(&view)?;
            note(&format!("proved by the devices' own reports: {}", rollout::progress(&view)));
            Ok(())
        }
        Some(_) | None => Ok(()),
    }
}

fn text(request: &RollbackRequest, plan: &RollbackResult) -> String {
    let versions: Vec<_> = plan.quarantined.iter().map(ToString::to_string).collect();
    let rollouts: Vec<_> = plan.superseded.iter().map(ToString::to_string).collect();
    format!(
        "{} goes back to version {} on {} devices, {} of them without a download\n\
         quarantined: {}\nstopped: {}",
        request.model,
        plan.version,
        plan.devices,
        plan.without_download,
        or_nothing(&versions),
        or_nothing(&rollouts),
    )
}

fn or_nothing(texts: &[String]) -> String {
    if texts.is_empty() { "nothing".to_owned() } else { texts.join(", ") }
}
