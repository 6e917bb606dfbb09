//! How far each device's spool is stored, so that a message counts once however often it comes.

use sealift_protocol::id::{DeviceId, UnixMillis};
use sealift_protocol::telemetry::{Ack, SpoolId};

use super::{Change, StoreError, signed, unsigned};

/// Spools remembered of one device: the present one, and the last few whose messages may still be on their way.
const SPOOLS_MAX: i64 = 4;
/// Messages stored beyond a gap. The agent resends in order, so more than a broker's window means that it does not keep the rules.
const AHEAD_MAX: i64 = 1_000;

/// What a numbered message is to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Not stored yet; now it must be. Afterwards this is acknowledged.
    New(Ack),
    /// Stored before.
    Known(Ack),
    /// Too far beyond a gap.
    TooFarAhead,
}

impl Change {
    /// Notes the arrival of message `sequence` of a spool that holds nothing below `lowest` any more.
    pub(crate) async fn arrive(
        &mut self,
        device: &DeviceId,
        spool: SpoolId,
        (sequence, lowest): (u64, u64),
        now: UnixMillis,
    ) -> Result<Arrival, StoreError> {
        let position = Position { device, spool };
        let (sequence, lowest) =
            (signed("sequence", sequence)?, signed("sequence", lowest.saturating_sub(1))?);
        let ack = |acknowledged| {
            unsigned("sequence", acknowledged).map(|sequence| Ack { spool, sequence })
        };
        if self.is_next_alone(position, (sequence, lowest), now).await? {
            return Ok(Arrival::New(ack(sequence)?));
        }
        let before = self.touch_spool(position, lowest, now).await?;
        // What is skipped may have been all that was missing before messages that are stored.
        let acknowledged = self.contiguous(position, before).await?;
        if acknowledged > before {
            self.acknowledge(position, acknowledged).await?;
        }
        if sequence <= acknowledged {
            return Ok(Arrival::Known(ack(acknowledged)?));
        }
        let is_next = sequence == acknowledged + 1;
        if !is_next && !self.add_ahead(position, sequence).await? {
            return Ok(Arrival::Known(ack(acknowledged)?));
        }
        let reached = if is_next { sequence } else { acknowledged };
        let contiguous = self.contiguous(position, reached).await?;
        if contiguous > acknowledged {
            self.acknowledge(position, contiguous).await?;
        } else if self.count_ahead(position, acknowledged).await? > AHEAD_MAX {
            return Ok(Arrival::TooFarAhead);
        }
        Ok(Arrival::New(ack(contiguous)?))
    }

    /// Acknowledges the next message of a spool beyond which nothing is stored, which nearly all are: in one statement. Returns false, and
    /// changes nothing, for any other.
    async fn is_next_alone(
        &mut self,
        position: Position<'_>,
        (sequence, below_lowest): (i64, i64),
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let (device, spool) = (position.device.to_string(), position.number());
        let acknowledged = self
            .run(
                "UPDATE spools SET used_at = $5, acknowledged = $4
                 WHERE tenant = $1 AND device = $2 AND spool = $3
                 AND CASE WHEN acknowledged < $6 THEN $6 ELSE acknowledged END = $4 - 1
                 AND NOT EXISTS (SELECT 1 FROM spool_ahead a WHERE a.tenant = $1
                 AND a.device = $2 AND a.spool = $3 AND a.sequence >= $4)",
                |it| it.bind(device).bind(spool).bind(sequence).bind(now.0).bind(below_lowest),
            )
            .await?;
        Ok(acknowledged == 1)
    }

    /// Makes sure of the spool's row and skips what will not come any more; returns how far it is acknowledged.
    async fn touch_spool(
        &mut self,
        position: Position<'_>,
        below_lowest: i64,
        now: UnixMillis,
    ) -> Result<i64, StoreError> {
        let acknowledged: Option<i64> = sqlx::query_scalar(
            "UPDATE spools SET used_at = $5,
             acknowledged = CASE WHEN acknowledged < $4 THEN $4 ELSE acknowledged END
             WHERE tenant = $1 AND device = $2 AND spool = $3 RETURNING acknowledged",
        )
        .bind(self.tenant().to_string())
        .bind(position.device.to_string())
        .bind(position.number())
        .bind(below_lowest)
        .bind(now.0)
        .fetch_optional(self.connection())
        .await?;
        if let Some(acknowledged) = acknowledged {
            return Ok(acknowledged);
        }
        let (device, spool) = (position.device.to_string(), position.number());
        self.run(
            "INSERT INTO spools (tenant, device, spool, acknowledged, used_at)
             VALUES ($1, $2, $3, $4, $5)",
            |it| it.bind(device).bind(spool).bind(below_lowest).bind(now.0),
        )
        .await?;
        self.forget_old_spools(position).await?;
        Ok(below_lowest)
    }

    async fn forget_old_spools(&mut self, position: Position<'_>) -> Result<(), StoreError> {
        let (device, spool) = (position.device.to_string(), position.number());
        self.run(
            "DELETE FROM spools WHERE tenant = $1 AND device = $2 AND spool <> $3 AND used_at <=
             (SELECT used_at FROM spools WHERE tenant = $1 AND device = $2
              ORDER BY used_at DESC LIMIT 1 OFFSET $4)",
            |it| it.bind(device).bind(spool).bind(SPOOLS_MAX),
        )
        .await?;
        Ok(())
    }

    /// Returns whether the message is new.
    async fn add_ahead(
        &mut self,
        position: Position<'_>,
        sequence: i64,
    ) -> Result<bool, StoreError> {
        let (device, spool) = (position.device.to_string(), position.number());
        let added = self
            .run(
                "INSERT INTO spool_ahead (tenant, device, spool, sequence)
                 VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
                |it| it.bind(device).bind(spool).bind(sequence),
            )
            .await?;
        Ok(added == 1)
    }

    /// The highest number below which nothing is missing.
    async fn contiguous(
        &mut self,
        position: Position<'_>,
        acknowledged: i64,
    ) -> Result<i64, StoreError> {
        let ahead: Vec<i64> = sqlx::query_scalar(
            "SELECT sequence FROM spool_ahead
             WHERE tenant = $1 AND device = $2 AND spool = $3 AND sequence > $4
             ORDER BY sequence",
        )
        .bind(self.tenant().to_string())
        .bind(position.device.to_string())
        .bind(position.number())
        .bind(acknowledged)
        .fetch_all(self.connection())
        .await?;
        let joins = (1..).zip(&ahead).take_while(|&(step, &next)| next == acknowledged + step);
        Ok(joins.last().map_or(acknowledged, |(_, &last)| last))
    }

    async fn acknowledge(
        &mut self,
        position: Position<'_>,
        acknowledged: i64,
    ) -> Result<(), StoreError> {
        for statement in [
            "UPDATE spools SET acknowledged = $4 WHERE tenant = $1 AND device = $2 AND spool = $3",
            "DELETE FROM spool_ahead
             WHERE tenant = $1 AND device = $2 AND spool = $3 AND sequence <= $4",
        ] {
            let (device, spool) = (position.device.to_string(), position.number());
            self.run(statement, |it| it.bind(device).bind(spool).bind(acknowledged)).await?;
        }
        Ok(())
    }

    async fn count_ahead(
        &mut self,
        position: Position<'_>,
        acknowledged: i64,
    ) -> Result<i64, StoreError> {
        let count = sqlx::query_scalar(
            "SELECT COUNT(*) FROM spool_ahead
             WHERE tenant = $1 AND device = $2 AND spool = $3 AND sequence > $4",
        )
        .bind(self.tenant().to_string())
        .bind(position.device.to_string())
        .bind(position.number())
        .bind(acknowledged)
        .fetch_one(self.connection())
        .await?;
        Ok(count)
    }
}

#[derive(Clone, Copy)]
struct Position<'a> {
    device: &'a DeviceId,
    spool: SpoolId,
}

impl Position<'_> {
    /// Spool ids are 64 random bits: the same bits as the database's signed number.
    const fn number(self) -> i64 {
        self.spool.0.cast_signed()
    }
}
