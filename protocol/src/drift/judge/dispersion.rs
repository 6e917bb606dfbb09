//! How much more than by chance windows vary from each other: the baseline's estimate, and what the windows themselves say.

use super::Window;
use super::tally::{Counts, Share, Tally};
use crate::drift::number;
use crate::profile::{Baseline, NumericReference, Phase, Profile, Reference};

/// For how many pairs of windows the baseline's estimate counts.
const PRIOR: f64 = 10.0;
/// No single difference says more than so many times what the baseline expects: where drift begins, two windows differ for another reason.
const SQUARE_MAX: f64 = 9.0;

/// By which factor means of windows vary more than those of independent rows would.
pub(super) struct Dispersion<'a> {
    baseline: &'a Baseline,
    /// By how much more than the baseline expects windows vary, of all features, of the prediction and of the confidence.
    excess: Vec<f64>,
}

impl<'a> Dispersion<'a> {
    /// What the windows show of each other.
    ///
    /// One window is compared with the next, not with the reference: what has drifted and stays there varies no more than before.
    pub(super) fn new(baseline: &'a Baseline, windows: &[Window]) -> Self {
        let subjects = baseline.features().len() + 2;
        let mut evidence = vec![[(0.0, 0.0); 2]; subjects];
        let seen: Vec<Vec<Option<[Seen; 2]>>> = windows
            .iter()
            .map(|window| (0..subjects).map(|place| see(baseline, window, place)).collect())
            .collect();
        for (before, now) in seen.iter().zip(seen.iter().skip(1)) {
            let both = before.iter().zip(now).enumerate();
            for (evidence, (place, (before, now))) in evidence.iter_mut().zip(both) {
                let (Some(before), Some(now)) = (before, now) else { continue };
                for ((sum, pairs), (before, now)) in evidence.iter_mut().zip(before.iter().zip(now))
                {
                    let expected = between(baseline, place, before.rows, now.rows);
                    let variance = (before.variance + now.variance) * expected;
                    if variance > 0.0 {
                        *sum += ((now.gap - before.gap).powi(2) / variance).min(SQUARE_MAX);
                        *pairs += 1.0;
                    }
                }
            }
        }
        let excess = |evidence: [(f64, f64); 2]| {
            let estimates = evidence.map(|(sum, pairs)| {
                let known: f64 = PRIOR + pairs;
                // One standard error less: most streams are independent, and should not pay for a guess.
                (PRIOR + sum) / known - (2.0 / known).sqrt()
            });
            estimates.into_iter().fold(1.0, f64::max)
        };
        Self { baseline, excess: evidence.into_iter().map(excess).collect() }
    }

    /// The factor of a tally of one side.
    pub(super) fn of(&self, tally: &Tally) -> f64 {
        let rows = tally.counts.rows();
        let Some(place) = tally.feature else { return self.of_pairs(rows) };
        match tally.counts {
            Counts::Share { of: Share::Missing | Share::WrongType, .. } => {
                self.baseline.missing_dispersion(place, rows)
            }
            Counts::Ordered { .. }
            | Counts::Unordered { .. }
            | Counts::Spread { .. }
            | Counts::Share { .. }
            | Counts::Still { .. }
            | Counts::Pairs { .. } => self.of_feature(place, rows),
        }
    }

    fn of_feature(&self, place: usize, rows: f64) -> f64 {
        let excess = self.excess.get(place).copied().unwrap_or(1.0);
        excess * self.baseline.dispersion(place, rows)
    }

    /// A pair forgets as soon as one of its features does; the longest memory of a pair is the second longest of all features.
    fn of_pairs(&self, rows: f64) -> f64 {
        let inputs = self.baseline.features().iter().take(self.baseline.inputs()).enumerate();
        let numeric = inputs.filter(|(_, feature)| feature.numeric().is_some());
        let of_input =
            |place| self.of_feature(place, rows).max(self.baseline.missing_dispersion(place, rows));
        let (_, second) = numeric
            .map(|(place, _)| of_input(place))
            .fold((1.0_f64, 1.0_f64), |(largest, second), factor| {
                (largest.max(factor), second.max(factor.min(largest)))
            });
        // Products of two series that remember by a factor a row remember by its square.
        let memory = ((second - 1.0) / (second + 1.0)).powi(2);
        (1.0 + memory) / (1.0 - memory)
    }
}

/// The factor of the difference of two windows, one after the other: where rows remember for longer than a window, it is small.
fn between(baseline: &Baseline, place: usize, before: f64, now: f64) -> f64 {
    let rows = f64::midpoint(before, now);
    let factor = |rows| baseline.dispersion(place, rows);
    (2.0 * factor(rows) - factor(2.0 * rows)).max(1.0)
}

/// The mean score of a window less that of its reference, and the variance of that if rows were independent; of scores and of their
/// squares, as what is calm at one time and stormy at another has the same mean.
#[derive(Clone, Copy)]
struct Seen {
    gap: f64,
    variance: f64,
    rows: f64,
}

fn see(baseline: &Baseline, window: &Window, place: usize) -> Option<[Seen; 2]> {
    let phase = baseline.phases().get(window.phase(baseline));
    let (reference, found, is_ordered) = counts(baseline, phase, &window.profile, place)?;
    let n = number(reference.iter().sum::<u64>());
    let m = number(found.iter().sum::<u64>());
    if n < 1.0 || m < 1.0 {
        return None;
    }
    let commonest = reference.iter().max().copied();
    let mut below = 0.0;
    let scores: Vec<f64> = reference
        .iter()
        .map(|count| {
            let share = number(*count) / n;
            let middle = below + share / 2.0 - 0.5;
            below += share;
            if is_ordered { middle } else { f64::from(u8::from(Some(*count) == commonest)) }
        })
        .collect();
    // Phases have samples of their own, which differ from each other by chance as windows do.
    let of_reference = if phase.is_some() { n.recip() } else { 0.0 };
    let seen = |power: i32| {
        let (mut mean, mut squares, mut of_window) = (0.0, 0.0, 0.0);
        for ((count, found), score) in reference.iter().zip(&found).zip(&scores) {
            let (share, score) = (number(*count) / n, score.powi(power));
            mean += share * score;
            squares += share * score * score;
            of_window += number(*found) / m * score;
        }
        let variance = (squares - mean * mean).max(0.0);
        Seen { gap: of_window - mean, variance: variance * (m.recip() + of_reference), rows: m }
    };
    Some([seen(1), seen(2)])
}

/// Reference and window on the same bins, and whether these have an order.
fn counts(
    baseline: &Baseline,
    phase: Option<&Phase>,
    profile: &Profile,
    place: usize,
) -> Option<(Vec<u64>, Vec<u64>, bool)> {
    let features = baseline.features();
    let Some(feature) = features.get(place) else {
        return Some(outputs(baseline, phase, profile, place - features.len()));
    };
    let is_numeric = |feature: &&crate::profile::Feature| feature.numeric().is_some();
    let numeric_before = features.iter().take(place).filter(is_numeric).count();
    let of_phase = phase.and_then(|phase| phase.counts.get(place));
    match &feature.reference {
        Reference::Numeric(reference) => {
            let found = profile.numeric().get(numeric_before)?.bins(reference).to_vec();
            Some((with_tails(reference, of_phase), found, true))
        }
        Reference::Categorical(reference) => {
            let found = profile.categorical().get(place - numeric_before)?;
            let found = found.domain.iter().copied().chain([found.unseen]).collect();
            Some((
                of_phase.cloned().unwrap_or_else(|| reference.counts_with_unseen()),
                found,
                false,
            ))
        }
    }
}

fn with_tails(reference: &NumericReference, of_phase: Option<&Vec<u64>>) -> Vec<u64> {
    of_phase.map_or_else(
        || reference.counts_with_tails(),
        |counts| [0].into_iter().chain(counts.iter().copied()).chain([0]).collect(),
    )
}

fn outputs(
    baseline: &Baseline,
    phase: Option<&Phase>,
    profile: &Profile,
    place: usize,
) -> (Vec<u64>, Vec<u64>, bool) {
    if place == 0 {
        let all = || baseline.classes().iter().map(|class| class.count).collect();
        let reference = phase.map_or_else(all, |phase| phase.classes.clone());
        return (reference, profile.classes().to_vec(), false);
    }
    let reference = phase.map_or_else(|| baseline.confidence(), |phase| &phase.confidence);
    (reference.to_vec(), profile.confidence().to_vec(), true)
}
