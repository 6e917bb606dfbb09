//! Elements as JSON: all of a tensor's as one flat array, or one by one.

use sealift_protocol::tensor::{Datatype, Tensor, half};
use serde::ser::{Error, SerializeSeq};
use serde::{Serialize, Serializer};

/// The elements of a tensor as a flat JSON array. What JSON has no form for is an error: text that is not UTF-8. Numbers that are not
/// finite become `null`.
pub(in crate::serve) struct Elements<'a>(pub(in crate::serve) &'a Tensor);

impl Serialize for Elements<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        macro_rules! numbers {
            ($type:ty) => {{
                let (elements, _) = self.0.bytes.as_chunks::<{ size_of::<$type>() }>();
                serializer.collect_seq(elements.iter().map(|bytes| <$type>::from_le_bytes(*bytes)))
            }};
        }
        match self.0.datatype {
            Datatype::Bool => serializer.collect_seq(self.0.bytes.iter().map(|&byte| byte != 0)),
            Datatype::Uint8 => numbers!(u8),
            Datatype::Uint16 => numbers!(u16),
            Datatype::Uint32 => numbers!(u32),
            Datatype::Uint64 => numbers!(u64),
            Datatype::Int8 => numbers!(i8),
            Datatype::Int16 => numbers!(i16),
            Datatype::Int32 => numbers!(i32),
            Datatype::Int64 => numbers!(i64),
            Datatype::Fp32 => numbers!(f32),
            Datatype::Fp64 => numbers!(f64),
            Datatype::Fp16 => serializer.collect_seq(halves(self.0).map(half::to_f32)),
            Datatype::Bf16 => serializer.collect_seq(halves(self.0).map(half::from_bf16)),
            Datatype::Bytes => texts(&self.0.bytes, serializer),
        }
    }
}

fn halves(tensor: &Tensor) -> impl Iterator<Item = u16> {
    tensor.bytes.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes))
}

/// The elements of a tensor as JSON, one by one.
pub(in crate::serve) struct Values<'a> {
    datatype: Datatype,
    rest: &'a [u8],
}

impl<'a> Values<'a> {
    pub(in crate::serve) fn of(tensor: &'a Tensor) -> Self {
        Self { datatype: tensor.datatype, rest: &tensor.bytes }
    }

    /// Appends the next element; `null` for a number that is not finite, and after the last one.
    pub(in crate::serve) fn next(&mut self, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        macro_rules! number {
            ($type:ty) => {
                serde_json::to_writer(out, &self.take().map(<$type>::from_le_bytes))
            };
        }
        match self.datatype {
            Datatype::Bool => {
                let is_true = self.take().map(|[byte]: [u8; 1]| byte != 0);
                serde_json::to_writer(out, &is_true)
            }
            Datatype::Uint8 => number!(u8),
            Datatype::Uint16 => number!(u16),
            Datatype::Uint32 => number!(u32),
            Datatype::Uint64 => number!(u64),
            Datatype::Int8 => number!(i8),
            Datatype::Int16 => number!(i16),
            Datatype::Int32 => number!(i32),
            Datatype::Int64 => number!(i64),
            Datatype::Fp16 => {
                let bits = self.take().map(u16::from_le_bytes);
                serde_json::to_writer(out, &bits.map(half::to_f32))
            }
            Datatype::Bf16 => {
                let bits = self.take().map(u16::from_le_bytes);
                serde_json::to_writer(out, &bits.map(half::from_bf16))
            }
            Datatype::Fp32 => number!(f32),
            Datatype::Fp64 => number!(f64),
            Datatype::Bytes => {
                let length = self.take().map_or(0, u32::from_le_bytes);
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let cut = self.rest.split_at_checked(length);
                let cut_off = || serde_json::Error::custom("BYTES elements are cut off");
                let (text, rest) = cut.ok_or_else(cut_off)?;
                self.rest = rest;
                let no_text = |_| serde_json::Error::custom("a BYTES element is no text");
                serde_json::to_writer(out, str::from_utf8(text).map_err(no_text)?)
            }
        }
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }
}

fn texts<S: Serializer>(mut bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let mut texts = serializer.serialize_seq(None)?;
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let cut = rest.split_at_checked(length);
        let (text, rest) = cut.ok_or_else(|| S::Error::custom("BYTES elements are cut off"))?;
        let text = str::from_utf8(text);
        texts
            .serialize_element(text.map_err(|_| S::Error::custom("a BYTES element is no text"))?)?;
        bytes = rest;
    }
    texts.end()
}
