//! Gates that look at the model leave a harmless image alone and find a harmful one: a sample of `cargo xtask bench gates`.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a simulation: small counts"
)]

#[path = "../benches/gates/shadow.rs"]
mod shadow;
#[path = "../benches/gates/simulation.rs"]
mod simulation;

use sealift_fleet_server::rollout::evidence::Metric;
use simulation::{CANARIES, CONTROLS, Harm, roll_out};

/// Rollouts of a kind: enough that an error of twenty times the promised one would show.
const RUNS: u64 = 12;
const LOOKS: usize = 40;

fn halts(harm: Harm) -> Vec<Metric> {
    let courses = (0..RUNS).map(|seed| roll_out(seed, harm, LOOKS));
    courses.filter_map(|course| course.halted).map(|(_, metric)| metric).collect()
}

#[test]
fn a_harmless_image_is_not_halted_where_fixed_thresholds_halt_it() {
    let courses: Vec<_> = (0..RUNS).map(|seed| roll_out(seed, Harm::default(), LOOKS)).collect();
    let by_threshold = courses.iter().filter_map(|course| course.by_threshold);
    let by_peeking = courses.iter().filter_map(|course| course.by_peeking);

    assert_eq!(courses.iter().filter(|course| course.halted.is_some()).count(), 0);
    assert!(by_threshold.count() > 0 && by_peeking.count() > 0, "{CANARIES} {CONTROLS}");
}

#[test]
fn errors_are_found_soon_by_the_gate_for_errors() {
    let harm = Harm { errors: 0.1, ..Harm::default() };
    let courses = (0..RUNS).map(|seed| roll_out(seed, harm, LOOKS));

    for (stop, metric) in courses.map(|course| course.halted.unwrap()) {
        assert_eq!(metric, Metric::Errors);
        assert!(stop.looks <= 10 && stop.requests <= 10_000, "{stop:?}");
    }
}

#[test]
fn slower_answers_are_found_by_the_gate_for_latency() {
    let found = halts(Harm { latency: 0.3, ..Harm::default() });
    assert_eq!(found, vec![Metric::Latency; 12]);
}

#[test]
fn an_image_that_disagrees_more_than_allowed_is_found_and_one_that_does_not_is_left_alone() {
    let halted = |share: f64| {
        let courses = (0..RUNS).map(|seed| shadow::roll_out(seed, share, LOOKS));
        courses.filter(|course| course.halted.is_some()).count()
    };
    assert_eq!((halted(shadow::LIMIT), halted(0.04)), (0, 12));
}
