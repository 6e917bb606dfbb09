//! Golden tests on the device's own hardware, before any traffic.

use std::time::Duration;

use sealift_protocol::image::{Golden, GoldenCase};
use tokio::time::Instant;

use super::frame::Fault;
use crate::engine::Engine;

/// Runs all cases once to warm up and once against the clock; both times the outputs must be right. Returns the time of the second.
pub(super) fn run(
    engine: &mut dyn Engine,
    golden: &Golden,
    latency_max: Duration,
) -> Result<Duration, (Fault, String)> {
    if golden.cases.is_empty() {
        return Err((Fault::Golden, "the image has no golden case".to_owned()));
    }
    for case in &golden.cases {
        pass(engine, case)?;
    }
    let mut total = Duration::ZERO;
    for case in &golden.cases {
        let taken = pass(engine, case)?;
        if taken > latency_max {
            let name = &case.name;
            let text = format!("golden case `{name}` took {taken:?}, {latency_max:?} are allowed");
            return Err((Fault::Latency, text));
        }
        total += taken;
    }
    Ok(total)
}

fn pass(engine: &mut dyn Engine, case: &GoldenCase) -> Result<Duration, (Fault, String)> {
    let begin = Instant::now();
    let outputs = engine.run(&case.inputs);
    let taken = begin.elapsed();
    let failed = |error| format!("golden case `{}`: {error}", case.name);
    let outputs = outputs.map_err(|error| (Fault::Golden, failed(error)))?;
    case.judge(&outputs).map_err(|mismatch| (Fault::Golden, mismatch.to_string()))?;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use sealift_protocol::image::{IoContract, Tolerance};
    use sealift_protocol::tensor::Tensor;

    use super::*;
    use crate::engine::fake::Fake;

    fn engine() -> Fake {
        let json = br#"{"schema":1,"inputs":[{"name":"x","datatype":"FP32","shape":[-1,1]}],
            "outputs":[{"name":"y","datatype":"FP32","shape":[-1,1],"role":"value"}]}"#;
        Fake::new(IoContract::parse(json).unwrap())
    }

    fn golden(shift: f32) -> Golden {
        let inputs = vec![Tensor::fp32("x", &[1, 1], &[3.0]).unwrap()];
        let y = engine().run(&inputs).unwrap()[0].numbers().unwrap()[0];
        #[expect(clippy::cast_possible_truncation, reason = "was an f32 before")]
        let outputs = vec![Tensor::fp32("y", &[1, 1], &[y as f32 + shift]).unwrap()];
        let tolerance = Tolerance { absolute: 1e-3, relative: 0.0 };
        let case = GoldenCase { name: "three".to_owned(), inputs, outputs, tolerance };
        Golden { schema: 1, cases: vec![case] }
    }

    fn outcome(golden: &Golden, latency_max: Duration) -> Result<(), (Fault, String)> {
        run(&mut engine(), golden, latency_max).map(|_| ())
    }

    #[test]
    fn right_outputs_within_the_time_pass() {
        outcome(&golden(0.0), Duration::from_secs(9)).unwrap();
    }

    #[test]
    fn a_wrong_output_is_refused_and_named() {
        let (fault, text) = outcome(&golden(0.1), Duration::from_secs(9)).unwrap_err();
        assert_eq!(fault, Fault::Golden);
        assert!(text.starts_with("golden case `three`: output `y`[0] is 0."), "{text}");
    }

    #[test]
    fn a_slow_case_is_refused() {
        let (fault, _) = outcome(&golden(0.0), Duration::ZERO).unwrap_err();
        assert_eq!(fault, Fault::Latency);
    }

    #[test]
    fn an_image_without_a_golden_case_is_refused() {
        let none = Golden { schema: 1, cases: vec![] };
        assert_eq!(outcome(&none, Duration::MAX).unwrap_err().0, Fault::Golden);
    }
}
