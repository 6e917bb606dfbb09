//! What a model's answer says of each of its rows, and a row of its tensors.

use super::decide::Seen;
use crate::image::{IoContract, Role};
use crate::limits::{CAPTURE_ELEMENTS_MAX, CAPTURE_ROWS_MAX};
use crate::tensor::{Datatype, Tensor};

/// One row of an answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Judged {
    /// How sure the model is.
    pub seen: Seen,
    /// The class that it names, by its label or else its number; none where the model names no classes.
    pub prediction: Option<String>,
}

/// Looks at every row of an answer; one row where the answer has too many to be looked at in the time of a request, or none.
pub fn judge(contract: &IoContract, outputs: &[Tensor]) -> Vec<Judged> {
    let rows = rows_of(contract, outputs);
    let shares = output(contract, outputs, Role::Probabilities).and_then(|(tensor, labels)| {
        let columns = usize::try_from(*tensor.shape.last()?).ok().filter(|&count| count > 0)?;
        (tensor.elements().ok()? <= CAPTURE_ELEMENTS_MAX).then_some(())?;
        Some((tensor.numbers()?, columns, labels))
    });
    let named = output(contract, outputs, Role::Class)
        .filter(|(tensor, _)| tensor.elements().is_ok_and(|count| count <= CAPTURE_ELEMENTS_MAX))
        .map(|(tensor, labels)| names(tensor, labels));
    let judged = |row: usize| {
        let shares = shares.as_ref().and_then(|(numbers, columns, labels)| {
            Some((numbers.get(row * columns..(row + 1) * columns)?, *labels))
        });
        let (seen, likeliest) =
            shares.map_or_else(Default::default, |(numbers, labels)| sure(numbers, labels));
        let named = named.as_ref().and_then(|names| names.get(row).cloned());
        Judged { seen, prediction: named.or(likeliest) }
    };
    (0..rows).map(judged).collect()
}

/// One row out of `rows`; a tensor of another length belongs to every row. None of a tensor that contradicts itself.
pub fn row(tensors: &[Tensor], place: usize, rows: usize) -> Option<Vec<Tensor>> {
    let one = |tensor: &Tensor| match tensor.shape.split_first() {
        Some((&first, rest)) if rows > 1 && usize::try_from(first) == Ok(rows) => {
            let shape = [&[1], rest].concat();
            let bytes = slice(tensor, place, rows)?;
            Tensor::new(tensor.name.clone(), tensor.datatype, shape, bytes).ok()
        }
        Some(_) | None => Some(tensor.clone()),
    };
    tensors.iter().map(one).collect()
}

fn slice(tensor: &Tensor, place: usize, rows: usize) -> Option<Vec<u8>> {
    if tensor.datatype != Datatype::Bytes {
        let length = tensor.bytes.len() / rows;
        return tensor.bytes.get(place * length..(place + 1) * length).map(<[u8]>::to_vec);
    }
    let elements = usize::try_from(tensor.elements().ok()?).ok()? / rows;
    let chosen = tensor.byte_elements().skip(place * elements).take(elements);
    let mut bytes = Vec::new();
    for element in chosen {
        bytes.extend(u32::try_from(element.len()).ok()?.to_le_bytes());
        bytes.extend(element);
    }
    Some(bytes)
}

/// How many rows an answer has, by the output that says most about a row.
fn rows_of(contract: &IoContract, outputs: &[Tensor]) -> usize {
    let telling = [Role::Class, Role::Probabilities, Role::Value];
    let tensor = telling.into_iter().find_map(|role| output(contract, outputs, role));
    let first = tensor.and_then(|(tensor, _)| tensor.shape.first());
    let rows = first.and_then(|&rows| usize::try_from(rows).ok()).unwrap_or(1);
    if rows <= CAPTURE_ROWS_MAX { rows } else { 1 }
}

fn output<'a>(
    contract: &'a IoContract,
    outputs: &'a [Tensor],
    role: Role,
) -> Option<(&'a Tensor, &'a [String])> {
    let spec = contract.output_with(role)?;
    let tensor = outputs.iter().find(|tensor| tensor.name == spec.name)?;
    let labels = match role {
        // The names of the classes stand with the probabilities, whose last dimension they name.
        Role::Class if spec.labels.is_empty() => {
            contract.output_with(Role::Probabilities).map_or(&[][..], |other| &other.labels)
        }
        Role::Class | Role::Probabilities | Role::Value => &spec.labels,
    };
    Some((tensor, labels))
}

fn names(tensor: &Tensor, labels: &[String]) -> Vec<String> {
    if tensor.datatype == Datatype::Bytes {
        return tensor.byte_elements().map(|text| String::from_utf8_lossy(text).into()).collect();
    }
    let name = |number: f64| named(number, labels);
    tensor.numbers().unwrap_or_default().into_iter().map(name).collect()
}

fn named(number: f64, labels: &[String]) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float is clamped to the integer's range"
    )]
    let place = (number >= 0.0 && number.fract() == 0.0).then_some(number as usize);
    let label = place.and_then(|place| labels.get(place));
    label.cloned().unwrap_or_else(|| format!("{number}"))
}

/// How sure a row of probabilities is, and of what. One that holds no number at all is not sure of anything.
fn sure(shares: &[f64], labels: &[String]) -> (Seen, Option<String>) {
    let mut best: Option<(usize, f64)> = None;
    let mut second: Option<f64> = None;
    for (place, &share) in shares.iter().enumerate().filter(|(_, share)| !share.is_nan()) {
        if best.is_none_or(|(_, largest)| share > largest) {
            second = best.map(|(_, largest)| largest);
            best = Some((place, share));
        } else if second.is_none_or(|before| share > before) {
            second = Some(share);
        }
    }
    let Some((place, confidence)) = best else {
        let seen = Seen { confidence: Some(f64::NAN), margin: Some(f64::NAN), disagrees: None };
        return (seen, None);
    };
    let margin = second.map(|second| confidence - second);
    let name = labels.get(place).cloned().unwrap_or_else(|| place.to_string());
    (Seen { confidence: Some(confidence), margin, disagrees: None }, Some(name))
}
