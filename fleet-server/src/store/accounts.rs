//! What devices say of their models, written down: the accounts of many devices together.

use std::collections::BTreeMap;

use sealift_protocol::api::TimelineEntry;
use sealift_protocol::id::{DeviceId, Generation, ModelName, UnixMillis};
use sealift_protocol::report::{Outcome, OutcomeKind, Refusal, SlotReport, Trusted};
use sealift_protocol::telemetry::SpoolId;

use super::devices::stored_report;
use super::reports::plain;
use super::{Change, StoreError, many, parsed, signed, to_json, word};
use crate::inventory;

/// A device's account of its models.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account<'a> {
    /// Whose.
    pub(crate) device: &'a DeviceId,
    /// When it came.
    pub(crate) at: UnixMillis,
    /// The newest directive that it has accepted.
    pub(crate) generation: Generation,
    /// The newest that it has refused.
    pub(crate) refused: Option<&'a Refusal>,
    /// Its models.
    pub(crate) slots: &'a [SlotReport],
    /// What the device trusts.
    pub(crate) trusted: Option<&'a Trusted>,
    /// The message it came in: an older one must not undo a newer one.
    pub(crate) position: (SpoolId, u64),
}

/// What was written of a device's models, and when it came.
type Before = BTreeMap<ModelName, (SlotReport, UnixMillis)>;

impl Change {
    /// Writes what devices say of their models, at most one account of each. One that is older than what is written changes nothing.
    pub(crate) async fn set_accounts(
        &mut self,
        accounts: &[Account<'_>],
    ) -> Result<(), StoreError> {
        for part in accounts.chunks(many::rows(10)) {
            let taken = self.take_accounts(part).await?;
            let devices: Vec<_> = taken.keys().collect();
            let mut before = self.slots_of(&devices).await?;
            for account in part {
                let Some(is_awaited) = taken.get(account.device) else { continue };
                let slots = before.remove(account.device).unwrap_or_default();
                self.set_slots(account, slots).await?;
                if *is_awaited {
                    self.end_waiting(account.device).await?;
                }
            }
        }
        Ok(())
    }

    /// Writes what accounts say of whole devices, but of those that are older than what is written. Returns the others, and whether the
    /// server waits for the device's first word after a recovery.
    async fn take_accounts(
        &mut self,
        accounts: &[Account<'_>],
    ) -> Result<BTreeMap<DeviceId, bool>, StoreError> {
        if accounts.is_empty() {
            return Ok(BTreeMap::new());
        }
        // Empty texts and negative numbers stand for what is not said.
        let text = format!(
            "UPDATE devices SET reported_spool = v.column3, reported_sequence = v.column4,
             reported_generation = v.column5, trouble = NULLIF(v.column6, ''),
             trusted = COALESCE(NULLIF(v.column7, ''), trusted),
             trusted_timestamp = COALESCE(NULLIF(v.column8, -1), trusted_timestamp),
             trusted_snapshot = COALESCE(NULLIF(v.column9, -1), trusted_snapshot),
             halt_sequence = COALESCE(NULLIF(v.column10, -1), halt_sequence),
             capture_sequence = COALESCE(NULLIF(v.column11, -1), capture_sequence)
             FROM (VALUES {}) AS v WHERE devices.tenant = $1 AND devices.id = v.column2
             AND (reported_spool IS NULL OR reported_spool <> v.column3
             OR reported_sequence < v.column4)
             RETURNING id, CASE WHEN awaited_since IS NULL THEN CAST(0 AS BIGINT)
             ELSE CAST(1 AS BIGINT) END",
            many::values(accounts.len(), 10)
        );
        let mut query = self.query_as(text);
        for account in accounts {
            let (spool, sequence) = account.position;
            let trusted = account.trusted;
            let version = |what, of: fn(&Trusted) -> u64| {
                trusted.map_or(Ok(-1), |trusted| signed(what, of(trusted)))
            };
            let text = trusted.map(|trusted| to_json("trusted", trusted)).transpose()?;
            query = query.bind(account.device.to_string()).bind(spool.0.cast_signed());
            query = query.bind(signed("sequence", sequence)?);
            query = query.bind(signed("generation", account.generation.0)?);
            query = query.bind(inventory::trouble(account.slots).unwrap_or_default());
            query = query.bind(text.unwrap_or_default());
            query = query.bind(version("timestamp version", |trusted| trusted.timestamp)?);
            query = query.bind(version("snapshot version", |trusted| trusted.snapshot)?);
            query = query.bind(version("sequence of halts", |trusted| trusted.halt)?);
            query = query.bind(version("sequence of captures", |trusted| trusted.capture)?);
        }
        let rows: Vec<(String, i64)> = query.fetch_all(self.connection()).await?;
        rows.iter().map(|(id, awaited)| Ok((parsed("device", id)?, *awaited == 1))).collect()
    }

    async fn slots_of(
        &mut self,
        devices: &[&DeviceId],
    ) -> Result<BTreeMap<DeviceId, Before>, StoreError> {
        let mut slots: BTreeMap<DeviceId, Before> = BTreeMap::new();
        if devices.is_empty() {
            return Ok(slots);
        }
        if devices.iter().any(|device| self.pending.has_slots_of(device)) {
            self.write_pending().await?;
        }
        let text = format!(
            "SELECT device, model, body, reported_at FROM slots
             WHERE tenant = $1 AND device IN ({})",
            many::list(devices.len())
        );
        let rows: Vec<(String, String, Vec<u8>, i64)> = self.rows_of(text, devices).await?;
        for (device, model, body, at) in rows {
            let slot = (stored_report(&body)?, UnixMillis(at));
            let device = slots.entry(parsed("device", &device)?).or_default();
            device.insert(parsed("model", &model)?, slot);
        }
        Ok(slots)
    }

    async fn set_slots(
        &mut self,
        account: &Account<'_>,
        mut before: Before,
    ) -> Result<(), StoreError> {
        let Account { device, at: now, .. } = *account;
        for slot in account.slots {
            let (was, since) = before.remove(&slot.model).unzip();
            if let (Some(was), Some(since)) = (&was, since) {
                self.note_speed(device, (was, slot), now.since(since), now).await?;
            }
            if was.as_ref() != Some(slot) {
                self.set_slot(device, slot, now).await?;
                if was.as_ref().and_then(|was| was.serving.as_ref()) != slot.serving.as_ref() {
                    self.note_served(device, &slot.model, slot.serving.as_ref(), now).await?;
                }
                self.note_slot(device, was.as_ref(), slot, now).await?;
            }
        }
        for model in before.into_keys() {
            let (id, name) = (device.to_string(), model.to_string());
            let gone = "DELETE FROM slots WHERE tenant = $1 AND device = $2 AND model = $3";
            self.run(gone, |it| it.bind(id).bind(name)).await?;
            self.note_served(device, &model, None, now).await?;
        }
        match account.refused {
            Some(refusal) => self.note_refusal(device, refusal, now).await,
            None => Ok(()),
        }
    }

    /// Notes what has changed for people, and for the next rollouts.
    async fn note_slot(
        &mut self,
        device: &DeviceId,
        was: Option<&SlotReport>,
        slot: &SlotReport,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        if was.is_none_or(|was| was.phase != slot.phase) {
            let phase = word("phase", &slot.phase)?;
            let of = slot.next.as_ref().or(slot.serving.as_ref());
            let text = of.map_or_else(|| phase.clone(), |of| format!("{phase}, {}", of.version));
            let entry = TimelineEntry {
                model: Some(slot.model.clone()),
                code: phase,
                ..plain(now, "phase", "info", &text)
            };
            self.note(device, &entry).await?;
        }
        let known = was.and_then(|was| was.outcome.as_ref());
        match &slot.outcome {
            Some(outcome) if known != Some(outcome) => {
                self.note_late(device, &slot.model, (known, outcome), now).await?;
                self.note_outcome(device, &slot.model, outcome, now).await
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn note_outcome(
        &mut self,
        device: &DeviceId,
        model: &ModelName,
        outcome: &Outcome,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let (id, digest) = (device.to_string(), outcome.image.index.to_string());
        let (code, reason) = (outcome.code.clone(), outcome.reason.clone());
        if outcome.result.is_bad() {
            if self.pending.has_mended(device, outcome.image.index) {
                self.write_pending().await?;
            }
            self.run(
                "INSERT INTO penalties (tenant, device, digest, code, reason, at)
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant, device, digest)
                 DO UPDATE SET code = excluded.code, reason = excluded.reason, at = excluded.at",
                |it| it.bind(id).bind(digest).bind(code).bind(reason).bind(now.0),
            )
            .await?;
        } else if outcome.result == OutcomeKind::Committed {
            self.mend(device, outcome.image.index).await?;
        }
        let result = word("outcome", &outcome.result)?;
        let because =
            if outcome.reason.is_empty() { String::new() } else { format!(": {}", outcome.reason) };
        let severity = if outcome.result.is_bad() { "warning" } else { "info" };
        let text = format!("{model} {} {result}{because}", outcome.image.version);
        let entry = TimelineEntry {
            model: Some(model.clone()),
            code: outcome.code.clone(),
            ..plain(now, "outcome", severity, &text)
        };
        self.note(device, &entry).await
    }

    async fn note_refusal(
        &mut self,
        device: &DeviceId,
        refusal: &Refusal,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let generation = refusal.generation.map(|generation| signed("generation", generation.0));
        let (id, generation) = (device.to_string(), generation.transpose()?);
        let (code, reason) = (refusal.code.clone(), refusal.reason.clone());
        let is_new = self
            .run(
                "UPDATE devices SET refused_generation = $3, refused_code = $4, refused_reason = $5
                 WHERE tenant = $1 AND id = $2 AND (refused_code IS NULL OR refused_code <> $4
                 OR COALESCE(refused_generation, -1) <> COALESCE($3, -1))",
                |it| it.bind(id).bind(generation).bind(code).bind(reason),
            )
            .await?;
        if is_new == 0 {
            return Ok(());
        }
        let text = format!("refused a directive: {}", refusal.reason);
        let entry =
            TimelineEntry { code: refusal.code.clone(), ..plain(now, "outcome", "warning", &text) };
        self.note(device, &entry).await
    }
}
