//! Whether devices with the new image do worse than those without, by a test that may be looked at at any time.
//!
//! ```text
//!  readings of one look ──scores──▶ one number per device ──bets──▶ e-value of each gate ──over its limit──▶ halt
//!    canary: told, serves it          0 to 1, capped                 bet.rs
//!    control: not told yet            reading.rs                     allowance = margin + spread.rs
//! ```
//! The unit is the device, not the request: a thousand requests that one device fails together are one observation. Which devices
//! are canaries is a hash, and so as good as a coin; what differs between devices anyway is allowed for ([`spread`]).
//!
//! With the risk `a` of a rollout, a gate's limit is `2 · gates · waves / a`: half of the risk is for the bets (Ville's inequality),
//! half for canaries that were worse by chance from the start. Together a rollout of a harmless image halts with a probability of at
//! most `a`, however often and whenever somebody looks.

use std::collections::BTreeMap;

use sealift_protocol::api::ModelGates;
use sealift_protocol::id::DeviceId;
use sealift_protocol::report::Shadowed;
use serde::{Deserialize, Serialize};

mod bet;
mod comparison;
mod gather;
mod past;
mod reading;
mod shadow;
mod spread;

use bet::{Bets, Block};
pub use comparison::{Comparison, Metric};
pub use gather::{Came, Observation, Roles, Scene};
pub use past::Past;
pub use reading::Reading;
use reading::{Column, Columns};
use shadow::Shadows;
use spread::{Spread, student_quantile};

/// The probability that a rollout of a harmless image is halted by the gates that look at the model.
pub const RISK: f64 = 0.01;
/// With fewer devices there is no spread to speak of, and canaries are compared with their own past.
pub const CONTROLS_MIN: usize = 3;
/// Classes that are compared; with more of them each single one says little.
const CLASSES_MAX: usize = 32;
/// The newest look's share in the latency that is exceeded by one request in twenty.
const FRESH: f64 = 0.2;

/// How a wave is judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules<'a> {
    /// What the operator allows.
    pub gates: &'a ModelGates,
    /// Waves of the rollout: they share the risk.
    pub waves: usize,
}

/// What was seen in one look.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// Of devices of the wave that serve the new image.
    pub canaries: BTreeMap<DeviceId, Reading>,
    /// Of devices that were not told yet, in the same span of time.
    pub controls: BTreeMap<DeviceId, Reading>,
}

/// What is known of a wave so far; kept between looks.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Evidence {
    /// Looks with something to compare.
    looks: u64,
    /// Bets by what they are about.
    #[serde(default)]
    bets: BTreeMap<Subject, Bets>,
    /// Of each canary, what it did so far.
    #[serde(default)]
    canaries: Spread,
    /// Of each control.
    #[serde(default)]
    controls: Spread,
    /// Requests that canaries have answered or failed.
    requests: u64,
    /// The latency that 5% of the requests of controls exceed, in µs, as of the last look.
    #[serde(default)]
    control_p95_us: Option<f64>,
    #[serde(default)]
    canary_p95_us: Option<f64>,
    /// What canaries did before, once there is nobody to compare them with.
    #[serde(default)]
    past: Option<Past>,
    /// What canaries have counted beside live images.
    #[serde(default)]
    shadows: Shadows,
}

/// What a bet is about: a column, and whether it is feared to rise or to fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Subject {
    column: Column,
    falls: bool,
}

impl Evidence {
    /// Takes one look. The order of looks matters, their number does not.
    pub fn look(&mut self, look: &Look, rules: Rules<'_>) {
        let has_control = look.controls.len() >= CONTROLS_MIN;
        if look.canaries.is_empty() || (!has_control && self.past.is_none()) {
            return;
        }
        let threshold_us = if has_control {
            self.control_p95_us
        } else {
            self.past.as_ref().and_then(|past| past.p95_us)
        };
        let rise = rules.gates.latency_rise.unwrap_or_default();
        let canaries = columns(&look.canaries, threshold_us.map(|us| us * (1.0 + rise)));
        let controls = columns(&look.controls, threshold_us);
        for subject in subjects(&canaries) {
            if let Some(margin) = subject.column.metric().margin(rules.gates) {
                self.bet(subject, margin, (&canaries, &controls), rules);
            }
        }
        self.looks += 1;
        self.canaries.take(&canaries);
        self.controls.take(&controls);
        self.requests += look.canaries.values().map(Reading::requests).sum::<u64>();
        follow(&mut self.canary_p95_us, &look.canaries);
        if has_control {
            follow(&mut self.control_p95_us, &look.controls);
        }
    }

    /// Takes what canaries have counted beside live images so far.
    pub fn look_beside(&mut self, told: &BTreeMap<DeviceId, &Shadowed>, rules: Rules<'_>) {
        if let Some(limit) = Metric::Disagreement.margin(rules.gates) {
            self.shadows.look(told, limit);
        }
    }

    /// Passes over what they have counted so far.
    pub(super) fn pass_over(&mut self, told: &BTreeMap<DeviceId, &Shadowed>) {
        self.shadows.pass_over(told);
    }

    /// Whether it is known what canaries did before.
    pub const fn has_past(&self) -> bool {
        self.past.is_some()
    }

    /// Sets what canaries did before they were told.
    pub fn set_past(&mut self, past: Past) {
        self.past = Some(past);
    }

    /// Devices whose readings count.
    pub fn canaries(&self) -> u64 {
        self.canaries.devices()
    }

    fn bet(
        &mut self,
        subject: Subject,
        margin: f64,
        (canaries, controls): (&Columns, &Columns),
        rules: Rules<'_>,
    ) {
        let cap = subject.column.metric().cap();
        let of = |columns: &Columns| columns.scores(subject.column, subject.falls, cap);
        let (canaries, controls) = (of(canaries), of(controls));
        let per_gate = risk_per_gate(rules);
        let expected = if controls.len() >= CONTROLS_MIN {
            self.expected(subject, canaries.len(), per_gate / 2.0)
        } else {
            let past = self.past.as_ref();
            past.and_then(|past| past.expected(subject.column, subject.falls, per_gate / 2.0))
        };
        let Some((mean, slack)) = expected else { return };
        let against_past = controls.len() < CONTROLS_MIN;
        let block = Block {
            canaries: &canaries,
            controls: if against_past { &[] } else { &controls },
            control: mean.clamp(0.0, cap),
            allowance: margin + slack,
            cap,
        };
        self.bets.entry(subject).or_default().place(&block);
    }

    /// The mean of controls in the looks before, and how much worse canaries may be by chance of the draw.
    fn expected(&self, subject: Subject, canaries: usize, risk: f64) -> Option<(f64, f64)> {
        let known = self.controls.of(subject.column)?;
        if known.devices < CONTROLS_MIN {
            return None;
        }
        let freedom = u32::try_from(known.devices - 1).unwrap_or(u32::MAX);
        let drawn = 1.0 / reading::real(canaries) + 1.0 / reading::real(known.devices);
        let slack = student_quantile(freedom, risk) * known.deviation * drawn.sqrt();
        Some((if subject.falls { 1.0 - known.mean } else { known.mean }, slack))
    }

    /// How canaries compare, by gate; the strongest class stands for all of them.
    pub fn comparisons(&self, rules: Rules<'_>) -> Vec<Comparison> {
        let limit = 2.0 / risk_per_gate(rules);
        let metrics = Metric::ALL.into_iter();
        metrics.filter_map(|metric| self.comparison(metric, rules, limit)).collect()
    }

    fn comparison(&self, metric: Metric, rules: Rules<'_>, limit: f64) -> Option<Comparison> {
        let margin = metric.margin(rules.gates)?;
        if metric == Metric::Disagreement {
            let enough = (rules.gates.min_devices, rules.gates.min_requests);
            return self.shadows.comparison(margin, limit, enough);
        }
        let bets: Vec<_> =
            self.bets.iter().filter(|(subject, _)| subject.column.metric() == metric).collect();
        // The mean of e-values is an e-value (Vovk & Wang 2021): so many classes cost no more than one bet each.
        let e_value = bets.iter().map(|(_, bets)| bets.peak()).sum::<f64>()
            / reading::real(bets.len()).max(1.0);
        let (subject, _) =
            bets.into_iter().max_by(|left, right| left.1.peak().total_cmp(&right.1.peak()))?;
        let canary = self.canaries.of(subject.column)?;
        let control = self.controls.of(subject.column).map(|known| known.mean);
        let past = || self.past.as_ref()?.mean(subject.column);
        let is_enough = self.canaries.devices() >= u64::from(rules.gates.min_devices)
            && self.requests >= rules.gates.min_requests;
        let (canary, control) = match metric {
            Metric::Latency => {
                (self.canary_p95_us?, self.control_p95_us.or_else(|| self.past.as_ref()?.p95_us)?)
            }
            Metric::Confidence => (1.0 - canary.mean, 1.0 - control.or_else(past)?),
            Metric::Errors | Metric::Classes | Metric::Inputs | Metric::Disagreement => {
                (canary.mean, control.or_else(past)?)
            }
        };
        Some(Comparison {
            metric,
            class: subject.column.class(),
            canary,
            control,
            margin,
            e_value,
            limit,
            is_against_past: self.controls.devices() < CONTROLS_MIN as u64,
            is_held: !(is_enough && e_value >= limit),
        })
    }
}

/// The risk of one gate in one wave.
fn risk_per_gate(rules: Rules<'_>) -> f64 {
    let gates = Metric::ALL.into_iter().filter(|metric| metric.margin(rules.gates).is_some());
    RISK / (reading::real(gates.count()) * reading::real(rules.waves)).max(1.0)
}

fn columns(readings: &BTreeMap<DeviceId, Reading>, threshold_us: Option<f64>) -> Columns {
    Columns::of(readings, threshold_us, CLASSES_MAX)
}

fn subjects(canaries: &Columns) -> Vec<Subject> {
    let both = |column: Column| {
        let two_sided = column.metric() == Metric::Classes;
        [false, true]
            .into_iter()
            .filter(move |&falls| !falls || two_sided)
            .map(move |falls| Subject { column, falls })
    };
    canaries.names().into_iter().flat_map(both).collect()
}

/// Follows the latency that one request in twenty exceeds.
fn follow(p95_us: &mut Option<f64>, readings: &BTreeMap<DeviceId, Reading>) {
    let Some(fresh) = reading::p95_us(readings.values()) else { return };
    *p95_us = Some(p95_us.map_or(fresh, |known| known.mul_add(1.0 - FRESH, fresh * FRESH)));
}

#[cfg(test)]
mod tests;
