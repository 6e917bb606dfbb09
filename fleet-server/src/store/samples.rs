//! Predictions that devices have kept: on their way in parts, and whole. What went in and came out stays encrypted.

use std::collections::BTreeSet;

use sealift_protocol::capture::{InferenceId, SampleId, Why};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, ModelName, UnixMillis, Version};

use super::captures::joined;
use super::{Change, StoreError, TenantStore, from_json, parsed, signed, to_json, unsigned};

/// Chances are stored in parts of this.
const PARTS: f64 = 1e9;
/// Confidences are.
const MILLIONTHS: f64 = 1e6;

/// A sample without its body.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SampleRow {
    pub(crate) id: SampleId,
    pub(crate) device: DeviceId,
    pub(crate) model: ModelName,
    pub(crate) version: Version,
    pub(crate) digest: Digest,
    pub(crate) inference: InferenceId,
    pub(crate) at: UnixMillis,
    pub(crate) received_at: UnixMillis,
    pub(crate) delete_at: UnixMillis,
    pub(crate) prediction: Option<String>,
    pub(crate) confidence: Option<f64>,
    pub(crate) why: BTreeSet<Why>,
    /// The chance with which it was kept.
    pub(crate) chance: f64,
    /// The chance with which it was drawn to be labelled; none if it was not.
    pub(crate) audit: Option<f64>,
    pub(crate) lost: u32,
}

/// A part of a sample.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) from: u64,
    /// Of the whole sample.
    pub(crate) size: u64,
    pub(crate) body: Vec<u8>,
}

/// Which samples: of a model, taken in `[from, until)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Which<'a> {
    pub(crate) model: Option<&'a ModelName>,
    pub(crate) from: UnixMillis,
    pub(crate) until: UnixMillis,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    device: String,
    model: String,
    version: String,
    digest: String,
    inference: String,
    at: i64,
    received_at: i64,
    delete_at: i64,
    prediction: Option<String>,
    confidence: Option<i64>,
    why: String,
    chance: i64,
    audit: i64,
    lost: i64,
}

macro_rules! columns {
    () => {
        "s.id, s.device, s.model, s.version, s.digest, s.inference, s.at, s.received_at,
         s.delete_at, s.prediction, s.confidence, s.why, s.chance, s.audit, s.lost"
    };
}

/// Samples that a labeller, `$2`, may be shown: nobody has said anything of them, or they are among the eighth of which two people are
/// asked, and one other has.
macro_rules! open {
    () => {
        concat!(
            "NOT EXISTS (SELECT 1 FROM sample_labels l WHERE l.labeller = $2 AND ",
            joined!(),
            ") AND (SELECT COUNT(*) FROM sample_labels l WHERE ",
            joined!(),
            ") < CASE WHEN s.id < '2' THEN 2 ELSE 1 END"
        )
    };
}

impl TenantStore {
    /// How far a device's sample is here: bytes from its beginning; none if all of it is.
    pub(crate) async fn sample_offset(
        &self,
        device: &DeviceId,
        id: SampleId,
    ) -> Result<Option<u64>, StoreError> {
        let whole: Option<i64> = sqlx::query_scalar(
            "SELECT 1 FROM samples WHERE tenant = $1 AND id = $2 AND device = $3",
        )
        .bind(self.id().to_owned())
        .bind(id.to_string())
        .bind(device.to_string())
        .fetch_optional(self.readers())
        .await?;
        if whole.is_some() {
            return Ok(None);
        }
        let until: Option<i64> = sqlx::query_scalar(
            "SELECT MAX(until_byte) FROM sample_parts
             WHERE tenant = $1 AND device = $2 AND sample = $3",
        )
        .bind(self.id().to_owned())
        .bind(device.to_string())
        .bind(id.to_string())
        .fetch_one(self.readers())
        .await?;
        unsigned("offset", until.unwrap_or(0)).map(Some)
    }

    /// One sample.
    pub(crate) async fn sample(&self, id: SampleId) -> Result<Option<SampleRow>, StoreError> {
        let row: Option<Row> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM samples s WHERE s.tenant = $1 AND s.id = $2"
        ))
        .bind(self.id().to_owned())
        .bind(id.to_string())
        .fetch_optional(self.readers())
        .await?;
        row.map(read).transpose()
    }

    /// The encrypted bytes of a sample.
    pub(crate) async fn sample_body(&self, id: SampleId) -> Result<Option<Vec<u8>>, StoreError> {
        let body = sqlx::query_scalar("SELECT body FROM samples WHERE tenant = $1 AND id = $2")
            .bind(self.id().to_owned())
            .bind(id.to_string())
            .fetch_optional(self.readers())
            .await?;
        Ok(body)
    }

    /// Samples in the order of their ids, after one of them.
    pub(crate) async fn samples(
        &self,
        which: Which<'_>,
        after: Option<SampleId>,
        limit: u32,
    ) -> Result<Vec<SampleRow>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM samples s WHERE s.tenant = $1 AND ($2 = '' OR s.model = $2)
             AND s.at >= $3 AND s.at < $4 AND s.id > $5 ORDER BY s.id LIMIT $6"
        ))
        .bind(self.id().to_owned())
        .bind(which.model.map(ToString::to_string).unwrap_or_default())
        .bind(which.from.0)
        .bind(which.until.0)
        .bind(after.map(|id| id.to_string()).unwrap_or_default())
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(read).collect()
    }

    /// Samples that somebody may label: those that chance drew, and those of which the model was least sure.
    pub(crate) async fn open_samples(
        &self,
        model: Option<&ModelName>,
        labeller: &str,
        limit: u32,
    ) -> Result<Vec<SampleRow>, StoreError> {
        let model = model.map(ToString::to_string).unwrap_or_default();
        let mut found = Vec::new();
        for statement in [
            concat!(
                "SELECT ",
                columns!(),
                " FROM samples s WHERE s.tenant = $1
                 AND ($3 = '' OR s.model = $3) AND s.audit > 0 AND ",
                open!(),
                " ORDER BY s.id LIMIT $4"
            ),
            concat!(
                "SELECT ",
                columns!(),
                " FROM samples s WHERE s.tenant = $1
                 AND ($3 = '' OR s.model = $3) AND s.audit = 0 AND ",
                open!(),
                " ORDER BY COALESCE(s.confidence, 0), s.id LIMIT $4"
            ),
        ] {
            let rows: Vec<Row> = sqlx::query_as(statement)
                .bind(self.id().to_owned())
                .bind(labeller.to_owned())
                .bind(model.clone())
                .bind(i64::from(limit))
                .fetch_all(self.readers())
                .await?;
            found.extend(rows);
        }
        found.into_iter().map(read).collect()
    }

    /// Samples that nobody has labelled.
    pub(crate) async fn unlabelled_samples(
        &self,
        model: Option<&ModelName>,
    ) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar(concat!(
            "SELECT COUNT(*) FROM samples s WHERE s.tenant = $1 AND ($2 = '' OR s.model = $2)
             AND NOT EXISTS (SELECT 1 FROM sample_labels l WHERE ",
            joined!(),
            ")"
        ))
        .bind(self.id().to_owned())
        .bind(model.map(ToString::to_string).unwrap_or_default())
        .fetch_one(self.readers())
        .await?;
        unsigned("count", count)
    }

    /// Samples that came since a moment.
    pub(crate) async fn samples_since(&self, since: UnixMillis) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM samples WHERE tenant = $1 AND received_at >= $2",
        )
        .bind(self.id().to_owned())
        .bind(since.0)
        .fetch_one(self.readers())
        .await?;
        unsigned("count", count)
    }
}

impl Change {
    /// Keeps a part of a sample, if it is the one that comes next.
    pub(crate) async fn add_sample_part(
        &mut self,
        device: &DeviceId,
        id: SampleId,
        (part, now): (Part, UnixMillis),
    ) -> Result<(), StoreError> {
        let Part { from, size, body } = part;
        let until = signed("offset", from.saturating_add(body.len() as u64))?;
        let (from, size) = (signed("offset", from)?, signed("size", size)?);
        self.run(
            "INSERT INTO sample_parts (tenant, device, sample, from_byte, until_byte, size_bytes,
             received_at, body) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
            |it| {
                let it = it.bind(device.to_string()).bind(id.to_string()).bind(from).bind(until);
                it.bind(size).bind(now.0).bind(body)
            },
        )
        .await?;
        Ok(())
    }

    /// Bytes of samples that a device has begun to send and not ended.
    pub(crate) async fn unfinished_bytes(&mut self, device: &DeviceId) -> Result<u64, StoreError> {
        let bytes: Option<i64> = sqlx::query_scalar(
            "SELECT CAST(SUM(until_byte - from_byte) AS BIGINT) FROM sample_parts
             WHERE tenant = $1 AND device = $2",
        )
        .bind(self.tenant().to_string())
        .bind(device.to_string())
        .fetch_one(self.connection())
        .await?;
        unsigned("bytes", bytes.unwrap_or(0))
    }

    /// Takes the parts of a sample out, in order.
    pub(crate) async fn take_sample_parts(
        &mut self,
        device: &DeviceId,
        id: SampleId,
    ) -> Result<Vec<u8>, StoreError> {
        let parts: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT body FROM sample_parts WHERE tenant = $1 AND device = $2 AND sample = $3
             ORDER BY from_byte",
        )
        .bind(self.tenant().to_string())
        .bind(device.to_string())
        .bind(id.to_string())
        .fetch_all(self.connection())
        .await?;
        self.run(
            "DELETE FROM sample_parts WHERE tenant = $1 AND device = $2 AND sample = $3",
            |it| it.bind(device.to_string()).bind(id.to_string()),
        )
        .await?;
        Ok(parts.concat())
    }

    /// Keeps a sample; false if it is here already.
    pub(crate) async fn add_sample(
        &mut self,
        row: &SampleRow,
        body: Vec<u8>,
    ) -> Result<bool, StoreError> {
        let why = to_json("reasons", &row.why)?;
        let row = row.clone();
        let added = self
            .run(
                "INSERT INTO samples (tenant, id, device, model, version, digest, inference, at,
                 received_at, delete_at, prediction, confidence, why, chance, audit, lost, body)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
                 ON CONFLICT DO NOTHING",
                |it| {
                    let it = it.bind(row.id.to_string()).bind(row.device.to_string());
                    let it = it.bind(row.model.to_string()).bind(row.version.to_string());
                    let it = it.bind(row.digest.to_string()).bind(row.inference.to_string());
                    let it = it.bind(row.at.0).bind(row.received_at.0).bind(row.delete_at.0);
                    let it = it.bind(row.prediction);
                    let it =
                        it.bind(row.confidence.map(|share| whole(share, MILLIONTHS))).bind(why);
                    let it = it.bind(whole(row.chance, PARTS).max(1));
                    let it = it.bind(row.audit.map_or(0, |chance| whole(chance, PARTS).max(1)));
                    it.bind(i64::from(row.lost)).bind(body)
                },
            )
            .await?;
        Ok(added == 1)
    }

    /// Deletes what a device has kept, and what was said of it; returns how many samples.
    pub(crate) async fn forget_samples(&mut self, device: &DeviceId) -> Result<u64, StoreError> {
        let device = device.to_string();
        let of = device.clone();
        self.run(
            "DELETE FROM sample_labels WHERE tenant = $1 AND inference IN
             (SELECT inference FROM samples WHERE tenant = $1 AND device = $2)
             AND NOT EXISTS (SELECT 1 FROM samples o WHERE o.tenant = sample_labels.tenant
                 AND o.inference = sample_labels.inference AND o.device <> $2
                 AND (sample_labels.sample = '' OR sample_labels.sample = o.id))",
            |it| it.bind(of),
        )
        .await?;
        let of = device.clone();
        self.run("DELETE FROM sample_parts WHERE tenant = $1 AND device = $2", |it| it.bind(of))
            .await?;
        self.run("DELETE FROM samples WHERE tenant = $1 AND device = $2", |it| it.bind(device))
            .await
    }

    /// Deletes samples past their time, with what was said of them; parts that were given up, and labels that wait for no sample any more.
    pub(crate) async fn throw_away_samples(
        &mut self,
        (now, parts_before): (UnixMillis, UnixMillis),
        labels_before: UnixMillis,
    ) -> Result<u64, StoreError> {
        self.run(
            "DELETE FROM sample_labels WHERE tenant = $1 AND sample IN
             (SELECT id FROM samples WHERE tenant = $1 AND delete_at <= $2)",
            |it| it.bind(now.0),
        )
        .await?;
        let gone = self
            .run("DELETE FROM samples WHERE tenant = $1 AND delete_at <= $2", |it| it.bind(now.0))
            .await?;
        self.run("DELETE FROM sample_parts WHERE tenant = $1 AND received_at < $2", |it| {
            it.bind(parts_before.0)
        })
        .await?;
        self.run(
            "DELETE FROM sample_labels WHERE tenant = $1 AND received_at < $2 AND NOT EXISTS
             (SELECT 1 FROM samples s WHERE s.tenant = sample_labels.tenant
              AND s.inference = sample_labels.inference)",
            |it| it.bind(labels_before.0),
        )
        .await?;
        Ok(gone)
    }

    /// Has the oldest samples go, until all take no more than so many bytes; returns how many.
    pub(crate) async fn shrink_samples(&mut self, bytes_max: u64) -> Result<u64, StoreError> {
        let sizes: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT received_at, CAST(SUM(LENGTH(body)) AS BIGINT) FROM samples WHERE tenant = $1
             GROUP BY received_at ORDER BY received_at DESC",
        )
        .bind(self.tenant().to_string())
        .fetch_all(self.connection())
        .await?;
        let mut bytes = 0_u64;
        for (at, size) in sizes {
            bytes = bytes.saturating_add(unsigned("bytes", size)?);
            if bytes > bytes_max {
                return self
                    .run("DELETE FROM samples WHERE tenant = $1 AND received_at <= $2", |it| {
                        it.bind(at)
                    })
                    .await;
            }
        }
        Ok(0)
    }
}

fn read(row: Row) -> Result<SampleRow, StoreError> {
    Ok(SampleRow {
        id: parsed("sample", &row.id)?,
        device: parsed("device", &row.device)?,
        model: parsed("model", &row.model)?,
        version: parsed("version", &row.version)?,
        digest: parsed("digest", &row.digest)?,
        inference: parsed("inference", &row.inference)?,
        at: UnixMillis(row.at),
        received_at: UnixMillis(row.received_at),
        delete_at: UnixMillis(row.delete_at),
        prediction: row.prediction,
        confidence: row.confidence.map(|number| share(number, MILLIONTHS)),
        why: from_json("reasons", &row.why)?,
        chance: share(row.chance, PARTS),
        audit: (row.audit > 0).then(|| share(row.audit, PARTS)),
        lost: u32::try_from(row.lost).map_err(|_| StoreError::TooLarge("lost"))?,
    })
}

/// A share in whole parts.
fn whole(share: f64, parts: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "at most a thousand million")]
    let whole = (share.clamp(0.0, 1.0) * parts).round() as i64;
    whole
}

fn share(whole: i64, parts: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "at most a thousand million")]
    let share = whole as f64 / parts;
    share
}
