//! What happens once, when a rollout begins: it is looked over, and takes the devices of earlier ones.

use sealift_protocol::api::RolloutForecast;
use sealift_protocol::id::{ModelName, RolloutId, UnixMillis};

use super::{ReconcileError, Reconciler};
use crate::audit::Deed;
use crate::filter::Filter;
use crate::rollout::{Stage, preflight};
use crate::store::matching::Presence;
use crate::store::rollouts::{RolloutRow, stage_words};
use crate::store::{Change, StoreError, TenantStore, word};

/// Rollbacks that are remembered of one rollout: people go back from it in parts, a few at a time.
const REVERTED_BY_MAX: usize = 100;

impl Reconciler {
    /// A rollout that was started is looked over before anything else: then it goes on, or is a draft again. Returns also what is
    /// foreseen of it.
    pub(super) async fn looked_over(
        &self,
        row: &RolloutRow,
        now: UnixMillis,
    ) -> Result<(RolloutRow, Option<RolloutForecast>), ReconcileError> {
        let mut looked = row.clone();
        if row.stage != Stage::Preflight {
            return Ok((looked, None));
        }
        let rehearsed = self.rehearse(row, now).await?;
        looked.stage = Stage::Running;
        if let Some(finding) = preflight::stopped_by(&rehearsed.findings) {
            looked.stage = Stage::Draft;
            looked.why = format!("not begun: {}", finding.text);
        }
        looked.findings.clone_from(&rehearsed.findings);
        Ok((looked, Some(rehearsed.forecast(row.waves.len()))))
    }

    /// Live rollouts that were started earlier and share a device with one that begins now.
    pub(super) async fn taken_over(
        &self,
        row: &RolloutRow,
        now: UnixMillis,
    ) -> Result<Vec<RolloutRow>, ReconcileError> {
        let (filter, presence) = (filter_of(row)?, self.patience.presence(now));
        let mut rows = overlapping(&self.store, &row.order.model, &filter, presence).await?;
        rows.retain(|other| other.turn < row.turn);
        Ok(rows)
    }
}

/// Live rollouts of a model that share a device with a filter.
pub(crate) async fn overlapping(
    store: &TenantStore,
    model: &ModelName,
    filter: &Filter,
    presence: Presence,
) -> Result<Vec<RolloutRow>, ReconcileError> {
    let mut found = Vec::new();
    for row in store.live_rollouts().await? {
        // What is taken back tells nobody: nobody takes its place.
        if row.order.model != *model || row.stage == Stage::Reverting {
            continue;
        }
        let theirs = filter_of(&row)?;
        if store.count_devices(&filter.and(&theirs), presence).await? > 0 {
            found.push(row);
        }
    }
    Ok(found)
}

/// Ends rollouts whose devices another one takes.
pub(crate) async fn supersede(
    change: &mut Change,
    superseded: &[RolloutRow],
    (by, actor): (RolloutId, &str),
    now: UnixMillis,
) -> Result<(), StoreError> {
    for row in superseded {
        let mut row = row.clone();
        row.stage = Stage::Superseded;
        row.why = format!("rollout {by} took its devices");
        change.save_rollout(&row, now).await?;
        let (action, subject) = ("rollout.superseded", row.id.to_string());
        let (subject, detail) = (subject.as_str(), row.why.as_str());
        change.audit(&Deed { actor, action, subject, reason: None, detail }, now).await?;
    }
    Ok(())
}

/// Notes that rollbacks take devices from a rollout: all of them, or some, and others keep what it brought.
pub(crate) async fn take_back(
    change: &mut Change,
    row: &RolloutRow,
    (by, is_reverting): (&[RolloutId], bool),
    (actor, reason): (&str, &str),
    now: UnixMillis,
) -> Result<(), StoreError> {
    let mut row = row.clone();
    let rollbacks: Vec<_> = by.iter().map(ToString::to_string).collect();
    let rollbacks = rollbacks.join(", ");
    let (was, _) = stage_words(row.stage);
    let was = word("state", &was)?;
    row.revert.by.extend(by);
    let beyond = row.revert.by.len().saturating_sub(REVERTED_BY_MAX);
    row.revert.by.drain(..beyond);
    let (action, detail) = if is_reverting {
        row.stage = Stage::Reverting;
        row.why = format!("taken back by {rollbacks}: {reason}");
        ("rollout.reverting", format!("by {rollbacks}; it was {was}"))
    } else {
        ("rollout.reverted-in-part", format!("by {rollbacks}; others keep it"))
    };
    change.save_rollout(&row, now).await?;
    let subject = row.id.to_string();
    let reason = Some(reason);
    change.audit(&Deed { actor, action, subject: &subject, reason, detail: &detail }, now).await
}

/// Whether a rollout takes devices from others from now on.
pub(super) const fn begins(before: Stage, after: Stage) -> bool {
    use Stage as S;
    let waited = matches!(before, S::Preflight | S::AwaitingApproval | S::Scheduled);
    waited && matches!(after, S::Running | S::Completing { .. } | S::Halted | S::Succeeded)
}

pub(super) fn filter_of(row: &RolloutRow) -> Result<Filter, ReconcileError> {
    let parsed = row.order.filter.parse();
    parsed.map_err(|source| ReconcileError::Filter { rollout: row.id, source })
}
