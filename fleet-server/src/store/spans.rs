//! Hours and days of profiles, as sums; what they mean is said elsewhere.

use std::collections::BTreeSet;

use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, ModelName, UnixMillis, Version};
use serde::{Deserialize, Serialize};

use super::{Change, StoreError, TenantStore, from_json, from_word, parsed, signed, to_json};
use super::{unsigned, word};
use crate::drift::Scope;

/// The counter of windows that are in hours already.
const SUMMED: &str = "summed-windows";
/// The counter of devices whose data was deleted.
const FORGOTTEN: &str = "forgotten-devices";

/// How long a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Length {
    Hour,
    Day,
}

/// Which span.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SpanKey {
    pub(crate) scope: Scope,
    pub(crate) model: ModelName,
    pub(crate) digest: Digest,
    pub(crate) length: Length,
    /// Its beginning, a whole number of lengths since 1970.
    pub(crate) from: UnixMillis,
}

/// What was seen in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredSpan {
    pub(crate) version: Version,
    pub(crate) windows: u64,
    pub(crate) errors: u64,
    /// The scopes in which a device's span is counted as well.
    pub(crate) scopes: BTreeSet<Scope>,
    /// The profile's bytes.
    pub(crate) profile: Vec<u8>,
}

/// Rows that went with a device's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct DeletedRows {
    pub(crate) windows: u64,
    pub(crate) events: u64,
}

#[derive(sqlx::FromRow)]
struct Row {
    scope: String,
    model: String,
    digest: String,
    length: String,
    from_at: i64,
    version: String,
    windows: i64,
    errors: i64,
    scopes: String,
    body: Vec<u8>,
}

impl TenantStore {
    /// The last window that is counted in an hour.
    pub(crate) async fn summed_windows(&self) -> Result<u64, StoreError> {
        self.counter(SUMMED).await
    }

    /// How often data of a device was deleted.
    pub(crate) async fn forgotten_devices(&self) -> Result<u64, StoreError> {
        self.counter(FORGOTTEN).await
    }

    async fn counter(&self, name: &str) -> Result<u64, StoreError> {
        let value: Option<i64> =
            sqlx::query_scalar("SELECT value FROM counters WHERE tenant = $1 AND name = $2")
                .bind(self.id().to_owned())
                .bind(name.to_owned())
                .fetch_optional(self.readers())
                .await?;
        unsigned("counter", value.unwrap_or(0))
    }

    /// Spans of a model in a scope that begin in `[from, until)`, oldest first.
    pub(crate) async fn spans(
        &self,
        (model, scope): (&ModelName, &Scope),
        length: Length,
        (from, until): (UnixMillis, UnixMillis),
        limit: u32,
    ) -> Result<Vec<(SpanKey, StoredSpan)>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT scope, model, digest, length, from_at, version, windows, errors, scopes, body
             FROM profile_spans WHERE tenant = $1 AND scope = $2 AND model = $3 AND length = $4
             AND from_at >= $5 AND from_at < $6 ORDER BY from_at, digest LIMIT $7",
        )
        .bind(self.id().to_owned())
        .bind(scope.to_string())
        .bind(model.to_string())
        .bind(word("length", &length)?)
        .bind(from.0)
        .bind(until.0)
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(stored).collect()
    }

    /// The oldest hours that begin before a moment.
    pub(crate) async fn hours_before(
        &self,
        before: UnixMillis,
        limit: u32,
    ) -> Result<Vec<(SpanKey, StoredSpan)>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT scope, model, digest, length, from_at, version, windows, errors, scopes, body
             FROM profile_spans WHERE tenant = $1 AND length = 'hour' AND from_at < $2
             ORDER BY from_at, scope, model, digest LIMIT $3",
        )
        .bind(self.id().to_owned())
        .bind(before.0)
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(stored).collect()
    }

    /// Bytes of all spans by where they begin, oldest first.
    pub(crate) async fn span_bytes(&self) -> Result<Vec<(UnixMillis, u64)>, StoreError> {
        let rows: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT from_at, CAST(SUM(LENGTH(body)) AS BIGINT) FROM profile_spans
             WHERE tenant = $1 GROUP BY from_at ORDER BY from_at",
        )
        .bind(self.id().to_owned())
        .fetch_all(self.readers())
        .await?;
        let sizes =
            rows.into_iter().map(|(from, bytes)| Ok((UnixMillis(from), unsigned("bytes", bytes)?)));
        sizes.collect()
    }
}

impl Change {
    /// Says that windows up to `number` are in hours. Only one server can say so of the windows after `before`, and only if no device's
    /// data was deleted since `forgotten` was read.
    pub(crate) async fn windows_summed(
        &mut self,
        (before, number): (u64, u64),
        forgotten: u64,
    ) -> Result<(), StoreError> {
        let (before, number) = (signed("window", before)?, signed("window", number)?);
        let changed = self
            .run(
                "INSERT INTO counters (tenant, name, value) VALUES ($1, $2, $3)
                 ON CONFLICT (tenant, name) DO UPDATE SET value = excluded.value
                 WHERE counters.value = $4",
                |it| it.bind(SUMMED).bind(number).bind(before),
            )
            .await?;
        let now: Option<i64> =
            sqlx::query_scalar("SELECT value FROM counters WHERE tenant = $1 AND name = $2")
                .bind(self.tenant().to_string())
                .bind(FORGOTTEN)
                .fetch_optional(self.connection())
                .await?;
        if changed == 1 && unsigned("counter", now.unwrap_or(0))? == forgotten {
            Ok(())
        } else {
            Err(StoreError::Changed("windows"))
        }
    }

    /// A span; none if nothing was seen in it.
    pub(crate) async fn span(&mut self, key: &SpanKey) -> Result<Option<StoredSpan>, StoreError> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT scope, model, digest, length, from_at, version, windows, errors, scopes, body
             FROM profile_spans WHERE tenant = $1 AND scope = $2 AND model = $3 AND digest = $4
             AND length = $5 AND from_at = $6",
        )
        .bind(self.tenant().to_string())
        .bind(key.scope.to_string())
        .bind(key.model.to_string())
        .bind(key.digest.to_string())
        .bind(word("length", &key.length)?)
        .bind(key.from.0)
        .fetch_optional(self.connection())
        .await?;
        Ok(row.map(stored).transpose()?.map(|(_, span)| span))
    }

    /// Writes a span, over what it was.
    pub(crate) async fn put_span(
        &mut self,
        key: &SpanKey,
        span: &StoredSpan,
    ) -> Result<(), StoreError> {
        let (scope, model) = (key.scope.to_string(), key.model.to_string());
        let (digest, length) = (key.digest.to_string(), word("length", &key.length)?);
        let (version, from) = (span.version.to_string(), key.from.0);
        let windows = signed("windows", span.windows)?;
        let errors = signed("errors", span.errors)?;
        let names: Vec<_> = span.scopes.iter().map(Scope::to_string).collect();
        let (scopes, body) = (to_json("scopes", &names)?, span.profile.clone());
        self.run(
            "INSERT INTO profile_spans (tenant, scope, model, digest, length, from_at, version,
             windows, errors, scopes, body) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             ON CONFLICT (tenant, scope, model, digest, length, from_at) DO UPDATE SET
             windows = excluded.windows, errors = excluded.errors, scopes = excluded.scopes,
             body = excluded.body",
            |it| {
                let it = it.bind(scope).bind(model).bind(digest).bind(length).bind(from);
                it.bind(version).bind(windows).bind(errors).bind(scopes).bind(body)
            },
        )
        .await?;
        Ok(())
    }

    /// Removes a span; an error if it is not there any more.
    pub(crate) async fn remove_span(&mut self, key: &SpanKey) -> Result<(), StoreError> {
        let (scope, model) = (key.scope.to_string(), key.model.to_string());
        let (digest, length) = (key.digest.to_string(), word("length", &key.length)?);
        let from = key.from.0;
        let removed = self
            .run(
                "DELETE FROM profile_spans WHERE tenant = $1 AND scope = $2 AND model = $3
                 AND digest = $4 AND length = $5 AND from_at = $6",
                |it| it.bind(scope).bind(model).bind(digest).bind(length).bind(from),
            )
            .await?;
        if removed == 1 { Ok(()) } else { Err(StoreError::Changed("span")) }
    }

    /// Removes all spans that begin before a moment; returns how many.
    pub(crate) async fn remove_spans_before(
        &mut self,
        before: UnixMillis,
    ) -> Result<u64, StoreError> {
        let removed = self
            .run("DELETE FROM profile_spans WHERE tenant = $1 AND from_at < $2", |it| {
                it.bind(before.0)
            });
        removed.await
    }

    /// The spans of one device.
    pub(crate) async fn spans_of(
        &mut self,
        device: &DeviceId,
    ) -> Result<Vec<(SpanKey, StoredSpan)>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT scope, model, digest, length, from_at, version, windows, errors, scopes, body
             FROM profile_spans WHERE tenant = $1 AND scope = $2 ORDER BY from_at, model, digest",
        )
        .bind(self.tenant().to_string())
        .bind(Scope::Device(device.clone()).to_string())
        .fetch_all(self.connection())
        .await?;
        rows.into_iter().map(stored).collect()
    }

    /// Has everybody who sums windows up begin anew: some may be gone. Called first of all, so that nobody sums up beside it.
    pub(crate) async fn begin_to_forget(&mut self) -> Result<(), StoreError> {
        self.next_number(FORGOTTEN).await?;
        // Waits for whoever sums up now, and has others wait.
        self.run("UPDATE counters SET value = value WHERE tenant = $1 AND name = $2", |it| {
            it.bind(SUMMED)
        })
        .await?;
        Ok(())
    }

    /// Deletes what a device has sent: windows, events, heartbeats, answers, and what was learnt of its habits.
    pub(crate) async fn delete_sent(
        &mut self,
        device: &DeviceId,
    ) -> Result<DeletedRows, StoreError> {
        self.write_pending().await?;
        let mut gone = [0; 5];
        for (rows, statement) in gone.iter_mut().zip([
            "DELETE FROM profile_windows WHERE tenant = $1 AND device = $2",
            "DELETE FROM timeline WHERE tenant = $1 AND device = $2",
            "DELETE FROM beats WHERE tenant = $1 AND device = $2",
            "DELETE FROM habits WHERE tenant = $1 AND device = $2",
            "DELETE FROM requests WHERE tenant = $1 AND device = $2",
        ]) {
            *rows = self.run(statement, |it| it.bind(device.to_string())).await?;
        }
        let [windows, events, ..] = gone;
        Ok(DeletedRows { windows, events })
    }
}

fn stored(row: Row) -> Result<(SpanKey, StoredSpan), StoreError> {
    let scope = |text: &str| Scope::parse(text).map_err(|_| super::corrupt("scope", text));
    let names: Vec<String> = from_json("scopes", &row.scopes)?;
    let key = SpanKey {
        scope: scope(&row.scope)?,
        model: parsed("model", &row.model)?,
        digest: parsed("digest", &row.digest)?,
        length: from_word("length", &row.length)?,
        from: UnixMillis(row.from_at),
    };
    let span = StoredSpan {
        version: parsed("version", &row.version)?,
        windows: unsigned("windows", row.windows)?,
        errors: unsigned("errors", row.errors)?,
        scopes: names.iter().map(|name| scope(name)).collect::<Result<_, _>>()?,
        profile: row.body,
    };
    Ok((key, span))
}
