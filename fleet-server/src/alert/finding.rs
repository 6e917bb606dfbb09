//! What may be worth telling: something that holds, since when, and what a person can do about it.

use std::collections::{BTreeMap, BTreeSet};

pub use sealift_protocol::api::AlertSeverity as Severity;
use sealift_protocol::api::DriftState;
use sealift_protocol::id::{DeviceId, ModelName, RolloutId, UnixMillis, Version};
use sealift_protocol::telemetry::{self, Event};
use serde::{Deserialize, Serialize};

use crate::blame::Blame;
use crate::drift::{Scope, Subject, Verdict};

/// A device may be silent for so long: ten heartbeats lost are no network's hiccup.
const SILENCE_MS: i64 = 10 * 60 * 1000;

/// Subjects that a detail names; the console shows the rest.
const NAMED_MAX: usize = 5;

/// Something that holds now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What makes it the same as yesterday's, such as `drift/vision/digits/2/site=osaka`. At most one alert is open for a key.
    pub key: String,
    /// What sort of thing it is, such as `drift`.
    pub kind: String,
    /// How bad it is.
    pub severity: Severity,
    /// In a few words.
    pub title: String,
    /// What happened, to what.
    pub detail: String,
    /// What to do next.
    pub help: String,
    /// What it is about, for routing and silences: `model`, `site`, `device`, …
    pub labels: BTreeMap<String, String>,
    /// Since when it holds.
    pub since: UnixMillis,
    /// How long it must hold before people are told.
    pub hold_ms: i64,
}

/// One finding for each scope in which something of a model drifted: 64 features that drift together are one piece of news.
pub fn drift(model: &ModelName, version: &Version, verdicts: &[Verdict]) -> Vec<Finding> {
    let mut scopes: BTreeMap<&Scope, Vec<&Verdict>> = BTreeMap::new();
    for verdict in verdicts.iter().filter(|verdict| verdict.state == DriftState::Drifted) {
        scopes.entry(&verdict.scope).or_default().push(verdict);
    }
    let drifted = scopes.into_iter();
    drifted.filter_map(|(scope, drifted)| in_scope(model, version, scope, drifted)).collect()
}

fn in_scope(
    model: &ModelName,
    version: &Version,
    scope: &Scope,
    mut drifted: Vec<&Verdict>,
) -> Option<Finding> {
    // How far each is beyond its own threshold: shares and indices have no common scale.
    let excess = |verdict: &Verdict| verdict.value / verdict.threshold;
    drifted.sort_by(|left, right| excess(right).total_cmp(&excess(left)));
    let strongest = drifted.first()?;
    let since = drifted.iter().map(|verdict| verdict.since).min()?;
    let why = &strongest.why;
    let mut labels = BTreeMap::from([
        ("model".to_owned(), model.to_string()),
        ("version".to_owned(), version.to_string()),
        ("scope".to_owned(), scope.to_string()),
    ]);
    match scope {
        Scope::Fleet => None,
        Scope::Cohort { key, value } => labels.insert(key.clone(), value.clone()),
        Scope::Device(id) => labels.insert("device".to_owned(), id.to_string()),
    };
    let worst_group = drifted.iter().find_map(|verdict| match &verdict.subject {
        Subject::Group(group) => Some(group.clone()),
        Subject::Feature(_) | Subject::Prediction | Subject::Confidence | Subject::Correlations => {
            None
        }
    });
    labels.extend(worst_group.map(|group| ("group".to_owned(), group)));
    Some(Finding {
        key: format!("drift/{model}/{version}/{scope}"),
        kind: "drift".to_owned(),
        // One device is a sensor; more than one is the model's business.
        severity: match scope {
            Scope::Device(_) => Severity::Warning,
            Scope::Fleet | Scope::Cohort { .. } => Severity::Critical,
        },
        title: format!("{model} {version} drifted in {scope}: {}", named(&drifted)),
        detail: format!("{}: {why}; {}", strongest.subject, meaning(scope)),
        help: format!("`fleetctl drift list --model {model} --scope {scope}` lists the measures"),
        labels,
        since,
        hold_ms: 0, // a verdict has its own hysteresis
    })
}

/// What drift at this level usually comes from.
const fn meaning(scope: &Scope) -> &'static str {
    match scope {
        Scope::Device(_) => "this device differs: look at its sensor first",
        Scope::Cohort { .. } => {
            "the cohort differs from the reference: its surroundings changed, or the image does not suit them"
        }
        Scope::Fleet => {
            "the fleet differs from the reference: the world changed, or the image is a bad one"
        }
    }
}

/// Groups stand for their features.
fn named(drifted: &[&Verdict]) -> String {
    let is_feature = |subject: &Subject| matches!(subject, Subject::Feature(_));
    let has_group = drifted.iter().any(|verdict| matches!(verdict.subject, Subject::Group(_)));
    let mut seen = BTreeSet::new();
    let names: Vec<String> = drifted
        .iter()
        .filter(|verdict| !(has_group && is_feature(&verdict.subject)))
        .filter(|verdict| seen.insert(&verdict.subject))
        .map(|verdict| verdict.subject.to_string())
        .collect();
    let rest = names.len().saturating_sub(NAMED_MAX);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    let first: Vec<_> = names.into_iter().take(NAMED_MAX).collect();
    format!("{}{more}", first.join(", "))
}

/// A rollout that stopped by itself.
pub fn rollout_halted(
    rollout: RolloutId,
    model: &ModelName,
    why: &str,
    since: UnixMillis,
) -> Finding {
    Finding {
        key: format!("rollout-halted/{rollout}"),
        kind: "rollout-halted".to_owned(),
        severity: Severity::Critical,
        title: format!("rollout {rollout} of {model} halted"),
        detail: why.to_owned(),
        help: format!(
            "`fleetctl rollout why {rollout}` lists the devices; `fleetctl rollback {model}` goes back"
        ),
        labels: BTreeMap::from([
            ("model".to_owned(), model.to_string()),
            ("rollout".to_owned(), rollout.to_string()),
        ]),
        since,
        hold_ms: 0,
    }
}

/// Devices that took an image back after the rollout that brought it was over: nothing is left to halt, and nobody looks at it any more.
#[derive(Debug, Clone, Copy)]
pub struct Late<'a> {
    /// The rollout.
    pub rollout: RolloutId,
    /// Its model.
    pub model: &'a ModelName,
    /// What it brought.
    pub version: &'a Version,
    /// How many devices are without it now.
    pub devices: u64,
    /// To how many it was brought.
    pub of: u64,
    /// The largest share of them that may end badly.
    pub limit: f64,
    /// The newest of those devices, and why it took the image back.
    pub newest: (&'a DeviceId, &'a str),
    /// When the first of them did.
    pub since: UnixMillis,
}

impl Late<'_> {
    /// Critical where the rollout would have halted.
    #[expect(clippy::cast_precision_loss, reason = "devices are counted, and far below 2^52")]
    pub fn finding(self) -> Finding {
        let Self { rollout, model, version, devices, of, limit, newest, since } = self;
        let noun = if devices == 1 { "device" } else { "devices" };
        let is_beyond = devices as f64 > limit * of as f64;
        let label = |name: &str, value: String| (name.to_owned(), value);
        Finding {
            key: format!("late/{rollout}"),
            kind: "late".to_owned(),
            severity: if is_beyond { Severity::Critical } else { Severity::Warning },
            title: format!(
                "{devices} {noun} took {model} {version} back after rollout {rollout} was over"
            ),
            detail: format!(
                "{devices} of {of}, at most {:.0}% may; the newest is {}: {}",
                limit * 100.0,
                newest.0,
                newest.1
            ),
            help: format!(
                "`fleetctl rollout why {rollout}` lists the devices; `fleetctl rollback {rollout}` goes back with the others too"
            ),
            labels: BTreeMap::from([
                label("model", model.to_string()),
                label("version", version.to_string()),
                label("rollout", rollout.to_string()),
            ]),
            since,
            hold_ms: 0,
        }
    }
}

/// A device that was last heard of at `heard_at`. Told after ten minutes.
pub fn device_silent(
    device: &DeviceId,
    device_labels: &BTreeMap<String, String>,
    heard_at: UnixMillis,
) -> Finding {
    let mut labels = device_labels.clone();
    labels.insert("device".to_owned(), device.to_string());
    Finding {
        key: format!("device-silent/{device}"),
        kind: "device-silent".to_owned(),
        severity: Severity::Warning,
        title: format!("device {device} is silent"),
        detail: format!("last heard of at {heard_at}"),
        help: format!("`fleetctl device get {device}` shows its last report and its address"),
        labels,
        since: heard_at,
        hold_ms: SILENCE_MS,
    }
}

/// So many devices that each of them is no news: the network, or the server's way to it, is the first thing to look at.
pub fn devices_silent(count: u64, since: UnixMillis) -> Finding {
    Finding {
        key: "devices-silent".to_owned(),
        kind: "device-silent".to_owned(),
        severity: Severity::Critical,
        title: format!("{count} devices are silent"),
        detail: format!("the first of them was last heard of at {since}"),
        help: "`fleetctl device list --filter state:offline` lists them".to_owned(),
        labels: BTreeMap::new(),
        since,
        hold_ms: SILENCE_MS,
    }
}

/// What the devices with some trouble have in common; `trouble` says which, such as `silent`.
pub fn common_cause(trouble: &str, blame: &Blame, now: UnixMillis) -> Finding {
    let traits = blame.description.iter().map(|(key, value)| format!("{key}={value}"));
    let description = traits.collect::<Vec<_>>().join(" and ");
    let mut labels: BTreeMap<_, _> = blame.description.iter().cloned().collect();
    labels.insert("trouble".to_owned(), trouble.to_owned());
    Finding {
        key: format!("common-cause/{trouble}"),
        kind: "common-cause".to_owned(),
        severity: Severity::Critical,
        title: format!("{trouble} devices have {description} in common"),
        detail: blame.in_words(),
        help: "look at what these devices share and others do not, before at each of them"
            .to_owned(),
        labels,
        since: now,
        hold_ms: 0, // it was tested
    }
}

/// Devices know more than the server does: an old copy of its database was restored. `detail` says what they know.
pub fn store_behind(detail: String, now: UnixMillis) -> Finding {
    Finding {
        key: "store-behind".to_owned(),
        kind: "store-behind".to_owned(),
        severity: Severity::Critical,
        title: "the server's database is older than its devices".to_owned(),
        detail,
        help:
            "`fleet-server recover --data DIR` shows what was lost, and with `--apply` brings the \
               server ahead of its devices; until then devices keep what they run"
                .to_owned(),
        labels: BTreeMap::new(),
        since: now,
        hold_ms: 0,
    }
}

/// What a device itself reported, such as a directive that was not made for it.
///
/// An event is over as soon as it has happened. Whoever calls this decides for how long it is still news.
pub fn device_event(device: &DeviceId, event: &Event) -> Finding {
    let is_security = event.severity == telemetry::Severity::Security;
    let mut labels = BTreeMap::from([
        ("device".to_owned(), device.to_string()),
        ("code".to_owned(), event.code.clone()),
    ]);
    labels.extend(event.model.iter().map(|model| ("model".to_owned(), model.to_string())));
    Finding {
        key: format!("device-event/{device}/{}", event.code),
        kind: if is_security { "security" } else { "device-event" }.to_owned(),
        severity: match event.severity {
            telemetry::Severity::Info => Severity::Info,
            telemetry::Severity::Warning => Severity::Warning,
            telemetry::Severity::Critical | telemetry::Severity::Security => Severity::Critical,
        },
        title: format!("device {device} reports {}", event.code),
        detail: event.text.clone(),
        help: format!("`fleetctl device timeline {device}` shows what led to it"),
        labels,
        since: event.at,
        hold_ms: 0,
    }
}

#[cfg(test)]
mod tests {
    use sealift_protocol::drift::Metric;

    use super::*;

    fn verdict(scope: &str, subject: &str, value: f64, state: DriftState) -> Verdict {
        Verdict {
            scope: Scope::parse(scope).unwrap(),
            subject: Subject::parse(subject).unwrap(),
            metric: Metric::PsiNumeric,
            value,
            threshold: 0.2,
            p: 1e-9,
            corrected_p: 1e-6,
            rows: 400,
            windows: 1,
            from: UnixMillis(0),
            until: UnixMillis(60_000),
            state,
            streak: 2,
            calm: 0,
            statistic: 0.0,
            since: UnixMillis(60_000),
            why: format!("psi {value}"),
        }
    }

    fn model() -> ModelName {
        ModelName::parse("vision/digits").unwrap()
    }

    #[test]
    fn a_scope_in_which_many_features_drift_is_one_finding() {
        let verdicts = [
            verdict("fleet", "feature:p00", 0.1, DriftState::Steady),
            verdict("site=osaka", "feature:p00", 0.4, DriftState::Drifted),
            verdict("site=osaka", "feature:p01", 0.9, DriftState::Drifted),
            verdict("site=osaka", "group:upper-left", 0.9, DriftState::Drifted),
            verdict("site=osaka", "prediction", 0.3, DriftState::Suspect),
            verdict("device:cam-1", "confidence", 0.5, DriftState::Drifted),
        ];

        let findings = drift(&model(), &Version::parse("2").unwrap(), &verdicts);

        insta::assert_json_snapshot!(findings, @r#"
    [
      {
        "key": "drift/vision/digits/2/site=osaka",
        "kind": "drift",
        "severity": "critical",
        "title": "vision/digits 2 drifted in site=osaka: group:upper-left",
        "detail": "feature:p01: psi 0.9; the cohort differs from the reference: its surroundings changed, or the image does not suit them",
        "help": "`fleetctl drift list --model vision/digits --scope site=osaka` lists the measures",
        "labels": {
          "group": "upper-left",
          "model": "vision/digits",
          "scope": "site=osaka",
          "site": "osaka",
          "version": "2"
        },
        "since": 60000,
        "hold_ms": 0
      },
      {
        "key": "drift/vision/digits/2/device:cam-1",
        "kind": "drift",
        "severity": "warning",
        "title": "vision/digits 2 drifted in device:cam-1: confidence",
        "detail": "confidence: psi 0.5; this device differs: look at its sensor first",
        "help": "`fleetctl drift list --model vision/digits --scope device:cam-1` lists the measures",
        "labels": {
          "device": "cam-1",
          "model": "vision/digits",
          "scope": "device:cam-1",
          "version": "2"
        },
        "since": 60000,
        "hold_ms": 0
      }
    ]
    "#);
    }

    #[test]
    fn a_long_list_of_subjects_is_cut() {
        let verdicts: Vec<_> = (0..9)
            .map(|index| verdict("fleet", &format!("feature:p{index}"), 1.0, DriftState::Drifted))
            .collect();
        let findings = drift(&model(), &Version::parse("2").unwrap(), &verdicts);
        assert_eq!(
            findings[0].title,
            "vision/digits 2 drifted in fleet: feature:p0, feature:p1, feature:p2, feature:p3, \
             feature:p4 and 4 more"
        );
    }

    #[test]
    fn what_a_device_refused_for_its_safety_is_critical() {
        let event = Event {
            code: "directive.audience".to_owned(),
            severity: telemetry::Severity::Security,
            text: "directive for cam-2 refused".to_owned(),
            model: Some(model()),
            image: None,
            at: UnixMillis(5),
        };
        let finding = device_event(&DeviceId::parse("cam-1").unwrap(), &event);
        assert_eq!((finding.kind.as_str(), finding.severity), ("security", Severity::Critical));
        assert_eq!(finding.key, "device-event/cam-1/directive.audience");
        assert_eq!(finding.labels["model"], "vision/digits");
    }

    #[test]
    fn many_devices_that_go_back_late_are_critical_and_few_a_warning() {
        let (device, version) = (DeviceId::parse("cam-1").unwrap(), Version::parse("7").unwrap());
        let late = |devices: u64| {
            let why = "trial.latency: the engine takes 15.10 ms";
            let newest = (&device, why);
            let (rollout, since, model) = (RolloutId(3), UnixMillis(5), &model());
            let late = Late {
                rollout,
                model,
                version: &version,
                devices,
                of: 20,
                limit: 0.1,
                newest,
                since,
            };
            late.finding()
        };

        let (one, two, three) = (late(1), late(2), late(3));

        assert_eq!(one.title, "1 device took vision/digits 7 back after rollout r-3 was over");
        assert_eq!(
            three.detail,
            "3 of 20, at most 10% may; the newest is cam-1: trial.latency: the engine takes 15.10 ms"
        );
        let severities = [one.severity, two.severity, three.severity];
        assert_eq!(severities, [Severity::Warning, Severity::Warning, Severity::Critical]);
        assert_eq!((three.key.as_str(), &*three.labels["rollout"]), ("late/r-3", "r-3"));
    }

    #[test]
    fn a_silent_device_is_told_of_after_ten_minutes() {
        let device = DeviceId::parse("cam-1").unwrap();
        let finding = device_silent(&device, &BTreeMap::new(), UnixMillis(5));
        assert_eq!((finding.since, finding.hold_ms), (UnixMillis(5), 600_000));
    }
}
