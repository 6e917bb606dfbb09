//! What devices bring up of their batches' predictions. A row is there from the moment in which an operator asks for it: without one nothing
//! is taken.

use std::fmt::Write as _;

use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, TeamId, UnixMillis};
use sealift_protocol::request::BatchRun;
use sqlx::AssertSqlSafe;

use super::matching::{Matching, Presence};
use super::{Change, StoreError, TenantStore, from_json, parsed, signed, to_json, unsigned};
use crate::content::ContentDigest;
use crate::filter::Filter;

/// Predictions that are deleted in one go: those of a night's batch on a whole fleet end in the same minute, and others write, too.
pub(crate) const THROWN_AWAY_MAX: i64 = 500;

/// What is to come, comes, or is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResultRow {
    pub(crate) device: DeviceId,
    pub(crate) run: BatchRun,
    pub(crate) asked_by: String,
    pub(crate) asked_at: UnixMillis,
    /// The upload by which it comes.
    pub(crate) upload: Option<String>,
    /// How many bytes of that upload have come; none if it is not under way.
    pub(crate) arrived: Option<u64>,
    /// What the device says of the whole; none before it has begun to send.
    pub(crate) whole: Option<Whole>,
    pub(crate) done_at: Option<UnixMillis>,
    pub(crate) delete_at: UnixMillis,
}

/// Which predictions a list has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Which<'a> {
    /// Only of batches of this name.
    pub(crate) name: Option<&'a str>,
    /// Only of this device.
    pub(crate) device: Option<&'a DeviceId>,
    /// Only of devices that this filter names.
    pub(crate) among: &'a Filter,
}

/// What a device says of all that it will send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) size: u64,
    pub(crate) digest: Digest,
}

impl ResultRow {
    /// How many bytes of it are here.
    pub(crate) fn bytes(&self) -> u64 {
        let all = self.whole.filter(|_| self.done_at.is_some()).map(|whole| whole.size);
        all.or(self.arrived).unwrap_or(0)
    }

    /// The team of its model, by which room is counted.
    pub(crate) const fn team(&self) -> &TeamId {
        self.run.model.team()
    }
}

macro_rules! columns {
    () => {
        "b.device, b.run, b.asked_by, b.asked_at, b.upload, b.size_bytes, b.digest, b.done_at,
         b.delete_at, (SELECT u.bytes FROM uploads u WHERE u.tenant = b.tenant
             AND u.id = b.upload AND u.repository = '') AS arrived"
    };
}

#[derive(sqlx::FromRow)]
struct Row {
    device: String,
    run: String,
    asked_by: String,
    asked_at: i64,
    upload: Option<String>,
    size_bytes: i64,
    digest: Option<String>,
    done_at: Option<i64>,
    delete_at: i64,
    arrived: Option<i64>,
}

impl TenantStore {
    /// What is known of a batch's predictions, if they were asked for.
    pub(crate) async fn batch_result(
        &self,
        device: &DeviceId,
        name: &str,
    ) -> Result<Option<ResultRow>, StoreError> {
        let row: Option<Row> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM batch_results b WHERE b.tenant = $1 AND b.device = $2 AND b.name = $3"
        ))
        .bind(self.id().to_owned())
        .bind(device.to_string())
        .bind(name.to_owned())
        .fetch_optional(self.readers())
        .await?;
        row.map(read).transpose()
    }

    /// Predictions that were asked for, in the order of name and device, after one of them.
    pub(crate) async fn batch_results(
        &self,
        which: Which<'_>,
        presence: Presence,
        (name, device): (&str, &str),
        limit: u32,
    ) -> Result<Vec<ResultRow>, StoreError> {
        let mut matching = self.matching_results(which, presence).await?;
        let (name, device) = (matching.parameter(name), matching.parameter(device));
        let text = format!(
            "SELECT {} FROM batch_results b {} AND (b.name > {name} OR (b.name = {name} AND b.device > {device}))
             ORDER BY b.name, b.device LIMIT {limit}",
            columns!(),
            matching.text,
        );
        let query = matching.bind_as(sqlx::query_as(AssertSqlSafe(text)));
        let rows: Vec<Row> = query.fetch_all(self.readers()).await?;
        rows.into_iter().map(read).collect()
    }

    /// How many predictions were asked for.
    pub(crate) async fn count_batch_results(
        &self,
        which: Which<'_>,
        presence: Presence,
    ) -> Result<u64, StoreError> {
        let matching = self.matching_results(which, presence).await?;
        let text = format!("SELECT COUNT(*) FROM batch_results b {}", matching.text);
        let query = matching.bind_scalar(sqlx::query_scalar(AssertSqlSafe(text)));
        let count: i64 = query.fetch_one(self.readers()).await?;
        unsigned("count", count)
    }

    /// The condition on predictions `b` that `which` stands for.
    async fn matching_results(
        &self,
        which: Which<'_>,
        presence: Presence,
    ) -> Result<Matching, StoreError> {
        let mut matching = self.matching(which.among, presence).await?;
        let of = "JOIN devices d ON d.tenant = b.tenant AND d.id = b.device WHERE";
        matching.text = format!("{of} {}", matching.text);
        let device = which.device.map(DeviceId::as_str);
        for (column, value) in [("b.name", which.name), ("b.device", device)] {
            if let Some(value) = value {
                let value = matching.parameter(value);
                // Writing to a `String` cannot fail.
                let _ = write!(matching.text, " AND {column} = {value}");
            }
        }
        Ok(matching)
    }
}

impl Change {
    /// Expects a batch's predictions, unless they are expected or here already; returns whether they are new.
    pub(crate) async fn expect_batch_result(
        &mut self,
        row: &ResultRow,
    ) -> Result<bool, StoreError> {
        let run = to_json("batch", &row.run)?;
        let (device, name) = (row.device.to_string(), row.run.name.clone());
        let team = row.team().to_string();
        let (by, at, delete_at) = (row.asked_by.clone(), row.asked_at.0, row.delete_at.0);
        let added = self
            .run(
                "INSERT INTO batch_results (tenant, device, name, run, team, asked_by, asked_at,
                 delete_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
                |it| {
                    let it = it.bind(device).bind(name).bind(run).bind(team);
                    it.bind(by).bind(at).bind(delete_at)
                },
            )
            .await?;
        Ok(added == 1)
    }

    /// Bytes that a team's other predictions take or are about to, and other uploads of any team that are on their way. Until this change is
    /// over nobody else hears it: no two take the same room.
    pub(crate) async fn batch_room(&mut self, row: &ResultRow) -> Result<(u64, u64), StoreError> {
        self.next_number("batch-uploads").await?;
        // What a device has claimed counts for as long as its upload is under way.
        let (bytes, under_way): (i64, i64) = sqlx::query_as(
            "SELECT CAST(COALESCE(SUM(r.size_bytes), 0) AS BIGINT),
             (SELECT COUNT(*) FROM uploads u WHERE u.tenant = $1 AND u.repository = ''
                 AND u.id <> $5)
             FROM batch_results r WHERE r.tenant = $1 AND r.team = $2
             AND NOT (r.device = $3 AND r.name = $4) AND (r.done_at IS NOT NULL
                 OR EXISTS (SELECT 1 FROM uploads u WHERE u.tenant = $1 AND u.id = r.upload))",
        )
        .bind(self.tenant().to_string())
        .bind(row.team().to_string())
        .bind(row.device.to_string())
        .bind(row.run.name.clone())
        .bind(row.upload.clone().unwrap_or_default())
        .fetch_one(self.connection())
        .await?;
        Ok((unsigned("bytes", bytes)?, unsigned("count", under_way)?))
    }

    /// Begins an upload for a batch's predictions, in place of the one before; false where there are none to come, or they are here.
    pub(crate) async fn begin_batch_upload(
        &mut self,
        row: &ResultRow,
        (upload, whole): (&str, Whole),
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let (device, name) = (row.device.to_string(), row.run.name.clone());
        let (size, digest) = (signed("size", whole.size)?, whole.digest.to_string());
        let (id, before) = (upload.to_owned(), row.upload.clone().unwrap_or_default());
        // Whoever was quicker has begun another.
        let begun = self
            .run(
                "UPDATE batch_results SET upload = $4, size_bytes = $5, digest = $6
                 WHERE tenant = $1 AND device = $2 AND name = $3 AND done_at IS NULL
                 AND COALESCE(upload, '') = $7",
                |it| it.bind(device).bind(name).bind(id).bind(size).bind(digest).bind(before),
            )
            .await?;
        if begun == 0 {
            return Ok(false);
        }
        if let Some(before) = &row.upload {
            self.end_upload(before).await?;
        }
        let by = format!("device:{}", row.device);
        self.add_upload(None, upload, (&by, now)).await?;
        Ok(true)
    }

    /// Says that a batch's predictions are here, under their digest; false where their upload is another by now.
    pub(crate) async fn finish_batch_result(
        &mut self,
        row: &ResultRow,
        (upload, whole): (&str, Whole),
        (now, delete_at): (UnixMillis, UnixMillis),
    ) -> Result<bool, StoreError> {
        let (device, name, id) = (row.device.to_string(), row.run.name.clone(), upload.to_owned());
        let done = self
            .run(
                "UPDATE batch_results SET upload = NULL, done_at = $5, delete_at = $6
                 WHERE tenant = $1 AND device = $2 AND name = $3 AND upload = $4",
                |it| it.bind(device).bind(name).bind(id).bind(now.0).bind(delete_at.0),
            )
            .await?;
        if done == 0 {
            return Ok(false);
        }
        self.fasten(whole.digest.into()).await?;
        self.end_upload(upload).await
    }

    /// Gives up an upload whose bytes were not what the device has said.
    pub(crate) async fn end_batch_upload(
        &mut self,
        device: &DeviceId,
        upload: &str,
    ) -> Result<(), StoreError> {
        let (device, id) = (device.to_string(), upload.to_owned());
        self.run(
            "UPDATE batch_results SET upload = NULL, size_bytes = 0, digest = NULL
             WHERE tenant = $1 AND device = $2 AND upload = $3",
            |it| it.bind(device).bind(id),
        )
        .await?;
        self.end_upload(upload).await?;
        Ok(())
    }

    /// Deletes a batch's predictions, or what has come of them; returns whether there were any, or any to come.
    pub(crate) async fn remove_batch_result(
        &mut self,
        device: &DeviceId,
        name: &str,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let gone: Vec<(Option<String>, Option<String>)> = sqlx::query_as(
            "DELETE FROM batch_results WHERE tenant = $1 AND device = $2 AND name = $3
             RETURNING upload, digest",
        )
        .bind(self.tenant().to_string())
        .bind(device.to_string())
        .bind(name.to_owned())
        .fetch_all(self.connection())
        .await?;
        Ok(self.let_go(gone, now).await? > 0)
    }

    /// Deletes all predictions that a device has brought up; returns of how many batches.
    pub(crate) async fn forget_batch_results(
        &mut self,
        device: &DeviceId,
        now: UnixMillis,
    ) -> Result<u64, StoreError> {
        let gone: Vec<(Option<String>, Option<String>)> = sqlx::query_as(
            "DELETE FROM batch_results WHERE tenant = $1 AND device = $2 RETURNING upload, digest",
        )
        .bind(self.tenant().to_string())
        .bind(device.to_string())
        .fetch_all(self.connection())
        .await?;
        self.let_go(gone, now).await
    }

    /// Deletes predictions past their time, whether they came or not, as many as go in one go; returns how many.
    pub(crate) async fn throw_away_batch_results(
        &mut self,
        now: UnixMillis,
    ) -> Result<u64, StoreError> {
        let gone: Vec<(Option<String>, Option<String>)> = sqlx::query_as(
            "DELETE FROM batch_results WHERE tenant = $1 AND (device, name) IN (
                 SELECT b.device, b.name FROM batch_results b
                 WHERE b.tenant = $1 AND b.delete_at <= $2 ORDER BY b.delete_at LIMIT $3)
             RETURNING upload, digest",
        )
        .bind(self.tenant().to_string())
        .bind(now.0)
        .bind(THROWN_AWAY_MAX)
        .fetch_all(self.connection())
        .await?;
        self.let_go(gone, now).await
    }

    /// Lets go of bytes that rows have named; whoever cleans up takes them away.
    async fn let_go(
        &mut self,
        gone: Vec<(Option<String>, Option<String>)>,
        now: UnixMillis,
    ) -> Result<u64, StoreError> {
        let count = gone.len();
        for (upload, digest) in gone {
            match (upload, digest) {
                (Some(upload), _) => {
                    self.end_upload(&upload).await?;
                }
                (None, Some(digest)) => {
                    let digest: ContentDigest = parsed("digest", &digest)?;
                    self.loosen(digest, now).await?;
                }
                (None, None) => {}
            }
        }
        Ok(u64::try_from(count).unwrap_or(u64::MAX))
    }
}

fn read(row: Row) -> Result<ResultRow, StoreError> {
    let size = unsigned("size", row.size_bytes)?;
    let digest: Option<Digest> = row.digest.map(|digest| parsed("digest", &digest)).transpose()?;
    Ok(ResultRow {
        device: parsed("device", &row.device)?,
        run: from_json("batch", &row.run)?,
        asked_by: row.asked_by,
        asked_at: UnixMillis(row.asked_at),
        upload: row.upload,
        arrived: row.arrived.map(|bytes| unsigned("upload length", bytes)).transpose()?,
        whole: digest.map(|digest| Whole { size, digest }),
        done_at: row.done_at.map(UnixMillis),
        delete_at: UnixMillis(row.delete_at),
    })
}
