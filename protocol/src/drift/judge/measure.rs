//! From counts to effects and p-values.

use std::collections::BTreeMap;

use super::dispersion::Dispersion;
use super::tally::{Counts, Share, Tally};
use crate::drift::{
    Method, Metric, Ranked, Subject, category_gap, cut_gap, number, pair_gap, psi, rank_shift,
    rank_spread, sd_ratio, share_p, share_rise_p, two_sample,
};

/// How far window and reference are apart in one metric, and the probability that chance did it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Measure {
    pub(super) subject: Subject,
    pub(super) metric: Metric,
    /// The effect as it is shown.
    pub(super) value: f64,
    /// What the p-value was computed from.
    pub(super) statistic: f64,
    pub(super) p: f64,
    /// The feature of a group, or the pair of features, in which the difference is largest.
    pub(super) strongest: Option<String>,
    /// Of each cut, category or pair, by how much it differs and in which direction; one for what has no parts.
    parts: Vec<f64>,
    /// The part that `value` is of.
    part: usize,
    /// The standard error of a part if nothing changed.
    error: f64,
    /// What chance alone brings `value` to.
    pub(super) by_chance: f64,
}

/// What hardly ever changes is not stuck if it does not.
const STILL_MAX: f64 = 0.9;

impl Measure {
    /// What is compared with a threshold.
    pub(super) fn effect(&self) -> f64 {
        self.value - self.by_chance
    }

    /// Keeps the effect, and takes from the same comparison of as many independent rows as these are worth what chance makes of it.
    fn weaken(&mut self, worth: &Self) {
        (self.statistic, self.p) = (worth.statistic, worth.p);
        self.error = worth.error.max(self.error);
        self.by_chance = worth.by_chance.max(self.by_chance);
    }

    /// Whether the rows of this measure, which are the newest of those of `longer`, speak against what that one says.
    ///
    /// They do if they show less than half of the difference and chance does not explain that. What no longer holds is over, even
    /// while a longer span remembers it.
    pub(super) fn contradicts(&self, longer: &Self) -> bool {
        let (Some(here), Some(there)) =
            (self.parts.get(longer.part), longer.parts.get(longer.part))
        else {
            return false;
        };
        here * there.signum() < there.abs() / 2.0 - 2.0 * self.error
    }
}

/// Compares tally by tally, and sums up the groups after them.
pub(super) fn measures(
    reference: &[Tally],
    window: &[Tally],
    dispersion: &Dispersion<'_>,
) -> Vec<Measure> {
    let mut all = Vec::with_capacity(window.len() * 3);
    let mut groups = BTreeMap::new();
    for (reference, window) in reference.iter().zip(window) {
        let first = all.len();
        all.extend(of_tally(reference, window));
        let (of_reference, of_window) = (dispersion.of(reference), dispersion.of(window));
        if of_reference > 1.0 || of_window > 1.0 {
            let (reference, window) = (reference.worth(of_reference), window.worth(of_window));
            for (measure, worth) in all.iter_mut().skip(first).zip(of_tally(&reference, &window)) {
                measure.weaken(&worth);
            }
        }
        if let (Some(group), Some(measure)) = (&window.group, all.get(first)) {
            let group = groups.entry(group).or_insert_with(|| empty_group(group));
            widen(group, measure);
        }
    }
    all.extend(groups.into_values());
    all
}

/// The metrics of a tally; each tally has as many for every window.
pub(super) fn metrics(tally: &Tally) -> &'static [Metric] {
    use Metric::{
        CategoryGap, Concordance, ConfidenceGap, ConfidenceShift, ConfidenceSpread, CutGap,
        MissingShare, OutOfRangeShare, PsiCategorical, PsiClasses, PsiConfidence, PsiNumeric,
        RankShift, RankSpread, Stuck, UnseenShare, WrongTypeShare,
    };
    match (&tally.counts, &tally.subject) {
        (Counts::Ordered { .. }, Subject::Confidence) => {
            &[PsiConfidence, ConfidenceShift, ConfidenceSpread, ConfidenceGap]
        }
        (Counts::Ordered { .. }, _) => &[PsiNumeric, RankShift, RankSpread, CutGap],
        (Counts::Unordered { .. }, Subject::Prediction) => &[PsiClasses, Metric::ClassGap],
        (Counts::Unordered { .. }, _) => &[PsiCategorical, CategoryGap],
        (Counts::Spread { .. }, _) => &[Metric::SdRatio],
        (Counts::Share { of: Share::Missing, .. }, _) => &[MissingShare],
        (Counts::Share { of: Share::WrongType, .. }, _) => &[WrongTypeShare],
        (Counts::Share { of: Share::OutOfRange, .. }, _) => &[OutOfRangeShare],
        (Counts::Share { of: Share::Unseen, .. }, _) => &[UnseenShare],
        (Counts::Still { .. }, _) => &[Stuck],
        (Counts::Pairs { .. }, _) => &[Concordance],
    }
}

fn of_tally(reference: &Tally, window: &Tally) -> impl Iterator<Item = Measure> {
    metrics(window).iter().map(|metric| {
        let mut measure = Measure {
            subject: window.subject.clone(),
            metric: *metric,
            value: 0.0,
            statistic: 0.0,
            p: 1.0,
            strongest: None,
            parts: Vec::new(),
            part: 0,
            error: 0.0,
            by_chance: 0.0,
        };
        measure.compare(reference, window);
        measure
    })
}

impl Measure {
    /// Without counts on a side nothing can be said: no effect, and chance explains it.
    fn compare(&mut self, reference: &Tally, window: &Tally) {
        match (&reference.counts, &window.counts) {
            (
                Counts::Ordered { bins, tenths },
                Counts::Ordered { bins: found, tenths: found_tenths },
            ) => match self.metric.method() {
                Method::Shift => self.ranked(rank_shift(bins, found)),
                Method::Spread => self.ranked(rank_spread(bins, found)),
                Method::Gap => self.gap(cut_gap(bins, found), bins, found),
                Method::Index => self.index(tenths, tenths, found_tenths),
            },
            (Counts::Unordered { counts, expected }, Counts::Unordered { counts: found, .. }) => {
                if self.metric.method() != Method::Gap {
                    return self.index(counts, expected, found);
                }
                let mut counts = counts.clone();
                if let (Some(unseen), Some(to_expect)) = (counts.last_mut(), expected.last()) {
                    *unseen = *to_expect;
                }
                self.gap(category_gap(&counts, found), &counts, found);
            }
            (
                Counts::Spread { sd, rows, kurtosis },
                Counts::Spread { sd: found, rows: seen, .. },
            ) => {
                self.ranked(sd_ratio((*sd, *rows), (*found, *seen), *kurtosis));
            }
            (
                Counts::Share { hits, rows, of: Share::Missing },
                Counts::Share { hits: found, rows: seen, .. },
            ) => self.moved((hits.iter().sum(), *rows), (found.iter().sum(), *seen)),
            (Counts::Share { hits, rows, .. }, Counts::Share { hits: found, rows: seen, .. }) => {
                self.rise(*hits, *rows, *found, *seen);
            }
            (Counts::Still { commonest, .. }, Counts::Still { is_still, rows, .. }) => {
                self.still(*commonest, *is_still, *rows);
            }
            (
                Counts::Pairs { counts, rows, names },
                Counts::Pairs { counts: found, rows: seen, .. },
            ) => {
                if let Some(gap) = pair_gap((counts, *rows), (found, *seen)) {
                    self.value = gap.gaps.get(gap.place).copied().unwrap_or(0.0).abs();
                    self.statistic = gap.z;
                    self.error = gap.error;
                    self.p = gap.p;
                    self.strongest = names.pair(gap.place);
                    (self.parts, self.part) = (gap.gaps, gap.place);
                }
            }
            _ => (), // both sides list the same tallies
        }
    }

    fn index(&mut self, reference: &[u64], expected: &[u64], window: &[u64]) {
        let (Some(value), Some((statistic, degrees, p))) =
            (psi(reference, window), two_sample(expected, window))
        else {
            return;
        };
        let noise = noise(reference, window);
        self.value = value;
        (self.statistic, self.p) = (statistic, p);
        self.by_chance = degrees * noise;
        self.parts = vec![value - self.by_chance];
        self.error = (2.0 * degrees).sqrt() * noise;
    }

    fn ranked(&mut self, ranked: Option<Ranked>) {
        let Some(ranked) = ranked else { return };
        self.value = ranked.difference.abs();
        (self.statistic, self.p) = (ranked.z, ranked.p);
        self.parts = vec![ranked.difference];
        self.error = ranked.error;
    }

    fn gap(&mut self, gap: Option<crate::drift::Gap>, reference: &[u64], window: &[u64]) {
        let Some(gap) = gap else { return };
        self.value = gap.gaps.get(gap.place).copied().unwrap_or(0.0).abs();
        self.statistic = self.value;
        self.p = gap.p;
        self.error = noise(reference, window).sqrt() / 2.0;
        (self.parts, self.part) = (gap.gaps, gap.place);
    }

    /// By how much a share has moved. What was missing and no longer is has been made up by somebody.
    fn moved(&mut self, reference: (u64, u64), window: (u64, u64)) {
        if reference.1 == 0 || window.1 == 0 {
            return;
        }
        let share = |(hits, rows): (u64, u64)| number(hits) / number(rows);
        let gap = share(window) - share(reference);
        self.value = gap.abs();
        (self.statistic, self.p) = (gap, share_p(reference, window));
        self.parts = vec![gap];
        self.error = (gap.abs().max(number(window.1).recip()) / number(window.1)).sqrt();
    }

    /// If every row had its value by chance, all would have the commonest one at best so often.
    fn still(&mut self, commonest: f64, is_still: bool, rows: u64) {
        let is_stuck = is_still && commonest < STILL_MAX && rows > 1;
        self.value = f64::from(u8::from(is_stuck));
        self.statistic = number(rows);
        if is_stuck {
            self.p = commonest.powf(number(rows) - 1.0);
        }
        self.parts = vec![self.value];
    }

    /// By how much a share has risen on either side; a fall is no harm.
    fn rise(&mut self, hits: [u64; 2], rows: u64, found: [u64; 2], seen: u64) {
        if rows == 0 || seen == 0 {
            return;
        }
        let share = |hits: u64, rows: u64| number(hits) / number(rows);
        let sides = hits.iter().zip(found);
        let gaps = sides.clone().map(|(hits, found)| share(found, seen) - share(*hits, rows));
        let rise: f64 = gaps.map(|gap| gap.max(0.0)).sum();
        let one = sides.map(|(hits, found)| share_rise_p((*hits, rows), (found, seen)));
        // The reference's own ends lie at the edges; of two ends, one of its rows is given away for what was chosen.
        let both = (hits.iter().sum::<u64>() + 1, rows + 1);
        let p = share_rise_p(both, (found.iter().sum(), seen));
        let p = one.fold(p, f64::min);
        self.value = rise;
        (self.statistic, self.p) = (rise, (3.0 * p).min(1.0));
        self.parts = vec![rise];
        self.error = (rise.max(number(seen).recip()) / number(seen)).sqrt();
    }
}

/// The variance of a standardised difference between two samples of such sizes.
fn noise(reference: &[u64], window: &[u64]) -> f64 {
    let rows = |counts: &[u64]| number(counts.iter().sum::<u64>().max(1)).recip();
    rows(reference) + rows(window)
}

fn empty_group(name: &str) -> Measure {
    Measure {
        subject: Subject::Group(name.to_owned()),
        metric: Metric::PsiGroup,
        value: 0.0,
        statistic: 0.0,
        p: 1.0,
        strongest: None,
        parts: vec![0.0],
        part: 0,
        error: 0.0,
        by_chance: 0.0,
    }
}

/// A group is judged by its strongest feature, and drifts by it alone.
fn widen(group: &mut Measure, measure: &Measure) {
    let Subject::Feature(feature) = &measure.subject else { return };
    let excess = |measure: &Measure| measure.value - measure.by_chance;
    if measure.p < group.p || (group.strongest.is_none() && excess(measure) >= excess(group)) {
        let (subject, metric) = (group.subject.clone(), group.metric);
        *group = Measure { subject, metric, strongest: Some(feature.clone()), ..measure.clone() };
    }
}
