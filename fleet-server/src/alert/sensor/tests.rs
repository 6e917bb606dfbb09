use sealift_protocol::api::DriftState;
use sealift_protocol::id::{DeviceId, UnixMillis};

use super::*;
use crate::drift::{Metric, Subject, Verdict};
use DeviceNature::{Alone, Steady, Together};

fn device(name: &str) -> DeviceId {
    DeviceId::parse(name).unwrap()
}

fn verdict(name: &str) -> Verdict {
    Verdict {
        scope: Scope::Device(device(name)),
        subject: Subject::Feature("p00".to_owned()),
        metric: Metric::RankShift,
        value: 0.5,
        threshold: 0.06,
        statistic: 9.0,
        p: 1e-9,
        corrected_p: 1e-6,
        rows: 400,
        windows: 1,
        from: UnixMillis(0),
        until: UnixMillis(60_000),
        state: DriftState::Drifted,
        streak: 2,
        calm: 0,
        since: UnixMillis(60_000),
        why: "rank-shift 0.500".to_owned(),
    }
}

fn site() -> Scope {
    Scope::parse("site=osaka").unwrap()
}

fn standing<'a>(
    (device, cohort): (&'a DeviceId, &'a Scope),
    nature: DeviceNature,
    off: Vec<(ComparedWith, &'a Verdict)>,
) -> Standing<'a> {
    let (rows, skipped, until) = (400, 0, UnixMillis(60_000));
    Standing { device, cohort, nature, off, has_past: true, rows, skipped, until }
}

fn told(standing: &Standing<'_>) -> Option<Finding> {
    let model = ModelName::parse("vision/digits").unwrap();
    device_drift(&model, &Version::parse("2").unwrap(), standing)
}

#[test]
fn a_device_off_its_cohort_is_told_of_as_a_sensor() {
    let (id, cohort, verdict) = (device("cam-1"), site(), verdict("cam-1"));
    let off = vec![(ComparedWith::Cohort, &verdict), (ComparedWith::Past, &verdict)];
    let finding = told(&standing((&id, &cohort), DeviceNature::Alone, off)).unwrap();

    insta::assert_json_snapshot!(finding, @r#"
    {
      "key": "device-drift/vision/digits/2/cam-1",
      "kind": "device-drift",
      "severity": "warning",
      "title": "device cam-1 is off its cohort site=osaka: feature:p00 of vision/digits 2",
      "detail": "feature:p00: rank-shift 0.500; one device off its cohort is a sensor; it differs from its own past as well, since 1970-01-01T00:01:00Z",
      "help": "look at its sensor first; `fleetctl drift devices --device cam-1` shows what it was compared with",
      "labels": {
        "device": "cam-1",
        "model": "vision/digits",
        "scope": "device:cam-1",
        "site": "osaka",
        "version": "2"
      },
      "since": 60000,
      "hold_ms": 0
    }
    "#);

    let off = vec![(ComparedWith::Cohort, &verdict)];
    let finding = told(&standing((&id, &cohort), DeviceNature::Alone, off)).unwrap();
    assert!(finding.detail.ends_with("it was no different before: look at how it was set up"));
}

#[test]
fn what_differs_with_its_cohort_is_no_news_of_the_device() {
    let (id, cohort, verdict) = (device("cam-1"), site(), verdict("cam-1"));
    let off = vec![(ComparedWith::Reference, &verdict)];
    assert_eq!(told(&standing((&id, &cohort), DeviceNature::Together, off)), None);
    assert_eq!(told(&standing((&id, &cohort), DeviceNature::Steady, vec![])), None);
}

#[test]
fn a_scopes_alert_says_whether_it_is_all_of_its_devices_or_a_few() {
    let ids: Vec<_> = (0..5).map(|place| device(&format!("cam-{place}"))).collect();
    let (here, there, verdict) = (site(), Scope::parse("site=lyon").unwrap(), verdict("cam-0"));
    let model = ModelName::parse("vision/digits").unwrap();
    let version = Version::parse("2").unwrap();
    let mut of_site = verdict.clone();
    of_site.scope = site();
    let finding = super::super::drift(&model, &version, &[of_site]).remove(0);
    assert_eq!(finding.severity, Severity::Critical);
    let of = |natures: [DeviceNature; 5]| {
        let standings: Vec<_> = ids
            .iter()
            .zip(natures)
            .map(|(id, nature)| {
                let cohort = if id == &ids[4] { &there } else { &here };
                standing((id, cohort), nature, vec![])
            })
            .collect();
        Breadth::of(&site(), standings.iter()).told(finding.clone())
    };

    let all = of([Together, Together, Together, Steady, Steady]);
    assert!(all.detail.ends_with("; 3 of its 4 devices differ each by itself"), "{}", all.detail);
    assert_eq!(all.severity, Severity::Critical);

    let one = of([Steady, Alone, Steady, Steady, Together]);
    let words = "; only 1 of its 4 devices differ by themselves (cam-1): look at their sensors first, the other 3 are as ever";
    assert!(one.detail.ends_with(words), "{}", one.detail);
    assert_eq!(one.severity, Severity::Warning);

    let both = of([Together, Alone, Together, Steady, Steady]);
    let words = "; 3 of its 4 devices differ each by itself, and these from the others: cam-1";
    assert!(both.detail.ends_with(words), "{}", both.detail);
}
