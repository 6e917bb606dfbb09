//! Webhooks, and what is still to be sent to them.

use sealift_protocol::api::{AlertView, WebhookView};
use sealift_protocol::id::UnixMillis;

use super::{Change, StoreError, TenantStore, signed, unsigned};
use crate::alert::deliver::{self, Verb};

/// Messages that wait for one webhook; a receiver that is away for longer reads the list of alerts.
const WAITING_MAX: i64 = 1_000;

/// A message that is due.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// Its number.
    pub(crate) number: u64,
    /// To which webhook.
    pub(crate) webhook: u64,
    /// Its address.
    pub(crate) url: String,
    /// The secret that it is signed with.
    pub(crate) secret: String,
    /// What is sent.
    pub(crate) body: String,
    /// Names the message, so that a receiver knows it again.
    pub(crate) message: String,
    /// How often it was tried.
    pub(crate) attempt: u64,
}

#[derive(sqlx::FromRow)]
struct Row {
    number: i64,
    webhook: i64,
    url: String,
    secret: String,
    body: String,
    message: String,
    attempt: i64,
}

impl TenantStore {
    /// All webhooks, without their secrets.
    pub(crate) async fn webhooks(&self) -> Result<Vec<WebhookView>, StoreError> {
        let rows: Vec<(i64, String, Option<String>, i64)> = sqlx::query_as(
            "SELECT w.number, w.url, w.last_delivery, (SELECT COUNT(*) FROM webhook_deliveries d
             WHERE d.tenant = w.tenant AND d.webhook = w.number) AS pending
             FROM webhooks w WHERE w.tenant = $1 ORDER BY w.number",
        )
        .bind(self.id().to_owned())
        .fetch_all(self.readers())
        .await?;
        let view = |(number, url, last_delivery, pending): (i64, String, Option<String>, i64)| {
            let (id, pending) = (unsigned("webhook", number)?, unsigned("count", pending)?);
            Ok(WebhookView { id, url, secret: None, last_delivery, pending })
        };
        rows.into_iter().map(view).collect()
    }

    /// The oldest message that is due of each webhook: one that is not reached holds up no other.
    pub(crate) async fn due_deliveries(
        &self,
        now: UnixMillis,
    ) -> Result<Vec<Delivery>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT d.number, d.webhook, w.url, w.secret, d.body, d.message, d.attempt
             FROM webhook_deliveries d JOIN webhooks w
             ON w.tenant = d.tenant AND w.number = d.webhook
             WHERE d.tenant = $1 AND d.number IN (SELECT MIN(o.number) FROM webhook_deliveries o
             WHERE o.tenant = $1 AND o.due_at <= $2 GROUP BY o.webhook) ORDER BY d.number",
        )
        .bind(self.id().to_owned())
        .bind(now.0)
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(delivery).collect()
    }
}

fn delivery(row: Row) -> Result<Delivery, StoreError> {
    let Row { url, secret, body, message, .. } = row;
    Ok(Delivery {
        number: unsigned("delivery", row.number)?,
        webhook: unsigned("webhook", row.webhook)?,
        url,
        secret,
        body,
        message,
        attempt: unsigned("attempt", row.attempt)?,
    })
}

impl Change {
    /// Adds a webhook; returns its number.
    pub(crate) async fn add_webhook(
        &mut self,
        url: &str,
        secret: &str,
        now: UnixMillis,
    ) -> Result<u64, StoreError> {
        let id = self.next_number("webhooks").await?;
        let (number, url, secret) = (signed("webhook", id)?, url.to_owned(), secret.to_owned());
        self.run(
            "INSERT INTO webhooks (tenant, number, url, secret, created_at)
             VALUES ($1, $2, $3, $4, $5)",
            |it| it.bind(number).bind(url).bind(secret).bind(now.0),
        )
        .await?;
        Ok(id)
    }

    /// Removes a webhook and what was to be sent to it; false if there is none.
    pub(crate) async fn remove_webhook(&mut self, id: u64) -> Result<bool, StoreError> {
        let number = signed("webhook", id)?;
        let removed = self
            .run("DELETE FROM webhooks WHERE tenant = $1 AND number = $2", |it| it.bind(number));
        Ok(removed.await? == 1)
    }

    /// Queues what has become of an alert for every webhook whose queue is not full.
    pub(crate) async fn enqueue(
        &mut self,
        alert: &AlertView,
        verb: Verb,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let tenant = self.tenant().to_string();
        let message = deliver::message_id(&tenant, alert, now);
        let body = deliver::body(&tenant, (alert, verb), &message, now);
        let outcome = format!("{now}: {} left out, for {WAITING_MAX} messages wait", alert.id);
        self.run(
            "UPDATE webhooks SET last_delivery = $2 WHERE tenant = $1 AND $3 <=
             (SELECT COUNT(*) FROM webhook_deliveries d
              WHERE d.tenant = webhooks.tenant AND d.webhook = webhooks.number)",
            |it| it.bind(outcome).bind(WAITING_MAX),
        )
        .await?;
        self.run(
            "INSERT INTO webhook_deliveries (tenant, webhook, body, message, due_at)
             SELECT w.tenant, w.number, $2, $3, $4 FROM webhooks w WHERE w.tenant = $1 AND $5 >
             (SELECT COUNT(*) FROM webhook_deliveries d
              WHERE d.tenant = w.tenant AND d.webhook = w.number)",
            |it| it.bind(body).bind(message).bind(now.0).bind(WAITING_MAX),
        )
        .await?;
        Ok(())
    }

    /// A message has arrived, or is given up: it is not sent again.
    pub(crate) async fn finish_delivery(
        &mut self,
        delivery: &Delivery,
        outcome: &str,
    ) -> Result<(), StoreError> {
        let number = signed("delivery", delivery.number)?;
        self.run("DELETE FROM webhook_deliveries WHERE tenant = $1 AND number = $2", |it| {
            it.bind(number)
        })
        .await?;
        self.note_delivery(delivery.webhook, outcome).await
    }

    /// A message did not arrive: it is tried again later.
    pub(crate) async fn retry_delivery(
        &mut self,
        delivery: &Delivery,
        due_at: UnixMillis,
        outcome: &str,
    ) -> Result<(), StoreError> {
        let number = signed("delivery", delivery.number)?;
        self.run(
            "UPDATE webhook_deliveries SET attempt = attempt + 1, due_at = $3
             WHERE tenant = $1 AND number = $2",
            |it| it.bind(number).bind(due_at.0),
        )
        .await?;
        self.note_delivery(delivery.webhook, outcome).await
    }

    async fn note_delivery(&mut self, webhook: u64, outcome: &str) -> Result<(), StoreError> {
        let (number, outcome) = (signed("webhook", webhook)?, outcome.to_owned());
        self.run(
            "UPDATE webhooks SET last_delivery = $3 WHERE tenant = $1 AND number = $2",
            |it| it.bind(number).bind(outcome),
        )
        .await?;
        Ok(())
    }
}
