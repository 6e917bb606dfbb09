//! Our figures of drift beside scipy's, on the same counts.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic fails the test")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use sealift_protocol::drift::{
    benjamini_hochberg, category_gap, chi_square, jensen_shannon, kolmogorov_smirnov, number, psi,
    rank_shift, share_rise_p, wasserstein,
};
use serde::{Deserialize, Serialize};

const CASES: usize = 200;
/// The script that asks scipy.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/drift/equal.py");
/// Of the figure.
const TOLERANCE: f64 = 1e-9;
/// Where the figure is nothing but rounding.
const ROUNDING: f64 = 1e-12;

/// Counts at rising points.
#[derive(Debug, Serialize)]
struct Case {
    points: Vec<f64>,
    reference: Vec<u64>,
    window: Vec<u64>,
    p_values: Vec<f64>,
}

/// What scipy says of it; no chi-square where bins would have to be pooled.
#[derive(Debug, Deserialize)]
struct Figures {
    psi: f64,
    jensen_shannon: f64,
    ks: f64,
    ks_p: f64,
    wasserstein_sd: f64,
    linf: f64,
    cliffs_delta: f64,
    benjamini_hochberg: Vec<f64>,
    rise: Vec<f64>,
    chi_square: Option<f64>,
    chi_square_p: Option<f64>,
}

#[test]
#[ignore = "needs Python packages"]
fn every_figure_equals_that_of_scipy() {
    let mut chance = fastrand::Rng::with_seed(11);
    let cases: Vec<_> = (0..CASES).map(|_| case(&mut chance)).collect();
    let found = scipy(&cases);
    assert_eq!(found.len(), CASES);

    let with_chi_square = found.iter().filter(|figures| figures.chi_square.is_some()).count();
    assert!(with_chi_square > CASES / 5, "only {with_chi_square} have a chi-square");
    for (case, figures) in cases.iter().zip(&found) {
        compare(case, figures);
    }
}

/// From a flag to 24 bins, from a handful of rows to thousands, alike and not, with empty bins and without.
fn case(chance: &mut fastrand::Rng) -> Case {
    let bins = chance.usize(2..=24);
    let mut point = -50.0;
    let points = (0..bins).map(|_| {
        point += chance.f64() * 10.0 + 0.01;
        point
    });
    let points = points.collect();
    let most = [5, 60, 3_000][chance.usize(0..3)];
    let emptiness = if chance.bool() { chance.f64() / 2.0 } else { 0.0 };
    let mut counts = |most: u64| -> Vec<u64> {
        (0..bins).map(|_| if chance.f64() < emptiness { 0 } else { chance.u64(0..=most) }).collect()
    };
    let (mut reference, mut window) = (counts(most), counts(most.div_ceil(4)));
    // Two values at least, so that there is a standard deviation.
    reference[0] += 1;
    reference[bins - 1] += 2;
    window[bins / 2] += 1;
    let p_values = (0..chance.usize(1..=12)).map(|_| chance.f64()).collect();
    Case { points, reference, window, p_values }
}

fn scipy(cases: &[Case]) -> Vec<Figures> {
    let python = std::env::var("SEALIFT_PYTHON").unwrap();
    let mut python = Command::new(python)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(SCRIPT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = python.stdin.take().unwrap();
    input.write_all(&serde_json::to_vec(cases).unwrap()).unwrap();
    drop(input);
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "scipy's side ended with {}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn compare(case: &Case, scipy: &Figures) {
    let (reference, window) = (case.reference.as_slice(), case.window.as_slice());
    let close = |what: &str, ours: f64, theirs: f64| {
        let is_close = (ours - theirs).abs() <= TOLERANCE * theirs.abs() + ROUNDING;
        assert!(is_close, "{what}: {ours} and not {theirs} of {case:?}");
    };
    let (ks, ks_p) = kolmogorov_smirnov(reference, window).unwrap();
    let moved = wasserstein(&case.points, reference, window).unwrap();
    let linf = category_gap(reference, window).unwrap().gaps;
    let linf = linf.iter().map(|gap| gap.abs()).fold(0.0, f64::max);
    close("psi", psi(reference, window).unwrap(), scipy.psi);
    close("jensen-shannon", jensen_shannon(reference, window).unwrap(), scipy.jensen_shannon);
    close("ks", ks, scipy.ks);
    close("ks p", ks_p, scipy.ks_p);
    close("wasserstein/sd", moved / sd(&case.points, reference), scipy.wasserstein_sd);
    close("l-infinity", linf, scipy.linf);
    if let Some(ranked) = rank_shift(reference, window) {
        close("cliff's delta", ranked.difference, scipy.cliffs_delta);
    }
    if let (Some(statistic), Some(p)) = (scipy.chi_square, scipy.chi_square_p) {
        let test = chi_square(reference, window).unwrap();
        close("chi-square", test.statistic, statistic);
        close("chi-square p", test.p, p);
    }
    let corrected = benjamini_hochberg(&case.p_values);
    for (ours, theirs) in corrected.into_iter().zip(&scipy.benjamini_hochberg) {
        close("benjamini-hochberg", ours, *theirs);
    }
    let rows = (reference.iter().sum(), window.iter().sum());
    let (mut hits, mut seen) = (0, 0);
    for ((before, now), theirs) in reference.iter().zip(window).zip(&scipy.rise) {
        (hits, seen) = (hits + before, seen + now);
        // More likely than not is said to be certain.
        if *theirs < 0.5 {
            close("fisher's exact test", share_rise_p((hits, rows.0), (seen, rows.1)), *theirs);
        }
    }
}

fn sd(points: &[f64], counts: &[u64]) -> f64 {
    let all = number(counts.iter().sum());
    let weighed = || points.iter().zip(counts.iter().copied().map(number));
    let mean = weighed().map(|(point, count)| point * count).sum::<f64>() / all;
    let square = weighed().map(|(point, count)| count * (point - mean).powi(2)).sum::<f64>();
    (square / all).sqrt()
}
