//! What was rolled out of a model, newest first.

use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::id::{ModelName, RolloutId, Version};

use crate::rollout::Stage;
use crate::store::rollouts::RolloutRow;
use crate::store::scope::Placed;
use crate::store::{StoreError, TenantStore};

/// Rollouts of a model looked at to find the version before.
const HISTORY_MAX: u32 = 1_000;

/// The rollouts of a model.
pub(super) struct History {
    pub(super) rollouts: Vec<RolloutRow>,
    quarantined: BTreeSet<Version>,
    /// When each version was first rolled out.
    first: BTreeMap<Version, RolloutId>,
}

impl History {
    pub(super) async fn read(store: &TenantStore, model: &ModelName) -> Result<Self, StoreError> {
        let rollouts = store.rollouts(Some(model), None, HISTORY_MAX).await?;
        let quarantined = store.quarantined(model).await?.into_iter().collect();
        // Newest first: the oldest is written last and stays.
        let first = rollouts.iter().map(|row| (row.order.version.clone(), row.id)).collect();
        Ok(Self { rollouts, quarantined, first })
    }

    /// Whether `version` came after `target`. Of a version that nobody has rolled out, its name decides.
    pub(super) fn is_newer(&self, version: &Version, target: &Version) -> bool {
        match (self.first.get(version), self.first.get(target)) {
            (Some(first), Some(targets)) => first > targets,
            _ => version > target, // at least one was never rolled out
        }
    }

    /// The version that served before the present one: of the newest rollout that ended well, before the newest rollout that these
    /// devices have followed.
    pub(super) fn previous(&self, placed: &[Placed]) -> Option<Version> {
        let present: BTreeSet<&Version> = placed.iter().flat_map(Placed::versions).collect();
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
