//! What devices say, as people are shown it; and what of it is trouble.

use sealift_protocol::api::{HealthView, SlotView};
use sealift_protocol::id::{ModelName, UnixMillis};
use sealift_protocol::report::{Phase, SlotReport};
use sealift_protocol::telemetry::Beat;

/// A beat's temperature where there is no sensor.
const NO_SENSOR: i8 = i8::MIN;

/// A model that a device should run and says nothing of yet.
pub(crate) const fn empty_slot(model: ModelName) -> SlotView {
    SlotView {
        model,
        desired: None,
        serving: None,
        serving_digest: None,
        previous: None,
        phase: None,
        rollout: None,
        outcome: None,
        providers: Vec::new(),
        held: None,
        halted: None,
        shadow: None,
    }
}

/// A model as a device reports it.
pub(crate) fn reported_slot(report: SlotReport) -> SlotView {
    SlotView {
        serving_digest: report.serving.as_ref().map(|image| image.index),
        serving: report.serving.map(|image| image.version),
        previous: report.previous.map(|image| image.version),
        phase: Some(report.phase),
        outcome: report.outcome,
        providers: report.providers,
        held: report.held,
        halted: report.halted,
        shadow: report.shadow,
        ..empty_slot(report.model)
    }
}

/// A heartbeat in the units that people read.
pub(crate) fn health(beat: &Beat, at: UnixMillis) -> HealthView {
    HealthView {
        at,
        uptime_s: beat.uptime_s,
        cpu: f64::from(beat.cpu_permille) / 1_000.0,
        memory_free_mb: beat.memory_free_mb,
        disk_free_mb: beat.disk_free_mb,
        temperature_c: (beat.temperature_c != NO_SENSOR).then_some(beat.temperature_c),
        requests: beat.requests,
        errors: beat.errors,
        restarts: beat.restarts,
        spooled: beat.spooled,
        latency_p95_ms: f64::from(beat.latency_p95_us) / 1_000.0,
        clock_skew_ms: UnixMillis(beat.at).since(at),
        load: f64::from(beat.load_permille) / 1_000.0,
        accelerator: beat.accelerator_permille.map(|share| f64::from(share) / 1_000.0),
        is_throttled: beat.is_throttled,
        in_flight: beat.in_flight,
        certificate_days: beat.certificate_days,
    }
}

/// What is wrong with a device, by what it reports of its models; none if nothing is.
pub(crate) fn trouble(slots: &[SlotReport]) -> Option<String> {
    let of_slot = |slot: &SlotReport| {
        let model = &slot.model;
        match slot.phase {
            Phase::SafeMode => return Some(format!("{model}: no image works")),
            Phase::Reverting => return Some(format!("{model}: going back")),
            Phase::Idle
            | Phase::Checking
            | Phase::Waiting
            | Phase::Downloading
            | Phase::Verifying
            | Phase::Staged
            | Phase::Warming
            | Phase::Shadowing
            | Phase::Activating
            | Phase::Probation
            | Phase::Watch => (),
        }
        // An attempt that a newer directive has replaced is no trouble any more.
        let outcome = slot.outcome.as_ref().filter(|it| it.generation >= slot.generation)?;
        outcome.result.is_bad().then(|| {
            let version = &outcome.image.version;
            format!("{model} {version}: {}", outcome.code)
        })
    };
    slots.iter().find_map(of_slot)
}
