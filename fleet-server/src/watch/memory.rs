//! What is known of the images that are served: what was seen of each, and what is to be thought of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sealift_protocol::api::{
    DeviceComparison, DeviceDriftView, DriftPoint, DriftState, DriftView, HistogramView,
};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, ModelName, UnixMillis, Version};
use sealift_protocol::profile::{Baseline, InvalidProfile, Mismatch, Profile};

use super::histogram::histogram;
use super::seen::Seen;
use crate::alert::{self, Breadth, Finding};
use crate::drift::{Against, Case, Policy, Scope, Subject, Verdict, Window, judge};
use crate::sensors::{ComparedWith, DEVICES_MAX, DeviceNature, Sensors, Standing};
use crate::store::profiles::StoredWindow;

/// Scopes of one image; 64 windows of 64 features take about 1 MiB in each.
const SCOPES_MAX: usize = 256;

/// A device sends a window at least so often if it sends any.
const YOUNG_MS: i64 = 3_600 * 1_000;

/// An image by name and digest.
pub(super) type Image = (ModelName, Digest);

/// The images that devices serve, with the scopes of those devices.
pub(super) type Served = BTreeMap<Image, (Version, BTreeSet<Scope>)>;

/// Why a window was left out.
#[derive(Debug, thiserror::Error)]
pub(super) enum Misfit {
    #[error(transparent)]
    Profile(#[from] InvalidProfile),
    #[error(transparent)]
    Baseline(#[from] Mismatch),
    #[error("the image has {SCOPES_MAX} scopes already")]
    Scopes,
}

/// Everything that is derived from windows.
pub(super) struct Memory {
    policy: Policy,
    round_ms: i64,
    round: i64,
    cursor: Option<u64>,
    begun: Option<UnixMillis>,
    /// How often data of a device had been deleted when the first window was taken.
    forgotten: u64,
    images: BTreeMap<Image, Watched>,
}

/// An image that is served.
struct Watched {
    version: Version,
    /// None: nothing can be judged.
    baseline: Option<Arc<Baseline>>,
    scopes: BTreeMap<Scope, Seen>,
    verdicts: Vec<Verdict>,
    sensors: Sensors,
}

impl Memory {
    /// A memory of nothing. What comes within `round_ms` is judged together.
    pub(super) const fn new(policy: Policy, round_ms: i64) -> Self {
        Self {
            policy,
            round_ms,
            round: 0,
            cursor: None,
            begun: None,
            forgotten: 0,
            images: BTreeMap::new(),
        }
    }

    /// The last window that was taken; none before the first turn.
    pub(super) const fn cursor(&self) -> Option<u64> {
        self.cursor
    }

    /// Everything up to this window was taken, or is left out.
    pub(super) const fn set_cursor(&mut self, number: u64) {
        self.cursor = Some(number);
    }

    /// Forgets images that nobody serves any more, and scopes in which nobody does, with their verdicts.
    pub(super) fn keep_only(&mut self, served: &Served) {
        self.images.retain(|image, watched| {
            let Some((_, scopes)) = served.get(image) else { return false };
            watched.scopes.retain(|scope, _| scopes.contains(scope));
            watched.verdicts.retain(|verdict| scopes.contains(&verdict.scope));
            true
        });
    }

    /// Begins anew where data of a device was deleted since: it is in what was merged.
    pub(super) fn forget_unless(&mut self, forgotten: u64) {
        if self.forgotten != forgotten {
            (self.forgotten, self.cursor) = (forgotten, None);
            self.images.clear();
        }
    }

    /// Whether windows of an image can be taken.
    pub(super) fn knows(&self, image: &Image) -> bool {
        self.images.contains_key(image)
    }

    /// Begins to watch an image.
    pub(super) fn learn(
        &mut self,
        image: Image,
        version: &Version,
        baseline: Option<Arc<Baseline>>,
    ) {
        let (version, scopes) = (version.clone(), BTreeMap::new());
        let (verdicts, sensors) = (Vec::new(), Sensors::default());
        let watched = Watched { version, baseline, scopes, verdicts, sensors };
        self.images.insert(image, watched);
    }

    /// Takes one device's window into its scopes.
    pub(super) fn take(&mut self, stored: &StoredWindow, scopes: &[Scope]) -> Result<(), Misfit> {
        let window = &stored.window;
        let image = (window.model.clone(), window.image.index);
        let Some(watched) = self.images.get_mut(&image) else { return Ok(()) };
        let Some(baseline) = &watched.baseline else { return Ok(()) };
        let profile = Profile::decode(&window.profile)?;
        profile.check(baseline)?;
        // Ends by the server's clock: one device's wrong clock must not make everybody's later windows look old.
        let until = stored.received_at;
        let taken = Window { from: window.from.min(until), until, profile };
        for scope in scopes {
            if !watched.scopes.contains_key(scope) && watched.scopes.len() == SCOPES_MAX {
                return Err(Misfit::Scopes);
            }
            watched.scopes.entry(scope.clone()).or_default().take(&stored.device, taken.clone())?;
        }
        // Of several labels the first that is configured says whom a device is like.
        let cohort = scopes.iter().find(|scope| matches!(scope, Scope::Cohort { .. }));
        let cohort = cohort.unwrap_or(&Scope::Fleet);
        if watched.sensors.take(&stored.device, cohort, &taken)? {
            let (model, devices_max) = (&window.model, DEVICES_MAX);
            tracing::warn!(%model, devices_max, "some devices are not compared with others");
        }
        Ok(())
    }

    /// Ends the round that is over at a moment, and judges what has come together in it.
    pub(super) fn advance(&mut self, now: UnixMillis) -> Result<(), Mismatch> {
        let round = now.0.div_euclid(self.round_ms);
        if round <= self.round {
            return Ok(());
        }
        self.round = round;
        for watched in self.images.values_mut() {
            watched.end_round(&self.policy)?;
            if let Some(baseline) = &watched.baseline {
                watched.sensors.end_round(baseline, &self.policy, (now, self.round_ms))?;
            }
        }
        Ok(())
    }

    /// What the verdicts say that people may have to know.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let findings = self.images.iter().flat_map(|((model, _), watched)| {
            let standings: Vec<_> = watched.sensors.standings().collect();
            let of_scopes = alert::drift(model, &watched.version, &watched.verdicts).into_iter();
            let of_scopes = of_scopes.map(|finding| with_breadth(finding, &standings));
            // Where the only device of a cohort has changed, the cohort's own alert says so.
            let is_told = |standing: &&Standing<'_>| {
                standing.nature == DeviceNature::Changed && watched.has_drifted(standing.cohort)
            };
            let of_devices = standings
                .iter()
                .filter(|standing| !is_told(standing))
                .filter_map(|standing| alert::device_drift(model, &watched.version, standing));
            of_scopes.chain(of_devices).collect::<Vec<_>>()
        });
        findings.collect()
    }

    /// The devices that were judged by themselves, and whether each differs from anything in any model.
    pub(super) fn judged_devices(&self) -> BTreeMap<DeviceId, bool> {
        let mut judged = BTreeMap::new();
        for standing in self.images.values().flat_map(|watched| watched.sensors.standings()) {
            *judged.entry(standing.device.clone()).or_insert(false) |= standing.is_off();
        }
        judged
    }

    /// Whether so little time has passed since the first round that devices may not have been judged yet.
    pub(super) fn is_young(&self, now: UnixMillis) -> bool {
        self.begun.is_none_or(|begun| now.since(begun) < YOUNG_MS)
    }

    /// Notes when the first turn was.
    pub(super) fn begin(&mut self, now: UnixMillis) {
        self.begun.get_or_insert(now);
    }

    /// Whether a device was judged by itself.
    pub(super) fn has_judged_device(&self, device: &DeviceId) -> bool {
        self.images.values().any(|watched| watched.sensors.has_judged(device))
    }

    /// Where devices stand, in the order of models and devices.
    pub(super) fn device_views(&self) -> Vec<DeviceDriftView> {
        let views = self.images.iter().flat_map(|((model, _), watched)| {
            let standings = watched.sensors.standings();
            standings.map(|standing| device_view(model, &watched.version, &standing))
        });
        views.collect()
    }

    /// Whether there is a verdict on a version in a scope.
    pub(super) fn has_judged(&self, model: &ModelName, version: &Version, scope: &Scope) -> bool {
        self.images.iter().any(|((name, _), watched)| {
            let mut verdicts = watched.verdicts.iter();
            name == model
                && watched.version == *version
                && verdicts.any(|verdict| verdict.scope == *scope)
        })
    }

    /// The strongest verdict of each subject in each scope, in the order of models, scopes and subjects.
    pub(super) fn views(&self) -> Vec<DriftView> {
        let views = self.images.iter().flat_map(|((model, _), watched)| {
            let strongest = watched.strongest();
            strongest
                .into_values()
                .map(|verdict| view((model, &watched.version), verdict, watched.skipped(verdict)))
        });
        views.collect()
    }

    /// What a subject's verdicts were, oldest first.
    pub(super) fn series(
        &self,
        model: &ModelName,
        scope: &Scope,
        subject: &Subject,
    ) -> Vec<DriftPoint> {
        let seen = self.seen(model, scope);
        let mut points: Vec<_> = seen.flat_map(|(_, seen)| seen.series(subject)).cloned().collect();
        points.sort_by_key(|point| point.at);
        points
    }

    /// Reference and current rows of a subject. Where two versions are served at once, of the one that was heard of last.
    pub(super) fn histogram(
        &self,
        model: &ModelName,
        scope: &Scope,
        subject: &Subject,
    ) -> Option<HistogramView> {
        let (watched, seen) = self.seen(model, scope).max_by_key(|(_, seen)| seen.until())?;
        let baseline = watched.baseline.as_deref()?;
        histogram(baseline, &seen.newest(baseline)?, subject)
    }

    /// What was seen of each version of a model in a scope.
    fn seen<'a>(
        &'a self,
        model: &'a ModelName,
        scope: &'a Scope,
    ) -> impl Iterator<Item = (&'a Watched, &'a Seen)> {
        let images = self.images.iter().filter(move |((name, _), _)| name == model);
        images.filter_map(move |(_, watched)| Some((watched, watched.scopes.get(scope)?)))
    }
}

/// A level: the scopes that are judged together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Fleet,
    Cohorts { key: String },
    Devices,
}

fn level(scope: &Scope) -> Level {
    match scope {
        Scope::Fleet => Level::Fleet,
        Scope::Cohort { key, .. } => Level::Cohorts { key: key.clone() },
        Scope::Device(_) => Level::Devices,
    }
}

impl Watched {
    fn end_round(&mut self, policy: &Policy) -> Result<(), Mismatch> {
        let Some(baseline) = self.baseline.clone() else { return Ok(()) };
        let mut scopes = BTreeSet::new();
        for (scope, seen) in &mut self.scopes {
            if seen.end_round(policy.rows_min) {
                scopes.insert(scope.clone());
            }
        }
        let levels: BTreeSet<_> = scopes.iter().map(level).collect();
        for level in levels {
            self.judge(&baseline, &level, policy)?;
        }
        self.remember(&scopes);
        Ok(())
    }

    fn has_drifted(&self, scope: &Scope) -> bool {
        let mut verdicts = self.verdicts.iter();
        verdicts.any(|it| it.scope == *scope && it.state == DriftState::Drifted)
    }

    /// Judges all scopes of a level; those without a new window keep their verdicts.
    fn judge(
        &mut self,
        baseline: &Baseline,
        judged: &Level,
        policy: &Policy,
    ) -> Result<(), Mismatch> {
        let scopes = self.scopes.iter().filter(|(scope, _)| level(scope) == *judged);
        let seen = scopes.filter(|(_, seen)| !seen.windows().is_empty());
        let cases: Vec<_> = seen
            .map(|(scope, seen)| Case {
                scope: scope.clone(),
                windows: seen.windows(),
                against: Against::Baseline,
            })
            .collect();
        let verdicts = judge(baseline, &cases, &self.verdicts, policy)?;
        self.verdicts.retain(|verdict| level(&verdict.scope) != *judged);
        self.verdicts.extend(verdicts);
        Ok(())
    }

    fn remember(&mut self, scopes: &BTreeSet<Scope>) {
        let strongest = self.strongest().into_values();
        let fresh = strongest.filter(|verdict| scopes.contains(&verdict.scope));
        let points: Vec<_> = fresh
            .map(|verdict| {
                let point = point(verdict, self.skipped(verdict));
                (verdict.scope.clone(), verdict.subject.clone(), point)
            })
            .collect();
        for (scope, subject, point) in points {
            if let Some(seen) = self.scopes.get_mut(&scope) {
                seen.remember(subject, point);
            }
        }
    }

    /// Rows that were passed over while those of a verdict were counted.
    fn skipped(&self, verdict: &Verdict) -> u64 {
        let seen = self.scopes.get(&verdict.scope);
        seen.map_or(0, |seen| seen.skipped(verdict.until, verdict.windows))
    }

    /// Of several metrics on one subject, the one that says most: by where it stands, then by how far beyond its threshold.
    fn strongest(&self) -> BTreeMap<(&Scope, &Subject), &Verdict> {
        let mut strongest: BTreeMap<_, &Verdict> = BTreeMap::new();
        for verdict in &self.verdicts {
            let place = strongest.entry((&verdict.scope, &verdict.subject)).or_insert(verdict);
            let excess = |verdict: &Verdict| verdict.value / verdict.threshold;
            let is_more = rank(verdict.state)
                .cmp(&rank(place.state))
                .then(excess(verdict).total_cmp(&excess(place)));
            if is_more.is_gt() {
                *place = verdict;
            }
        }
        strongest
    }
}

const fn rank(state: DriftState) -> u8 {
    match state {
        DriftState::TooFew => 0,
        DriftState::Steady => 1,
        DriftState::Suspect => 2,
        DriftState::Drifted => 3,
    }
}

fn view((model, version): (&ModelName, &Version), verdict: &Verdict, skipped: u64) -> DriftView {
    DriftView {
        model: model.clone(),
        version: version.clone(),
        scope: verdict.scope.to_string(),
        subject: verdict.subject.to_string(),
        state: verdict.state,
        metric: verdict.metric.to_string(),
        value: verdict.value,
        threshold: verdict.threshold,
        p: Some(verdict.corrected_p),
        rows: verdict.rows,
        skipped,
        from: verdict.from,
        until: verdict.until,
        why: verdict.why.clone(),
    }
}

fn device_view(model: &ModelName, version: &Version, standing: &Standing<'_>) -> DeviceDriftView {
    let comparison = |(against, verdict): &(ComparedWith, &Verdict)| DeviceComparison {
        against: *against,
        subject: verdict.subject.to_string(),
        metric: verdict.metric.to_string(),
        value: verdict.value,
        threshold: verdict.threshold,
        p: verdict.corrected_p,
        since: verdict.since,
        why: verdict.why.clone(),
    };
    DeviceDriftView {
        device: standing.device.clone(),
        model: model.clone(),
        version: version.clone(),
        cohort: standing.cohort.to_string(),
        nature: standing.nature,
        off: standing.off.iter().map(comparison).collect(),
        rows: standing.rows,
        skipped: standing.skipped,
        until: standing.until,
    }
}

/// What the devices of a drifted scope say of it.
fn with_breadth(finding: Finding, standings: &[Standing<'_>]) -> Finding {
    let scope = finding.labels.get("scope").and_then(|scope| Scope::parse(scope).ok());
    match scope {
        Some(scope) => Breadth::of(&scope, standings.iter()).told(finding),
        None => finding,
    }
}

fn point(verdict: &Verdict, skipped: u64) -> DriftPoint {
    let (at, value) = (verdict.until, verdict.value);
    DriftPoint { at, value, rows: verdict.rows, skipped, state: verdict.state }
}
