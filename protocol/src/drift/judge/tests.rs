//! Rules of judging, on small cases and on the digits.

use crate::id::DeviceId;
use crate::profile::{BaselineBuilder, Column, Profiler, quadrant};

use super::*;
use DriftState::{Drifted, Steady, Suspect, TooFew};

fn baseline() -> Baseline {
    let columns = vec![Column::numeric("light", "sensor")];
    let mut builder = BaselineBuilder::new(columns, vec![]);
    for row in 0..1_000_u32 {
        builder.push(&[f64::from(row)], None, None).unwrap();
    }
    builder.build().unwrap()
}

/// A window with `rows` values spread evenly from 0 to 999, moved by `shift`.
fn window(baseline: &Baseline, minute: i64, rows: u16, shift: f32) -> Window {
    let mut profiler = Profiler::new(baseline);
    for row in 0..rows {
        let value = f32::from(row) * 999.0 / f32::from(rows) + shift;
        profiler.observe(&[value], None, None, None);
    }
    let from = UnixMillis(minute * 60_000);
    Window { from, until: from.plus(60_000), profile: profiler.close() }
}

/// The verdict on the one feature's bins after each of some windows.
fn story(windows: &[(u16, f32)]) -> Vec<DriftState> {
    let baseline = baseline();
    let mut lived = Vec::new();
    let mut verdicts = Vec::new();
    let mut states = Vec::new();
    for (minute, (rows, shift)) in (0..).zip(windows) {
        lived.push(window(&baseline, minute, *rows, *shift));
        let case = Case { scope: Scope::Fleet, windows: &lived, against: Against::Baseline };
        verdicts = judge(&baseline, &[case], &verdicts, &Policy::default()).unwrap();
        states.push(light(&verdicts).state);
    }
    states
}

fn light(verdicts: &[Verdict]) -> &Verdict {
    verdicts.iter().find(|verdict| verdict.metric == Metric::PsiNumeric).unwrap()
}

#[test]
fn drift_opens_after_two_windows_in_a_row() {
    let states =
        story(&[(200, 0.0), (200, 500.0), (200, 500.0), (200, 500.0), (200, 0.0), (200, 0.0)]);
    assert_eq!(states, [Steady, Suspect, Drifted, Drifted, Drifted, Steady]);
}

#[test]
fn one_bad_window_is_no_drift() {
    let states = story(&[(200, 500.0), (200, 0.0), (200, 500.0), (200, 0.0), (200, 0.0)]);
    assert_eq!(states, [Suspect, Steady, Suspect, Steady, Steady]);
}

#[test]
fn open_drift_stays_open_between_the_thresholds() {
    // A shift of 25 has an index of 0.15: too little to open, too much to close.
    assert_eq!(story(&[(200, 25.0); 3]), [Steady, Steady, Steady]);
    let states = story(&[(200, 500.0), (200, 500.0), (200, 25.0), (200, 0.0)]);
    assert_eq!(states, [Suspect, Drifted, Drifted, Steady]);
}

#[test]
fn too_few_rows_say_nothing_and_change_nothing() {
    assert_eq!(story(&[(29, 500.0)]), [TooFew]);
    let states = story(&[(200, 500.0), (200, 500.0), (10, 0.0)]);
    assert_eq!(states, [Suspect, Drifted, Drifted]);
}

#[test]
fn small_windows_are_judged_together() {
    assert_eq!(story(&[(25, 500.0); 5]), [TooFew, TooFew, TooFew, Suspect, Drifted]);
}

#[test]
fn judging_the_same_window_twice_is_judging_it_once() {
    let baseline = baseline();
    let lived = [window(&baseline, 0, 200, 500.0)];
    let case = Case { scope: Scope::Fleet, windows: &lived, against: Against::Baseline };
    let once = judge(&baseline, std::slice::from_ref(&case), &[], &Policy::default()).unwrap();
    let twice = judge(&baseline, &[case], &once, &Policy::default()).unwrap();
    assert_eq!(once, twice);
    assert_eq!(light(&twice).state, Suspect);
}

#[test]
fn a_device_is_compared_with_its_cohort() {
    let baseline = baseline();
    let cohort = window(&baseline, 0, 2_000, 500.0).profile;
    let scope = Scope::Device(DeviceId::parse("cam-1").unwrap());
    let mut verdicts = Vec::new();
    let mut states = Vec::new();
    for shift in [500.0, 0.0] {
        let lived = [window(&baseline, 0, 200, shift), window(&baseline, 1, 200, shift)];
        for windows in [&lived[..1], &lived[..]] {
            let case = Case { scope: scope.clone(), windows, against: Against::Cohort(&cohort) };
            verdicts = judge(&baseline, &[case], &verdicts, &Policy::default()).unwrap();
            states.push(light(&verdicts).state);
        }
        if shift > 0.0 {
            verdicts.clear();
        }
    }
    assert_eq!(states, [Steady, Steady, Suspect, Drifted]);
    insta::assert_snapshot!(light(&verdicts).why, @"psi/refq10+tails/eps1e-4 7.713 (counts from 0.1), corrected p 1.8e-233, over 200 rows in 1 window");
}

#[test]
fn the_more_devices_are_looked_at_the_less_one_of_them_says() {
    let baseline = baseline();
    let odd = [window(&baseline, 0, 200, 180.0)];
    let even = [window(&baseline, 0, 200, 0.0)];
    let case = |id: &str, windows| {
        let scope = Scope::Device(DeviceId::parse(id).unwrap());
        Case { scope, windows, against: Against::Baseline }
    };
    let corrected_p = |cases: &[Case<'_>]| {
        light(&judge(&baseline, cases, &[], &Policy::default()).unwrap()).corrected_p
    };

    let alone = corrected_p(&[case("odd", &odd)]);
    let among = corrected_p(&[case("odd", &odd), case("a", &even), case("b", &even)]);

    assert!((among / alone - 3.0).abs() < 1e-9, "{alone} {among}");
}

#[test]
fn windows_of_another_baseline_are_refused() {
    let ours = baseline();
    let mut builder = BaselineBuilder::new(vec![Column::numeric("light", "other")], vec![]);
    builder.push(&[1.0], None, None).unwrap();
    let lived = [window(&builder.build().unwrap(), 0, 200, 0.0)];
    let case = Case { scope: Scope::Fleet, windows: &lived, against: Against::Baseline };
    assert!(judge(&ours, &[case], &[], &Policy::default()).is_err());
}

#[test]
fn a_verdict_survives_its_stored_form() {
    let baseline = baseline();
    let lived = [window(&baseline, 0, 200, 500.0)];
    let case = Case { scope: Scope::Fleet, windows: &lived, against: Against::Baseline };
    for verdict in judge(&baseline, &[case], &[], &Policy::default()).unwrap() {
        let json = serde_json::to_string(&verdict).unwrap();
        let stored: Verdict = serde_json::from_str(&json).unwrap();
        assert_eq!(key(&stored), key(&verdict));
        let standing =
            |verdict: &Verdict| (verdict.state, verdict.streak, verdict.since, verdict.until);
        assert_eq!(standing(&stored), standing(&verdict));
    }
}

#[test]
fn figures_name_their_methods() {
    let baseline = baseline();
    let profile = window(&baseline, 0, 200, 500.0).profile;
    let lines: Vec<_> = figures(&baseline, &profile, "light")
        .into_iter()
        .map(|figure| {
            let p = figure.p.map_or_else(String::new, |p| format!(" p {p:.2e}"));
            format!("{} {:.4}{p}", figure.metric, figure.value)
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    psi/refq10+tails/eps1e-4 7.7082
    js/refq10+tails/bits 0.5000
    wasserstein-sd/refq10+tails/middles 1.2989
    ks/refq10+tails 0.5000 p 1.29e-36
    chi2/refq10+tails/pool5 600.0000 p 1.76e-122
    ");
    assert!(figures(&baseline, &profile, "dark").is_empty());
}

/// The columns p00 to p77 of a CSV file, as they stand there.
fn pixels(csv: &str) -> Vec<Vec<f64>> {
    let header = csv.lines().next().unwrap();
    let first = header.split(',').position(|name| name == "p00").unwrap();
    let pixel = |cell: &str| cell.parse().unwrap();
    let row = |line: &str| line.split(',').skip(first).take(64).map(pixel).collect();
    csv.lines().skip(1).map(row).collect()
}

#[test]
fn turned_digits_are_found_and_new_ones_of_the_same_kind_are_not() {
    let reference = pixels(include_str!("../../../../tests/fixtures/digits/v2/reference.csv"));
    let holdout = pixels(include_str!("../../../../tests/fixtures/digits/data/holdout.csv"));
    let drifted = pixels(include_str!("../../../../tests/fixtures/digits/data/drifted.csv"));
    let column = |index: usize| {
        Column::numeric(&format!("p{}{}", index / 8, index % 8), quadrant(index, 8, 8))
    };
    let columns = (0..64).map(column).collect();
    let mut builder = BaselineBuilder::new(columns, vec![]).with_summary();
    for row in &reference {
        builder.push(row, None, None).unwrap();
    }
    let baseline = builder.build().unwrap();

    let states = |rows: &[Vec<f64>]| {
        let mut profiler = Profiler::new(&baseline);
        let (mut lived, mut verdicts) = (Vec::new(), Vec::new());
        for (minute, rows) in (0..).zip(rows.as_chunks::<250>().0) {
            for row in rows {
                #[expect(clippy::cast_possible_truncation, reason = "as a device sees it")]
                let row: Vec<f32> = row.iter().map(|value| *value as f32).collect();
                profiler.observe(&row, None, None, None);
            }
            let from = UnixMillis(minute);
            lived.push(Window { from, until: from.plus(1), profile: profiler.close() });
            let case = Case { scope: Scope::Fleet, windows: &lived, against: Against::Baseline };
            verdicts = judge(&baseline, &[case], &verdicts, &Policy::default()).unwrap();
        }
        verdicts.into_iter().map(|verdict| (verdict.subject.to_string(), verdict.state))
    };

    let odd: Vec<_> = states(&holdout).filter(|(_, state)| *state != Steady).collect();
    assert_eq!(odd, []);
    let groups: Vec<_> = states(&drifted)
        .filter(|(subject, state)| *state == Drifted && subject.starts_with("group:"))
        .map(|(subject, _)| subject)
        .collect();
    insta::assert_snapshot!(groups.join(" "), @"group:lower-left group:lower-right group:summary group:upper-left group:upper-right");
}
