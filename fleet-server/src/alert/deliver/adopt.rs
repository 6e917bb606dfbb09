//! Takes over the webhooks that a server of before has left, whose secrets lay in the database in plain text.

use sealift_protocol::api::{AlertSeverity, AlertView, ChannelKind, Destination};
use sealift_protocol::id::UnixMillis;
use serde_json::Value;

use super::{Verb, sealed, shown};
use crate::auth::{AuthError, Seal};
use crate::store::TenantStore;
use crate::store::channels::ChannelRow;
use crate::store::webhooks::OldWebhook;

/// Makes sealed channels of the webhooks of before, with what was still to be sent, and wipes them. Returns how many there were.
pub(crate) async fn adopt(
    store: &TenantStore,
    seal: &Seal,
    now: UnixMillis,
) -> Result<u64, AuthError> {
    let old = store.old_webhooks().await?;
    if old.is_empty() {
        return Ok(0);
    }
    let mut change = store.begin().await?;
    for webhook in old {
        let OldWebhook { number, url, secret, waiting } = webhook;
        let id = change.next_channel().await?;
        let destination = Destination::Webhook { url, secret: Some(secret) };
        let address = shown(&destination).unwrap_or_default();
        let text = sealed(seal, id, &destination)?;
        let row = ChannelRow {
            id,
            name: &format!("webhook-{number}"),
            kind: ChannelKind::Webhook,
            address: &address,
            least: AlertSeverity::Info,
            matchers: &[],
            destination: &text,
            created_by: "an earlier server",
        };
        change.add_channel(row, now).await?;
        for (message, body) in waiting {
            let Some((alert, verb)) = told(&body) else { continue };
            change.queue(id, (Some(alert.id), &alert, verb), &message, (now, now)).await?;
        }
    }
    let adopted = change.forget_old_webhooks().await?;
    change.commit().await?;
    store.wipe_old_webhooks().await?;
    tracing::info!(adopted, "webhooks whose secrets lay in plain text are sealed channels");
    Ok(adopted)
}

/// What a CloudEvents body of before tells.
fn told(body: &str) -> Option<(AlertView, Verb)> {
    let mut event: Value = serde_json::from_str(body).ok()?;
    let alert = serde_json::from_value(event.get_mut("data")?.take()).ok()?;
    let verb = event.get("type")?.as_str()?.rsplit('.').next()?;
    Some((alert, Verb::parse(verb)?))
}
