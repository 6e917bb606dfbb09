//! Effect sizes: how far apart two sets of counts are. None of them says whether chance explains it.

use super::special::kolmogorov_tail;
use super::sum;

/// A share below this counts as this: an empty bin would else make the index infinite.
const SHARE_MIN: f64 = 1e-4;

/// Population stability index, the sum of (q - p) ln(q / p). Nothing if a side has no counts.
///
/// By custom 0.1 is worth a look and 0.2 is a change. By chance alone it is about (bins - 1) (1/n + 1/m) for n and m rows.
pub fn psi(reference: &[u64], window: &[u64]) -> Option<f64> {
    let term = |(p, q): (f64, f64)| {
        let (p, q) = (p.max(SHARE_MIN), q.max(SHARE_MIN));
        (q - p) * (q / p).ln()
    };
    Some(shares(reference, window)?.map(term).sum())
}

/// Jensen-Shannon divergence in bits: 0 for equal shares, 1 for shares that have no bin in common.
pub fn jensen_shannon(reference: &[u64], window: &[u64]) -> Option<f64> {
    let half =
        |part: f64, middle: f64| if part > 0.0 { part * (part / middle).log2() } else { 0.0 };
    let term = |(p, q): (f64, f64)| {
        let middle = f64::midpoint(p, q);
        f64::midpoint(half(p, middle), half(q, middle))
    };
    Some(shares(reference, window)?.map(term).sum())
}

/// Kolmogorov-Smirnov distance at the bins' edges, and its p-value.
///
/// The p-value is the asymptotic one of continuous data. On bins the distance can only be smaller, so it errs towards "no drift".
pub fn kolmogorov_smirnov(reference: &[u64], window: &[u64]) -> Option<(f64, f64)> {
    let gap = |gap: &mut f64, (p, q): (f64, f64)| {
        *gap += p - q;
        Some(gap.abs())
    };
    let distance = shares(reference, window)?.scan(0.0, gap).fold(0.0, f64::max);
    let (n, m) = (sum(reference), sum(window));
    Some((distance, kolmogorov_tail(distance * (n * m / (n + m)).sqrt())))
}

/// Wasserstein distance of order 1 between counts that sit on rising `points`: the area between the two distribution functions.
///
/// Divide by the reference's standard deviation to compare features. Nothing if lengths differ or a side has no counts.
pub fn wasserstein(points: &[f64], reference: &[u64], window: &[u64]) -> Option<f64> {
    if points.len() != reference.len() {
        return None;
    }
    let gap = |gap: &mut f64, (p, q): (f64, f64)| {
        *gap += p - q;
        Some(gap.abs())
    };
    let widths = points.iter().zip(points.iter().skip(1)).map(|(point, next)| next - point);
    let gaps = shares(reference, window)?.scan(0.0, gap);
    Some(gaps.zip(widths).map(|(gap, width)| gap * width).sum())
}

/// Both sides' shares, bin by bin.
fn shares(reference: &[u64], window: &[u64]) -> Option<impl Iterator<Item = (f64, f64)>> {
    let (n, m) = (sum(reference), sum(window));
    let pairs = reference.iter().zip(window);
    let share = move |(p, q): (&u64, &u64)| (super::number(*p) / n, super::number(*q) / m);
    (reference.len() == window.len() && n > 0.0 && m > 0.0).then(|| pairs.map(share))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REFERENCE: [u64; 6] = [0, 120, 300, 250, 330, 0];
    const WINDOW: [u64; 6] = [7, 10, 60, 88, 30, 5];
    const POINTS: [f64; 6] = [-2.5, -1.0, 0.25, 1.5, 4.0, 9.0];

    #[track_caller]
    fn close(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 1e-12, "{found} for {expected}");
    }

    /// By hand with NumPy: `sum((q - p) * log(q / p))` after `maximum(share, 1e-4)`.
    #[test]
    fn psi_is_that_of_its_definition() {
        close(psi(&REFERENCE, &WINDOW).unwrap(), 0.652_541_004_146_095_7);
    }

    /// `scipy.spatial.distance.jensenshannon(p, q, base=2) ** 2`
    #[test]
    fn jensen_shannon_equals_scipy() {
        close(jensen_shannon(&REFERENCE, &WINDOW).unwrap(), 0.084_778_477_334_458_54);
        close(jensen_shannon(&[4, 0], &[0, 9]).unwrap(), 1.0);
    }

    /// `scipy.stats.wasserstein_distance(points, points, reference, window)`
    #[test]
    fn wasserstein_equals_scipy() {
        close(wasserstein(&POINTS, &REFERENCE, &WINDOW).unwrap(), 0.652_499_999_999_999_9);
    }

    /// `scipy.stats.kstwobign.sf(distance * sqrt(n m / (n + m)))`
    #[test]
    fn kolmogorov_smirnov_equals_scipy() {
        let (distance, p) = kolmogorov_smirnov(&REFERENCE, &WINDOW).unwrap();
        close(distance, 0.155_000_000_000_000_03);
        close(p, 0.000_665_357_443_421_411_7);
    }

    #[test]
    fn nothing_is_said_of_no_counts_or_of_other_bins() {
        assert_eq!(psi(&[0, 0], &[1, 2]), None);
        assert_eq!(psi(&[1, 2], &[0, 0]), None);
        assert_eq!(jensen_shannon(&[1, 2], &[1, 2, 3]), None);
        assert_eq!(wasserstein(&[0.0], &[1, 2], &[1, 2]), None);
    }

    proptest! {
        #[test]
        fn equal_shares_are_no_distance_apart(counts in prop::collection::vec(1_u64..1000, 6)) {
            let doubled: Vec<u64> = counts.iter().map(|count| count * 2).collect();
            prop_assert!(psi(&counts, &doubled).unwrap().abs() < 1e-12);
            prop_assert!(jensen_shannon(&counts, &doubled).unwrap().abs() < 1e-12);
            prop_assert!(wasserstein(&POINTS, &counts, &doubled).unwrap().abs() < 1e-12);
            let (distance, p) = kolmogorov_smirnov(&counts, &doubled).unwrap();
            prop_assert!(distance < 1e-12 && p > 0.999_999);
        }

        #[test]
        fn distances_are_symmetric_and_not_negative(
            left in prop::collection::vec(0_u64..1000, 6),
            right in prop::collection::vec(0_u64..1000, 6),
        ) {
            for measure in [psi, jensen_shannon] {
                let (forth, back) = (measure(&left, &right), measure(&right, &left));
                prop_assert_eq!(forth.is_some(), back.is_some());
                let gap = forth.unwrap_or(0.0) - back.unwrap_or(0.0);
                prop_assert!(gap.abs() < 1e-12 && forth.unwrap_or(0.0) > -1e-12);
            }
        }
    }
}
