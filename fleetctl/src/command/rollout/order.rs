//! From words on the command line, or a file, to the rollout that is asked for.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use sealift_protocol::api::{Budget, ModelGates, RolloutNew, WavePlan};
use sealift_protocol::directive::{Behaviour, Shadow, Trial};

use crate::cli::{BehaviourRules, RolloutCreate, ShadowRules};
use crate::trust;

/// Longer files are no rollouts: one with 64 waves is 10 KB.
const FILE_BYTES_MAX: u64 = 1 << 20;

pub(super) fn new(create: RolloutCreate) -> anyhow::Result<RolloutNew> {
    if let Some(file) = &create.file {
        let mut new = read(file)?;
        new.draft |= create.draft;
        if !create.reason.is_empty() {
            new.reason = create.reason;
        }
        return Ok(new);
    }
    let (model, version) = create.version.context("which version?")?;
    let mut waves = waves(&create.waves)?;
    for wave in &mut waves {
        wave.max_bad_share = Some(create.max_bad_share);
        wave.max_error_share = create.max_error_share;
        wave.min_devices = create.min_devices;
        if create.no_comparison {
            wave.gates = ModelGates::off();
        }
        wave.gates.disagreement = max_disagreement(&create.shadow);
    }
    let start_in_ms = i64::from(seconds(&create.start_in)?) * 1_000;
    let start_at = (start_in_ms > 0).then(|| trust::now().plus(start_in_ms));
    let tail_s = create.tail.as_deref().map(seconds).transpose()?;
    let RolloutCreate { probation_s, watch_s, lease_s, window, .. } = create;
    let behaviour = behaviour(&create.behaviour)?;
    let shadow = shadow(&create.shadow)?;
    let trial =
        Trial { probation_s, watch_s, lease_s, window, behaviour, shadow, ..Trial::default() };
    Ok(RolloutNew {
        model,
        version,
        filter: create.filter,
        waves,
        trial,
        start_at,
        budget: create.budget,
        tail_s,
        draft: create.draft,
        reason: create.reason,
    })
}

fn behaviour(rules: &BehaviourRules) -> anyhow::Result<Behaviour> {
    let steady_s = rules.steady.as_deref().map(seconds).transpose()?;
    let behaviour = Behaviour {
        latency_rise_permille: rules.latency_rise.unwrap_or_default(),
        confidence_drop_permille: rules.confidence_drop.unwrap_or_default(),
        class_loss_permille: rules.class_loss.unwrap_or_default(),
        steady_s: steady_s.unwrap_or(Behaviour::OFF.steady_s),
    };
    behaviour.check()?;
    Ok(behaviour)
}

fn shadow(rules: &ShadowRules) -> anyhow::Result<Shadow> {
    let Some(span) = &rules.shadow else { return Ok(Shadow::OFF) };
    let off = Shadow::OFF;
    let shadow = Shadow {
        span_s: seconds(span)?,
        agreement_permille: rules.agreement.unwrap_or_default(),
        rows_min: rules.shadow_rows.unwrap_or(off.rows_min),
        cpu_permille: rules.shadow_cpu.unwrap_or(off.cpu_permille),
        quiet: rules.shadow_quiet.unwrap_or_default(),
        split_permille: rules.split.unwrap_or_default(),
        tolerance_permille: rules.shadow_tolerance.unwrap_or(off.tolerance_permille),
    };
    // A span that was given and is none is no shadow that was meant.
    anyhow::ensure!(!shadow.is_off(), "a shadow takes at least a second");
    shadow.check()?;
    Ok(shadow)
}

/// What each device must keep, all together must keep as well.
fn max_disagreement(rules: &ShadowRules) -> Option<f64> {
    let left = rules.agreement.map(|agreement| 1_000_u16.saturating_sub(agreement));
    let permille = rules.max_disagreement.or(left)?;
    Some(f64::from(permille) / 1_000.0)
}

fn read(file: &Path) -> anyhow::Result<RolloutNew> {
    parse(&text(file)?).with_context(|| format!("`{}` is not a rollout", file.display()))
}

/// A file, or standard input.
pub(crate) fn text(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    } else {
        let opened = std::fs::File::open(file);
        let opened = opened.with_context(|| format!("cannot read `{}`", file.display()))?;
        opened.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    }
    Ok(text)
}

fn parse(text: &str) -> anyhow::Result<RolloutNew> {
    checked(&serde_norway::from_str(text)?)
}

/// Unknown words are errors: a gate with a typing error would otherwise not be there.
pub(crate) fn checked(given: &serde_json::Value) -> anyhow::Result<RolloutNew> {
    let new: RolloutNew = serde_json::from_value(given.clone())?;
    if let Some(word) = unknown(given, &serde_json::to_value(full(&new))?) {
        bail!("`{word}` is not a word of a rollout");
    }
    Ok(new)
}

/// With every field set, so that all words there are come out.
fn full(new: &RolloutNew) -> RolloutNew {
    let mut full = new.clone();
    full.start_at.get_or_insert_default();
    full.tail_s.get_or_insert_default();
    full.draft = true;
    full.budget = Some(Budget { label: String::new(), count: Some(1), percent: Some(1.0) });
    full.trial.lease_s = full.trial.lease_s.max(1);
    full.trial.behaviour.latency_rise_permille = 1;
    full.trial.shadow.span_s = 1;
    if full.trial.window.is_none() {
        full.trial.window = sealift_protocol::directive::MaintenanceWindow::new(1, 0, 1).ok();
    }
    for wave in &mut full.waves {
        wave.percent.get_or_insert_default();
        wave.count.get_or_insert_default();
        wave.min_devices.get_or_insert_default();
        wave.max_bad_share.get_or_insert_default();
        wave.max_error_share.get_or_insert_default();
        wave.filter.push(' ');
        wave.gates.min_requests = wave.gates.min_requests.wrapping_add(1);
        wave.gates.disagreement.get_or_insert_default();
    }
    full
}

/// The first word of `given` that `known` has not.
fn unknown(given: &serde_json::Value, known: &serde_json::Value) -> Option<String> {
    use serde_json::Value as V;
    match (given, known) {
        (V::Object(given), V::Object(known)) => given.iter().find_map(|(word, value)| {
            known.get(word).map_or_else(|| Some(word.clone()), |known| unknown(value, known))
        }),
        (V::Array(given), V::Array(known)) => {
            given.iter().zip(known).find_map(|(given, known)| unknown(given, known))
        }
        _ => None, // a value, which was read already
    }
}

/// Reads `1:30s@site:lab,25%:5m,100%`.
fn waves(text: &str) -> anyhow::Result<Vec<WavePlan>> {
    let waves = text.split(',').enumerate().map(|(index, text)| {
        wave(index, text.trim()).with_context(|| format!("`{text}` is not a wave"))
    });
    waves.collect()
}

fn wave(index: usize, text: &str) -> anyhow::Result<WavePlan> {
    let (text, filter) = text.split_once('@').unwrap_or((text, ""));
    let (size, soak) = text.split_once(':').unwrap_or((text, "0s"));
    let name = if index == 0 { "canary".to_owned() } else { format!("wave {}", index + 1) };
    let (percent, count) = match size.strip_suffix('%') {
        Some(percent) => (Some(percent.parse::<f64>()?), None),
        None => (None, Some(size.parse::<u64>()?)),
    };
    let (soak_s, filter) = (seconds(soak)?, filter.to_owned());
    Ok(WavePlan { name, percent, count, filter, soak_s, ..WavePlan::default() })
}

pub(super) fn seconds(text: &str) -> anyhow::Result<u32> {
    let units = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];
    for (unit, seconds) in units {
        if let Some(number) = text.strip_suffix(unit) {
            let number: u32 = number.parse()?;
            return number.checked_mul(seconds).context("too long");
        }
    }
    bail!("a time is a number and s, m, h or d")
}

#[cfg(test)]
mod tests {
    use sealift_protocol::directive::Quiet;

    use super::*;

    fn rules(span: &str) -> ShadowRules {
        ShadowRules {
            shadow: Some(span.to_owned()),
            agreement: Some(985),
            shadow_rows: None,
            shadow_cpu: None,
            shadow_quiet: None,
            shadow_tolerance: None,
            split: Some(100),
            max_disagreement: None,
        }
    }

    #[test]
    fn a_shadow_asks_of_all_devices_together_what_it_asks_of_each() {
        let asked = rules("30m");
        let expected =
            Shadow { span_s: 1_800, agreement_permille: 985, split_permille: 100, ..Shadow::OFF };
        assert_eq!((shadow(&asked).unwrap(), max_disagreement(&asked)), (expected, Some(0.015)));
        let looser = ShadowRules { max_disagreement: Some(30), ..rules("30m") };
        assert_eq!(max_disagreement(&looser), Some(0.03));
        assert!(shadow(&rules("0s")).is_err() && shadow(&rules("8d")).is_err());
        let none = ShadowRules { shadow: None, agreement: None, split: None, ..rules("1m") };
        assert_eq!((shadow(&none).unwrap(), max_disagreement(&none)), (Shadow::OFF, None));
    }

    #[test]
    fn waves_are_read_as_people_write_them() {
        let waves = waves("1:30s@site:lab, 25%:5m,100%").unwrap();
        let read: Vec<_> =
            waves.iter().map(|wave| (wave.count, wave.percent, wave.soak_s)).collect();
        assert_eq!(read, [(Some(1), None, 30), (None, Some(25.0), 300), (None, Some(100.0), 0)]);
        assert_eq!((waves[0].name.as_str(), waves[0].filter.as_str()), ("canary", "site:lab"));
        assert_eq!(waves[1].filter, "");
    }

    #[test]
    fn a_wave_that_cannot_be_read_is_quoted() {
        for text in ["", "x", "5:3", "10%:5y", "1:99999999h"] {
            let refused = waves(text).unwrap_err().to_string();
            assert_eq!(refused, format!("`{text}` is not a wave"));
        }
    }

    const FILE: &str = r"
model: vision/digits
version: '2'
filter: site:tokyo
waves:
  - { name: lab, filter: 'rack:lab', soak_s: 600, min_devices: 2 }
  - { percent: 100, max_bad_share: 0.05, gates: { error_rise: null, disagreement: 0.02 } }
trial:
  probation_s: 60
  window: { days: 127, from_minute: 1320, to_minute: 360 }
  behaviour: { latency_rise_permille: 250 }
  shadow: { span_s: 1800, agreement_permille: 980, quiet: fail, split_permille: 100 }
budget: { label: site, percent: 10 }
tail_s: 86400
reason: reads sevens better
";

    #[test]
    fn a_file_says_everything_that_the_command_line_says() {
        let new = parse(FILE).unwrap();

        assert_eq!((new.waves[0].filter.as_str(), new.waves[0].min_devices), ("rack:lab", Some(2)));
        assert_eq!(new.waves[1].gates.error_rise, None);
        assert_eq!(new.trial.window.unwrap().to_string(), "22:00-06:00");
        assert_eq!(new.budget.unwrap().percent, Some(10.0));
        let behaviour = Behaviour { latency_rise_permille: 250, ..Behaviour::OFF };
        assert_eq!(new.trial.behaviour, behaviour);
        assert_eq!((new.tail_s, new.trial.probation_s, new.draft), (Some(86_400), 60, false));
        let shadow = Shadow {
            span_s: 1_800,
            agreement_permille: 980,
            quiet: Quiet::Fail,
            split_permille: 100,
            ..Shadow::OFF
        };
        assert_eq!((new.trial.shadow, new.waves[1].gates.disagreement), (shadow, Some(0.02)));
    }

    #[test]
    fn the_file_that_the_console_writes_is_read() {
        let written =
            include_str!("../../../../fleet-server/console/src/pages/rollout/example.yaml");

        let new = parse(written).unwrap();

        assert_eq!((new.version.as_str(), new.waves[0].count), ("2", Some(2)));
        assert_eq!(new.trial.window.unwrap().to_string(), "22:00-06:00");
        assert_eq!(new.reason, "reads: sevens better");
        let Trial { behaviour, shadow, .. } = new.trial;
        assert_eq!((behaviour.latency_rise_permille, behaviour.steady_s), (250, 600));
        assert_eq!((shadow.span_s, shadow.quiet), (1_800, Quiet::Fail));
        assert!(behaviour.check().is_ok() && shadow.check().is_ok());
        assert_eq!(new.waves[1].gates.disagreement, Some(0.02));
    }

    #[test]
    fn a_word_that_is_none_is_refused_by_name() {
        for (right, wrong) in [
            ("tail_s", "tail"),
            ("soak_s", "soak"),
            ("error_rise", "eror_rise"),
            ("probation_s", "probation"),
            ("latency_rise_permille", "latency_rise"),
            ("agreement_permille", "agreement"),
        ] {
            let refused = parse(&FILE.replacen(right, wrong, 1)).unwrap_err().to_string();
            assert!(refused.contains(&format!("`{wrong}`")), "{refused}");
        }
    }
}
