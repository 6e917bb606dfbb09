//! Outputs that are no tensors, as tensors: maps of classes to shares, as `ZipMap` writes them, and sequences of equal tensors.
//!
//! ```text
//!  map                  [1, classes]      columns in the order of the contract's labels, or of the keys
//!  sequence of maps     [rows, classes]
//!  sequence of tensors  [length, …]       stacked; all of one shape
//! ```

use std::collections::BTreeMap;

use ort::value::{
    DynMap, DynMapValueType, DynSequenceValueType, DynTensor, DynTensorValueType, DynValue,
    TensorElementType, ValueType,
};
use sealift_protocol::image::TensorSpec;
use sealift_protocol::tensor::{Datatype, Tensor};

use super::super::EngineError;
use super::{datatype, run, tensor_of};

/// Whether such an output of the graph can be what the contract says.
pub(super) fn fits(spec: &TensorSpec, model: &ValueType) -> bool {
    let is_table = spec.datatype == Datatype::Fp32 && spec.shape.len() == 2;
    match model {
        ValueType::Map { key, value } => is_table && is_shares(*key, *value),
        ValueType::Sequence(items) => match &**items {
            ValueType::Map { key, value } => is_table && is_shares(*key, *value),
            ValueType::Tensor { ty, .. } => datatype(*ty) == Some(spec.datatype),
            ValueType::Sequence(_) | ValueType::Optional(_) => false,
        },
        ValueType::Tensor { .. } | ValueType::Optional(_) => false,
    }
}

fn is_shares(key: TensorElementType, value: TensorElementType) -> bool {
    matches!(key, TensorElementType::Int64 | TensorElementType::String)
        && value == TensorElementType::Float32
}

/// Makes the tensor that `spec` asks for of an output.
pub(super) fn to_tensor(spec: &TensorSpec, value: DynValue) -> Result<Tensor, EngineError> {
    if let ValueType::Map { .. } = value.dtype() {
        return table(spec, &[value.downcast::<DynMapValueType>().map_err(run)?]);
    }
    let ValueType::Sequence(items) = value.dtype().clone() else {
        return Err(run(format!("output `{}` is a {}", spec.name, value.dtype())));
    };
    let sequence = value.downcast::<DynSequenceValueType>().map_err(run)?;
    if matches!(&*items, ValueType::Map { .. }) {
        let maps = sequence.try_extract_sequence::<DynMapValueType>().map_err(run)?;
        return table(spec, &maps);
    }
    let tensors = sequence.try_extract_sequence::<DynTensorValueType>().map_err(run)?;
    stack(spec, tensors)
}

/// A row for each map, a column for each key.
fn table(spec: &TensorSpec, maps: &[DynMap]) -> Result<Tensor, EngineError> {
    let mut bytes = Vec::new();
    let mut columns = 0;
    for (place, map) in maps.iter().enumerate() {
        let row = shares(spec, map)?;
        if place > 0 && row.len() != columns {
            return Err(run(format!("output `{}`: rows have different classes", spec.name)));
        }
        columns = row.len();
        bytes.extend(row.into_iter().flat_map(f32::to_le_bytes));
    }
    let shape = vec![maps.len() as u64, columns as u64];
    Tensor::new(spec.name.clone(), spec.datatype, shape, bytes).map_err(run)
}

/// The values of a map: texts in the order of the contract's labels, whole numbers by their size.
fn shares(spec: &TensorSpec, map: &DynMap) -> Result<Vec<f32>, EngineError> {
    if let Ok(pairs) = map.try_extract_key_values::<i64, f32>() {
        return Ok(pairs.into_iter().collect::<BTreeMap<_, _>>().into_values().collect());
    }
    let pairs = map.try_extract_key_values::<String, f32>().map_err(run)?;
    let mut pairs: BTreeMap<_, _> = pairs.into_iter().collect();
    if spec.labels.is_empty() {
        return Ok(pairs.into_values().collect());
    }
    let unknown = |label: &str| run(format!("output `{}` has no class `{label}`", spec.name));
    let row: Result<Vec<_>, _> =
        spec.labels.iter().map(|label| pairs.remove(label).ok_or_else(|| unknown(label))).collect();
    match pairs.keys().next() {
        Some(extra) => Err(run(format!("output `{}`: class `{extra}` is no label", spec.name))),
        None => row,
    }
}

fn stack(spec: &TensorSpec, tensors: Vec<DynTensor>) -> Result<Tensor, EngineError> {
    let mut shape: Option<Vec<u64>> = None;
    let (length, mut bytes) = (tensors.len() as u64, Vec::new());
    for tensor in tensors {
        let tensor = tensor_of(&spec.name, &tensor)?;
        if shape.get_or_insert_with(|| tensor.shape.clone()) != &tensor.shape {
            return Err(run(format!("output `{}`: tensors differ in shape", spec.name)));
        }
        bytes.extend(tensor.bytes);
    }
    // Of no tensors at all the contract knows the shape, where it is fixed.
    let fixed =
        || spec.shape.iter().skip(1).map(|&length| length.try_into().unwrap_or(0)).collect();
    let shape = [vec![length], shape.unwrap_or_else(fixed)].concat();
    Tensor::new(spec.name.clone(), spec.datatype, shape, bytes).map_err(run)
}
