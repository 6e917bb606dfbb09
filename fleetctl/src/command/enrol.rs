//! `fleetctl enrol`: tokens with which devices enrol; claims, approvals and serial numbers for batches of them.

use std::collections::BTreeMap;

use anyhow::Context as _;
use sealift_protocol::api::{EnrolTokenCreated, EnrolTokenNew, EnrolTokenView};

mod batch;

use super::labels;
use crate::cli::Enrol;
use crate::client::Client;
use crate::output::{Output, note};

pub(crate) async fn run(client: &Client, output: Output, enrol: Enrol) -> anyhow::Result<()> {
    match enrol {
        Enrol::Create { labels, device, uses, expires_in_s } => {
            let labels = labels.iter().map(|label| key_value(label)).collect::<Result<_, _>>()?;
            let (uses, expires_in_s) = (Some(uses), Some(expires_in_s));
            let new = EnrolTokenNew { labels, device, uses, expires_in_s };
            create(client, output, &new).await
        }
        Enrol::List => list(client, output).await,
        Enrol::Revoke { id } => client.delete(&format!("enrol-tokens/{id}")).await,
        Enrol::Claim(claim) => batch::claim(client, output, claim).await,
        Enrol::Pending => batch::pending(client, output).await,
        Enrol::Approve(approve) => batch::approve(client, output, approve).await,
        Enrol::Deny { id, reason } => batch::deny(client, &id, reason).await,
        Enrol::Serials(serials) => batch::serials(client, output, serials).await,
    }
}

fn key_value(text: &str) -> anyhow::Result<(String, String)> {
    let (key, value) =
        text.split_once('=').with_context(|| format!("`{text}` is not `key=value`"))?;
    Ok((key.to_owned(), value.to_owned()))
}

async fn create(client: &Client, output: Output, new: &EnrolTokenNew) -> anyhow::Result<()> {
    let created: EnrolTokenCreated = client.post("enrol-tokens", new).await?;
    output.text(&created, |created| created.token.clone())?;
    note(&format!("valid until {}; shown only now. On the device:", created.expires_at));
    note(&format!("  fleet-agent enrol --url {} --device ID --token TOKEN", created.url));
    Ok(())
}

async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let tokens: Vec<EnrolTokenView> = client.list("enrol-tokens", &[]).await?;
    let rows = tokens.iter().map(|token| {
        let labels: &BTreeMap<_, _> = &token.labels;
        [
            token.id.clone(),
            labels_or_dash(labels),
            token.uses_left.to_string(),
            token.expires_at.to_string(),
            token.created_by.clone(),
        ]
    });
    output.rows(&tokens, ["ID", "LABELS", "USES LEFT", "EXPIRES", "BY"], rows)
}

fn labels_or_dash(given: &BTreeMap<String, String>) -> String {
    if given.is_empty() { "-".to_owned() } else { labels(given) }
}
