//! What operators have changed about kinds of alerts, and rules of their own. Values in, findings out.

use std::collections::BTreeMap;

use sealift_protocol::api::{AtLeast, KindChange, RuleNew};
use sealift_protocol::id::UnixMillis;

use super::Finding;

/// Findings of one kind about single devices that are told one by one; beyond it they are one piece of news.
const SINGLE_MAX: usize = 20;
/// Devices that such a piece of news names.
const NAMED_MAX: usize = 5;

/// A kind of alert, as it is built in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) meaning: &'static str,
    pub(crate) hold_s: u64,
}

/// Every kind that an operator can change.
pub(crate) const KINDS: &[Kind] = &[
    Kind { name: "drift", meaning: "what a model sees or answers has changed", hold_s: 0 },
    Kind {
        name: "device-drift",
        meaning: "a device is off its cohort, or its own past",
        hold_s: 0,
    },
    Kind { name: "rollout-halted", meaning: "a gate has stopped a rollout", hold_s: 0 },
    Kind { name: "late", meaning: "devices go back after a rollout is over", hold_s: 0 },
    Kind { name: "device-silent", meaning: "nothing comes from a device", hold_s: 600 },
    Kind { name: "device-event", meaning: "a device reports something critical", hold_s: 0 },
    Kind { name: "security", meaning: "a device has refused what should not have come", hold_s: 0 },
    Kind { name: "store-behind", meaning: "devices know more than the database", hold_s: 0 },
    Kind { name: "flapping", meaning: "a device connects and disconnects many times", hold_s: 0 },
    Kind { name: "crash-loop", meaning: "a model's process ends again and again", hold_s: 0 },
    Kind { name: "throttled", meaning: "a device's processor is slowed down by heat", hold_s: 300 },
    Kind { name: "disk-full", meaning: "there is hardly any disk left on a device", hold_s: 300 },
    Kind { name: "clock-skew", meaning: "a device's clock is wrong", hold_s: 300 },
    Kind { name: "certificate-ends", meaning: "a device's certificate expires soon", hold_s: 0 },
    Kind { name: "stale-trust", meaning: "a device has not seen new trust metadata", hold_s: 0 },
    Kind { name: "spool-deep", meaning: "messages pile up on a device", hold_s: 600 },
    Kind { name: "rule", meaning: "a rule of your own holds", hold_s: 0 },
];

/// Applies what operators have changed: kinds that are off are left out.
pub(crate) fn changed(
    findings: Vec<Finding>,
    changes: &BTreeMap<String, KindChange>,
) -> Vec<Finding> {
    let change = |finding: Finding| {
        let Some(change) = changes.get(&finding.kind) else { return Some(finding) };
        if change.is_off {
            return None;
        }
        let hold_ms = change.hold_s.map_or(finding.hold_ms, millis);
        let severity = change.severity.unwrap_or(finding.severity);
        Some(Finding { severity, hold_ms, ..finding })
    };
    findings.into_iter().filter_map(change).collect()
}

/// Makes one finding of many of one kind about single devices: a hundred devices with one trouble are one trouble. Only those that have
/// held long enough are counted.
pub(crate) fn grouped(findings: Vec<Finding>, now: UnixMillis) -> Vec<Finding> {
    let is_single = |finding: &Finding| {
        finding.labels.contains_key("device")
            && finding.kind != "drift"
            && now.since(finding.since) >= finding.hold_ms
    };
    let (single, mut rest): (Vec<_>, Vec<_>) = findings.into_iter().partition(is_single);
    let mut kinds: BTreeMap<String, Vec<Finding>> = BTreeMap::new();
    for finding in single {
        kinds.entry(finding.kind.clone()).or_default().push(finding);
    }
    for (kind, findings) in kinds {
        if findings.len() > SINGLE_MAX {
            rest.extend(one_of_many(kind, &findings));
        } else {
            rest.extend(findings);
        }
    }
    rest
}

fn one_of_many(kind: String, findings: &[Finding]) -> Option<Finding> {
    let first = findings.first()?;
    let names: Vec<_> =
        findings.iter().filter_map(|finding| finding.labels.get("device")).collect();
    let first_ones: Vec<_> = names.iter().take(NAMED_MAX).map(|name| name.as_str()).collect();
    let since = findings.iter().map(|finding| finding.since).min()?;
    let severity = findings.iter().map(|finding| finding.severity).max()?;
    // What all of them have in common, such as a site.
    let mut labels = first.labels.clone();
    labels.retain(|name, value| findings.iter().all(|it| it.labels.get(name) == Some(value)));
    let what = KINDS.iter().find(|known| known.name == kind).map_or("", |known| known.meaning);
    Some(Finding {
        key: format!("many/{kind}"),
        title: format!("{} devices: {what}", findings.len()),
        detail: format!("{} and others; first: {}", first_ones.join(", "), first.detail),
        help: format!("`fleetctl device list` shows how they are; then: {}", first.help),
        severity,
        kind,
        labels,
        since,
        hold_ms: 0,
    })
}

/// Whether so many devices are enough for a rule. A share of no devices is none.
pub(crate) fn is_reached(at_least: AtLeast, count: u64, total: u64) -> bool {
    match at_least {
        AtLeast::Devices(devices) => count >= u64::from(devices.max(1)),
        AtLeast::Percent(percent) => {
            count > 0 && count.saturating_mul(100) >= total.saturating_mul(u64::from(percent))
        }
    }
}

/// What a rule of an operator's own has found: `count` of `total` devices, since a moment.
pub(crate) fn found(
    (id, rule): (u64, &RuleNew),
    (count, total): (u64, u64),
    since: UnixMillis,
) -> Finding {
    let RuleNew { name, filter, severity, .. } = rule;
    Finding {
        key: format!("rule/{id}"),
        kind: "rule".to_owned(),
        severity: *severity,
        title: format!("{name}: {count} of {total} devices"),
        detail: format!("{count} of {total} devices match `{filter}`"),
        help: format!("`fleetctl device list --filter '{filter}'` lists them"),
        labels: BTreeMap::from([("rule".to_owned(), name.clone())]),
        since,
        hold_ms: millis(rule.hold_s),
    }
}

fn millis(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Severity;

    fn finding(kind: &str, device: usize) -> Finding {
        Finding {
            key: format!("{kind}/{device}"),
            kind: kind.to_owned(),
            severity: Severity::Warning,
            title: String::new(),
            detail: "10 MiB are left".to_owned(),
            help: "look".to_owned(),
            labels: BTreeMap::from([
                ("device".to_owned(), format!("cam-{device}")),
                ("site".to_owned(), "osaka".to_owned()),
            ]),
            since: UnixMillis(i64::try_from(device).unwrap()),
            hold_ms: 60_000,
        }
    }

    #[test]
    fn an_operator_changes_how_long_and_how_bad_and_turns_kinds_off() {
        let change = |hold_s, severity, is_off| KindChange { hold_s, severity, is_off };
        let changes = BTreeMap::from([
            ("disk-full".to_owned(), change(Some(5), Some(Severity::Critical), false)),
            ("throttled".to_owned(), change(None, None, true)),
        ]);
        let all = vec![finding("disk-full", 1), finding("throttled", 1), finding("flapping", 1)];

        let kept = changed(all, &changes);

        let seen: Vec<_> =
            kept.iter().map(|it| (it.kind.as_str(), it.hold_ms, it.severity)).collect();
        let expected =
            [("disk-full", 5_000, Severity::Critical), ("flapping", 60_000, Severity::Warning)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn many_devices_with_one_trouble_are_one_alert_with_what_they_share() {
        let now = UnixMillis(1_000_000);
        let few: Vec<_> = (0..SINGLE_MAX).map(|device| finding("disk-full", device)).collect();
        assert_eq!(grouped(few.clone(), now), few);

        let many: Vec<_> = (0..=SINGLE_MAX).map(|device| finding("disk-full", device)).collect();
        let grouped_now = grouped(many.clone(), now);
        let [one] = grouped_now.as_slice() else { panic!("{grouped_now:?}") };
        assert_eq!((one.key.as_str(), one.severity), ("many/disk-full", Severity::Warning));
        assert_eq!(one.labels, BTreeMap::from([("site".to_owned(), "osaka".to_owned())]));
        assert_eq!(one.since, UnixMillis(0));
        assert!(one.title.starts_with("21 devices: "), "{}", one.title);

        let early = grouped(many.clone(), UnixMillis(60_005));
        assert_eq!(early.len(), many.len(), "only six have held long enough");
    }

    #[test]
    fn a_share_is_of_all_devices_and_never_of_none() {
        for (at_least, count, total, expected) in [
            (AtLeast::Devices(2), 1, 10, false),
            (AtLeast::Devices(2), 2, 10, true),
            (AtLeast::Devices(0), 0, 10, false),
            (AtLeast::Percent(10), 1, 10, true),
            (AtLeast::Percent(11), 1, 10, false),
            (AtLeast::Percent(0), 0, 0, false),
        ] {
            assert_eq!(
                is_reached(at_least, count, total),
                expected,
                "{at_least:?} {count}/{total}"
            );
        }
    }
}
