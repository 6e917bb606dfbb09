//! Webhooks as servers of before have left them, with their secrets in plain text: read once, and wiped.

use super::{Change, Dialect, StoreError, TenantStore, unsigned};

/// A webhook of before.
#[derive(Debug)]
pub(crate) struct OldWebhook {
    pub(crate) number: u64,
    pub(crate) url: String,
    pub(crate) secret: String,
    /// CloudEvents bodies that were still to be sent, each with the name of its message.
    pub(crate) waiting: Vec<(String, String)>,
}

impl TenantStore {
    /// What a server of before has left.
    pub(crate) async fn old_webhooks(&self) -> Result<Vec<OldWebhook>, StoreError> {
        let rows: Vec<(i64, String, String)> = sqlx::query_as(
            "SELECT number, url, secret FROM webhooks WHERE tenant = $1 ORDER BY number",
        )
        .bind(self.id().to_owned())
        .fetch_all(self.readers())
        .await?;
        let mut old = Vec::new();
        for (number, url, secret) in rows {
            let waiting: Vec<(String, String)> = sqlx::query_as(
                "SELECT message, body FROM webhook_deliveries
                 WHERE tenant = $1 AND webhook = $2 ORDER BY number",
            )
            .bind(self.id().to_owned())
            .bind(number)
            .fetch_all(self.readers())
            .await?;
            old.push(OldWebhook { number: unsigned("webhook", number)?, url, secret, waiting });
        }
        Ok(old)
    }

    /// Wipes what was deleted from the database's files, as far as the database does that: SQLite writes zeros over it and empties its
    /// log, PostgreSQL rewrites the table.
    pub(crate) async fn wipe_old_webhooks(&self) -> Result<(), StoreError> {
        let statements: &[&'static str] = match self.store.dialect {
            Dialect::Sqlite => &["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"],
            Dialect::Postgres => &["VACUUM (FULL) webhooks"],
        };
        for &statement in statements {
            sqlx::query(statement).execute(&self.store.writer).await?;
        }
        Ok(())
    }
}

impl Change {
    /// Forgets the webhooks of before, and what was to be sent to them.
    pub(crate) async fn forget_old_webhooks(&mut self) -> Result<u64, StoreError> {
        self.run("DELETE FROM webhook_deliveries WHERE tenant = $1", |it| it).await?;
        self.run("DELETE FROM webhooks WHERE tenant = $1", |it| it).await
    }

    /// Writes a webhook as a server of before did.
    #[cfg(test)]
    pub(crate) async fn add_old_webhook(
        &mut self,
        url: &str,
        secret: &str,
    ) -> Result<(), StoreError> {
        let (url, secret) = (url.to_owned(), secret.to_owned());
        self.run(
            "INSERT INTO webhooks (tenant, number, url, secret, created_at)
             VALUES ($1, 1, $2, $3, 0)",
            |it| it.bind(url).bind(secret),
        )
        .await?;
        Ok(())
    }
}
