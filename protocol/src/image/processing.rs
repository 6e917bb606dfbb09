//! What happens to tensors between applications and the graph: declared in the I/O contract, signed with it, done by the worker.
//!
//! ```text
//!  application ── contract.inputs ──▶ before ──▶ graph.inputs ──▶ graph ──▶ graph.outputs ──▶ after ──▶ contract.outputs
//! ```
//! A tensor that no step makes passes through under its name. A step or a field that this version does not know is an error: left out, it
//! would change what the model answers.

mod check;

use serde::{Deserialize, Serialize};

use super::contract::TensorSpec;

/// Steps around a graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Processing {
    /// The graph's own tensors; the contract's are what applications see.
    pub graph: GraphTensors,
    /// From the contract's inputs to the graph's, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Before>,
    /// From the graph's outputs to the contract's, in order; a step may take what one before it made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<After>,
}

/// Names, types and shapes as the graph has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphTensors {
    /// All inputs of the graph.
    pub inputs: Vec<TensorSpec>,
    /// The outputs that are wanted.
    pub outputs: Vec<TensorSpec>,
}

/// A step that makes an input of the graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Before {
    /// From encoded images.
    Image(ImageStep),
    /// From columns of a table.
    Table(TableStep),
}

/// Images as files (JPEG, PNG), each an element of a BYTES tensor, to numbers: `(pixel / divisor - mean) / std`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ImageStep {
    /// The contract's input.
    pub from: String,
    /// The graph's input, of FP32, FP16 or UINT8, and of four dimensions, or of two if it is flat.
    pub to: String,
    /// Pixels in a row of what the graph takes.
    pub width: u32,
    /// Rows of what the graph takes.
    pub height: u32,
    /// Order of the channels.
    #[serde(default)]
    pub colour: Colour,
    /// How another shape becomes this one.
    #[serde(default)]
    pub fit: Fit,
    /// With [`Fit::Crop`], the length to which the shorter side is brought before the middle is cut out; the target's if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shorter_side: Option<u32>,
    /// How new pixels come from old ones.
    #[serde(default)]
    pub filter: Filter,
    /// What a pixel of 0 to 255 is divided by.
    #[serde(default = "full_scale")]
    pub divisor: f32,
    /// Taken off, by channel; one for all, or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mean: Vec<f32>,
    /// Divided by after that, by channel; one for all, or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub std: Vec<f32>,
    /// Order of the dimensions.
    #[serde(default)]
    pub layout: Layout,
}

const fn full_scale() -> f32 {
    255.0
}

/// Order of an image's channels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Colour {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One channel, weighed as ITU-R BT.601 has it.
    Grey,
}

impl Colour {
    /// Channels of a pixel.
    pub const fn channels(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Grey => 1,
        }
    }
}

/// How an image of another shape becomes one of the right shape.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// Stretched.
    #[default]
    Stretch,
    /// Resized with its proportions until it covers the target, the middle cut out.
    Crop,
    /// Resized with its proportions until it fits into the target, in the middle of black.
    Pad,
}

/// How new pixels come from old ones; when an image shrinks, every old pixel counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// The nearest one.
    Nearest,
    /// A triangle.
    #[default]
    Bilinear,
    /// Keys' cubic with a = -0.5.
    Bicubic,
}

/// Order of the dimensions of a batch of images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Channel by channel.
    #[default]
    Nchw,
    /// Pixel by pixel.
    Nhwc,
    /// Channel by channel, a row of the matrix for each image.
    Flat,
}

/// Columns, one beside the other, as a matrix of a row for each row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TableStep {
    /// The graph's input, of FP32 or FP64 and of two dimensions.
    pub to: String,
    /// What it is made of, from left to right.
    pub columns: Vec<Column>,
}

/// What one column of a table becomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Column {
    /// `(value - mean) / std`.
    Number(NumberColumn),
    /// A column, or one for each category.
    Category(CategoryColumn),
}

/// A column of numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NumberColumn {
    /// The contract's input.
    pub from: String,
    /// Which column of it, from 0; none for an input that is one column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// Taken off.
    #[serde(default)]
    pub mean: f64,
    /// Divided by after that.
    #[serde(default = "unit")]
    pub std: f64,
    /// What stands in for NaN, before mean and deviation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<f64>,
}

const fn unit() -> f64 {
    1.0
}

/// A column of categories, as text or as whole numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CategoryColumn {
    /// The contract's input.
    pub from: String,
    /// The categories, in the order of what they become; numbers in decimal.
    pub categories: Vec<String>,
    /// What they become.
    #[serde(default)]
    pub encode: Encode,
    /// What becomes of others.
    #[serde(default)]
    pub unknown: Unknown,
}

/// What a category becomes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encode {
    /// A 1 in its own column, 0 in the others.
    #[default]
    OneHot,
    /// Its place in the list.
    Index,
}

/// What becomes of a category that is not in the list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unknown {
    /// The request is refused.
    #[default]
    Refuse,
    /// 0 in every column, or -1 for an index.
    None,
}

/// A step that takes an output of the graph, or of a step before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum After {
    /// Scores to probabilities, over the last dimension.
    Softmax(Map),
    /// Each score to a probability.
    Sigmoid(Map),
    /// The place of the largest, over the last dimension.
    Argmax(Map),
    /// The largest, with their places and names.
    TopK(TopK),
    /// Whether a number is at least as large.
    Threshold(Threshold),
    /// Places to names.
    Label(Label),
}

/// From one tensor to another of the same shape, or of its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Map {
    /// What is taken.
    pub from: String,
    /// What is made.
    pub to: String,
}

/// The largest of each row, falling; of equal ones the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TopK {
    /// What is taken.
    pub from: String,
    /// How many; a row that is shorter gives all.
    pub k: u32,
    /// Their values, in FP32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<String>,
    /// Their places, in INT64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub places: Option<String>,
    /// Their names, as BYTES.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<String>,
    /// The name of each place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

/// 1 where a number is at least `at`, else 0; NaN is not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Threshold {
    /// What is taken.
    pub from: String,
    /// What is made, in INT64.
    pub to: String,
    /// From where on.
    pub at: f64,
    /// Which column of the last dimension alone, from 0; all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

/// The name of each place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Label {
    /// Places, whole numbers from 0.
    pub from: String,
    /// Names, as BYTES of the same shape.
    pub to: String,
    /// The names, by place.
    pub labels: Vec<String>,
}

impl Before {
    /// The contract's inputs that it takes.
    pub fn takes(&self) -> Vec<&str> {
        match self {
            Self::Image(step) => vec![&step.from],
            Self::Table(step) => step.columns.iter().map(Column::from).collect(),
        }
    }

    /// The graph's input that it makes.
    pub fn makes(&self) -> &str {
        match self {
            Self::Image(step) => &step.to,
            Self::Table(step) => &step.to,
        }
    }
}

impl Column {
    /// The contract's input that it takes.
    pub fn from(&self) -> &str {
        match self {
            Self::Number(column) => &column.from,
            Self::Category(column) => &column.from,
        }
    }

    /// Columns that it becomes.
    pub fn width(&self) -> usize {
        match self {
            Self::Category(column) if column.encode == Encode::OneHot => column.categories.len(),
            Self::Number(_) | Self::Category(_) => 1,
        }
    }
}

impl After {
    /// The tensor that it takes.
    pub fn takes(&self) -> &str {
        match self {
            Self::Softmax(step) | Self::Sigmoid(step) | Self::Argmax(step) => &step.from,
            Self::TopK(step) => &step.from,
            Self::Threshold(step) => &step.from,
            Self::Label(step) => &step.from,
        }
    }

    /// The tensors that it makes.
    pub fn makes(&self) -> Vec<&str> {
        match self {
            Self::Softmax(step) | Self::Sigmoid(step) | Self::Argmax(step) => vec![&step.to],
            Self::TopK(step) => {
                let made = [&step.values, &step.places, &step.names];
                made.into_iter().flatten().map(String::as_str).collect()
            }
            Self::Threshold(step) => vec![&step.to],
            Self::Label(step) => vec![&step.to],
        }
    }
}

impl Processing {
    /// The step that makes `name` out of images, if one does.
    pub fn image_from(&self, name: &str) -> Option<&ImageStep> {
        self.before.iter().find_map(|step| match step {
            Before::Image(step) if step.from == name => Some(step),
            Before::Image(_) | Before::Table(_) => None,
        })
    }
}
