//! Our detectors of changes beside those of river, on the same streams: each finds what the other finds, at the same value.

use std::fs;
use std::process::Command;

use anyhow::ensure;
use fastrand::Rng;
use sealift_protocol::change::{Adwin, PageHinkley};
use sealift_tests::needs::variable;
use sealift_tests::process::root;
use serde_json::json;

/// Streams of each kind.
const STREAMS: u64 = 150;

/// A detector that begins anew after each change, as river's do.
fn adwin(delta: f64, stream: &[f64]) -> Vec<usize> {
    let mut detector = Adwin::new(delta);
    let found = |(at, value): (usize, &f64)| {
        detector.take(*value)?;
        detector = Adwin::new(delta);
        Some(at)
    };
    stream.iter().enumerate().filter_map(found).collect()
}

fn page_hinkley(threshold: f64, stream: &[f64]) -> Vec<usize> {
    let mut detector = PageHinkley::new(0.005, threshold);
    let found = |(at, value): (usize, &f64)| detector.take(*value).map(|_| at);
    stream.iter().enumerate().filter_map(found).collect()
}

/// Failures and successes, latencies or confidences: steady, with jumps and with slides.
fn stream(seed: u64) -> Vec<f64> {
    let mut dice = Rng::with_seed(seed);
    let is_share = dice.bool();
    let (mut mean, mut slope) = (dice.f64(), 0.0);
    let length = dice.usize(100..4_000);
    let value = |_| {
        if dice.u32(0..700) == 0 {
            (mean, slope) = (dice.f64(), (dice.f64() - 0.5) / 1_000.0);
        }
        mean = (mean + slope).clamp(0.0, 1.0);
        if is_share {
            return f64::from(u8::from(dice.f64() < mean));
        }
        (mean + (dice.f64() - 0.5) / 3.0).clamp(0.0, 1.0)
    };
    (0..length).map(value).collect()
}

#[test]
#[ignore = "needs SEALIFT_DRIFT_PYTHON"]
fn changes_are_found_where_river_finds_them() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("streams.json");
    let streams: Vec<_> = (0..STREAMS).map(stream).collect();
    fs::write(&file, json!(streams).to_string())?;
    let mut python = Command::new(variable("SEALIFT_DRIFT_PYTHON")?);
    let output = python.arg(root().join("tests/interop/change.py")).arg(&file).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // For each stream: by two settings of ADWIN, and by two of Page-Hinkley.
    let theirs: Vec<[Vec<usize>; 4]> = serde_json::from_slice(&output.stdout)?;
    ensure!(theirs.len() == streams.len());

    let mut found = [0; 4];
    for (seed, (stream, theirs)) in streams.iter().zip(&theirs).enumerate() {
        let ours = [
            adwin(0.002, stream),
            adwin(0.05, stream),
            page_hinkley(5.0, stream),
            page_hinkley(50.0, stream),
        ];
        ensure!(ours == *theirs, "stream {seed}: we found {ours:?}, they {theirs:?}");
        found.iter_mut().zip(&ours).for_each(|(sum, ours)| *sum += ours.len());
    }
    println!("changes found by each: {found:?}");
    ensure!(found.iter().all(|&count| count > 20), "{found:?}");
    Ok(())
}
