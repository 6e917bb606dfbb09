//! `fleetctl status`: is anything wrong?

use sealift_protocol::api::Status;

use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::{Output, or_dash, table};

pub(crate) async fn run(client: &Client, output: Output) -> anyhow::Result<()> {
    let status: Status = client.get("status", &[]).await?;
    output.text(&status, text)?;
    if status.attention.is_empty() {
        return Ok(());
    }
    let what = format!("{} things need attention", status.attention.len());
    Err(Failure::new(Exit::NeedsAttention, what).into())
}

fn text(status: &Status) -> String {
    let devices = format!(
        "devices    {} online, {} unhealthy, {} offline\nrollouts   {} running\nalerts     {} open\n",
        status.devices_online,
        status.devices_unhealthy,
        status.devices_offline,
        status.rollouts_running,
        status.alerts_open,
    );
    let adoption = status.adoption.iter().map(|adoption| {
        let version = or_dash(adoption.version.as_ref());
        [adoption.model.to_string(), version, adoption.devices.to_string()]
    });
    let adoption = table(["MODEL", "VERSION", "DEVICES"], adoption);
    if status.attention.is_empty() {
        return format!("{devices}\n{adoption}\n\nnothing needs attention");
    }
    let attention = status
        .attention
        .iter()
        .map(|item| [item.severity.clone(), item.title.clone(), item.detail.clone()]);
    let attention = table(["SEVERITY", "WHAT", "DETAIL"], attention);
    format!("{devices}\n{adoption}\n\n{attention}")
}
