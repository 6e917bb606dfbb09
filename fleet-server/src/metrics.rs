//! What Prometheus reads. No device id is ever a label: a fleet has too many.

use std::collections::BTreeMap;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sealift_protocol::api::Status;

use crate::trust::expiry::Expiry;

/// Counters of this process; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    requests: Family<StatusLabel, Counter>,
    messages: Family<ResultLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SeverityLabel {
    severity: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChannelLabel {
    channel: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabel {
    role: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabel {
    model: String,
    version: String,
}

/// What is looked up for each reading.
pub(crate) struct Gauges<'a> {
    /// The overview.
    pub(crate) status: &'a Status,
    /// Rollouts that a gate stopped.
    pub(crate) rollouts_halted: u64,
    /// When what people have signed expires.
    pub(crate) expiries: &'a [Expiry],
    /// Alerts that are not over, by severity.
    pub(crate) alerts: &'a BTreeMap<String, u64>,
    /// Messages that wait, by channel.
    pub(crate) waiting: &'a BTreeMap<String, u64>,
}

impl Metrics {
    /// Counts a request that was answered.
    pub(crate) fn count_request(&self, status: u16) {
        self.requests.get_or_create(&StatusLabel { status: u32::from(status) }).inc();
    }

    /// Counts messages of devices: `stored`, `refused` or `failed`.
    pub(crate) fn count_message(&self, result: &'static str) {
        self.messages.get_or_create(&ResultLabel { result }).inc();
    }

    /// Everything in the `OpenMetrics` text format.
    pub(crate) fn encode(&self, gauges: &Gauges<'_>) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix("sealift");
        registry.register("http_requests", "Requests answered", self.requests.clone());
        registry.register(
            "device_messages",
            "Messages of devices, by what became of them",
            self.messages.clone(),
        );
        register_fleet(&mut registry, gauges);
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

fn register_fleet(registry: &mut Registry, gauges: &Gauges<'_>) {
    let status = gauges.status;
    let devices: Family<StateLabel, Gauge> = Family::default();
    for (state, count) in [
        ("online", status.devices_online),
        ("offline", status.devices_offline),
        ("unhealthy", status.devices_unhealthy),
    ] {
        devices.get_or_create(&StateLabel { state }).set(whole(count));
    }
    registry.register("devices", "Devices by state", devices);
    let serving: Family<VersionLabel, Gauge> = Family::default();
    for adoption in &status.adoption {
        let version = adoption.version.as_ref().map(ToString::to_string).unwrap_or_default();
        let label = VersionLabel { model: adoption.model.to_string(), version };
        serving.get_or_create(&label).set(whole(adoption.devices));
    }
    registry.register("devices_serving", "Devices by the version that they serve", serving);
    for (name, help, value) in [
        ("rollouts_live", "Rollouts that are not over", status.rollouts_running),
        ("rollouts_halted", "Rollouts that a gate stopped", gauges.rollouts_halted),
        ("alerts_open", "Alerts that nobody looks after", status.alerts_open),
    ] {
        let gauge: Gauge = Gauge::default();
        gauge.set(whole(value));
        registry.register(name, help, gauge);
    }
    let alerts: Family<SeverityLabel, Gauge> = Family::default();
    // A severity without alerts is 0, so that what asks for it has a series from the first minute on.
    for severity in ["info", "warning", "critical"] {
        let count = gauges.alerts.get(severity).copied().unwrap_or_default();
        alerts.get_or_create(&SeverityLabel { severity: severity.to_owned() }).set(whole(count));
    }
    registry.register("alerts_live", "Alerts that are not over, by severity", alerts);
    let waiting: Family<ChannelLabel, Gauge> = Family::default();
    for (channel, &count) in gauges.waiting {
        waiting.get_or_create(&ChannelLabel { channel: channel.clone() }).set(whole(count));
    }
    registry.register("channel_messages_waiting", "Messages that wait, by channel", waiting);
    let expiry: Family<RoleLabel, Gauge> = Family::default();
    for Expiry { role, at, .. } in gauges.expiries {
        expiry.get_or_create(&RoleLabel { role: role.clone() }).set(at.0 / 1_000);
    }
    let help = "When the signatures of a role of the trust metadata expire, in seconds since 1970";
    registry.register("trust_expires_timestamp_seconds", help, expiry);
    let rate: Gauge<f64, std::sync::atomic::AtomicU64> = Gauge::default();
    rate.set(status.requests_per_s);
    registry.register(
        "inference_requests_per_second",
        "Inference requests answered by the fleet",
        rate,
    );
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
