//! The devices that have to do with a model: what they should run of it, what they serve, what they still have.

use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, ModelName, RolloutId, Version};
use sqlx::AssertSqlSafe;

use super::matching::Presence;
use super::{Change, StoreError, TenantStore, parsed, unsigned};
use crate::filter::Filter;

/// A device that should run or serves some version of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Which.
    pub(crate) device: DeviceId,
    /// What it should run.
    pub(crate) desired: Option<Version>,
    /// The rollout that says so.
    pub(crate) rollout: Option<RolloutId>,
    /// What it serves.
    pub(crate) serving: Option<Version>,
    /// What it served before, and still has.
    pub(crate) previous: Option<Version>,
    /// Images that it needs no download for.
    pub(crate) on_disk: BTreeSet<Digest>,
}

impl Placed {
    /// The versions that it runs or should run.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &Version> {
        [&self.desired, &self.serving].into_iter().flatten()
    }

    /// Whether it serves `version`, or did before.
    pub(crate) fn has_kept(&self, version: &Version) -> bool {
        self.serving.as_ref() == Some(version) || self.previous.as_ref() == Some(version)
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    desired: Option<String>,
    rollout: Option<i64>,
    serving_version: Option<String>,
    serving_digest: Option<String>,
    previous_version: Option<String>,
    previous_digest: Option<String>,
}

impl TenantStore {
    /// The devices of a filter that have to do with a model; without revoked ones.
    pub(crate) async fn placed(
        &self,
        model: &ModelName,
        filter: &Filter,
        presence: Presence,
    ) -> Result<Vec<Placed>, StoreError> {
        let mut matching = self.matching(filter, presence).await?;
        let model = matching.parameter(&model.to_string());
        let text = format!(
            "SELECT d.id, w.version AS desired, w.rollout, s.serving_version, s.serving_digest,
             s.previous_version, s.previous_digest FROM devices d
             LEFT JOIN desired w ON w.tenant = d.tenant AND w.device = d.id AND w.model = {model}
             LEFT JOIN slots s ON s.tenant = d.tenant AND s.device = d.id AND s.model = {model}
             WHERE {} AND d.revoked_at IS NULL
             AND (w.device IS NOT NULL OR s.device IS NOT NULL) ORDER BY d.id",
            matching.text
        );
        let query = matching.bind_as(sqlx::query_as(AssertSqlSafe(text)));
        let rows: Vec<Row> = query.fetch_all(self.readers()).await?;
        rows.into_iter().map(placed).collect()
    }

    /// How many devices should run what each rollout of a model brings, because it said so; without revoked ones.
    pub(crate) async fn followers(
        &self,
        model: &ModelName,
    ) -> Result<BTreeMap<RolloutId, u64>, StoreError> {
        let rows: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT w.rollout, COUNT(*) FROM desired w
             JOIN devices d ON d.tenant = w.tenant AND d.id = w.device
             WHERE w.tenant = $1 AND w.model = $2 AND d.revoked_at IS NULL GROUP BY w.rollout",
        )
        .bind(self.id().to_owned())
        .bind(model.to_string())
        .fetch_all(self.readers())
        .await?;
        let follower = |(rollout, count): (i64, i64)| {
            Ok((RolloutId(unsigned("rollout", rollout)?), unsigned("count", count)?))
        };
        rows.into_iter().map(follower).collect()
    }
}

impl Change {
    /// Devices that failed an image before are offered it again: it is where they go back to.
    pub(crate) async fn clear_penalties(&mut self, image: Digest) -> Result<u64, StoreError> {
        let digest = image.to_string();
        let statement = "DELETE FROM penalties WHERE tenant = $1 AND digest = $2";
        self.run(statement, |it| it.bind(digest)).await
    }
}

fn placed(row: Row) -> Result<Placed, StoreError> {
    let version = |text: Option<String>| text.map(|text| parsed("version", &text)).transpose();
    let digests = [row.serving_digest, row.previous_digest];
    let on_disk = digests.into_iter().flatten().map(|text| parsed("digest", &text));
    Ok(Placed {
        device: parsed("device", &row.id)?,
        desired: version(row.desired)?,
        rollout: row.rollout.map(|it| unsigned("rollout", it)).transpose()?.map(RolloutId),
        serving: version(row.serving_version)?,
        previous: version(row.previous_version)?,
        on_disk: on_disk.collect::<Result<_, _>>()?,
    })
}
