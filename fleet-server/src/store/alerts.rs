//! Alerts: at most one that is not closed about each subject.

use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::api::{AlertState, AlertView};
use sealift_protocol::codec;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{AlertId, DeviceId, ModelName, UnixMillis, Version};
use sealift_protocol::limits::BEAT_BYTES_MAX;
use sqlx::AssertSqlSafe;

use super::{
    Change, StoreError, TenantStore, corrupt, from_json, from_word, parsed, signed, to_json,
    unsigned, word,
};
use crate::alert::{Acknowledged, Alert, Finding, NEVER};
use crate::watch::health::VitalsRow;

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

/// An image that devices serve, and a label of some of them.
pub(crate) struct ServedImage {
    /// The model.
    pub(crate) model: ModelName,
    /// The version, as the devices name it.
    pub(crate) version: Version,
    /// The image.
    pub(crate) digest: Digest,
    /// One of the labels asked for, if a device has any.
    pub(crate) label: Option<(String, String)>,
}

/// Devices from which nothing comes.
pub(crate) struct SilentDevices {
    /// How many.
    pub(crate) total: u64,
    /// Those that were silent first.
    pub(crate) devices: Vec<SilentDevice>,
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

    /// Every alert that is not closed and that people were told of.
    pub(crate) async fn told_alerts(&self) -> Result<Vec<AlertView>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT * FROM alerts WHERE tenant = $1 AND closed_at IS NULL AND told_at > 0
             ORDER BY number",
        )
        .bind(self.id().to_owned())
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(view).collect()
    }

    /// A page of the alerts in some states, newest first, numbered below `before`.
    pub(crate) async fn alerts(
        &self,
        states: &BTreeSet<AlertState>,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AlertView>, StoreError> {
        let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
        let [first, second, third] = words(states)?;
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT * FROM alerts WHERE tenant = $1 AND number < $2
             AND state IN ($3, $4, $5) ORDER BY number DESC LIMIT $6",
        )
        .bind(self.id().to_owned())
        .bind(before)
        .bind(first)
        .bind(second)
        .bind(third)
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(view).collect()
    }

    /// How many alerts are in some states.
    pub(crate) async fn count_alerts(
        &self,
        states: &BTreeSet<AlertState>,
    ) -> Result<u64, StoreError> {
        let [first, second, third] = words(states)?;
        let count: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM alerts WHERE tenant = $1 AND state IN ($2, $3, $4)",
        )
        .bind(self.id().to_owned())
        .bind(first)
        .bind(second)
        .bind(third)
        .fetch_one(self.readers())
        .await?;
        unsigned("count", count)
    }

    /// The images that devices say they serve, with each value of these labels under which they do.
    pub(crate) async fn served_images(
        &self,
        labels: &[String],
    ) -> Result<Vec<ServedImage>, StoreError> {
        type Row = (String, String, String, Option<String>, Option<String>);
        let places: Vec<_> = (2..labels.len() + 2).map(|place| format!("${place}")).collect();
        let is_asked = match places.as_slice() {
            [] => "1 = 0".to_owned(),
            places => format!("l.name IN ({})", places.join(", ")),
        };
        let text = format!(
            "SELECT DISTINCT s.model, s.serving_version, s.serving_digest, l.name, l.value FROM slots s
             JOIN devices d ON d.tenant = s.tenant AND d.id = s.device AND d.revoked_at IS NULL
             LEFT JOIN labels l ON l.tenant = s.tenant AND l.device = s.device AND {is_asked}
             WHERE s.tenant = $1 AND s.serving_version IS NOT NULL AND s.serving_digest IS NOT NULL"
        );
        let query = sqlx::query_as(AssertSqlSafe(text)).bind(self.id().to_owned());
        let query = labels.iter().fold(query, |query, label| query.bind(label.clone()));
        let rows: Vec<Row> = query.fetch_all(self.readers()).await?;
        let image = |(model, version, digest, name, value): Row| {
            Ok(ServedImage {
                model: parsed("model", &model)?,
                version: parsed("version", &version)?,
                digest: parsed("digest", &digest)?,
                label: name.zip(value),
            })
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

    /// Devices that have been heard, but not since a moment; the first `limit` of them.
    pub(crate) async fn silent_devices(
        &self,
        heard_before: UnixMillis,
        limit: u32,
    ) -> Result<SilentDevices, StoreError> {
        let total: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM devices
             WHERE tenant = $1 AND seen_at < $2 AND revoked_at IS NULL",
        )
        .bind(self.id().to_owned())
        .bind(heard_before.0)
        .fetch_one(self.readers())
        .await?;
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT id, seen_at FROM devices WHERE tenant = $1 AND seen_at < $2
             AND revoked_at IS NULL ORDER BY seen_at, id LIMIT $3",
        )
        .bind(self.id().to_owned())
        .bind(heard_before.0)
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await?;
        let silent = |(device, heard_at): (String, i64)| {
            Ok(SilentDevice { device: parsed("device", &device)?, heard_at: UnixMillis(heard_at) })
        };
        let devices = rows.into_iter().map(silent).collect::<Result<_, StoreError>>()?;
        Ok(SilentDevices { total: unsigned("count", total)?, devices })
    }

    /// The newest heartbeat of every device that has been heard since a moment.
    pub(crate) async fn vitals(
        &self,
        heard_after: UnixMillis,
    ) -> Result<Vec<VitalsRow>, StoreError> {
        let rows: Vec<(String, i64, Vec<u8>, Option<String>)> = sqlx::query_as(
            "SELECT b.device, b.at, b.body, d.facts FROM beats b
             JOIN devices d ON d.tenant = b.tenant AND d.id = b.device AND d.revoked_at IS NULL
             WHERE b.tenant = $1 AND b.at >= $2 ORDER BY b.device",
        )
        .bind(self.id().to_owned())
        .bind(heard_after.0)
        .fetch_all(self.readers())
        .await?;
        let row = |(device, at, body, facts): (String, i64, Vec<u8>, Option<String>)| {
            let beat = codec::decode("beat", &body, BEAT_BYTES_MAX);
            Ok(VitalsRow {
                device: parsed("device", &device)?,
                at: UnixMillis(at),
                beat: beat.map_err(|error| corrupt("beat", &error.to_string()))?,
                facts: facts.map(|facts| from_json("facts", &facts)).transpose()?,
            })
        };
        rows.into_iter().map(row).collect()
    }

    /// The number below the first of the profile windows that came after a moment, of the newest `limit`.
    pub(crate) async fn window_before(
        &self,
        since: UnixMillis,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let first: Option<i64> = sqlx::query_scalar(
            "SELECT MIN(n.number) FROM (SELECT number FROM profile_windows
             WHERE tenant = $1 AND received_at >= $2 ORDER BY number DESC LIMIT $3) n",
        )
        .bind(self.id().to_owned())
        .bind(since.0)
        .bind(i64::from(limit))
        .fetch_one(self.readers())
        .await?;
        if let Some(first) = first {
            return unsigned("window", first - 1);
        }
        let newest: Option<i64> =
            sqlx::query_scalar("SELECT MAX(number) FROM profile_windows WHERE tenant = $1")
                .bind(self.id().to_owned())
                .fetch_one(self.readers())
                .await?;
        unsigned("window", newest.unwrap_or(0))
    }
}

impl Change {
    /// Opens an alert; none if there is a live one about the same subject.
    pub(crate) async fn open_alert(
        &mut self,
        finding: &Finding,
        now: UnixMillis,
    ) -> Result<Option<AlertId>, StoreError> {
        self.insert_alert(finding, (now, now)).await
    }

    /// Opens an alert that a silence covers: nobody is told yet.
    pub(crate) async fn open_untold_alert(
        &mut self,
        finding: &Finding,
        now: UnixMillis,
    ) -> Result<Option<AlertId>, StoreError> {
        self.insert_alert(finding, (now, NEVER)).await
    }

    async fn insert_alert(
        &mut self,
        finding: &Finding,
        (now, told_at): (UnixMillis, UnixMillis),
    ) -> Result<Option<AlertId>, StoreError> {
        let id = AlertId(self.next_number("alerts").await?);
        let (number, labels) = (signed("alert", id.0)?, to_json("labels", &finding.labels)?);
        let severity = finding.severity.as_str();
        let Finding { key, kind, title, detail, help, .. } = finding.clone();
        let opened = self
            .run(
                "INSERT INTO alerts (tenant, number, subject, state, severity, kind, title, detail,
                 help, labels, opened_at, seen_at, told_at)
                 VALUES ($1, $2, $3, 'open', $4, $5, $6, $7, $8, $9, $10, $10, $11)
                 ON CONFLICT DO NOTHING",
                |it| {
                    let it = it.bind(number).bind(key).bind(severity).bind(kind).bind(title);
                    it.bind(detail).bind(help).bind(labels).bind(now.0).bind(told_at.0)
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
        let labels = to_json("labels", &finding.labels)?;
        let Finding { title, detail, help, .. } = finding.clone();
        let changed = self
            .run(
                "UPDATE alerts SET severity = $3, title = $4, detail = $5, help = $6, seen_at = $7,
                 told_at = $7, state = CASE WHEN $8 = 1 THEN 'open' ELSE state END,
                 acknowledged_by = CASE WHEN $8 = 1 THEN NULL ELSE acknowledged_by END, labels = $9
                 WHERE tenant = $1 AND number = $2 AND closed_at IS NULL",
                |it| {
                    let it = it.bind(number).bind(severity).bind(title).bind(detail).bind(help);
                    it.bind(now.0).bind(i64::from(is_worse)).bind(labels)
                },
            )
            .await?;
        Ok((changed == 1).then_some(id))
    }

    /// Lets a live alert say what holds now; nobody is told. False if it is over.
    pub(crate) async fn refresh_alert(
        &mut self,
        id: AlertId,
        finding: &Finding,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let (number, labels) = (signed("alert", id.0)?, to_json("labels", &finding.labels)?);
        let Finding { title, detail, help, .. } = finding.clone();
        let changed = self
            .run(
                "UPDATE alerts SET title = $3, detail = $4, help = $5, labels = $6, seen_at = $7
                 WHERE tenant = $1 AND number = $2 AND closed_at IS NULL",
                |it| it.bind(number).bind(title).bind(detail).bind(help).bind(labels).bind(now.0),
            )
            .await?;
        Ok(changed == 1)
    }

    /// Closes a live alert, and says why.
    pub(crate) async fn close_alert(
        &mut self,
        id: AlertId,
        why: &str,
        now: UnixMillis,
    ) -> Result<Option<AlertId>, StoreError> {
        let (number, why) = (signed("alert", id.0)?, format!("; over: {why}"));
        let closed = self
            .run(
                "UPDATE alerts SET state = 'closed', closed_at = $3, detail = detail || $4
                 WHERE tenant = $1 AND number = $2 AND closed_at IS NULL",
                |it| it.bind(number).bind(now.0).bind(why),
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

/// The names of some of the three states; an empty name is no state's.
fn words(states: &BTreeSet<AlertState>) -> Result<[String; 3], StoreError> {
    let mut words: [String; 3] = Default::default();
    for (place, state) in words.iter_mut().zip(states) {
        *place = word("alert state", state)?;
    }
    Ok(words)
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
        seen_at: UnixMillis(row.seen_at),
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
        silenced_until: None,
    })
}
