//! How often canaries disagree with the live image beside them, before they serve: merged exactly from what each has counted, and bet on
//! against the share that is allowed.
//!
//! There is no control: the live image is it, on the same inputs. What is feared is that the mean of the canaries' own shares is above the
//! limit, so nothing need be allowed for who happens to be a canary. The unit is the device in a look, as everywhere.

use std::collections::BTreeMap;

use sealift_protocol::id::{DeviceId, UnixMillis};
use sealift_protocol::report::{ShadowCounts, Shadowed};
use serde::{Deserialize, Serialize};

use super::bet::{Bets, Block};
use super::reading::REQUESTS_MIN;
use super::{Comparison, Metric};

/// What canaries of a wave have counted beside live images.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Shadows {
    bets: Bets,
    devices: BTreeMap<DeviceId, Known>,
}

/// What is known of one device.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Known {
    /// The shadow that was read last, by its begin, and what it had counted when it was first seen that is not to be looked at.
    since: UnixMillis,
    passed_over: ShadowCounts,
    /// What it had counted when it was read last, and when it was bet on last.
    read: ShadowCounts,
    judged: ShadowCounts,
    /// Of shadows on the same device before it.
    earlier: ShadowCounts,
}

impl Known {
    fn all(&self) -> ShadowCounts {
        let mut all = self.earlier;
        all.merge(&self.read.since(&self.passed_over));
        all
    }

    /// Takes what a device says now. One that has begun anew counts from nothing.
    fn read(&mut self, shadowed: &Shadowed) {
        if self.since != shadowed.since {
            let earlier = self.all();
            *self = Self { since: shadowed.since, earlier, ..Self::default() };
        }
        self.read = shadowed.counts;
    }

    /// The share of rows that differed since it was bet on last, if there are enough of them to speak of a share.
    fn share(&mut self) -> Option<f64> {
        let fresh = self.read.since(&self.judged);
        let agreement = fresh.agreement().filter(|_| fresh.rows >= REQUESTS_MIN)?;
        self.judged = self.read;
        Some(1.0 - agreement)
    }
}

impl Shadows {
    /// What was counted so far is not looked at: somebody has seen it and goes on.
    pub(super) fn pass_over(&mut self, told: &BTreeMap<DeviceId, &Shadowed>) {
        for (device, shadowed) in told {
            let Shadowed { since, counts, .. } = **shadowed;
            let known = Known {
                since,
                passed_over: counts,
                read: counts,
                judged: counts,
                ..Known::default()
            };
            self.devices.insert(device.clone(), known);
        }
    }

    /// Takes one look, with the largest share of rows that may differ.
    pub(super) fn look(&mut self, told: &BTreeMap<DeviceId, &Shadowed>, limit: f64) {
        let mut shares = Vec::new();
        for (device, shadowed) in told {
            let known = self.devices.entry(device.clone()).or_default();
            known.read(shadowed);
            shares.extend(known.share().map(|share| share.min(Metric::Disagreement.cap())));
        }
        let cap = Metric::Disagreement.cap();
        let block = Block { canaries: &shares, controls: &[], control: 0.0, allowance: limit, cap };
        self.bets.place(&block);
    }

    /// How they compare; none before anything was counted.
    pub(super) fn comparison(
        &self,
        margin: f64,
        limit: f64,
        (devices_min, rows_min): (u32, u64),
    ) -> Option<Comparison> {
        let mut all = ShadowCounts::default();
        let counted = self.devices.values().map(Known::all).filter(|counts| counts.rows > 0);
        let mut devices = 0_u32;
        for counts in counted {
            all.merge(&counts);
            devices = devices.saturating_add(1);
        }
        let e_value = self.bets.peak();
        let is_enough = devices >= devices_min && all.rows >= rows_min;
        Some(Comparison {
            metric: Metric::Disagreement,
            class: None,
            canary: 1.0 - all.agreement()?,
            control: 0.0,
            margin,
            e_value,
            limit,
            is_against_past: false,
            is_held: !(is_enough && e_value >= limit),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sealift_protocol::digest::Digest;
    use sealift_protocol::id::Version;
    use sealift_protocol::report::ImageRef;

    use super::*;

    fn id(number: usize) -> DeviceId {
        DeviceId::parse(&format!("cam-{number}")).unwrap()
    }

    fn shadowed(since: i64, rows: u64, agreed: u64) -> Shadowed {
        let image = |version: &str| ImageRef {
            version: Version::parse(version).unwrap(),
            index: Digest::of(version.as_bytes()),
        };
        let counts = ShadowCounts { rows, agreed, ..ShadowCounts::default() };
        Shadowed { image: image("2"), live: image("1"), since: UnixMillis(since), counts }
    }

    fn look(shadows: &mut Shadows, said: &[Shadowed]) {
        let told = said.iter().enumerate().map(|(number, said)| (id(number), said)).collect();
        shadows.look(&told, 0.01);
    }

    fn found(shadows: &Shadows) -> Comparison {
        shadows.comparison(0.01, 1_000.0, (1, 100)).unwrap()
    }

    #[test]
    fn more_disagreement_than_allowed_is_found_and_said_in_words() {
        let mut shadows = Shadows::default();
        let looks = (1..=100_u64).find(|look_number| {
            let rows = look_number * 100;
            look(&mut shadows, &[0, 1, 2].map(|_| shadowed(5, rows, rows - 3 * look_number)));
            !found(&shadows).is_held
        });
        assert!(looks.is_some_and(|looks| looks < 40), "{looks:?}");
        let text = found(&shadows).to_string();
        assert!(
            text.starts_with("disagrees with the live image on 3.0% of rows, 1.0% may be; e-value"),
            "{text}"
        );
    }

    #[test]
    fn as_much_as_is_allowed_is_no_fault_however_long_it_lasts() {
        let mut shadows = Shadows::default();
        for number in 1..=2_000 {
            look(
                &mut shadows,
                &[shadowed(5, number * 100, number * 99), shadowed(5, number * 100, number * 100)],
            );
        }
        assert!(found(&shadows).is_held);
        assert!((found(&shadows).canary - 0.005).abs() < 1e-9);
    }

    #[test]
    fn a_message_that_comes_twice_or_not_at_all_changes_nothing_and_a_restart_counts_on() {
        let (mut each, mut some) = (Shadows::default(), Shadows::default());
        for said in [(5, 100, 90), (5, 100, 90), (5, 150, 140), (9, 10, 10), (9, 40, 30)] {
            look(&mut each, &[shadowed(said.0, said.1, said.2)]);
        }
        for said in [(5, 150, 140), (9, 40, 30)] {
            look(&mut some, &[shadowed(said.0, said.1, said.2)]);
        }
        let rows = |shadows: &Shadows| shadows.devices[&id(0)].all();
        assert_eq!((rows(&each).rows, rows(&each).agreed), (190, 170));
        assert_eq!(rows(&each), rows(&some));
    }

    #[test]
    fn what_somebody_has_seen_and_went_on_from_is_not_held_against_the_image_again() {
        let mut shadows = Shadows::default();
        let bad = shadowed(5, 10_000, 5_000);
        shadows.pass_over(&BTreeMap::from([(id(0), &bad)]));
        look(&mut shadows, std::slice::from_ref(&bad));
        assert_eq!(shadows.comparison(0.01, 1_000.0, (1, 100)), None, "nothing new");
        look(&mut shadows, &[shadowed(5, 10_200, 5_200)]);
        assert!((found(&shadows).is_held, found(&shadows).canary) == (true, 0.0));
    }

    proptest! {
        /// Whatever was looked at in between, the sums are those of what each device has said last of each of its shadows.
        #[test]
        fn sums_are_exact(said in prop::collection::vec((0_usize..3, 0_i64..2, 0_u64..50, 0_u64..50), 0..60)) {
            let mut shadows = Shadows::default();
            let mut last: BTreeMap<usize, Vec<Shadowed>> = BTreeMap::new();
            for (device, begins, agreed, differed) in said {
                let of = last.entry(device).or_default();
                let now = match of.last_mut() {
                    Some(now) if begins > 0 => {
                        now.counts.rows += agreed + differed;
                        now.counts.agreed += agreed;
                        now.clone()
                    }
                    _ => {
                        let since = i64::try_from(of.len()).unwrap() + 1;
                        of.push(shadowed(since, agreed + differed, agreed));
                        of.last().unwrap().clone()
                    }
                };
                shadows.look(&BTreeMap::from([(id(device), &now)]), 0.01);
            }
            for (device, of) in last {
                let mut sum = ShadowCounts::default();
                for shadowed in of {
                    sum.merge(&shadowed.counts);
                }
                prop_assert_eq!(shadows.devices[&id(device)].all(), sum);
            }
        }
    }
}
