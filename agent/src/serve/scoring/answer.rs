//! Outputs as predictions.
//!
//! ```text
//!  one output                  [[0.1, 0.9], [0.7, 0.3]]                        its elements, nested by its shape
//!  several, a row each         [{"label": 1, "p": [0.1, 0.9]}, …]              an object for each row
//!  several of other lengths    {"boxes": [[…], …], "count": [2]}               an object of whole outputs
//! ```

use sealift_protocol::tensor::Tensor;

use crate::serve::elements::Values;
use crate::serve::response::NoResponse;

/// How predictions are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// In an object, under `predictions`.
    Predictions,
    /// Alone.
    Bare,
    /// A line for each row.
    Csv,
}

impl Form {
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Predictions | Self::Bare => "application/json",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }
}

/// Writes `outputs` in the form asked for.
pub(super) fn write(outputs: &[Tensor], form: Form) -> Result<Vec<u8>, NoResponse> {
    let bytes: usize = outputs.iter().map(|tensor| tensor.bytes.len()).sum();
    let mut out = Vec::with_capacity(64 + bytes * 2);
    match form {
        Form::Csv => lines(outputs, &mut out)?,
        Form::Bare => predictions(outputs, &mut out)?,
        Form::Predictions => {
            out.extend_from_slice(b"{\"predictions\":");
            predictions(outputs, &mut out)?;
            out.push(b'}');
        }
    }
    Ok(out)
}

fn predictions(outputs: &[Tensor], out: &mut Vec<u8>) -> Result<(), NoResponse> {
    if let [only] = outputs {
        return nested(&mut Values::of(only), &only.shape, out);
    }
    let Some(rows) = common_rows(outputs) else {
        return object(outputs, out, |tensor, out| {
            nested(&mut Values::of(tensor), &tensor.shape, out)
        });
    };
    let mut values: Vec<_> = outputs.iter().map(Values::of).collect();
    out.push(b'[');
    for row in 0..rows {
        comma(row > 0, out);
        out.push(b'{');
        for (place, (tensor, values)) in outputs.iter().zip(&mut values).enumerate() {
            comma(place > 0, out);
            name(&tensor.name, out)?;
            nested(values, tensor.shape.get(1..).unwrap_or_default(), out)?;
        }
        out.push(b'}');
    }
    out.push(b']');
    Ok(())
}

fn object(
    outputs: &[Tensor],
    out: &mut Vec<u8>,
    mut value: impl FnMut(&Tensor, &mut Vec<u8>) -> Result<(), NoResponse>,
) -> Result<(), NoResponse> {
    out.push(b'{');
    for (place, tensor) in outputs.iter().enumerate() {
        comma(place > 0, out);
        name(&tensor.name, out)?;
        value(tensor, out)?;
    }
    out.push(b'}');
    Ok(())
}

/// Values of all outputs side by side, a line for each row.
fn lines(outputs: &[Tensor], out: &mut Vec<u8>) -> Result<(), NoResponse> {
    let rows = common_rows(outputs).ok_or(NoResponse::Csv)?;
    let mut values: Vec<_> = outputs.iter().map(Values::of).collect();
    for _ in 0..rows {
        let mut is_first = true;
        for (tensor, values) in outputs.iter().zip(&mut values) {
            let width: u64 = tensor.shape.iter().skip(1).product();
            for _ in 0..width {
                comma(!is_first, out);
                values.next(out).map_err(NoResponse::Json)?;
                is_first = false;
            }
        }
        out.push(b'\n');
    }
    Ok(())
}

/// The length of the first dimension, if all outputs have the same.
fn common_rows(outputs: &[Tensor]) -> Option<u64> {
    let rows = *outputs.first()?.shape.first()?;
    outputs.iter().all(|tensor| tensor.shape.first() == Some(&rows)).then_some(rows)
}

fn nested(values: &mut Values<'_>, shape: &[u64], out: &mut Vec<u8>) -> Result<(), NoResponse> {
    let Some((&length, inner)) = shape.split_first() else {
        return values.next(out).map_err(NoResponse::Json);
    };
    out.push(b'[');
    for place in 0..length {
        comma(place > 0, out);
        nested(values, inner, out)?;
    }
    out.push(b']');
    Ok(())
}

fn comma(is_wanted: bool, out: &mut Vec<u8>) {
    if is_wanted {
        out.push(b',');
    }
}

fn name(name: &str, out: &mut Vec<u8>) -> Result<(), NoResponse> {
    serde_json::to_writer(&mut *out, name).map_err(NoResponse::Json)?;
    out.push(b':');
    Ok(())
}
