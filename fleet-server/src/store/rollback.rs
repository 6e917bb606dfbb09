//! What going back needs to know: what each device ran when, sets of devices, and who is not offered what any more.

use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, Epoch, ModelName, UnixMillis, Version};
use sealift_protocol::report::ImageRef;
use sqlx::AssertSqlSafe;

use super::matching::Presence;
use super::{Change, StoreError, TenantStore, many, parsed, signed, unsigned};
use crate::filter::Filter;

/// Changes of image that are remembered of one model on one device: several a day for a month.
const REMEMBERED_MAX: i64 = 200;
/// How often the oldest are looked for: at one of so many moments.
const TRIM_EVERY: i64 = 16;

/// The code of a penalty that an operator has given.
const LEFT: &str = "rollback.left";

/// Numbers a set of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceSet(pub(crate) u64);

impl DeviceSet {
    /// The filter that names it.
    pub(crate) fn filter(self) -> String {
        format!("chosen:{}", self.0)
    }
}

impl TenantStore {
    /// What each device of a model served at a time, as far as the server had heard; none where it served nothing. Of devices that are
    /// not in it, it is not known.
    pub(crate) async fn served_at(
        &self,
        model: &ModelName,
        at: UnixMillis,
    ) -> Result<BTreeMap<DeviceId, Option<ImageRef>>, StoreError> {
        let rows: Vec<(String, Option<String>, Option<String>)> = sqlx::query_as(
            "SELECT h.device, h.version, h.digest FROM served_images h
             WHERE h.tenant = $1 AND h.model = $2 AND h.since = (SELECT MAX(x.since)
             FROM served_images x WHERE x.tenant = h.tenant AND x.device = h.device
             AND x.model = h.model AND x.since <= $3)",
        )
        .bind(self.id().to_owned())
        .bind(model.to_string())
        .bind(at.0)
        .fetch_all(self.readers())
        .await?;
        let served = |(device, version, digest): (String, Option<String>, Option<String>)| {
            let image = match (version, digest) {
                (Some(version), Some(digest)) => Some(ImageRef {
                    version: parsed("version", &version)?,
                    index: parsed("digest", &digest)?,
                }),
                _ => None, // it served nothing
            };
            Ok((parsed("device", &device)?, image))
        };
        rows.into_iter().map(served).collect()
    }

    /// The devices that a filter names; without revoked ones.
    pub(crate) async fn device_ids(
        &self,
        filter: &Filter,
        presence: Presence,
    ) -> Result<Vec<DeviceId>, StoreError> {
        let matching = self.matching(filter, presence).await?;
        let text = format!(
            "SELECT d.id FROM devices d WHERE {} AND d.revoked_at IS NULL ORDER BY d.id",
            matching.text
        );
        let query = matching.bind_scalar(sqlx::query_scalar(AssertSqlSafe(text)));
        let ids: Vec<String> = query.fetch_all(self.readers()).await?;
        ids.iter().map(|id| parsed("device", id)).collect()
    }

    /// The highest security epoch of an image that each device of a model has kept, as far as the server can tell.
    pub(crate) async fn epoch_floors(
        &self,
        model: &ModelName,
    ) -> Result<BTreeMap<DeviceId, Epoch>, StoreError> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT s.device, v.epoch FROM slots s JOIN versions v
             ON v.tenant = s.tenant AND v.model = s.model AND v.digest = s.serving_digest
             WHERE s.tenant = $1 AND s.model = $2 AND s.phase IN ('idle', 'watch')",
        )
        .bind(self.id().to_owned())
        .bind(model.to_string())
        .fetch_all(self.readers())
        .await?;
        let floor = |(device, epoch): (String, i64)| {
            Ok((parsed("device", &device)?, Epoch(unsigned("epoch", epoch)?)))
        };
        rows.into_iter().map(floor).collect()
    }

    /// Devices that ended badly with an image and are not offered it.
    pub(crate) async fn penalised(&self, image: Digest) -> Result<BTreeSet<DeviceId>, StoreError> {
        let devices: Vec<String> =
            sqlx::query_scalar("SELECT device FROM penalties WHERE tenant = $1 AND digest = $2")
                .bind(self.id().to_owned())
                .bind(image.to_string())
                .fetch_all(self.readers())
                .await?;
        devices.iter().map(|device| parsed("device", device)).collect()
    }
}

impl Change {
    /// Remembers what devices serve from some moments on.
    pub(super) async fn write_served(
        &mut self,
        served: BTreeMap<(DeviceId, ModelName, UnixMillis), Option<ImageRef>>,
    ) -> Result<(), StoreError> {
        for part in many::parts(&served, 5) {
            let text = format!(
                "INSERT INTO served_images (tenant, device, model, since, version, digest)
                 VALUES {} ON CONFLICT (tenant, device, model, since)
                 DO UPDATE SET version = excluded.version, digest = excluded.digest",
                many::values(part.len(), 5)
            );
            let mut statement = self.statement(text);
            for ((device, model, since), image) in part {
                let image = image.as_ref();
                statement = statement.bind(device.to_string()).bind(model.to_string());
                statement = statement.bind(since.0);
                statement = statement.bind(image.map(|image| image.version.to_string()));
                statement = statement.bind(image.map(|image| image.index.to_string()));
            }
            statement.execute(self.connection()).await?;
        }
        for (device, model, _) in served.keys().filter(|(.., since)| since.0 % TRIM_EVERY == 0) {
            let (id, name) = (device.to_string(), model.to_string());
            self.run(
                "DELETE FROM served_images WHERE tenant = $1 AND device = $2 AND model = $3
                 AND since <= (SELECT since FROM served_images WHERE tenant = $1 AND device = $2
                 AND model = $3 ORDER BY since DESC LIMIT 1 OFFSET $4)",
                |it| it.bind(id).bind(name).bind(REMEMBERED_MAX),
            )
            .await?;
        }
        Ok(())
    }

    /// Names a set of devices.
    pub(crate) async fn add_set(&mut self, devices: &[DeviceId]) -> Result<DeviceSet, StoreError> {
        let number = self.next_number("device-set").await?;
        let key = signed("set", number)?;
        for part in devices.chunks(many::rows(2)) {
            let rows = many::values(part.len(), 2);
            let text = format!("INSERT INTO device_sets (tenant, number, device) VALUES {rows}");
            let mut statement = self.statement(text);
            for device in part {
                statement = statement.bind(key).bind(device.to_string());
            }
            statement.execute(self.connection()).await?;
        }
        Ok(DeviceSet(number))
    }

    /// Devices of a set that failed an image before are offered it again: it is where they go back to.
    pub(crate) async fn clear_penalties_in(
        &mut self,
        set: DeviceSet,
        image: Digest,
    ) -> Result<u64, StoreError> {
        let (key, digest) = (signed("set", set.0)?, image.to_string());
        self.run(
            "DELETE FROM penalties WHERE tenant = $1 AND digest = $2 AND device IN
             (SELECT device FROM device_sets WHERE tenant = $1 AND number = $3)",
            |it| it.bind(digest).bind(key),
        )
        .await
    }

    /// Devices of a set are not offered a version any more, which is not quarantined for others.
    pub(crate) async fn penalise_version(
        &mut self,
        (set, model): (DeviceSet, &ModelName),
        version: &Version,
        (reason, now): (&str, UnixMillis),
    ) -> Result<(), StoreError> {
        let key = signed("set", set.0)?;
        let reason = format!("an operator went back from it: {reason}");
        let (name, version) = (model.to_string(), version.to_string());
        self.run(
            "INSERT INTO penalties (tenant, device, digest, code, reason, at)
             SELECT c.tenant, c.device, v.digest, $5, $6, $7 FROM device_sets c
             JOIN versions v ON v.tenant = c.tenant AND v.model = $3 AND v.version = $4
             WHERE c.tenant = $1 AND c.number = $2
             ON CONFLICT (tenant, device, digest) DO NOTHING",
            |it| it.bind(key).bind(name).bind(version).bind(LEFT).bind(reason).bind(now.0),
        )
        .await?;
        Ok(())
    }

    /// Devices of a set are not offered any more what they leave now, which is not quarantined for others.
    pub(crate) async fn penalise_left(
        &mut self,
        (set, model): (DeviceSet, &ModelName),
        target: Digest,
        (reason, now): (&str, UnixMillis),
    ) -> Result<(), StoreError> {
        let key = signed("set", set.0)?;
        let reason = format!("an operator went back from it: {reason}");
        for statement in [
            "INSERT INTO penalties (tenant, device, digest, code, reason, at)
             SELECT c.tenant, c.device, w.digest, $5, $6, $7 FROM device_sets c
             JOIN desired w ON w.tenant = c.tenant AND w.device = c.device AND w.model = $3
             WHERE c.tenant = $1 AND c.number = $2 AND w.digest <> $4
             ON CONFLICT (tenant, device, digest) DO NOTHING",
            "INSERT INTO penalties (tenant, device, digest, code, reason, at)
             SELECT c.tenant, c.device, s.serving_digest, $5, $6, $7 FROM device_sets c
             JOIN slots s ON s.tenant = c.tenant AND s.device = c.device AND s.model = $3
             WHERE c.tenant = $1 AND c.number = $2 AND s.serving_digest <> $4
             ON CONFLICT (tenant, device, digest) DO NOTHING",
        ] {
            let (name, digest, reason) = (model.to_string(), target.to_string(), reason.clone());
            self.run(statement, |it| {
                it.bind(key).bind(name).bind(digest).bind(LEFT).bind(reason).bind(now.0)
            })
            .await?;
        }
        Ok(())
    }
}
