//! Rows that one change writes together: at its end, or before it reads them itself.

use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::api::TimelineEntry;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, ModelName, UnixMillis};
use sealift_protocol::report::{ImageRef, SlotReport};

use super::reports::encoded;
use super::{Change, StoreError, many, signed, word};

/// What is not written yet.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// What devices have said of their models, and when.
    slots: BTreeMap<(DeviceId, ModelName), (SlotReport, UnixMillis)>,
    /// What they serve from a moment on.
    served: BTreeMap<(DeviceId, ModelName, UnixMillis), Option<ImageRef>>,
    /// Images that they have kept after all.
    mended: BTreeSet<(DeviceId, Digest)>,
    /// Entries of their timelines.
    notes: Vec<(DeviceId, TimelineEntry)>,
}

impl Pending {
    /// Whether a device has said something of its models.
    pub(super) fn has_slots_of(&self, device: &DeviceId) -> bool {
        self.slots.keys().any(|(of, _)| of == device)
    }

    /// Whether a device has kept an image.
    pub(super) fn has_mended(&self, device: &DeviceId, image: Digest) -> bool {
        self.mended.contains(&(device.clone(), image))
    }

    fn is_full(&self) -> bool {
        let longest = self.slots.len().max(self.served.len()).max(self.mended.len());
        longest.max(self.notes.len()) >= many::VALUES_MAX
    }
}

impl Change {
    /// Writes what a device says of one model.
    pub(super) async fn set_slot(
        &mut self,
        device: &DeviceId,
        slot: &SlotReport,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let key = (device.clone(), slot.model.clone());
        self.pending.slots.insert(key, (slot.clone(), now));
        self.write_if_full().await
    }

    /// Remembers that a device serves something else from now on.
    pub(super) async fn note_served(
        &mut self,
        device: &DeviceId,
        model: &ModelName,
        serving: Option<&ImageRef>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.pending.served.insert((device.clone(), model.clone(), now), serving.cloned());
        self.write_if_full().await
    }

    /// A device that has kept an image is not bad with it any more.
    pub(super) async fn mend(
        &mut self,
        device: &DeviceId,
        image: Digest,
    ) -> Result<(), StoreError> {
        self.pending.mended.insert((device.clone(), image));
        self.write_if_full().await
    }

    /// Adds an entry to a device's timeline.
    pub(crate) async fn note(
        &mut self,
        device: &DeviceId,
        entry: &TimelineEntry,
    ) -> Result<(), StoreError> {
        self.pending.notes.push((device.clone(), entry.clone()));
        self.write_if_full().await
    }

    async fn write_if_full(&mut self) -> Result<(), StoreError> {
        if self.pending.is_full() { self.write_pending().await } else { Ok(()) }
    }

    /// Writes all that was said so far.
    pub(super) async fn write_pending(&mut self) -> Result<(), StoreError> {
        let Pending { slots, served, mended, notes } = std::mem::take(&mut self.pending);
        self.write_slots(slots).await?;
        self.write_served(served).await?;
        self.write_mended(mended).await?;
        self.write_notes(notes).await
    }

    async fn write_slots(
        &mut self,
        slots: BTreeMap<(DeviceId, ModelName), (SlotReport, UnixMillis)>,
    ) -> Result<(), StoreError> {
        let version = |image: &Option<ImageRef>| image.as_ref().map(|it| it.version.to_string());
        let digest = |image: &Option<ImageRef>| image.as_ref().map(|it| it.index.to_string());
        for part in many::parts(slots, 10) {
            let text = format!(
                "INSERT INTO slots (tenant, device, model, generation, phase, serving_version,
                 serving_digest, previous_version, previous_digest, reported_at, body) VALUES {}
                 ON CONFLICT (tenant, device, model) DO UPDATE SET generation = excluded.generation,
                 phase = excluded.phase, serving_version = excluded.serving_version,
                 serving_digest = excluded.serving_digest,
                 previous_version = excluded.previous_version,
                 previous_digest = excluded.previous_digest, reported_at = excluded.reported_at,
                 body = excluded.body",
                many::values(part.len(), 10)
            );
            let mut statement = self.statement(text);
            for ((device, model), (slot, now)) in &part {
                statement = statement.bind(device.to_string()).bind(model.to_string());
                statement = statement.bind(signed("generation", slot.generation.0)?);
                statement = statement.bind(word("phase", &slot.phase)?);
                statement = statement.bind(version(&slot.serving)).bind(digest(&slot.serving));
                statement = statement.bind(version(&slot.previous)).bind(digest(&slot.previous));
                statement = statement.bind(now.0).bind(encoded(slot)?);
            }
            statement.execute(self.connection()).await?;
        }
        Ok(())
    }

    async fn write_mended(
        &mut self,
        mended: BTreeSet<(DeviceId, Digest)>,
    ) -> Result<(), StoreError> {
        for part in many::parts(mended, 2) {
            let (devices, pairs) = many::pairs(part.len());
            let text = format!(
                "DELETE FROM penalties WHERE tenant = $1 AND device IN ({devices})
                 AND (device, digest) IN (VALUES {pairs})"
            );
            let mut statement = self.statement(text);
            for (device, image) in part {
                statement = statement.bind(device.to_string()).bind(image.to_string());
            }
            statement.execute(self.connection()).await?;
        }
        Ok(())
    }
}
