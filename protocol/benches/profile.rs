//! What it costs a device to count a value, and how large a window is on the wire: `cargo xtask bench profile`.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement: small counts, and a clock that says how long it took"
)]

use std::hint::black_box;
use std::time::Instant;

use sealift_protocol::profile::{Baseline, BaselineBuilder, Column, Profiler};

/// What a value may cost.
const AIM_NS: f64 = 10.0;
/// Rows of the reference.
const REFERENCE: usize = 2_000;
/// Rows of a window.
const WINDOW: usize = 200;
/// Values of one measurement; the best of several counts, as others use the machine too.
const VALUES: usize = 2_000_000;
const TRIES: usize = 5;

fn main() {
    println!(
        "{:>9} {:28} {:>10} {:>14} {:>14}",
        "columns", "counted", "ns/value", "bytes/window", "bytes/column"
    );
    let mut slowest: f64 = 0.0;
    for columns in [1, 8, 64, 300, 2_000] {
        for (name, has_joint) in
            [("each, and pairs up to 64", false), ("the same and joint features", true)]
        {
            let rows = rows(columns, REFERENCE.min(1_000_000 / columns));
            let baseline = baseline(&rows, columns, has_joint);
            let ns = ns_per_value(&baseline, &rows);
            let bytes = bytes(&baseline, &rows);
            let each = bytes as f64 / columns as f64;
            println!("{columns:>9} {name:28} {ns:>10.1} {bytes:>14} {each:>14.0}");
            if columns >= 8 && !has_joint {
                slowest = slowest.max(ns);
            }
        }
    }
    let word = if slowest <= AIM_NS { "kept" } else { "missed" };
    println!(
        "at most {AIM_NS} ns for a value of a row of 8 or more, without joint features: {word} ({slowest:.1})"
    );
}

fn rows(columns: usize, count: usize) -> Vec<Vec<f32>> {
    let mut chance = fastrand::Rng::with_seed(7);
    let row = |chance: &mut fastrand::Rng| -> Vec<f32> {
        let common = bell(chance);
        (0..columns).map(|_| (0.5 * common + bell(chance)) as f32).collect()
    };
    (0..count).map(|_| row(&mut chance)).collect()
}

fn bell(chance: &mut fastrand::Rng) -> f64 {
    (0..12).map(|_| chance.f64()).sum::<f64>() - 6.0
}

fn baseline(rows: &[Vec<f32>], columns: usize, has_joint: bool) -> Baseline {
    let columns = (0..columns).map(|place| Column::numeric(&format!("x{place}"), "all")).collect();
    let builder = BaselineBuilder::new(columns, vec![]);
    let mut builder = if has_joint { builder.with_joint() } else { builder };
    for row in rows {
        let row: Vec<f64> = row.iter().copied().map(f64::from).collect();
        builder.push(&row, None, None).unwrap();
    }
    builder.build().unwrap()
}

fn ns_per_value(baseline: &Baseline, rows: &[Vec<f32>]) -> f64 {
    let columns = baseline.inputs();
    let count = VALUES.div_ceil(columns);
    let mut best = f64::INFINITY;
    for _ in 0..TRIES {
        let mut profiler = Profiler::new(baseline);
        let begun = Instant::now();
        for row in rows.iter().cycle().take(count) {
            profiler.observe(black_box(row), None, None, None);
        }
        black_box(profiler.close());
        best = best.min(begun.elapsed().as_nanos() as f64 / (count * columns) as f64);
    }
    best
}

fn bytes(baseline: &Baseline, rows: &[Vec<f32>]) -> usize {
    let mut profiler = Profiler::new(baseline);
    for row in rows.iter().cycle().take(WINDOW) {
        profiler.observe(row, None, None, None);
    }
    profiler.close().encode().unwrap().len()
}
