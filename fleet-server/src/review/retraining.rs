//! Says that a model is to be trained anew, when its labels say so or somebody does: the message that closes the circle.

use std::collections::BTreeMap;

use sealift_protocol::api::{AccuracyView, AlertState, AlertView, RetrainingRequested};
use sealift_protocol::id::{AlertId, ModelName, UnixMillis, Version};

use super::figures::{By, Question};
use super::{Review, ReviewError};
use crate::alert::deliver::Verb;
use crate::audit::Deed;
use crate::order::Asker;
use crate::store::StoreError;
use crate::store::captures::PolicyRow;
use crate::store::samples::Which;

/// Labels below which no accuracy is a reason to train: the interval is wide, and chance plays with it.
const LABELS_MIN: u64 = 30;

/// Why a model is to be trained anew.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reason {
    /// Its measured accuracy is too low for sure.
    Accuracy(AccuracyView),
    /// So many samples were labelled.
    Labels(u64),
    /// Somebody says so.
    Asked(String),
}

impl Reason {
    const fn version(&self) -> Option<&Version> {
        match self {
            Self::Accuracy(view) => Some(&view.group.version),
            Self::Labels(_) | Self::Asked(_) => None,
        }
    }

    fn in_words(&self) -> String {
        match self {
            Self::Accuracy(view) => format!(
                "version {} was right in {:.1} % of what it saw, {:.1} to {:.1} % with 95 % \
                 confidence, by {} labels",
                view.group.version,
                view.accuracy * 100.0,
                view.low * 100.0,
                view.high * 100.0,
                view.labels
            ),
            Self::Labels(count) => format!("{count} samples were labelled since the last time"),
            Self::Asked(reason) => reason.clone(),
        }
    }
}

impl Review {
    /// Looks whether the labels of some model say that it is to be trained anew.
    pub(super) async fn look_for_retraining(&self, now: UnixMillis) -> Result<(), ReviewError> {
        for row in self.store.capture_policies().await?.iter().filter(|row| row.is_on) {
            let Some(reason) = self.reason(row, now).await? else { continue };
            let asker = Asker { name: "server", now };
            match self.request_retraining(&row.model, &reason, asker).await {
                // Another server was quicker.
                Ok(_) | Err(ReviewError::Store(StoreError::Changed(_))) => (),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn reason(
        &self,
        row: &PolicyRow,
        now: UnixMillis,
    ) -> Result<Option<Reason>, ReviewError> {
        let Some(rule) = row.rules.retrain else { return Ok(None) };
        if let Some(limit) = rule.accuracy_below {
            let which = Which { model: Some(&row.model), from: UnixMillis(0), until: now.plus(1) };
            let question = Question { which, version: None, by: By::Version };
            let report = self.accuracy(&question).await?;
            if let Some(view) = newest_below(report.items, limit)
                && !has_asked_for(row, &view.group.version)
            {
                return Ok(Some(Reason::Accuracy(view)));
            }
        }
        let Some(wanted) = rule.labels else { return Ok(None) };
        let since = row.retraining.as_ref().map_or(UnixMillis(0), |(at, _)| *at);
        let labelled = self.store.labelled_since(&row.model, since).await?;
        Ok((wanted > 0 && labelled >= u64::from(wanted)).then_some(Reason::Labels(labelled)))
    }

    /// Tells every channel that takes warnings; once for each time that it is noted.
    pub(crate) async fn request_retraining(
        &self,
        model: &ModelName,
        reason: &Reason,
        asker: Asker<'_>,
    ) -> Result<RetrainingRequested, ReviewError> {
        let policies = self.store.capture_policies().await?;
        let row = policies.into_iter().find(|row| row.model == *model);
        let row = row.ok_or_else(|| ReviewError::Off(model.clone()))?;
        let before = row.retraining.as_ref().map(|(at, _)| *at);
        let version = reason.version().or(row.retraining.as_ref().and_then(|(_, it)| it.as_ref()));
        let mut change = self.store.begin().await?;
        if !change.note_retraining(model, (before, asker.now), version).await? {
            return Err(StoreError::Changed("request for training").into());
        }
        let id =
            format!("{}.retraining.{}", self.store.id(), change.next_number("retraining").await?);
        let view = view(model, reason, asker);
        let message = (None, &view, Verb::Retraining);
        let channels = change.enqueue_as(&id, message, asker.now).await?;
        let (subject, words) = (model.to_string(), reason.in_words());
        let deed = Deed {
            actor: asker.name,
            action: "review.retraining",
            subject: &subject,
            reason: Some(&words),
            detail: &format!("{channels} channels were told"),
        };
        change.audit(&deed, asker.now).await?;
        change.commit().await?;
        tracing::info!(%model, reason = words, channels, "training was asked for");
        Ok(RetrainingRequested { id, channels })
    }
}

/// The newest version that has labels enough, if it is below a limit for sure.
fn newest_below(items: Vec<AccuracyView>, limit: f64) -> Option<AccuracyView> {
    let mut known = items.into_iter().filter(|view| view.labels >= LABELS_MIN);
    let newest = known.by_ref().max_by(|one, other| one.group.version.cmp(&other.group.version))?;
    (newest.high < limit).then_some(newest)
}

/// A version is asked about once: what follows it is judged anew.
fn has_asked_for(row: &PolicyRow, version: &Version) -> bool {
    row.retraining.as_ref().is_some_and(|(_, asked)| asked.as_ref() == Some(version))
}

fn view(model: &ModelName, reason: &Reason, asker: Asker<'_>) -> AlertView {
    let mut labels = BTreeMap::from([("model".to_owned(), model.to_string())]);
    if let Some(version) = reason.version() {
        labels.insert("version".to_owned(), version.to_string());
    }
    AlertView {
        id: AlertId(0),
        state: AlertState::Open,
        severity: "warning".to_owned(),
        kind: "retraining.requested".to_owned(),
        title: format!("{model} is to be trained anew"),
        detail: reason.in_words(),
        help: format!("`fleetctl review export {model}` has the labelled samples"),
        labels,
        opened_at: asker.now,
        seen_at: asker.now,
        closed_at: None,
        acknowledged_by: None,
        note: None,
        silenced_until: None,
    }
}
