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

use sealift_protocol::image::{Colour, ImageTensor, Layout};
use sealift_protocol::picture::{Pixels, of_tensor};
use sealift_protocol::profile::{Baseline, BaselineBuilder, Column, Profiler};
use sealift_protocol::tensor::Tensor;

/// What a value may cost.
const AIM_NS: f64 = 10.0;
/// Rows of the reference.
const REFERENCE: usize = 2_000;
/// Rows of a window.
const WINDOW: usize = 200;
/// Values of one measurement; the best of several counts, as others use the machine too.
const VALUES: usize = 2_000_000;
const TRIES: usize = 5;
/// The widest row, with room for joint features, which count as well.
const WIDEST: usize = 1_900;
/// Pictures of one measurement.
const PICTURES: u32 = 50;

fn main() {
    println!(
        "{:>9} {:28} {:>10} {:>14} {:>14}",
        "columns", "counted", "ns/value", "bytes/window", "bytes/column"
    );
    let mut slowest: f64 = 0.0;
    for columns in [1, 8, 64, 300, WIDEST] {
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
    pictures();
}

/// What the figures of a picture cost, whatever its size and form.
fn pictures() {
    println!("\n{:28} {:>12}", "picture", "µs");
    for (width, height) in [(64, 64), (640, 480), (1_920, 1_080), (7_680, 4_320)] {
        let data = (0..width * height * 3).map(|place| (place * 7 % 251) as u8).collect();
        let pixels = Pixels { width, height, channels: 3, data };
        println!(
            "{:28} {:>12.0}",
            format!("{width} x {height}, decoded"),
            micros(|| pixels.figures())
        );
    }
    let image = ImageTensor {
        layout: Layout::Nchw,
        colour: Colour::Rgb,
        divisor: 255.0,
        mean: vec![0.485, 0.456, 0.406],
        std: vec![0.229, 0.224, 0.225],
    };
    let values: Vec<f32> =
        (0..3 * 224 * 224).map(|place| (place % 97) as f32 / 50.0 - 1.0).collect();
    let tensor = Tensor::fp32("x", &[1, 3, 224, 224], &values).unwrap();
    println!("{:28} {:>12.0}", "224 x 224, FP32 tensor", micros(|| of_tensor(&tensor, &image, 0)));
}

/// The best of several tries.
fn micros<T>(look: impl Fn() -> T) -> f64 {
    let once = || {
        let begin = Instant::now();
        for _ in 0..PICTURES {
            black_box(look());
        }
        begin.elapsed().as_secs_f64() * 1e6 / f64::from(PICTURES)
    };
    (0..TRIES).map(|_| once()).fold(f64::INFINITY, f64::min)
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
