//! Devices with their labels and facts, and whether something is wrong with them: what blame is found in.

use std::collections::BTreeMap;

use sealift_protocol::id::UnixMillis;
use sealift_protocol::telemetry::Facts;

use super::{StoreError, TenantStore, from_json, unsigned};
use crate::blame::Traits;

/// A device, known by its traits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// Its name.
    pub(crate) id: String,
    /// Labels, and facts that no label has the name of.
    pub(crate) traits: Traits,
    /// Whether nothing has come from it for long.
    pub(crate) is_silent: bool,
    /// Whether it has refused what it should run.
    pub(crate) has_refused: bool,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    agent: Option<String>,
    facts: Option<String>,
    is_silent: i64,
    has_refused: i64,
}

impl TenantStore {
    /// How many devices are silent, and how many have refused.
    pub(crate) async fn troubled(
        &self,
        heard_before: UnixMillis,
    ) -> Result<(u64, u64), StoreError> {
        let (silent, refused): (i64, i64) = sqlx::query_as(
            "SELECT COALESCE(SUM(CASE WHEN seen_at < $2 THEN 1 ELSE 0 END), 0),
             COALESCE(SUM(CASE WHEN refused_generation = generation THEN 1 ELSE 0 END), 0)
             FROM devices WHERE tenant = $1 AND revoked_at IS NULL AND seen_at IS NOT NULL",
        )
        .bind(self.id().to_owned())
        .bind(heard_before.0)
        .fetch_one(self.readers())
        .await?;
        Ok((unsigned("count", silent)?, unsigned("count", refused)?))
    }

    /// Devices that have ever been heard, by their names; the first `limit` of them.
    pub(crate) async fn suspects(
        &self,
        heard_before: UnixMillis,
        limit: u32,
    ) -> Result<Vec<Known>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, agent, facts, CASE WHEN seen_at < $2 THEN 1 ELSE 0 END AS is_silent,
             CASE WHEN refused_generation = generation THEN 1 ELSE 0 END AS has_refused
             FROM devices WHERE tenant = $1 AND revoked_at IS NULL AND seen_at IS NOT NULL
             ORDER BY id LIMIT $3",
        )
        .bind(self.id().to_owned())
        .bind(heard_before.0)
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await?;
        let mut labels = self.labels_of_all().await?;
        let known = |row: Row| {
            let mut traits = labels.remove(&row.id).unwrap_or_default();
            let facts = row.facts.map(|facts| from_json("facts", &facts)).transpose()?;
            for (name, value) in of_facts(row.agent, facts) {
                traits.entry(name.to_owned()).or_insert(value);
            }
            let (is_silent, has_refused) = (row.is_silent != 0, row.has_refused != 0);
            Ok(Known { id: row.id, traits, is_silent, has_refused })
        };
        rows.into_iter().map(known).collect()
    }

    async fn labels_of_all(&self) -> Result<BTreeMap<String, Traits>, StoreError> {
        let rows: Vec<(String, String, String)> =
            sqlx::query_as("SELECT device, name, value FROM labels WHERE tenant = $1")
                .bind(self.id().to_owned())
                .fetch_all(self.readers())
                .await?;
        let mut labels = BTreeMap::<String, Traits>::new();
        for (device, name, value) in rows {
            labels.entry(device).or_default().insert(name, value);
        }
        Ok(labels)
    }
}

/// What a device says of itself, as far as many devices have it in common.
fn of_facts(agent: Option<String>, facts: Option<Facts>) -> Vec<(&'static str, String)> {
    let mut named: Vec<_> = agent.into_iter().map(|agent| ("agent", agent)).collect();
    if let Some(facts) = facts {
        named.push(("os", facts.os));
        named.push(("architecture", facts.architecture));
        named.push(("runtime", facts.runtime));
        named.push(("processors", facts.processors.to_string()));
        named.push(("providers", facts.providers.join(" ")));
        // Firmware takes some of it: 3,904 and 3,912 MiB are both 4 GiB.
        named.push(("memory_gb", facts.memory_mb.div_ceil(1_024).to_string()));
    }
    named.retain(|(_, value)| !value.is_empty());
    named
}
