//! Taking the counts of one device out of counts of many again.

use super::baseline::{Baseline, Feature, NumericReference};
use super::moments::Moments;
use super::{CategoricalCounts, LatencySketch, Mismatch, NumericCounts, Profile};

impl Profile {
    /// Takes out what `part` had brought in by [`Profile::merge`], exactly: what is left is what the others have counted. On an error
    /// nothing was taken.
    ///
    /// The smallest and the largest value of others are not known where the part had them; there the reference's take their place. Of how
    /// many different ones the unseen values of others were, nothing is known where the part had any.
    pub fn take_out(&mut self, part: &Self, baseline: &Baseline) -> Result<(), Mismatch> {
        self.check(baseline)?;
        part.check(baseline)?;
        let rest = self.without(part, baseline).ok_or(Mismatch::Part)?;
        *self = rest;
        Ok(())
    }

    fn without(&self, part: &Self, baseline: &Baseline) -> Option<Self> {
        let references = baseline.features().iter().filter_map(Feature::numeric);
        let numeric = self.numeric.iter().zip(&part.numeric).zip(references);
        let categorical = self.categorical.iter().zip(&part.categorical);
        Some(Self {
            baseline: self.baseline,
            rows: self.rows.checked_sub(part.rows)?,
            skipped: self.skipped.checked_sub(part.skipped)?,
            misshapen: self.misshapen.checked_sub(part.misshapen)?,
            numeric: numeric
                .map(|((mine, part), reference)| mine.without(part, reference))
                .collect::<Option<_>>()?,
            categorical: categorical
                .map(|(mine, part)| mine.without(part))
                .collect::<Option<_>>()?,
            classes: fewer(&self.classes, &part.classes)?,
            unseen_class: self.unseen_class.checked_sub(part.unseen_class)?,
            confidence: fewer(&self.confidence, &part.confidence)?,
            faulty_confidence: self.faulty_confidence.checked_sub(part.faulty_confidence)?,
            pairs: fewer(&self.pairs, &part.pairs)?,
            latency: LatencySketch { counts: fewer(&self.latency.counts, &part.latency.counts)? },
        })
    }
}

impl NumericCounts {
    fn without(&self, part: &Self, reference: &NumericReference) -> Option<Self> {
        let mut bins = self.bins;
        for (count, part) in bins.iter_mut().zip(&part.bins) {
            *count = count.checked_sub(*part)?;
        }
        let mut rest = Self {
            bins,
            null: self.null.checked_sub(part.null)?,
            nan: self.nan.checked_sub(part.nan)?,
            infinite: self.infinite.checked_sub(part.infinite)?,
            wrong_type: self.wrong_type.checked_sub(part.wrong_type)?,
            moments: self.moments,
        };
        let is_empty = rest.n() == 0;
        rest.moments = self.moments.without(&part.moments, is_empty, reference)?;
        Some(rest)
    }
}

impl CategoricalCounts {
    fn without(&self, part: &Self) -> Option<Self> {
        Some(Self {
            domain: fewer(&self.domain, &part.domain)?,
            unseen: self.unseen.checked_sub(part.unseen)?,
            null: self.null.checked_sub(part.null)?,
            wrong_type: self.wrong_type.checked_sub(part.wrong_type)?,
            different: self.different.without(&part.different),
        })
    }
}

impl Moments {
    fn without(&self, part: &Self, is_empty: bool, reference: &NumericReference) -> Option<Self> {
        let mut rest = *self;
        rest.sum.0 = self.sum.0.checked_sub(part.sum.0)?;
        rest.squares.0 = self.squares.0.checked_sub(part.squares.0)?;
        rest.clipped = self.clipped.checked_sub(part.clipped)?;
        rest.range = match (self.range, part.range) {
            (_, _) if is_empty => None,
            (Some((min, max)), Some((low, high))) => {
                let min = if low <= min { reference.min } else { min };
                let max = if high >= max { reference.max } else { max };
                Some((min.min(max), max.max(min)))
            }
            (range, _) => range,
        };
        Some(rest)
    }
}

/// Count by count less; none where there is not so much.
fn fewer(counts: &[u64], part: &[u64]) -> Option<Vec<u64>> {
    counts.iter().zip(part).map(|(count, part)| count.checked_sub(*part)).collect()
}
