//! The list of halted rollouts: one row for a tenant, which is also the lock between whoever halts and whoever tells devices.

use std::collections::BTreeSet;

use sealift_protocol::digest::Digest;
use sealift_protocol::id::{RolloutId, UnixMillis};

use super::matching::Presence;
use super::{Change, StoreError, TenantStore, from_json, parsed, signed, to_json, unsigned};
use crate::filter::Filter;
use crate::halt::Halt;
use sqlx::AssertSqlSafe;

/// The newest list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct HaltRow {
    /// Its number; 0 before the first.
    pub(crate) sequence: u64,
    /// The key that signed it, by its name in the trust bundle.
    pub(crate) signer: String,
    /// The rollouts that it names.
    pub(crate) campaigns: BTreeSet<Digest>,
    /// Who has stopped everything, if that is so.
    pub(crate) halt: Option<Halt>,
}

/// A list that was signed.
#[derive(Debug)]
pub(crate) struct SignedHalt {
    /// What it says.
    pub(crate) row: HaltRow,
    /// The exact bytes.
    pub(crate) body: Vec<u8>,
}

/// A list that is signed for all devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    /// Of halted rollouts.
    Halts,
    /// Of what is kept for people to look at.
    Captures,
}

impl List {
    /// Where it is kept which one a device obeys.
    const fn column(self) -> &'static str {
        match self {
            Self::Halts => "halt_sequence",
            Self::Captures => "capture_sequence",
        }
    }
}

/// Devices by whether they obey the newest list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Confirmations {
    /// They say so.
    pub(crate) confirmed: u64,
    /// Connected, and have not said so.
    pub(crate) unconfirmed: u64,
    /// Offline, and have not said so.
    pub(crate) offline: u64,
}

#[derive(sqlx::FromRow)]
struct Row {
    sequence: i64,
    signer: String,
    campaigns: String,
    halted_at: Option<i64>,
    actor: String,
    reason: String,
    newest: i64,
}

impl TenantStore {
    /// The newest list; the default one before the first.
    pub(crate) async fn halt(&self) -> Result<HaltRow, StoreError> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT sequence, signer, campaigns, halted_at, actor, reason, newest FROM halts
             WHERE tenant = $1",
        )
        .bind(self.id().to_owned())
        .fetch_optional(self.readers())
        .await?;
        row.map(read).transpose().map(Option::unwrap_or_default)
    }

    /// The newest list as it was signed; none before the first.
    pub(crate) async fn signed_halt(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let body: Option<Option<Vec<u8>>> =
            sqlx::query_scalar("SELECT body FROM halts WHERE tenant = $1")
                .bind(self.id().to_owned())
                .fetch_optional(self.readers())
                .await?;
        Ok(body.flatten())
    }

    /// The newest list, if the broker does not have it.
    pub(crate) async fn unpublished_halt(&self) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let row: Option<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT sequence, body FROM halts
             WHERE tenant = $1 AND published = 0 AND body IS NOT NULL",
        )
        .bind(self.id().to_owned())
        .fetch_optional(self.readers())
        .await?;
        row.map(|(sequence, body)| Ok((unsigned("sequence", sequence)?, body))).transpose()
    }

    /// Rollouts that are over, and that some device may still be about to follow: it was told and does not serve what it was told.
    pub(crate) async fn lingering_campaigns(&self) -> Result<Vec<Digest>, StoreError> {
        let campaigns: Vec<String> = sqlx::query_scalar(
            "SELECT r.campaign FROM rollouts r
             WHERE r.tenant = $1 AND r.campaign <> '' AND r.finished_at IS NOT NULL
             AND EXISTS (SELECT 1 FROM desired w
                 LEFT JOIN slots s
                 ON s.tenant = w.tenant AND s.device = w.device AND s.model = w.model
                 WHERE w.tenant = r.tenant AND w.rollout = r.number
                 AND (s.serving_digest IS NULL OR s.serving_digest <> w.digest))
             ORDER BY r.number DESC",
        )
        .bind(self.id().to_owned())
        .fetch_all(self.readers())
        .await?;
        campaigns.iter().map(|campaign| parsed("campaign", campaign)).collect()
    }

    /// How many devices of a filter obey a list of number `sequence`; without revoked ones.
    pub(crate) async fn confirmations(
        &self,
        (list, sequence): (List, u64),
        filter: &Filter,
        presence: Presence,
    ) -> Result<Confirmations, StoreError> {
        let matching = self.matching(filter, presence).await?;
        let (sequence, state) = (signed("sequence", sequence)?, presence.state());
        let column = list.column();
        let text = format!(
            "SELECT CASE WHEN d.{column} >= {sequence} THEN 'confirmed'
             WHEN {state} = 'offline' THEN 'offline' ELSE 'unconfirmed' END AS answer, COUNT(*)
             FROM devices d WHERE {} AND d.revoked_at IS NULL GROUP BY answer",
            matching.text
        );
        let query = matching.bind_as(sqlx::query_as(AssertSqlSafe(text)));
        let rows: Vec<(String, i64)> = query.fetch_all(self.readers()).await?;
        let mut counts = Confirmations::default();
        for (answer, count) in rows {
            let count = unsigned("count", count)?;
            match answer.as_str() {
                "confirmed" => counts.confirmed = count,
                "offline" => counts.offline = count,
                _ => counts.unconfirmed = count, // the third of the query's three words
            }
        }
        Ok(counts)
    }
}

impl Change {
    /// Waits for whoever halts or tells devices at the same time, and returns the newest list's sequence.
    pub(crate) async fn lock_halt(&mut self) -> Result<u64, StoreError> {
        let sequence: i64 = sqlx::query_scalar(
            "INSERT INTO halts (tenant, sequence) VALUES ($1, 0)
             ON CONFLICT (tenant) DO UPDATE SET sequence = halts.sequence RETURNING sequence",
        )
        .bind(self.tenant().to_string())
        .fetch_one(self.connection())
        .await?;
        unsigned("sequence", sequence)
    }

    /// How many devices there are, revoked ones apart.
    pub(crate) async fn fleet_size(&mut self) -> Result<u64, StoreError> {
        let size: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM devices WHERE tenant = $1 AND revoked_at IS NULL",
        )
        .bind(self.tenant().to_string())
        .fetch_one(self.connection())
        .await?;
        unsigned("devices", size)
    }

    /// Rollouts that are not over, and the newest of all rollouts.
    pub(crate) async fn live_campaigns(&mut self) -> Result<(Vec<Digest>, RolloutId), StoreError> {
        let campaigns: Vec<String> = sqlx::query_scalar(
            "SELECT campaign FROM rollouts
             WHERE tenant = $1 AND campaign <> '' AND finished_at IS NULL ORDER BY number DESC",
        )
        .bind(self.tenant().to_string())
        .fetch_all(self.connection())
        .await?;
        let newest: Option<i64> =
            sqlx::query_scalar("SELECT MAX(number) FROM rollouts WHERE tenant = $1")
                .bind(self.tenant().to_string())
                .fetch_one(self.connection())
                .await?;
        let campaigns = campaigns.iter().map(|campaign| parsed("campaign", campaign));
        let newest = RolloutId(unsigned("rollout", newest.unwrap_or(0))?);
        Ok((campaigns.collect::<Result<_, _>>()?, newest))
    }

    /// Puts a list in the place of the one before. The broker does not have it yet.
    pub(crate) async fn set_halt(&mut self, signed_halt: &SignedHalt) -> Result<(), StoreError> {
        let HaltRow { sequence, signer, campaigns, halt } = signed_halt.row.clone();
        let (sequence, campaigns) =
            (signed("sequence", sequence)?, to_json("campaigns", &campaigns)?);
        let at = halt.as_ref().map(|halt| halt.since.0);
        let newest = signed("rollout", halt.as_ref().map_or(0, |halt| halt.newest.0))?;
        let (by, reason) = halt.map(|halt| (halt.by, halt.reason)).unwrap_or_default();
        let body = signed_halt.body.clone();
        self.run(
            "UPDATE halts SET sequence = $2, body = $3, signer = $4, campaigns = $5,
             halted_at = $6, actor = $7, reason = $8, newest = $9, published = 0
             WHERE tenant = $1",
            |it| {
                let it = it.bind(sequence).bind(body).bind(signer).bind(campaigns);
                it.bind(at).bind(by).bind(reason).bind(newest)
            },
        )
        .await?;
        Ok(())
    }

    /// Notes that the broker has a list, unless a newer one came in between.
    pub(crate) async fn mark_halt_published(&mut self, sequence: u64) -> Result<(), StoreError> {
        let sequence = signed("sequence", sequence)?;
        self.run("UPDATE halts SET published = 1 WHERE tenant = $1 AND sequence = $2", |it| {
            it.bind(sequence)
        })
        .await?;
        Ok(())
    }

    /// The broker has lost its memory, or is another one.
    pub(crate) async fn mark_halt_unpublished(&mut self) -> Result<(), StoreError> {
        self.run("UPDATE halts SET published = 0 WHERE tenant = $1", |it| it).await?;
        Ok(())
    }
}

fn read(row: Row) -> Result<HaltRow, StoreError> {
    let Row { sequence, signer, campaigns, halted_at, actor, reason, newest } = row;
    let campaigns: BTreeSet<Digest> = from_json("campaigns", &campaigns)?;
    let newest = RolloutId(unsigned("rollout", newest)?);
    let rollouts = u64::try_from(campaigns.len()).unwrap_or(u64::MAX);
    let halt =
        halted_at.map(|at| Halt { since: UnixMillis(at), by: actor, reason, newest, rollouts });
    Ok(HaltRow { sequence: unsigned("sequence", sequence)?, signer, campaigns, halt })
}
