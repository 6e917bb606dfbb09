//! Whether a prediction is kept, and with what chance it was: decided from values, the dice included.
//!
//! Every prediction has a chance that is known before it is made and above zero while there is budget, so that figures about all predictions
//! can be estimated without bias from the few that were kept: each counts as much as the inverse of its chance says (Horvitz and Thompson,
//! "A generalization of sampling without replacement from a finite universe", JASA 1952).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::policy::{CapturePolicy, Ppm};

/// What is known of a prediction when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Seen {
    /// The probability of the likeliest class; none where the model gives no probabilities.
    pub confidence: Option<f64>,
    /// How far the likeliest class is before the second.
    pub margin: Option<f64>,
    /// Whether a shadow of the model says otherwise; none without a shadow.
    pub disagrees: Option<bool>,
}

/// Why a prediction was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The model was not confident.
    Confidence,
    /// Two classes were close.
    Margin,
    /// A shadow said otherwise.
    Disagreement,
    /// By chance.
    Random,
}

impl Why {
    /// The word for it, as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confidence => "confidence",
            Self::Margin => "margin",
            Self::Disagreement => "disagreement",
            Self::Random => "random",
        }
    }
}

/// That a prediction is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// The rules that chose it; never none.
    pub why: BTreeSet<Why>,
    /// The chance with which they did, above 0 and at most 1.
    pub chance: f64,
}

/// By how much chances are thinned out, for what a day's budget has left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Left {
    /// Of those that rules choose; from 0 to 1.
    pub by_rule: f64,
    /// Of those that chance chooses; from 0 to 1.
    pub by_chance: f64,
}

impl CapturePolicy {
    /// Whether a prediction is kept. `dice` is a number from 0 to below 1.
    pub fn decide(&self, seen: Seen, left: Left, dice: f64) -> Option<Taken> {
        let mut why = self.fired(seen);
        let by_chance = self.share.share() * left.by_chance;
        let chance = if why.is_empty() { by_chance } else { left.by_rule.max(by_chance) };
        if dice >= chance {
            return None;
        }
        // One throw for both: what chance alone would have kept is among what the rules keep.
        if dice < by_chance {
            why.insert(Why::Random);
        }
        Some(Taken { why, chance })
    }

    /// The rules that choose it, whatever the dice say. What is no number is no confidence.
    pub(super) fn fired(&self, seen: Seen) -> BTreeSet<Why> {
        let is_below = |rule: Option<Ppm>, value: Option<f64>| match (rule, value) {
            (Some(rule), Some(value)) => value.is_nan() || value < rule.share(),
            (Some(_) | None, _) => false,
        };
        let rules = [
            (Why::Confidence, is_below(self.below, seen.confidence)),
            (Why::Margin, is_below(self.margin, seen.margin)),
            (Why::Disagreement, self.disagreement && seen.disagrees == Some(true)),
        ];
        rules.into_iter().filter_map(|(why, fires)| fires.then_some(why)).collect()
    }
}
