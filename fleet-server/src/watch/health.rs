//! How devices are, by their heartbeats and connections. Looked at once in an interval.

use std::collections::BTreeMap;

use sealift_protocol::id::{DeviceId, UnixMillis};
use sealift_protocol::telemetry::{Beat, Facts};

use super::Watch;
use crate::alert::health::{self, Healthy, Restarts};
use crate::alert::{Finding, rule};
use crate::store::StoreError;
use crate::store::matching::Presence;

/// A device that leaves so often within [`FLAPPING_MS`] has a bad line, or a twin.
pub(crate) const FLAPPING_OFTEN: i64 = 5;
/// The time for that.
pub(crate) const FLAPPING_MS: i64 = 30 * 60_000;

/// What is remembered between two looks; after a restart it begins anew.
#[derive(Debug, Default)]
pub(super) struct Vitals {
    looked_at: Option<UnixMillis>,
    found: Vec<Finding>,
    since: BTreeMap<String, UnixMillis>,
    restarts: BTreeMap<DeviceId, Restarts>,
}

/// What the store knows of a device's health.
pub(crate) struct VitalsRow {
    pub(crate) device: DeviceId,
    pub(crate) at: UnixMillis,
    pub(crate) beat: Beat,
    pub(crate) facts: Option<Facts>,
}

/// What holds of devices' health and of rules of one's own.
pub(super) async fn findings(watch: &Watch, now: UnixMillis) -> Result<Vec<Finding>, StoreError> {
    let interval_ms = i64::try_from(watch.interval.as_millis()).unwrap_or(i64::MAX);
    {
        let vitals = watch.vitals();
        if let Some(looked_at) = vitals.looked_at
            && now.since(looked_at) < interval_ms
        {
            return Ok(vitals.found.clone());
        }
    }
    let presence = watch.patience.presence(now);
    let rows = watch.store.vitals(UnixMillis(presence.offline_before())).await?;
    let newest = watch.store.metadata_head().await?;
    let mut found = look(watch, &rows, newest, now);
    found.extend(flapping(watch, now).await?);
    for finding in &mut found {
        if let Some(device) = finding.labels.get("device").and_then(|id| DeviceId::parse(id).ok()) {
            finding.labels.extend(watch.store.labels_of(&device).await?);
        }
    }
    found.extend(own_rules(watch, presence).await?);
    let mut vitals = watch.vitals();
    vitals.looked_at = Some(now);
    vitals.found.clone_from(&found);
    Ok(found)
}

/// Judges heartbeats, and remembers since when what they show holds.
fn look(watch: &Watch, rows: &[VitalsRow], newest: Option<u64>, now: UnixMillis) -> Vec<Finding> {
    let mut vitals = watch.vitals();
    let before = std::mem::take(&mut vitals.since);
    let restarts = std::mem::take(&mut vitals.restarts);
    let mut found = Vec::new();
    for VitalsRow { device, at, beat, facts } in rows {
        let seen = restarts.get(device).copied();
        let counted = Restarts::count(seen, beat, now);
        vitals.restarts.insert(device.clone(), counted);
        let disk_mb = facts.as_ref().map_or(0, |facts| facts.disk_mb);
        let healthy = Healthy { device, beat, at: *at, disk_mb, restarts: counted, newest };
        for mut finding in health::of_device(&healthy) {
            let since = before.get(&finding.key).copied().unwrap_or(now);
            vitals.since.insert(finding.key.clone(), since);
            finding.since = since;
            found.push(finding);
        }
    }
    found
}

async fn flapping(watch: &Watch, now: UnixMillis) -> Result<Vec<Finding>, StoreError> {
    let devices = watch.store.flapping_devices(now.plus(-FLAPPING_MS), FLAPPING_OFTEN).await?;
    let finding = |(device, count, last): &(DeviceId, u64, UnixMillis)| {
        health::flapping(device, *count, FLAPPING_MS, *last)
    };
    Ok(devices.iter().map(finding).collect())
}

/// Rules of operators' own. Since when one holds is written down, so that a restart does not begin its time anew.
async fn own_rules(watch: &Watch, presence: Presence) -> Result<Vec<Finding>, StoreError> {
    let rules = watch.store.alert_rules().await?;
    if rules.is_empty() {
        return Ok(Vec::new());
    }
    let total = watch.store.count_matching(&"".parse().unwrap_or_default(), presence).await?;
    let mut found = Vec::new();
    for view in rules {
        // What was taken was parsed; a filter of a newer server's is left alone.
        let Ok(filter) = view.rule.filter.parse() else { continue };
        let count = watch.store.count_matching(&filter, presence).await?;
        let since = rule::is_reached(view.rule.at_least, count, total)
            .then(|| view.since.unwrap_or(presence.now));
        if since != view.since {
            let mut change = watch.store.begin().await?;
            change.set_rule_since(view.id, since).await?;
            change.commit().await?;
        }
        found.extend(since.map(|since| rule::found((view.id, &view.rule), (count, total), since)));
    }
    Ok(found)
}
