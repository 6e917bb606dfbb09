//! A baseline of what a model has seen in production: the counts of a profile, on the bins that it was counted on.
//!
//! ```text
//!  old baseline   edges   ──────────────kept──────────────▶  edges    new baseline
//!  profile        counts, sums  ──in place of the counts──▶  counts
//! ```
//! Bins, projections and how much windows vary stay those of the old baseline: nobody has rows to compute others from. What lay in the
//! tails is in the outermost bins of the new one, whose range reaches to the smallest and the largest value that was seen.

use super::baseline::{Category, Phase, total};
use super::{
    Baseline, CategoricalCounts, CategoricalReference, Feature, InvalidBaseline, Mismatch,
    NumericCounts, NumericReference, Profile, Reference,
};

/// Rows of production that are enough for a reference; fewer would call a quiet week the truth.
pub const SUCCESSOR_ROWS_MIN: u64 = 500;

/// Why a profile makes no baseline.
#[derive(Debug, thiserror::Error)]
pub enum NoSuccessor {
    /// It was counted on other bins.
    #[error(transparent)]
    Bins(#[from] Mismatch),
    /// It has seen too little.
    #[error("{0} rows are too few for a baseline; at least {SUCCESSOR_ROWS_MIN} are needed")]
    Few(u64),
    /// Some rows had no values.
    #[error("{0} rows have another number of values than the model takes")]
    Misshapen(u64),
    /// A phase of the season has no rows, or there are others than the old baseline has.
    #[error("the season has {expected} phases; {given} of them have rows")]
    Phases {
        /// Of the old baseline.
        expected: usize,
        /// That were seen.
        given: usize,
    },
    /// What it has counted makes no baseline.
    #[error(transparent)]
    Invalid(#[from] InvalidBaseline),
}

impl Baseline {
    /// The baseline of what was counted on this one's bins; `phases` are what was counted in each phase of its season, none for a
    /// baseline without one.
    pub fn succeeded_by(&self, profile: &Profile, phases: &[Profile]) -> Result<Self, NoSuccessor> {
        self.counted(profile)?;
        let mut contents = self.contents().clone();
        contents.rows = profile.rows;
        let (mut numeric, mut categorical) = (profile.numeric.iter(), profile.categorical.iter());
        for feature in &mut contents.features {
            let name = feature.name.clone();
            match &mut feature.reference {
                Reference::Numeric(reference) => {
                    let seen = numeric.next().ok_or(Mismatch::Shape)?;
                    reference.succeed(&name, seen)?;
                }
                Reference::Categorical(reference) => {
                    reference.succeed(categorical.next().ok_or(Mismatch::Shape)?);
                }
            }
        }
        for (class, count) in contents.classes.iter_mut().zip(&profile.classes) {
            class.count = *count;
        }
        contents.confidence = confidence(&profile.confidence);
        contents.pairs.clone_from(&profile.pairs);
        contents.phases = self.phases_of(phases, !contents.confidence.is_empty())?;
        contents.v = contents.v.max(contents.version());
        Ok(Self::decode(&crate::codec::encode(&contents).map_err(InvalidBaseline::from)?)?)
    }

    fn counted(&self, profile: &Profile) -> Result<(), NoSuccessor> {
        profile.check(self)?;
        if profile.misshapen > 0 {
            return Err(NoSuccessor::Misshapen(profile.misshapen));
        }
        if profile.rows < SUCCESSOR_ROWS_MIN {
            return Err(NoSuccessor::Few(profile.rows));
        }
        Ok(())
    }

    fn phases_of(
        &self,
        phases: &[Profile],
        has_confidence: bool,
    ) -> Result<Vec<Phase>, NoSuccessor> {
        let expected = self.phases().len();
        let given = phases.iter().filter(|profile| profile.rows > 0).count();
        if given != expected || phases.len() != expected {
            return Err(NoSuccessor::Phases { expected, given });
        }
        phases.iter().map(|profile| self.phase_of(profile, has_confidence)).collect()
    }

    fn phase_of(&self, profile: &Profile, has_confidence: bool) -> Result<Phase, NoSuccessor> {
        profile.check(self)?;
        let (mut numeric, mut categorical) = (profile.numeric.iter(), profile.categorical.iter());
        let (mut counts, mut faulty, mut wrong_type) = (Vec::new(), Vec::new(), Vec::new());
        for Feature { reference, .. } in self.features() {
            match reference {
                Reference::Numeric(reference) => {
                    let seen = numeric.next().ok_or(Mismatch::Shape)?;
                    counts.push(without_tails(seen.bins(reference)));
                    faulty.push(seen.faulty());
                    wrong_type.push(seen.wrong_type);
                }
                Reference::Categorical(_) => {
                    let seen = categorical.next().ok_or(Mismatch::Shape)?;
                    counts.push(seen.domain.iter().copied().chain([seen.unseen]).collect());
                    faulty.push(seen.faulty());
                    wrong_type.push(seen.wrong_type);
                }
            }
        }
        let confidence = if has_confidence { profile.confidence.clone() } else { Vec::new() };
        Ok(Phase {
            rows: profile.rows,
            counts,
            faulty,
            wrong_type,
            classes: profile.classes.clone(),
            confidence,
            pairs: profile.pairs.clone(),
        })
    }
}

impl NumericReference {
    fn succeed(&mut self, name: &str, seen: &NumericCounts) -> Result<(), InvalidBaseline> {
        let none = || InvalidBaseline::Feature {
            feature: name.to_owned(),
            rule: "it has no value in that span",
        };
        let (low, high) = seen.range().ok_or_else(none)?;
        let (mean, sd) = seen.mean_and_sd(self).ok_or_else(none)?;
        self.counts = without_tails(seen.bins(self));
        self.min = self.min.min(low);
        self.max = self.max.max(high);
        self.mean = mean;
        self.sd = sd;
        self.kurtosis = 0.0; // of sums of squares alone it is not known
        self.faulty = seen.faulty();
        self.wrong_type = seen.wrong_type;
        Ok(())
    }
}

impl CategoricalReference {
    fn succeed(&mut self, seen: &CategoricalCounts) {
        let pairs = self.domain.iter_mut().zip(&seen.domain);
        pairs.for_each(|(category, count): (&mut Category, &u64)| category.count = *count);
        self.unseen = seen.unseen;
        self.faulty = seen.faulty();
        self.wrong_type = seen.wrong_type;
        // The domain was chosen by other rows than these.
        self.held_out = false;
    }
}

/// The counts of bins, with what lay below the first in it, and above the last in that.
fn without_tails(bins: &[u64]) -> Vec<u64> {
    let [below, bins @ .., above] = bins else { return Vec::new() };
    let mut counts = bins.to_vec();
    if let Some(first) = counts.first_mut() {
        *first = first.saturating_add(*below);
    }
    if let Some(last) = counts.last_mut() {
        *last = last.saturating_add(*above);
    }
    counts
}

/// Nothing where no row has a confidence: a histogram of zeros would look like a reference.
fn confidence(counts: &[u64]) -> Vec<u64> {
    if total(counts) == 0 { Vec::new() } else { counts.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::super::{BaselineBuilder, Column, Kind, Profiler, Season};
    use super::*;
    use crate::drift::{DriftState, Policy, Watcher};
    use crate::profile::Cell;

    fn columns() -> Vec<Column> {
        let colours = ["red", "blue"].map(str::to_owned).to_vec();
        let colour = Column {
            name: "colour".to_owned(),
            group: "all".to_owned(),
            kind: Kind::Categorical(colours),
        };
        vec![Column::numeric("size", "all"), Column::numeric("weight", "all"), colour]
    }

    fn row(random: &mut fastrand::Rng, shift: f32) -> [Cell; 3] {
        let size = random.f32() * 10.0 + shift;
        let colour = if random.f32() < 0.3 { 1.0 } else { 0.0 };
        [Cell::Number(size), Cell::Number(random.f32()), Cell::Number(colour)]
    }

    fn baseline(season: Option<Season>) -> Baseline {
        let classes = ["no", "yes"].map(str::to_owned).to_vec();
        let mut builder = BaselineBuilder::new(columns(), classes).with_joint();
        if let Some(season) = season {
            builder = builder.with_season(season);
        }
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..4_000 {
            builder.push_cells(&row(&mut random, 0.0), Some("yes"), Some(0.9)).unwrap();
        }
        builder.build().unwrap()
    }

    fn seen(baseline: &Baseline, rows: usize, shift: f32, seed: u64) -> Profile {
        let mut profiler = Profiler::new(baseline);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..rows {
            profiler.observe_cells(&row(&mut random, shift), Some(0), Some(0.8), None);
        }
        profiler.close()
    }

    fn edges(baseline: &Baseline) -> Vec<(Vec<f32>, Vec<usize>)> {
        let numeric = baseline.features().iter().filter_map(Feature::numeric);
        numeric.map(|reference| (reference.edges.clone(), reference.fine.clone())).collect()
    }

    /// How many windows of 400 rows, of twelve, are called drift.
    fn drifted(baseline: &Baseline, shift: f32) -> usize {
        let mut watcher = Watcher::new(baseline.clone(), Policy::default());
        let mut random = fastrand::Rng::with_seed(99);
        let mut count = 0;
        for _ in 0..12 {
            for _ in 0..400 {
                watcher.observe(&row(&mut random, shift), Some(0), Some(0.8));
            }
            let verdicts = watcher.close().unwrap();
            count += usize::from(verdicts.iter().any(|found| found.state == DriftState::Drifted));
        }
        count
    }

    #[test]
    fn bins_stay_and_counts_are_those_of_production() {
        let old = baseline(None);
        let profile = seen(&old, 3_000, 4.0, 2);

        let new = old.succeeded_by(&profile, &[]).unwrap();

        assert_eq!(edges(&new), edges(&old));
        assert_eq!((new.rows(), new.joint()), (3_000, old.joint()));
        assert_ne!(new.digest(), old.digest());
        let (was, is) =
            (old.features()[0].numeric().unwrap(), new.features()[0].numeric().unwrap());
        let counted = profile.numeric()[0].bins(was);
        assert!(counted.last().copied().unwrap() > 0, "the span reaches beyond the reference");
        assert_eq!(is.counts.iter().sum::<u64>(), 3_000);
        assert_eq!(
            is.counts.last().copied().unwrap(),
            counted[counted.len() - 2..].iter().sum::<u64>()
        );
        assert_eq!((is.min, is.max), (was.min, profile.numeric()[0].range().unwrap().1));
        assert!((is.mean - was.mean - 4.0).abs() < 0.3, "{} {}", is.mean, was.mean);
        assert_eq!(new.classes()[0].count, 3_000);
        assert_eq!(Baseline::decode(&new.encode().unwrap()).unwrap(), new);
    }

    #[test]
    fn what_was_drift_is_usual_against_the_new_baseline_and_the_other_way_round() {
        let old = baseline(None);
        let new = old.succeeded_by(&seen(&old, 6_000, 4.0, 3), &[]).unwrap();

        assert!(drifted(&old, 4.0) >= 10);
        assert_eq!(drifted(&new, 4.0), 0);
        assert!(drifted(&new, 0.0) >= 10);
    }

    #[test]
    fn phases_are_taken_each_from_its_own_hours() {
        let old = baseline(Some(Season { rows: 100, phases: 2, phase_ms: 3_600_000 }));
        let phases = [seen(&old, 600, 0.0, 4), seen(&old, 700, 3.0, 5)];
        let mut whole = phases[0].clone();
        whole.merge(&phases[1]).unwrap();

        let new = old.succeeded_by(&whole, &phases).unwrap();

        assert_eq!(new.phases().iter().map(|phase| phase.rows).collect::<Vec<_>>(), [600, 700]);
        let refused = old.succeeded_by(&whole, &phases[..1]).unwrap_err().to_string();
        assert_eq!(refused, "the season has 2 phases; 1 of them have rows");
    }

    #[test]
    fn too_few_rows_and_other_bins_make_no_baseline() {
        let old = baseline(None);
        let few = seen(&old, 499, 0.0, 6);
        assert!(matches!(old.succeeded_by(&few, &[]), Err(NoSuccessor::Few(499))));

        let other = old.succeeded_by(&seen(&old, 900, 0.0, 7), &[]).unwrap();
        let refused = other.succeeded_by(&seen(&old, 900, 0.0, 8), &[]);
        assert!(matches!(refused, Err(NoSuccessor::Bins(Mismatch::Baseline { .. }))));
    }
}
