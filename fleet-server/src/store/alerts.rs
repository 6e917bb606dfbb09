//! Alerts: at most one that is not closed about each subject.

use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::api::{AlertState, AlertView};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{AlertId, DeviceId, ModelName, UnixMillis};

use super::{
    Change, StoreError, TenantStore, corrupt, from_json, from_word, parsed, signed, to_json,
    unsigned,
};
use crate::alert::{Acknowledged, Alert, Finding};

#[derive(sqlx::FromRow)]
struct Row {
    number: i64,
    subject: String,
    state: String,
    severity: String,
    kind: String,
    title: String,
    detail: String,
    help: String,
    labels: String,
    opened_at: i64,
    seen_at: i64,
    told_at: i64,
    closed_at: Option<i64>,
    acknowledged_by: Option<String>,
    note: Option<String>,
}

/// A device from which nothing comes.
pub(crate) struct SilentDevice {
    /// Which.
    pub(crate) device: DeviceId,
    /// When something last came.
    pub(crate) heard_at: UnixMillis,
}

impl TenantStore {
    /// Every alert that is not closed.
    pub(crate) async fn live_alerts(&self) -> Result<Vec<Alert>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT * FROM alerts WHERE tenant = $1 AND closed_at IS NULL ORDER BY number",
        )
        .bind(self.id().to_owned())
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(alert).collect()
    }

    /// A page of alerts, newest first, numbered below `before`; with `closed` also those that are over.
    pub(crate) async fn alerts(
        &self,
        closed: bool,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AlertView>, StoreError> {
        let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT * FROM alerts WHERE tenant = $1 AND number < $2
             AND (closed_at IS NULL OR $3 = 1) ORDER BY number DESC LIMIT $4",
        )
        .bind(self.id().to_owned())
        .bind(before)
        .bind(i64::from(closed))
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(view).collect()
    }

    /// How many alerts there are.
    pub(crate) async fn count_alerts(&self, closed: bool) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM alerts WHERE tenant = $1 AND (closed_at IS NULL OR $2 = 1)",
        )
        .bind(self.id().to_owned())
        .bind(i64::from(closed))
        .fetch_one(self.readers())
        .await?;
        unsigned("count", count)
    }

    /// The images that devices say they serve.
    pub(crate) async fn served_images(&self) -> Result<BTreeSet<(ModelName, Digest)>, StoreError> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT DISTINCT model, serving_digest FROM slots
             WHERE tenant = $1 AND serving_digest IS NOT NULL",
        )
        .bind(self.id().to_owned())
        .fetch_all(self.readers())
        .await?;
        let image = |(model, digest): (String, String)| {
            Ok((parsed("model", &model)?, parsed("digest", &digest)?))
        };
        rows.into_iter().map(image).collect()
    }

    /// A device's labels.
    pub(crate) async fn labels_of(
        &self,
        device: &DeviceId,
    ) -> Result<BTreeMap<String, String>, StoreError> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT name, value FROM labels WHERE tenant = $1 AND device = $2")
                .bind(self.id().to_owned())
                .bind(device.to_string())
                .fetch_all(self.readers())
                .await?;
        Ok(rows.into_iter().collect())
    }

    /// Devices that have been heard, but not since a moment; those that were heard last come first.
    pub(crate) async fn silent_devices(
        &self,
        heard_before: UnixMillis,
        limit: u32,
    ) -> Result<Vec<SilentDevice>, StoreError> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT id, seen_at FROM devices WHERE tenant = $1 AND seen_at < $2
             AND revoked_at IS NULL ORDER BY seen_at DESC LIMIT $3",
        )
        .bind(self.id().to_owned())
        .bind(heard_before.0)
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await?;
        let silent = |(device, heard_at): (String, i64)| {
            Ok(SilentDevice { device: parsed("device", &device)?, heard_at: UnixMillis(heard_at) })
        };
        rows.into_iter().map(silent).collect()
    }

    /// The number below the first profile window that came after a moment.
    pub(crate) async fn window_before(&self, since: UnixMillis) -> Result<u64, StoreError> {
        let first: Option<i64> = sqlx::query_scalar(
            "SELECT number FROM profile_windows WHERE tenant = $1 AND received_at >= $2
             ORDER BY number LIMIT 1",
        )
        .bind(self.id().to_owned())
        .bind(since.0)
        .fetch_optional(self.readers())
        .await?;
        unsigned("window", first.map_or(0, |first| first - 1))
    }
}

impl Change {
    /// Opens an alert; none if there is a live one about the same subject.
    pub(crate) async fn open_alert(
        &mut self,
        finding: &Finding,
        now: UnixMillis,
    ) -> Result<Option<AlertId>, StoreError> {
        let id = AlertId(self.next_number("alerts").await?);
        let (number, labels) = (signed("alert", id.0)?, to_json("labels", &finding.labels)?);
        let severity = finding.severity.as_str();
        let Finding { key, kind, title, detail, help, .. } = finding.clone();
        let opened = self
            .run(
                "INSERT INTO alerts (tenant, number, subject, state, severity, kind, title, detail,
                 help, labels, opened_at, seen_at, told_at)
                 VALUES ($1, $2, $3, 'open', $4, $5, $6, $7, $8, $9, $10, $10, $10)
                 ON CONFLICT DO NOTHING",
                |it| {
                    let it = it.bind(number).bind(key).bind(severity).bind(kind).bind(title);
                    it.bind(detail).bind(help).bind(labels).bind(now.0)
                },
            )
            .await?;
        Ok((opened == 1).then_some(id))
    }

    /// Brings a live alert up to date; one that became worse has to be acknowledged anew.
    pub(crate) async fn repeat_alert(
        &mut self,
        id: AlertId,
        finding: &Finding,
        is_worse: bool,
        now: UnixMillis,
    ) -> Result<Option<AlertId>, StoreError> {
        let (number, severity) = (signed("alert", id.0)?, finding.severity.as_str());
        let Finding { title, detail, help, .. } = finding.clone();
        let changed = self
            .run(
                "UPDATE alerts SET severity = $3, title = $4, detail = $5, help = $6, seen_at = $7,
                 told_at = $7, state = CASE WHEN $8 = 1 THEN 'open' ELSE state END,
                 acknowledged_by = CASE WHEN $8 = 1 THEN NULL ELSE acknowledged_by END
                 WHERE tenant = $1 AND number = $2 AND closed_at IS NULL",
                |it| {
                    let it = it.bind(number).bind(severity).bind(title).bind(detail).bind(help);
                    it.bind(now.0).bind(i64::from(is_worse))
                },
            )
            .await?;
        Ok((changed == 1).then_some(id))
    }

    /// Closes a live alert.
    pub(crate) async fn close_alert(
        &mut self,
        id: AlertId,
        now: UnixMillis,
    ) -> Result<Option<AlertId>, StoreError> {
        let number = signed("alert", id.0)?;
        let closed = self
            .run(
                "UPDATE alerts SET state = 'closed', closed_at = $3
                 WHERE tenant = $1 AND number = $2 AND closed_at IS NULL",
                |it| it.bind(number).bind(now.0),
            )
            .await?;
        Ok((closed == 1).then_some(id))
    }

    /// Says that somebody looks after an alert; false if it is over, or never was.
    pub(crate) async fn acknowledge_alert(
        &mut self,
        id: AlertId,
        (by, note): (&str, &str),
    ) -> Result<bool, StoreError> {
        let (number, by, note) = (signed("alert", id.0)?, by.to_owned(), note.to_owned());
        let changed = self
            .run(
                "UPDATE alerts SET state = 'acknowledged', acknowledged_by = $3, note = $4
                 WHERE tenant = $1 AND number = $2 AND closed_at IS NULL",
                |it| it.bind(number).bind(by).bind(note),
            )
            .await?;
        Ok(changed == 1)
    }

    /// An alert as it is within this change.
    pub(crate) async fn alert(&mut self, id: AlertId) -> Result<AlertView, StoreError> {
        let row: Row = sqlx::query_as("SELECT * FROM alerts WHERE tenant = $1 AND number = $2")
            .bind(self.tenant().to_string())
            .bind(signed("alert", id.0)?)
            .fetch_one(self.connection())
            .await?;
        view(row)
    }
}

fn alert(row: Row) -> Result<Alert, StoreError> {
    let note = row.note.unwrap_or_default();
    let acknowledged =
        row.acknowledged_by.map(|by| Acknowledged { by, note, at: UnixMillis(row.seen_at) });
    let finding = Finding {
        key: row.subject,
        kind: row.kind,
        severity: from_word("severity", &row.severity)?,
        title: row.title,
        detail: row.detail,
        help: row.help,
        labels: from_json("labels", &row.labels)?,
        since: UnixMillis(row.opened_at),
        hold_ms: 0,
    };
    Ok(Alert {
        id: AlertId(unsigned("alert", row.number)?),
        finding,
        opened_at: UnixMillis(row.opened_at),
        told_at: UnixMillis(row.told_at),
        acknowledged,
    })
}

fn view(row: Row) -> Result<AlertView, StoreError> {
    let state: AlertState = from_word("alert state", &row.state)?;
    if (state == AlertState::Closed) != row.closed_at.is_some() {
        return Err(corrupt("alert state", &row.state));
    }
    Ok(AlertView {
        id: AlertId(unsigned("alert", row.number)?),
        state,
        severity: row.severity,
        kind: row.kind,
        title: row.title,
        detail: row.detail,
        help: row.help,
        labels: from_json("labels", &row.labels)?,
        opened_at: UnixMillis(row.opened_at),
        seen_at: UnixMillis(row.seen_at),
        closed_at: row.closed_at.map(UnixMillis),
        acknowledged_by: row.acknowledged_by,
        note: row.note,
    })
}
