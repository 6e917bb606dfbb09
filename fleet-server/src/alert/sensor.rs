//! What the devices of a drifted scope say of it, and devices that are off by themselves.

use std::collections::BTreeMap;

use sealift_protocol::id::{ModelName, Version};

use super::finding::{Finding, Severity};
use crate::blame::Blame;
use crate::drift::Scope;
use crate::sensors::{ComparedWith, DeviceNature, Standing};

/// Devices that are named one by one.
const NAMED_MAX: usize = 5;

/// A device that is off its cohort, or its own past where nobody can be compared with it. Nothing for any other: what differs together
/// is the news of its scope.
pub fn device_drift(
    model: &ModelName,
    version: &Version,
    standing: &Standing<'_>,
) -> Option<Finding> {
    let compared = match standing.nature {
        DeviceNature::Alone => ComparedWith::Cohort,
        DeviceNature::Changed => ComparedWith::Past,
        DeviceNature::Steady | DeviceNature::Together => return None,
    };
    let verdict = standing.against(compared)?;
    let Standing { device, cohort, .. } = standing;
    let (from, meaning) = match compared {
        ComparedWith::Cohort => (format!("its cohort {cohort}"), history(standing)),
        ComparedWith::Past | ComparedWith::Reference => (
            "its own past".to_owned(),
            "there are too few devices like it to tell a sensor from its surroundings".to_owned(),
        ),
    };
    let scope = Scope::Device((*device).clone());
    let mut labels = BTreeMap::from([
        ("model".to_owned(), model.to_string()),
        ("version".to_owned(), version.to_string()),
        ("scope".to_owned(), scope.to_string()),
        ("device".to_owned(), device.to_string()),
    ]);
    if let Scope::Cohort { key, value } = cohort {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    Some(Finding {
        key: format!("device-drift/{model}/{version}/{device}"),
        kind: "device-drift".to_owned(),
        severity: Severity::Warning,
        title: format!("device {device} is off {from}: {} of {model} {version}", verdict.subject),
        detail: format!("{}: {}; {meaning}", verdict.subject, verdict.why),
        help: format!(
            "look at its sensor first; `fleetctl drift devices --device {device}` shows what it was compared with"
        ),
        labels,
        since: verdict.since,
        hold_ms: 0, // a verdict has its own hysteresis
    })
}

/// Whether something happened to the device, or it was never like the others.
fn history(standing: &Standing<'_>) -> String {
    match (standing.has_past, standing.against(ComparedWith::Past)) {
        (_, Some(past)) => format!(
            "one device off its cohort is a sensor; it differs from its own past as well, since {}",
            past.since
        ),
        (true, None) => "one device off its cohort is a sensor; it was no different before: look at how it was set up".to_owned(),
        (false, None) => "one device off its cohort is a sensor".to_owned(),
    }
}

/// How many of a scope's devices differ each by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Breadth {
    judged: usize,
    together: usize,
    alone: Vec<String>,
}

impl Breadth {
    /// Of the devices that are compared with `scope`; of all for the fleet.
    pub fn of<'a>(scope: &Scope, standings: impl Iterator<Item = &'a Standing<'a>>) -> Self {
        let mut breadth = Self::default();
        for standing in standings.filter(|it| *scope == Scope::Fleet || it.cohort == scope) {
            breadth.judged += 1;
            match standing.nature {
                DeviceNature::Alone => breadth.alone.push(standing.device.to_string()),
                DeviceNature::Together | DeviceNature::Changed => breadth.together += 1,
                DeviceNature::Steady => (),
            }
        }
        breadth
    }

    /// Adds to a scope's finding what its devices say, each by itself. Where only a few are off, and they off their cohort, it is they.
    #[must_use]
    pub fn told(&self, finding: Finding) -> Finding {
        let Self { judged, together, alone } = self;
        if *judged < 2 {
            return finding;
        }
        let off = together + alone.len();
        let names: Vec<_> = alone.iter().take(NAMED_MAX).map(String::as_str).collect();
        if *together == 0 && !alone.is_empty() && alone.len() * 2 < *judged {
            let others = judged - alone.len();
            let detail = format!(
                "{}; only {off} of its {judged} devices differ by themselves ({}): look at their sensors first, the other {others} are as ever",
                finding.detail,
                names.join(", "),
            );
            return Finding { detail, severity: Severity::Warning, ..finding };
        }
        let mut detail =
            format!("{}; {off} of its {judged} devices differ each by itself", finding.detail);
        if !names.is_empty() {
            detail.push_str(", and these from the others: ");
            detail.push_str(&names.join(", "));
        }
        Finding { detail, ..finding }
    }
}

/// Adds to a finding about drift what the devices that drift have in common.
#[must_use]
pub fn with_cause(finding: Finding, blame: &Blame) -> Finding {
    let detail =
        format!("{}; drifting devices have in common: {}", finding.detail, blame.in_words());
    Finding { detail, ..finding }
}

#[cfg(test)]
mod tests;
