//! The audit log: rows are only ever added, and each carries a hash over itself and the row before.

use sealift_protocol::api::AuditEntry;
use sealift_protocol::id::UnixMillis;

use super::{Change, StoreError, TenantStore, signed, unsigned};
use crate::audit::{self, Deed};

#[derive(sqlx::FromRow)]
struct Row {
    sequence: i64,
    at: i64,
    actor: String,
    action: String,
    subject: String,
    reason: Option<String>,
    detail: String,
    hash: String,
}

impl Change {
    /// Writes down who did what to what, and why. Part of the same change as the deed: neither is without the other.
    pub(crate) async fn audit(
        &mut self,
        deed: &Deed<'_>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let sequence = self.next_number("audit").await?;
        let before: Option<String> = sqlx::query_scalar(
            "SELECT hash FROM audit WHERE tenant = $1 ORDER BY sequence DESC LIMIT 1",
        )
        .bind(self.tenant().to_string())
        .fetch_optional(self.connection())
        .await?;
        let mut entry = deed.entry(sequence, now);
        entry.hash = audit::hash(&entry, before.as_deref().unwrap_or_default());
        let sequence = signed("audit row", sequence)?;
        let AuditEntry { at, actor, action, subject, reason, detail, hash, .. } = entry;
        self.run(
            "INSERT INTO audit (tenant, sequence, at, actor, action, subject, reason, detail, hash)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            |it| {
                let it = it.bind(sequence).bind(at.0).bind(actor).bind(action).bind(subject);
                it.bind(reason).bind(detail).bind(hash)
            },
        )
        .await?;
        Ok(())
    }
}

impl TenantStore {
    /// A page of the audit log, newest first, of rows numbered below `before`.
    pub(crate) async fn audit_log(
        &self,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT sequence, at, actor, action, subject, reason, detail, hash FROM audit
             WHERE tenant = $1 AND sequence < $2 ORDER BY sequence DESC LIMIT $3",
        )
        .bind(self.id().to_owned())
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(entry).collect()
    }

    /// How many rows the audit log has.
    pub(crate) async fn audit_length(&self) -> Result<u64, StoreError> {
        let length: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM audit WHERE tenant = $1")
            .bind(self.id().to_owned())
            .fetch_one(self.readers())
            .await?;
        unsigned("count", length)
    }

    async fn audit_count(&self) -> Result<i64, StoreError> {
        let counted: Option<i64> =
            sqlx::query_scalar("SELECT value FROM counters WHERE tenant = $1 AND name = 'audit'")
                .bind(self.id().to_owned())
                .fetch_optional(self.readers())
                .await?;
        Ok(counted.unwrap_or(0))
    }

    /// The first row that was edited, removed or put elsewhere, if there is one.
    pub(crate) async fn audit_break(&self) -> Result<Option<u64>, StoreError> {
        /// Rows read at a time.
        const BATCH: i64 = 1_000;
        let (mut last, mut hash) = (0_i64, String::new());
        loop {
            let rows: Vec<Row> = sqlx::query_as(
                "SELECT sequence, at, actor, action, subject, reason, detail, hash FROM audit
                 WHERE tenant = $1 AND sequence > $2 ORDER BY sequence LIMIT $3",
            )
            .bind(self.id().to_owned())
            .bind(last)
            .bind(BATCH)
            .fetch_all(self.readers())
            .await?;
            if rows.is_empty() {
                // Rows that were cut off at the end are missing from the count.
                let counted = self.audit_count().await?;
                return if counted == last {
                    Ok(None)
                } else {
                    Ok(Some(unsigned("row", last + 1)?))
                };
            }
            for row in rows {
                let entry = entry(row)?;
                let expected = signed("audit row", entry.sequence)?;
                if expected != last + 1 || audit::hash(&entry, &hash) != entry.hash {
                    return Ok(Some(unsigned("audit row", last + 1)?));
                }
                (last, hash) = (expected, entry.hash);
            }
        }
    }
}

fn entry(row: Row) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        sequence: unsigned("audit row", row.sequence)?,
        at: UnixMillis(row.at),
        actor: row.actor,
        action: row.action,
        subject: row.subject,
        reason: row.reason,
        detail: row.detail,
        hash: row.hash,
    })
}

impl Deed<'_> {
    fn entry(&self, sequence: u64, at: UnixMillis) -> AuditEntry {
        AuditEntry {
            sequence,
            at,
            actor: self.actor.to_owned(),
            action: self.action.to_owned(),
            subject: self.subject.to_owned(),
            reason: self.reason.filter(|reason| !reason.is_empty()).map(str::to_owned),
            detail: self.detail.to_owned(),
            hash: String::new(),
        }
    }
}
