//! Bodies of `/api/v1/review` and `/api/v1/labels`: predictions that devices keep, and what people say of them.

use serde::{Deserialize, Serialize};

use crate::capture::{InferenceId, SampleId, Why};
use crate::id::{DeviceId, ModelName, UnixMillis, Version};

/// `PUT /review/policies/{team}/{name}`: what devices keep of a model from now on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CaptureNew {
    /// Predictions whose confidence is below this, from 0 to 1.
    #[serde(default)]
    pub below: Option<f64>,
    /// Predictions whose two likeliest classes are less than this apart, from 0 to 1.
    #[serde(default)]
    pub margin: Option<f64>,
    /// Predictions that a shadow of the model does not share.
    #[serde(default)]
    pub disagreement: bool,
    /// This share of all predictions, from 0 to 1; without it the accuracy of the confident ones cannot be measured.
    #[serde(default)]
    pub share: f64,
    /// Samples that a device keeps in a day.
    #[serde(default = "samples_a_day")]
    pub samples_a_day: u32,
    /// KiB that a device keeps in a day.
    #[serde(default = "kib_a_day")]
    pub kib_a_day: u32,
    /// Days after which the server deletes a sample.
    #[serde(default = "keep_days")]
    pub keep_days: u32,
    /// What the people whom it is about were told.
    pub notice: String,
    /// When the model is to be trained anew; only when somebody says so, if not given.
    #[serde(default)]
    pub retrain: Option<RetrainRule>,
}

const fn samples_a_day() -> u32 {
    200
}

const fn kib_a_day() -> u32 {
    32 << 10
}

const fn keep_days() -> u32 {
    30
}

/// When a model is to be trained anew: whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RetrainRule {
    /// The measured accuracy is below this for sure: the upper end of its interval is.
    #[serde(default)]
    pub accuracy_below: Option<f64>,
    /// So many samples were labelled since it was asked for last.
    #[serde(default)]
    pub labels: Option<u32>,
}

/// What devices keep of a model, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CaptureView {
    /// The model.
    pub model: ModelName,
    /// Whether devices keep anything now.
    pub is_on: bool,
    /// By which rules they do, or did.
    pub rules: CaptureNew,
    /// The notice with the rules in words.
    pub notice_text: String,
    /// Who has said so.
    pub changed_by: String,
    /// When.
    pub changed_at: UnixMillis,
    /// Samples on the server.
    pub samples: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of these, the ones that somebody has labelled.
    pub labelled: u64,
    /// Samples that devices have chosen and lost.
    pub lost: u64,
    /// When the newest sample was taken.
    pub newest_at: Option<UnixMillis>,
    /// When training was asked for last.
    pub retraining_at: Option<UnixMillis>,
    /// Which devices have taken the list that says so.
    #[serde(default)]
    pub list: CaptureListView,
}

/// The newest list of what devices keep, which is one for all models, and which devices say that they have taken it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CaptureListView {
    /// Its number; 0 before the first.
    pub sequence: u64,
    /// Devices that say they have taken it; those whose owner forbids capture keep nothing by it.
    pub confirmed: u64,
    /// Devices that are connected and have not said so.
    pub unconfirmed: u64,
    /// Devices that are offline and have not said so: they hear of it when they come back.
    pub offline: u64,
}

/// A tensor of a sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TensorView {
    /// Its name.
    pub name: String,
    /// Its element type, by the Open Inference Protocol.
    pub datatype: String,
    /// Length of each dimension.
    pub shape: Vec<u64>,
    /// The elements: little-endian, in base64.
    pub base64: String,
}

/// What somebody says that a prediction should have been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LabelView {
    /// Who.
    pub labeller: String,
    /// What.
    pub label: String,
    /// From where: `review` or `truth`.
    pub source: LabelSource,
    /// When it was so.
    pub at: UnixMillis,
}

/// From where a label comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LabelSource {
    /// What really happened, as another system knows it.
    #[default]
    Truth,
    /// A person who looked at the sample.
    Review,
}

/// A sample without what went in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SampleView {
    /// Names it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: SampleId,
    /// The inference, as the application called it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub inference: InferenceId,
    /// Where it was taken.
    pub device: DeviceId,
    /// The model.
    pub model: ModelName,
    /// Its version.
    pub version: Version,
    /// When, by the device's clock.
    pub at: UnixMillis,
    /// The class that the model named.
    pub prediction: Option<String>,
    /// The probability of that class.
    pub confidence: Option<f64>,
    /// Why it was kept.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub why: Vec<Why>,
    /// The chance with which it was kept.
    pub chance: f64,
    /// Whether it was drawn by chance to be labelled, so that it counts for the accuracy whoever looks at it.
    pub is_audit: bool,
    /// When the server deletes it.
    pub delete_at: UnixMillis,
}

/// A sample with what went in and came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SampleDetail {
    /// What is known of it.
    pub sample: SampleView,
    /// What went in.
    pub inputs: Vec<TensorView>,
    /// What came out.
    pub outputs: Vec<TensorView>,
    /// Names of the model's classes, in their order; empty where it names none.
    pub classes: Vec<String>,
    /// What people and systems say of it.
    pub labels: Vec<LabelView>,
    /// What is held to be right: what happened before what people say, and what most say; none where that is open.
    pub label: Option<String>,
}

/// `GET /review/queue`: what is to be labelled next, the most telling first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QueueView {
    /// The samples.
    pub items: Vec<SampleView>,
    /// How they were chosen.
    pub method: String,
    /// Labels that the fleet's people give in a day.
    pub budget: u64,
    /// Of these, the ones that are left today.
    pub left: u64,
    /// Samples that nobody has labelled yet.
    pub waiting: u64,
}

/// `PUT /review/samples/{id}/label`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SampleLabel {
    /// What the prediction should have been.
    pub label: String,
}

/// One entry of `POST /labels`, which takes a JSON array or JSON Lines of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LabelNew {
    /// The inference that it is about.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub inference: InferenceId,
    /// What the prediction should have been.
    pub label: String,
    /// Since when that is known; now, if not given.
    #[serde(default)]
    pub at: Option<UnixMillis>,
    /// From where.
    #[serde(default)]
    pub source: LabelSource,
}

/// What became of `POST /labels`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LabelsTaken {
    /// Labels that were new, or say something else than before.
    pub changed: u64,
    /// Labels that were known already.
    pub known: u64,
    /// Of all, the ones whose inference is among the samples; the rest wait for theirs.
    pub joined: u64,
}

/// By what measured accuracy is told apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccuracyGroup {
    /// The version.
    pub version: Version,
    /// The value of the label that was asked for, or the day as `2026-11-21`; none if neither was.
    pub value: Option<String>,
}

/// How often a model was right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccuracyView {
    /// Of what.
    pub group: AccuracyGroup,
    /// Labelled predictions that it is made of.
    pub labels: u64,
    /// How many of one chance they are worth.
    pub effective: f64,
    /// The share of right ones among all predictions.
    pub accuracy: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// Samples that devices have chosen and lost in between; the figure does not know of them.
    pub lost: u64,
}

/// `GET /review/accuracy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccuracyReport {
    /// Names estimator, interval and level.
    pub method: String,
    /// From when on.
    pub from: UnixMillis,
    /// Until when.
    pub until: UnixMillis,
    /// The figures, by version and then by value.
    pub items: Vec<AccuracyView>,
    /// Labelled samples that count for no figure: people chose them, not chance, or the model named no class.
    pub left_out: u64,
}

/// How two people agree about the same samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgreementView {
    /// Who.
    pub labellers: Vec<String>,
    /// Samples that both have labelled.
    pub common: u64,
    /// Of these, the ones that they have labelled the same.
    pub same: u64,
    /// Cohen's kappa; none where both have said one and the same label all along.
    pub kappa: Option<f64>,
}

/// `POST /review/retraining`: says that a model is to be trained anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RetrainingNew {
    /// The model.
    pub model: ModelName,
    /// Why; must not be empty.
    pub reason: String,
}

/// What was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetrainingRequested {
    /// Names the request; messages carry it.
    pub id: String,
    /// Channels that are told.
    pub channels: u64,
}
