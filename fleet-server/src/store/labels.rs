//! What people and systems say that predictions should have been. A label is kept under whoever gave it, so that two can contradict each
//! other, and joined to its sample when it is read, so that it does not matter which of the two came first.

use std::collections::BTreeMap;

use sealift_protocol::api::{LabelSource, LabelView};
use sealift_protocol::capture::{InferenceId, SampleId};
use sealift_protocol::id::{DeviceId, ModelName, UnixMillis, Version};

use super::captures::joined;
use super::samples::Which;
use super::{Change, StoreError, TenantStore, from_word, parsed, unsigned, word};

/// A label that is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LabelRow {
    pub(crate) inference: InferenceId,
    /// The sample that was looked at; none where the inference alone is known.
    pub(crate) sample: Option<SampleId>,
    pub(crate) labeller: String,
    pub(crate) source: LabelSource,
    pub(crate) label: String,
    pub(crate) at: UnixMillis,
}

/// What one labelled or unlabelled sample adds to the figures.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Said {
    pub(crate) sample: SampleId,
    pub(crate) device: DeviceId,
    pub(crate) version: Version,
    pub(crate) at: UnixMillis,
    pub(crate) prediction: Option<String>,
    /// Thousand-millionths.
    pub(crate) chance: i64,
    /// Thousand-millionths; 0 where chance did not draw it.
    pub(crate) audit: i64,
    pub(crate) lost: i64,
    /// Who says what, from where; none of a sample that nobody has labelled.
    pub(crate) word: Option<(String, String, LabelSource)>,
}

#[derive(sqlx::FromRow)]
struct SaidColumns {
    id: String,
    device: String,
    version: String,
    at: i64,
    prediction: Option<String>,
    chance: i64,
    audit: i64,
    lost: i64,
    labeller: Option<String>,
    label: Option<String>,
    source: Option<String>,
}

impl TenantStore {
    /// What is said of a sample.
    pub(crate) async fn said_of(&self, id: SampleId) -> Result<Vec<LabelView>, StoreError> {
        let rows: Vec<(String, String, String, i64)> = sqlx::query_as(concat!(
            "SELECT l.labeller, l.label, l.source, l.at FROM samples s JOIN sample_labels l ON ",
            joined!(),
            " WHERE s.tenant = $1 AND s.id = $2 ORDER BY l.source, l.labeller"
        ))
        .bind(self.id().to_owned())
        .bind(id.to_string())
        .fetch_all(self.readers())
        .await?;
        let label = |(labeller, label, source, at): (String, String, String, i64)| {
            let source = from_word("source of a label", &source)?;
            Ok(LabelView { labeller, label, source, at: UnixMillis(at) })
        };
        rows.into_iter().map(label).collect()
    }

    /// Every sample of a model in a span, once for each label that it has; no more than `limit` rows.
    pub(crate) async fn said(&self, which: Which<'_>, limit: u32) -> Result<Vec<Said>, StoreError> {
        let rows: Vec<SaidColumns> = sqlx::query_as(concat!(
            "SELECT s.id, s.device, s.version, s.at, s.prediction, s.chance, s.audit, s.lost,
             l.labeller, l.label, l.source FROM samples s LEFT JOIN sample_labels l ON ",
            joined!(),
            " WHERE s.tenant = $1 AND ($2 = '' OR s.model = $2) AND s.at >= $3 AND s.at < $4
             ORDER BY s.id, l.labeller LIMIT $5"
        ))
        .bind(self.id().to_owned())
        .bind(which.model.map(ToString::to_string).unwrap_or_default())
        .bind(which.from.0)
        .bind(which.until.0)
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(said).collect()
    }

    /// Devices by the value of one of their labels.
    pub(crate) async fn devices_by_label(
        &self,
        name: &str,
    ) -> Result<BTreeMap<DeviceId, String>, StoreError> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT device, value FROM labels WHERE tenant = $1 AND name = $2")
                .bind(self.id().to_owned())
                .bind(name.to_owned())
                .fetch_all(self.readers())
                .await?;
        rows.into_iter().map(|(device, value)| Ok((parsed("device", &device)?, value))).collect()
    }

    /// Labels that people have given in review since a moment.
    pub(crate) async fn reviewed_since(&self, since: UnixMillis) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM sample_labels WHERE tenant = $1 AND source = 'review'
             AND received_at >= $2",
        )
        .bind(self.id().to_owned())
        .bind(since.0)
        .fetch_one(self.readers())
        .await?;
        unsigned("count", count)
    }

    /// Samples of a model that were labelled since a moment.
    pub(crate) async fn labelled_since(
        &self,
        model: &ModelName,
        since: UnixMillis,
    ) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar(concat!(
            "SELECT COUNT(*) FROM samples s WHERE s.tenant = $1 AND s.model = $2 AND EXISTS
             (SELECT 1 FROM sample_labels l WHERE l.received_at > $3 AND ",
            joined!(),
            ")"
        ))
        .bind(self.id().to_owned())
        .bind(model.to_string())
        .bind(since.0)
        .fetch_one(self.readers())
        .await?;
        unsigned("count", count)
    }
}

impl Change {
    /// Keeps a label in the place of what the same one has said of the same before, unless that is newer; false where nothing changes.
    pub(crate) async fn set_label(
        &mut self,
        row: &LabelRow,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let source = word("source of a label", &row.source)?;
        let sample = row.sample.map(|id| id.to_string()).unwrap_or_default();
        let row = row.clone();
        let changed = self
            .run(
                "INSERT INTO sample_labels (tenant, inference, sample, labeller, source, label, at,
                 received_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                 ON CONFLICT (tenant, inference, sample, labeller, source) DO UPDATE
                 SET label = excluded.label, at = excluded.at, received_at = excluded.received_at
                 WHERE sample_labels.label <> excluded.label AND sample_labels.at <= excluded.at",
                |it| {
                    let it = it.bind(row.inference.to_string()).bind(sample).bind(row.labeller);
                    it.bind(source).bind(row.label).bind(row.at.0).bind(now.0)
                },
            )
            .await?;
        Ok(changed == 1)
    }

    /// Takes back what somebody has said of a sample; false if they have said nothing.
    pub(crate) async fn remove_label(
        &mut self,
        id: SampleId,
        labeller: &str,
    ) -> Result<bool, StoreError> {
        let labeller = labeller.to_owned();
        let removed = self
            .run(
                "DELETE FROM sample_labels WHERE tenant = $1 AND sample = $2 AND labeller = $3
                 AND source = 'review'",
                |it| it.bind(id.to_string()).bind(labeller),
            )
            .await?;
        Ok(removed > 0)
    }

    /// Whether exactly one sample has an inference's name.
    pub(crate) async fn is_sampled(&mut self, inference: &InferenceId) -> Result<bool, StoreError> {
        let count: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM samples WHERE tenant = $1 AND inference = $2")
                .bind(self.tenant().to_string())
                .bind(inference.to_string())
                .fetch_one(self.connection())
                .await?;
        Ok(count == 1)
    }
}

fn said(row: SaidColumns) -> Result<Said, StoreError> {
    let word = match (row.labeller, row.label, row.source) {
        (Some(labeller), Some(label), Some(source)) => {
            Some((labeller, label, from_word("source of a label", &source)?))
        }
        _ => None, // the three stand and fall together
    };
    Ok(Said {
        sample: parsed("sample", &row.id)?,
        device: parsed("device", &row.device)?,
        version: parsed("version", &row.version)?,
        at: UnixMillis(row.at),
        prediction: row.prediction,
        chance: row.chance,
        audit: row.audit,
        lost: row.lost,
        word,
    })
}
