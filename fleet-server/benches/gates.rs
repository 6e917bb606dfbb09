//! How often the gates that look at the model halt a harmless rollout, and how soon a harmful one: `cargo xtask bench gates`.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement: small counts, and a clock that says how long it took"
)]

#[path = "gates/shadow.rs"]
mod shadow;
#[path = "gates/simulation.rs"]
mod simulation;

use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use sealift_fleet_server::rollout::evidence::RISK;
use simulation::{CANARIES, CONTROLS, Course, Harm, Stop, roll_out};

/// Rollouts of each kind.
const RUNS: u64 = 1_000;
/// Looks at each: two hours with one a minute.
const LOOKS: usize = 120;

fn main() -> ExitCode {
    let begun = Instant::now();
    println!(
        "{RUNS} rollouts each, {CANARIES} canaries, {CONTROLS} controls, {LOOKS} looks, thrice as many at 1%"
    );
    println!("{:<34} {:>22} {:>22} {:>22}", "", "gates", "fixed thresholds", "a test at each look");
    let none = Harm::default();
    let mut is_good = true;
    for (name, harm, looks) in [
        ("no harm", none, LOOKS),
        ("1% errors", Harm { errors: 0.01, ..none }, 3 * LOOKS),
        ("3% errors", Harm { errors: 0.03, ..none }, LOOKS),
        ("10% errors", Harm { errors: 0.10, ..none }, LOOKS),
        ("latency +20%", Harm { latency: 0.20, ..none }, LOOKS),
        ("confidence -5 points", Harm { confidence: 0.05, ..none }, LOOKS),
        ("10% errors after an hour", Harm { errors: 0.10, from: 60, ..none }, LOOKS),
    ] {
        let courses = run_all(|seed| roll_out(seed, harm, looks));
        let share = tell(name, &courses, harm.from);
        let is_harmless = harm.errors + harm.latency + harm.confidence == 0.0;
        is_good &= if is_harmless { share <= RISK } else { share >= 0.95 };
    }
    for (name, disagreement) in [
        ("0.5% disagree, 1% may", 0.005),
        ("1% disagree, as may be", shadow::LIMIT),
        ("2% disagree, 1% may", 0.02),
        ("5% disagree, 1% may", 0.05),
    ] {
        let courses = run_all(|seed| shadow::roll_out(seed, disagreement, LOOKS));
        let share = tell(name, &courses, 0);
        is_good &= if disagreement <= shadow::LIMIT { share <= RISK } else { share >= 0.95 };
    }
    println!(
        "halted %, median looks and requests of canaries from the harm on; {:.1?}",
        begun.elapsed()
    );
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints how rollouts of a kind went; returns the share of those that the gates halted.
fn tell(name: &str, courses: &[Course], from: usize) -> f64 {
    let by = |stop: fn(&Course) -> Option<Stop>| summary(courses, stop, from);
    let gates = by(|course| course.halted.map(|(stop, _)| stop));
    let (threshold, peeking) = (by(|course| course.by_threshold), by(|it| it.by_peeking));
    println!("{name:<34} {gates:>22} {threshold:>22} {peeking:>22}");
    let halted = courses.iter().filter(|course| course.halted.is_some()).count();
    halted as f64 / courses.len() as f64
}

/// All rollouts of a kind, on all processors.
fn run_all(roll_out: impl Fn(u64) -> Course + Sync) -> Vec<Course> {
    let roll_out = &roll_out;
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    thread::scope(|scope| {
        let run = |first: u64| {
            let seeds = (first..RUNS).step_by(threads as usize);
            scope.spawn(move || seeds.map(roll_out).collect::<Vec<_>>())
        };
        let running: Vec<_> = (0..threads).map(run).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// `99.7%   6    3110`
fn summary(courses: &[Course], stop: fn(&Course) -> Option<Stop>, from: usize) -> String {
    let mut stops: Vec<_> = courses.iter().filter_map(stop).collect();
    stops.sort_by_key(|stop| stop.looks);
    let share = 100.0 * stops.len() as f64 / courses.len() as f64;
    match stops.get(stops.len() / 2) {
        Some(Stop { looks, requests }) if from == 0 => {
            format!("{share:.1}% {looks:>4} {requests:>7}")
        }
        Some(Stop { looks, .. }) => format!("{share:.1}% {:>4}", looks.saturating_sub(from)),
        None => format!("{share:.1}%"),
    }
}
