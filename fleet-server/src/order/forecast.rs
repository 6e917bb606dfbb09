//! What a rollout would do, from the plan that would be made of it; nothing is written.

use std::collections::BTreeMap;

use sealift_protocol::api::{DeviceProgress, RolloutForecast};
use sealift_protocol::id::RolloutId;

use super::{Asker, OrderError, held_from, overlapping, rollable};
use crate::config::Approval;
use crate::filter::Filter;
use crate::reconcile::Reconciler;
use crate::rollout::{Position, Stage};
use crate::store::matching::Presence;
use crate::store::rollouts::{Order, RolloutRow, WaveRow};

/// Reasons that are told apart; devices with rarer ones are counted together.
const REASONS_MAX: usize = 50;

/// Says what a rollout of a checked order would do.
pub(crate) async fn forecast(
    reconciler: &Reconciler,
    order: &Order,
    approval: Approval,
    presence: Presence,
    asker: Asker<'_>,
) -> Result<RolloutForecast, OrderError> {
    let store = reconciler.store();
    let superseded = overlapping(store, order, presence).await?;
    let newest = store.rollouts(None, None, 1).await?.first().map_or(0, |row| row.id.0);
    let mut row = imagined(RolloutId(newest + 1), order, asker);
    // Everybody's wave is asked for, not who is told in this moment.
    row.order.start_at = None;
    let plan = reconciler.look(&row, asker.now).await?;
    let version = rollable(store, &order.model, &order.version).await?;
    let filter: Filter = order.filter.parse()?;
    let placed = store.placed(&order.model, &filter, presence).await?;
    let is_queued = |position: &&Position| position.progress == DeviceProgress::Queued;
    let has_it = placed.iter().filter(|device| {
        let position = plan.devices.get(&device.device);
        device.on_disk.contains(&order.digest) && position.as_ref().is_some_and(is_queued)
    });
    let without_download = count(has_it.count());
    let queued = count(plan.devices.values().filter(is_queued).count());
    let wave = |number| {
        let in_wave = |position: &&Position| position.wave == Some(number) && is_queued(position);
        count(plan.devices.values().filter(in_wave).count())
    };
    let downloads = queued.saturating_sub(without_download);
    Ok(RolloutForecast {
        devices: count(plan.devices.len()),
        waves: (0..order.waves.len()).map(wave).collect(),
        not_told: reasons(plan.devices.values()),
        without_download,
        download_bytes: downloads.saturating_mul(version.size_bytes),
        needs_approval: held_from(approval, order).is_some(),
        superseded: superseded.iter().map(|row| row.id).collect(),
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

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
