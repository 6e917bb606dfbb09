//! What people may have to know: looked for, compared with the alerts that are open, written down, and queued for channels.

use sealift_protocol::api::LateView;
use sealift_protocol::id::{AlertId, DeviceId, ModelName, UnixMillis, Version};
use sealift_protocol::telemetry::{self, Event};

use super::memory::Served;
use super::{Watch, causes, health};
use crate::alert::deliver::Verb;
use crate::alert::{self, Alert, Change as AlertChange, Finding, Rules, rule};
use crate::drift::Scope;
use crate::rollout::{BAD_SHARE_MAX, Stage};
use crate::store::StoreError;
use crate::store::late::Astray;
use crate::store::timeline::DeviceEvent;

/// Events of devices stay news for this long.
const NEWS_MS: i64 = 3_600 * 1_000;
/// Events of devices that may be alerts at one time, newest first.
const EVENTS_MAX: u32 = 100;
/// Silent devices that are told of one by one; beyond it they are one piece of news.
const SILENT_MAX: u32 = 100;
/// Rollouts with devices that went back after the end that are told of at one time, newest first.
const LATE_MAX: u32 = 100;
/// An open alert says at least this often what holds now.
const REFRESH_MS: i64 = 60_000;

/// Opens, repeats, refreshes and closes alerts.
pub(super) async fn tell(
    watch: &Watch,
    served: &Served,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let open = watch.store.live_alerts().await?;
    let mut findings = watch.memory().findings();
    findings.extend(open.iter().filter(|alert| is_undecided(watch, alert, served, now)).map(again));
    findings.extend(halted_rollouts(watch).await?);
    findings.extend(late_devices(watch).await?);
    findings.extend(grave_events(watch, now).await?);
    findings.extend(silent_devices(watch, now).await?);
    findings.extend(causes::common_causes(watch, now).await?);
    if let Some(blame) = causes::of_drift(watch) {
        let is_of_scope = |finding: &Finding| finding.kind == "drift";
        let told = |finding| {
            if is_of_scope(&finding) { alert::with_cause(finding, &blame) } else { finding }
        };
        findings = findings.into_iter().map(told).collect();
    }
    let behind = watch.store.behind().await?;
    findings.extend((!behind.is_nobody()).then(|| alert::store_behind(behind.to_string(), now)));
    findings.extend(health::findings(watch, now).await?);
    let findings = rule::changed(findings, &watch.store.alert_kinds().await?);
    let findings = rule::grouped(findings, now);
    let silences = watch.store.silences(now).await?;
    let silences = silences.into_iter().map(|row| row.silence).collect();
    let rules = Rules { silences, ..Rules::default() };
    let changes = alert::decide(&open, &findings, &rules, now);
    for change in &changes {
        carry_out(watch, change, (&open, served), now).await?;
    }
    refresh(watch, &open, &findings, now).await
}

/// Writes a change down together with what is to be sent because of it.
async fn carry_out(
    watch: &Watch,
    change: &AlertChange,
    (open, served): (&[Alert], &Served),
    now: UnixMillis,
) -> Result<(), StoreError> {
    let mut writing = watch.store.begin().await?;
    let before = |id: &AlertId| open.iter().find(|alert| alert.id == *id);
    let was_told = |id: &AlertId| before(id).is_none_or(Alert::is_told);
    let (id, verb) = match change {
        AlertChange::Open(finding) => (writing.open_alert(finding, now).await?, Some(Verb::Opened)),
        AlertChange::OpenSilently(finding) => {
            (writing.open_untold_alert(finding, now).await?, None)
        }
        AlertChange::Repeat { id, finding, is_worse } => {
            let verb = if was_told(id) { Verb::Repeated } else { Verb::Opened };
            (writing.repeat_alert(*id, finding, *is_worse, now).await?, Some(verb))
        }
        AlertChange::Close(id) => {
            let why = before(id).map_or_else(String::new, |alert| why_over(alert, served));
            let verb = was_told(id).then_some(Verb::Closed);
            (writing.close_alert(*id, &why, now).await?, verb)
        }
    };
    // Another server was quicker: it has told already.
    let Some(id) = id else { return Ok(()) };
    let view = writing.alert(id).await?;
    if let Some(verb) = verb {
        writing.enqueue(&view, verb, now).await?;
    }
    writing.commit().await?;
    let verb = verb.map_or("silenced", Verb::as_str);
    tracing::info!(alert = %id, verb, title = view.title, "alert");
    watch.hub.publish("alert", &view);
    watch.hub.touch_status();
    Ok(())
}

/// Lets open alerts say what holds now. Nobody is told of that.
async fn refresh(
    watch: &Watch,
    open: &[Alert],
    findings: &[Finding],
    now: UnixMillis,
) -> Result<(), StoreError> {
    let stale: Vec<_> = open
        .iter()
        .filter_map(|alert| {
            let finding = findings.iter().rfind(|finding| finding.key == alert.finding.key)?;
            let knows_more = !finding.labels.keys().eq(alert.finding.labels.keys());
            let is_due = now.since(alert.seen_at) >= REFRESH_MS;
            (knows_more || is_due).then_some((alert.id, finding))
        })
        .collect();
    if stale.is_empty() {
        return Ok(());
    }
    let mut change = watch.store.begin().await?;
    let mut views = Vec::new();
    for (id, finding) in stale {
        if change.refresh_alert(id, finding, now).await? {
            views.push(change.alert(id).await?);
        }
    }
    change.commit().await?;
    for view in &views {
        watch.hub.publish("alert", view);
    }
    Ok(())
}

/// Whether an alert is about drift of an image that is still served where it was, and was not judged yet: after a restart nothing is
/// known until enough rows have come.
fn is_undecided(watch: &Watch, alert: &Alert, served: &Served, now: UnixMillis) -> bool {
    if alert.finding.kind == "device-drift" {
        return is_undecided_device(watch, alert, now);
    }
    drifted(alert).is_some_and(|(model, version, scope)| {
        is_served(served, (&model, &version), &scope)
            && !watch.memory().has_judged(&model, &version, &scope)
    })
}

/// A device that was off before a restart may be so still; one that says nothing for long serves something else, or is gone.
fn is_undecided_device(watch: &Watch, alert: &Alert, now: UnixMillis) -> bool {
    let device = alert.finding.labels.get("device").and_then(|id| DeviceId::parse(id).ok());
    let memory = watch.memory();
    memory.is_young(now) && device.is_some_and(|device| !memory.has_judged_device(&device))
}

fn again(alert: &Alert) -> Finding {
    alert.finding.clone()
}

/// What an alert about drift is about.
fn drifted(alert: &Alert) -> Option<(ModelName, Version, Scope)> {
    let label = |name| alert.finding.labels.get(name).map(String::as_str);
    if alert.finding.kind != "drift" {
        return None;
    }
    let model = ModelName::parse(label("model")?).ok()?;
    let version = Version::parse(label("version")?).ok()?;
    Some((model, version, Scope::parse(label("scope")?).ok()?))
}

fn is_served(served: &Served, (model, version): (&ModelName, &Version), scope: &Scope) -> bool {
    served.iter().any(|((name, _), (served, scopes))| {
        name == model && served == version && scopes.contains(scope)
    })
}

fn why_over(alert: &Alert, served: &Served) -> String {
    if alert.finding.kind == "device-drift" {
        return "the device is as its cohort and its past again, or serves it no more".to_owned();
    }
    match drifted(alert) {
        Some((model, version, scope)) if !is_served(served, (&model, &version), &scope) => {
            format!("{model} {version} is not served in {scope} any more")
        }
        Some((_, _, scope)) => format!("{scope} is as the reference again"),
        None => "it does not hold any more".to_owned(),
    }
}

async fn halted_rollouts(watch: &Watch) -> Result<Vec<Finding>, StoreError> {
    let live = watch.store.live_rollouts().await?;
    let halted = live.iter().filter(|row| row.stage == Stage::Halted);
    let finding =
        halted.map(|row| alert::rollout_halted(row.id, &row.order.model, &row.why, row.created_at));
    Ok(finding.collect())
}

/// Devices that went back after the end, and that nothing newer was told to since.
async fn late_devices(watch: &Watch) -> Result<Vec<Finding>, StoreError> {
    let mut findings = Vec::new();
    for Astray { rollout, devices, since } in watch.store.astray(LATE_MAX).await? {
        let Some(row) = watch.store.rollout(rollout).await? else { continue };
        let Some(LateView { newest, why, .. }) = &row.late else { continue };
        let asked = row.order.waves.last().and_then(|wave| wave.max_bad_share);
        let late = alert::Late {
            rollout,
            model: &row.order.model,
            version: &row.order.version,
            devices,
            of: row.waves.iter().map(|wave| wave.succeeded + wave.bad).sum(),
            limit: asked.unwrap_or(BAD_SHARE_MAX),
            newest: (newest, why),
            since,
        };
        findings.push(late.finding());
    }
    Ok(findings)
}

async fn grave_events(watch: &Watch, now: UnixMillis) -> Result<Vec<Finding>, StoreError> {
    let news = watch.store.grave_events_since(now.plus(-NEWS_MS), EVENTS_MAX).await?;
    let finding = |DeviceEvent { device, entry, .. }| {
        let severity = match entry.severity.as_str() {
            "security" => telemetry::Severity::Security,
            _ => telemetry::Severity::Critical, // the query asks for these two
        };
        let (code, text, model, at) = (entry.code, entry.text, entry.model, entry.at);
        let event = Event { code, severity, text, model, image: None, at };
        alert::device_event(&device, &event)
    };
    Ok(news.into_iter().map(finding).collect())
}

async fn silent_devices(watch: &Watch, now: UnixMillis) -> Result<Vec<Finding>, StoreError> {
    let heard_before = now.plus(-watch.patience.offline_after_ms);
    let silent = watch.store.silent_devices(heard_before, SILENT_MAX).await?;
    if let Some(first) = silent.devices.first()
        && silent.total > u64::from(SILENT_MAX)
    {
        return Ok(vec![alert::devices_silent(silent.total, first.heard_at)]);
    }
    let mut findings = Vec::new();
    for silent in silent.devices {
        let labels = watch.store.labels_of(&silent.device).await?;
        findings.push(alert::device_silent(&silent.device, &labels, silent.heard_at));
    }
    Ok(findings)
}
