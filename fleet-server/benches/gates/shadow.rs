//! A made fleet of canaries beside live images, whose true share of disagreement is known.
//!
//! Devices differ among themselves, see the hour together, have few rows or many, and rows that come in bursts and resemble each other; now
//! and then a device starts anew, or its report is lost.

use std::collections::BTreeMap;

use sealift_fleet_server::rollout::evidence::{Evidence, Metric, Rules};
use sealift_protocol::api::ModelGates;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, UnixMillis, Version};
use sealift_protocol::report::{ImageRef, ShadowCounts, Shadowed};

use crate::simulation::{CANARIES, Course, Random, Stop};

/// What is allowed.
pub(crate) const LIMIT: f64 = 0.01;

/// Rolls an image out once that disagrees on this share of rows at the worst hour, on the mean of devices.
pub(crate) fn roll_out(seed: u64, share: f64, looks: usize) -> Course {
    let mut random = Random(seed);
    let gates = ModelGates { disagreement: Some(LIMIT), ..ModelGates::default() };
    let rules = Rules { gates: &gates, waves: 3 };
    let mut devices: Vec<_> = (0..CANARIES).map(|n| Device::new(n, share, &mut random)).collect();
    // Whoever the canaries are: their own mean is what is bet on.
    let mean = devices.iter().map(|device| device.share).sum::<f64>() / CANARIES as f64;
    for device in &mut devices {
        device.share *= share / mean.max(1e-12);
    }
    let mut evidence = Evidence::default();
    let (mut course, mut all) = (Course::default(), ShadowCounts::default());
    for number in 0..looks {
        let hour = (1.0 + 0.3 * (number as f64 / 24.0).sin()) / 1.3;
        for device in &mut devices {
            all.merge(&device.live(hour, &mut random));
        }
        let told: BTreeMap<_, _> = devices
            .iter()
            // One report in ten is lost; the next has everything.
            .filter(|_| random.below(10) > 0)
            .map(|device| (device.id.clone(), &device.said))
            .collect();
        evidence.look_beside(&told, rules);
        let stop = Stop { looks: number + 1, requests: all.rows };
        let differed = 1.0 - all.agreement().unwrap_or(1.0);
        if course.by_threshold.is_none() && all.rows >= gates.min_requests && differed > LIMIT {
            course.by_threshold = Some(stop);
        }
        if course.by_peeking.is_none() && is_significant(differed, all.rows) {
            course.by_peeking = Some(stop);
        }
        let comparisons = evidence.comparisons(rules);
        if comparisons.iter().any(|gate| !gate.is_held) {
            course.halted = Some((stop, Metric::Disagreement));
            break;
        }
    }
    course
}

/// A test of one share with normal tails, as if each look were the only one.
fn is_significant(differed: f64, rows: u64) -> bool {
    let error = (LIMIT * (1.0 - LIMIT) / rows.max(1) as f64).sqrt();
    (differed - LIMIT) / error > 2.326
}

struct Device {
    id: DeviceId,
    share: f64,
    bursts: u64,
    said: Shadowed,
}

impl Device {
    fn new(number: usize, share: f64, random: &mut Random) -> Self {
        let image = |version: &str| ImageRef {
            version: Version::parse(version).unwrap(),
            index: Digest::of(version.as_bytes()),
        };
        let counts = ShadowCounts::default();
        let said = Shadowed { image: image("2"), live: image("1"), since: UnixMillis(0), counts };
        Self {
            id: DeviceId::parse(&format!("cam-{number}")).unwrap(),
            share: share * (0.5 * random.normal()).exp(),
            bursts: 5 + random.below(20),
            said,
        }
    }

    /// What it counts until the next look: bursts of four rows, half of which repeat the row before.
    fn live(&mut self, hour: f64, random: &mut Random) -> ShadowCounts {
        if random.below(500) == 0 {
            self.said.since = self.said.since.plus(1);
            self.said.counts = ShadowCounts::default();
        }
        let chance = (self.share * hour).min(1.0);
        let mut fresh = ShadowCounts { rows: 4 * self.bursts, ..ShadowCounts::default() };
        for _ in 0..self.bursts {
            let mut differs = random.uniform() < chance;
            for row in 0..4 {
                if row > 0 && random.below(2) == 0 {
                    differs = random.uniform() < chance;
                }
                fresh.agreed += u64::from(!differs);
            }
        }
        self.said.counts.merge(&fresh);
        fresh
    }
}
