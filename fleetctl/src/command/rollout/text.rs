//! A rollout, and what is foreseen of it, for people.

use std::fmt::Write as _;

use sealift_protocol::api::{
    Finding, LateView, ReversionView, RolloutCourse, RolloutForecast, RolloutView, WaveView,
};
use sealift_protocol::directive::Shadow;

use super::progress;
use crate::output::{or_dash, printable, table, word};

/// Refusals that are listed one by one.
const REFUSALS_MAX: usize = 20;

pub(super) fn rollout(rollout: &RolloutView) -> String {
    let kind = if rollout.is_rollback { "rollback to" } else { "rollout of" };
    let mut head = format!(
        "{}  {kind} {}@{}  {}\nwhy      {}\ndevices  {}\nreason   {}\ncampaign {}{}\n",
        rollout.id,
        rollout.model,
        rollout.version,
        word(rollout.state),
        rollout.why,
        progress(rollout),
        rollout.reason,
        or_dash(rollout.campaign),
        if rollout.is_cosigned { ", cosigned by an operator" } else { "" },
    );
    // Writing to a `String` cannot fail.
    if let Some(start_at) = rollout.start_at {
        let _ = writeln!(head, "begins   {start_at}");
    }
    if let Some(window) = rollout.trial.window {
        let _ = writeln!(head, "window   {window}, local time of each device");
    }
    shadow(&mut head, &rollout.trial.shadow);
    if let Some(budget) = &rollout.budget {
        let size =
            budget.percent.map_or_else(|| or_dash(budget.count), |percent| format!("{percent}%"));
        let _ = writeln!(head, "budget   {size} at work per {}", budget.label);
    }
    if let Some(until) = rollout.tail_until {
        let _ = writeln!(head, "tail     late devices catch up until {until}");
    }
    reverted(&mut head, rollout);
    if let Some(late) = &rollout.late {
        let LateView { devices, since, newest, why } = late;
        let _ = writeln!(
            head,
            "late     {devices} took it back after the end, since {since}; the newest, {newest}: {}",
            printable(why)
        );
    }
    findings(&mut head, &rollout.findings);
    let columns = ["WAVE", "STATE", "DEVICES", "DONE", "BAD", "SOAKS UNTIL", "GATES"];
    format!("{head}\n{}", table(columns, rollout.waves.iter().map(wave)))
}

fn shadow(head: &mut String, shadow: &Shadow) {
    if shadow.is_off() {
        return;
    }
    let percent = |permille: u16| format!("{:.1}%", f64::from(permille) / 10.0);
    let Shadow { rows_min, agreement_permille, cpu_permille, split_permille, .. } = *shadow;
    let _ = write!(
        head,
        "shadow   for {} at most, {rows_min} rows, {} of a core",
        duration(shadow.span_s.into()),
        percent(cpu_permille)
    );
    if agreement_permille > 0 {
        let _ = write!(head, ", agreeing on {}", percent(agreement_permille));
    }
    if split_permille > 0 {
        let _ = write!(head, ", answering {} of the requests", percent(split_permille));
    }
    head.push('\n');
}

fn reverted(head: &mut String, rollout: &RolloutView) {
    let by: Vec<_> = rollout.reverted_by.iter().map(ToString::to_string).collect();
    if by.is_empty() {
        return;
    }
    let by = by.join(", ");
    let _ = match rollout.reversion {
        Some(ReversionView { back, at_work, offline, bad, kept }) => writeln!(
            head,
            "reverted by {by}: {back} proved back, {at_work} at work, {offline} offline, {bad} ended badly, {kept} left on it",
        ),
        None => writeln!(head, "reverted in part by {by}; others keep it"),
    };
}

fn wave(wave: &WaveView) -> [String; 7] {
    let gates = wave.gates.iter().map(|gate| {
        let value = or_dash(gate.value.map(|value| format!("{value:.3}")));
        format!("{} {value} / {:.3}", gate.name, gate.limit)
    });
    let gates: Vec<_> = gates.collect();
    [
        wave.plan.name.clone(),
        word(wave.state),
        wave.devices.to_string(),
        wave.succeeded.to_string(),
        wave.bad.to_string(),
        or_dash(wave.soak_until),
        gates.join(", "),
    ]
}

pub(super) fn forecast(forecast: &RolloutForecast) -> String {
    let mut text = format!("{} devices", forecast.devices);
    for (number, devices) in forecast.waves.iter().enumerate() {
        let _ = write!(text, "\nwave {}: {devices} devices", number + 1);
    }
    for (reason, devices) in &forecast.not_told {
        let _ = write!(text, "\nnot now: {devices}: {reason}");
    }
    let _ = write!(
        text,
        "\ndownload: {} in all, at most {} on one device; {} devices have the image already",
        size(forecast.download_bytes),
        size(forecast.largest_download_bytes),
        forecast.without_download
    );
    foreseen(&mut text, forecast);
    if forecast.needs_approval {
        text.push_str("\nsomebody else must approve it");
    }
    for rollout in &forecast.superseded {
        let _ = write!(text, "\nends rollout {rollout}");
    }
    text.push('\n');
    findings(&mut text, &forecast.findings);
    text.trim_end().to_owned()
}

fn foreseen(text: &mut String, forecast: &RolloutForecast) {
    if let [half, most, nearly_all] = forecast.done_after_s.as_slice() {
        let _ = write!(
            text,
            "\ndone: {} devices; half after {}, 90% after {}, 99% after {}",
            forecast.done,
            duration(*half),
            duration(*most),
            duration(*nearly_all)
        );
    }
    let basis = forecast.basis;
    let _ = write!(
        text,
        "\nmeasured on {} of {} devices: speed; {}: hours online; {}: free disk",
        basis.with_speed, basis.devices, basis.with_hours, basis.with_disk
    );
    for refusal in forecast.refusals.iter().take(REFUSALS_MAX) {
        let (state, reason) = (word(refusal.progress), printable(&refusal.reason));
        let _ = write!(text, "\nwill not: {} {state} {}: {reason}", refusal.device, refusal.code);
    }
    let named = u64::try_from(forecast.refusals.len().min(REFUSALS_MAX)).unwrap_or(u64::MAX);
    if forecast.refused > named {
        let _ = write!(text, "\nwill not: {} more", forecast.refused - named);
    }
}

/// What was foreseen beside what has come.
pub(super) fn course(course: &RolloutCourse) -> String {
    let Some(forecast) = &course.forecast else { return String::new() };
    let last = course.fact.last();
    let (done, refused) = last.map_or((0, 0), |point| (point.done, point.refused));
    let mut text = format!(
        "\nforecast {} done, {} refuse; so far {done} done, {refused} refused",
        forecast.done, forecast.refused
    );
    let Some(begun_at) = course.begun_at else { return text };
    for (share, foreseen) in [50_u64, 90, 99].into_iter().zip(&forecast.done_after_s) {
        let wanted = (forecast.done * share).div_ceil(100);
        let reached = course.fact.iter().find(|point| point.done >= wanted && wanted > 0);
        let took =
            reached.map(|point| u64::try_from(point.at.since(begun_at)).unwrap_or(0) / 1_000);
        let _ = write!(
            text,
            "\n{share:>3}% done after {} foreseen, {} in fact",
            duration(*foreseen),
            or_dash(took.map(duration))
        );
    }
    text
}

fn findings(text: &mut String, findings: &[Finding]) {
    for finding in findings {
        let _ = writeln!(
            text,
            "{:<8} {} ({})",
            word(finding.severity),
            printable(&finding.text),
            finding.code
        );
    }
}

fn size(bytes: u64) -> String {
    if bytes >= 10 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(more: &str) -> String {
        let view = format!(
            r#"{{"id":"r-2","model":"vision/digits","version":"2","filter":"","state":"reverting",
            "is_rollback":false,"reason":"better","why":"taken back by r-3","created_by":"ann",
            "created_at":1,"finished_at":null,"waves":[],"progress":{{"superseded":3}},
            "allowed_actions":[]{more}}}"#
        );
        rollout(&serde_json::from_str(&view).unwrap())
    }

    #[test]
    fn what_takes_a_rollout_back_is_shown_with_what_was_proved() {
        let all = shown(r#","reverted_by":["r-3"],"reversion":{"back":2,"at_work":0,"offline":1}"#);
        let line =
            "reverted by r-3: 2 proved back, 0 at work, 1 offline, 0 ended badly, 0 left on it";
        assert!(all.contains(line), "{all}");
        let part = shown(r#","reverted_by":["r-3","r-4"]"#);
        assert!(part.contains("reverted in part by r-3, r-4; others keep it"), "{part}");
        assert!(!shown("").contains("reverted by"));
    }

    #[test]
    fn devices_that_went_back_after_the_end_are_shown_with_the_newest_reason() {
        let late = r#","late":{"devices":2,"since":0,"newest":"cam-1","why":"trial.latency: 15\u001b ms"}"#;
        let text = shown(late);
        let line = "late     2 took it back after the end, since 1970-01-01";
        assert!(
            text.contains(line) && text.contains("the newest, cam-1: trial.latency: 15"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}') && !shown("").contains("late"), "{text}");
    }
}
