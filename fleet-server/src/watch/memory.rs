//! What is known of the images that are served: merged windows, verdicts, and how they came about.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use sealift_protocol::api::{DriftPoint, DriftState, DriftView, HistogramView};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{ModelName, Version};
use sealift_protocol::profile::{
    Baseline, CategoricalReference, Feature, InvalidProfile, Mismatch, Profile, Reference,
};
use sealift_protocol::telemetry::ProfileWindow;

use crate::alert::{self, Finding};
use crate::drift::{Against, Case, Policy, Scope, Subject, Verdict, Window, judge};

/// Merged windows that are kept of a scope: the longest span that verdicts look at.
const WINDOWS_MAX: usize = 64;
/// Points that are kept of a subject: an hour of windows of ten seconds.
const POINTS_MAX: usize = 360;
/// Windows in a histogram, so that it shows what is, and not what was.
const SHOWN_WINDOWS: usize = 4;

/// An image by name and digest.
type Image = (ModelName, Digest);

/// Why a window was left out.
#[derive(Debug, thiserror::Error)]
pub(super) enum Misfit {
    #[error(transparent)]
    Profile(#[from] InvalidProfile),
    #[error(transparent)]
    Baseline(#[from] Mismatch),
}

/// Everything that is derived from windows.
pub(super) struct Memory {
    policy: Policy,
    cursor: Option<u64>,
    images: BTreeMap<Image, Watched>,
}

/// An image that is served.
struct Watched {
    version: Version,
    /// None: nothing can be judged.
    baseline: Option<Arc<Baseline>>,
    scopes: BTreeMap<Scope, Seen>,
    verdicts: Vec<Verdict>,
}

/// What was seen in one scope.
#[derive(Default)]
struct Seen {
    /// Rows that are not a window yet.
    pending: Option<Window>,
    windows: Vec<Window>,
    series: BTreeMap<Subject, VecDeque<DriftPoint>>,
}

impl Memory {
    pub(super) const fn new(policy: Policy) -> Self {
        Self { policy, cursor: None, images: BTreeMap::new() }
    }

    /// The last window that was taken; none before the first turn.
    pub(super) const fn cursor(&self) -> Option<u64> {
        self.cursor
    }

    pub(super) const fn set_cursor(&mut self, number: u64) {
        self.cursor = Some(number);
    }

    /// Forgets images that nobody serves any more, and with them their verdicts.
    pub(super) fn keep_only(&mut self, served: &BTreeSet<Image>) {
        self.images.retain(|image, _| served.contains(image));
    }

    pub(super) fn knows(&self, image: &Image) -> bool {
        self.images.contains_key(image)
    }

    pub(super) fn learn(
        &mut self,
        image: Image,
        version: &Version,
        baseline: Option<Arc<Baseline>>,
    ) {
        let (version, scopes) = (version.clone(), BTreeMap::new());
        let watched = Watched { version, baseline, scopes, verdicts: Vec::new() };
        self.images.insert(image, watched);
    }

    /// Takes one device's window into its scopes, and judges those in which enough rows have come together.
    pub(super) fn take(
        &mut self,
        image: &Image,
        window: &ProfileWindow,
        scopes: &[Scope],
    ) -> Result<(), Misfit> {
        let policy = self.policy;
        let Some(watched) = self.images.get_mut(image) else { return Ok(()) };
        let Some(baseline) = watched.baseline.clone() else { return Ok(()) };
        let profile = Profile::decode(&window.profile)?;
        profile.check(&baseline)?;
        for scope in scopes {
            let seen = watched.scopes.entry(scope.clone()).or_default();
            let taken = Window { from: window.from, until: window.until, profile: profile.clone() };
            if seen.take(taken, policy.rows_min)? {
                watched.judge(&baseline, scope, &policy)?;
            }
        }
        Ok(())
    }

    /// What the verdicts say that people may have to know.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let findings = self.images.iter().flat_map(|((model, _), watched)| {
            alert::drift(model, &watched.version, &watched.verdicts)
        });
        findings.collect()
    }

    /// The strongest verdict of each subject in each scope, in the order of models, scopes and subjects.
    pub(super) fn views(&self) -> Vec<DriftView> {
        let views = self.images.iter().flat_map(|((model, _), watched)| {
            let strongest = watched.strongest();
            strongest.into_values().map(|verdict| view(model, &watched.version, verdict))
        });
        views.collect()
    }

    pub(super) fn series(
        &self,
        model: &ModelName,
        scope: &Scope,
        subject: &Subject,
    ) -> Vec<DriftPoint> {
        let images = self.images.iter().filter(|((name, _), _)| name == model);
        let series = images.filter_map(|(_, watched)| watched.scopes.get(scope)?.series.get(subject));
        let mut points: Vec<_> = series.flatten().cloned().collect();
        points.sort_by_key(|point| point.at);
        points
    }

    pub(super) fn histogram(
        &self,
        model: &ModelName,
        scope: &Scope,
        subject: &Subject,
    ) -> Option<HistogramView> {
        let images = self.images.iter().filter(|((name, _), _)| name == model);
        // Where two versions are served at once, the one that was heard of last.
        let (watched, seen) = images
            .filter_map(|(_, watched)| Some((watched, watched.scopes.get(scope)?)))
            .max_by_key(|(_, seen)| seen.windows.last().map(|window| window.until))?;
        let baseline = watched.baseline.as_deref()?;
        let profile = seen.newest(baseline)?;
        histogram(baseline, &profile, subject)
    }
}

impl Seen {
    /// Adds rows; returns whether they make a window.
    fn take(&mut self, taken: Window, rows_min: u64) -> Result<bool, Mismatch> {
        let pending = match self.pending.take() {
            None => taken,
            Some(mut pending) => {
                pending.profile.merge(&taken.profile)?;
                pending.from = pending.from.min(taken.from);
                pending.until = pending.until.max(taken.until);
                pending
            }
        };
        if pending.profile.rows() < rows_min {
            self.pending = Some(pending);
            return Ok(false);
        }
        if self.windows.len() == WINDOWS_MAX {
            self.windows.remove(0);
        }
        self.windows.push(pending);
        Ok(true)
    }

    fn newest(&self, baseline: &Baseline) -> Option<Profile> {
        let mut merged = Profile::empty(baseline);
        let shown = self.windows.iter().rev().take(SHOWN_WINDOWS);
        for window in shown {
            merged.merge(&window.profile).ok()?;
        }
        (merged.rows() > 0).then_some(merged)
    }
}

impl Watched {
    /// Judges the level of `scope`: the fleet alone, or all cohorts of one label together.
    fn judge(
        &mut self,
        baseline: &Baseline,
        scope: &Scope,
        policy: &Policy,
    ) -> Result<(), Mismatch> {
        let level = self.scopes.iter().filter(|(other, _)| is_same_level(other, scope));
        let cases: Vec<_> = level
            .map(|(scope, seen)| Case {
                scope: scope.clone(),
                windows: &seen.windows,
                against: Against::Baseline,
            })
            .collect();
        let judged = judge(baseline, &cases, &self.verdicts, policy)?;
        self.verdicts.retain(|verdict| !is_same_level(&verdict.scope, scope));
        self.verdicts.extend(judged);
        self.remember(scope);
        Ok(())
    }

    fn remember(&mut self, scope: &Scope) {
        let points: Vec<_> = self
            .strongest()
            .into_values()
            .filter(|verdict| verdict.scope == *scope)
            .map(|verdict| (verdict.subject.clone(), point(verdict)))
            .collect();
        let Some(seen) = self.scopes.get_mut(scope) else { return };
        for (subject, point) in points {
            let series = seen.series.entry(subject).or_default();
            if series.len() == POINTS_MAX {
                series.pop_front();
            }
            series.push_back(point);
        }
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

fn is_same_level(one: &Scope, other: &Scope) -> bool {
    match (one, other) {
        (Scope::Fleet, Scope::Fleet) | (Scope::Device(_), Scope::Device(_)) => true,
        (Scope::Cohort { key: one, .. }, Scope::Cohort { key: other, .. }) => one == other,
        (Scope::Fleet | Scope::Cohort { .. } | Scope::Device(_), _) => false,
    }
}

fn view(model: &ModelName, version: &Version, verdict: &Verdict) -> DriftView {
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
        from: verdict.from,
        until: verdict.until,
        why: verdict.why.clone(),
    }
}

fn point(verdict: &Verdict) -> DriftPoint {
    let (at, value) = (verdict.until, verdict.value);
    DriftPoint { at, value, rows: verdict.rows, state: verdict.state }
}

/// Shares of reference and current rows, bin by bin.
fn histogram(
    baseline: &Baseline,
    profile: &Profile,
    subject: &Subject,
) -> Option<HistogramView> {
    let (bins, reference, current) = match subject {
        Subject::Feature(name) => {
            let place = baseline.features().iter().position(|feature| feature.name == *name)?;
            feature_bins(baseline, profile, place)?
        }
        Subject::Prediction => {
            let bins = baseline.classes().iter().map(|class| class.name.clone()).collect();
            let reference = baseline.classes().iter().map(|class| class.count).collect();
            (bins, reference, profile.classes().to_vec())
        }
        Subject::Confidence => {
            let bins = (0_u32..20).map(|bin| {
                let lower = f64::from(bin) * 0.05;
                format!("[{lower:.2}, {:.2})", lower + 0.05)
            });
            (bins.collect(), baseline.confidence().to_vec(), profile.confidence().to_vec())
        }
        // A group is many features; each has its own histogram.
        Subject::Group(_) => return None,
    };
    let (reference, current) = (shares(&reference), shares(&current));
    let subject = subject.to_string();
    Some(HistogramView { subject, bins, reference, current, rows: profile.rows() })
}

type Bins = (Vec<String>, Vec<u64>, Vec<u64>);

/// Profiles keep numeric and categorical features apart, each in the order of the baseline.
fn feature_bins(baseline: &Baseline, profile: &Profile, place: usize) -> Option<Bins> {
    let feature = baseline.features().get(place)?;
    let is_numeric = |feature: &&Feature| matches!(feature.reference, Reference::Numeric(_));
    let numeric_before = baseline.features().iter().take(place).filter(is_numeric).count();
    match &feature.reference {
        Reference::Numeric(numeric) => {
            let current = profile.numeric().get(numeric_before)?.bins(numeric).to_vec();
            Some((numeric.labels(), numeric.counts_with_tails(), current))
        }
        Reference::Categorical(categorical) => {
            let counts = profile.categorical().get(place - numeric_before)?;
            let current = counts.domain.iter().copied().chain([counts.unseen]).collect();
            Some((names(categorical), categorical.counts_with_unseen(), current))
        }
    }
}

fn names(categorical: &CategoricalReference) -> Vec<String> {
    let known = categorical.domain.iter().map(|category| category.name.clone());
    known.chain(["unseen".to_owned()]).collect()
}

#[expect(clippy::cast_precision_loss, reason = "shares for a picture")]
fn shares(counts: &[u64]) -> Vec<f64> {
    let total = counts.iter().sum::<u64>().max(1) as f64;
    counts.iter().map(|&count| count as f64 / total).collect()
}
