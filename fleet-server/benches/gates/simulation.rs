//! A made fleet whose truth is known: what devices do in each look, with and without harm by the new image.
//!
//! Devices differ among themselves, follow the hour together, have few requests or many, and are now and then in trouble of their own:
//! all that must not be taken for an effect of the image.

use std::collections::BTreeMap;

use sealift_fleet_server::rollout::evidence::{Evidence, Look, Metric, Reading, Rules};
use sealift_protocol::api::ModelGates;
use sealift_protocol::id::DeviceId;

/// Devices with the new image.
pub(crate) const CANARIES: usize = 10;
/// Devices without it.
pub(crate) const CONTROLS: usize = 40;
/// Waves of the rollout, which share the risk.
const WAVES: usize = 3;

/// What the new image does to its devices.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Harm {
    /// Share of requests that fail besides.
    pub(crate) errors: f64,
    /// By how much requests take longer.
    pub(crate) latency: f64,
    /// By how much confidence is lower.
    pub(crate) confidence: f64,
    /// From which look on.
    pub(crate) from: usize,
}

/// How a rollout went.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Course {
    /// When the gates halted it, and by what.
    pub(crate) halted: Option<(Stop, Metric)>,
    /// When a rule would have that compares means with the margin at each look.
    pub(crate) by_threshold: Option<Stop>,
    /// When a test of two shares at the 1% level would have that is made anew at each look.
    pub(crate) by_peeking: Option<Stop>,
}

/// When something halted a rollout.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stop {
    /// Looks until then.
    pub(crate) looks: usize,
    /// Requests of canaries until then.
    pub(crate) requests: u64,
}

/// A device's own ways.
struct Nature {
    id: DeviceId,
    errors: f64,
    latency: f64,
    confidence: f64,
    requests: u64,
}

/// Sums for the rules that gates are compared with.
#[derive(Default)]
struct Sums {
    requests: u64,
    errors: u64,
    slow: u64,
    confidence: f64,
}

/// Rolls an image out once.
pub(crate) fn roll_out(seed: u64, harm: Harm, looks: usize) -> Course {
    let mut random = Random(seed);
    let gates = ModelGates::default();
    let rules = Rules { gates: &gates, waves: WAVES };
    let devices: Vec<_> = (0..CANARIES + CONTROLS).map(|n| nature(n, &mut random)).collect();
    let (canaries, controls) = devices.split_at(CANARIES);
    let mut evidence = Evidence::default();
    let (mut ours, mut theirs) = (Sums::default(), Sums::default());
    let mut course = Course::default();
    for number in 0..looks {
        let hour = (number as f64 / 24.0).sin();
        let felt = if number >= harm.from { harm } else { Harm::default() };
        let mut group = |devices: &[Nature], harm: Harm, sums: &mut Sums| {
            let reading = |device: &Nature| {
                (device.id.clone(), live(device, (hour, harm), &mut random, sums))
            };
            devices.iter().map(reading).collect::<BTreeMap<_, _>>()
        };
        let look = Look {
            canaries: group(canaries, felt, &mut ours),
            controls: group(controls, Harm::default(), &mut theirs),
        };
        evidence.look(&look, rules);
        let stop = Stop { looks: number + 1, requests: ours.requests };
        let failed = evidence.comparisons(rules).into_iter().find(|gate| !gate.is_held);
        if let (None, Some(gate)) = (course.halted, failed) {
            course.halted = Some((stop, gate.metric));
        }
        if course.by_threshold.is_none() && is_beyond(&ours, &theirs, &gates) {
            course.by_threshold = Some(stop);
        }
        if course.by_peeking.is_none() && is_significant(&ours, &theirs) {
            course.by_peeking = Some(stop);
        }
        if course.halted.is_some() {
            break;
        }
    }
    course
}

fn nature(number: usize, random: &mut Random) -> Nature {
    Nature {
        id: DeviceId::parse(&format!("cam-{number}")).unwrap(),
        errors: 0.008 * (0.3 * random.normal()).exp(),
        latency: 20_000.0 * (0.05 * random.normal()).exp(),
        confidence: 0.90 + 0.01 * random.normal(),
        requests: 20 + random.below(80),
    }
}

/// What a device does between two looks.
fn live(
    device: &Nature,
    (hour, harm): (f64, Harm),
    random: &mut Random,
    sums: &mut Sums,
) -> Reading {
    /// One look in 200 a device is in trouble of its own, whatever image it has.
    const TROUBLE: f64 = 0.005;
    let trouble = if random.uniform() < TROUBLE { random.uniform() } else { 0.0 };
    let errors = device.errors * (1.0 + 0.3 * hour) + harm.errors + trouble;
    let mut reading = Reading::default();
    for _ in 0..device.requests {
        sums.requests += 1;
        if random.uniform() < errors {
            reading.add_failed(1);
            sums.errors += 1;
            continue;
        }
        let usual = device.latency * (1.0 + 0.1 * hour) * random.spread();
        let latency = usual * (1.0 + harm.latency);
        sums.slow += u64::from(latency > 20_000.0 * 1.64);
        reading.add_answer(latency as u64);
    }
    let answered = reading.requests() - reading.failed();
    let noise = 0.08 / (answered.max(1) as f64).sqrt() * random.normal();
    let confidence = (device.confidence - harm.confidence + noise).clamp(0.0, 1.0);
    reading.add_confidence(confidence, answered);
    sums.confidence += confidence * answered as f64;
    reading
}

/// A rule with fixed thresholds: the same margins, of all requests so far.
fn is_beyond(ours: &Sums, theirs: &Sums, gates: &ModelGates) -> bool {
    let per_request = |sums: &Sums| {
        let requests = sums.requests as f64;
        let answered = (sums.requests - sums.errors) as f64;
        (sums.errors as f64 / requests, sums.slow as f64 / answered, sums.confidence / answered)
    };
    let ((errors, slow, sure), (their_errors, their_slow, their_sure)) =
        (per_request(ours), per_request(theirs));
    ours.requests >= gates.min_requests
        && (errors > their_errors + gates.error_rise.unwrap()
            || slow > their_slow + 0.02
            || sure < their_sure - gates.confidence_fall.unwrap())
}

/// Fisher's way of testing two shares with normal tails (Wilson 1927), at each look as if it were the only one.
fn is_significant(ours: &Sums, theirs: &Sums) -> bool {
    let test = |part: fn(&Sums) -> u64| {
        let (x, n) = (part(ours) as f64, ours.requests as f64);
        let (y, m) = (part(theirs) as f64, theirs.requests as f64);
        let both = (x + y) / (n + m);
        let error = (both * (1.0 - both) * (1.0 / n + 1.0 / m)).sqrt();
        error > 0.0 && (x / n - y / m) / error > 2.326
    };
    test(|sums| sums.errors) || test(|sums| sums.slow)
}

/// `SplitMix64` (Steele, Lea & Flood 2014): the same numbers everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to 1.
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// How much longer than usual a request takes: nearly log-normal, in 64 steps.
    fn spread(&mut self) -> f64 {
        const STEPS: [f64; 64] = spread_steps();
        STEPS[(self.next() >> 58) as usize]
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Nearly normal, as the sum of four uniform numbers is (Irwin & Hall), with mean 0 and deviation 1.
    pub(crate) fn normal(&mut self) -> f64 {
        let sum: f64 = (0..4).map(|_| self.uniform()).sum();
        (sum - 2.0) * 3.0_f64.sqrt()
    }
}

/// From e^-0.75 to e^0.75, most of them near 1: `exp(0.3 z)` with `z` at even quantiles of a logistic distribution, by its series.
const fn spread_steps() -> [f64; 64] {
    let mut steps = [0.0; 64];
    let mut step = 0;
    while step < 64 {
        let p = (step as f64 + 0.5) / 64.0;
        // (p / (1 - p))^(1/6), near enough to exp(0.3 z): the sixth root by Newton's method.
        let odds = p / (1.0 - p);
        let mut root = 1.0;
        let mut turn = 0;
        while turn < 60 {
            let fifth = root * root * root * root * root;
            root = (5.0 * root + odds / fifth) / 6.0;
            turn += 1;
        }
        steps[step] = root;
        step += 1;
    }
    steps
}
