//! Tests on counts that hold for any distribution, with ties and with few rows: by ranks, and by cuts.
//!
//! Under "nothing changed" every order of the rows of both sides is equally likely. So mean and variance of a sum of ranks are known
//! exactly from the counts alone, ties or not, and the number of rows beyond a cut is hypergeometric. Nothing here asks for a bell curve.

use super::special::{gamma_tail, hypergeometric_tail};
use super::{number, sum};

/// Rows outside of the commonest bin, on the smaller side, below which ranks are too coarse for a bell curve.
const RANKED_MIN: f64 = 10.0;

/// Up to so many standard errors the bell curve itself says enough about a share.
const NEAR: f64 = 3.0;
/// Rows below which it does not.
const NEAR_ROWS_MIN: f64 = 40.0;

/// Two values, each half of the time, have a kurtosis of 1, and sample variances that hardly vary; nothing real has.
const MOMENT_MIN: f64 = 0.5;

/// What a test of ranks says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// The difference; its sign says in which direction. Its unit is that of the scores.
    pub difference: f64,
    /// Its standard error if nothing changed.
    pub error: f64,
    /// Both, as a quotient.
    pub z: f64,
    /// The probability of at least that, in either direction.
    pub p: f64,
}

/// What moved: Mann and Whitney's test on binned values. The difference is Cliff's delta, from -1 (all lower) to 1 (all higher).
///
/// Equals `scipy.stats.mannwhitneyu(..., use_continuity=False)` on one value a bin, but for a correction of its tail for skewed scores.
pub fn rank_shift(reference: &[u64], window: &[u64]) -> Option<Ranked> {
    let ranked = by_scores(reference, window, |middle| middle)?;
    Some(scaled(ranked, 2.0))
}

/// What spread: Mood's test on binned values. The difference is 0 for equal spread, 1 if the window is all in the outermost ranks.
pub fn rank_spread(reference: &[u64], window: &[u64]) -> Option<Ranked> {
    let ranked = by_scores(reference, window, |middle| middle * middle)?;
    Some(scaled(ranked, 6.0))
}

const fn scaled(ranked: Ranked, factor: f64) -> Ranked {
    Ranked { difference: ranked.difference * factor, error: ranked.error * factor, ..ranked }
}

/// Compares the mean scores of both sides; a bin's score is that of the middle of its ranks, from -0.5 to 0.5.
fn by_scores(reference: &[u64], window: &[u64], score: impl Fn(f64) -> f64) -> Option<Ranked> {
    let (n, m) = (sum(reference), sum(window));
    let all = n + m;
    if reference.len() != window.len() || n < 1.0 || m < 1.0 {
        return None;
    }
    let pooled =
        || reference.iter().zip(window).map(|(left, right)| number(*left) + number(*right));
    let commonest = pooled().fold(0.0, f64::max);
    if (all - commonest) / all * n.min(m) < RANKED_MIN {
        return None;
    }
    let mut below = 0.0;
    let scored: Vec<f64> = pooled()
        .map(|count| {
            let middle = (below + count / 2.0) / all - 0.5;
            below += count;
            score(middle)
        })
        .collect();
    let mean = pooled().zip(&scored).map(|(count, score)| count * score).sum::<f64>() / all;
    let moment = |power: i32| {
        let terms = pooled().zip(&scored).map(|(count, score)| count * (score - mean).powi(power));
        terms.sum::<f64>() / all
    };
    let (variance, third) = (moment(2), moment(3));
    let of_window = window.iter().zip(&scored).map(|(count, score)| number(*count) * score);
    let gap = of_window.sum::<f64>() / m - mean;
    // Drawing without replacement: the window is a part of the pool.
    let error = (variance / m * (n / (all - 1.0))).sqrt();
    if error <= 0.0 {
        return None;
    }
    let z = gap / error;
    let skew = third / variance.powf(1.5) * (n - m) / (m * n * all).sqrt();
    let p = skewed_tail(z, skew);
    // The reference's mean is on the other side of the pool's.
    let factor = all / n;
    Some(Ranked { difference: gap * factor, error: error * factor, z, p })
}

/// Two-sided tail of the bell curve, with the first term that skewness adds far out (Petrov's expansion); never less than without it.
fn skewed_tail(z: f64, skew: f64) -> f64 {
    let excess = (skew * z.powi(3) / 6.0).clamp(0.0, 700.0);
    (gamma_tail(0.5, z * z / 2.0) * excess.exp()).min(1.0)
}

/// Fisher's exact test, two-sided by doubling, on two shares given as hits and rows.
///
/// Near the middle, where nobody looks at the number, the bell curve stands in for it.
pub fn share_p(reference: (u64, u64), window: (u64, u64)) -> f64 {
    let [hits, rows, seen_hits, seen] = [reference.0, reference.1, window.0, window.1].map(number);
    if rows < 1.0 || seen < 1.0 {
        return 1.0;
    }
    let (all_hits, all) = (hits + seen_hits, rows + seen);
    let pooled = all_hits / all;
    let variance = pooled * (1.0 - pooled) * all / (rows * seen);
    if variance <= 0.0 {
        return 1.0;
    }
    let z = (seen_hits / seen - hits / rows) / variance.sqrt();
    if z.abs() < NEAR && all > NEAR_ROWS_MIN {
        return gamma_tail(0.5, z * z / 2.0);
    }
    let tail = if z > 0.0 {
        hypergeometric_tail(window.0, window.1, reference.0 + window.0, reference.1)
    } else {
        let (few, rest) = (window.1 - window.0, reference.1 - reference.0);
        hypergeometric_tail(few, window.1, rest + few, reference.1)
    };
    (2.0 * tail).min(1.0)
}

/// Fisher's exact test, one-sided: whether the window's share is larger.
pub fn share_rise_p(reference: (u64, u64), window: (u64, u64)) -> f64 {
    hypergeometric_tail(window.0, window.1, reference.0.saturating_add(window.0), reference.1)
}

/// Whether the spread of plain numbers changed: the logarithm of the ratio of variances, whose error follows from the kurtosis.
///
/// A few values far out move it at once, which no count of ranks does. Only for light tails: with heavy ones a single row decides.
pub fn sd_ratio(reference: (f64, u64), window: (f64, u64), kurtosis: f64) -> Option<Ranked> {
    let ((sd, n), (window_sd, m)) = (reference, window);
    let (n, m) = (number(n), number(m));
    if sd <= 0.0 || window_sd <= 0.0 || n < RANKED_MIN || m < RANKED_MIN {
        return None;
    }
    let difference = (window_sd / sd).ln();
    // The variance of a logarithm of a variance, halved twice for a standard deviation.
    let error = ((kurtosis - 1.0).max(MOMENT_MIN) * (n.recip() + m.recip())).sqrt() / 2.0;
    let z = difference / error;
    Some(Ranked { difference, error, z, p: gamma_tail(0.5, z * z / 2.0) })
}

/// The largest difference of shares, and its p-value corrected for the shares that were looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Gap {
    /// Window less reference, for each cut or category.
    pub gaps: Vec<f64>,
    /// The place of the one that says most.
    pub place: usize,
    /// Its p-value, by Fisher's exact test and Bonferroni's correction.
    pub p: f64,
}

/// The largest difference between the shares of values up to a cut, over all cuts between bins: Kolmogorov and Smirnov's distance, with
/// a p-value that is right for bins, ties and few rows.
pub fn cut_gap(reference: &[u64], window: &[u64]) -> Option<Gap> {
    let up_to = |counts: &[u64]| {
        let cut = |sum: &mut u64, count: &u64| {
            *sum += *count;
            Some(*sum)
        };
        counts.iter().scan(0, cut).take(counts.len().saturating_sub(1)).collect::<Vec<_>>()
    };
    gap(&up_to(reference), &up_to(window), reference, window)
}

/// The largest difference between the shares of categories: the L-infinity distance.
pub fn category_gap(reference: &[u64], window: &[u64]) -> Option<Gap> {
    gap(reference, window, reference, window)
}

fn gap(hits: &[u64], window_hits: &[u64], reference: &[u64], window: &[u64]) -> Option<Gap> {
    let rows = (reference.iter().sum::<u64>(), window.iter().sum::<u64>());
    if reference.len() != window.len() || rows.0 == 0 || rows.1 == 0 {
        return None;
    }
    let (n, m) = (number(rows.0), number(rows.1));
    let (mut gaps, mut place, mut smallest, mut looked) = (Vec::new(), 0, 1.0, 0.0);
    for (at, (hit, window_hit)) in hits.iter().zip(window_hits).enumerate() {
        gaps.push(number(*window_hit) / m - number(*hit) / n);
        let both = hit + window_hit;
        if both == 0 || both == rows.0 + rows.1 {
            continue;
        }
        looked += 1.0;
        let p = share_p((*hit, rows.0), (*window_hit, rows.1));
        if p < smallest {
            (place, smallest) = (at, p);
        }
    }
    let p: f64 = smallest * f64::max(looked, 1.0);
    Some(Gap { gaps, place, p: p.min(1.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: [u64; 6] = [0, 120, 300, 250, 330, 0];
    const WINDOW: [u64; 6] = [7, 10, 60, 88, 30, 5];

    #[track_caller]
    fn close(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 1e-9, "{found} for {expected}");
    }

    #[test]
    fn a_shift_has_the_sign_of_its_direction_and_no_spread() {
        let reference = [100; 10];
        let higher = rank_shift(&reference, &[0, 0, 0, 0, 0, 20, 20, 20, 20, 20]).unwrap();
        close(higher.difference, 0.5);
        let lower = rank_shift(&reference, &[20, 20, 20, 20, 20, 0, 0, 0, 0, 0]).unwrap();
        close(lower.difference, -0.5);
        let wider = rank_spread(&reference, &[50, 0, 0, 0, 0, 0, 0, 0, 0, 50]).unwrap();
        assert!(wider.difference > 0.5 && wider.p < 1e-20, "{wider:?}");
        let same = rank_shift(&reference, &[50, 0, 0, 0, 0, 0, 0, 0, 0, 50]).unwrap();
        assert!(same.difference.abs() < 1e-12 && same.p > 0.99, "{same:?}");
    }

    #[test]
    fn few_rows_outside_of_one_bin_have_no_ranks() {
        assert_eq!(rank_shift(&[990, 10], &[199, 1]), None);
        assert_eq!(rank_shift(&[0, 0], &[1, 2]), None);
    }

    /// `scipy.stats.fisher_exact(table, alternative="greater")`, doubled
    #[test]
    fn shares_far_apart_have_the_exact_p_value() {
        close(share_p((0, 2_000), (4, 200)), 0.000_132_904_237_751_613_33);
        assert!(share_p((500, 1_000), (100, 200)) > 0.99);
        assert!(share_p((0, 0), (1, 2)) > 0.99);
    }

    #[test]
    fn the_largest_gap_is_found_where_it_is() {
        let gap = cut_gap(&REFERENCE, &WINDOW).unwrap();
        assert_eq!(gap.gaps.len(), 5);
        let gap = category_gap(&[500, 300, 200], &[20, 30, 150]).unwrap();
        assert_eq!(gap.place, 2);
        close(gap.gaps[2], 0.55);
    }
}
