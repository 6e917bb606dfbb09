//! What a baseline knows beyond one distribution a feature: pairs, phases of a season, and how much more than by chance windows vary.
//!
//! Tests of two samples take rows to be independent. Where one row resembles the next (a sensor that warms up, a queue of like orders)
//! the means of windows vary more, and each test would cry wolf. So the reference, in its order, says how much more.

use std::collections::BTreeMap;

use super::baseline::{Contents, DISPERSION_MAX, Feature, Phase, Reference};
use super::builder::{Row, Season};
use super::joint::is_held_out;
use super::order::{self, Seen};
use super::pairs::counts_of;
use super::profiler::{category, confidence_bin, pair_counter};

/// By so many standard errors windows of a phase must vary more than by chance.
const SURE_ERRORS: f64 = 3.0;

/// Adds all that to a baseline. `is_whole`: the sample has every row, in order.
pub(super) fn complete(
    contents: &mut Contents,
    sample: &[Row],
    season: Option<Season>,
    is_whole: bool,
) {
    contents.pairs = pairs(contents, sample.iter());
    if let Some(season) = season {
        contents.phase_ms = season.phase_ms;
        contents.phases = phases(contents, sample, season);
    }
    if !is_whole {
        return;
    }
    let Some(season) = season else {
        order::complete(contents, sample);
        return;
    };
    let factors: Vec<f64> = Seen::all(contents)
        .map(|seen| {
            let scores = order::scores(contents, sample, seen);
            // Where calm and stormy times follow each other the mean stays and the spread does not.
            let squares: Vec<_> =
                scores.iter().map(|(order, score)| (*order, score * score)).collect();
            let [of_mean, of_spread] =
                [scores, squares].map(|scores| dispersion_of_seasons(&scores, season));
            of_mean.max(of_spread).clamp(1.0, DISPERSION_MAX)
        })
        .collect();
    if factors.iter().any(|factor| *factor > 1.0) {
        contents.dispersion = factors;
    }
}

fn pairs<'a>(contents: &Contents, rows: impl Iterator<Item = &'a Row>) -> Vec<u64> {
    let inputs = || contents.features.iter().take(contents.inputs);
    let numeric = inputs().filter(|feature| feature.numeric().is_some()).count();
    let mut counts = vec![0; counts_of(numeric)];
    if counts.is_empty() {
        return counts;
    }
    let mut counter = pair_counter(inputs());
    for row in rows {
        let values = inputs().zip(&row.values).filter(|(feature, _)| feature.numeric().is_some());
        for (place, (_, value)) in values.enumerate() {
            if value.is_finite() {
                counter.take(place, *value);
            }
        }
        counter.end_row(&mut counts);
    }
    counter.count(&mut counts);
    counts
}

/// Each phase that has rows. A season of which the reference has not seen every phase is none.
fn phases(contents: &Contents, sample: &[Row], season: Season) -> Vec<Phase> {
    let mut rows: Vec<Vec<&Row>> = vec![Vec::new(); season.phases];
    for row in sample {
        if let Some(rows) = rows.get_mut(season.phase(row.order)) {
            rows.push(row);
        }
    }
    if rows.iter().any(Vec::is_empty) {
        return Vec::new();
    }
    rows.iter().map(|rows| phase(contents, rows)).collect()
}

fn phase(contents: &Contents, rows: &[&Row]) -> Phase {
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let (mut counts, mut faulty, mut wrong_type) = (Vec::new(), Vec::new(), Vec::new());
    for (place, feature) in contents.features.iter().enumerate() {
        let is_partial = contents.is_held_out(place);
        let rows = || rows.iter().filter(|row| !is_partial || is_held_out(row.order));
        let values = rows().filter_map(|row| row.values.get(place));
        let of_feature = histogram(values.map(|value| bin(feature, *value)), bins(feature));
        let all: u64 = of_feature.iter().sum();
        faulty.push(count(rows().count()).saturating_sub(all));
        wrong_type.push(count(rows().filter(|row| row.wrong_type.contains(&place)).count()));
        counts.push(of_feature);
    }
    let confidences = rows.iter().map(|row| row.confidence.and_then(confidence_bin));
    Phase {
        rows: count(rows.len()),
        counts,
        faulty,
        wrong_type: if wrong_type.iter().all(|rows| *rows == 0) { Vec::new() } else { wrong_type },
        classes: histogram(rows.iter().map(|row| row.class), contents.classes.len()),
        confidence: histogram(confidences, contents.confidence.len()),
        pairs: pairs(contents, rows.iter().copied()),
    }
}

fn histogram(bins: impl Iterator<Item = Option<usize>>, length: usize) -> Vec<u64> {
    let mut counts = vec![0; length];
    for bin in bins.flatten() {
        if let Some(count) = counts.get_mut(bin) {
            *count += 1;
        }
    }
    counts
}

/// Bins without tails, or the domain and the unseen.
fn bins(feature: &Feature) -> usize {
    match &feature.reference {
        Reference::Numeric(reference) => reference.counts.len(),
        Reference::Categorical(reference) => reference.domain.len() + 1,
    }
}

pub(super) fn bin(feature: &Feature, value: f32) -> Option<usize> {
    match &feature.reference {
        Reference::Numeric(reference) => {
            value.is_finite().then(|| reference.edges.iter().filter(|edge| value > **edge).count())
        }
        Reference::Categorical(reference) => {
            category(value).map(|place| place.min(reference.domain.len()))
        }
    }
}

/// How much more than independent rows the means of one phase vary from season to season.
fn dispersion_of_seasons(scores: &[(u64, f64)], season: Season) -> f64 {
    // By phase and cycle: rows, sum, sum of squares.
    let mut cells = BTreeMap::<(usize, u64), (f64, f64, f64)>::new();
    for (order, score) in scores {
        let cycle = order / season.rows.max(1) / u64::try_from(season.phases).unwrap_or(1).max(1);
        let cell = cells.entry((season.phase(*order), cycle)).or_default();
        *cell = (cell.0 + 1.0, cell.1 + score, cell.2 + score * score);
    }
    let mut phases = BTreeMap::<usize, Vec<(f64, f64, f64)>>::new();
    for ((phase, _), cell) in cells {
        phases.entry(phase).or_default().push(cell);
    }
    let (mut between, mut cycles, mut within, mut rows) = (0.0, 0.0, 0.0, 0.0);
    for cells in phases.values() {
        let all = cells.iter().fold((0.0, 0.0), |all, cell| (all.0 + cell.0, all.1 + cell.1));
        let mean = all.1 / all.0;
        for (n, sum, squares) in cells {
            between += n * (sum / n - mean).powi(2);
            within += squares - sum * sum / n;
            rows += n - 1.0;
            cycles += 1.0;
        }
        cycles -= 1.0;
    }
    if cycles < 1.0 || rows < 1.0 || within <= 0.0 {
        return 1.0;
    }
    let factor = (between / cycles) / (within / rows);
    // By chance alone it is one, give or take this.
    let error = (2.0_f64 / cycles).sqrt();
    if factor > 1.0 + SURE_ERRORS * error { factor } else { 1.0 }
}
