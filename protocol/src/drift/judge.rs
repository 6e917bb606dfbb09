//! Decides whether what models see still looks like what they were made for. Values in, verdicts out.
//!
//! ```text
//!  windows ──merge the newest 1, 4, 16, 64──▶ counts ──against reference──▶ effect, p ──correct──▶ standing ──▶ verdict
//!                                                                                          ▲
//!                                                            previous verdict ─────────────┘
//! ```
//! A difference counts only if it is both large (effect) and not chance (corrected p-value), for two windows in a row. With a large
//! enough window every p-value is small, and with a small enough one every effect is large.

mod dispersion;
mod figures;
mod measure;
mod policy;
mod standing;
mod tally;

pub use figures::{Figure, figures};
pub use policy::{InvalidPolicy, Policy};

use std::collections::BTreeMap;

use crate::drift::{DriftState, Metric, Scope, Subject, benjamini_hochberg, bonferroni, number};
use crate::id::UnixMillis;
use crate::profile::{Baseline, Mismatch, Profile};
use serde::{Deserialize, Serialize};

use dispersion::Dispersion;
use measure::Measure;
use tally::Tally;

/// How many of the newest windows are looked at together. Few notice a jump at once, many a creeping change.
const SPANS: [usize; 4] = [1, 4, 16, 64];

/// What one scope saw between two moments.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Begin.
    pub from: UnixMillis,
    /// End.
    pub until: UnixMillis,
    /// The counts, merged over the devices of the scope.
    pub profile: Profile,
}

impl Window {
    /// The phase of the season in which most of it lies.
    fn phase(&self, baseline: &Baseline) -> usize {
        baseline.phase_at(UnixMillis(self.from.0.midpoint(self.until.0)))
    }
}

/// One scope to be judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Case<'a> {
    /// Who saw the windows.
    pub scope: Scope,
    /// The windows, oldest first; more than 64 are of no use.
    pub windows: &'a [Window],
    /// What they are compared with.
    pub against: Against<'a>,
}

/// What windows are compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Against<'a> {
    /// The distribution that the model was made for: for the fleet and for cohorts.
    Baseline,
    /// What the other devices of the cohort saw in the same time: for a device. Leave the device itself out of it.
    Cohort(&'a Profile),
}

/// What is to be thought of one metric of one subject in one scope. Stored, and given back at the next judgement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Who saw it.
    pub scope: Scope,
    /// What of the data.
    pub subject: Subject,
    /// By which method.
    pub metric: Metric,
    /// The effect.
    pub value: f64,
    /// The effect from which on it counts.
    pub threshold: f64,
    /// What the probability was computed from: a chi-square, a z, a difference.
    #[serde(default)]
    pub statistic: f64,
    /// The probability of such counts if nothing changed.
    pub p: f64,
    /// The same, corrected for everything that was looked at.
    pub corrected_p: f64,
    /// Rows judged.
    pub rows: u64,
    /// Windows judged together.
    pub windows: usize,
    /// Begin of the first of them.
    pub from: UnixMillis,
    /// End of the last.
    pub until: UnixMillis,
    /// Where it stands.
    pub state: DriftState,
    /// Windows in a row that differed.
    pub streak: u32,
    /// Windows in a row that did not differ any more.
    #[serde(default)]
    pub calm: u32,
    /// Since when it stands there.
    pub since: UnixMillis,
    /// All that in a sentence.
    pub why: String,
}

/// Judges the cases of one level: the fleet, all cohorts of one label, or all devices of a cohort.
///
/// The same inputs always give the same verdicts. A case whose newest window was already judged keeps its verdicts, so that judging
/// twice is judging once. The cases of one call are corrected for each other.
pub fn judge(
    baseline: &Baseline,
    cases: &[Case<'_>],
    previous: &[Verdict],
    policy: &Policy,
) -> Result<Vec<Verdict>, Mismatch> {
    let of_baseline = tally::of_baseline(baseline);
    let looks = cases
        .iter()
        .map(|case| Look::new(baseline, &of_baseline, case, policy))
        .collect::<Result<Vec<_>, _>>()?;

    let smallest: Vec<f64> = looks.iter().map(Look::smallest_p).collect();
    let corrected = benjamini_hochberg(&smallest);
    let factors = smallest.iter().zip(corrected).map(|(p, corrected)| match *p {
        p if p > 0.0 => corrected / p,
        _ => 1.0, // no factor makes zero larger
    });

    let previous: BTreeMap<_, _> = previous.iter().map(|verdict| (key(verdict), verdict)).collect();
    let verdicts = looks.iter().zip(factors).flat_map(|(look, factor)| {
        let judged = (0..look.subjects()).filter_map(move |place| look.finding(place, factor));
        judged.map(|finding| {
            let before = previous.get(&(finding.scope, finding.subject, finding.metric)).copied();
            standing::next(&finding, before, policy)
        })
    });
    Ok(verdicts.collect())
}

type Key<'a> = (&'a Scope, &'a Subject, Metric);

const fn key(verdict: &Verdict) -> Key<'_> {
    (&verdict.scope, &verdict.subject, verdict.metric)
}

/// The evidence on one case: the same measures, in the same order, for every span that has enough rows.
struct Look<'a> {
    case: &'a Case<'a>,
    spans: Vec<Span>,
    /// How many numbers were tested.
    tests: u64,
    /// What was looked at, where no span has enough rows.
    names: Vec<(&'a Subject, Metric)>,
}

/// The newest windows together.
struct Span {
    windows: usize,
    from: UnixMillis,
    rows: u64,
    measures: Vec<Measure>,
}

impl<'a> Look<'a> {
    fn new(
        baseline: &Baseline,
        of_baseline: &'a [Tally],
        case: &'a Case<'a>,
        policy: &Policy,
    ) -> Result<Self, Mismatch> {
        let of_cohort = match case.against {
            Against::Baseline => None,
            Against::Cohort(profile) => {
                profile.check(baseline)?;
                Some(tally::of_profile(baseline, profile))
            }
        };
        let newest = newest(case.windows);
        let dispersion = Dispersion::new(baseline, newest);
        let phases = match case.against {
            Against::Baseline => phases(baseline, newest),
            Against::Cohort(_) => BTreeMap::new(),
        };
        let mut spans = Vec::new();
        for (from, profile, windows) in merged(baseline, newest)? {
            if profile.rows() < policy.rows_judged_min {
                continue;
            }
            let of_season = of_phases(baseline, &phases, newest.iter().rev().take(windows));
            let reference = of_cohort.as_deref().or(of_season.as_deref()).unwrap_or(of_baseline);
            let window = tally::of_profile(baseline, &profile);
            let measures = measure::measures(reference, &window, &dispersion);
            spans.push(Span { windows, from, rows: profile.rows(), measures });
        }
        let metrics = |tally: &'a Tally| {
            measure::metrics(tally).iter().map(|metric| (&tally.subject, *metric))
        };
        let names: Vec<_> = of_baseline.iter().flat_map(metrics).collect();
        let tests = names.len().saturating_mul(spans.len());
        let tests = u64::try_from(tests).unwrap_or(u64::MAX);
        Ok(Self { case, spans, tests, names })
    }

    fn smallest_p(&self) -> f64 {
        let measures = self.spans.iter().flat_map(|span| &span.measures);
        bonferroni(measures.map(|measure| measure.p).fold(1.0, f64::min), self.tests)
    }

    fn subjects(&self) -> usize {
        self.spans.first().map_or(self.names.len(), |span| span.measures.len())
    }

    fn finding(&self, place: usize, factor: f64) -> Option<Finding<'_>> {
        let last = self.case.windows.last()?;
        let spans = self.spans.iter().filter_map(|span| {
            let measure = span.measures.get(place)?;
            let corrected_p = (bonferroni(measure.p, self.tests) * factor).min(1.0);
            let (windows, rows, from) = (span.windows, span.rows, span.from);
            Some(Evidence { measure, corrected_p, windows, rows, from })
        });
        let spans: Vec<_> = spans.collect();
        let (subject, metric) = match spans.first() {
            Some(evidence) => (&evidence.measure.subject, evidence.measure.metric),
            None => *self.names.get(place)?,
        };
        let rows = last.profile.rows();
        let (from, until) = (last.from, last.until);
        Some(Finding { scope: &self.case.scope, subject, metric, rows, from, until, spans })
    }
}

/// All the evidence on one metric of one subject.
struct Finding<'a> {
    scope: &'a Scope,
    subject: &'a Subject,
    metric: Metric,
    /// Rows of the newest window.
    rows: u64,
    from: UnixMillis,
    until: UnixMillis,
    /// Shortest span first; empty if none has enough rows.
    spans: Vec<Evidence<'a>>,
}

/// What one span says.
#[derive(Clone, Copy)]
struct Evidence<'a> {
    measure: &'a Measure,
    corrected_p: f64,
    windows: usize,
    rows: u64,
    from: UnixMillis,
}

/// The newest windows, as many as the longest span takes.
fn newest(windows: &[Window]) -> &[Window] {
    let longest = SPANS.into_iter().max().unwrap_or(0);
    windows.get(windows.len().saturating_sub(longest)..).unwrap_or(windows)
}

/// The newest 1, 4, 16, 64 windows merged, as far as there are so many.
fn merged(
    baseline: &Baseline,
    windows: &[Window],
) -> Result<Vec<(UnixMillis, Profile, usize)>, Mismatch> {
    let mut spans = Vec::new();
    let mut all = Profile::empty(baseline);
    for (window, count) in windows.iter().rev().zip(1..) {
        window.profile.check(baseline)?;
        all.merge(&window.profile)?;
        if SPANS.contains(&count) {
            spans.push((window.from, all.clone(), count));
        }
    }
    Ok(spans)
}

/// The references of the phases in which windows lie; none without a season.
fn phases(baseline: &Baseline, windows: &[Window]) -> BTreeMap<usize, Vec<Tally>> {
    let mut phases = BTreeMap::new();
    for phase in windows.iter().map(|window| window.phase(baseline)) {
        if let Some(reference) = baseline.phases().get(phase) {
            phases.entry(phase).or_insert_with(|| tally::of_phase(baseline, reference));
        }
    }
    phases
}

/// The mixture of phases that windows are from; none without a season.
fn of_phases<'a>(
    baseline: &Baseline,
    phases: &BTreeMap<usize, Vec<Tally>>,
    windows: impl Iterator<Item = &'a Window>,
) -> Option<Vec<Tally>> {
    let mut rows = BTreeMap::<usize, f64>::new();
    for window in windows {
        *rows.entry(window.phase(baseline)).or_default() += number(window.profile.rows());
    }
    let weighed = rows.into_iter().filter_map(|(phase, rows)| Some((rows, phases.get(&phase)?)));
    let weighed: Vec<_> = weighed.map(|(rows, tallies)| (rows, tallies.as_slice())).collect();
    tally::mixed(&weighed)
}

#[cfg(test)]
mod dependent;
#[cfg(test)]
mod quality;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
