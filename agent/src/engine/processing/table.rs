//! Columns of a table to the matrix that a graph takes.

use std::collections::BTreeMap;

use sealift_protocol::image::{
    CategoryColumn, Column, Encode, NumberColumn, TableStep, TensorSpec, Unknown,
};
use sealift_protocol::tensor::{Datatype, Tensor};

use super::{EngineError, MADE_BYTES_MAX, find};

/// An error quotes at most this much of a category.
const QUOTED_CHARS_MAX: usize = 40;

/// Makes the graph's input, a row for each row of the columns.
pub(super) fn run(
    step: &TableStep,
    spec: &TensorSpec,
    inputs: &[Tensor],
) -> Result<Tensor, EngineError> {
    let width: usize = step.columns.iter().map(Column::width).sum();
    let rows = rows(step, inputs)?;
    let cells = rows.saturating_mul(width);
    if cells > MADE_BYTES_MAX / size_of::<f64>() {
        let text = format!("`{}`: {rows} rows of {width} columns are too many", step.to);
        return Err(EngineError::Input(text));
    }
    let mut matrix = vec![0.0_f64; cells];
    let mut left = 0;
    for column in &step.columns {
        let tensor = find(inputs, column.from())?;
        match column {
            Column::Number(column) => {
                numbers(column, tensor, rows, &mut Target { matrix: &mut matrix, width, left })?;
            }
            Column::Category(column) => {
                categories(column, tensor, &mut Target { matrix: &mut matrix, width, left })?;
            }
        }
        left += column.width();
    }
    let bytes = if spec.datatype == Datatype::Fp64 {
        matrix.iter().flat_map(|value| value.to_le_bytes()).collect()
    } else {
        // FP32: the contract was checked for it.
        matrix.iter().flat_map(|&value| single(value).to_le_bytes()).collect()
    };
    Tensor::new(spec.name.clone(), spec.datatype, vec![rows as u64, width as u64], bytes)
        .map_err(|error| EngineError::Run(error.to_string()))
}

#[expect(clippy::cast_possible_truncation, reason = "the graph takes FP32")]
const fn single(value: f64) -> f32 {
    value as f32
}

/// A column of the matrix, or several beside each other.
struct Target<'a> {
    matrix: &'a mut [f64],
    width: usize,
    left: usize,
}

impl Target<'_> {
    fn set(&mut self, row: usize, column: usize, value: f64) {
        if let Some(cell) = self.matrix.get_mut(row * self.width + self.left + column) {
            *cell = value;
        }
    }
}

/// As many rows as all columns have.
fn rows(step: &TableStep, inputs: &[Tensor]) -> Result<usize, EngineError> {
    let mut found: Option<(&str, u64)> = None;
    for column in &step.columns {
        let tensor = find(inputs, column.from())?;
        let rows = tensor.shape.first().copied().unwrap_or(1);
        match found {
            Some((first, expected)) if expected != rows => {
                let name = column.from();
                let text = format!("input `{name}` has {rows} rows, `{first}` has {expected}");
                return Err(EngineError::Input(text));
            }
            Some(_) => (),
            None => found = Some((column.from(), rows)),
        }
    }
    Ok(usize::try_from(found.map_or(0, |(_, rows)| rows)).unwrap_or(usize::MAX))
}

fn numbers(
    column: &NumberColumn,
    tensor: &Tensor,
    rows: usize,
    target: &mut Target<'_>,
) -> Result<(), EngineError> {
    let refused = |text: &str| EngineError::Input(format!("input `{}`: {text}", column.from));
    let values = tensor.numbers().ok_or_else(|| refused("numbers are expected"))?;
    let columns = values.len().checked_div(rows).unwrap_or(1);
    let place = column.column.map_or(0, |place| usize::try_from(place).unwrap_or(usize::MAX));
    if place >= columns.max(1) || (column.column.is_none() && columns > 1) {
        let text = format!("column {place} of {columns} is expected to be the one");
        return Err(refused(&text));
    }
    for (row, &value) in values.iter().skip(place).step_by(columns.max(1)).enumerate() {
        let value = column.missing.filter(|_| value.is_nan()).unwrap_or(value);
        target.set(row, 0, (value - column.mean) / column.std);
    }
    Ok(())
}

fn categories(
    column: &CategoryColumn,
    tensor: &Tensor,
    target: &mut Target<'_>,
) -> Result<(), EngineError> {
    let names = column.categories.iter().enumerate();
    let places: BTreeMap<&[u8], usize> =
        names.map(|(place, name)| (name.as_bytes(), place)).collect();
    let mut one = |row: usize, text: &[u8]| {
        let place = places.get(text).copied();
        match (column.encode, place) {
            (Encode::OneHot, Some(place)) => target.set(row, place, 1.0),
            (Encode::Index, Some(place)) => target.set(row, 0, index(place)),
            (_, None) if column.unknown == Unknown::Refuse => {
                let given: String =
                    String::from_utf8_lossy(text).chars().take(QUOTED_CHARS_MAX).collect();
                let (name, count) = (&column.from, column.categories.len());
                let text =
                    format!("input `{name}`, row {row}: `{given}` is none of {count} categories");
                return Err(EngineError::Input(text));
            }
            (Encode::OneHot, None) => (),
            (Encode::Index, None) => target.set(row, 0, -1.0),
        }
        Ok(())
    };
    if tensor.datatype == Datatype::Bytes {
        return tensor.byte_elements().enumerate().try_for_each(|(row, text)| one(row, text));
    }
    let numbers = tensor.numbers().unwrap_or_default();
    numbers.iter().enumerate().try_for_each(|(row, number)| one(row, number.to_string().as_bytes()))
}

#[expect(clippy::cast_precision_loss, reason = "categories are far fewer than 2^53")]
const fn index(place: usize) -> f64 {
    place as f64
}
