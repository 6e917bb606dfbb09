//! `fleetctl alert`.

use sealift_protocol::api::{Acknowledge, AlertView};

use crate::cli::Alert;
use crate::client::Client;
use crate::output::{Output, printable, table, word};

pub(crate) async fn run(client: &Client, output: Output, alert: Alert) -> anyhow::Result<()> {
    match alert {
        Alert::List { all } => {
            let state = if all { "" } else { "open,acknowledged" };
            let alerts: Vec<AlertView> = client.list("alerts", &[("state", state)]).await?;
            output.text(&alerts, |alerts| text(alerts))
        }
        Alert::Ack { alert, note } => {
            let path = format!("alerts/{alert}/acknowledge");
            let view: AlertView = client.post(&path, &Acknowledge { note }).await?;
            output.text(&view, |view| format!("{} is {}", view.id, word(view.state)))
        }
    }
}

/// What is open at a glance; then, alert by alert, the evidence and what to do, which are too long for a column.
fn text(alerts: &[AlertView]) -> String {
    let row = |alert: &AlertView| {
        [
            alert.id.to_string(),
            word(alert.state),
            alert.severity.clone(),
            alert.opened_at.to_string(),
            alert.title.clone(),
        ]
    };
    let evidence = |alert: &AlertView| {
        let (detail, help) = (printable(&alert.detail), printable(&alert.help));
        format!("\n\n{}  {detail}\n     next: {help}", alert.id)
    };
    let head = ["ALERT", "STATE", "SEVERITY", "OPENED", "WHAT"];
    let overview = table(head, alerts.iter().map(row));
    alerts.iter().map(evidence).fold(overview, |text, evidence| text + &evidence)
}
