//! Whether two images say the same of the same rows. Pure.

use std::borrow::Cow;

use sealift_protocol::image::{IoContract, Role, TensorSpec};
use sealift_protocol::tensor::{Datatype, Tensor};

/// Rows that were compared, and rows on which both agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Agreement {
    pub(super) rows: u64,
    pub(super) agreed: u64,
}

/// What an image has said, and what that means.
type Said<'a> = (&'a IoContract, &'a [Tensor]);

/// Compares the predicted classes, by name where both contracts name them; where the live image predicts none, all numbers, which may
/// differ by the tolerance, and everything else byte by byte.
pub(super) fn between(live: Said<'_>, new: Said<'_>, tolerance_permille: u16) -> Agreement {
    let by_name = names_classes(live.0) && names_classes(new.0);
    match (predictions(live, by_name), predictions(new, by_name)) {
        (Some(live), Some(new)) => {
            let agreed = live.iter().zip(&new).filter(|(live, new)| live == new).count();
            Agreement { rows: wide(live.len().max(new.len())), agreed: wide(agreed) }
        }
        (Some(live), None) => Agreement { rows: wide(live.len()), agreed: 0 },
        (None, _) => by_value(live.1, new.1, f64::from(tolerance_permille) / 1_000.0),
    }
}

/// The rows for which the images predict other classes; none where either predicts none, or not of the same rows.
pub(super) fn disagreeing(live: Said<'_>, new: Said<'_>) -> Option<Vec<bool>> {
    let by_name = names_classes(live.0) && names_classes(new.0);
    let (live, new) = (predictions(live, by_name)?, predictions(new, by_name)?);
    (live.len() == new.len())
        .then(|| live.iter().zip(&new).map(|(live, new)| live != new).collect())
}

/// Whether both take and give tensors of the same names, types and shapes, so that an application cannot tell them apart.
pub(super) fn is_same_form(live: &IoContract, new: &IoContract) -> bool {
    let is_same = |live: &[TensorSpec], new: &[TensorSpec]| {
        let form = |spec: &TensorSpec| (spec.name.clone(), spec.datatype, spec.shape.clone());
        live.iter().map(form).eq(new.iter().map(form))
    };
    is_same(&live.inputs, &new.inputs) && is_same(&live.outputs, &new.outputs)
}

fn names_classes(contract: &IoContract) -> bool {
    let class = contract.output_with(Role::Class);
    class.is_some_and(|spec| spec.datatype == Datatype::Bytes) || !labels(contract).is_empty()
}

fn labels(contract: &IoContract) -> &[String] {
    let specs = [Role::Class, Role::Probabilities].map(|role| contract.output_with(role));
    let named = specs.into_iter().flatten().find(|spec| !spec.labels.is_empty());
    named.map(|spec| spec.labels.as_slice()).unwrap_or_default()
}

/// The class of each row, by its name or its number; none where the contract declares no prediction, or it is not there.
fn predictions<'a>((contract, outputs): Said<'a>, by_name: bool) -> Option<Vec<Cow<'a, str>>> {
    let of = |spec: &TensorSpec| outputs.iter().find(|tensor| tensor.name == spec.name);
    let name = |place: Option<usize>| -> Cow<'a, str> {
        let label = place.and_then(|place| labels(contract).get(place)).filter(|_| by_name);
        match (label, place) {
            (Some(label), _) => Cow::Borrowed(label.as_str()),
            (None, Some(place)) => Cow::Owned(place.to_string()),
            (None, None) => Cow::Borrowed("no class"),
        }
    };
    if let Some(classes) = contract.output_with(Role::Class).and_then(of) {
        if classes.datatype == Datatype::Bytes {
            return Some(classes.byte_elements().map(String::from_utf8_lossy).collect());
        }
        return Some(classes.numbers()?.into_iter().map(|number| name(whole(number))).collect());
    }
    let shares = contract.output_with(Role::Probabilities).and_then(of)?;
    let columns = usize::try_from(*shares.shape.last()?).ok().filter(|&columns| columns > 0)?;
    let rows = shares.numbers()?;
    Some(rows.chunks(columns).map(|row| name(likeliest(row))).collect())
}

fn likeliest(row: &[f64]) -> Option<usize> {
    let numbers = row.iter().enumerate().filter(|(_, share)| !share.is_nan());
    numbers.max_by(|(_, left), (_, right)| left.total_cmp(right)).map(|(place, _)| place)
}

fn by_value(live: &[Tensor], new: &[Tensor], tolerance: f64) -> Agreement {
    let rows = rows(live);
    let pairs: Option<Vec<_>> = live.iter().map(|tensor| Pair::of(tensor, new, rows)).collect();
    let Some(pairs) = pairs else { return Agreement { rows, agreed: 0 } };
    let is_close = |row: &u64| pairs.iter().all(|pair| pair.is_close(*row, tolerance));
    let agreed = (0..rows).filter(is_close).count();
    Agreement { rows, agreed: wide(agreed) }
}

/// An output of both images.
enum Pair {
    Numbers { live: Vec<f64>, new: Vec<f64>, per_row: usize },
    Other { is_same: bool },
}

impl Pair {
    fn of(tensor: &Tensor, new: &[Tensor], rows: u64) -> Option<Self> {
        let same = new.iter().find(|other| other.name == tensor.name)?;
        if same.datatype != tensor.datatype || same.shape != tensor.shape {
            return None;
        }
        let (Some(live), Some(new)) = (tensor.numbers(), same.numbers()) else {
            return Some(Self::Other { is_same: tensor.bytes == same.bytes });
        };
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        let per_row = live.len().checked_div(rows).unwrap_or(0);
        Some(Self::Numbers { live, new, per_row })
    }

    fn is_close(&self, row: u64, tolerance: f64) -> bool {
        let (live, new, per_row) = match self {
            Self::Numbers { live, new, per_row } => (live, new, *per_row),
            Self::Other { is_same } => return *is_same,
        };
        let first = usize::try_from(row).unwrap_or(usize::MAX).saturating_mul(per_row);
        let mut pairs = live.iter().zip(new).skip(first).take(per_row);
        pairs.all(|(live, new)| {
            let is_same = live.total_cmp(new).is_eq() || (live.is_nan() && new.is_nan());
            is_same || (live - new).abs() <= tolerance * (1.0 + live.abs())
        })
    }
}

/// The first dimension, where all outputs have the same; else the answer is one row.
fn rows(outputs: &[Tensor]) -> u64 {
    let mut firsts = outputs.iter().map(|tensor| tensor.shape.first().copied().unwrap_or(1));
    let Some(first) = firsts.next() else { return 1 };
    if firsts.all(|other| other == first) { first } else { 1 }
}

/// What is no whole number from 0 is no class.
fn whole(number: f64) -> Option<usize> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "was just compared"
    )]
    let place = |number: f64| number as usize;
    ((0.0..1e9).contains(&number) && number.fract() == 0.0).then(|| place(number))
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contract(outputs: &str) -> IoContract {
        let json = format!(
            r#"{{"schema":1,"inputs":[{{"name":"x","datatype":"FP32","shape":[-1,2]}}],"outputs":[{outputs}]}}"#
        );
        IoContract::parse(json.as_bytes()).unwrap()
    }

    fn shares(labels: &str) -> IoContract {
        contract(&format!(
            r#"{{"name":"p","datatype":"FP32","shape":[-1,2],"role":"probabilities","labels":{labels}}}"#
        ))
    }

    fn fp32(name: &str, shape: &[u64], values: &[f32]) -> Vec<Tensor> {
        vec![Tensor::fp32(name, shape, values).unwrap()]
    }

    fn int64(values: &[i64]) -> Vec<Tensor> {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let shape = vec![values.len() as u64];
        vec![Tensor::new("label".to_owned(), Datatype::Int64, shape, bytes).unwrap()]
    }

    fn agree(live: Said<'_>, new: Said<'_>) -> (u64, u64) {
        let Agreement { rows, agreed } = between(live, new, 10);
        (rows, agreed)
    }

    #[test]
    fn the_likeliest_class_is_compared_and_not_its_share() {
        let one = shares(r#"["no","yes"]"#);
        let live = fp32("p", &[3, 2], &[0.9, 0.1, 0.2, 0.8, 0.6, 0.4]);
        let new = fp32("p", &[3, 2], &[0.6, 0.4, 0.4, 0.6, 0.4, 0.6]);
        assert_eq!(agree((&one, &live), (&one, &new)), (3, 2));
        // Named the other way round, all that were the same are not, and the other is.
        let other = shares(r#"["yes","no"]"#);
        assert_eq!(agree((&one, &live), (&other, &new)), (3, 1));
        // Names that one side does not have cannot be compared; numbers can.
        let nameless = shares("[]");
        assert_eq!(agree((&one, &live), (&nameless, &new)), (3, 2));
        let broken = fp32("p", &[3, 2], &[f32::NAN; 6]);
        assert_eq!(agree((&one, &live), (&one, &broken)), (3, 0));
    }

    #[test]
    fn classes_are_the_same_by_text_and_by_number() {
        let by_number = contract(
            r#"{"name":"label","datatype":"INT64","shape":[-1],"role":"class","labels":["no","yes"]}"#,
        );
        let by_text = contract(r#"{"name":"name","datatype":"BYTES","shape":[-1],"role":"class"}"#);
        let names = vec![Tensor::text("name", &[2], [b"yes".as_slice(), b"yes"]).unwrap()];
        let numbers = int64(&[1, 0]);
        assert_eq!(agree((&by_number, &numbers), (&by_text, &names)), (2, 1));
        assert_eq!(agree((&by_number, &numbers), (&by_number, &int64(&[1, 0, 1]))), (3, 2));
        assert_eq!(agree((&by_number, &numbers), (&by_text, &[])), (2, 0), "nothing was said");
    }

    #[test]
    fn without_a_prediction_all_numbers_of_a_row_are_close_or_it_differs() {
        let values = contract(r#"{"name":"y","datatype":"FP32","shape":[-1,2]}"#);
        let live = fp32("y", &[4, 2], &[1.0, 100.0, 0.0, 0.0, 5.0, 5.0, f32::NAN, 1.0]);
        let new = fp32("y", &[4, 2], &[1.019, 100.9, 0.0, 0.02, 5.0, 5.0, f32::NAN, 1.0]);
        assert_eq!(agree((&values, &live), (&values, &new)), (4, 3));
        let longer = fp32("y", &[5, 2], &[0.0; 10]);
        assert_eq!(agree((&values, &live), (&values, &longer)), (4, 0));
        let text = |text: &[u8]| vec![Tensor::text("t", &[1], [text]).unwrap()];
        let words = contract(r#"{"name":"t","datatype":"BYTES","shape":[-1]}"#);
        assert_eq!(agree((&words, &text(b"a")), (&words, &text(b"a"))), (1, 1));
        assert_eq!(agree((&words, &text(b"a")), (&words, &text(b"b"))), (1, 0));
    }

    #[test]
    fn only_an_image_of_the_same_form_may_answer_for_another() {
        let (one, other) = (shares(r#"["no","yes"]"#), shares("[]"));
        assert!(is_same_form(&one, &other), "names of classes are no form");
        let values = contract(r#"{"name":"y","datatype":"FP32","shape":[-1,2]}"#);
        assert!(!is_same_form(&one, &values));
    }
}
