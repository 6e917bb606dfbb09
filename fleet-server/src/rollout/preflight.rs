//! Looks a rollout over before it begins: what stops it, and what somebody should know.

use std::collections::BTreeMap;

use sealift_protocol::api::{Finding, FindingSeverity};
use sealift_protocol::id::{DeviceId, RolloutId};

use super::rehearsal::Rehearsal;
use super::{Plan, Rollout, Why};

/// Devices that a finding names.
const EXAMPLES_MAX: usize = 5;

/// What the server knows of the version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Pushed, signed, neither revoked nor in quarantine.
    Sound,
    /// Nobody has pushed it, or it was removed.
    Missing,
    /// Not signed by its publisher.
    Unsigned,
    /// On the deny list.
    Revoked(String),
    /// In quarantine.
    Quarantined(String),
}

/// Everything that is looked at.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The version.
    pub trust: Trust,
    /// The rollout, as if it were running.
    pub rollout: &'a Rollout,
    /// What would be planned.
    pub plan: &'a Plan,
    /// What is foreseen.
    pub rehearsal: &'a Rehearsal,
    /// Rollouts whose devices it would take.
    pub superseded: &'a [RolloutId],
}

/// What is found, worst first.
pub fn check(scene: &Scene<'_>) -> Vec<Finding> {
    let mut findings: Vec<_> = trust(&scene.trust).into_iter().collect();
    if scene.plan.devices.is_empty() {
        findings.push(error("preflight.no-devices", "no device matches the filter".to_owned()));
    }
    findings.extend(refusals(scene.rehearsal));
    findings.extend(left_out(scene.plan));
    findings.extend(waves(scene));
    findings.extend(scene.superseded.iter().map(|id| {
        let text = format!("rollout {id} of the model is under way; it ends when this one begins");
        finding("preflight.supersedes", FindingSeverity::Warning, text)
    }));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

/// The first finding that keeps the rollout from beginning.
pub fn stopped_by(findings: &[Finding]) -> Option<&Finding> {
    findings.iter().find(|finding| finding.severity == FindingSeverity::Error)
}

fn trust(trust: &Trust) -> Option<Finding> {
    Some(match trust {
        Trust::Sound => return None,
        Trust::Missing => error("preflight.no-version", "the version is not here".to_owned()),
        Trust::Unsigned => {
            error("preflight.unsigned", "the version is not signed by its publisher".to_owned())
        }
        Trust::Revoked(why) => error("preflight.revoked", format!("the version is revoked: {why}")),
        Trust::Quarantined(why) => {
            error("preflight.quarantined", format!("the version is quarantined: {why}"))
        }
    })
}

/// Devices that would not run it, by the code that they would give.
fn refusals(rehearsal: &Rehearsal) -> Vec<Finding> {
    let mut by_code: BTreeMap<&str, (u64, Vec<DeviceId>, &str)> = BTreeMap::new();
    for refusal in &rehearsal.refusals {
        let (devices, examples, _) =
            by_code.entry(&refusal.code).or_insert((0, Vec::new(), &refusal.reason));
        *devices += 1;
        if examples.len() < EXAMPLES_MAX {
            examples.push(refusal.device.clone());
        }
    }
    let mut findings: Vec<_> = by_code
        .into_iter()
        .map(|(code, (devices, examples, reason))| {
            let name = code.rsplit('.').next().unwrap_or(code);
            let text = format!("{} will not run it ({code}): {reason}", people(devices));
            let code = format!("preflight.{name}");
            Finding { code, severity: FindingSeverity::Warning, text, devices, examples }
        })
        .collect();
    if rehearsal.refused > 0 && rehearsal.refused == rehearsal.basis.devices {
        let text = "none of the devices that would be told can run it".to_owned();
        findings.push(finding("preflight.nobody-left", FindingSeverity::Warning, text));
    }
    findings
}

/// Devices that are not told, or not now.
fn left_out(plan: &Plan) -> Vec<Finding> {
    let of = |wanted: fn(&Why) -> bool| {
        let ids = plan.devices.iter().filter(move |(_, position)| wanted(&position.why));
        ids.map(|(id, _)| id.clone()).collect::<Vec<_>>()
    };
    let kinds = [
        (
            of(|why| matches!(why, Why::Penalised(_))),
            "preflight.penalty-box",
            FindingSeverity::Warning,
            "ended badly with this image before and will not be offered it",
        ),
        (
            of(|why| matches!(why, Why::OfflineUntold)),
            "preflight.offline",
            FindingSeverity::Note,
            "offline now; told when back",
        ),
        (
            of(|why| matches!(why, Why::BeyondLastWave)),
            "preflight.beyond-waves",
            FindingSeverity::Warning,
            "match the filter and are reached by no wave",
        ),
        (
            of(|why| matches!(why, Why::AlreadyServes)),
            "preflight.served-already",
            FindingSeverity::Note,
            "serve it already",
        ),
    ];
    let found = kinds.into_iter().filter(|(ids, ..)| !ids.is_empty());
    found
        .map(|(ids, code, severity, what)| {
            let devices = u64::try_from(ids.len()).unwrap_or(u64::MAX);
            let text = format!("{}: {what}", people(devices));
            let examples = ids.into_iter().take(EXAMPLES_MAX).collect();
            Finding { code: code.to_owned(), severity, text, devices, examples }
        })
        .collect()
}

/// Waves that reach nobody, and gates that so few devices cannot be judged by.
fn waves(scene: &Scene<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let final_wave = scene.rollout.waves.len().saturating_sub(1);
    for (number, (wave, reading)) in scene.rollout.waves.iter().zip(&scene.plan.waves).enumerate() {
        let (name, devices) = (number + 1, reading.devices);
        let warn = |code, text| finding(code, FindingSeverity::Warning, text);
        if devices == 0 && !scene.plan.devices.is_empty() {
            let text = format!("wave {name} reaches nobody whom an earlier wave does not reach");
            findings.push(warn("preflight.empty-wave", text));
            continue;
        }
        let least = wave.plan.min_devices.filter(|&least| number < final_wave && devices < least);
        if let Some(least) = least {
            let text = format!(
                "wave {name} has {devices} devices and is to be judged by {least}: it waits until somebody promotes it"
            );
            findings.push(warn("preflight.too-few-devices", text));
        }
        let gates = &wave.plan.gates;
        if gates.compares() && devices < u64::from(gates.min_devices) {
            let text = format!(
                "wave {name} has {devices} devices: its comparisons need {} and judge nothing",
                gates.min_devices
            );
            findings.push(warn("preflight.gates-blind", text));
        }
    }
    findings
}

fn people(devices: u64) -> String {
    if devices == 1 { "1 device".to_owned() } else { format!("{devices} devices") }
}

fn error(code: &str, text: String) -> Finding {
    finding(code, FindingSeverity::Error, text)
}

fn finding(code: &str, severity: FindingSeverity, text: String) -> Finding {
    Finding { code: code.to_owned(), severity, text, devices: 0, examples: Vec::new() }
}

#[cfg(test)]
mod tests {
    use sealift_protocol::api::{DeviceProgress, ForecastRefusal, WavePlan};
    use sealift_protocol::id::UnixMillis;

    use super::*;
    use crate::rollout::tests::{fleet, id, rollout, wave};
    use crate::rollout::{Failure, plan};

    const NOW: UnixMillis = UnixMillis(1_000_000_000);

    fn codes(findings: &[Finding]) -> Vec<&str> {
        findings.iter().map(|finding| finding.code.as_str()).collect()
    }

    fn found(trust: Trust, rollout: &Rollout, fleet: &crate::rollout::Fleet) -> Vec<Finding> {
        let plan = plan(rollout, fleet, NOW);
        let rehearsal = Rehearsal::default();
        check(&Scene { trust, rollout, plan: &plan, rehearsal: &rehearsal, superseded: &[] })
    }

    #[test]
    fn nothing_is_found_of_a_sound_rollout() {
        let rollout = rollout(vec![wave(50.0, 0), wave(100.0, 0)]);
        assert_eq!(found(Trust::Sound, &rollout, &fleet(4)), []);
    }

    #[test]
    fn what_nobody_signed_or_somebody_took_back_stops_it() {
        let rollout = rollout(vec![wave(100.0, 0)]);
        for (trust, code) in [
            (Trust::Missing, "preflight.no-version"),
            (Trust::Unsigned, "preflight.unsigned"),
            (Trust::Revoked("key lost".to_owned()), "preflight.revoked"),
            (Trust::Quarantined("bad".to_owned()), "preflight.quarantined"),
        ] {
            let findings = found(trust, &rollout, &fleet(1));
            assert_eq!(stopped_by(&findings).map(|finding| finding.code.as_str()), Some(code));
        }
        let nobody = found(Trust::Sound, &rollout, &fleet(0));
        assert_eq!(stopped_by(&nobody).unwrap().code, "preflight.no-devices");
    }

    #[test]
    fn who_is_left_out_is_said_and_stops_nothing() {
        let rollout = rollout(vec![wave(100.0, 0)]);
        let mut fleet = fleet(3);
        fleet.get_mut(&id(0)).unwrap().penalty = Some(Failure::default());
        fleet.get_mut(&id(1)).unwrap().online_since = None;

        let findings = found(Trust::Sound, &rollout, &fleet);

        assert_eq!(codes(&findings), ["preflight.penalty-box", "preflight.offline"]);
        assert_eq!((findings[0].devices, &findings[0].examples), (1, &vec![id(0)]));
        assert_eq!(stopped_by(&findings), None);
    }

    #[test]
    fn a_wave_that_cannot_be_judged_or_reaches_nobody_is_said() {
        let mut strict = wave(50.0, 0);
        strict.plan = WavePlan { min_devices: Some(3), ..strict.plan };
        strict.plan.gates.min_devices = 5;
        let rollout = rollout(vec![strict, wave(50.0, 0), wave(100.0, 0)]);

        let findings = found(Trust::Sound, &rollout, &fleet(4));

        let expected =
            ["preflight.too-few-devices", "preflight.gates-blind", "preflight.empty-wave"];
        assert_eq!(codes(&findings), expected);
    }

    #[test]
    fn refusals_are_counted_by_what_the_devices_would_say() {
        let refusal = |number| ForecastRefusal {
            device: id(number),
            progress: DeviceProgress::Rejected,
            code: "image.no-room".to_owned(),
            reason: "2 bytes needed, 1 free".to_owned(),
        };
        let mut rehearsal = Rehearsal {
            refusals: vec![refusal(0), refusal(1)],
            refused: 2,
            ..Rehearsal::default()
        };
        rehearsal.basis.devices = 3;
        let findings = refusals(&rehearsal);
        assert_eq!((codes(&findings), findings[0].devices), (vec!["preflight.no-room"], 2));

        rehearsal.basis.devices = 2;
        assert_eq!(codes(&refusals(&rehearsal)), ["preflight.no-room", "preflight.nobody-left"]);
    }
}
