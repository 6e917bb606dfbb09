//! Devices as people see them: desired beside reported.

use std::collections::BTreeMap;

use sealift_protocol::api::{DeviceState, DeviceView, HealthView, SlotView};
use sealift_protocol::codec;
use sealift_protocol::id::{DeviceId, Generation, ModelName, RolloutId, UnixMillis};
use sealift_protocol::limits::{BEAT_BYTES_MAX, MESSAGE_BYTES_MAX};
use sealift_protocol::report::SlotReport;
use sealift_protocol::telemetry::Beat;
use sqlx::AssertSqlSafe;

use super::matching::{Matching, Presence};
use super::{Change, StoreError, TenantStore, corrupt, from_json, from_word, parsed, unsigned};
use crate::filter::Filter;
use crate::inventory;

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    state: String,
    enrolled_at: i64,
    certificate_serial: String,
    certificate_expires_at: i64,
    seen_at: Option<i64>,
    agent: Option<String>,
    facts: Option<String>,
    endpoint: Option<String>,
    generation: i64,
    reported_generation: i64,
}

/// Everything else that a device's view is made of, by device.
#[derive(Default)]
struct Parts {
    labels: BTreeMap<String, BTreeMap<String, String>>,
    slots: BTreeMap<String, BTreeMap<ModelName, SlotView>>,
    health: BTreeMap<String, HealthView>,
}

impl TenantStore {
    /// A page of the devices that a filter names, by id, after `after`.
    pub(crate) async fn devices(
        &self,
        filter: &Filter,
        presence: Presence,
        after: Option<&DeviceId>,
        limit: u32,
    ) -> Result<Vec<DeviceView>, StoreError> {
        let mut matching = self.matching(filter, presence).await?;
        if let Some(after) = after {
            let after = matching.parameter(after.as_str());
            matching.text.push_str(" AND d.id > ");
            matching.text.push_str(&after);
        }
        self.views(&matching, presence, limit).await
    }

    /// One device.
    pub(crate) async fn device(
        &self,
        id: &DeviceId,
        presence: Presence,
    ) -> Result<Option<DeviceView>, StoreError> {
        let mut matching = self.matching(&Filter::default(), presence).await?;
        let id = matching.parameter(id.as_str());
        matching.text.push_str(" AND d.id = ");
        matching.text.push_str(&id);
        Ok(self.views(&matching, presence, 1).await?.pop())
    }

    /// Some devices by name; those that are not there are left out.
    pub(crate) async fn devices_named<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a DeviceId>,
        presence: Presence,
    ) -> Result<Vec<DeviceView>, StoreError> {
        let mut matching = self.matching(&Filter::default(), presence).await?;
        let ids: Vec<_> = ids.into_iter().map(|id| matching.parameter(id.as_str())).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        matching.text.push_str(" AND d.id IN (");
        matching.text.push_str(&ids.join(", "));
        matching.text.push(')');
        self.views(&matching, presence, u32::MAX).await
    }

    /// How many devices a filter names.
    pub(crate) async fn count_devices(
        &self,
        filter: &Filter,
        presence: Presence,
    ) -> Result<u64, StoreError> {
        let matching = self.matching(filter, presence).await?;
        let text = format!("SELECT COUNT(*) FROM devices d WHERE {}", matching.text);
        let query = matching.bind_scalar(sqlx::query_scalar(AssertSqlSafe(text)));
        let count: i64 = query.fetch_one(self.readers()).await?;
        unsigned("count", count)
    }

    async fn views(
        &self,
        matching: &Matching,
        presence: Presence,
        limit: u32,
    ) -> Result<Vec<DeviceView>, StoreError> {
        let text = format!(
            "SELECT d.id, {} AS state, d.enrolled_at, d.certificate_serial,
             d.certificate_expires_at, d.seen_at, d.agent, d.facts, d.endpoint, d.reported_generation,
             COALESCE((SELECT c.generation FROM directives c
             WHERE c.tenant = d.tenant AND c.device = d.id), 0) AS generation
             FROM devices d WHERE {} ORDER BY d.id LIMIT {limit}",
            presence.state(),
            matching.text
        );
        let query = matching.bind_as(sqlx::query_as(AssertSqlSafe(text)));
        let rows: Vec<Row> = query.fetch_all(self.readers()).await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<_> = rows.iter().map(|row| row.id.clone()).collect();
        let mut parts = self.parts(&ids).await?;
        rows.into_iter().map(|row| view(row, &mut parts)).collect()
    }

    async fn parts(&self, ids: &[String]) -> Result<Parts, StoreError> {
        let mut parts = Parts::default();
        let labels: Vec<(String, String, String)> =
            self.of_devices("SELECT device, name, value FROM labels", ids).await?;
        for (device, name, value) in labels {
            parts.labels.entry(device).or_default().insert(name, value);
        }
        let reported: Vec<(String, Vec<u8>)> =
            self.of_devices("SELECT device, body FROM slots", ids).await?;
        for (device, body) in reported {
            let slot = reported_slot(&body)?;
            parts.slots.entry(device).or_default().insert(slot.model.clone(), slot);
        }
        let desired: Vec<(String, String, String, i64)> =
            self.of_devices("SELECT device, model, version, rollout FROM desired", ids).await?;
        for (device, model, version, rollout) in desired {
            let model: ModelName = parsed("model", &model)?;
            let slots = parts.slots.entry(device).or_default();
            let slot = slots.entry(model.clone()).or_insert_with(|| inventory::empty_slot(model));
            slot.desired = Some(parsed("version", &version)?);
            slot.rollout = Some(RolloutId(unsigned("rollout", rollout)?));
        }
        let beats: Vec<(String, i64, Vec<u8>)> =
            self.of_devices("SELECT device, at, body FROM beats", ids).await?;
        for (device, at, body) in beats {
            let beat: Beat = codec::decode("heartbeat", &body, BEAT_BYTES_MAX)
                .map_err(|error| corrupt("heartbeat", &error.to_string()))?;
            parts.health.insert(device, inventory::health(&beat, UnixMillis(at)));
        }
        Ok(parts)
    }

    /// Rows of one table, of these devices.
    async fn of_devices<T>(&self, select: &str, ids: &[String]) -> Result<Vec<T>, StoreError>
    where
        T: for<'r> sqlx::FromRow<'r, sqlx::any::AnyRow> + Send + Unpin,
    {
        let places: Vec<_> = (2..ids.len() + 2).map(|place| format!("${place}")).collect();
        let text = format!("{select} WHERE tenant = $1 AND device IN ({})", places.join(", "));
        let query = sqlx::query_as(AssertSqlSafe(text)).bind(self.id().to_owned());
        let query = ids.iter().fold(query, |query, id| query.bind(id.clone()));
        Ok(query.fetch_all(self.readers()).await?)
    }
}

impl Change {
    /// Sets and removes labels of a device. Returns whether there is such a device.
    pub(crate) async fn change_labels(
        &mut self,
        device: &DeviceId,
        labels: &BTreeMap<String, Option<String>>,
    ) -> Result<bool, StoreError> {
        let id = device.to_string();
        // Writing the row first makes two changes of one device wait for each other.
        let found = self
            .run("UPDATE devices SET id = id WHERE tenant = $1 AND id = $2", |it| it.bind(id))
            .await?;
        for (name, value) in labels {
            let (id, name) = (device.to_string(), name.clone());
            match value.clone() {
                Some(value) if found == 1 => {
                    self.run(
                        "INSERT INTO labels (tenant, device, name, value) VALUES ($1, $2, $3, $4)
                         ON CONFLICT (tenant, device, name) DO UPDATE SET value = excluded.value",
                        |it| it.bind(id).bind(name).bind(value),
                    )
                    .await?;
                }
                Some(_) => (),
                None => {
                    self.run(
                        "DELETE FROM labels WHERE tenant = $1 AND device = $2 AND name = $3",
                        |it| it.bind(id).bind(name),
                    )
                    .await?;
                }
            }
        }
        Ok(found == 1)
    }

    /// How many labels a device has.
    pub(crate) async fn count_labels(&mut self, device: &DeviceId) -> Result<u64, StoreError> {
        let count: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM labels WHERE tenant = $1 AND device = $2")
                .bind(self.tenant().to_string())
                .bind(device.to_string())
                .fetch_one(self.connection())
                .await?;
        unsigned("count", count)
    }

    /// Revokes a device's certificate. Returns whether it was good before.
    pub(crate) async fn revoke_device(
        &mut self,
        device: &DeviceId,
        reason: &str,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let (id, reason) = (device.to_string(), reason.to_owned());
        let revoked = self
            .run(
                "UPDATE devices SET revoked_at = $3, revoked_reason = $4, online = 0
                 WHERE tenant = $1 AND id = $2 AND revoked_at IS NULL",
                |it| it.bind(id).bind(now.0).bind(reason),
            )
            .await?;
        self.end_certificates(device, now).await?;
        Ok(revoked == 1)
    }
}

/// What a device reported of one model, as it was stored.
pub(crate) fn stored_report(body: &[u8]) -> Result<SlotReport, StoreError> {
    codec::decode("slot", body, MESSAGE_BYTES_MAX)
        .map_err(|error| corrupt("slot report", &error.to_string()))
}

fn reported_slot(body: &[u8]) -> Result<SlotView, StoreError> {
    Ok(inventory::reported_slot(stored_report(body)?))
}

fn view(row: Row, parts: &mut Parts) -> Result<DeviceView, StoreError> {
    let state: DeviceState = from_word("device state", &row.state)?;
    Ok(DeviceView {
        state,
        labels: parts.labels.remove(&row.id).unwrap_or_default(),
        seen_at: row.seen_at.map(UnixMillis),
        enrolled_at: UnixMillis(row.enrolled_at),
        certificate_serial: row.certificate_serial,
        certificate_expires_at: UnixMillis(row.certificate_expires_at),
        agent: row.agent,
        facts: row.facts.map(|facts| from_json("facts", &facts)).transpose()?,
        endpoint: row.endpoint,
        desired_generation: Generation(unsigned("generation", row.generation)?),
        reported_generation: Generation(unsigned("generation", row.reported_generation)?),
        slots: parts.slots.remove(&row.id).unwrap_or_default().into_values().collect(),
        health: parts.health.remove(&row.id),
        id: parsed("device", &row.id)?,
    })
}
