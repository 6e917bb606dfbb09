//! What is remembered of devices for rollouts to come: when they are connected, how fast they download, what they have.

use std::collections::BTreeMap;

use sealift_protocol::codec;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, Epoch, ModelName, UnixMillis};
use sealift_protocol::limits::BEAT_BYTES_MAX;
use sealift_protocol::report::{Phase, Progress, SlotReport};
use sealift_protocol::telemetry::Beat;
use sqlx::AssertSqlSafe;

use super::matching::Presence;
use super::{Change, StoreError, TenantStore, from_json, parsed, signed, to_json, unsigned};
use crate::filter::Filter;
use crate::rollout::habits::Habits;
use crate::rollout::rehearsal::Known;

/// Fewer bytes than these say nothing of a line's speed.
const SAMPLE_BYTES_MIN: u64 = 64 << 10;

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    online: i64,
    online_since: i64,
    facts: Option<String>,
    beat: Option<Vec<u8>>,
    serving_digest: Option<String>,
    previous_digest: Option<String>,
    floor: Option<i64>,
    known_since: Option<i64>,
    speed_bytes_s: Option<i64>,
    hours: Option<String>,
}

impl TenantStore {
    /// What is known of the devices of a filter, as far as an image of a model is concerned.
    pub(crate) async fn known(
        &self,
        (model, image): (&ModelName, Digest),
        filter: &Filter,
        presence: Presence,
    ) -> Result<BTreeMap<DeviceId, Known>, StoreError> {
        let mut matching = self.matching(filter, presence).await?;
        let model = matching.parameter(&model.to_string());
        let text = format!(
            "SELECT d.id, d.online, d.online_since, d.facts, b.body AS beat, s.serving_digest,
             s.previous_digest, v.epoch AS floor, h.known_since, h.speed_bytes_s, h.hours
             FROM devices d
             LEFT JOIN beats b ON b.tenant = d.tenant AND b.device = d.id
             LEFT JOIN slots s ON s.tenant = d.tenant AND s.device = d.id AND s.model = {model}
             LEFT JOIN versions v ON v.tenant = d.tenant AND v.model = s.model
             AND v.version = s.serving_version
             LEFT JOIN habits h ON h.tenant = d.tenant AND h.device = d.id
             WHERE {} AND d.revoked_at IS NULL",
            matching.text
        );
        let query = matching.bind_as(sqlx::query_as(AssertSqlSafe(text)));
        let rows: Vec<Row> = query.fetch_all(self.readers()).await?;
        rows.into_iter().map(|row| known(row, image, presence.now)).collect()
    }
}

impl Change {
    /// Notes for how long a device was connected that has just gone.
    pub(super) async fn note_connected(
        &mut self,
        device: &DeviceId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let since: i64 =
            sqlx::query_scalar("SELECT online_since FROM devices WHERE tenant = $1 AND id = $2")
                .bind(self.tenant().to_string())
                .bind(device.to_string())
                .fetch_one(self.connection())
                .await?;
        let kept: Option<(i64, String)> = sqlx::query_as(
            "SELECT known_since, hours FROM habits WHERE tenant = $1 AND device = $2",
        )
        .bind(self.tenant().to_string())
        .bind(device.to_string())
        .fetch_optional(self.connection())
        .await?;
        let since = UnixMillis(since);
        let mut habits = match kept {
            Some((known_since, hours)) => {
                Habits::kept(UnixMillis(known_since), from_json("hours", &hours)?)
            }
            None => Habits::new(since),
        };
        habits.add(since, now);
        let (id, hours) = (device.to_string(), to_json("hours", &habits.connected_s)?);
        self.run(
            "INSERT INTO habits (tenant, device, known_since, hours) VALUES ($1, $2, $3, $4)
             ON CONFLICT (tenant, device) DO UPDATE SET known_since = excluded.known_since,
             hours = excluded.hours",
            |it| it.bind(id).bind(habits.known_since.0).bind(hours),
        )
        .await?;
        Ok(())
    }

    /// Notes how fast a device has downloaded between two reports; the newest half counts for half.
    pub(super) async fn note_speed(
        &mut self,
        device: &DeviceId,
        (was, is): (&SlotReport, &SlotReport),
        took_ms: i64,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let Some(bytes) = downloaded(was, is).filter(|&bytes| bytes >= SAMPLE_BYTES_MIN) else {
            return Ok(());
        };
        let took_ms = u64::try_from(took_ms).unwrap_or_default().max(1);
        let (id, speed) =
            (device.to_string(), signed("speed", bytes.saturating_mul(1_000) / took_ms)?);
        self.run(
            "INSERT INTO habits (tenant, device, known_since, speed_bytes_s)
             VALUES ($1, $2, $3, $4)
             ON CONFLICT (tenant, device) DO UPDATE SET speed_bytes_s =
             CASE WHEN habits.speed_bytes_s = 0 THEN excluded.speed_bytes_s
             ELSE (habits.speed_bytes_s + excluded.speed_bytes_s) / 2 END",
            |it| it.bind(id).bind(now.0).bind(speed),
        )
        .await?;
        Ok(())
    }
}

/// Bytes that came between two reports of one download.
fn downloaded(was: &SlotReport, is: &SlotReport) -> Option<u64> {
    let is_same = was.generation == is.generation && was.phase == Phase::Downloading;
    let Progress { done_bytes: before, total_bytes } = was.progress.filter(|_| is_same)?;
    let after = match is.phase {
        Phase::Downloading => is.progress?.done_bytes,
        // All of it is there.
        Phase::Verifying | Phase::Staged | Phase::Warming | Phase::Activating => total_bytes,
        // It gave up, or somebody else came first.
        Phase::Idle
        | Phase::Checking
        | Phase::Waiting
        | Phase::Shadowing
        | Phase::Probation
        | Phase::Watch
        | Phase::Reverting
        | Phase::SafeMode => return None,
    };
    after.checked_sub(before)
}

fn known(row: Row, image: Digest, now: UnixMillis) -> Result<(DeviceId, Known), StoreError> {
    let image = image.to_string();
    let has_image = [&row.serving_digest, &row.previous_digest]
        .into_iter()
        .any(|digest| digest.as_deref() == Some(image.as_str()));
    let beat: Option<Beat> =
        row.beat.and_then(|body| codec::decode("heartbeat", &body, BEAT_BYTES_MAX).ok());
    let online_since = (row.online != 0).then_some(UnixMillis(row.online_since));
    let hours = row.hours.map(|hours| from_json("hours", &hours)).transpose()?;
    let mut habits = row
        .known_since
        .map(|known_since| Habits::kept(UnixMillis(known_since), hours.unwrap_or_default()));
    if let Some(since) = online_since.filter(|&since| since.0 > 0) {
        habits.get_or_insert_with(|| Habits::new(since)).add(since, now);
    }
    let speed = unsigned("speed", row.speed_bytes_s.unwrap_or_default())?;
    let known = Known {
        facts: row.facts.map(|facts| from_json("facts", &facts)).transpose()?,
        disk_free_bytes: beat.map(|beat| u64::from(beat.disk_free_mb) << 20),
        has_image,
        floor: Epoch(unsigned("epoch", row.floor.unwrap_or_default())?),
        speed_bytes_s: (speed > 0).then_some(speed),
        habits,
    };
    Ok((parsed("device", &row.id)?, known))
}
