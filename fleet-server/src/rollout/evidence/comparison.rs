//! How canaries compare with controls, by gate.

use std::fmt;

use sealift_protocol::api::ModelGates;
use serde::{Deserialize, Serialize};

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Share of requests that fail.
    Errors,
    /// 95th percentile of the latency.
    Latency,
    /// Mean confidence of predictions.
    Confidence,
    /// Shares of the classes that are predicted: where two images disagree, they move.
    Classes,
    /// Share of input values that are missing, of another type, or outside of the domain.
    Inputs,
    /// Share of rows on which the new image says something else than the live one beside it.
    Disagreement,
}

/// How canaries do beside those that they are compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// What is compared.
    pub metric: Metric,
    /// Of classes, which differs most.
    pub class: Option<u16>,
    /// What canaries have: a share, or µs.
    pub canary: f64,
    /// What they are compared with.
    pub control: f64,
    /// How much worse they may be.
    pub margin: f64,
    /// The evidence that they are worse than that.
    pub e_value: f64,
    /// From here on it is enough.
    pub limit: f64,
    /// Compared with their own past, as there is nobody else.
    pub is_against_past: bool,
    /// Whether the rollout may go on.
    pub is_held: bool,
}

impl Metric {
    /// All of them, in the order in which people are shown them.
    pub const ALL: [Self; 6] = [
        Self::Errors,
        Self::Latency,
        Self::Confidence,
        Self::Classes,
        Self::Inputs,
        Self::Disagreement,
    ];

    /// The gate's name.
    pub const fn gate(self) -> &'static str {
        match self {
            Self::Errors => "error-rise",
            Self::Latency => "latency-rise",
            Self::Confidence => "confidence-fall",
            Self::Classes => "class-shift",
            Self::Inputs => "input-rise",
            Self::Disagreement => "disagreement",
        }
    }

    /// How much worse canaries may be; none if nobody wants to know.
    pub const fn margin(self, gates: &ModelGates) -> Option<f64> {
        match self {
            Self::Errors => gates.error_rise,
            // The margin is in the threshold itself: so much slower than controls, and no more of them.
            Self::Latency => match gates.latency_rise {
                Some(_) => Some(0.0),
                None => None,
            },
            Self::Confidence => gates.confidence_fall,
            Self::Classes => gates.class_shift,
            Self::Inputs => gates.input_rise,
            Self::Disagreement => gates.disagreement,
        }
    }

    /// The most that a device counts in one look: one that is in trouble of its own must not speak for the image. Where more than that
    /// is usual, canaries cannot be shown to be worse, and only an absolute limit can halt.
    pub(super) const fn cap(self) -> f64 {
        match self {
            Self::Errors | Self::Inputs => 0.1,
            Self::Latency | Self::Disagreement => 0.5,
            Self::Confidence | Self::Classes => 1.0,
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let evidence = format!("e-value {:.0}, limit {:.0}", self.e_value, self.limit);
        let (what, unit) = match self.metric {
            Metric::Disagreement => {
                let (share, margin) = (self.canary * 100.0, self.margin * 100.0);
                return write!(
                    f,
                    "disagrees with the live image on {share:.1}% of rows, {margin:.1}% may be; {evidence}"
                );
            }
            Metric::Errors => ("error rate is", 100.0),
            Metric::Latency => ("95th percentile of latency is", 0.001),
            Metric::Confidence => ("mean confidence is", 100.0),
            Metric::Classes => ("share of predictions of", 100.0),
            Metric::Inputs => ("share of unusable input values is", 100.0),
        };
        f.write_str(what)?;
        if let Some(class) = self.class {
            write!(f, " class {class} is")?;
        }
        let sign = if self.metric == Metric::Latency { " ms" } else { "%" };
        let (canary, control) = (self.canary * unit, self.control * unit);
        let whom = if self.is_against_past { "before" } else { "in control" };
        write!(f, " {canary:.1}{sign} against {control:.1}{sign} {whom}; {evidence}")
    }
}
