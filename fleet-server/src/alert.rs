//! Decides which alerts to open, repeat and close. Values in, changes out; `deliver` tells people.
//!
//! ```text
//!  finding holds long enough      repeat interval is over, unacknowledged; or it became worse
//! ──────────────▶ Open ─────────────────────────▶ Repeat ─────────▶ … ─────────▶ Close
//!                                                                  finding is gone
//! ```
//! Whoever looks for findings says since when they hold, and keeps them steady (drift has its own hysteresis). So no state is needed
//! here but the open alerts themselves.

pub(crate) mod backtest;
mod finding;
pub(crate) mod health;
pub(crate) mod matcher;
pub(crate) mod rule;
mod sensor;

pub(crate) mod deliver;

pub use finding::{
    Finding, Late, Severity, common_cause, device_event, device_silent, devices_silent, drift,
    rollout_halted, store_behind,
};

pub use sensor::{Breadth, device_drift, with_cause};

use std::collections::BTreeMap;

use self::matcher::{Matcher, all_hold};
use sealift_protocol::id::{AlertId, UnixMillis};
use serde::{Deserialize, Serialize};

/// An open alert, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Its number.
    pub id: AlertId,
    /// What it says, as of the last time people were told.
    pub finding: Finding,
    /// When it was opened.
    pub opened_at: UnixMillis,
    /// When it was last written down that it holds.
    pub seen_at: UnixMillis,
    /// When people were last told; [`NEVER`] while a silence has covered it from its begin.
    pub told_at: UnixMillis,
    /// Who looks after it, if anyone does.
    pub acknowledged: Option<Acknowledged>,
}

/// Nobody was told yet.
pub(crate) const NEVER: UnixMillis = UnixMillis(0);

impl Alert {
    /// Whether people know of it.
    pub(crate) fn is_told(&self) -> bool {
        self.told_at != NEVER
    }
}

/// Somebody looks after an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// The operator.
    pub by: String,
    /// What they said.
    pub note: String,
    /// When.
    pub at: UnixMillis,
}

/// When people are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// An alert that nobody looks after is told again after this time. Default four hours.
    pub repeat_ms: i64,
    /// Nobody is told of findings that these cover. Their alerts open all the same, and are told when the silence is over.
    pub silences: Vec<Silence>,
}

/// Findings that nobody wants to hear of for a while, such as those of a site under repair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Silence {
    /// Findings for which all of these hold.
    pub matchers: Vec<Matcher>,
    /// The end of it.
    pub until: UnixMillis,
}

impl Default for Rules {
    fn default() -> Self {
        Self { repeat_ms: 4 * 60 * 60 * 1000, silences: Vec::new() }
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Open an alert and tell people.
    Open(Finding),
    /// Open an alert that a silence covers: nobody is told.
    OpenSilently(Finding),
    /// Tell people again, and store what it says now.
    Repeat {
        /// The alert.
        id: AlertId,
        /// What it says now.
        finding: Finding,
        /// It became worse: whoever acknowledged it did not know that, so the acknowledgement ends.
        is_worse: bool,
    },
    /// Tell people that it is over.
    Close(AlertId),
}

/// Decides what changes now. Changes come in the order of the findings' keys; of two findings with one key the last counts.
pub fn decide(open: &[Alert], findings: &[Finding], rules: &Rules, now: UnixMillis) -> Vec<Change> {
    let alerts: BTreeMap<&str, &Alert> =
        open.iter().map(|alert| (alert.finding.key.as_str(), alert)).collect();
    let findings: BTreeMap<&str, &Finding> =
        findings.iter().map(|finding| (finding.key.as_str(), finding)).collect();

    let over = alerts.iter().filter(|(key, _)| !findings.contains_key(*key));
    let closed = over.map(|(_, alert)| Change::Close(alert.id));
    let told = findings.iter().filter_map(|(key, finding)| match alerts.get(key) {
        Some(alert) => repeated(alert, finding, rules, now),
        None => opened(finding, rules, now),
    });
    closed.chain(told).collect()
}

fn opened(finding: &Finding, rules: &Rules, now: UnixMillis) -> Option<Change> {
    let has_held = now.since(finding.since) >= finding.hold_ms;
    let open = if is_silenced(finding, rules, now) { Change::OpenSilently } else { Change::Open };
    has_held.then(|| open(finding.clone()))
}

fn repeated(alert: &Alert, finding: &Finding, rules: &Rules, now: UnixMillis) -> Option<Change> {
    let is_worse = finding.severity > alert.finding.severity;
    let is_old = !alert.is_told() || now.since(alert.told_at) >= rules.repeat_ms;
    let is_due = alert.acknowledged.is_none() && is_old;
    if is_silenced(finding, rules, now) || !(is_worse || is_due) {
        return None;
    }
    Some(Change::Repeat { id: alert.id, finding: finding.clone(), is_worse })
}

fn is_silenced(finding: &Finding, rules: &Rules, now: UnixMillis) -> bool {
    let mut silences = rules.silences.iter();
    silences.any(|silence| now < silence.until && all_hold(&silence.matchers, finding))
}

/// The severity of a word; a word that is none is the least.
pub(crate) fn severity(word: &str) -> Severity {
    let all = [Severity::Critical, Severity::Warning];
    all.into_iter().find(|severity| severity.as_str() == word).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn finding(key: &str, severity: Severity) -> Finding {
        Finding {
            key: key.to_owned(),
            kind: "test".to_owned(),
            severity,
            title: format!("{key} happened"),
            detail: String::new(),
            help: String::new(),
            labels: BTreeMap::from([("site".to_owned(), "osaka".to_owned())]),
            since: UnixMillis(0),
            hold_ms: 0,
        }
    }

    fn alert(finding: Finding, told_at: UnixMillis) -> Alert {
        let opened_at = UnixMillis(0);
        Alert { id: AlertId(7), finding, opened_at, seen_at: told_at, told_at, acknowledged: None }
    }

    fn acknowledged() -> Acknowledged {
        Acknowledged { by: "mika".to_owned(), note: String::new(), at: UnixMillis(1) }
    }

    #[test]
    fn a_finding_opens_once_it_has_held_long_enough() {
        let rules = Rules::default();
        let late = Finding { hold_ms: 60_000, ..finding("silent", Severity::Warning) };
        let findings = [late.clone()];
        assert_eq!(decide(&[], &findings, &rules, UnixMillis(59_999)), []);
        let opened = decide(&[], &findings, &rules, UnixMillis(60_000));
        assert_eq!(opened, [Change::Open(late)]);
    }

    #[test]
    fn an_alert_is_repeated_until_somebody_looks_after_it() {
        let rules = Rules { repeat_ms: HOUR_MS, ..Rules::default() };
        let findings = [finding("a", Severity::Warning)];
        let mut open = [alert(findings[0].clone(), UnixMillis(1))];
        assert_eq!(decide(&open, &findings, &rules, UnixMillis(HOUR_MS)), []);
        let due = decide(&open, &findings, &rules, UnixMillis(HOUR_MS + 1));
        let repeat =
            Change::Repeat { id: AlertId(7), finding: findings[0].clone(), is_worse: false };
        assert_eq!(due, [repeat]);

        open[0].acknowledged = Some(acknowledged());
        assert_eq!(decide(&open, &findings, &rules, UnixMillis(9 * HOUR_MS)), []);
    }

    #[test]
    fn what_becomes_worse_is_told_at_once_even_if_acknowledged() {
        let mut open = [alert(finding("a", Severity::Warning), UnixMillis(1))];
        open[0].acknowledged = Some(acknowledged());
        let worse = finding("a", Severity::Critical);
        let changes = decide(&open, std::slice::from_ref(&worse), &Rules::default(), UnixMillis(1));
        assert_eq!(changes, [Change::Repeat { id: AlertId(7), finding: worse, is_worse: true }]);
    }

    #[test]
    fn an_alert_closes_when_its_finding_is_gone() {
        let open = [alert(finding("a", Severity::Warning), UnixMillis(0))];
        let changes = decide(&open, &[], &Rules::default(), UnixMillis(1));
        assert_eq!(changes, [Change::Close(AlertId(7))]);
    }

    #[test]
    fn a_silence_covers_its_labels_and_ends() {
        let silence =
            Silence { matchers: vec!["site=osaka".parse().unwrap()], until: UnixMillis(HOUR_MS) };
        let rules = Rules { silences: vec![silence], ..Rules::default() };
        let here = finding("a", Severity::Warning);
        let labels = BTreeMap::from([("site".to_owned(), "kobe".to_owned())]);
        let elsewhere = Finding { labels, ..finding("b", Severity::Warning) };
        let findings = [here.clone(), elsewhere.clone()];

        let during = decide(&[], &findings, &rules, UnixMillis(1));
        let expected = [Change::OpenSilently(here.clone()), Change::Open(elsewhere.clone())];
        assert_eq!(during, expected);

        let open = [alert(here.clone(), NEVER)];
        let rest = &findings[..1];
        assert_eq!(decide(&open, rest, &rules, UnixMillis(HOUR_MS - 1)), [], "nobody is told");
        let told = Change::Repeat { id: AlertId(7), finding: here, is_worse: false };
        assert_eq!(decide(&open, rest, &rules, UnixMillis(5 * HOUR_MS)), [told]);
    }

    /// Does what the shell does with changes.
    fn carry_out(open: &mut Vec<Alert>, changes: Vec<Change>, now: UnixMillis) {
        for change in changes {
            match change {
                Change::Open(finding) | Change::OpenSilently(finding) => open.push(Alert {
                    id: AlertId(u64::try_from(open.len()).unwrap()),
                    finding,
                    opened_at: now,
                    seen_at: now,
                    told_at: now,
                    acknowledged: None,
                }),
                Change::Repeat { id, finding, .. } => {
                    let alert = open.iter_mut().find(|alert| alert.id == id).unwrap();
                    (alert.finding, alert.told_at) = (finding, now);
                }
                Change::Close(id) => open.retain(|alert| alert.id != id),
            }
        }
    }

    proptest! {
        #[test]
        fn deciding_again_at_once_changes_nothing(
            before in prop::collection::btree_set(0_u8..6, 0..6),
            after in prop::collection::btree_set(0_u8..6, 0..6),
            now in 1_i64..HOUR_MS,
        ) {
            let findings = |keys: std::collections::BTreeSet<u8>| -> Vec<Finding> {
                keys.iter().map(|key| finding(&format!("k{key}"), Severity::Info)).collect()
            };
            let (before, after, now) = (findings(before), findings(after), UnixMillis(now));
            let rules = Rules::default();
            let mut open = Vec::new();
            let first = decide(&open, &before, &rules, now);
            carry_out(&mut open, first, now);
            // Ids of the first round and of the second must not meet.
            for (id, alert) in (100..).zip(&mut open) {
                alert.id = AlertId(id);
            }
            let second = decide(&open, &after, &rules, now);
            carry_out(&mut open, second, now);

            prop_assert_eq!(decide(&open, &after, &rules, now), vec![]);
            let keys = |of: Vec<&Finding>| -> Vec<String> {
                let mut keys: Vec<_> = of.iter().map(|finding| finding.key.clone()).collect();
                keys.sort();
                keys
            };
            let open: Vec<_> = open.iter().map(|alert| &alert.finding).collect();
            prop_assert_eq!(keys(open), keys(after.iter().collect()));
        }
    }
}
