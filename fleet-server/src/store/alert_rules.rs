//! What operators have changed about kinds of alerts, and rules of their own.

use std::collections::BTreeMap;

use sealift_protocol::api::{KindChange, RuleNew, RuleView};
use sealift_protocol::id::{DeviceId, UnixMillis};
use sqlx::AssertSqlSafe;

use super::matching::Presence;
use super::{Change, StoreError, TenantStore, from_json, parsed, signed, to_json, unsigned};
use crate::alert::backtest::Span;
use crate::filter::Filter;

/// Entries of the connection history that a back-test reads; a fleet that has more is looked at for a shorter time.
const COMINGS_MAX: i64 = 200_000;

/// When devices came and went, by device, oldest first.
pub(crate) type Comings = BTreeMap<DeviceId, Vec<(UnixMillis, bool)>>;

#[derive(sqlx::FromRow)]
struct Row {
    number: i64,
    body: String,
    created_by: String,
    created_at: i64,
    since: Option<i64>,
}

impl TenantStore {
    /// What operators have changed, by kind.
    pub(crate) async fn alert_kinds(&self) -> Result<BTreeMap<String, KindChange>, StoreError> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT kind, body FROM alert_kinds WHERE tenant = $1")
                .bind(self.id().to_owned())
                .fetch_all(self.readers())
                .await?;
        rows.into_iter().map(|(kind, body)| Ok((kind, from_json("change", &body)?))).collect()
    }

    /// Rules of one's own.
    pub(crate) async fn alert_rules(&self) -> Result<Vec<RuleView>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT number, body, created_by, created_at, since FROM alert_rules
             WHERE tenant = $1 ORDER BY number",
        )
        .bind(self.id().to_owned())
        .fetch_all(self.readers())
        .await?;
        let view = |row: Row| {
            Ok(RuleView {
                id: unsigned("rule", row.number)?,
                rule: from_json("rule", &row.body)?,
                created_by: row.created_by,
                created_at: UnixMillis(row.created_at),
                since: row.since.map(UnixMillis),
            })
        };
        rows.into_iter().map(view).collect()
    }

    /// How many devices that are not revoked a filter names.
    pub(crate) async fn count_matching(
        &self,
        filter: &Filter,
        presence: Presence,
    ) -> Result<u64, StoreError> {
        let matching = self.matching(filter, presence).await?;
        let text = format!(
            "SELECT COUNT(*) FROM devices d WHERE {} AND d.revoked_at IS NULL",
            matching.text
        );
        let query = matching.bind_scalar(sqlx::query_scalar(AssertSqlSafe(text)));
        let count: i64 = query.fetch_one(self.readers()).await?;
        unsigned("count", count)
    }

    /// When the devices that a filter names came and went since a moment; also the moment of the first entry that was read.
    pub(crate) async fn comings(
        &self,
        filter: &Filter,
        presence: Presence,
        since: UnixMillis,
    ) -> Result<(Comings, Option<UnixMillis>), StoreError> {
        let mut matching = self.matching(filter, presence).await?;
        let connected = matching.parameter("connected");
        let text = format!(
            "SELECT t.device, t.at, CASE WHEN t.text = {connected} THEN CAST(1 AS BIGINT)
             ELSE CAST(0 AS BIGINT) END AS here FROM timeline t
             JOIN devices d ON d.tenant = t.tenant AND d.id = t.device
             WHERE {} AND t.kind = 'connection' AND t.at >= {}
             ORDER BY t.number DESC LIMIT {COMINGS_MAX}",
            matching.text, since.0
        );
        let query = matching.bind_as(sqlx::query_as(AssertSqlSafe(text)));
        let rows: Vec<(String, i64, i64)> = query.fetch_all(self.readers()).await?;
        let first = rows.last().map(|&(_, at, _)| UnixMillis(at));
        let mut comings = Comings::new();
        for (device, at, here) in rows.into_iter().rev() {
            let device = parsed("device", &device)?;
            comings.entry(device).or_default().push((UnixMillis(at), here == 1));
        }
        Ok((comings, first))
    }

    /// When alerts of a kind were open since a moment, each with its title.
    pub(crate) async fn alert_spans(
        &self,
        kind: &str,
        since: UnixMillis,
    ) -> Result<Vec<(String, Span)>, StoreError> {
        let rows: Vec<(String, i64, Option<i64>)> = sqlx::query_as(
            "SELECT title, opened_at, closed_at FROM alerts
             WHERE tenant = $1 AND kind = $2 AND opened_at >= $3 ORDER BY number",
        )
        .bind(self.id().to_owned())
        .bind(kind.to_owned())
        .bind(since.0)
        .fetch_all(self.readers())
        .await?;
        let span = |(title, from, until): (String, i64, Option<i64>)| {
            (title, Span { from: UnixMillis(from), until: until.map(UnixMillis) })
        };
        Ok(rows.into_iter().map(span).collect())
    }

    /// Devices that have disconnected at least so often since a moment, and when they did so last.
    pub(crate) async fn flapping_devices(
        &self,
        since: UnixMillis,
        often: i64,
    ) -> Result<Vec<(DeviceId, u64, UnixMillis)>, StoreError> {
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(
            "SELECT device, COUNT(*), MAX(at) FROM timeline
             WHERE tenant = $1 AND at >= $2 AND kind = 'connection' AND text = 'disconnected'
             GROUP BY device HAVING COUNT(*) >= $3 ORDER BY device",
        )
        .bind(self.id().to_owned())
        .bind(since.0)
        .bind(often)
        .fetch_all(self.readers())
        .await?;
        let device = |(device, count, last): (String, i64, i64)| {
            Ok((parsed("device", &device)?, unsigned("count", count)?, UnixMillis(last)))
        };
        rows.into_iter().map(device).collect()
    }
}

impl Change {
    /// Writes what an operator has changed about a kind; nothing changed is as built in.
    pub(crate) async fn set_alert_kind(
        &mut self,
        kind: &str,
        change: &KindChange,
    ) -> Result<(), StoreError> {
        let (kind, body) = (kind.to_owned(), to_json("change", change)?);
        if *change == KindChange::default() {
            self.run("DELETE FROM alert_kinds WHERE tenant = $1 AND kind = $2", |it| it.bind(kind))
                .await?;
            return Ok(());
        }
        self.run(
            "INSERT INTO alert_kinds (tenant, kind, body) VALUES ($1, $2, $3)
             ON CONFLICT (tenant, kind) DO UPDATE SET body = excluded.body",
            |it| it.bind(kind).bind(body),
        )
        .await?;
        Ok(())
    }

    /// Adds a rule; none if its name is taken.
    pub(crate) async fn add_alert_rule(
        &mut self,
        rule: &RuleNew,
        by: &str,
        now: UnixMillis,
    ) -> Result<Option<u64>, StoreError> {
        let id = self.next_number("alert-rules").await?;
        let (number, body, by) = (signed("rule", id)?, to_json("rule", rule)?, by.to_owned());
        let name = rule.name.clone();
        let added = self
            .run(
                "INSERT INTO alert_rules (tenant, number, name, body, created_by, created_at)
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
                |it| it.bind(number).bind(name).bind(body).bind(by).bind(now.0),
            )
            .await?;
        Ok((added == 1).then_some(id))
    }

    /// Removes a rule; false if there is none.
    pub(crate) async fn remove_alert_rule(&mut self, name: &str) -> Result<bool, StoreError> {
        let name = name.to_owned();
        let removed = self
            .run("DELETE FROM alert_rules WHERE tenant = $1 AND name = $2", |it| it.bind(name))
            .await?;
        Ok(removed == 1)
    }

    /// Notes since when a rule holds.
    pub(crate) async fn set_rule_since(
        &mut self,
        id: u64,
        since: Option<UnixMillis>,
    ) -> Result<(), StoreError> {
        let (number, since) = (signed("rule", id)?, since.map(|since| since.0));
        self.run("UPDATE alert_rules SET since = $3 WHERE tenant = $1 AND number = $2", |it| {
            it.bind(number).bind(since)
        })
        .await?;
        Ok(())
    }
}
