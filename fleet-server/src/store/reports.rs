//! What devices say of themselves, written down: presence, facts, reported state, heartbeats.

use std::collections::BTreeMap;

use sealift_protocol::api::TimelineEntry;
use sealift_protocol::codec;
use sealift_protocol::id::{DeviceId, Generation, ModelName, UnixMillis};
use sealift_protocol::report::{Outcome, OutcomeKind, Refusal, SlotReport, Trusted};
use sealift_protocol::telemetry::{Beat, Birth, Conn, SpoolId};

use super::devices::stored_report;
use super::{Change, StoreError, corrupt, parsed, signed, to_json};
use crate::inventory;

/// A device's account of its models.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account<'a> {
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

/// Since when the server waits for a device's first word after a recovery, if it does.
#[derive(sqlx::FromRow)]
struct Waiting {
    since: Option<i64>,
}

impl Change {
    /// Notes that something came from a device, unless it is its last will. Returns whether there is such a device, and it is not
    /// revoked.
    pub(crate) async fn see(
        &mut self,
        device: &DeviceId,
        at: Option<UnixMillis>,
    ) -> Result<bool, StoreError> {
        let (id, at) = (device.to_string(), at.map(|at| at.0));
        let seen = self
            .run(
                "UPDATE devices SET seen_at = COALESCE($3, seen_at)
                 WHERE tenant = $1 AND id = $2 AND revoked_at IS NULL",
                |it| it.bind(id).bind(at),
            )
            .await?;
        Ok(seen == 1)
    }

    /// Notes that a device came or went. One that went from an older connection is ignored: it has connected anew in between.
    pub(crate) async fn set_presence(
        &mut self,
        device: &DeviceId,
        conn: Conn,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let (id, epoch) = (device.to_string(), signed("epoch", conn.epoch)?);
        let online = i64::from(conn.online);
        let changed = self
            .run(
                "UPDATE devices SET online = $3, online_since = CASE WHEN $3 = 1 THEN $5
                 ELSE online_since END, epoch = $4
                 WHERE tenant = $1 AND id = $2 AND epoch <= $4 AND (online <> $3 OR epoch < $4)",
                |it| it.bind(id).bind(online).bind(epoch).bind(now.0),
            )
            .await?;
        if changed == 1 && !conn.online {
            self.note_connected(device, now).await?;
        }
        if changed == 1 {
            let (severity, text) =
                if conn.online { ("info", "connected") } else { ("warning", "disconnected") };
            self.note(device, &plain(now, "connection", severity, text)).await?;
        }
        Ok(())
    }

    /// Writes what a device is.
    pub(crate) async fn set_facts(
        &mut self,
        device: &DeviceId,
        birth: &Birth,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.set_presence(device, Conn { online: true, epoch: birth.epoch }, now).await?;
        let (id, agent, endpoint) =
            (device.to_string(), birth.agent.clone(), birth.endpoint.clone());
        let facts = to_json("facts", &birth.facts)?;
        let simulated = i64::from(birth.facts.simulated);
        self.run(
            "UPDATE devices SET agent = $3, facts = $4, simulated = $5, endpoint = $6
             WHERE tenant = $1 AND id = $2",
            |it| it.bind(id).bind(agent).bind(facts).bind(simulated).bind(endpoint),
        )
        .await?;
        Ok(())
    }

    /// Writes the last heartbeat. It is also a sign of presence.
    pub(crate) async fn set_beat(
        &mut self,
        device: &DeviceId,
        beat: &Beat,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let id = device.to_string();
        self.run(
            "UPDATE devices SET online_since = CASE WHEN online = 0 THEN $3 ELSE online_since END,
             online = 1 WHERE tenant = $1 AND id = $2 AND online = 0",
            |it| it.bind(id).bind(now.0),
        )
        .await?;
        let (id, body) = (device.to_string(), encoded(beat)?);
        let (requests, errors) =
            (signed("requests", beat.requests)?, signed("errors", beat.errors)?);
        self.run(
            "INSERT INTO beats (tenant, device, at, requests, errors, requests_per_s, body)
             VALUES ($1, $2, $3, $4, $5, 0.0, $6)
             ON CONFLICT (tenant, device) DO UPDATE SET at = excluded.at,
             requests = excluded.requests, errors = excluded.errors, body = excluded.body,
             requests_per_s = CASE
             WHEN excluded.at > beats.at AND excluded.requests >= beats.requests
             THEN CAST(excluded.requests - beats.requests AS DOUBLE PRECISION) * 1000.0
                  / CAST(excluded.at - beats.at AS DOUBLE PRECISION)
             ELSE 0.0 END",
            |it| it.bind(id).bind(now.0).bind(requests).bind(errors).bind(body),
        )
        .await?;
        Ok(())
    }

    /// Writes what a device says of its models. Returns false for an account that is older than the one written.
    pub(crate) async fn set_account(
        &mut self,
        device: &DeviceId,
        account: Account<'_>,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let Some(waiting) = self.begin_account(device, account).await? else { return Ok(false) };
        let mut before = self.slots(device).await?;
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
        if let Some(refusal) = account.refused {
            self.note_refusal(device, refusal, now).await?;
        }
        if waiting.since.is_some() {
            self.end_waiting(device).await?;
        }
        Ok(true)
    }

    /// Writes what an account says of the whole device; none, and nothing, if it is older than the one written.
    async fn begin_account(
        &mut self,
        device: &DeviceId,
        account: Account<'_>,
    ) -> Result<Option<Waiting>, StoreError> {
        let (spool, sequence) = account.position;
        let trusted = account.trusted;
        let text = trusted.map(|trusted| to_json("trusted", trusted)).transpose()?;
        let version = |what, of: fn(&Trusted) -> u64| {
            trusted.map(|trusted| signed(what, of(trusted))).transpose()
        };
        let waiting = sqlx::query_as(
            "UPDATE devices SET reported_generation = $5, trouble = $6, reported_spool = $3,
             reported_sequence = $4, trusted = COALESCE($7, trusted),
             trusted_timestamp = COALESCE($8, trusted_timestamp),
             trusted_snapshot = COALESCE($9, trusted_snapshot),
             halt_sequence = COALESCE($10, halt_sequence),
             capture_sequence = COALESCE($11, capture_sequence) WHERE tenant = $1 AND id = $2 AND
             (reported_spool IS NULL OR reported_spool <> $3 OR reported_sequence < $4)
             RETURNING awaited_since AS since",
        )
        .bind(self.tenant().to_string())
        .bind(device.to_string())
        .bind(spool.0.cast_signed())
        .bind(signed("sequence", sequence)?)
        .bind(signed("generation", account.generation.0)?)
        .bind(inventory::trouble(account.slots))
        .bind(text)
        .bind(version("timestamp version", |trusted| trusted.timestamp)?)
        .bind(version("snapshot version", |trusted| trusted.snapshot)?)
        .bind(version("sequence of halts", |trusted| trusted.halt)?)
        .bind(version("sequence of captures", |trusted| trusted.capture)?)
        .fetch_optional(self.connection())
        .await?;
        Ok(waiting)
    }

    async fn slots(
        &mut self,
        device: &DeviceId,
    ) -> Result<BTreeMap<ModelName, (SlotReport, UnixMillis)>, StoreError> {
        let rows: Vec<(String, Vec<u8>, i64)> = sqlx::query_as(
            "SELECT model, body, reported_at FROM slots WHERE tenant = $1 AND device = $2",
        )
        .bind(self.tenant().to_string())
        .bind(device.to_string())
        .fetch_all(self.connection())
        .await?;
        let slot = |(model, body, at): (String, Vec<u8>, i64)| {
            Ok((parsed("model", &model)?, (stored_report(&body)?, UnixMillis(at))))
        };
        rows.into_iter().map(slot).collect()
    }

    async fn set_slot(
        &mut self,
        device: &DeviceId,
        slot: &SlotReport,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let (id, model) = (device.to_string(), slot.model.to_string());
        let (generation, phase) =
            (signed("generation", slot.generation.0)?, super::word("phase", &slot.phase)?);
        let version = |image: &Option<sealift_protocol::report::ImageRef>| {
            image.as_ref().map(|image| image.version.to_string())
        };
        let digest = |image: &Option<sealift_protocol::report::ImageRef>| {
            image.as_ref().map(|image| image.index.to_string())
        };
        let (serving, serving_digest) = (version(&slot.serving), digest(&slot.serving));
        let (previous, previous_digest) = (version(&slot.previous), digest(&slot.previous));
        let body = encoded(slot)?;
        self.run(
            "INSERT INTO slots (tenant, device, model, generation, phase, serving_version,
             serving_digest, previous_version, previous_digest, reported_at, body)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             ON CONFLICT (tenant, device, model) DO UPDATE SET generation = excluded.generation,
             phase = excluded.phase, serving_version = excluded.serving_version,
             serving_digest = excluded.serving_digest,
             previous_version = excluded.previous_version,
             previous_digest = excluded.previous_digest, reported_at = excluded.reported_at,
             body = excluded.body",
            |it| {
                let it = it.bind(id).bind(model).bind(generation).bind(phase).bind(serving);
                let it = it.bind(serving_digest).bind(previous).bind(previous_digest);
                it.bind(now.0).bind(body)
            },
        )
        .await?;
        Ok(())
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
            let phase = super::word("phase", &slot.phase)?;
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
            self.run(
                "INSERT INTO penalties (tenant, device, digest, code, reason, at)
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant, device, digest)
                 DO UPDATE SET code = excluded.code, reason = excluded.reason, at = excluded.at",
                |it| it.bind(id).bind(digest).bind(code).bind(reason).bind(now.0),
            )
            .await?;
        } else if outcome.result == OutcomeKind::Committed {
            self.run(
                "DELETE FROM penalties WHERE tenant = $1 AND device = $2 AND digest = $3",
                |it| it.bind(id).bind(digest),
            )
            .await?;
        }
        let result = super::word("outcome", &outcome.result)?;
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

fn plain(at: UnixMillis, kind: &str, severity: &str, text: &str) -> TimelineEntry {
    TimelineEntry {
        at,
        kind: kind.to_owned(),
        severity: severity.to_owned(),
        code: String::new(),
        text: text.to_owned(),
        model: None,
    }
}

fn encoded<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    codec::encode(value).map_err(|error| corrupt("report", &error.to_string()))
}
