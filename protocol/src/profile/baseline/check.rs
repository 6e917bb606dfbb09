//! Whether the figures of a baseline fit each other.

use super::{
    BASELINE_VERSION, CLASSES_MAX, CONFIDENCE_BINS, Contents, DISPERSION_MAX, Feature,
    InvalidBaseline, LATEST_VERSION, NAME_CHARS_MAX, PHASES_MAX, Phase, Reference, SUMMARY, total,
};
use crate::limits::FEATURES_MAX;
use crate::profile::joint::Joint;
use crate::profile::memory::Memories;
use crate::profile::{ROWS_MAX, pairs};

impl Contents {
    /// Contents of the current version.
    pub(in crate::profile) fn new(rows: u64, inputs: usize, features: Vec<Feature>) -> Self {
        Self {
            v: BASELINE_VERSION,
            rows,
            inputs,
            features,
            classes: Vec::new(),
            confidence: Vec::new(),
            pairs: Vec::new(),
            dispersion: Vec::new(),
            memory: Vec::new(),
            phases: Vec::new(),
            phase_ms: 0,
            joint: None,
        }
    }

    /// The oldest version whose readers read it rightly.
    pub(in crate::profile) fn version(&self) -> u8 {
        let is_late = (0..self.features.len()).any(|place| self.is_held_out(place));
        if is_late { LATEST_VERSION } else { BASELINE_VERSION }
    }

    /// Whether a feature is counted in some rows of the reference alone.
    pub(in crate::profile) fn is_held_out(&self, place: usize) -> bool {
        let first_joint = self.features.len().saturating_sub(self.joint_names().len());
        place >= first_joint
            || self.features.get(place).is_some_and(|feature| match &feature.reference {
                Reference::Categorical(reference) => reference.held_out,
                Reference::Numeric(_) => false,
            })
    }

    pub(super) fn check(&self) -> Result<(), InvalidBaseline> {
        if !(BASELINE_VERSION..=LATEST_VERSION).contains(&self.v) || self.v < self.version() {
            return Err(InvalidBaseline::Version(self.v));
        }
        if !(1..=ROWS_MAX).contains(&self.rows) {
            return Err(InvalidBaseline::Rows(self.rows));
        }
        counted("features", self.features.len(), FEATURES_MAX)?;
        named(self.features.iter().map(|feature| feature.name.as_str()))?;
        for (place, feature) in self.features.iter().enumerate() {
            feature.check(self.rows, self.is_held_out(place))?;
        }
        self.check_derived()?;
        self.check_outputs()?;
        self.check_pairs(&self.pairs, self.rows)?;
        self.check_calibration()
    }

    fn check_pairs(&self, pairs: &[u64], rows: u64) -> Result<(), InvalidBaseline> {
        let inputs = self.features.iter().take(self.inputs);
        let numeric = inputs.filter(|feature| feature.numeric().is_some()).count();
        let is_length = pairs.is_empty() || pairs.len() == pairs::counts_of(numeric);
        let is_count = |pair: &[u64; 2]| total(pair) <= rows;
        if is_length && pairs.as_chunks().0.iter().all(is_count) {
            return Ok(());
        }
        Err(InvalidBaseline::Calibration("its pairs are not those of its numeric inputs"))
    }

    fn check_calibration(&self) -> Result<(), InvalidBaseline> {
        // One for each feature, one for the prediction and one for the confidence.
        let subjects = self.features.len() + 2;
        let is_factor = |factor: &f64| (1.0..=DISPERSION_MAX).contains(factor);
        let is_length = self.dispersion.is_empty() || self.dispersion.len() == subjects;
        if !is_length || !self.dispersion.iter().all(is_factor) {
            return Err(InvalidBaseline::Calibration("its dispersion is not a factor a feature"));
        }
        let is_length = self.memory.is_empty() || self.memory.len() == subjects;
        if !is_length || !self.memory.iter().all(Memories::is_sound) {
            return Err(InvalidBaseline::Calibration("its memory is not a curve a feature"));
        }
        if self.phases.is_empty() {
            return Ok(());
        }
        counted("phases", self.phases.len(), PHASES_MAX)?;
        if self.phase_ms <= 0 {
            return Err(InvalidBaseline::Calibration("its phases have no length"));
        }
        self.phases.iter().try_for_each(|phase| self.check_phase(phase))
    }

    fn check_phase(&self, phase: &Phase) -> Result<(), InvalidBaseline> {
        let lengths = self.features.iter().map(|feature| match &feature.reference {
            Reference::Numeric(reference) => reference.counts.len(),
            Reference::Categorical(reference) => reference.domain.len() + 1,
        });
        let adds_up = |(place, (counts, faulty)): (usize, (&Vec<u64>, &u64))| {
            let found = total(counts).saturating_add(*faulty);
            found == phase.rows || (self.is_held_out(place) && found < phase.rows)
        };
        let is_whole = lengths.eq(phase.counts.iter().map(Vec::len))
            && phase.faulty.len() == self.features.len()
            && phase.counts.iter().zip(&phase.faulty).enumerate().all(adds_up)
            && (phase.wrong_type.is_empty() || phase.wrong_type.len() == self.features.len())
            && phase.classes.len() == self.classes.len()
            && phase.confidence.len() == self.confidence.len()
            && phase.pairs.len() == self.pairs.len()
            && (1..=self.rows).contains(&phase.rows);
        if !is_whole {
            return Err(InvalidBaseline::Calibration("a phase does not have the features' counts"));
        }
        self.check_pairs(&phase.pairs, phase.rows)
    }

    fn joint_names(&self) -> Vec<String> {
        self.joint.as_ref().map(Joint::names).unwrap_or_default()
    }

    pub(super) fn has_summary(&self) -> bool {
        let derived = self.features.len().saturating_sub(self.inputs);
        derived >= SUMMARY.len() && derived > self.joint_names().len()
    }

    /// After the inputs come brightness and contrast, or neither; then the joint features, if there are any; and those are numeric.
    fn check_derived(&self) -> Result<(), InvalidBaseline> {
        counted("inputs", self.inputs, self.features.len())?;
        let derived = self.features.get(self.inputs..).unwrap_or_default();
        let is_numeric = |feature: &Feature| matches!(feature.reference, Reference::Numeric(_));
        let names = derived.iter().map(|feature| feature.name.as_str());
        let joint = self.joint_names();
        let summary = SUMMARY.into_iter().filter(|_| self.has_summary());
        if names.eq(summary.chain(joint.iter().map(String::as_str)))
            && derived.iter().all(is_numeric)
        {
            return self.check_joint();
        }
        let rule = "it is neither an input nor a derived feature";
        let feature = derived.first().map(|feature| feature.name.clone()).unwrap_or_default();
        Err(InvalidBaseline::Feature { feature, rule })
    }

    fn check_joint(&self) -> Result<(), InvalidBaseline> {
        let inputs = self.features.iter().take(self.inputs);
        let numeric = inputs.filter(|feature| feature.numeric().is_some()).count();
        let rule = self.joint.as_ref().and_then(|joint| joint.broken_rule(numeric));
        rule.map_or(Ok(()), |rule| Err(InvalidBaseline::Calibration(rule)))
    }

    fn check_outputs(&self) -> Result<(), InvalidBaseline> {
        if !self.classes.is_empty() {
            counted("classes", self.classes.len(), CLASSES_MAX)?;
            named(self.classes.iter().map(|class| class.name.as_str()))?;
        }
        let predictions: Vec<_> = self.classes.iter().map(|class| class.count).collect();
        if total(&predictions) > self.rows {
            let rule = "its counts are more than the rows";
            return Err(InvalidBaseline::Feature { feature: "prediction".to_owned(), rule });
        }
        let is_length = matches!(self.confidence.len(), 0 | CONFIDENCE_BINS);
        if is_length && total(&self.confidence) <= self.rows {
            return Ok(());
        }
        Err(InvalidBaseline::Confidence)
    }
}

/// Whether a feature's rows are those of the reference; of what is held out there are fewer.
pub(super) const fn is_whole(found: u64, rows: u64, is_held_out: bool) -> bool {
    found == rows || (is_held_out && 0 < found && found < rows)
}

/// Refuses none, and more than `max`, of something.
pub(super) fn counted(what: &'static str, given: usize, max: usize) -> Result<(), InvalidBaseline> {
    if (1..=max).contains(&given) {
        Ok(())
    } else {
        Err(InvalidBaseline::Count { what, given, max })
    }
}

/// Refuses names that are empty, long or not their own.
pub(super) fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), InvalidBaseline> {
    let mut known = std::collections::BTreeSet::new();
    for name in names {
        let chars = name.chars().take(NAME_CHARS_MAX + 1).count();
        if !(1..=NAME_CHARS_MAX).contains(&chars) || !known.insert(name) {
            let name = name.chars().take(NAME_CHARS_MAX).collect();
            return Err(InvalidBaseline::Name { name });
        }
    }
    Ok(())
}
