use sealift_protocol::api::ModelGates;

use super::*;

fn id(number: usize) -> DeviceId {
    DeviceId::parse(&format!("cam-{number}")).unwrap()
}

/// Devices that answer 100 requests and fail so many of them.
fn group(first: usize, failed: &[u64]) -> BTreeMap<DeviceId, Reading> {
    let reading = |(number, &failed): (usize, &u64)| {
        (id(first + number), Reading::counted(100 - failed, failed))
    };
    failed.iter().enumerate().map(reading).collect()
}

fn look(canaries: &[u64], controls: &[u64]) -> Look {
    Look { canaries: group(0, canaries), controls: group(1_000, controls) }
}

fn errors(evidence: &Evidence, gates: &ModelGates) -> Comparison {
    let comparisons = evidence.comparisons(Rules { gates, waves: 1 });
    *comparisons.iter().find(|it| it.metric == Metric::Errors).unwrap()
}

fn after(looks: usize, look: &Look, gates: &ModelGates) -> Evidence {
    let mut evidence = Evidence::default();
    for _ in 0..looks {
        evidence.look(look, Rules { gates, waves: 1 });
    }
    evidence
}

#[test]
fn canaries_that_fail_more_than_controls_are_found_and_named_in_words() {
    let gates = ModelGates::default();

    let evidence = after(40, &look(&[9, 8, 7], &[1, 0, 1, 2, 1]), &gates);

    let found = errors(&evidence, &gates);
    assert!(!found.is_held);
    let text = found.to_string();
    assert!(text.starts_with("error rate is 8.0% against 1.0% in control; e-value "), "{text}");
    assert!(text.ends_with(", limit 1000"), "{text}");
}

#[test]
fn canaries_that_do_as_controls_do_are_left_alone_though_all_fail_much() {
    let gates = ModelGates::default();

    let evidence = after(500, &look(&[20, 10, 15], &[15, 20, 10, 18, 12]), &gates);

    assert!(errors(&evidence, &gates).is_held);
}

#[test]
fn one_device_that_is_worse_among_devices_that_differ_is_no_evidence() {
    let gates = ModelGates::default();

    let evidence = after(500, &look(&[9], &[0, 10, 3, 8, 1, 7, 2, 9]), &gates);

    assert!(errors(&evidence, &gates).is_held);
}

#[test]
fn nothing_is_concluded_before_there_is_enough_to_judge_by() {
    let few = ModelGates { min_devices: 4, ..ModelGates::default() };
    let rare = ModelGates { min_requests: 7_000, ..ModelGates::default() };
    let harm = look(&[30, 30, 30], &[1, 0, 1, 2, 1]);

    assert!(errors(&after(20, &harm, &few), &few).is_held);
    assert!(errors(&after(20, &harm, &rare), &rare).is_held);
    assert!(!errors(&after(24, &harm, &rare), &rare).is_held);
}

#[test]
fn what_was_shown_stays_shown() {
    let gates = ModelGates::default();
    let mut evidence = after(20, &look(&[30, 30, 30], &[1, 0, 1, 2, 1]), &gates);

    for _ in 0..200 {
        evidence.look(&look(&[0, 0, 0], &[5, 5, 5, 5]), Rules { gates: &gates, waves: 1 });
    }

    assert!(!errors(&evidence, &gates).is_held);
}

#[test]
fn more_waves_and_gates_share_the_same_risk() {
    let gates = ModelGates::default();
    let evidence = after(3, &look(&[1, 1, 1], &[1, 1, 1]), &gates);
    let one = ModelGates { error_rise: Some(0.01), ..ModelGates::off() };

    let limit = |gates, waves| evidence.comparisons(Rules { gates, waves })[0].limit;

    assert!((limit(&gates, 1) - 1_000.0).abs() < 1e-6);
    assert!((limit(&gates, 3) - 3_000.0).abs() < 1e-6);
    assert!((limit(&one, 1) - 200.0).abs() < 1e-6);
}

#[test]
fn a_gate_that_is_off_is_not_shown() {
    let evidence = after(20, &look(&[30, 30, 30], &[1, 0, 1, 2, 1]), &ModelGates::default());
    let off = ModelGates::off();

    assert_eq!(evidence.comparisons(Rules { gates: &off, waves: 1 }), []);
}

#[test]
fn without_controls_canaries_are_compared_with_their_own_past() {
    let gates = ModelGates::default();
    let rules = Rules { gates: &gates, waves: 1 };
    let past: Vec<_> = (0..10).map(|number| (id(number % 3), Reading::counted(99, 1))).collect();
    let (mut worse, mut same) = (Evidence::default(), Evidence::default());
    assert!(!worse.has_past());
    worse.set_past(Past::of(&past));
    same.set_past(Past::of(&past));

    for _ in 0..30 {
        worse.look(&look(&[10, 10, 10], &[]), rules);
        same.look(&look(&[1, 1, 1], &[]), rules);
    }

    let found = errors(&worse, &gates);
    assert!(found.is_against_past && !found.is_held);
    assert!(found.to_string().contains("against 1.0% before"), "{found}");
    assert!(errors(&same, &gates).is_held);
}

#[test]
fn slower_answers_less_confidence_and_other_classes_are_found() {
    let gates = ModelGates::default();
    let rules = Rules { gates: &gates, waves: 1 };
    let answers = |slow: u64, confidence: f64, sevens: u64| {
        let mut reading = Reading::default();
        (0..100).for_each(|request| reading.add_answer(slow * (1_000 + request * 10)));
        reading.add_confidence(confidence, 100);
        reading.add_classes(&[100 - sevens, sevens]);
        reading
    };
    let mut evidence = Evidence::default();
    for _ in 0..40 {
        let canaries = (0..5).map(|number| (id(number), answers(2, 0.7, 60))).collect();
        let controls = (10..30).map(|number| (id(number), answers(1, 0.9, 20))).collect();
        evidence.look(&Look { canaries, controls }, rules);
    }

    let comparisons = evidence.comparisons(rules);

    let failed: Vec<_> = comparisons.iter().filter(|it| !it.is_held).map(|it| it.metric).collect();
    assert_eq!(failed, [Metric::Latency, Metric::Confidence, Metric::Classes]);
}

#[test]
fn what_is_kept_between_looks_is_read_back_as_it_was() {
    let gates = ModelGates::default();
    let evidence = after(7, &look(&[3, 1, 2], &[1, 0, 1, 2, 1]), &gates);

    let bytes = sealift_protocol::codec::encode(&evidence).unwrap();
    let again: Evidence = sealift_protocol::codec::decode("evidence", &bytes, 1 << 20).unwrap();

    assert_eq!(again, evidence);
}
