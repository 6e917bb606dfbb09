//! What a graph gives to what applications are told.

use sealift_protocol::image::{After, Label, Threshold, TopK};
use sealift_protocol::tensor::{Datatype, Tensor};

use super::EngineError;

/// Runs a step, and returns what it has made.
pub(super) fn run(step: &After, from: &Tensor) -> Result<Vec<Tensor>, EngineError> {
    match step {
        After::Softmax(step) => same_shape(from, &step.to, softmax).map(one),
        After::Sigmoid(step) => same_shape(from, &step.to, sigmoid).map(one),
        After::Argmax(step) => argmax(from, &step.to).map(one),
        After::TopK(step) => top_k(from, step),
        After::Threshold(step) => threshold(from, step).map(one),
        After::Label(step) => label(from, step).map(one),
    }
}

fn one(tensor: Tensor) -> Vec<Tensor> {
    vec![tensor]
}

fn broken(error: impl std::fmt::Display) -> EngineError {
    EngineError::Run(error.to_string())
}

fn numbers(tensor: &Tensor) -> Result<Vec<f64>, EngineError> {
    tensor.numbers().ok_or_else(|| broken(format!("`{}` is text, not numbers", tensor.name)))
}

/// Elements of the last dimension; a scalar is one row of one.
fn row_length(tensor: &Tensor) -> usize {
    let length = tensor.shape.last().copied().unwrap_or(1);
    usize::try_from(length).unwrap_or(usize::MAX).max(1)
}

/// The shape without its last dimension.
fn outer(tensor: &Tensor) -> Vec<u64> {
    tensor.shape.split_last().map(|(_, outer)| outer.to_vec()).unwrap_or_default()
}

fn int64(name: &str, shape: Vec<u64>, values: &[i64]) -> Result<Tensor, EngineError> {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(name.to_owned(), Datatype::Int64, shape, bytes).map_err(broken)
}

#[expect(clippy::cast_possible_truncation, reason = "what comes out is FP32")]
fn fp32(name: &str, shape: &[u64], values: &[f64]) -> Result<Tensor, EngineError> {
    let values: Vec<_> = values.iter().map(|&value| value as f32).collect();
    Tensor::fp32(name, shape, &values).map_err(broken)
}

fn same_shape(from: &Tensor, to: &str, step: fn(&mut [f64])) -> Result<Tensor, EngineError> {
    let mut values = numbers(from)?;
    values.chunks_mut(row_length(from)).for_each(step);
    fp32(to, &from.shape, &values)
}

/// The largest is taken off first, so that none overflows.
fn softmax(row: &mut [f64]) {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    for value in &mut *row {
        *value = (*value - largest).exp();
    }
    let sum: f64 = row.iter().sum();
    for value in row {
        *value /= sum;
    }
}

fn sigmoid(row: &mut [f64]) {
    for value in row {
        *value = 1.0 / (1.0 + (-*value).exp());
    }
}

/// Places by falling value, of equal ones the first first; NaN comes last.
fn ranked(row: &[f64]) -> Vec<usize> {
    let key = |place: &usize| row.get(*place).copied().filter(|value| !value.is_nan());
    let mut places: Vec<_> = (0..row.len()).collect();
    places.sort_by(|left, right| {
        let (left, right) = (key(left), key(right));
        right.partial_cmp(&left).unwrap_or(std::cmp::Ordering::Equal)
    });
    places
}

fn signed(place: usize) -> i64 {
    i64::try_from(place).unwrap_or(i64::MAX)
}

fn argmax(from: &Tensor, to: &str) -> Result<Tensor, EngineError> {
    let values = numbers(from)?;
    let first = |row: &[f64]| ranked(row).first().map_or(0, |&place| signed(place));
    let places: Vec<_> = values.chunks(row_length(from)).map(first).collect();
    int64(to, outer(from), &places)
}

fn top_k(from: &Tensor, step: &TopK) -> Result<Vec<Tensor>, EngineError> {
    let values = numbers(from)?;
    let length = row_length(from);
    let kept = usize::try_from(step.k).unwrap_or(usize::MAX).min(length);
    let (mut best, mut places, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for row in values.chunks(length) {
        for place in ranked(row).into_iter().take(kept) {
            best.push(row.get(place).copied().unwrap_or(f64::NAN));
            places.push(signed(place));
            names.push(name_of(&step.labels, place));
        }
    }
    let shape = [outer(from), vec![kept as u64]].concat();
    let mut made = Vec::new();
    if let Some(to) = &step.values {
        made.push(fp32(to, &shape, &best)?);
    }
    if let Some(to) = &step.places {
        made.push(int64(to, shape.clone(), &places)?);
    }
    if let Some(to) = &step.names {
        let names: Option<Vec<_>> = names.into_iter().collect();
        let names = names.ok_or_else(|| unnamed(&from.name, length, step.labels.len()))?;
        made.push(Tensor::text(to, &shape, names).map_err(broken)?);
    }
    Ok(made)
}

fn name_of(labels: &[String], place: usize) -> Option<&[u8]> {
    labels.get(place).map(String::as_bytes)
}

fn unnamed(name: &str, given: usize, labels: usize) -> EngineError {
    broken(format!("`{name}` has places up to {given}, and {labels} labels"))
}

fn threshold(from: &Tensor, step: &Threshold) -> Result<Tensor, EngineError> {
    let values = numbers(from)?;
    let is_above = |value: &f64| i64::from(*value >= step.at);
    let Some(column) = step.column else {
        let above: Vec<_> = values.iter().map(is_above).collect();
        return int64(&step.to, from.shape.clone(), &above);
    };
    let column = usize::try_from(column).unwrap_or(usize::MAX);
    let cell = |row: &[f64]| row.get(column).map(is_above);
    let above: Option<Vec<_>> = values.chunks(row_length(from)).map(cell).collect();
    let above = above.ok_or_else(|| broken(format!("`{}` has no column {column}", from.name)))?;
    int64(&step.to, outer(from), &above)
}

fn label(from: &Tensor, step: &Label) -> Result<Tensor, EngineError> {
    let name = |place: &f64| {
        let mut labels = step.labels.iter().zip(0_u32..);
        let found = labels.find(|(_, at)| f64::from(*at).total_cmp(place).is_eq());
        found.map(|(label, _)| label.as_bytes())
    };
    let values = numbers(from)?;
    let names: Option<Vec<_>> = values.iter().map(name).collect();
    let names = names.ok_or_else(|| {
        broken(format!("`{}` has a place without one of {} labels", from.name, step.labels.len()))
    })?;
    Tensor::text(&step.to, &from.shape, names).map_err(broken)
}
