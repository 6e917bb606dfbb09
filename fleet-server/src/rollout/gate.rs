//! What a wave is measured by.

use super::{Comparison, Halt, Served};

/// Largest share of bad devices where the operator gave none.
pub(crate) const BAD_SHARE_MAX: f64 = 0.1;
/// Before this many devices are finished, only the share of the whole wave counts.
const FINISHED_MIN: u64 = 10;
/// Before this many requests, no share of them is looked at.
const REQUESTS_MIN: u64 = 20;
/// Quantile of the normal distribution: 95% one-sided.
const Z: f64 = 1.645;

/// A gate: what is measured, against what.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    /// `bad-share`, `error-share`, or the name of a comparison.
    pub name: &'static str,
    /// What it is now; none before there is enough to judge by.
    pub value: Option<f64>,
    /// The limit.
    pub limit: f64,
    /// Whether it holds.
    pub is_held: bool,
    /// What is compared with other devices, and how.
    pub comparison: Option<Comparison>,
}

/// What is counted of the devices of a wave that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    pub(super) good: u64,
    pub(super) bad: u64,
    pub(super) in_flight: u64,
    pub(super) served: Served,
}

impl Tally {
    const fn all(self) -> u64 {
        self.good + self.bad + self.in_flight
    }
}

/// Holds while not too many devices are bad: of the whole wave for certain, or of those finished with 95% confidence.
pub(super) fn bad_share(tally: Tally, limit: Option<f64>) -> Gate {
    let limit = limit.unwrap_or(BAD_SHARE_MAX);
    let value = (tally.all() > 0).then(|| share(tally.bad, tally.all()));
    let finished = tally.good + tally.bad;
    let is_likely = finished >= FINISHED_MIN && lower_bound(tally.bad, finished) > limit;
    let is_held = value.is_none_or(|value| value <= limit) && !is_likely;
    Gate { name: "bad-share", value, limit, is_held, comparison: None }
}

/// Holds while not too many requests fail.
pub(super) fn error_share(tally: Tally, limit: f64) -> Gate {
    let Served { requests, errors } = tally.served;
    let all = requests.saturating_add(errors);
    let value = (all >= REQUESTS_MIN).then(|| share(errors, all));
    let is_held = value.is_none_or(|value| value <= limit);
    Gate { name: "error-share", value, limit, is_held, comparison: None }
}

/// Holds while devices are not shown to do worse than others.
pub(super) const fn compared(comparison: Comparison) -> Gate {
    Gate {
        name: comparison.metric.gate(),
        value: Some(comparison.canary),
        limit: comparison.margin,
        is_held: comparison.is_held,
        comparison: Some(comparison),
    }
}

/// Why the wave fails, if a gate does.
pub(super) fn halt(wave: usize, tally: Tally, gates: &[Gate]) -> Option<Halt> {
    let failed = gates.iter().find(|gate| !gate.is_held)?;
    if let Some(comparison) = failed.comparison {
        return Some(Halt::Worse { wave, comparison });
    }
    let limit = failed.limit;
    Some(if failed.name == "bad-share" {
        Halt::Bad { wave, bad: tally.bad, of: tally.all(), limit }
    } else {
        Halt::Errors { wave, share: failed.value.unwrap_or_default(), limit }
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of devices and requests; 53 bits are enough"
)]
fn share(part: u64, all: u64) -> f64 {
    part as f64 / all as f64
}

/// Lower end of the Wilson score interval (Wilson 1927) of a share.
#[expect(clippy::cast_precision_loss, reason = "counts of devices; 53 bits are enough")]
fn lower_bound(part: u64, all: u64) -> f64 {
    let (p, n) = (share(part, all), all as f64);
    let z2 = Z * Z;
    let spread = Z * (p.mul_add(1.0 - p, z2 / (4.0 * n)) / n).sqrt();
    (p + z2 / (2.0 * n) - spread) / (1.0 + z2 / n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(good: u64, bad: u64, in_flight: u64) -> Tally {
        Tally { good, bad, in_flight, served: Served::default() }
    }

    #[test]
    fn one_bad_canary_of_three_fails() {
        assert!(!bad_share(tally(0, 1, 2), None).is_held);
        assert!(bad_share(tally(3, 0, 0), None).is_held);
    }

    #[test]
    fn the_share_is_of_the_whole_wave_until_enough_are_finished() {
        assert!(bad_share(tally(0, 3, 97), None).is_held);
        assert!(bad_share(tally(90, 10, 0), None).is_held);
        assert!(!bad_share(tally(89, 11, 0), None).is_held);
    }

    #[test]
    fn a_large_wave_fails_early_when_it_is_clear() {
        assert!(bad_share(tally(5, 4, 9_991), None).is_held, "9 finished say nothing yet");
        assert!(!bad_share(tally(12, 8, 9_980), None).is_held);
        assert!(bad_share(tally(17, 3, 9_980), None).is_held);
    }

    #[test]
    fn the_lower_bound_is_wilsons() {
        // 8 of 20 at z = 1.645: (0.4 + 0.0677 - 0.1866) / 1.1353, worked out by hand.
        assert!((lower_bound(8, 20) - 0.2438).abs() < 0.002, "{}", lower_bound(8, 20));
    }

    #[test]
    fn a_few_failed_requests_are_no_share() {
        let served =
            |requests, errors| Tally { served: Served { requests, errors }, ..tally(1, 0, 0) };
        assert_eq!(error_share(served(1, 18), 0.05).value, None);
        assert!(!error_share(served(90, 10), 0.05).is_held);
        assert!(error_share(served(95, 5), 0.05).is_held);
    }
}
