//! Golden tests: inputs, expected outputs and tolerances that a device runs on its own hardware before any traffic.

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::limits::GOLDEN_BYTES_MAX;
use crate::tensor::Tensor;

/// The golden layer of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Golden {
    /// Version of this format; 1.
    pub schema: u32,
    /// The cases, run in order.
    pub cases: Vec<GoldenCase>,
}

/// One input and what must come out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoldenCase {
    /// What the case is about, for people.
    pub name: String,
    /// All inputs of the contract.
    pub inputs: Vec<Tensor>,
    /// The outputs to compare; others are not looked at.
    pub outputs: Vec<Tensor>,
    /// How far an output may be off.
    pub tolerance: Tolerance,
}

/// A value passes when `|given - expected| <= absolute + relative * |expected|`, as numpy's `allclose` has it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Tolerance {
    /// In the unit of the output.
    pub absolute: f64,
    /// A share of the expected value.
    pub relative: f64,
}

/// How an output differs from the golden one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GoldenMismatch {
    /// The model did not give the output.
    #[error("golden case `{case}`: output `{output}` is missing")]
    Missing {
        /// The case.
        case: String,
        /// The output.
        output: String,
    },
    /// Another type or shape.
    #[error("golden case `{case}`: output `{output}` has another type or shape")]
    Form {
        /// The case.
        case: String,
        /// The output.
        output: String,
    },
    /// A value beyond the tolerance.
    #[error("golden case `{case}`: output `{output}`[{index}] is {given}, expected {expected}")]
    Value {
        /// The case.
        case: String,
        /// The output.
        output: String,
        /// Position in row-major order.
        index: usize,
        /// What the model gave.
        given: f64,
        /// What it should give.
        expected: f64,
    },
    /// Text that is not the same.
    #[error("golden case `{case}`: output `{output}` is another text")]
    Text {
        /// The case.
        case: String,
        /// The output.
        output: String,
    },
}

impl Golden {
    /// Reads and checks the layer.
    pub fn parse(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("golden tests", bytes, GOLDEN_BYTES_MAX)
    }
}

impl GoldenCase {
    /// Compares what the model gave with what it should give.
    pub fn judge(&self, given: &[Tensor]) -> Result<(), GoldenMismatch> {
        self.outputs.iter().try_for_each(|expected| self.judge_output(expected, given))
    }

    fn judge_output(&self, expected: &Tensor, given: &[Tensor]) -> Result<(), GoldenMismatch> {
        let (case, output) = (self.name.clone(), expected.name.clone());
        let Some(given) = given.iter().find(|tensor| tensor.name == expected.name) else {
            return Err(GoldenMismatch::Missing { case, output });
        };
        if given.datatype != expected.datatype || given.shape != expected.shape {
            return Err(GoldenMismatch::Form { case, output });
        }
        let (Some(expected_numbers), Some(numbers)) = (expected.numbers(), given.numbers()) else {
            let same = expected.bytes == given.bytes;
            return if same { Ok(()) } else { Err(GoldenMismatch::Text { case, output }) };
        };
        if expected_numbers.len() != numbers.len() {
            return Err(GoldenMismatch::Form { case, output });
        }
        let pairs = numbers.into_iter().zip(expected_numbers).enumerate();
        for (index, (given, expected)) in pairs {
            if !self.tolerance.accepts(given, expected) {
                return Err(GoldenMismatch::Value { case, output, index, given, expected });
            }
        }
        Ok(())
    }
}

impl Tolerance {
    /// NaN passes only where NaN is expected.
    fn accepts(self, given: f64, expected: f64) -> bool {
        if given.is_nan() || expected.is_nan() {
            return given.is_nan() && expected.is_nan();
        }
        let off = (given - expected).abs();
        given.total_cmp(&expected).is_eq() || off <= self.absolute + self.relative * expected.abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(expected: f32) -> GoldenCase {
        GoldenCase {
            name: "one".to_owned(),
            inputs: vec![],
            outputs: vec![Tensor::fp32("y", &[1], &[expected]).unwrap()],
            tolerance: Tolerance { absolute: 0.01, relative: 0.0 },
        }
    }

    fn given(value: f32) -> [Tensor; 1] {
        [Tensor::fp32("y", &[1], &[value]).unwrap()]
    }

    #[test]
    fn a_value_within_the_tolerance_passes_and_one_beyond_does_not() {
        assert_eq!(case(1.0).judge(&given(1.0099)), Ok(()));
        let refused = case(1.0).judge(&given(1.02)).unwrap_err();
        assert!(matches!(refused, GoldenMismatch::Value { index: 0, .. }));
    }

    #[test]
    fn nan_where_a_number_is_expected_is_refused() {
        assert!(case(1.0).judge(&given(f32::NAN)).is_err());
        assert!(case(f32::NAN).judge(&given(f32::NAN)).is_ok());
        assert!(case(f32::INFINITY).judge(&given(f32::INFINITY)).is_ok());
        assert!(case(1.0).judge(&given(f32::INFINITY)).is_err());
    }

    #[test]
    fn golden_layer_survives_its_encoding() {
        let golden = Golden { schema: 1, cases: vec![case(1.0)] };
        let bytes = codec::encode(&golden).unwrap();
        assert_eq!(Golden::parse(&bytes).unwrap(), golden);
    }
}
