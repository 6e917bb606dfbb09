//! Judges many devices in lots, and keeps of each what differs.

use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::id::DeviceId;
use sealift_protocol::profile::{Baseline, Mismatch, Profile};

use crate::drift::{
    Against, Case, DriftState, Metric, Policy, Scope, Subject, Verdict, Window, judge,
};

/// Devices that are judged together, and corrected for each other; their verdicts take 25 MB until those that say nothing are dropped.
const LOT: usize = 100;
/// Verdicts kept of a device and a comparison: a device whose every column is off says it with these.
const KEPT_MAX: usize = 16;
/// How many times as far from its cohort as the median a device must be: of a bell curve, 3.4 standard deviations.
const OUTLYING: f64 = 5.0;
/// Of the number of other devices, as much of that as can be asked for: with four devices, the three that are well differ from a pool that
/// has the fourth in it by a third of what that one does.
const OF_OTHERS: f64 = 0.75;

/// A device to be judged.
pub(super) struct Lot {
    pub(super) device: DeviceId,
    /// Its newest windows, oldest first.
    pub(super) windows: Vec<Window>,
    /// What it is compared with; the baseline if it is nothing.
    pub(super) reference: Option<Profile>,
    /// What differed in the round before.
    pub(super) previous: Vec<Verdict>,
}

/// What was said of devices.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Of each device the verdicts that are not steady, those first that drift most.
    pub(super) suspected: BTreeMap<DeviceId, Vec<Verdict>>,
    /// Of each device how far it is from what it was compared with, in the order of `names`.
    pub(super) distances: BTreeMap<DeviceId, Vec<f64>>,
    pub(super) names: Vec<Name>,
}

/// By what a distance is measured.
pub(super) type Name = (Subject, Metric);

/// How far devices of a cohort are from the others of it, in the median; of what somebody is suspected of.
#[derive(Debug, Default)]
pub(super) struct Usual {
    medians: BTreeMap<Name, f64>,
    outlying: f64,
}

impl Usual {
    /// Of `names`, those that `asked` has, over the distances of devices.
    pub(super) fn of<'a>(
        names: &[Name],
        asked: &BTreeSet<Name>,
        distances: &(impl Iterator<Item = &'a [f64]> + Clone),
    ) -> Self {
        let places = names.iter().enumerate().filter(|(_, name)| asked.contains(*name));
        let medians = places.map(|(place, name)| {
            let values = distances.clone().filter_map(|of_device| of_device.get(place).copied());
            (name.clone(), median(values.collect()))
        });
        let devices = distances.clone().filter(|of_device| !of_device.is_empty()).count();
        let others = u32::try_from(devices).unwrap_or(u32::MAX).saturating_sub(1);
        let outlying = OUTLYING.min(OF_OTHERS * f64::from(others));
        Self { medians: medians.collect(), outlying }
    }

    /// Whether a verdict says more than what is usual.
    pub(super) fn is_exceeded_by(&self, verdict: &Verdict) -> bool {
        let median = self.medians.get(&(verdict.subject.clone(), verdict.metric));
        let distance = |value: f64| distance(verdict.metric, value);
        median.is_some_and(|median| distance(verdict.value) >= distance(*median) * self.outlying)
    }
}

/// Judges devices.
pub(super) fn judge_lots(
    mut devices: impl Iterator<Item = Result<Lot, Mismatch>>,
    baseline: &Baseline,
    policy: &Policy,
) -> Result<Judged, Mismatch> {
    let mut all = Judged::default();
    loop {
        let lot: Vec<Lot> = devices.by_ref().take(LOT).collect::<Result<_, _>>()?;
        let Some(first) = lot.first().map(|one| Scope::Device(one.device.clone())) else { break };
        let verdicts = judged(&lot, baseline, policy)?;
        let of_first = verdicts.iter().filter(|verdict| verdict.scope == first);
        all.names = of_first.map(|verdict| (verdict.subject.clone(), verdict.metric)).collect();
        for verdict in verdicts {
            let Scope::Device(device) = &verdict.scope else { continue };
            all.distances.entry(device.clone()).or_default().push(verdict.value);
            let suspected = all.suspected.entry(device.clone()).or_default();
            if matches!(verdict.state, DriftState::Suspect | DriftState::Drifted) {
                suspected.push(verdict);
            }
        }
    }
    for suspected in all.suspected.values_mut() {
        suspected.sort_by(|left, right| excess(right).total_cmp(&excess(left)));
        suspected.truncate(KEPT_MAX);
    }
    Ok(all)
}

fn judged(lot: &[Lot], baseline: &Baseline, policy: &Policy) -> Result<Vec<Verdict>, Mismatch> {
    let cases: Vec<_> = lot
        .iter()
        .map(|one| Case {
            scope: Scope::Device(one.device.clone()),
            windows: &one.windows,
            against: one.reference.as_ref().map_or(Against::Baseline, Against::Cohort),
        })
        .collect();
    let previous: Vec<_> = lot.iter().flat_map(|one| one.previous.iter().cloned()).collect();
    judge(baseline, &cases, &previous, policy)
}

/// How far a verdict is beyond its threshold; drift is beyond every suspicion.
fn excess(verdict: &Verdict) -> f64 {
    let excess = verdict.value / verdict.threshold;
    if verdict.state == DriftState::Drifted { excess + 1e9 } else { excess }
}

/// An index of shares grows with the square of how far values have moved; everything else with that itself.
fn distance(metric: Metric, value: f64) -> f64 {
    let is_square = matches!(
        metric,
        Metric::PsiNumeric
            | Metric::PsiCategorical
            | Metric::PsiClasses
            | Metric::PsiConfidence
            | Metric::PsiGroup
    );
    if is_square { value.max(0.0).sqrt() } else { value }
}

/// The upper one of two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
