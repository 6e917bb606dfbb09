//! The fleet in a few numbers, counted by the database.

use sealift_protocol::api::{DeviceState, ModelAdoption};
use sealift_protocol::id::{DeviceId, ModelName, Version};
use sqlx::AssertSqlSafe;
use std::collections::BTreeMap;

use super::matching::Presence;
use super::{StoreError, TenantStore, from_word, parsed, unsigned};
use crate::filter::Filter;

/// Heartbeats older than this say nothing of the present load.
const LOAD_WINDOW_MS: i64 = 5 * 60 * 1_000;

impl TenantStore {
    /// How many devices are in which state.
    pub(crate) async fn devices_by_state(
        &self,
        filter: &Filter,
        presence: Presence,
    ) -> Result<BTreeMap<DeviceState, u64>, StoreError> {
        let matching = self.matching(filter, presence).await?;
        let text = format!(
            "SELECT x.state, COUNT(*) FROM (SELECT {} AS state FROM devices d WHERE {}) x
             GROUP BY x.state",
            presence.state(),
            matching.text
        );
        let query = matching.bind_as(sqlx::query_as(AssertSqlSafe(text)));
        let rows: Vec<(String, i64)> = query.fetch_all(self.readers()).await?;
        let count = |(state, count): (String, _)| {
            Ok((from_word("device state", &state)?, unsigned("count", count)?))
        };
        rows.into_iter().map(count).collect()
    }

    /// Which version of each model is served, or only desired, on how many devices.
    pub(crate) async fn adoption(
        &self,
        filter: &Filter,
        presence: Presence,
    ) -> Result<Vec<ModelAdoption>, StoreError> {
        let matching = self.matching(filter, presence).await?;
        let served = format!(
            "SELECT s.model, s.serving_version, COUNT(*) FROM slots s
             JOIN devices d ON d.tenant = s.tenant AND d.id = s.device AND d.revoked_at IS NULL
             WHERE {} GROUP BY s.model, s.serving_version ORDER BY s.model, s.serving_version",
            matching.text
        );
        let served = matching.bind_as(sqlx::query_as(AssertSqlSafe(served)));
        let served: Vec<(String, Option<String>, i64)> = served.fetch_all(self.readers()).await?;
        let waiting = format!(
            "SELECT w.model, COUNT(*) FROM desired w
             JOIN devices d ON d.tenant = w.tenant AND d.id = w.device AND d.revoked_at IS NULL
             WHERE {} AND NOT EXISTS (SELECT 1 FROM slots s WHERE s.tenant = w.tenant
             AND s.device = w.device AND s.model = w.model) GROUP BY w.model",
            matching.text
        );
        let waiting = matching.bind_as(sqlx::query_as(AssertSqlSafe(waiting)));
        let waiting: Vec<(String, i64)> = waiting.fetch_all(self.readers()).await?;
        let waiting = waiting.into_iter().map(|(model, count)| (model, None, count));
        let mut adoption: BTreeMap<(ModelName, Option<Version>), u64> = BTreeMap::new();
        for (model, version, count) in served.into_iter().chain(waiting) {
            let version = version.map(|version| parsed("version", &version)).transpose()?;
            let key = (parsed("model", &model)?, version);
            *adoption.entry(key).or_default() += unsigned("count", count)?;
        }
        let entry = |((model, version), devices)| ModelAdoption { model, version, devices };
        Ok(adoption.into_iter().map(entry).collect())
    }

    /// Inference requests per second over the fleet.
    pub(crate) async fn requests_per_s(
        &self,
        filter: &Filter,
        presence: Presence,
    ) -> Result<f64, StoreError> {
        let matching = self.matching(filter, presence).await?;
        let since = presence.now.plus(-LOAD_WINDOW_MS).0;
        let text = if filter.terms().is_empty() {
            format!("SELECT SUM(requests_per_s) FROM beats WHERE tenant = $1 AND at > {since}")
        } else {
            format!(
                "SELECT SUM(b.requests_per_s) FROM beats b
                 JOIN devices d ON d.tenant = b.tenant AND d.id = b.device
                 WHERE {} AND b.at > {since}",
                matching.text
            )
        };
        let query = matching.bind_scalar(sqlx::query_scalar(AssertSqlSafe(text)));
        let sum: Option<f64> = query.fetch_one(self.readers()).await?;
        Ok(sum.unwrap_or(0.0))
    }

    /// How many alerts nobody looks after.
    pub(crate) async fn open_alerts(&self) -> Result<u64, StoreError> {
        let count: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM alerts WHERE tenant = $1 AND state = 'open'")
                .bind(self.id().to_owned())
                .fetch_one(self.readers())
                .await?;
        unsigned("count", count)
    }

    /// Devices with something wrong, and what, a few of them.
    pub(crate) async fn troubled_devices(
        &self,
        filter: &Filter,
        presence: Presence,
        limit: u32,
    ) -> Result<Vec<(DeviceId, String)>, StoreError> {
        let matching = self.matching(filter, presence).await?;
        let text = format!(
            "SELECT d.id, d.trouble FROM devices d WHERE {} AND {} = 'unhealthy'
             ORDER BY d.id LIMIT {limit}",
            matching.text,
            presence.state()
        );
        let query = matching.bind_as(sqlx::query_as(AssertSqlSafe(text)));
        let rows: Vec<(String, String)> = query.fetch_all(self.readers()).await?;
        let device = |(id, trouble): (String, String)| Ok((parsed("device", &id)?, trouble));
        rows.into_iter().map(device).collect()
    }
}
