//! What the order of the reference rows says: how long each feature resembles itself.
//!
//! Windows of rows that resemble each other differ in more than their mean. So the score of a value is looked at, its square, for calm
//! and stormy times have the same mean, and whether it is at either end, where odd values come together; of words, whether it is this
//! one. The longest memory of all these is the feature's.

use std::collections::BTreeMap;

use super::baseline::{Contents, DISPERSION_MAX, Reference};
use super::builder::Row;
use super::calibration::bin;
use super::joint::{JOINT_GROUP, is_held_out};
use super::memory::{Memories, Memory};
use super::profiler::confidence_bin;
use crate::drift::number;

/// Words that are looked at one by one, the commonest.
const WORDS_MAX: usize = 12;
/// Rows that a word needs for that, and that must not have the commonest value for a column to be told from one by chance in order.
const ROWS_MIN: u64 = 10;

/// Something of a row that has one value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seen {
    Feature(usize),
    Prediction,
    Confidence,
}

impl Seen {
    /// The features, the prediction, the confidence.
    pub(super) fn all(contents: &Contents) -> impl Iterator<Item = Self> + use<> {
        let features = (0..contents.features.len()).map(Self::Feature);
        features.chain([Self::Prediction, Self::Confidence])
    }

    fn is_ordered(self, contents: &Contents) -> bool {
        match self {
            Self::Feature(place) => {
                contents.features.get(place).is_some_and(|feature| feature.numeric().is_some())
            }
            Self::Prediction => false,
            Self::Confidence => true,
        }
    }

    /// The bins of the rows that have a value.
    fn bins(self, contents: &Contents, sample: &[Row]) -> Vec<(u64, usize)> {
        let bin_of = |row: &Row| match self {
            Self::Feature(place) => {
                bin(contents.features.get(place)?, row.values.get(place).copied()?)
            }
            Self::Prediction => row.class,
            Self::Confidence => row.confidence.and_then(confidence_bin),
        };
        // Words were chosen by the other rows, which have more of them.
        let is_partial = matches!(self, Self::Feature(place) if contents.is_held_out(place));
        let rows = sample.iter().filter(|row| !is_partial || is_held_out(row.order));
        rows.filter_map(|row| Some((row.order, bin_of(row)?))).collect()
    }
}

/// Adds to a baseline how long its features resemble themselves. Rows that were sorted say nothing about how they came.
pub(super) fn complete(contents: &mut Contents, sample: &[Row]) {
    let is_sorted = (0..contents.inputs).any(|place| is_sorted(contents, sample, place));
    let is_joint = |seen| match seen {
        Seen::Feature(place) => {
            contents.features.get(place).is_some_and(|feature| feature.group == JOINT_GROUP)
        }
        Seen::Prediction | Seen::Confidence => false,
    };
    let of_seen = |seen| {
        if is_sorted && !is_joint(seen) {
            return Memories::default();
        }
        let values = of_values(contents, sample, seen);
        Memories { values, missing: of_missing(contents, sample, seen) }
    };
    let mut memory: Vec<_> = Seen::all(contents).map(of_seen).collect();
    // Joint features are known of every other lot of rows, which hides a memory that is longer than a lot; and they change with what is
    // missing of any input.
    let of_inputs = memory.iter().take(contents.inputs).cloned();
    let of_inputs = of_inputs.flat_map(|of| [of.values, of.missing]);
    let of_inputs = of_inputs.fold(Memory::default(), Memory::larger);
    for (of, feature) in memory.iter_mut().zip(&contents.features) {
        if feature.group == JOINT_GROUP {
            of.values = std::mem::take(&mut of.values).larger(of_inputs.clone());
        }
    }
    if memory.iter().all(Memories::is_none) {
        return;
    }
    // For readers who know one factor for windows of all lengths.
    let rows = number(contents.rows);
    let plain = memory.iter().map(|of| of.values.factor(rows).min(DISPERSION_MAX));
    contents.dispersion = plain.collect();
    contents.memory = memory;
}

fn of_values(contents: &Contents, sample: &[Row], seen: Seen) -> Memory {
    let scores: Vec<f64> =
        scores(contents, sample, seen).into_iter().map(|(_, score)| score).collect();
    let bins: Vec<usize> = seen.bins(contents, sample).into_iter().map(|(_, bin)| bin).collect();
    let of_bin = |bin: usize| {
        let is_it: Vec<f64> = bins.iter().map(|found| f64::from(u8::from(*found == bin))).collect();
        Memory::of(&is_it)
    };
    if seen.is_ordered(contents) {
        let squares: Vec<f64> = scores.iter().map(|score| score * score).collect();
        let ends = [bins.iter().min(), bins.iter().max()].into_iter().flatten();
        let of_ends = ends.map(|end| of_bin(*end));
        return of_ends.fold(Memory::of(&scores).larger(Memory::of(&squares)), Memory::larger);
    }
    let mut counts = BTreeMap::<usize, u64>::new();
    for bin in &bins {
        *counts.entry(*bin).or_default() += 1;
    }
    let mut words: Vec<_> = counts.into_iter().filter(|(_, rows)| *rows >= ROWS_MIN).collect();
    words.sort_by_key(|(_, rows)| std::cmp::Reverse(*rows));
    words
        .into_iter()
        .take(WORDS_MAX)
        .map(|(word, _)| of_bin(word))
        .fold(Memory::default(), Memory::larger)
}

/// Only inputs are judged by what is missing of them.
fn of_missing(contents: &Contents, sample: &[Row], seen: Seen) -> Memory {
    let Seen::Feature(place) = seen else { return Memory::default() };
    let Some(feature) = contents.features.get(place).filter(|_| place < contents.inputs) else {
        return Memory::default();
    };
    let is_missing =
        |row: &Row| row.values.get(place).is_none_or(|value| bin(feature, *value).is_none());
    let missing: Vec<f64> = sample.iter().map(|row| f64::from(u8::from(is_missing(row)))).collect();
    Memory::of(&missing)
}

/// Where each row lies in its distribution, from -0.5 to 0.5; a category lies nowhere, so there it is whether it is the commonest.
pub(super) fn scores(contents: &Contents, sample: &[Row], seen: Seen) -> Vec<(u64, f64)> {
    let binned = seen.bins(contents, sample);
    let mut counts = BTreeMap::<usize, u64>::new();
    for (_, bin) in &binned {
        *counts.entry(*bin).or_default() += 1;
    }
    let all = number(u64::try_from(binned.len()).unwrap_or(u64::MAX)).max(1.0);
    let commonest = counts.iter().max_by_key(|(_, count)| **count).map(|(bin, _)| *bin);
    let (is_ordered, mut below) = (seen.is_ordered(contents), 0.0);
    let mut scores = BTreeMap::new();
    for (bin, count) in &counts {
        let share = number(*count) / all;
        let middle = below + share / 2.0 - 0.5;
        let is_commonest = f64::from(u8::from(Some(*bin) == commonest));
        scores.insert(*bin, if is_ordered { middle } else { is_commonest });
        below += share;
    }
    binned.into_iter().filter_map(|(order, bin)| Some((order, *scores.get(&bin)?))).collect()
}

/// Whether the rows were sorted by a column, or put in groups by its words.
fn is_sorted(contents: &Contents, sample: &[Row], place: usize) -> bool {
    let Some(feature) = contents.features.get(place) else { return false };
    let counts = match &feature.reference {
        Reference::Numeric(reference) => reference.counts.clone(),
        Reference::Categorical(reference) => reference.counts_with_unseen(),
    };
    // A few odd values may come last by chance.
    let commonest = counts.iter().max().copied().unwrap_or(0);
    if counts.iter().sum::<u64>() - commonest < 2 * ROWS_MIN {
        return false;
    }
    let values: Vec<f32> = sample.iter().filter_map(|row| row.values.get(place).copied()).collect();
    let steps: Vec<f32> = values
        .iter()
        .zip(values.iter().skip(1))
        .map(|(before, now)| now - before)
        .filter(|step| step.is_finite() && *step != 0.0)
        .collect();
    if feature.numeric().is_none() {
        let words = counts.iter().filter(|count| **count > 0).count();
        return steps.len() < words;
    }
    steps.iter().all(|step| *step > 0.0) || steps.iter().all(|step| *step < 0.0)
}
