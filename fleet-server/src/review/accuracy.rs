//! How often a model is right, from the few predictions that somebody has labelled, with an interval.
//!
//! Each labelled prediction counts as much as the inverse of the chance with which it was kept and chosen (Horvitz and Thompson, JASA 1952),
//! as a share of their sum (Hájek, 1971), so that a model is not judged by the predictions that it was unsure of. The interval is Wilson's
//! score interval (JASA 1927) on the effective number of labels: the smaller of what the estimate's linearised variance and what the
//! weights alone allow (Kish, "Survey Sampling", 1965, section 11.7), as Franco, Little, Louis and Slud recommend for surveys
//! ("Comparative study of confidence intervals for proportions in complex sample surveys", JSSAM 2019).

/// 95 % of a normal distribution lie within so many standard deviations.
const Z: f64 = 1.959_963_984_540_054;

/// The name under which the figures are shown.
pub(crate) const METHOD: &str = "hajek/wilson-neff/95";

/// One prediction whose truth is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Judged {
    /// The chance with which it came to be labelled, above 0.
    pub(crate) chance: f64,
    /// Whether the model was right.
    pub(crate) is_right: bool,
}

/// How often a model is right.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    /// Labels that it is made of.
    pub(crate) labels: u64,
    /// As many labels chosen with one chance would say as much.
    pub(crate) effective: f64,
    /// The share of right predictions.
    pub(crate) share: f64,
    /// The interval's lower end.
    pub(crate) low: f64,
    /// Its upper end.
    pub(crate) high: f64,
}

/// Estimates how often a model is right; none without a label.
pub(crate) fn estimate(judged: &[Judged]) -> Option<Estimate> {
    let weights = || judged.iter().map(|one| 1.0 / one.chance);
    let (sum, squares) = weights()
        .fold((0.0, 0.0), |(sum, squares), weight| (sum + weight, squares + weight * weight));
    if sum <= 0.0 {
        return None;
    }
    let right = |one: &Judged| f64::from(u8::from(one.is_right));
    let share = judged.iter().zip(weights()).map(|(one, weight)| weight * right(one)).sum::<f64>();
    let share = (share / sum).clamp(0.0, 1.0);
    let by_weights = sum * sum / squares;
    let variance = judged
        .iter()
        .zip(weights())
        .map(|(one, weight)| (weight * (right(one) - share)).powi(2))
        .sum::<f64>()
        / (sum * sum);
    let by_variance = if variance > 0.0 { share * (1.0 - share) / variance } else { by_weights };
    let effective = by_weights.min(by_variance);
    let (low, high) = wilson(share, effective);
    let labels = u64::try_from(judged.len()).unwrap_or(u64::MAX);
    Some(Estimate { labels, effective, share, low, high })
}

/// Wilson's interval, for a number of labels that need not be whole.
fn wilson(share: f64, labels: f64) -> (f64, f64) {
    let z2 = Z * Z;
    let middle = (share + z2 / (2.0 * labels)) / (1.0 + z2 / labels);
    let half = Z / (1.0 + z2 / labels)
        * (share * (1.0 - share) / labels + z2 / (4.0 * labels * labels)).sqrt();
    ((middle - half).clamp(0.0, share), (middle + half).clamp(share, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equal(right: usize, all: usize) -> Vec<Judged> {
        (0..all).map(|place| Judged { chance: 0.25, is_right: place < right }).collect()
    }

    #[test]
    fn with_one_chance_for_all_it_is_wilsons_interval() {
        // Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 1998, table I, method 3.
        for (right, all, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let estimate = estimate(&equal(right, all)).unwrap();
            assert!((estimate.low - low).abs() < 5e-5, "{estimate:?}");
            assert!((estimate.high - high).abs() < 5e-5, "{estimate:?}");
            let all = f64::from(u32::try_from(all).unwrap());
            assert!((estimate.effective - all).abs() < 1e-6, "{estimate:?}");
        }
    }

    #[test]
    fn without_labels_there_is_no_figure() {
        assert_eq!(estimate(&[]), None);
    }

    #[test]
    fn a_few_labels_of_much_weight_widen_the_interval() {
        let few = [vec![Judged { chance: 0.01, is_right: true }; 5], equal(50, 100)].concat();
        let estimate = estimate(&few).unwrap();
        assert!(estimate.effective < 20.0 && estimate.high - estimate.low > 0.3, "{estimate:?}");
    }

    /// A model that is unsure of a fifth of what it sees, and worse there; kept by rule, by chance, and labelled in part.
    #[test]
    fn the_interval_holds_the_truth_as_often_as_it_says() {
        let mut random = fastrand::Rng::with_seed(7);
        let (mut held, mut naive_held, rounds) = (0, 0, 400);
        for _ in 0..rounds {
            let mut judged = Vec::new();
            let (mut right, all) = (0_u32, 20_000);
            for _ in 0..all {
                let is_unsure = random.f64() < 0.2;
                let is_right = random.f64() < if is_unsure { 0.55 } else { 0.97 };
                right += u32::from(is_right);
                let chance = if is_unsure { 0.1 } else { 0.02 };
                if random.f64() < chance {
                    judged.push(Judged { chance, is_right });
                }
            }
            let truth = f64::from(right) / f64::from(all);
            let holds = |estimate: Estimate| (estimate.low..=estimate.high).contains(&truth);
            held += u32::from(holds(estimate(&judged).unwrap()));
            let naive: Vec<_> = judged.iter().map(|one| Judged { chance: 1.0, ..*one }).collect();
            naive_held += u32::from(holds(estimate(&naive).unwrap()));
        }
        assert!(f64::from(held) / f64::from(rounds) >= 0.93, "{held} of {rounds}");
        assert!(naive_held < 40, "what ignores the chances is wrong: {naive_held} of {rounds}");
    }
}
