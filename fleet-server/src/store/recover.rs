//! A store that was restored from a backup: how far its devices are ahead of it, and what brings it ahead of them again.

use std::collections::BTreeMap;

use sealift_protocol::digest::Digest;
use sealift_protocol::directive::DesiredSlot;
use sealift_protocol::id::{
    DeviceId, Epoch, Generation, ModelName, RolloutId, UnixMillis, Version,
};
use sealift_protocol::report::{SlotReport, Trusted};

use super::devices::stored_report;
use super::{Change, StoreError, TenantStore, from_json, parsed, signed, unsigned};
use crate::audit::Deed;
use crate::directive::Director;

/// A device cannot have followed this much more than the store knows. Whoever says so lies, and must not make everybody jump.
pub(crate) const PLAUSIBLE_MAX: u64 = 1_000_000_000;

/// Devices read at a time.
const PAGE: i64 = 1_000;

/// A certificate that was issued in the lost time is taken for so long after the recovery: as long as any such certificate is valid.
const READMITTED_MS: i64 = 90 * 24 * 3_600 * 1_000;

/// What devices say that the store does not know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Behind {
    /// Devices that have followed directives which the store does not know.
    pub(crate) ahead: u64,
    /// One of these.
    pub(crate) first: Option<String>,
    /// Devices with newer trust metadata than the store's.
    pub(crate) trusting: u64,
    /// The newest timestamp among those.
    pub(crate) timestamp: u64,
    /// Devices that came back after a recovery, with something else than they should run.
    pub(crate) returned: u64,
}

impl Behind {
    /// Whether the store is behind nobody.
    pub(crate) const fn is_nobody(&self) -> bool {
        self.ahead == 0 && self.trusting == 0 && self.returned == 0
    }
}

impl std::fmt::Display for Behind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { ahead, first, trusting, timestamp, returned } = self;
        let mut parts = Vec::new();
        if let Some(first) = first {
            parts.push(format!(
                "{ahead} devices have followed directives that it never signed, {first} among them"
            ));
        }
        if *trusting > 0 {
            parts.push(format!(
                "{trusting} devices trust newer metadata than it has, up to timestamp {timestamp}"
            ));
        }
        if *returned > 0 {
            parts.push(format!("{returned} devices came back with other images than it knows of"));
        }
        write!(f, "{}: an old copy of it was restored", parts.join("; "))
    }
}

/// A device as the store and its own last report have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// Which.
    pub(crate) device: DeviceId,
    /// What the store has told it.
    pub(crate) told: Generation,
    /// What it has followed.
    pub(crate) followed: Generation,
    /// Whether it came back after a recovery, with something else than it should run.
    pub(crate) has_returned: bool,
    /// What it trusts, as it said.
    pub(crate) trusted: Option<Trusted>,
    /// Its models, as it said.
    pub(crate) slots: Vec<SlotReport>,
    /// What it should run.
    pub(crate) desired: BTreeMap<ModelName, Version>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    generation: i64,
    reported_generation: i64,
    has_returned: i64,
    trusted: Option<String>,
}

/// Whether a device that is waited for has followed a directive that this store never signed, or has reported something else than it was
/// to run before it was waited for. Of the first it may still be on the way to what nobody here knows of.
const RETURNED: &str = "(d.awaited_since IS NOT NULL AND ((d.reported_generation <= d.generation AND d.reported_generation > COALESCE(
    (SELECT g.generation FROM directives g WHERE g.tenant = d.tenant AND g.device = d.id), 0))
    OR EXISTS (SELECT 1 FROM slots s
    LEFT JOIN desired w ON w.tenant = s.tenant AND w.device = s.device AND w.model = s.model
    WHERE s.tenant = d.tenant AND s.device = d.id AND s.serving_digest IS NOT NULL
    AND s.reported_at > d.awaited_since
    AND (w.digest IS NULL OR (w.digest <> s.serving_digest AND w.since <= d.awaited_since)))))";

impl TenantStore {
    /// What devices say that the store does not know, beside the trust metadata that it has. Implausible words do not count.
    pub(crate) async fn behind(&self) -> Result<Behind, StoreError> {
        let head = signed("timestamp version", self.metadata_head().await?.unwrap_or_default())?;
        let plausible = signed("limit", PLAUSIBLE_MAX)?;
        let ahead = "d.reported_generation > d.generation
            AND d.reported_generation <= d.generation + $3";
        let trusting = "d.trusted_timestamp > $2 AND d.trusted_timestamp <= $2 + $3";
        let text = format!(
            "SELECT COUNT(CASE WHEN {ahead} THEN 1 END), MIN(CASE WHEN {ahead} THEN d.id END),
             COUNT(CASE WHEN {trusting} THEN 1 END),
             MAX(CASE WHEN {trusting} THEN d.trusted_timestamp END),
             COUNT(CASE WHEN {RETURNED} THEN 1 END)
             FROM devices d WHERE d.tenant = $1 AND d.revoked_at IS NULL"
        );
        let (ahead, first, trusting, timestamp, returned): (i64, _, i64, Option<i64>, i64) =
            sqlx::query_as(sqlx::AssertSqlSafe(text))
                .bind(self.id().to_owned())
                .bind(head)
                .bind(plausible)
                .fetch_one(self.readers())
                .await?;
        Ok(Behind {
            ahead: unsigned("count", ahead)?,
            first,
            trusting: unsigned("count", trusting)?,
            timestamp: unsigned("timestamp version", timestamp.unwrap_or_default())?,
            returned: unsigned("count", returned)?,
        })
    }

    /// A page of the devices that are not revoked, by name, after `after`.
    pub(crate) async fn known_devices(
        &self,
        after: Option<&DeviceId>,
    ) -> Result<Vec<Known>, StoreError> {
        let text = format!(
            "SELECT d.id, d.generation, d.reported_generation, d.trusted,
             CASE WHEN {RETURNED} THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END AS has_returned
             FROM devices d WHERE d.tenant = $1 AND d.revoked_at IS NULL AND d.id > $2
             ORDER BY d.id LIMIT $3"
        );
        let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(text))
            .bind(self.id().to_owned())
            .bind(after.map(ToString::to_string).unwrap_or_default())
            .bind(PAGE)
            .fetch_all(self.readers())
            .await?;
        let mut known = Vec::with_capacity(rows.len());
        for row in rows {
            known.push(Known {
                slots: self.reported_slots(&row.id).await?,
                desired: self.desired_versions(&row.id).await?,
                device: parsed("device", &row.id)?,
                told: Generation(unsigned("generation", row.generation)?),
                followed: Generation(unsigned("generation", row.reported_generation)?),
                has_returned: row.has_returned != 0,
                trusted: row.trusted.map(|text| from_json("trusted", &text)).transpose()?,
            });
        }
        Ok(known)
    }

    async fn reported_slots(&self, device: &str) -> Result<Vec<SlotReport>, StoreError> {
        let bodies: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT body FROM slots WHERE tenant = $1 AND device = $2 ORDER BY model",
        )
        .bind(self.id().to_owned())
        .bind(device.to_owned())
        .fetch_all(self.readers())
        .await?;
        bodies.iter().map(|body| stored_report(body)).collect()
    }

    async fn desired_versions(
        &self,
        device: &str,
    ) -> Result<BTreeMap<ModelName, Version>, StoreError> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT model, version FROM desired WHERE tenant = $1 AND device = $2")
                .bind(self.id().to_owned())
                .bind(device.to_owned())
                .fetch_all(self.readers())
                .await?;
        let pair = |(model, version): (String, String)| {
            Ok((parsed("model", &model)?, parsed("version", &version)?))
        };
        rows.into_iter().map(pair).collect()
    }

    /// When the last row was written before the server was last started: what happened later was lost, if the store was restored.
    pub(crate) async fn last_deed(&self) -> Result<Option<UnixMillis>, StoreError> {
        let at: Option<i64> = sqlx::query_scalar(
            "SELECT MAX(at) FROM audit WHERE tenant = $1 AND sequence < COALESCE(
             (SELECT MAX(sequence) FROM audit WHERE tenant = $1 AND action = 'server.start'),
             (SELECT MAX(sequence) + 1 FROM audit WHERE tenant = $1))",
        )
        .bind(self.id().to_owned())
        .fetch_one(self.readers())
        .await?;
        Ok(at.map(UnixMillis))
    }

    /// The security epoch of an image, if a publisher has signed it here.
    pub(crate) async fn signed_epoch(
        &self,
        model: &ModelName,
        (version, digest): (&Version, Digest),
    ) -> Result<Option<Epoch>, StoreError> {
        let epoch: Option<i64> = sqlx::query_scalar(
            "SELECT epoch FROM versions WHERE tenant = $1 AND model = $2 AND version = $3
             AND digest = $4 AND signed_at IS NOT NULL",
        )
        .bind(self.id().to_owned())
        .bind(model.to_string())
        .bind(version.to_string())
        .bind(digest.to_string())
        .fetch_optional(self.readers())
        .await?;
        epoch.map(|epoch| unsigned("epoch", epoch).map(Epoch)).transpose()
    }

    /// Takes a certificate that was issued in a time which the store has lost; it becomes the device's present one. False if it was
    /// not, or the store knows it.
    pub(crate) async fn readmit(
        &self,
        device: &DeviceId,
        certificate: Unknown<'_>,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let Unknown { serial, issued_at, expires_at } = certificate;
        let mut change = self.begin().await?;
        let (id, number) = (device.to_string(), serial.to_owned());
        let readmitted = change
            .run(
                "UPDATE devices SET certificate_serial = $3, certificate_expires_at = $5,
                 next_serial = NULL, next_expires_at = NULL
                 WHERE tenant = $1 AND id = $2 AND revoked_at IS NULL
                 AND EXISTS (SELECT 1 FROM recoveries r WHERE r.tenant = $1
                 AND r.lost_from <= $4 AND $4 <= r.at AND r.at > $6)
                 AND NOT EXISTS
                 (SELECT 1 FROM certificates c WHERE c.tenant = $1 AND c.serial = $3)",
                |it| {
                    let it = it.bind(id).bind(number).bind(issued_at.0).bind(expires_at.0);
                    it.bind(now.plus(-READMITTED_MS).0)
                },
            )
            .await?;
        if readmitted == 0 {
            return Ok(false);
        }
        change.keep_readmitted(device, certificate, now).await?;
        change.commit().await?;
        tracing::warn!(%device, serial, "certificate of a time that the store has lost is taken");
        Ok(true)
    }
}

/// A certificate that the store does not know, although the device CA has signed it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unknown<'a> {
    /// Its serial number, lower-case hex.
    pub(crate) serial: &'a str,
    /// When it was issued.
    pub(crate) issued_at: UnixMillis,
    /// When it expires.
    pub(crate) expires_at: UnixMillis,
}

impl Change {
    /// A device that reports for the first time after a recovery, and runs what it should, is waited for no longer.
    pub(super) async fn end_waiting(&mut self, device: &DeviceId) -> Result<(), StoreError> {
        self.write_pending().await?;
        let id = device.to_string();
        self.run(
            "UPDATE devices SET awaited_since = NULL
             WHERE tenant = $1 AND id = $2 AND awaited_since IS NOT NULL
             AND reported_generation <= COALESCE((SELECT g.generation FROM directives g
              WHERE g.tenant = $1 AND g.device = $2), 0) AND NOT EXISTS
             (SELECT 1 FROM slots s LEFT JOIN desired w
              ON w.tenant = s.tenant AND w.device = s.device AND w.model = s.model
              WHERE s.tenant = $1 AND s.device = $2 AND s.serving_digest IS NOT NULL
              AND (w.digest IS NULL
              OR (w.digest <> s.serving_digest AND w.since <= devices.awaited_since)))",
            |it| it.bind(id),
        )
        .await?;
        Ok(())
    }

    /// Makes what a device runs what it should run, by a directive above everything that it can have followed. Where `slots` is
    /// none, what it should run stays, and is sent again.
    pub(crate) async fn adopt(
        &mut self,
        device: &DeviceId,
        slots: Option<&[DesiredSlot]>,
        (above, director): (Generation, &Director),
        now: UnixMillis,
    ) -> Result<Generation, StoreError> {
        let (id, above) = (device.to_string(), signed("generation", above.0)?);
        self.run(
            "UPDATE devices SET awaited_since = NULL,
             generation = CASE WHEN generation < $3 THEN $3 ELSE generation END
             WHERE tenant = $1 AND id = $2",
            |it| it.bind(id).bind(above),
        )
        .await?;
        self.tell_all(device, slots, director, now).await
    }

    /// Brings the counters of all other devices above everything that they can have followed, and waits for their next report.
    pub(crate) async fn raise_generations(
        &mut self,
        above: Generation,
        now: UnixMillis,
    ) -> Result<u64, StoreError> {
        let (above, plausible) = (signed("generation", above.0)?, signed("limit", PLAUSIBLE_MAX)?);
        self.run(
            "UPDATE devices SET generation = $2, awaited_since = $3
             WHERE tenant = $1 AND revoked_at IS NULL AND generation < $2
             AND (reported_generation <= generation OR reported_generation > generation + $4)",
            |it| it.bind(above).bind(now.0).bind(plausible),
        )
        .await
    }

    /// Makes the next rollout's number higher than one that a device has named.
    pub(crate) async fn raise_rollouts(&mut self, above: RolloutId) -> Result<(), StoreError> {
        let above = signed("rollout", above.0)?;
        self.run(
            "INSERT INTO counters (tenant, name, value) VALUES ($1, 'rollout', $2)
             ON CONFLICT (tenant, name) DO UPDATE SET value = CASE
             WHEN counters.value < excluded.value THEN excluded.value ELSE counters.value END",
            |it| it.bind(above),
        )
        .await?;
        Ok(())
    }

    /// Notes that the store was brought ahead of its devices.
    pub(crate) async fn add_recovery(
        &mut self,
        lost_from: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let statement = "INSERT INTO recoveries (tenant, at, lost_from) VALUES ($1, $2, $3)
            ON CONFLICT (tenant, at) DO NOTHING";
        self.run(statement, |it| it.bind(now.0).bind(lost_from.0)).await?;
        Ok(())
    }

    async fn keep_readmitted(
        &mut self,
        device: &DeviceId,
        Unknown { serial, issued_at, expires_at }: Unknown<'_>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let (id, number) = (device.to_string(), serial.to_owned());
        self.run(
            "UPDATE certificates SET ended_at = $3
             WHERE tenant = $1 AND device = $2 AND ended_at IS NULL",
            |it| it.bind(id.clone()).bind(now.0),
        )
        .await?;
        self.run(
            "INSERT INTO certificates (tenant, device, serial, issued_at, expires_at)
             VALUES ($1, $2, $3, $4, $5)",
            |it| it.bind(id).bind(number).bind(issued_at.0).bind(expires_at.0),
        )
        .await?;
        let actor = format!("device:{device}");
        let detail = format!("certificate {serial}, issued in a time that the store has lost");
        let (action, subject) = ("device.readmit", device.as_str());
        let deed = Deed { actor: &actor, action, subject, reason: None, detail: &detail };
        self.audit(&deed, now).await
    }
}
