//! Going back: a rollout to an earlier version, and the newer ones put into quarantine. Nothing else.

use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::api::{
    ModelGates, RollbackRequest, RollbackResult, RollbackTarget, WavePlan,
};
use sealift_protocol::directive::Trial;
use sealift_protocol::id::{ModelName, RolloutId, Version};

use crate::filter::Filter;
use crate::order::{self, Asker, OrderError, again_if_changed};
use crate::reconcile::begin;
use crate::rollout::Stage;
use crate::store::matching::Presence;
use crate::store::rollouts::{Order, Policy, RolloutRow};
use crate::store::scope::Placed;
use crate::store::{StoreError, TenantStore};

/// Rollouts of a model looked at to find the version before.
const HISTORY_MAX: u32 = 1_000;

/// Goes back, or says what going back would do.
pub(crate) async fn roll_back(
    store: &TenantStore,
    request: &RollbackRequest,
    presence: Presence,
    asker: Asker<'_>,
) -> Result<RollbackResult, OrderError> {
    order::required_reason(&request.reason)?;
    again_if_changed(|| try_roll_back(store, request, presence, asker)).await
}

async fn try_roll_back(
    store: &TenantStore,
    request: &RollbackRequest,
    presence: Presence,
    asker: Asker<'_>,
) -> Result<RollbackResult, OrderError> {
    let model = &request.model;
    let filter: Filter = request.filter.parse()?;
    let placed = store.placed(model, &filter, presence).await?;
    let history = History::read(store, model).await?;
    let version = match &request.to {
        RollbackTarget::Version(version) => version.clone(),
        RollbackTarget::Previous => {
            let previous = history.previous(&placed);
            previous.ok_or_else(|| OrderError::NoEarlier(model.clone()))?
        }
    };
    let target = order::rollable(store, model, &version).await?;
    let newer: BTreeSet<_> =
        present(&placed).into_iter().filter(|it| history.is_newer(it, &version)).collect();
    let moved = |device: &&Placed| device.versions().any(|it| newer.contains(it));
    let devices: Vec<_> = placed.iter().filter(moved).collect();
    if devices.is_empty() {
        return Err(OrderError::NothingToGoBackFrom { model: model.clone(), version });
    }
    let has_it = |device: &&&Placed| device.on_disk.contains(&target.digest);
    let order = Order {
        model: model.clone(),
        version: version.clone(),
        digest: target.digest,
        epoch: target.epoch,
        filter: request.filter.clone(),
        // It goes on whatever happens on single devices: stopping would leave the others on the bad version.
        waves: vec![WavePlan {
            max_bad_share: Some(1.0),
            gates: ModelGates::off(),
            ..order::everybody()
        }],
        // Nor is going back undone where the server is not heard for a while, and it does not wait for the night.
        trial: Trial { lease_s: 0, window: None, ..order::trial_of(&history.rollouts, &version) },
        is_rollback: true,
        start_at: None,
        policy: Policy::default(),
        reason: request.reason.clone(),
        created_by: asker.name.to_owned(),
    };
    let superseded = superseded(store, &order, &newer, presence).await?;
    let mut result = RollbackResult {
        rollout: None,
        version,
        quarantined: newer.into_iter().collect(),
        devices: count(devices.len()),
        without_download: count(devices.iter().filter(has_it).count()),
        superseded: superseded.iter().map(|row| row.id).collect(),
    };
    if !request.dry_run {
        result.rollout = Some(write(store, &order, &result.quarantined, &superseded, asker).await?);
    }
    Ok(result)
}

async fn write(
    store: &TenantStore,
    order: &Order,
    quarantined: &[Version],
    superseded: &[RolloutRow],
    asker: Asker<'_>,
) -> Result<RolloutId, StoreError> {
    let mut change = store.begin().await?;
    for version in quarantined {
        let by = (asker.name, asker.now);
        change.quarantine(&order.model, version, &order.reason, by).await?;
    }
    change.clear_penalties(order.digest).await?;
    let id = order::write(&mut change, order, Stage::Running, asker).await?;
    begin::supersede(&mut change, superseded, (id, asker.name), asker.now).await?;
    change.commit().await?;
    Ok(id)
}

/// Rollouts that share devices with the way back, and those that still bring a version that is now in quarantine.
async fn superseded(
    store: &TenantStore,
    order: &Order,
    newer: &BTreeSet<Version>,
    presence: Presence,
) -> Result<Vec<RolloutRow>, OrderError> {
    let mut rows = order::overlapping(store, order, presence).await?;
    for row in store.live_rollouts().await? {
        let brings_bad = row.order.model == order.model && newer.contains(&row.order.version);
        if brings_bad && rows.iter().all(|known| known.id != row.id) {
            rows.push(row);
        }
    }
    rows.sort_by_key(|row| row.id);
    Ok(rows)
}

/// The versions that devices run or should run.
fn present(placed: &[Placed]) -> BTreeSet<Version> {
    placed.iter().flat_map(Placed::versions).cloned().collect()
}

/// What was rolled out of a model, newest first.
struct History {
    rollouts: Vec<RolloutRow>,
    quarantined: BTreeSet<Version>,
    /// When each version was first rolled out.
    first: BTreeMap<Version, RolloutId>,
}

impl History {
    async fn read(store: &TenantStore, model: &ModelName) -> Result<Self, StoreError> {
        let rollouts = store.rollouts(Some(model), None, HISTORY_MAX).await?;
        let quarantined = store.quarantined(model).await?.into_iter().collect();
        // Newest first: the oldest is written last and stays.
        let first = rollouts.iter().map(|row| (row.order.version.clone(), row.id)).collect();
        Ok(Self { rollouts, quarantined, first })
    }

    /// Whether `version` came after `target`. Of a version that nobody has rolled out, its name decides.
    fn is_newer(&self, version: &Version, target: &Version) -> bool {
        match (self.first.get(version), self.first.get(target)) {
            (Some(first), Some(targets)) => first > targets,
            _ => version > target, // at least one was never rolled out
        }
    }

    /// The version that served before the present one: of the newest rollout that ended well, before the newest rollout that these
    /// devices have followed.
    fn previous(&self, placed: &[Placed]) -> Option<Version> {
        let present = present(placed);
        let newest = self.rollouts.iter().find(|row| present.contains(&row.order.version))?;
        let came_before = |row: &&RolloutRow| {
            row.id < newest.id
                && row.order.version != newest.order.version
                && !self.quarantined.contains(&row.order.version)
                && self.is_newer(&newest.order.version, &row.order.version)
        };
        let has_served = |row: &&RolloutRow| {
            let version = &row.order.version;
            let has_ended_well = matches!(row.stage, Stage::Succeeded | Stage::Completing { .. });
            has_ended_well || placed.iter().any(|device| device.has_kept(version))
        };
        let earlier = self.rollouts.iter().filter(came_before).find(has_served)?;
        Some(earlier.order.version.clone())
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
