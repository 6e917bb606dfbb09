//! An engine without a model, for simulated devices and for tests of everything around an engine.
//!
//! Its outputs have the contract's names, types and shapes and are made from a hash of each input row, so the same row always gets
//! the same answer. Golden outputs come from a real model, which this is not: golden tests are read and checked for form, and then
//! skipped for this engine.

use std::sync::Arc;

use sealift_protocol::image::{IoContract, Role, TensorSpec};
use sealift_protocol::tensor::{Datatype, Tensor};

use super::{Engine, EngineError};

/// Classes where the contract does not say how many there are.
const CLASSES_DEFAULT: usize = 2;

/// Elements that one answer may have, so that a contract with huge outputs cannot take all memory.
const ELEMENTS_MAX: usize = 1 << 24;

/// An engine that makes its answers up.
#[derive(Debug)]
pub(crate) struct Fake {
    contract: Arc<IoContract>,
    providers: Vec<(String, u32)>,
}

impl Fake {
    /// An engine for models of this contract.
    pub(crate) fn new(contract: impl Into<Arc<IoContract>>) -> Self {
        let contract = contract.into();
        Self { contract, providers: vec![("FakeExecutionProvider".to_owned(), 1)] }
    }

    /// What it takes and gives.
    pub(crate) fn contract(&self) -> &IoContract {
        &self.contract
    }

    fn classes(&self) -> usize {
        let outputs = self.contract.outputs.iter();
        let labels = outputs.clone().map(|spec| spec.labels.len()).find(|&count| count > 0);
        let probabilities = self.contract.output_with(Role::Probabilities);
        let columns = probabilities.and_then(|spec| usize::try_from(*spec.shape.last()?).ok());
        labels.or(columns).filter(|&count| count > 0).unwrap_or(CLASSES_DEFAULT)
    }

    fn answer(&self, spec: &TensorSpec, rows: &[u64]) -> Result<Tensor, EngineError> {
        let shape = shape_for(spec, rows.len());
        let elements = shape.iter().try_fold(1_u64, |product, &length| product.checked_mul(length));
        let elements = elements.and_then(|elements| usize::try_from(elements).ok());
        let elements = elements.filter(|&elements| elements <= ELEMENTS_MAX).ok_or_else(|| {
            EngineError::Run(format!(
                "output `{}` has more than {ELEMENTS_MAX} elements",
                spec.name
            ))
        })?;
        let per_row = elements.checked_div(rows.len()).unwrap_or(0).max(1);
        let mut bytes = Vec::new();
        for index in 0..elements {
            let row = rows.get(index / per_row).copied().unwrap_or_default();
            let number = self.number(spec, row, index % per_row);
            push(&mut bytes, spec.datatype, number);
        }
        Tensor::new(spec.name.clone(), spec.datatype, shape, bytes)
            .map_err(|error| EngineError::Run(error.to_string()))
    }

    fn number(&self, spec: &TensorSpec, row: u64, column: usize) -> f64 {
        let classes = self.classes();
        match spec.role {
            Some(Role::Probabilities) => probability(row, column, classes),
            Some(Role::Class) => (0..classes)
                .map(|class| (class, probability(row, class, classes)))
                .max_by(|(_, left), (_, right)| left.total_cmp(right))
                .and_then(|(class, _)| u32::try_from(class).ok())
                .map_or(0.0, f64::from),
            Some(Role::Value) | None => unit(mix(row, column)),
        }
    }
}

impl Engine for Fake {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        let rows = row_hashes(inputs);
        self.contract.outputs.iter().map(|spec| self.answer(spec, &rows)).collect()
    }

    fn providers(&self) -> &[(String, u32)] {
        &self.providers
    }

    fn runtime(&self) -> &'static str {
        concat!("fake ", env!("CARGO_PKG_VERSION"))
    }
}

/// One hash per row of the batch; the first dimension of the first input is the batch.
fn row_hashes(inputs: &[Tensor]) -> Vec<u64> {
    let batch = inputs.first().and_then(|tensor| tensor.shape.first()).copied().unwrap_or(1);
    // An input has at least one byte per element, so that no more rows than bytes are real.
    let bytes_max = inputs.iter().map(|tensor| tensor.bytes.len()).max().unwrap_or(0);
    let batch = usize::try_from(batch).unwrap_or(usize::MAX).min(bytes_max.max(1));
    let row = |row: usize| {
        inputs.iter().fold(0xcbf2_9ce4_8422_2325, |hash, tensor| {
            let length = tensor.bytes.len().checked_div(batch).unwrap_or(0);
            let bytes = tensor.bytes.get(row * length..(row + 1) * length).unwrap_or_default();
            bytes.iter().fold(hash, |hash, &byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3) // FNV-1a
            })
        })
    };
    (0..batch).map(row).collect()
}

/// The contract's shape with the batch in place of a free first dimension, and 1 in place of other free ones.
fn shape_for(spec: &TensorSpec, batch: usize) -> Vec<u64> {
    let free = |place: usize| if place == 0 { batch as u64 } else { 1 };
    let lengths = spec.shape.iter().enumerate();
    lengths.map(|(place, &length)| u64::try_from(length).unwrap_or_else(|_| free(place))).collect()
}

/// A share of one per class; the shares of a row add up to one.
fn probability(row: u64, class: usize, classes: usize) -> f64 {
    let weight = |class: usize| unit(mix(row, class)).powi(8) + 1e-6;
    weight(class) / (0..classes).map(weight).sum::<f64>()
}

/// The finaliser of `SplitMix64`.
fn mix(row: u64, column: usize) -> u64 {
    let seed = row.wrapping_add((column as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let seed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    seed ^ (seed >> 31)
}

/// From 0 to below 1.
fn unit(hash: u64) -> f64 {
    let upper = u32::try_from(hash >> 32).unwrap_or(u32::MAX);
    f64::from(upper) / 4_294_967_296.0
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "made-up numbers are 0 to 1, or a class; what is cut off has no meaning"
)]
fn push(bytes: &mut Vec<u8>, datatype: Datatype, number: f64) {
    match datatype {
        Datatype::Bool => bytes.push(u8::from(number >= 0.5)),
        Datatype::Uint8 | Datatype::Int8 => bytes.push(number as u8),
        Datatype::Uint16 | Datatype::Int16 => bytes.extend((number as u16).to_le_bytes()),
        Datatype::Uint32 | Datatype::Int32 => bytes.extend((number as u32).to_le_bytes()),
        Datatype::Uint64 | Datatype::Int64 => bytes.extend((number as u64).to_le_bytes()),
        // The upper half of binary32 is bfloat16; binary16 numbers from 0 to 1 are made from steps of 1/1024.
        Datatype::Bf16 => {
            bytes.extend((((number as f32).to_bits() >> 16) as u16).to_le_bytes());
        }
        Datatype::Fp16 => bytes.extend(half(number).to_le_bytes()),
        Datatype::Fp32 => bytes.extend((number as f32).to_le_bytes()),
        Datatype::Fp64 => bytes.extend(number.to_le_bytes()),
        Datatype::Bytes => {
            let text = format!("{number:.6}");
            bytes.extend((text.len() as u32).to_le_bytes());
            bytes.extend(text.as_bytes());
        }
    }
}

/// IEEE 754 binary16 of a number from 0 to 65,504, cut to 10 bits of fraction; what is below the normal numbers becomes 0.
#[expect(
    clippy::cast_possible_truncation,
    reason = "exponent and fraction of a number in this range fit 15 bits"
)]
fn half(number: f64) -> u16 {
    let bits = (number as f32).to_bits();
    let exponent = (bits >> 23).saturating_sub(127 - 15);
    if exponent == 0 { 0 } else { (exponent << 10 | (bits >> 13 & 0x3ff)) as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine() -> Fake {
        let json = br#"{"schema":1,
            "inputs":[{"name":"x","datatype":"FP32","shape":[-1,2]}],
            "outputs":[{"name":"label","datatype":"INT64","shape":[-1],"role":"class"},
                       {"name":"p","datatype":"FP32","shape":[-1,3],"role":"probabilities"},
                       {"name":"half","datatype":"FP16","shape":[-1,1]},
                       {"name":"text","datatype":"BYTES","shape":[-1]}]}"#;
        Fake::new(IoContract::parse(json).unwrap())
    }

    #[test]
    fn equal_rows_get_equal_answers_in_the_contracts_shapes() {
        let x = Tensor::fp32("x", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 1.0, 2.0]).unwrap();

        let outputs = engine().run(&[x]).unwrap();

        assert_eq!(outputs[0].shape, [3]);
        assert_eq!(outputs[1].shape, [3, 3]);
        let probabilities = outputs[1].numbers().unwrap();
        assert_eq!(probabilities[0..3], probabilities[6..9]);
        assert_ne!(probabilities[0..3], probabilities[3..6]);
        for row in probabilities.chunks(3) {
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn the_class_is_the_most_probable_one() {
        let x = Tensor::fp32("x", &[1, 2], &[0.25, 8.0]).unwrap();

        let outputs = engine().run(&[x]).unwrap();

        let probabilities = outputs[1].numbers().unwrap();
        let label = outputs[0].bytes[0];
        let share = probabilities[usize::from(label)];
        assert!(probabilities.iter().all(|&other| other <= share));
        assert!((0.0..1.0).contains(&outputs[2].numbers().unwrap()[0]));
    }

    #[test]
    fn a_batch_of_nothing_is_answered_with_nothing() {
        let x = Tensor::fp32("x", &[0, 2], &[]).unwrap();
        let outputs = engine().run(&[x]).unwrap();
        assert!(outputs.iter().all(|output| output.elements().unwrap() <= 3));
    }
}
