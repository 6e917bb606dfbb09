//! Enrolment and devices.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{DeviceId, Generation, ModelName, RolloutId, TenantId, UnixMillis, Version};
use crate::report::{Halted, Hold, Outcome, Phase, Shadowed};
use crate::telemetry::Facts;

/// `POST /enrol-tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolTokenNew {
    /// Labels that the device gets.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The only device id that may be taken; none for any free one.
    #[serde(default)]
    pub device: Option<DeviceId>,
    /// How many devices may use it; 1 if not given, at most 100,000.
    #[serde(default)]
    pub uses: Option<u32>,
    /// Seconds until it expires; an hour if not given.
    #[serde(default)]
    pub expires_in_s: Option<u32>,
}

/// A new token; the only time that it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolTokenCreated {
    /// Names the token in lists.
    pub id: String,
    /// `sle1.<secret>.<SHA-256 of the device CA>.<SHA-256 of the TUF root>`: the agent pins both.
    pub token: String,
    /// When it expires.
    pub expires_at: UnixMillis,
    /// The devices' HTTPS URL to enrol at.
    pub url: String,
}

/// A token in a list; without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolTokenView {
    /// Names the token.
    pub id: String,
    /// Labels that it gives.
    pub labels: BTreeMap<String, String>,
    /// How many devices may still use it.
    pub uses_left: u32,
    /// When it expires.
    pub expires_at: UnixMillis,
    /// Who made it.
    pub created_by: String,
}

/// `POST /enrol` on the devices' port; no client certificate yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolRequest {
    /// The token.
    pub token: String,
    /// The id that the device would like; the server sets every field of the certificate itself.
    pub device: DeviceId,
    /// PKCS #10, PEM; only its public key is used, and its signature checked.
    pub csr_pem: String,
}

/// The answer to an enrolment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolResponse {
    /// Whose device it is.
    pub tenant: TenantId,
    /// The id it has.
    pub device: DeviceId,
    /// Its certificate and the issuing CA, PEM.
    pub certificate_pem: String,
    /// The CA that signs devices' and server's certificates, PEM; the token carries its digest.
    pub ca_pem: String,
    /// The first TUF root, as signed; the token carries its digest.
    pub tuf_root: String,
    /// `host:port` of the MQTT broker.
    pub mqtt: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// `POST /renew` on the devices' port, with the present certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RenewRequest {
    /// PKCS #10, PEM, for a fresh key; as for an enrolment.
    pub csr_pem: String,
}

/// The answer to a renewal. The present certificate stays good until the new one is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RenewResponse {
    /// The new certificate and the issuing CA, PEM.
    pub certificate_pem: String,
    /// When it expires.
    pub expires_at: UnixMillis,
}

/// How a device does, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DeviceState {
    /// Connected, nothing wrong.
    Online,
    /// Connected, something wrong.
    Unhealthy,
    /// Not connected.
    Offline,
    /// Its certificate is revoked.
    Revoked,
}

/// `GET /devices`, `GET /devices/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceView {
    /// Its id.
    pub id: DeviceId,
    /// How it does.
    pub state: DeviceState,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When something last came from it; none if nothing ever did.
    pub seen_at: Option<UnixMillis>,
    /// When it was enrolled.
    pub enrolled_at: UnixMillis,
    /// Serial number of its certificate, lower-case hex: what a deny list names.
    #[serde(default)]
    pub certificate_serial: String,
    /// When its certificate expires.
    pub certificate_expires_at: UnixMillis,
    /// Version of the agent.
    pub agent: Option<String>,
    /// Hardware and system.
    pub facts: Option<Facts>,
    /// Where applications on the device reach the models.
    pub endpoint: Option<String>,
    /// The newest directive sent.
    pub desired_generation: Generation,
    /// The newest directive accepted by the device.
    pub reported_generation: Generation,
    /// One entry per model desired or reported.
    pub slots: Vec<SlotView>,
    /// The last heartbeat.
    pub health: Option<HealthView>,
}

/// One model on a device: desired beside reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SlotView {
    /// The model.
    pub model: ModelName,
    /// The version that the device should run.
    pub desired: Option<Version>,
    /// The version that it says it serves.
    pub serving: Option<Version>,
    /// Digest of what it says it serves.
    pub serving_digest: Option<Digest>,
    /// The version that it can go back to without a download.
    pub previous: Option<Version>,
    /// What it is doing.
    pub phase: Option<Phase>,
    /// The rollout that desires it.
    pub rollout: Option<RolloutId>,
    /// How the last attempt ended.
    pub outcome: Option<Outcome>,
    /// Execution providers that really run the graph, with their count of nodes.
    pub providers: Vec<(String, u32)>,
    /// The device's owner keeps what it serves: nothing new is begun.
    #[serde(default)]
    pub held: Option<Hold>,
    /// The rollout that it would go on with was stopped on all devices at once.
    #[serde(default)]
    pub halted: Option<Halted>,
    /// How the last image compares that was tried beside the live one.
    #[serde(default)]
    pub shadow: Option<Shadowed>,
}

/// The last heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthView {
    /// When it came.
    pub at: UnixMillis,
    /// Seconds since the agent started.
    pub uptime_s: u32,
    /// Share of all processors, 0 to 1.
    pub cpu: f64,
    /// Free memory in MiB.
    pub memory_free_mb: u32,
    /// Free disk in MiB.
    pub disk_free_mb: u32,
    /// Degrees Celsius; none without a sensor.
    pub temperature_c: Option<i8>,
    /// Requests answered since the agent started.
    pub requests: u64,
    /// Requests failed since the agent started.
    pub errors: u64,
    /// Worker restarts since the agent started.
    pub restarts: u32,
    /// Messages waiting in the spool.
    pub spooled: u32,
    /// 95th percentile of latency, in milliseconds.
    pub latency_p95_ms: f64,
    /// Device's clock minus the server's, in milliseconds.
    pub clock_skew_ms: i64,
    /// Processes that want to run, per processor.
    #[serde(default)]
    pub load: f64,
    /// How busy the accelerator is, 0 to 1; none where the system does not say.
    #[serde(default)]
    pub accelerator: Option<f64>,
    /// Whether heat or a weak supply slows the processor down.
    #[serde(default)]
    pub is_throttled: bool,
    /// Requests that are being answered or wait for it.
    #[serde(default)]
    pub in_flight: u16,
    /// Days until the device's certificate expires, as the device says.
    #[serde(default)]
    pub certificate_days: i16,
}

/// `PATCH /devices/{id}/labels`: a value sets, null removes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LabelsChange {
    /// What to change; other labels stay.
    pub labels: BTreeMap<String, Option<String>>,
}

/// `POST /devices/{id}/revoke`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceRevoke {
    /// Why; kept in the audit log.
    pub reason: String,
}

/// `POST /devices/{id}/forget`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceForget {
    /// Why; kept in the audit log.
    pub reason: String,
}

/// What was deleted of a device's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceForgotten {
    /// Profile windows as they came.
    pub windows: u64,
    /// Hours and days, which were taken out of those of the fleet and the cohorts as well.
    pub spans: u64,
    /// Events of its timeline.
    pub events: u64,
    /// Predictions that it had kept for people to look at, and their labels.
    #[serde(default)]
    pub samples: u64,
    /// Batches whose predictions it had brought up.
    #[serde(default)]
    pub batches: u64,
}

/// `GET /devices/{id}/timeline`: newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TimelineEntry {
    /// When the server learned of it.
    pub at: UnixMillis,
    /// `phase`, `outcome`, `event`, `connection` or `directive`.
    pub kind: String,
    /// `info`, `warning`, `critical` or `security`.
    pub severity: String,
    /// The stable code, if it has one.
    #[serde(default)]
    pub code: String,
    /// What happened.
    pub text: String,
    /// The model concerned.
    #[serde(default)]
    pub model: Option<ModelName>,
}
