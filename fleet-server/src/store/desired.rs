//! What each device should run, and the signed directives that say so.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealift_protocol::api::TimelineEntry;
use sealift_protocol::digest::Digest;
use sealift_protocol::directive::{Cosignature, DesiredSlot, Trial};
use sealift_protocol::id::{
    DeviceId, Epoch, Generation, ModelName, RolloutId, UnixMillis, Version,
};
use sealift_protocol::report::{ImageRef, SlotReport};
use sealift_protocol::tuf::key::KeyId;

use super::audit::DIRECTIVE;
use super::devices::stored_report;
use super::{
    Change, StoreError, TenantStore, corrupt, from_json, many, parsed, rollouts, signed, to_json,
    unsigned,
};
use crate::audit::Deed;
use crate::directive::Director;

/// What a device has just been told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ordered {
    /// By which directive.
    pub(crate) generation: Generation,
    /// What it should run of the model before.
    pub(crate) before: Option<DesiredSlot>,
}

/// A directive that the broker does not have yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unpublished {
    /// For whom.
    pub(crate) device: DeviceId,
    /// Which.
    pub(crate) generation: Generation,
    /// The signed bytes.
    pub(crate) body: Vec<u8>,
}

#[derive(sqlx::FromRow)]
struct Row {
    device: String,
    model: String,
    version: String,
    digest: String,
    epoch: i64,
    trial: String,
    rollout: i64,
    fallback_version: Option<String>,
    fallback_digest: Option<String>,
    manifests: Option<String>,
    campaign: Option<String>,
    cosignature: Option<String>,
    reported: Option<Vec<u8>>,
}

impl TenantStore {
    /// Directives that the broker does not have, by device, after `after`.
    pub(crate) async fn unpublished_directives(
        &self,
        after: Option<&DeviceId>,
        limit: u32,
    ) -> Result<Vec<Unpublished>, StoreError> {
        let rows: Vec<(String, i64, Vec<u8>)> = sqlx::query_as(
            "SELECT device, generation, body FROM directives
             WHERE tenant = $1 AND published = 0 AND device > $2 ORDER BY device LIMIT $3",
        )
        .bind(self.id().to_owned())
        .bind(after.map(ToString::to_string).unwrap_or_default())
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await?;
        let unpublished = |(device, generation, body): (String, _, _)| {
            let device = parsed("device", &device)?;
            let generation = Generation(unsigned("generation", generation)?);
            Ok(Unpublished { device, generation, body })
        };
        rows.into_iter().map(unpublished).collect()
    }

    /// Devices whose directive was signed before a moment and that have not followed it yet; and, where a signer is given, those whose
    /// directive another key has signed. Not those that are waited for after a recovery: what they should run is not known yet.
    pub(crate) async fn stale_directives(
        &self,
        issued_before: UnixMillis,
        signer: Option<&KeyId>,
        limit: u32,
    ) -> Result<BTreeSet<DeviceId>, StoreError> {
        let devices: Vec<String> = sqlx::query_scalar(
            "SELECT c.device FROM directives c JOIN devices d
             ON d.tenant = c.tenant AND d.id = c.device
             WHERE c.tenant = $1 AND d.revoked_at IS NULL AND d.awaited_since IS NULL
             AND ((c.issued_at < $2 AND d.reported_generation < c.generation)
             OR ($4 <> '' AND c.signer <> $4)) ORDER BY c.issued_at LIMIT $3",
        )
        .bind(self.id().to_owned())
        .bind(issued_before.0)
        .bind(i64::from(limit))
        .bind(signer.map(ToString::to_string).unwrap_or_default())
        .fetch_all(self.readers())
        .await?;
        devices.iter().map(|device| parsed("device", device)).collect()
    }
}

impl Change {
    /// Tells devices to run an image, in place of what each should run of the same model. Signs their next directives. Returns under
    /// which generation each is told, and what it should run before.
    pub(crate) async fn tell(
        &mut self,
        devices: &BTreeSet<DeviceId>,
        slot: &DesiredSlot,
        director: &Director,
        now: UnixMillis,
    ) -> Result<BTreeMap<DeviceId, Ordered>, StoreError> {
        let generations = self.next_generations(devices).await?;
        let mut before = self.all_desired(devices).await?;
        self.set_desired(devices, slot, now).await?;
        self.direct(&generations, director, now).await?;
        let mut ordered = BTreeMap::new();
        for (device, generation) in generations {
            let text =
                format!("told to run {} {} (generation {generation})", slot.model, slot.version);
            let model = Some(slot.model.clone());
            self.note(&device, &TimelineEntry { model, ..directive_entry(&text, now) }).await?;
            let slots = before.remove(&device).unwrap_or_default();
            let before = slots.into_iter().find(|before| before.model == slot.model);
            ordered.insert(device, Ordered { generation, before });
        }
        Ok(ordered)
    }

    /// Tells a device to run nothing of a model. Signs its next directive.
    pub(crate) async fn tell_nothing(
        &mut self,
        device: &DeviceId,
        model: &ModelName,
        director: &Director,
        now: UnixMillis,
    ) -> Result<Generation, StoreError> {
        let generation = self.next_generation(device).await?;
        let (id, name) = (device.to_string(), model.to_string());
        self.run("DELETE FROM desired WHERE tenant = $1 AND device = $2 AND model = $3", |it| {
            it.bind(id).bind(name)
        })
        .await?;
        self.direct(&BTreeMap::from([(device.clone(), generation)]), director, now).await?;
        let text = format!("told to run nothing of {model} (generation {generation})");
        let model = Some(model.clone());
        self.note(device, &TimelineEntry { model, ..directive_entry(&text, now) }).await?;
        Ok(generation)
    }

    /// Puts everything that a device should run in the place of what it should run, or sends the same again. Signs its next directive.
    pub(super) async fn tell_all(
        &mut self,
        device: &DeviceId,
        slots: Option<&[DesiredSlot]>,
        director: &Director,
        now: UnixMillis,
    ) -> Result<Generation, StoreError> {
        let generation = self.next_generation(device).await?;
        if let Some(slots) = slots {
            let id = device.to_string();
            let none = "DELETE FROM desired WHERE tenant = $1 AND device = $2";
            self.run(none, |it| it.bind(id)).await?;
            for slot in slots {
                self.set_desired(&BTreeSet::from([device.clone()]), slot, now).await?;
            }
        }
        self.direct(&BTreeMap::from([(device.clone(), generation)]), director, now).await?;
        let what = if slots.is_some() { "what it runs" } else { "what it was to run" };
        let text = format!("told to run {what} (generation {generation}), after a recovery");
        self.note(device, &directive_entry(&text, now)).await?;
        Ok(generation)
    }

    /// Tells devices that their trials were seen. Signs their next directives: what was seen before cannot be played again.
    pub(crate) async fn countersign(
        &mut self,
        devices: &BTreeSet<DeviceId>,
        director: &Director,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let generations = self.next_generations(devices).await?;
        self.direct(&generations, director, now).await
    }

    /// Signs the newest directives of devices again, under the same generations, so that they may still be begun.
    pub(crate) async fn renew_directives(
        &mut self,
        devices: &BTreeSet<DeviceId>,
        director: &Director,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let generations = self.set_generations(devices, "generation").await?;
        self.direct(&generations, director, now).await
    }

    /// What a device should run of a model.
    pub(crate) async fn desired(
        &mut self,
        device: &DeviceId,
        model: &ModelName,
    ) -> Result<Option<DesiredSlot>, StoreError> {
        let all = self.all_desired(&BTreeSet::from([device.clone()])).await?;
        Ok(all.into_values().flatten().find(|slot| slot.model == *model))
    }

    /// Marks directives as known to the broker, but for those that a newer one has replaced in between.
    pub(crate) async fn mark_published(
        &mut self,
        directives: &[(DeviceId, Generation)],
    ) -> Result<(), StoreError> {
        for part in directives.chunks(many::rows(2)) {
            let (devices, pairs) = many::pairs(part.len());
            let text = format!(
                "UPDATE directives SET published = 1 WHERE tenant = $1 AND device IN ({devices})
                 AND (device, generation) IN (VALUES {pairs})"
            );
            let mut statement = self.statement(text);
            for (device, generation) in part {
                let generation = signed("generation", generation.0)?;
                statement = statement.bind(device.to_string()).bind(generation);
            }
            statement.execute(self.connection()).await?;
        }
        Ok(())
    }

    /// Marks every directive as unknown to the broker: it has lost its memory, or is another one.
    pub(crate) async fn mark_all_unpublished(&mut self) -> Result<u64, StoreError> {
        self.run("UPDATE directives SET published = 0 WHERE tenant = $1 AND published = 1", |it| it)
            .await
    }

    async fn next_generation(&mut self, device: &DeviceId) -> Result<Generation, StoreError> {
        let generations = self.next_generations(&BTreeSet::from([device.clone()])).await?;
        generations.get(device).copied().ok_or(StoreError::Changed("the device"))
    }

    async fn next_generations(
        &mut self,
        devices: &BTreeSet<DeviceId>,
    ) -> Result<BTreeMap<DeviceId, Generation>, StoreError> {
        // A device that was restored from a backup of the server's database may have followed more than is known here.
        let next = "1 + CASE WHEN generation < reported_generation
                    THEN reported_generation ELSE generation END";
        self.set_generations(devices, next).await
    }

    /// Gives devices the generation that an expression says. Two changes that tell one device wait for each other here.
    async fn set_generations(
        &mut self,
        devices: &BTreeSet<DeviceId>,
        expression: &str,
    ) -> Result<BTreeMap<DeviceId, Generation>, StoreError> {
        self.lock_devices(devices).await?;
        let mut generations = BTreeMap::new();
        for part in many::parts(devices, 1) {
            let text = format!(
                "UPDATE devices SET generation = {expression}
                 WHERE tenant = $1 AND id IN ({}) RETURNING id, generation",
                many::list(part.len())
            );
            let rows: Vec<(String, i64)> = self.rows_of(text, &part).await?;
            for (device, generation) in rows {
                let generation = Generation(unsigned("generation", generation)?);
                generations.insert(parsed("device", &device)?, generation);
            }
        }
        let is_whole = generations.len() == devices.len();
        if is_whole { Ok(generations) } else { Err(StoreError::Changed("a device")) }
    }

    async fn set_desired(
        &mut self,
        devices: &BTreeSet<DeviceId>,
        slot: &DesiredSlot,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let (epoch, trial) = (signed("epoch", slot.epoch.0)?, to_json("trial", &slot.trial)?);
        let rollout = signed("rollout", slot.rollout.map_or(0, |rollout| rollout.0))?;
        for part in many::parts(devices, 8) {
            let text = format!(
                "INSERT INTO desired (tenant, device, model, version, digest, epoch, trial,
                 rollout, since) VALUES {}
                 ON CONFLICT (tenant, device, model) DO UPDATE SET version = excluded.version,
                 digest = excluded.digest, epoch = excluded.epoch, trial = excluded.trial,
                 rollout = excluded.rollout, since = excluded.since,
                 fallback_version = CASE WHEN desired.digest = excluded.digest
                 THEN desired.fallback_version ELSE desired.version END,
                 fallback_digest = CASE WHEN desired.digest = excluded.digest
                 THEN desired.fallback_digest ELSE desired.digest END",
                many::values(part.len(), 8)
            );
            let mut statement = self.statement(text);
            for device in part {
                statement = statement.bind(device.to_string()).bind(slot.model.to_string());
                statement = statement.bind(slot.version.to_string()).bind(slot.index.to_string());
                statement = statement.bind(epoch).bind(trial.clone()).bind(rollout).bind(now.0);
            }
            statement.execute(self.connection()).await?;
        }
        Ok(())
    }

    async fn all_desired(
        &mut self,
        devices: &BTreeSet<DeviceId>,
    ) -> Result<BTreeMap<DeviceId, Vec<DesiredSlot>>, StoreError> {
        self.write_pending().await?;
        let mut desired: BTreeMap<DeviceId, Vec<DesiredSlot>> = BTreeMap::new();
        for part in many::parts(devices, 1) {
            let text = format!(
                "SELECT d.device, d.model, d.version, d.digest, d.epoch, d.trial, d.rollout,
                 CASE WHEN q.version IS NULL THEN d.fallback_version END AS fallback_version,
                 d.fallback_digest, v.manifests, r.campaign, r.cosignature, s.body AS reported
                 FROM desired d
                 LEFT JOIN slots s
                 ON s.tenant = d.tenant AND s.device = d.device AND s.model = d.model
                 LEFT JOIN versions v
                 ON v.tenant = d.tenant AND v.model = d.model AND v.version = d.version
                 LEFT JOIN rollouts r ON r.tenant = d.tenant AND r.number = d.rollout
                 LEFT JOIN quarantine q
                 ON q.tenant = d.tenant AND q.model = d.model AND q.version = d.fallback_version
                 WHERE d.tenant = $1 AND d.device IN ({}) ORDER BY d.device, d.model",
                many::list(part.len())
            );
            let rows: Vec<Row> = self.rows_of(text, &part).await?;
            for row in rows {
                let device = parsed("device", &row.device)?;
                desired.entry(device).or_default().push(desired_slot(&row)?);
            }
        }
        Ok(desired)
    }

    /// Signs and stores the directives about everything that devices should run.
    async fn direct(
        &mut self,
        generations: &BTreeMap<DeviceId, Generation>,
        director: &Director,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let devices = generations.keys().cloned().collect();
        let mut slots = self.all_desired(&devices).await?;
        for part in many::parts(generations.iter(), 6) {
            let text = format!(
                "INSERT INTO directives
                 (tenant, device, generation, issued_at, published, body, signer) VALUES {}
                 ON CONFLICT (tenant, device) DO UPDATE SET generation = excluded.generation,
                 issued_at = excluded.issued_at, published = excluded.published,
                 body = excluded.body, signer = excluded.signer",
                many::values(part.len(), 6)
            );
            let mut statement = self.statement(text);
            for (device, &generation) in part {
                let slots = slots.remove(device).unwrap_or_default();
                let (body, signer) = director
                    .sign(device, generation, slots, now)
                    .map_err(|error| corrupt("directive", &error.to_string()))?;
                let detail = format!("generation {generation} {}", Digest::of(&body));
                let (action, subject) = (DIRECTIVE, device.as_str());
                let deed = Deed { actor: "server", action, subject, reason: None, detail: &detail };
                self.audit(&deed, now).await?;
                statement = statement.bind(device.to_string());
                statement = statement.bind(signed("generation", generation.0)?).bind(now.0);
                statement = statement.bind(0_i64).bind(body).bind(signer.to_string());
            }
            statement.execute(self.connection()).await?;
        }
        Ok(())
    }
}

fn directive_entry(text: &str, now: UnixMillis) -> TimelineEntry {
    TimelineEntry {
        at: now,
        kind: "directive".to_owned(),
        severity: "info".to_owned(),
        code: String::new(),
        text: text.to_owned(),
        model: None,
    }
}

fn desired_slot(row: &Row) -> Result<DesiredSlot, StoreError> {
    let model: ModelName = parsed("model", &row.model)?;
    let version: Version = parsed("version", &row.version)?;
    let index: Digest = parsed("digest", &row.digest)?;
    let trial: Trial = from_json("trial", &row.trial)?;
    let rollout = match unsigned("rollout", row.rollout)? {
        0 => None,
        number => Some(RolloutId(number)),
    };
    let epoch = Epoch(unsigned("epoch", row.epoch)?);
    let slot = DesiredSlot::new(model, version, index);
    Ok(DesiredSlot {
        epoch,
        trial,
        rollout,
        campaign: rollouts::digest_of(row.campaign.as_deref().unwrap_or_default())?,
        target_path: Some(slot.target()),
        manifest: only_manifest(row.manifests.as_deref())?,
        fallback: fallback(row)?,
        cosignature: cosignature(row.cosignature.as_deref().unwrap_or_default())?,
        confirmed: seen_on_trial(row, index)?,
        ..slot
    })
}

/// The directive under which the device has said that it serves the image on trial, and waits for the server to have heard that.
fn seen_on_trial(row: &Row, image: Digest) -> Result<Option<Generation>, StoreError> {
    let report = row.reported.as_deref().map(stored_report).transpose()?;
    let is_it = |report: &SlotReport| {
        let serving = report.serving.as_ref().map(|serving| serving.index);
        serving == Some(image) && report.lease_until.is_some()
    };
    Ok(report.filter(is_it).map(|report| report.generation))
}

/// Where there is one variant, the director names it; of several the device takes the one that fits best.
fn only_manifest(manifests: Option<&str>) -> Result<Option<Digest>, StoreError> {
    let manifests =
        manifests.map(|text| from_json::<Vec<Digest>>("manifests", text)).transpose()?;
    match manifests.unwrap_or_default().as_slice() {
        [only] => Ok(Some(*only)),
        _ => Ok(None), // none known, or a choice
    }
}

/// What the device was to run before, unless that is in quarantine.
fn fallback(row: &Row) -> Result<Option<ImageRef>, StoreError> {
    let (Some(version), Some(digest)) = (&row.fallback_version, &row.fallback_digest) else {
        return Ok(None);
    };
    Ok(Some(ImageRef { version: parsed("version", version)?, index: parsed("digest", digest)? }))
}

fn cosignature(text: &str) -> Result<Option<Cosignature>, StoreError> {
    if text.is_empty() {
        return Ok(None);
    }
    let bytes = STANDARD.decode(text).map_err(|_| corrupt("cosignature", text))?;
    Ok(Some(Cosignature(bytes)))
}
