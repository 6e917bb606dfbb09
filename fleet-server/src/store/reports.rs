//! What devices say of themselves, written down: presence, facts, reported state, heartbeats.

use std::collections::BTreeSet;

use sealift_protocol::api::TimelineEntry;
use sealift_protocol::codec;
use sealift_protocol::id::{DeviceId, UnixMillis};
use sealift_protocol::telemetry::{Beat, Birth, Conn};

use super::{Change, StoreError, corrupt, many, parsed, signed, to_json};

impl Change {
    /// Notes that something came from devices, unless it is only their last wills. Returns those of them that there are and that are not
    /// revoked.
    pub(crate) async fn see(
        &mut self,
        devices: &BTreeSet<DeviceId>,
        at: Option<UnixMillis>,
    ) -> Result<BTreeSet<DeviceId>, StoreError> {
        let seen_at = at.map_or_else(|| "seen_at".to_owned(), |at| at.0.to_string());
        let mut seen = BTreeSet::new();
        for part in many::parts(devices, 1) {
            let text = format!(
                "UPDATE devices SET seen_at = {seen_at}
                 WHERE tenant = $1 AND id IN ({}) AND revoked_at IS NULL RETURNING id",
                many::list(part.len())
            );
            let rows: Vec<(String,)> = self.rows_of(text, &part).await?;
            for (device,) in rows {
                seen.insert(parsed("device", &device)?);
            }
        }
        Ok(seen)
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
}

pub(super) fn plain(at: UnixMillis, kind: &str, severity: &str, text: &str) -> TimelineEntry {
    TimelineEntry {
        at,
        kind: kind.to_owned(),
        severity: severity.to_owned(),
        code: String::new(),
        text: text.to_owned(),
        model: None,
    }
}

pub(super) fn encoded<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    codec::encode(value).map_err(|error| corrupt("report", &error.to_string()))
}
