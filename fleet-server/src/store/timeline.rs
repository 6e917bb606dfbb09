//! What happened to each device, in the order in which the server learned of it.

use sealift_protocol::api::TimelineEntry;
use sealift_protocol::id::{DeviceId, ModelName, UnixMillis};

use super::{Change, StoreError, TenantStore, many, parsed, unsigned};

/// Entries kept of one device: a device that floods the server with events loses its own oldest ones.
const ENTRIES_MAX: i64 = 2_000;
/// How often, in entries, the oldest are looked for.
const TRIM_EVERY: i64 = 64;

#[derive(sqlx::FromRow)]
struct Row {
    number: i64,
    at: i64,
    kind: String,
    severity: String,
    code: String,
    text: String,
    model: Option<String>,
}

/// An event that people may have to be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceEvent {
    /// Rises with each event.
    pub(crate) number: u64,
    /// Whose.
    pub(crate) device: DeviceId,
    /// What.
    pub(crate) entry: TimelineEntry,
}

impl TenantStore {
    /// A page of a device's timeline, newest first, of entries numbered below `before`; with their numbers.
    pub(crate) async fn timeline(
        &self,
        device: &DeviceId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<(u64, TimelineEntry)>, StoreError> {
        let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT number, at, kind, severity, code, text, model FROM timeline
             WHERE tenant = $1 AND device = $2 AND number < $3 ORDER BY number DESC LIMIT $4",
        )
        .bind(self.id().to_owned())
        .bind(device.to_string())
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(|row| Ok((unsigned("entry", row.number)?, entry(row)?))).collect()
    }

    /// How many entries a device's timeline has.
    pub(crate) async fn timeline_length(&self, device: &DeviceId) -> Result<u64, StoreError> {
        let length: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM timeline WHERE tenant = $1 AND device = $2")
                .bind(self.id().to_owned())
                .bind(device.to_string())
                .fetch_one(self.readers())
                .await?;
        unsigned("count", length)
    }

    /// The newest security or critical event of each code of each device since a moment, newest first. A device that floods the server
    /// does not hide another's.
    pub(crate) async fn grave_events_since(
        &self,
        since: UnixMillis,
        limit: u32,
    ) -> Result<Vec<DeviceEvent>, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Grave {
            device: String,
            #[sqlx(flatten)]
            row: Row,
        }
        let rows: Vec<Grave> = sqlx::query_as(
            "SELECT device, number, at, kind, severity, code, text, model FROM timeline
             WHERE number IN (SELECT MAX(number) FROM timeline
             WHERE tenant = $1 AND at >= $2 AND severity IN ('security', 'critical')
             GROUP BY device, code ORDER BY MAX(number) DESC LIMIT $3) ORDER BY number DESC",
        )
        .bind(self.id().to_owned())
        .bind(since.0)
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await?;
        let event = |Grave { device, row }| {
            let (number, device) = (unsigned("entry", row.number)?, parsed("device", &device)?);
            Ok(DeviceEvent { number, device, entry: entry(row)? })
        };
        rows.into_iter().map(event).collect()
    }
}

impl Change {
    /// Writes entries in their order.
    pub(super) async fn write_notes(
        &mut self,
        notes: Vec<(DeviceId, TimelineEntry)>,
    ) -> Result<(), StoreError> {
        for part in many::parts(notes, 7) {
            let text = format!(
                "INSERT INTO timeline (tenant, device, at, kind, severity, code, text, model)
                 VALUES {} RETURNING number, device",
                many::values(part.len(), 7)
            );
            let mut query = self.query_as(text);
            for (device, entry) in part {
                let TimelineEntry { at, kind, severity, code, text, model } = entry;
                query = query.bind(device.to_string()).bind(at.0).bind(kind).bind(severity);
                query = query.bind(code).bind(text).bind(model.map(|model| model.to_string()));
            }
            let written: Vec<(i64, String)> = query.fetch_all(self.connection()).await?;
            for (_, device) in written.iter().filter(|(number, _)| number % TRIM_EVERY == 0) {
                self.trim_timeline(device).await?;
            }
        }
        Ok(())
    }

    /// How many security events came from a device since a moment.
    pub(crate) async fn security_events_since(
        &mut self,
        device: &DeviceId,
        since: UnixMillis,
    ) -> Result<u64, StoreError> {
        self.write_pending().await?;
        let count: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM timeline
             WHERE tenant = $1 AND device = $2 AND at >= $3 AND severity = 'security'",
        )
        .bind(self.tenant().to_string())
        .bind(device.to_string())
        .bind(since.0)
        .fetch_one(self.connection())
        .await?;
        unsigned("count", count)
    }

    async fn trim_timeline(&mut self, device: &str) -> Result<(), StoreError> {
        let device = device.to_owned();
        self.run(
            "DELETE FROM timeline WHERE tenant = $1 AND device = $2 AND number <=
             (SELECT number FROM timeline WHERE tenant = $1 AND device = $2
              ORDER BY number DESC LIMIT 1 OFFSET $3)",
            |it| it.bind(device).bind(ENTRIES_MAX),
        )
        .await?;
        Ok(())
    }
}

fn entry(row: Row) -> Result<TimelineEntry, StoreError> {
    let model: Option<ModelName> = row.model.map(|model| parsed("model", &model)).transpose()?;
    let Row { number: _, at, kind, severity, code, text, model: _ } = row;
    Ok(TimelineEntry { at: UnixMillis(at), kind, severity, code, text, model })
}
