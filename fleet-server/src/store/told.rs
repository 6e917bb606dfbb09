//! Whom a rollout has told, in which wave, and what they were told before.

use sealift_protocol::digest::Digest;
use sealift_protocol::directive::{DesiredSlot, Trial};
use sealift_protocol::id::{
    DeviceId, Epoch, Generation, ModelName, RolloutId, UnixMillis, Version,
};
use serde::{Deserialize, Serialize};

use super::{Change, StoreError, from_json, many, signed, to_json};
use crate::rollout::Served;

impl Change {
    /// Notes that a rollout has told devices, and what they were told before.
    pub(crate) async fn add_told(
        &mut self,
        rollout: RolloutId,
        told: &[NewlyTold],
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let rollout = signed("rollout", rollout.0)?;
        for part in told.chunks(many::rows(8)) {
            let text = format!(
                "INSERT INTO told (tenant, rollout, device, wave, generation, at, requests, errors,
                 before) VALUES {}",
                many::values(part.len(), 8)
            );
            let mut statement = self.statement(text);
            for told in part {
                let before = told.before.as_ref();
                let before =
                    before.map(|slot| to_json("slot", &DesiredRow::of(slot))).transpose()?;
                let wave = i64::try_from(told.wave).map_err(|_| StoreError::TooLarge("wave"))?;
                let Served { requests, errors } = told.served;
                statement = statement.bind(rollout).bind(told.device.to_string()).bind(wave);
                statement = statement.bind(signed("generation", told.generation.0)?).bind(now.0);
                statement = statement.bind(signed("requests", requests)?);
                statement = statement.bind(signed("errors", errors)?).bind(before);
            }
            statement.execute(self.connection()).await?;
        }
        Ok(())
    }

    /// What a device was to run before a rollout told it.
    pub(crate) async fn told_before(
        &mut self,
        rollout: RolloutId,
        device: &DeviceId,
    ) -> Result<Option<DesiredSlot>, StoreError> {
        let before: Option<Option<String>> = sqlx::query_scalar(
            "SELECT before FROM told WHERE tenant = $1 AND rollout = $2 AND device = $3",
        )
        .bind(self.tenant().to_string())
        .bind(signed("rollout", rollout.0)?)
        .bind(device.to_string())
        .fetch_optional(self.connection())
        .await?;
        let before = before.flatten();
        Ok(before.map(|text| from_json::<DesiredRow>("slot", &text)).transpose()?.map(Into::into))
    }

    /// A device that ended badly counts no more.
    pub(crate) async fn excuse(
        &mut self,
        rollout: RolloutId,
        device: &DeviceId,
    ) -> Result<(), StoreError> {
        let (rollout, device) = (signed("rollout", rollout.0)?, device.to_string());
        self.run(
            "UPDATE told SET excused = 1 WHERE tenant = $1 AND rollout = $2 AND device = $3",
            |it| it.bind(rollout).bind(device),
        )
        .await?;
        Ok(())
    }

    /// A device that ended badly with an image may be told again.
    pub(crate) async fn forgive(
        &mut self,
        rollout: RolloutId,
        device: &DeviceId,
        image: Digest,
    ) -> Result<(), StoreError> {
        let (rollout, id) = (signed("rollout", rollout.0)?, device.to_string());
        self.run("DELETE FROM told WHERE tenant = $1 AND rollout = $2 AND device = $3", |it| {
            it.bind(rollout).bind(id)
        })
        .await?;
        let (id, digest) = (device.to_string(), image.to_string());
        self.run("DELETE FROM penalties WHERE tenant = $1 AND device = $2 AND digest = $3", |it| {
            it.bind(id).bind(digest)
        })
        .await?;
        Ok(())
    }
}

/// A device that is told now.
#[derive(Debug, Clone)]
pub(crate) struct NewlyTold {
    /// Which.
    pub(crate) device: DeviceId,
    /// In which wave.
    pub(crate) wave: usize,
    /// By which directive.
    pub(crate) generation: Generation,
    /// What it has served so far.
    pub(crate) served: Served,
    /// What it was to run before.
    pub(crate) before: Option<DesiredSlot>,
}

/// What a device was to run, as JSON.
#[derive(Serialize, Deserialize)]
struct DesiredRow {
    model: ModelName,
    version: Version,
    digest: Digest,
    epoch: Epoch,
    trial: Trial,
    rollout: Option<RolloutId>,
}

impl DesiredRow {
    fn of(slot: &DesiredSlot) -> Self {
        // The rest is found again when a directive is signed.
        let DesiredSlot { model, version, index, epoch, trial, rollout, .. } = slot.clone();
        Self { model, version, digest: index, epoch, trial, rollout }
    }
}

impl From<DesiredRow> for DesiredSlot {
    fn from(row: DesiredRow) -> Self {
        let DesiredRow { model, version, digest, epoch, trial, rollout } = row;
        Self { epoch, trial, rollout, ..Self::new(model, version, digest) }
    }
}
