//! Devices that take an image back after the rollout that brought it is over: nobody halts any more, so it is counted and told.

use sealift_protocol::api::LateView;
use sealift_protocol::id::{DeviceId, ModelName, RolloutId, UnixMillis};
use sealift_protocol::report::{Outcome, OutcomeKind};

use super::{Change, StoreError, TenantStore, parsed, signed, unsigned};
use crate::rollout::Failure;

/// Devices of one rollout that do not serve what it brought, because they took it back late, and that nothing newer was told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Astray {
    /// The rollout.
    pub(crate) rollout: RolloutId,
    /// How many.
    pub(crate) devices: u64,
    /// When the first of them did.
    pub(crate) since: UnixMillis,
}

/// What a rollout's row says of it.
#[derive(sqlx::FromRow)]
pub(super) struct LateRow {
    late: i64,
    late_since: Option<i64>,
    late_device: String,
    late_why: String,
}

impl LateRow {
    pub(super) fn view(self) -> Result<Option<LateView>, StoreError> {
        let Some(since) = self.late_since else { return Ok(None) };
        Ok(Some(LateView {
            devices: unsigned("count", self.late)?,
            since: UnixMillis(since),
            newest: parsed("device", &self.late_device)?,
            why: self.late_why,
        }))
    }
}

impl TenantStore {
    /// Rollouts with devices that took back late what they still should serve, newest first.
    pub(crate) async fn astray(&self, limit: u32) -> Result<Vec<Astray>, StoreError> {
        let rows: Vec<(i64, i64, i64)> = sqlx::query_as(
            "SELECT t.rollout, COUNT(*), MIN(t.late_at) FROM told t
             JOIN devices d ON d.tenant = t.tenant AND d.id = t.device AND d.revoked_at IS NULL
             JOIN desired w ON w.tenant = t.tenant AND w.device = t.device AND w.rollout = t.rollout
             LEFT JOIN slots s ON s.tenant = t.tenant AND s.device = t.device AND s.model = w.model
             WHERE t.tenant = $1 AND t.late_at IS NOT NULL
             AND COALESCE(s.serving_digest, '') <> w.digest
             GROUP BY t.rollout ORDER BY t.rollout DESC LIMIT $2",
        )
        .bind(self.id().to_owned())
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await?;
        let astray = |(rollout, devices, since)| {
            Ok(Astray {
                rollout: RolloutId(unsigned("rollout", rollout)?),
                devices: unsigned("count", devices)?,
                since: UnixMillis(since),
            })
        };
        rows.into_iter().map(astray).collect()
    }
}

impl Change {
    /// Counts a device that has taken an image back, if the rollout that it follows is over.
    pub(super) async fn note_late(
        &mut self,
        device: &DeviceId,
        model: &ModelName,
        (before, outcome): (Option<&Outcome>, &Outcome),
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let is_told_again = before.is_some_and(|before| {
            before.result.is_bad() && before.generation == outcome.generation
        });
        if outcome.result != OutcomeKind::RolledBack || is_told_again {
            return Ok(());
        }
        let rollout: Option<i64> = sqlx::query_scalar(
            "UPDATE told SET late_at = $6 WHERE tenant = $1 AND device = $2 AND generation <= $5
             AND late_at IS NULL AND rollout = (SELECT w.rollout FROM desired w
             JOIN rollouts r ON r.tenant = w.tenant AND r.number = w.rollout
             WHERE w.tenant = $1 AND w.device = $2 AND w.model = $3 AND w.digest = $4
             AND r.finished_at IS NOT NULL) RETURNING rollout",
        )
        .bind(self.tenant().to_string())
        .bind(device.to_string())
        .bind(model.to_string())
        .bind(outcome.image.index.to_string())
        .bind(signed("generation", outcome.generation.0)?)
        .bind(now.0)
        .fetch_optional(self.connection())
        .await?;
        let Some(rollout) = rollout else { return Ok(()) };
        let (code, reason) = (outcome.code.clone(), outcome.reason.clone());
        let (device, why) = (device.to_string(), Failure { code, reason }.to_string());
        self.run(
            "UPDATE rollouts SET late = late + 1, late_since = COALESCE(late_since, $3),
             late_device = $4, late_why = $5 WHERE tenant = $1 AND number = $2",
            |it| it.bind(rollout).bind(now.0).bind(device).bind(why),
        )
        .await?;
        Ok(())
    }
}
