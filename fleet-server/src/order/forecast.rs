//! What a rollout would do, from the plan that would be made of it; nothing is written.

use std::collections::BTreeMap;

use sealift_protocol::api::{DeviceProgress, RolloutForecast};
use sealift_protocol::id::RolloutId;

use super::{Asker, OrderError, held_from};
use crate::config::Approval;
use crate::reconcile::Reconciler;
use crate::rollout::{Position, Stage};
use crate::store::rollouts::{Order, Revert, RolloutRow, WaveRow};

/// Reasons that are told apart; devices with rarer ones are counted together.
const REASONS_MAX: usize = 50;

/// Says what a rollout of a checked order would do.
pub(crate) async fn forecast(
    reconciler: &Reconciler,
    order: &Order,
    approval: Approval,
    asker: Asker<'_>,
) -> Result<RolloutForecast, OrderError> {
    let newest =
        reconciler.store().rollouts(None, None, 1).await?.first().map_or(0, |row| row.turn);
    let row = imagined(RolloutId(newest + 1), order, asker);
    let rehearsed = reconciler.rehearse(&row, asker.now).await?;
    Ok(RolloutForecast {
        not_told: reasons(rehearsed.plan.devices.values()),
        needs_approval: held_from(approval, order).is_some(),
        ..rehearsed.forecast(order.waves.len())
    })
}

fn imagined(id: RolloutId, order: &Order, asker: Asker<'_>) -> RolloutRow {
    RolloutRow {
        id,
        order: order.clone(),
        stage: Stage::Running,
        waves: order.waves.iter().cloned().map(WaveRow::new).collect(),
        progress: BTreeMap::new(),
        why: String::new(),
        created_at: asker.now,
        finished_at: None,
        campaign: None,
        is_cosigned: false,
        revision: 0,
        held_from: None,
        approved_by: None,
        turn: id.0,
        findings: Vec::new(),
        revert: Revert::default(),
        late: None,
    }
}

fn reasons<'a>(positions: impl Iterator<Item = &'a Position>) -> BTreeMap<String, u64> {
    let mut reasons = BTreeMap::new();
    for position in positions {
        let is_told = position.progress == DeviceProgress::Queued && position.wave.is_some();
        if is_told {
            continue;
        }
        let reason = position.why.to_string();
        let is_known = reasons.contains_key(&reason) || reasons.len() < REASONS_MAX;
        let reason = if is_known { reason } else { "other reasons".to_owned() };
        *reasons.entry(reason).or_default() += 1;
    }
    reasons
}
