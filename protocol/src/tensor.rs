//! Tensors by the names of the Open Inference Protocol v2: in requests, in golden tests, between agent and worker.

pub mod half;
pub mod wire;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codec;

/// Element types of the Open Inference Protocol v2, "Tensor Data Types".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Datatype {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned, 8 bits.
    Uint8,
    /// Unsigned, 16 bits.
    Uint16,
    /// Unsigned, 32 bits.
    Uint32,
    /// Unsigned, 64 bits.
    Uint64,
    /// Signed, 8 bits.
    Int8,
    /// Signed, 16 bits.
    Int16,
    /// Signed, 32 bits.
    Int32,
    /// Signed, 64 bits.
    Int64,
    /// IEEE 754 binary16.
    Fp16,
    /// bfloat16.
    Bf16,
    /// IEEE 754 binary32.
    Fp32,
    /// IEEE 754 binary64.
    Fp64,
    /// Each element a 4-byte little-endian length and that many bytes.
    Bytes,
}

impl Datatype {
    /// All of them, in the order of the protocol.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Bf16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
    ];

    /// What stands for it in [`wire`]; never changes.
    const fn number(self) -> u8 {
        match self {
            Self::Bool => 0,
            Self::Uint8 => 1,
            Self::Uint16 => 2,
            Self::Uint32 => 3,
            Self::Uint64 => 4,
            Self::Int8 => 5,
            Self::Int16 => 6,
            Self::Int32 => 7,
            Self::Int64 => 8,
            Self::Fp16 => 9,
            Self::Bf16 => 10,
            Self::Fp32 => 11,
            Self::Fp64 => 12,
            Self::Bytes => 13,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Bytes of one element; none where elements differ in length.
    pub const fn element_bytes(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }

    /// The name of the protocol.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Bf16 => "BF16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }
}

impl std::str::FromStr for Datatype {
    type Err = UnknownDatatype;

    fn from_str(text: &str) -> Result<Self, UnknownDatatype> {
        let found = Self::ALL.into_iter().find(|datatype| datatype.as_str() == text);
        found.ok_or_else(|| UnknownDatatype(text.chars().take(QUOTED_CHARS_MAX).collect()))
    }
}

/// A name that is no element type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a datatype")]
pub struct UnknownDatatype(String);

/// An error quotes at most this much of what was given.
const QUOTED_CHARS_MAX: usize = 40;

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A named tensor: row-major, little-endian, no padding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tensor {
    /// The name that the I/O contract gives it.
    pub name: String,
    /// Element type.
    pub datatype: Datatype,
    /// Length of each dimension; empty for a scalar.
    pub shape: Vec<u64>,
    /// The elements.
    #[serde(with = "codec::bytes")]
    pub bytes: Vec<u8>,
}

/// Why a tensor is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTensor {
    /// More elements than 64 bits can count.
    #[error("tensor `{name}`: shape {shape:?} has too many elements")]
    Elements {
        /// The tensor.
        name: String,
        /// The shape given.
        shape: Vec<u64>,
    },
    /// Bytes and shape disagree.
    #[error(
        "tensor `{name}`: {datatype} {shape:?} needs {needed_bytes} bytes, {given_bytes} given"
    )]
    Length {
        /// The tensor.
        name: String,
        /// The type given.
        datatype: Datatype,
        /// The shape given.
        shape: Vec<u64>,
        /// What type and shape need.
        needed_bytes: u64,
        /// What came.
        given_bytes: u64,
    },
    /// A BYTES element's length goes past the end, or bytes are left over.
    #[error("tensor `{name}`: BYTES elements do not fill the data exactly")]
    Elemental {
        /// The tensor.
        name: String,
    },
}

impl Tensor {
    /// Makes a tensor whose bytes are as many as type and shape say.
    pub fn new(
        name: String,
        datatype: Datatype,
        shape: Vec<u64>,
        bytes: Vec<u8>,
    ) -> Result<Self, InvalidTensor> {
        let tensor = Self { name, datatype, shape, bytes };
        tensor.check()?;
        Ok(tensor)
    }

    /// Makes an FP32 tensor from values.
    pub fn fp32(name: &str, shape: &[u64], values: &[f32]) -> Result<Self, InvalidTensor> {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::new(name.to_owned(), Datatype::Fp32, shape.to_vec(), bytes)
    }

    /// Makes a BYTES tensor from its elements.
    pub fn text<'a>(
        name: &str,
        shape: &[u64],
        elements: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, InvalidTensor> {
        let mut bytes = Vec::new();
        for element in elements {
            let length = u32::try_from(element.len())
                .map_err(|_| InvalidTensor::Elemental { name: name.to_owned() })?;
            bytes.extend(length.to_le_bytes());
            bytes.extend(element);
        }
        Self::new(name.to_owned(), Datatype::Bytes, shape.to_vec(), bytes)
    }

    /// The elements of a BYTES tensor, up to the first that is cut off; there is none in a tensor that was checked.
    pub fn byte_elements(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (length, tail) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let (element, tail) = tail.split_at_checked(length)?;
            rest = tail;
            Some(element)
        })
    }

    /// How many elements the shape says.
    pub fn elements(&self) -> Result<u64, InvalidTensor> {
        let product =
            self.shape.iter().try_fold(1_u64, |product, &length| product.checked_mul(length));
        product.ok_or_else(|| InvalidTensor::Elements {
            name: self.name.clone(),
            shape: self.shape.clone(),
        })
    }

    /// Checks that bytes, type and shape agree; to be called on whatever was decoded.
    pub fn check(&self) -> Result<(), InvalidTensor> {
        let elements = self.elements()?;
        let given_bytes = self.bytes.len() as u64;
        let Some(element_bytes) = self.datatype.element_bytes() else {
            return self.check_elements(elements);
        };
        let needed_bytes = elements.saturating_mul(element_bytes as u64);
        if needed_bytes == given_bytes {
            return Ok(());
        }
        Err(InvalidTensor::Length {
            name: self.name.clone(),
            datatype: self.datatype,
            shape: self.shape.clone(),
            needed_bytes,
            given_bytes,
        })
    }

    fn check_elements(&self, elements: u64) -> Result<(), InvalidTensor> {
        let mut rest = self.bytes.as_slice();
        let mut found = 0_u64;
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
            let Some(tail) = tail.get(length..) else { break };
            rest = tail;
            found += 1;
        }
        if rest.is_empty() && found == elements {
            Ok(())
        } else {
            Err(InvalidTensor::Elemental { name: self.name.clone() })
        }
    }

    /// The first element that is NaN or infinite, and where it is.
    pub fn first_not_finite(&self) -> Option<(usize, f64)> {
        let is_floating = matches!(
            self.datatype,
            Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64
        );
        let numbers = if is_floating { self.numbers()? } else { return None };
        numbers.into_iter().enumerate().find(|(_, number)| !number.is_finite())
    }

    /// The elements as numbers, for judging and observing; none for BYTES.
    #[expect(
        clippy::cast_precision_loss,
        reason = "beyond 2^53 the nearest double is good enough to judge and observe by"
    )]
    pub fn numbers(&self) -> Option<Vec<f64>> {
        macro_rules! numbers {
            ($type:ty, $number:expr) => {{
                let (elements, _) = self.bytes.as_chunks::<{ size_of::<$type>() }>();
                Some(elements.iter().map(|bytes| $number(<$type>::from_le_bytes(*bytes))).collect())
            }};
        }
        match self.datatype {
            Datatype::Bool | Datatype::Uint8 => {
                Some(self.bytes.iter().map(|&byte| f64::from(byte)).collect())
            }
            Datatype::Uint16 => numbers!(u16, f64::from),
            Datatype::Uint32 => numbers!(u32, f64::from),
            Datatype::Uint64 => numbers!(u64, |value| value as f64),
            Datatype::Int8 => numbers!(i8, f64::from),
            Datatype::Int16 => numbers!(i16, f64::from),
            Datatype::Int32 => numbers!(i32, f64::from),
            Datatype::Int64 => numbers!(i64, |value| value as f64),
            Datatype::Fp16 => numbers!(u16, |bits| f64::from(half::to_f32(bits))),
            Datatype::Bf16 => numbers!(u16, |bits| f64::from(half::from_bf16(bits))),
            Datatype::Fp32 => numbers!(f32, f64::from),
            Datatype::Fp64 => numbers!(f64, |value| value),
            Datatype::Bytes => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_must_be_as_many_as_type_and_shape_say() {
        assert!(Tensor::fp32("x", &[2, 2], &[0.0; 4]).is_ok());
        let refused = Tensor::fp32("x", &[2, 3], &[0.0; 4]).unwrap_err();
        assert_eq!(refused.to_string(), "tensor `x`: FP32 [2, 3] needs 24 bytes, 16 given");
    }

    #[test]
    fn a_shape_of_2_to_the_80_elements_is_refused() {
        assert!(Tensor::fp32("x", &[1 << 40, 1 << 40], &[]).is_err());
    }

    #[test]
    fn text_elements_must_fill_the_data() {
        let text = |bytes: &[u8]| {
            Tensor::new("t".to_owned(), Datatype::Bytes, vec![2], bytes.to_vec()).is_ok()
        };
        assert!(text(b"\x01\0\0\0a\x02\0\0\0bc"));
        assert!(!text(b"\x01\0\0\0a\x03\0\0\0bc"));
        assert!(!text(b"\x01\0\0\0a"));
        assert!(!text(b"\x01\0\0\0a\xff\xff\xff\xff"));
    }

    #[test]
    fn text_elements_come_out_as_they_were_put_in() {
        let elements: [&[u8]; 3] = [b"a", b"", b"bcd"];
        let tensor = Tensor::text("t", &[3], elements).unwrap();
        assert_eq!(tensor.byte_elements().collect::<Vec<_>>(), elements);
        assert!(Tensor::text("t", &[2], elements).is_err());
    }
}
