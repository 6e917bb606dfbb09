//! What people label next, and what they say.

use sealift_protocol::api::{LabelNew, LabelSource, LabelsTaken};
use sealift_protocol::capture::SampleId;
use sealift_protocol::id::{ModelName, UnixMillis};
use sealift_protocol::limits::LABEL_CHARS_MAX;

use super::choose::{self, Candidate, Place};
use super::{DAY_MS, Review, ReviewError};
use crate::audit::Deed;
use crate::order::Asker;
use crate::store::labels::LabelRow;
use crate::store::samples::SampleRow;

/// Samples of each kind among which is chosen: opening one takes 0.1 ms, and more of them hardly say more.
const CANDIDATES_MAX: u32 = 300;

/// What is to be labelled next.
#[derive(Debug)]
pub(crate) struct Queue {
    /// The most telling first.
    pub(crate) items: Vec<SampleRow>,
    /// How they were chosen.
    pub(crate) method: &'static str,
    /// Labels of a day.
    pub(crate) budget: u64,
    /// Of these, the ones that are left.
    pub(crate) left: u64,
    /// Samples that nobody has labelled.
    pub(crate) waiting: u64,
}

impl Review {
    /// What somebody labels next: no more than is left of the day's labels.
    pub(crate) async fn queue(
        &self,
        (model, labeller): (Option<&ModelName>, &str),
        limit: u32,
        now: UnixMillis,
    ) -> Result<Queue, ReviewError> {
        let day = UnixMillis(now.0.div_euclid(DAY_MS) * DAY_MS);
        let budget = u64::from(self.budget.labels_a_day);
        let left = budget.saturating_sub(self.store.reviewed_since(day).await?);
        let waiting = self.store.unlabelled_samples(model).await?;
        let wanted = usize::try_from(left.min(u64::from(limit))).unwrap_or(0);
        let rows = self.store.open_samples(model, labeller, CANDIDATES_MAX).await?;
        let candidates = self.candidates(&rows).await?;
        let order = choose::choose(&candidates, wanted);
        let row = |id: &SampleId| rows.iter().find(|row| row.id == *id).cloned();
        let items = order.iter().filter_map(row).collect();
        Ok(Queue { items, method: choose::METHOD, budget, left, waiting })
    }

    /// Opens what may be chosen, one after the other, and keeps none of it but where it lies.
    async fn candidates(&self, rows: &[SampleRow]) -> Result<Vec<Candidate>, ReviewError> {
        let keys = self.keys().await?;
        let mut candidates = Vec::new();
        for row in rows {
            // Deleted in between.
            let Some(body) = self.store.sample_body(row.id).await? else { continue };
            let sample = match keys.open(self, (&row.device, row.id), &body) {
                Ok(sample) => sample,
                Err(error) => {
                    let id = row.id;
                    tracing::warn!(%id, %error, "a sample cannot be opened, and is not labelled");
                    continue;
                }
            };
            candidates.push(Candidate {
                id: row.id,
                is_audit: row.audit.is_some(),
                // Without a confidence nobody knows; half is the middle.
                uncertainty: 1.0 - row.confidence.unwrap_or(0.5),
                place: Place::of(&sample),
            });
        }
        Ok(candidates)
    }

    /// Keeps what somebody says of a sample.
    pub(crate) async fn label(
        &self,
        id: SampleId,
        label: &str,
        asker: Asker<'_>,
    ) -> Result<(), ReviewError> {
        let row = self.store.sample(id).await?.ok_or(ReviewError::UnknownSample)?;
        let label = LabelRow {
            inference: row.inference,
            sample: Some(id),
            labeller: asker.name.to_owned(),
            source: LabelSource::Review,
            label: checked(label)?,
            at: asker.now,
        };
        let mut change = self.store.begin().await?;
        change.set_label(&label, asker.now).await?;
        Ok(change.commit().await?)
    }

    /// Takes back what somebody has said of a sample.
    pub(crate) async fn unlabel(&self, id: SampleId, labeller: &str) -> Result<(), ReviewError> {
        let mut change = self.store.begin().await?;
        if !change.remove_label(id, labeller).await? {
            return Err(ReviewError::UnknownSample);
        }
        Ok(change.commit().await?)
    }

    /// Keeps what is said of inferences, sampled or not yet. Said twice, it is said once.
    pub(crate) async fn take_labels(
        &self,
        labels: Vec<LabelNew>,
        asker: Asker<'_>,
    ) -> Result<LabelsTaken, ReviewError> {
        let mut taken = LabelsTaken::default();
        let mut change = self.store.begin().await?;
        let count = labels.len();
        for LabelNew { inference, label, at, source } in labels {
            let row = LabelRow {
                inference,
                sample: None,
                labeller: asker.name.to_owned(),
                source,
                label: checked(&label)?,
                at: at.unwrap_or(asker.now),
            };
            let is_new = change.set_label(&row, asker.now).await?;
            taken.changed += u64::from(is_new);
            taken.known += u64::from(!is_new);
            taken.joined += u64::from(change.is_sampled(&row.inference).await?);
        }
        let detail = format!("{count} labels, {} of them new", taken.changed);
        let deed = Deed {
            actor: asker.name,
            action: "review.labels",
            subject: "inferences",
            reason: None,
            detail: &detail,
        };
        change.audit(&deed, asker.now).await?;
        change.commit().await?;
        Ok(taken)
    }
}

/// A label without the space around it.
fn checked(label: &str) -> Result<String, ReviewError> {
    let label = label.trim();
    let is_good = (1..=LABEL_CHARS_MAX).contains(&label.chars().count());
    if is_good { Ok(label.to_owned()) } else { Err(ReviewError::Label) }
}
