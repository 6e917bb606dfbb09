//! Tails of three distributions, to better than nine digits, with nothing but elementary functions.

use std::f64::consts::{PI, TAU};

/// Terms of a series or fraction; the slowest of ours needs about 10 square roots of its argument.
const TERMS_MAX: u32 = 100_000;

/// Relative size at which a further term changes nothing that matters.
const NEGLIGIBLE: f64 = 1e-16;

/// The regularised upper incomplete gamma function Q(a, x): the tail beyond 2x of chi-square with 2a degrees of freedom.
///
/// Series for small and continued fraction for large `x` (DLMF 8.7.1 and 8.9.2).
pub(crate) fn gamma_tail(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    let factor = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 { 1.0 - factor * lower_series(a, x) } else { factor * upper_fraction(a, x) }
}

fn lower_series(a: f64, x: f64) -> f64 {
    let (mut term, mut sum) = (1.0 / a, 1.0 / a);
    for step in 1..TERMS_MAX {
        term *= x / (a + f64::from(step));
        sum += term;
        if term < sum * NEGLIGIBLE {
            break;
        }
    }
    sum
}

/// Evaluated from the front (Lentz, 1976). For `x` above `a + 1` no denominator comes near zero.
fn upper_fraction(a: f64, x: f64) -> f64 {
    let mut partial = x + 1.0 - a;
    let mut above = f64::MAX;
    let mut below = 1.0 / partial;
    let mut fraction = below;
    for step in (1..TERMS_MAX).map(f64::from) {
        let numerator = step * (a - step);
        partial += 2.0;
        below = 1.0 / (numerator * below + partial);
        above = partial + numerator / above;
        let change = above * below;
        fraction *= change;
        if (change - 1.0).abs() < NEGLIGIBLE {
            break;
        }
    }
    fraction
}

/// The logarithm of the gamma function for positive `x`: Stirling's series, after stepping up to where it converges.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut product) = (x, 1.0);
    while x < 15.0 {
        product *= x;
        x += 1.0;
    }
    (x - 0.5) * x.ln() - x + 0.5 * TAU.ln() + stirling_rest(x) - product.ln()
}

/// What Stirling's formula for ln Γ(x) leaves, for `x` from 15 (DLMF 5.11.1; the next term is below 1e-17 there).
fn stirling_rest(x: f64) -> f64 {
    let square = x * x;
    let inner = 1.0 / 1_680.0 - 1.0 / (1_188.0 * square);
    let inner = 1.0 / 1_260.0 - inner / square;
    let inner = 1.0 / 360.0 - inner / square;
    (1.0 / 12.0 - inner / square) / x
}

/// The tail of Kolmogorov's limit distribution beyond `t`.
pub(super) fn kolmogorov_tail(t: f64) -> f64 {
    if t < 1.0 {
        // Below 1 the alternating series converges slowly; its theta-function twin does so at once.
        let term = |step: u32| (-(PI * f64::from(step) / t).powi(2) / 8.0).exp();
        return 1.0
            - TAU.sqrt() / t.max(f64::MIN_POSITIVE) * [1, 3, 5, 7].map(term).iter().sum::<f64>();
    }
    let term = |step: u32| (-2.0 * (f64::from(step) * t).powi(2)).exp();
    2.0 * (term(1) - term(2) + term(3) - term(4) + term(5))
}

/// The probability of at least `hits` of `all_hits` among the `rows` of a window, when they are spread at random over these and
/// the `other_rows`. 1 if there are no more than the mean: only an excess is of interest.
pub(super) fn hypergeometric_tail(hits: u64, rows: u64, all_hits: u64, other_rows: u64) -> f64 {
    let [hits, rows, all_hits, other_rows] = [hits, rows, all_hits, other_rows].map(super::number);
    let everything = rows + other_rows;
    if everything <= 0.0 || hits <= all_hits * rows / everything {
        return 1.0;
    }
    let mut term = hypergeometric(hits, rows, all_hits, other_rows);
    let (mut sum, mut hits) = (term, hits);
    for _ in 0..TERMS_MAX {
        // Ratio of neighbouring terms; it is 0 after the last possible one.
        let misses = other_rows - all_hits + hits + 1.0;
        term *= (all_hits - hits).max(0.0) * (rows - hits).max(0.0) / ((hits + 1.0) * misses);
        sum += term;
        hits += 1.0;
        if term <= sum * NEGLIGIBLE {
            break;
        }
    }
    sum.min(1.0)
}

/// One term, as a quotient of three binomial ones with the same rate: their logarithms are small even where factorials are huge.
fn hypergeometric(hits: f64, rows: f64, all_hits: f64, other_rows: f64) -> f64 {
    let rate = all_hits / (rows + other_rows);
    if rate >= 1.0 {
        return 1.0;
    }
    let here = ln_binomial(hits, rows, rate);
    let there = ln_binomial(all_hits - hits, other_rows, rate);
    (here + there - ln_binomial(all_hits, rows + other_rows, rate)).exp()
}

/// The logarithm of the binomial probability of `hits` among `n` (saddle-point form: Loader, 2000).
fn ln_binomial(hits: f64, n: f64, rate: f64) -> f64 {
    if hits <= 0.0 {
        return n * (-rate).ln_1p();
    }
    if hits >= n {
        return n * rate.ln();
    }
    let misses = n - hits;
    let rests = factorial_rest(n) - factorial_rest(hits) - factorial_rest(misses);
    let deviances = deviance(hits, n * rate) + deviance(misses, n * (1.0 - rate));
    rests - deviances + 0.5 * (n / (TAU * hits * misses)).ln()
}

/// ln n! less Stirling's formula for it, for whole `n` from 1.
fn factorial_rest(n: f64) -> f64 {
    if n >= 15.0 {
        return stirling_rest(n);
    }
    ln_gamma(n + 1.0) - (n + 0.5) * n.ln() + n - 0.5 * TAU.ln()
}

/// `x ln(x / mean) - x + mean`, without cancellation where both are close.
fn deviance(x: f64, mean: f64) -> f64 {
    let gap = x - mean;
    if gap.abs() >= 0.1 * (x + mean) {
        return x * (x / mean).ln() - gap;
    }
    // With v = gap / (x + mean): the series of ln((1 + v) / (1 - v)), its first term taken out.
    let v = gap / (x + mean);
    let (mut sum, mut power) = (gap * v, 2.0 * x * v);
    for step in 1..TERMS_MAX {
        power *= v * v;
        let next = sum + power / f64::from(2 * step + 1);
        if next.to_bits() == sum.to_bits() {
            break;
        }
        sum = next;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 1e-9, "{found} for {expected}");
    }

    /// `scipy.special.gammaincc(a, x)`
    #[test]
    fn gamma_tail_equals_scipy() {
        for (a, x, expected) in [
            (0.5, 0.1, 0.654_720_846_018_576_8),
            (0.5, 2.0, 0.045_500_263_896_358_57),
            (0.5, 40.0, 3.744_097_384_202_887e-19),
            (4.5, 1.0, 0.991_467_606_628_813_5),
            (4.5, 5.4, 0.289_667_490_388_478_7),
            (4.5, 5.6, 0.262_248_754_594_964_83),
            (4.5, 20.0, 7.598_525_229_464_264e-6),
            (4.5, 300.0, 2.094_184_551_935_837_6e-123),
            (5.5, 24.0, 1.427_672_229_465_940_8e-6),
            (50.0, 45.0, 0.753_197_965_599_829_8),
            (50.0, 80.0, 0.000_130_783_976_591_409_2),
            (499.5, 500.0, 0.485_131_489_274_901_46),
            (499.5, 700.0, 5.924_458_565_936_921e-16),
            (2_000.0, 2_100.0, 0.013_647_467_683_370_367),
        ] {
            close(gamma_tail(a, x), expected);
        }
        close(gamma_tail(3.0, 0.0), 1.0);
    }

    /// `scipy.special.kolmogorov(t)`
    #[test]
    fn kolmogorov_tail_equals_scipy() {
        for (t, expected) in [
            (0.3, 0.999_990_694_198_665_5),
            (0.5, 0.963_945_243_664_875_1),
            (0.8, 0.544_142_411_574_198_1),
            (0.99, 0.280_873_839_225_548_9),
            (1.01, 0.259_434_169_093_597_46),
            (1.5, 0.022_217_962_616_525_127),
            (2.5, 7.453_306_344_157_342e-6),
            (5.0, 3.857_499_695_927_835_6e-22),
        ] {
            close(kolmogorov_tail(t), expected);
        }
        close(kolmogorov_tail(0.0), 1.0);
    }

    /// `scipy.special.gammaln(x)`
    #[test]
    fn ln_gamma_equals_scipy() {
        for (x, expected) in [
            (0.5, 0.572_364_942_924_7),
            (1.5, -0.120_782_237_635_245_26),
            (4.5, 2.453_736_570_842_442_3),
            (10.0, 12.801_827_480_081_469),
            (14.9, 24.924_132_002_217_277),
            (15.1, 25.458_999_750_992_664),
            (100.5, 361.435_540_467_777_57),
            (1_000_000.0, 12_815_504.569_147_611),
        ] {
            close(ln_gamma(x), expected);
        }
    }

    /// `mpmath` at 60 digits: `binomial(K, x) * binomial(N - K, n - x) / binomial(N, n)`
    #[test]
    fn hypergeometric_terms_are_right_for_small_and_large_counts() {
        for ([hits, rows, all_hits, other_rows], expected) in [
            ([3.0, 10.0, 5.0, 20.0], 0.159_993_263_441_539_3),
            ([0.0, 200.0, 8.0, 1_500.0], 0.366_591_131_145_613_3),
            ([5.0, 200.0, 8.0, 1_500.0], 0.000_836_441_455_534_980_6),
            ([4.0, 200.0, 4.0, 50_000.0], 2.444_846_115_783_812_5e-10),
            ([12.0, 3_200.0, 52.0, 50_000.0], 3.827_760_399_206_093_5e-5),
            ([9_000.0, 1_000_000.0, 9_002.0, 1_500.0], 0.000_120_489_573_933_862_86),
            ([30.0, 100_000.0, 1_000.0, 10_000_000.0], 1.157_020_487_765_133_4e-7),
            ([5.0, 5.0, 5.0, 7.0], 0.001_262_626_262_626_262_7),
        ] {
            close(hypergeometric(hits, rows, all_hits, other_rows), expected);
        }
    }
}
