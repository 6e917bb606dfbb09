//! `fleetctl audit`.

use sealift_protocol::api::{AuditEntry, Page};

use crate::cli::Audit;
use crate::client::Client;
use crate::output::{Output, or_dash};

pub(crate) async fn run(client: &Client, output: Output, audit: Audit) -> anyhow::Result<()> {
    let Audit::List { limit } = audit;
    let page: Page<AuditEntry> = client.get("audit", &[("limit", &limit.to_string())]).await?;
    let rows = page.items.iter().map(|entry| {
        [
            entry.sequence.to_string(),
            entry.at.to_string(),
            entry.actor.clone(),
            entry.action.clone(),
            entry.subject.clone(),
            or_dash(entry.reason.as_ref()),
            entry.detail.clone(),
        ]
    });
    output.rows(&page.items, ["#", "AT", "WHO", "WHAT", "TO", "WHY", "EVIDENCE"], rows)
}
