//! How far each device's spool is stored, so that a message counts once however often it comes.

use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::id::{DeviceId, UnixMillis};
use sealift_protocol::telemetry::{Ack, SpoolId};

use super::{Change, StoreError, many, parsed, signed, unsigned};

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
    /// Notes the arrival of messages, at most one of each device.
    pub(crate) async fn arrive(
        &mut self,
        messages: &[Numbered<'_>],
    ) -> Result<BTreeMap<DeviceId, Arrival>, StoreError> {
        let mut arrivals = BTreeMap::new();
        for part in messages.chunks(many::rows(5)) {
            let next = self.arrive_next(part).await?;
            for message in part {
                let arrival = if next.contains(message.position.device) {
                    Arrival::New(message.position.ack(signed("sequence", message.sequence)?)?)
                } else {
                    self.arrive_apart(message).await?
                };
                arrivals.insert(message.position.device.clone(), arrival);
            }
        }
        Ok(arrivals)
    }

    /// Notes the arrival of a message that is not the next one of its spool, or not known to be.
    async fn arrive_apart(&mut self, message: &Numbered<'_>) -> Result<Arrival, StoreError> {
        let Numbered { position, sequence, lowest, at } = *message;
        let (sequence, below_lowest) =
            (signed("sequence", sequence)?, signed("sequence", lowest.saturating_sub(1))?);
        let before = self.touch_spool(position, below_lowest, at).await?;
        // What is skipped may have been all that was missing before messages that are stored.
        let acknowledged = self.contiguous(position, before).await?;
        if acknowledged > before {
            self.acknowledge(position, acknowledged).await?;
        }
        if sequence <= acknowledged {
            return Ok(Arrival::Known(position.ack(acknowledged)?));
        }
        let is_next = sequence == acknowledged + 1;
        if !is_next && !self.add_ahead(position, sequence).await? {
            return Ok(Arrival::Known(position.ack(acknowledged)?));
        }
        let reached = if is_next { sequence } else { acknowledged };
        let contiguous = self.contiguous(position, reached).await?;
        if contiguous > acknowledged {
            self.acknowledge(position, contiguous).await?;
        } else if self.count_ahead(position, acknowledged).await? > AHEAD_MAX {
            return Ok(Arrival::TooFarAhead);
        }
        Ok(Arrival::New(position.ack(contiguous)?))
    }

    /// Acknowledges the messages that are the next ones of spools beyond which nothing is stored, which nearly all are: in one statement.
    /// Returns whose they were; for any other nothing is changed.
    async fn arrive_next(
        &mut self,
        messages: &[Numbered<'_>],
    ) -> Result<BTreeSet<DeviceId>, StoreError> {
        if messages.is_empty() {
            return Ok(BTreeSet::new());
        }
        let text = format!(
            "UPDATE spools SET used_at = v.column6, acknowledged = v.column4
             FROM (VALUES {}) AS v WHERE spools.tenant = $1 AND spools.device = v.column2
             AND spools.spool = v.column3
             AND CASE WHEN acknowledged < v.column5 THEN v.column5 ELSE acknowledged END
             = v.column4 - 1
             AND NOT EXISTS (SELECT 1 FROM spool_ahead a WHERE a.tenant = $1
             AND a.device = v.column2 AND a.spool = v.column3 AND a.sequence >= v.column4)
             RETURNING device",
            many::values(messages.len(), 5)
        );
        let mut query = self.query_as(text);
        for message in messages {
            let below_lowest = signed("sequence", message.lowest.saturating_sub(1))?;
            query = query.bind(message.position.device.to_string());
            query = query.bind(message.position.number());
            query = query.bind(signed("sequence", message.sequence)?);
            query = query.bind(below_lowest).bind(message.at.0);
        }
        let rows: Vec<(String,)> = query.fetch_all(self.connection()).await?;
        rows.iter().map(|(device,)| parsed("device", device)).collect()
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

/// A message with its number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbered<'a> {
    /// In which spool.
    pub(crate) position: Position<'a>,
    /// Its number.
    pub(crate) sequence: u64,
    /// The lowest number that the spool still holds: what is below it does not come any more.
    pub(crate) lowest: u64,
    /// When it came.
    pub(crate) at: UnixMillis,
}

/// A device's spool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position<'a> {
    /// Whose.
    pub(crate) device: &'a DeviceId,
    /// Which of its spools.
    pub(crate) spool: SpoolId,
}

impl Position<'_> {
    fn ack(self, acknowledged: i64) -> Result<Ack, StoreError> {
        Ok(Ack { spool: self.spool, sequence: unsigned("sequence", acknowledged)? })
    }

    /// Spool ids are 64 random bits: the same bits as the database's signed number.
    const fn number(self) -> i64 {
        self.spool.0.cast_signed()
    }
}
