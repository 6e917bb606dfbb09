//! Of what nobody wants to hear for a while.

use sealift_protocol::api::SilenceView;
use sealift_protocol::id::UnixMillis;

use super::{Change, StoreError, TenantStore, from_json, signed, to_json, unsigned};
use crate::alert::Silence;
use crate::alert::matcher::Matcher;

/// Silences that are not over, at most: each finding is compared with each.
pub(crate) const SILENCES_MAX: usize = 200;

/// A silence.
#[derive(Debug, Clone)]
pub(crate) struct SilenceRow {
    pub(crate) id: u64,
    pub(crate) silence: Silence,
    pub(crate) reason: String,
    pub(crate) created_by: String,
    pub(crate) created_at: UnixMillis,
}

#[derive(sqlx::FromRow)]
struct Row {
    number: i64,
    matchers: String,
    reason: String,
    created_by: String,
    created_at: i64,
    until_at: i64,
}

impl SilenceRow {
    /// As it is shown.
    pub(crate) fn view(&self, covers: u64) -> SilenceView {
        SilenceView {
            id: self.id,
            matchers: self.silence.matchers.iter().map(ToString::to_string).collect(),
            reason: self.reason.clone(),
            created_by: self.created_by.clone(),
            created_at: self.created_at,
            until: self.silence.until,
            covers,
        }
    }
}

impl TenantStore {
    /// The silences that are not over.
    pub(crate) async fn silences(&self, now: UnixMillis) -> Result<Vec<SilenceRow>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT * FROM silences WHERE tenant = $1 AND until_at > $2 ORDER BY number",
        )
        .bind(self.id().to_owned())
        .bind(now.0)
        .fetch_all(self.readers())
        .await?;
        let read = |row: Row| {
            let matchers = from_json("matchers", &row.matchers)?;
            Ok(SilenceRow {
                id: unsigned("silence", row.number)?,
                silence: Silence { matchers, until: UnixMillis(row.until_at) },
                reason: row.reason,
                created_by: row.created_by,
                created_at: UnixMillis(row.created_at),
            })
        };
        rows.into_iter().map(read).collect()
    }
}

impl Change {
    /// Adds a silence; returns its number.
    pub(crate) async fn add_silence(
        &mut self,
        matchers: &[Matcher],
        (by, reason): (&str, &str),
        (now, until): (UnixMillis, UnixMillis),
    ) -> Result<u64, StoreError> {
        let id = self.next_number("silences").await?;
        let (number, matchers) = (signed("silence", id)?, to_json("matchers", &matchers)?);
        let (by, reason) = (by.to_owned(), reason.to_owned());
        self.run(
            "INSERT INTO silences (tenant, number, matchers, reason, created_by, created_at,
             until_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
            |it| {
                let it = it.bind(number).bind(matchers).bind(reason).bind(by);
                it.bind(now.0).bind(until.0)
            },
        )
        .await?;
        Ok(id)
    }

    /// Ends a silence now; false if it is over, or never was.
    pub(crate) async fn end_silence(
        &mut self,
        id: u64,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let number = signed("silence", id)?;
        let ended = self
            .run(
                "UPDATE silences SET until_at = $3
                 WHERE tenant = $1 AND number = $2 AND until_at > $3",
                |it| it.bind(number).bind(now.0),
            )
            .await?;
        Ok(ended == 1)
    }
}
