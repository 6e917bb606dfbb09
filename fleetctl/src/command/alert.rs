//! `fleetctl alert`.

use sealift_protocol::api::{Acknowledge, AlertView};

use crate::cli::Alert;
use crate::client::Client;
use crate::output::{Output, word};

pub(crate) async fn run(client: &Client, output: Output, alert: Alert) -> anyhow::Result<()> {
    match alert {
        Alert::List { all } => {
            let state = if all { "" } else { "open,acknowledged" };
            let alerts: Vec<AlertView> = client.list("alerts", &[("state", state)]).await?;
            let rows = alerts.iter().map(row);
            output.rows(&alerts, ["ALERT", "STATE", "SEVERITY", "OPENED", "WHAT", "NEXT"], rows)
        }
        Alert::Ack { alert, note } => {
            let path = format!("alerts/{alert}/acknowledge");
            let view: AlertView = client.post(&path, &Acknowledge { note }).await?;
            output.text(&view, |view| format!("{} is {}", view.id, word(view.state)))
        }
    }
}

fn row(alert: &AlertView) -> [String; 6] {
    [
        alert.id.to_string(),
        word(alert.state),
        alert.severity.clone(),
        alert.opened_at.to_string(),
        format!("{}: {}", alert.title, alert.detail),
        alert.help.clone(),
    ]
}
