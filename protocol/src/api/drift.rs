//! Drift verdicts and the numbers behind them.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
pub use crate::drift::DriftState;
use crate::id::{DeviceId, ModelName, UnixMillis, Version};

/// Query of `GET /drift`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema, utoipa::IntoParams))]
pub struct DriftQuery {
    /// Only this model.
    #[serde(default)]
    pub model: Option<ModelName>,
    /// Only this scope: `fleet`, `site=osaka`, `device:cam-1`.
    #[serde(default)]
    pub scope: Option<String>,
}

/// `GET /drift`: the newest verdict of one subject in one scope.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DriftView {
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// `fleet`, `site=osaka`, `device:cam-1`.
    pub scope: String,
    /// `feature:p00`, `group:upper-left`, `prediction`, `confidence`.
    pub subject: String,
    /// Where it stands.
    pub state: DriftState,
    /// The metric with its binning, such as `psi/refq10+tails/eps1e-4`.
    pub metric: String,
    /// The metric's value.
    pub value: f64,
    /// The value at which it drifts.
    pub threshold: f64,
    /// Corrected p-value; none where none was computed.
    pub p: Option<f64>,
    /// Rows judged.
    pub rows: u64,
    /// Rows that were answered in the same time and passed over, as pictures are where many come; they are not among `rows`.
    #[serde(default)]
    pub skipped: u64,
    /// Begin of the rows judged.
    pub from: UnixMillis,
    /// End.
    pub until: UnixMillis,
    /// Why, in a sentence.
    pub why: String,
}

/// `GET /drift/series`: one window of a subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DriftPoint {
    /// End of the window.
    pub at: UnixMillis,
    /// The metric's value.
    pub value: f64,
    /// Rows in the window.
    pub rows: u64,
    /// Rows that were answered in the same time and passed over, as pictures are where many come; they are not among `rows`.
    #[serde(default)]
    pub skipped: u64,
    /// Where the verdict stood.
    pub state: DriftState,
}

/// `GET /drift/history`: an hour or a day of a subject, judged alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryPoint {
    /// Begin of the span.
    pub from: UnixMillis,
    /// End of the span.
    pub until: UnixMillis,
    /// The version that was asked.
    pub version: Version,
    /// Rows in the span.
    pub rows: u64,
    /// Rows that were answered in the same time and passed over, as pictures are where many come; they are not among `rows`.
    #[serde(default)]
    pub skipped: u64,
    /// Requests that failed in it.
    pub errors: u64,
    /// The metric that says most, with its binning: `psi/refq10/eps1e-4`.
    pub metric: String,
    /// Its value.
    pub value: f64,
    /// From which value on it counts.
    pub threshold: f64,
    /// The probability of such counts if nothing changed, corrected for everything that was looked at in the span.
    pub p: f64,
    /// Where a verdict on this span alone stands.
    pub state: DriftState,
}

/// `GET /drift/histogram`: reference beside current, on the reference's bins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistogramView {
    /// The subject.
    pub subject: String,
    /// What each bin holds: a range such as `[1.0, 4.0)`, or a class.
    pub bins: Vec<String>,
    /// Share of the reference in each bin; adds up to 1.
    pub reference: Vec<f64>,
    /// Share of the current rows in each bin; adds up to 1.
    pub current: Vec<f64>,
    /// Current rows.
    pub rows: u64,
    /// Rows that were answered in the same time and passed over, as pictures are where many come; they are not among `rows`.
    #[serde(default)]
    pub skipped: u64,
    /// How many different values a categorical feature has now, the unseen among them to about 5 %; none for other subjects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub different: Option<DifferentView>,
}

/// How many different values there are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DifferentView {
    /// So many.
    pub values: f64,
    /// Whether there are more: agents of an earlier release, and data of a device that was deleted, are not counted here.
    pub is_at_least: bool,
}

/// What is to be thought of a device by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DeviceNature {
    /// It differs from nothing that it should be like.
    Steady,
    /// It is off its cohort: a sensor.
    Alone,
    /// It differs from the reference or from its past, and not from its cohort: the world, or the image.
    Together,
    /// It differs from its past, and has too few others to be compared with.
    Changed,
}

/// What a device is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ComparedWith {
    /// The other devices of its cohort, in the same time.
    Cohort,
    /// What it saw itself before.
    Past,
    /// What the model was made for.
    Reference,
}

impl ComparedWith {
    /// All of them, in the order in which people ask.
    pub const ALL: [Self; 3] = [Self::Cohort, Self::Past, Self::Reference];
}

/// `GET /drift/devices`: where one device stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceDriftView {
    /// The device.
    pub device: DeviceId,
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// Whom it is compared with: `site=osaka`, or `fleet`.
    pub cohort: String,
    /// What is to be thought of it.
    pub nature: DeviceNature,
    /// Of each comparison in which it differs, what differs most.
    pub off: Vec<DeviceComparison>,
    /// Rows of its newest window.
    pub rows: u64,
    /// Rows that were answered in the same time and passed over, as pictures are where many come; they are not among `rows`.
    #[serde(default)]
    pub skipped: u64,
    /// When that ended.
    pub until: UnixMillis,
}

/// What of a device differs most from one thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceComparison {
    /// From what.
    pub against: ComparedWith,
    /// `feature:p00`, `group:upper-left`, `prediction`, `confidence`, `correlations`.
    pub subject: String,
    /// The metric with its binning.
    pub metric: String,
    /// The metric's value.
    pub value: f64,
    /// The value at which it drifts.
    pub threshold: f64,
    /// Corrected p-value.
    pub p: f64,
    /// Since when.
    pub since: UnixMillis,
    /// Why, in a sentence.
    pub why: String,
}

/// `POST /models/{team}/{name}/versions/{version}/seen`: which rows are to be the reference of a new baseline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SeenTake {
    /// Begin, ms since 1970; counted from the full hour.
    pub from: UnixMillis,
    /// End; now if not given.
    #[serde(default)]
    pub until: Option<UnixMillis>,
    /// Only what these devices have seen; the whole fleet if empty.
    #[serde(default)]
    pub filter: String,
    /// Why, for the audit log.
    #[serde(default)]
    pub reason: String,
}

/// The answer to that: exact sums on the bins of the version's baseline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SeenTaken {
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// Digest of its OCI index.
    pub digest: Digest,
    /// Digest of the baseline on whose bins rows were counted.
    pub baseline: Digest,
    /// Begin of the first hour or day.
    pub from: UnixMillis,
    /// End of the last.
    pub until: UnixMillis,
    /// Rows.
    pub rows: u64,
    /// Windows that they came in.
    pub windows: u64,
    /// How many devices were asked for; none for the whole fleet.
    pub devices: Option<u64>,
    /// The profile, as CBOR in base64.
    pub profile: String,
    /// The same for each phase of the baseline's season.
    pub phases: Vec<String>,
}
