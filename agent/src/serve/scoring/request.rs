//! Bodies of scoring requests, read as the inputs of a contract.

use axum::http::{HeaderValue, StatusCode};
use sealift_protocol::image::{IoContract, TensorSpec};
use sealift_protocol::tensor::{Datatype, InvalidTensor, Tensor};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::columns::{Cell, Columns};
use crate::serve::elements::{self, InvalidElements, Items, Null};
use crate::serve::request::{InvalidRequest, image, is_image};

/// What a JSON body may be, of which exactly one is given.
const KEYS: &str =
    "`dataframe_split`, `dataframe_records`, `instances`, `inputs`, `input_data`, `data`";

/// Why a body is not a scoring request.
#[derive(Debug, thiserror::Error)]
pub(in crate::serve) enum InvalidScoring {
    #[error(
        "content-type `{0}` is not taken; application/json and text/csv are, and image/jpeg and image/png for images"
    )]
    ContentType(String),
    #[error("{0}")]
    Image(InvalidRequest),
    #[error("not a scoring request: {0}")]
    Json(#[source] serde_json::Error),
    #[error("not CSV: {0}")]
    Csv(String),
    #[error("exactly one of {KEYS} is expected, {given} given")]
    Keys { given: usize },
    #[error("the model has several inputs; name them: {expected}")]
    Unnamed { expected: String },
    #[error("unexpected column `{name}`; expected {expected}")]
    UnknownColumn { name: String, expected: String },
    #[error("column `{name}` is missing; expected {expected}")]
    MissingColumn { name: String, expected: String },
    #[error("row {row} has {given} values, {expected} are expected")]
    Width { row: u64, given: usize, expected: usize },
    #[error("row {row} is neither an array nor an object")]
    Row { row: u64 },
    #[error("row {row}, column `{column}`: {error}")]
    Cell { row: u64, column: String, error: InvalidElements },
    #[error("row {row}, column `{column}`: shape {given:?} differs from the rows before")]
    Ragged { row: u64, column: String, given: Vec<u64> },
    #[error("input `{name}`: {error}")]
    Elements { name: String, error: InvalidElements },
    #[error("{0}")]
    Tensor(#[from] InvalidTensor),
}

impl InvalidScoring {
    pub(in crate::serve) const fn status(&self) -> StatusCode {
        // All others are about the body.
        if matches!(self, Self::ContentType(_) | Self::Image(InvalidRequest::NotImages { .. })) {
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        } else {
            StatusCode::BAD_REQUEST
        }
    }
}

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Json,
    Csv,
    Image,
}

impl Encoding {
    /// By the content type; requests may come without one.
    pub(super) fn of(content_type: Option<&HeaderValue>) -> Result<Self, InvalidScoring> {
        let Some(content_type) = content_type else { return Ok(Self::Json) };
        let text = String::from_utf8_lossy(content_type.as_bytes()).to_lowercase();
        let essence = text.split(';').next().unwrap_or_default().trim();
        // What clients send that were told nothing is taken for JSON as well.
        match essence {
            _ if is_image(essence) => Ok(Self::Image),
            "text/csv" => Ok(Self::Csv),
            "application/json"
            | ""
            | "application/octet-stream"
            | "application/x-www-form-urlencoded" => Ok(Self::Json),
            _ => Err(InvalidScoring::ContentType(text.chars().take(40).collect())),
        }
    }
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    dataframe_split: Option<Split<'a>>,
    #[serde(borrow, default)]
    dataframe_records: Option<&'a RawValue>,
    #[serde(borrow, default)]
    instances: Option<&'a RawValue>,
    #[serde(borrow, default)]
    inputs: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input_data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// `DataFrame.to_dict(orient="split")`. Without names the columns are in the contract's order.
#[derive(Deserialize)]
struct Split<'a> {
    #[serde(default)]
    columns: Vec<serde_json::Value>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Reads the inputs of `contract` out of a body.
pub(super) fn parse(
    contract: &IoContract,
    encoding: Encoding,
    body: &[u8],
) -> Result<Vec<Tensor>, InvalidScoring> {
    match encoding {
        Encoding::Csv => csv(contract, body),
        Encoding::Image => Ok(vec![image(contract, body).map_err(InvalidScoring::Image)?]),
        Encoding::Json => {
            let json: &RawValue = serde_json::from_slice(body).map_err(InvalidScoring::Json)?;
            if json.get().starts_with('[') {
                instances(contract, json.get())
            } else {
                object(contract, json.get())
            }
        }
    }
}

fn object(contract: &IoContract, json: &str) -> Result<Vec<Tensor>, InvalidScoring> {
    let body: Body<'_> = serde_json::from_str(json).map_err(InvalidScoring::Json)?;
    let rows = [body.dataframe_records, body.instances, body.data];
    let given = rows.iter().flatten().count()
        + usize::from(body.dataframe_split.is_some())
        + body.inputs.iter().chain(&body.input_data).count();
    if given != 1 {
        return Err(InvalidScoring::Keys { given });
    }
    if let Some(frame) = body.dataframe_split {
        return split(contract, &frame);
    }
    if let Some(inputs) = body.inputs {
        return named(contract, inputs.get());
    }
    if let Some(data) = body.input_data {
        // Azure ML's form of a data frame, or rows.
        if data.get().starts_with('{') {
            let frame = serde_json::from_str(data.get()).map_err(InvalidScoring::Json)?;
            return split(contract, &frame);
        }
        return instances(contract, data.get());
    }
    rows.into_iter().flatten().next().map_or(Ok(Vec::new()), |rows| instances(contract, rows.get()))
}

fn split(contract: &IoContract, frame: &Split<'_>) -> Result<Vec<Tensor>, InvalidScoring> {
    // Numbers, where nobody has named the columns.
    let name = |column: &serde_json::Value| {
        column.as_str().map_or_else(|| column.to_string(), str::to_owned)
    };
    let names: Vec<_> = frame.columns.iter().map(name).collect();
    let mut columns = Columns::new(contract, (!names.is_empty()).then_some(&names))?;
    let mut cells = Vec::new();
    for row in Items::of(frame.data.get()) {
        cells.clear();
        cells.extend(Items::of(row).map(Cell::Json));
        columns.push(&cells)?;
    }
    columns.finish()
}

/// Rows: objects by the names of columns or inputs, or, for a model of one input, its elements.
fn instances(contract: &IoContract, json: &str) -> Result<Vec<Tensor>, InvalidScoring> {
    let is_objects = Items::of(json).next().is_some_and(|row| row.starts_with('{'));
    if !is_objects {
        return Ok(vec![tensor(only(contract)?, json)?]);
    }
    let mut columns = Columns::new(contract, None)?;
    for (row, json) in Items::of(json).enumerate() {
        if !json.starts_with('{') {
            return Err(InvalidScoring::Row { row: row as u64 });
        }
        columns.push_record(&serde_json::from_str(json).map_err(InvalidScoring::Json)?)?;
    }
    columns.finish()
}

/// Whole tensors by name, or the only one.
fn named(contract: &IoContract, json: &str) -> Result<Vec<Tensor>, InvalidScoring> {
    if !json.starts_with('{') {
        return Ok(vec![tensor(only(contract)?, json)?]);
    }
    let given: std::collections::BTreeMap<String, &RawValue> =
        serde_json::from_str(json).map_err(InvalidScoring::Json)?;
    let expected = || names(contract);
    let is_unknown = |name: &&String| !contract.inputs.iter().any(|spec| spec.name == **name);
    if let Some(name) = given.keys().find(is_unknown) {
        return Err(InvalidScoring::UnknownColumn { name: name.clone(), expected: expected() });
    }
    let read = |spec: &TensorSpec| {
        let missing =
            || InvalidScoring::MissingColumn { name: spec.name.clone(), expected: expected() };
        tensor(spec, given.get(&spec.name).ok_or_else(missing)?.get())
    };
    contract.inputs.iter().map(read).collect()
}

fn only(contract: &IoContract) -> Result<&TensorSpec, InvalidScoring> {
    match contract.inputs.as_slice() {
        [only] => Ok(only),
        _ => Err(InvalidScoring::Unnamed { expected: names(contract) }),
    }
}

/// Nested arrays as the tensor that `spec` asks for; a column of single values may be flat.
fn tensor(spec: &TensorSpec, json: &str) -> Result<Tensor, InvalidScoring> {
    let mut shape = elements::shape_of(json);
    let bytes = elements::parse(json, spec.datatype, &shape, Null::Missing)
        .map_err(|error| InvalidScoring::Elements { name: spec.name.clone(), error })?;
    if shape.len() == 1 && spec.shape.len() == 2 {
        shape.push(1);
    }
    Ok(Tensor::new(spec.name.clone(), spec.datatype, shape, bytes)?)
}

pub(super) fn names(contract: &IoContract) -> String {
    let names: Vec<_> = contract.inputs.iter().map(|spec| format!("`{}`", spec.name)).collect();
    names.join(", ")
}

/// A line of names may come first; it is one if a cell of it is a name that the contract has.
fn csv(contract: &IoContract, body: &[u8]) -> Result<Vec<Tensor>, InvalidScoring> {
    let broken = |error: csv::Error| InvalidScoring::Csv(error.to_string());
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(body);
    let mut columns: Option<Columns<'_>> = None;
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(broken)? {
        let cells: Vec<_> = record.iter().map(str::trim).collect();
        let columns = match &mut columns {
            Some(columns) => columns,
            None if Columns::is_names(contract, &cells) => {
                let names: Vec<_> = cells.iter().map(|&name| name.to_owned()).collect();
                columns = Some(Columns::new(contract, Some(&names))?);
                continue;
            }
            None => columns.insert(Columns::new(contract, None)?),
        };
        columns.push(&cells.into_iter().map(Cell::Text).collect::<Vec<_>>())?;
    }
    columns.map_or_else(|| Columns::new(contract, None)?.finish(), Columns::finish)
}

/// What a cell of CSV is in JSON for a type: the same, but for texts.
pub(super) const fn is_text(datatype: Datatype) -> bool {
    matches!(datatype, Datatype::Bytes)
}
