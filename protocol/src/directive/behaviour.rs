//! By what a device judges how a new image behaves while it is on trial, beside crashes and failed requests.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Rules less than this apart from what was before would call noise a fault.
const LATENCY_RISE_MIN: u16 = 50;
const CONFIDENCE_DROP_MIN: u16 = 20;
const CLASS_LOSS_MIN: u16 = 200;

/// Ten times as slow: whoever allows more wants no rule.
const LATENCY_RISE_MAX: u16 = 9_000;

/// A day: no watch is longer by default.
const STEADY_S_MAX: u32 = 86_400;

/// How far a new image may be from what the image before showed on the same device at the same hours. 0 is no limit. Nothing is judged
/// where the image before was not seen long enough, nor where there is none to go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Behaviour {
    /// By how much longer than before the engine may take for inputs of the same size, in per mille; 50 to 9,000.
    pub latency_rise_permille: u16,
    /// By how much less than before the image may be confident, in thousandths of 1; 20 to 1,000.
    pub confidence_drop_permille: u16,
    /// How much of its share of the predictions a class may lose, in per mille; 200 to 1,000. Classes with less than 5 % are not looked at.
    pub class_loss_permille: u16,
    /// Seconds for which it must be so; 1 to 86,400.
    pub steady_s: u32,
}

/// A rule that cannot be meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidBehaviour {
    field: &'static str,
    given: u32,
    low: u32,
    high: u32,
}

impl fmt::Display for InvalidBehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, given, low, high } = self;
        write!(f, "{field} is {given}; it is between {low} and {high}, or 0 for no rule")
    }
}

impl std::error::Error for InvalidBehaviour {}

impl Behaviour {
    /// No rules: a directive that says nothing means this, as do all that were signed before there were any.
    pub const OFF: Self = Self {
        latency_rise_permille: 0,
        confidence_drop_permille: 0,
        class_loss_permille: 0,
        steady_s: 300,
    };

    /// Whether nothing is said. Then the bytes are those of a trial without rules, which are kept under the digests of earlier rollouts.
    pub fn is_unsaid(&self) -> bool {
        *self == Self::OFF
    }

    /// Whether any rule is there to judge by.
    pub const fn is_off(&self) -> bool {
        self.latency_rise_permille == 0
            && self.confidence_drop_permille == 0
            && self.class_loss_permille == 0
    }

    /// Refuses rules that cannot be meant.
    pub fn check(&self) -> Result<(), InvalidBehaviour> {
        let rules = [
            (
                "latency_rise_permille",
                self.latency_rise_permille,
                LATENCY_RISE_MIN,
                LATENCY_RISE_MAX,
            ),
            ("confidence_drop_permille", self.confidence_drop_permille, CONFIDENCE_DROP_MIN, 1_000),
            ("class_loss_permille", self.class_loss_permille, CLASS_LOSS_MIN, 1_000),
        ];
        let rule = |&(_, given, low, high): &(_, u16, u16, u16)| {
            given != 0 && !(low..=high).contains(&given)
        };
        if let Some((field, given, low, high)) = rules.into_iter().find(rule) {
            let (given, low, high) = (given.into(), low.into(), high.into());
            return Err(InvalidBehaviour { field, given, low, high });
        }
        if !(1..=STEADY_S_MAX).contains(&self.steady_s) {
            let (field, given) = ("steady_s", self.steady_s);
            return Err(InvalidBehaviour { field, given, low: 1, high: STEADY_S_MAX });
        }
        Ok(())
    }
}

impl Default for Behaviour {
    fn default() -> Self {
        Self::OFF
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use crate::directive::Trial;

    #[test]
    fn rules_that_cannot_be_meant_are_refused_by_name() {
        let off = Behaviour::OFF;
        let sound = Behaviour { latency_rise_permille: 500, class_loss_permille: 1_000, ..off };
        assert_eq!((off.check(), sound.check()), (Ok(()), Ok(())));
        for (wrong, field) in [
            (Behaviour { latency_rise_permille: 49, ..off }, "latency_rise_permille is 49"),
            (Behaviour { latency_rise_permille: 9_001, ..off }, "latency_rise_permille is 9001"),
            (Behaviour { confidence_drop_permille: 19, ..off }, "confidence_drop_permille is 19"),
            (Behaviour { confidence_drop_permille: 1_001, ..off }, "confidence_drop_permille is"),
            (Behaviour { class_loss_permille: 199, ..off }, "class_loss_permille is 199"),
            (Behaviour { steady_s: 0, ..off }, "steady_s is 0"),
            (Behaviour { steady_s: 86_401, ..off }, "steady_s is 86401"),
        ] {
            let refused = wrong.check().unwrap_err().to_string();
            assert!(refused.starts_with(field), "{refused}");
        }
    }

    #[test]
    fn a_trial_without_rules_has_the_bytes_that_it_always_had_and_rules_survive_the_wire() {
        let plain = codec::encode(&Trial::default()).unwrap();
        let text = b"behaviour";
        assert!(!plain.windows(text.len()).any(|part| part == text));
        assert_eq!(codec::decode::<Trial>("trial", &plain, 1_000).unwrap(), Trial::default());

        let behaviour = Behaviour { latency_rise_permille: 500, ..Behaviour::OFF };
        let trial = Trial { behaviour, ..Trial::default() };
        let bytes = codec::encode(&trial).unwrap();
        assert_eq!(codec::decode::<Trial>("trial", &bytes, 1_000).unwrap(), trial);
    }
}
