//! P-values: how likely counts as different as these are if both sides come from one distribution.

use super::special::{gamma_tail, hypergeometric_tail};
use super::{number, sum};

/// Below this expected count the chi-square distribution is a poor approximation (Cochran, 1954).
const EXPECTED_MIN: f64 = 5.0;

/// A two-sample chi-square test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChiSquare {
    /// The statistic.
    pub statistic: f64,
    /// Bins that took part, less one.
    pub degrees: u32,
    /// The probability of at least this statistic.
    pub p: f64,
}

/// Reference and window count of a bin.
type Pair = (u64, u64);

/// Tests whether two sets of counts come from one distribution. Bins with an expected count below 5 on a side are pooled into one,
/// which is left out if that is not enough. Nothing if fewer than two bins remain.
pub fn chi_square(reference: &[u64], window: &[u64]) -> Option<ChiSquare> {
    let (common, rare) = split(reference, window)?;
    chi_square_of(&pooled(common, rare))
}

/// Statistic, degrees of freedom and p-value of [`chi_square`]; where rare bins are too few for it, the p-value of [`rare_excess`] if
/// that is smaller. As two are looked at, the smaller is doubled.
///
/// Without the second part, a constant that changed would go unnoticed: its new value is in no bin of the reference, and against
/// 50,000 reference rows a window of 200 never has an expected count of 5 there.
pub fn two_sample(reference: &[u64], window: &[u64]) -> Option<(f64, f64, f64)> {
    let (common, rare) = split(reference, window)?;
    let pairs = pooled(common, rare);
    let test = chi_square_of(&pairs);
    let (statistic, degrees) =
        test.map_or((0.0, 1.0), |test| (test.statistic, f64::from(test.degrees)));
    let p = test.map(|test| test.p);
    if rare == (0, 0) || pairs.last() == Some(&rare) {
        return Some((statistic, degrees, p.unwrap_or(1.0)));
    }
    let (n, m) = (count(reference), count(window));
    // One row more: the reference's own ends lie at the edges, and so are never outside.
    let excess = rare_excess((rare.0.saturating_add(1), n.saturating_add(1)), (rare.1, m));
    Some((statistic, degrees, (2.0 * p.map_or(excess, |p| p.min(excess))).min(1.0)))
}

/// The probability of at least so many hits in the window if both sides have one rate (Fisher's exact test, one-sided).
///
/// Each side is given as hits and rows.
pub fn rare_excess(reference: (u64, u64), window: (u64, u64)) -> f64 {
    hypergeometric_tail(window.0, window.1, reference.0.saturating_add(window.0), reference.1)
}

/// Corrects a p-value for the number of tests made together.
pub fn bonferroni(p: f64, tests: u64) -> f64 {
    (p * number(tests)).min(1.0)
}

/// Corrects p-values so that those below a level hold at most that share of false discoveries (Benjamini and Hochberg, 1995).
pub fn benjamini_hochberg(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<(usize, f64)> = p_values.iter().copied().enumerate().collect();
    order.sort_by(|(_, left), (_, right)| right.total_cmp(left));
    let all = number(u64::try_from(order.len()).unwrap_or(u64::MAX));
    let mut corrected = p_values.to_vec();
    let (mut rank, mut smallest) = (all, 1.0_f64);
    for (place, p) in order {
        smallest = smallest.min(p * all / rank);
        if let Some(value) = corrected.get_mut(place) {
            *value = smallest;
        }
        rank -= 1.0;
    }
    corrected
}

/// The bins that have their expected counts, and the sum of the rest.
fn split(reference: &[u64], window: &[u64]) -> Option<(Vec<Pair>, Pair)> {
    let (n, m) = (sum(reference), sum(window));
    if reference.len() != window.len() || n <= 0.0 || m <= 0.0 {
        return None;
    }
    let pairs = reference.iter().copied().zip(window.iter().copied());
    let (common, rare): (Vec<_>, Vec<_>) =
        pairs.partition(|pair| expected(*pair, n, m) >= EXPECTED_MIN);
    let rare = rare.iter().fold((0, 0), |all: Pair, pair| (all.0 + pair.0, all.1 + pair.1));
    Some((common, rare))
}

/// The bins, and the rare ones as the last of them if together they are not rare.
fn pooled(mut common: Vec<Pair>, rare: Pair) -> Vec<Pair> {
    let (n, m) = totals(common.iter().chain([&rare]));
    if expected(rare, n, m) >= EXPECTED_MIN {
        common.push(rare);
    }
    common
}

fn chi_square_of(pairs: &[Pair]) -> Option<ChiSquare> {
    let (n, m) = totals(pairs.iter());
    let degrees = u32::try_from(pairs.len().checked_sub(1)?).ok().filter(|degrees| *degrees > 0)?;
    if n <= 0.0 || m <= 0.0 {
        return None;
    }
    // With shares p and q this is the textbook sum over both rows of the table, in one term a bin.
    let term = |(left, right): &Pair| {
        let gap = number(*left) / n - number(*right) / m;
        gap * gap / (number(*left) + number(*right))
    };
    let statistic = n * m * pairs.iter().map(term).sum::<f64>();
    let p = gamma_tail(f64::from(degrees) / 2.0, statistic / 2.0);
    Some(ChiSquare { statistic, degrees, p })
}

/// The smaller of both sides' expected counts.
fn expected((left, right): Pair, n: f64, m: f64) -> f64 {
    (number(left) + number(right)) * n.min(m) / (n + m)
}

fn totals<'a>(pairs: impl Iterator<Item = &'a Pair>) -> (f64, f64) {
    pairs.fold((0.0, 0.0), |(n, m), (left, right)| (n + number(*left), m + number(*right)))
}

fn count(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 1e-9, "{found} for {expected}");
    }

    /// `scipy.stats.chi2_contingency([reference, window], correction=False)`
    #[test]
    fn chi_square_equals_scipy() {
        let found = chi_square(&[120, 300, 250, 330], &[10, 60, 88, 42]).unwrap();
        close(found.statistic, 36.641_343_767_894_64);
        close(found.p, 5.479_748_253_820_019e-8);
        assert_eq!(found.degrees, 3);
    }

    /// scipy on the table with its rare columns added up: 0+6+9 and 20+5+4.
    #[test]
    fn bins_with_few_expected_are_pooled() {
        let found = chi_square(&[0, 500, 480, 6, 9], &[20, 90, 81, 5, 4]).unwrap();
        close(found.statistic, 79.401_302_530_849_66);
        close(found.p, 5.730_944_827_346_270_4e-18);
        assert_eq!(found.degrees, 2);
    }

    #[test]
    fn chi_square_needs_two_bins() {
        assert_eq!(chi_square(&[1_000, 0], &[200, 0]), None);
        assert_eq!(chi_square(&[1_000, 0], &[197, 3]), None);
        assert_eq!(chi_square(&[1_000], &[0]), None);
    }

    /// `scipy.stats.hypergeom.sf(hits - 1, n + m, all hits, m)`
    #[test]
    fn rare_excess_equals_scipy() {
        close(rare_excess((3, 1_500), (5, 200)), 0.000_892_928_192_591_633_4);
        close(rare_excess((0, 50_000), (4, 200)), 2.444_846_115_783_812_5e-10);
        close(rare_excess((40, 50_000), (12, 3_200)), 4.738_081_791_696_172e-5);
        close(rare_excess((2, 1_500), (9_000, 1_000_000)), 0.000_139_488_046_392_933_47);
    }

    #[test]
    fn a_constant_that_changed_is_found_against_a_large_reference() {
        assert!(two_sample(&[0, 50_000, 0], &[0, 0, 200]).unwrap().2 < 1e-100);
        assert!(two_sample(&[0, 50_000, 0], &[0, 150, 50]).unwrap().2 < 1e-50);
        let (_, _, unchanged) = two_sample(&[0, 50_000, 0], &[0, 200, 0]).unwrap();
        assert!((unchanged - 1.0).abs() < 1e-12, "{unchanged}");
    }

    /// `scipy.stats.false_discovery_control(p)`
    #[test]
    fn benjamini_hochberg_equals_scipy() {
        let corrected = benjamini_hochberg(&[0.01, 0.04, 0.03, 0.5, 0.005]);
        for (found, expected) in corrected.into_iter().zip([0.025, 0.05, 0.05, 0.5, 0.025]) {
            close(found, expected);
        }
        assert!(benjamini_hochberg(&[]).is_empty());
    }

    #[test]
    fn a_corrected_p_value_stays_a_probability() {
        close(bonferroni(0.01, 60), 0.6);
        close(bonferroni(0.01, 600), 1.0);
    }
}
