//! One element of an array, by numpy's name of its type.

use super::super::Value;
use crate::tensor::half;

/// How bytes become a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element {
    kind: Kind,
    is_big_endian: bool,
    /// How many there are.
    pub(super) bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Signed,
    Unsigned,
    Float,
    /// Letters of four bytes each.
    Letters,
    /// Bytes up to the first zero.
    Bytes,
}

/// An element holds at most so many bytes; a longer text names no category.
const ELEMENT_BYTES_MAX: usize = 4 << 10;

impl Element {
    /// Reads a type such as `<f4`, `|b1` or `>U12`; nothing for one that is not taken.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (order, rest) = text.split_at_checked(1)?;
        let (kind, count) = rest.split_at_checked(1)?;
        let count: usize = count.parse().ok()?;
        let (kind, bytes) = match (kind, count) {
            ("b", 1) => (Kind::Bool, 1),
            ("i", 1 | 2 | 4 | 8) => (Kind::Signed, count),
            ("u", 1 | 2 | 4 | 8) => (Kind::Unsigned, count),
            ("f", 2 | 4 | 8) => (Kind::Float, count),
            ("U", _) => (Kind::Letters, count.checked_mul(4)?),
            ("S", _) => (Kind::Bytes, count),
            _ => return None, // complex, objects, times, records, …
        };
        let is_big_endian = match order {
            "<" | "|" | "=" => false,
            ">" => true,
            _ => return None, // no order of bytes
        };
        (bytes <= ELEMENT_BYTES_MAX).then_some(Self { kind, is_big_endian, bytes })
    }

    /// The value of [`Self::bytes`] bytes.
    pub(super) fn value(self, bytes: &[u8]) -> Value {
        let low_first = self.low_first(bytes);
        match self.kind {
            Kind::Bool => Value::Bool(low_first.iter().any(|byte| *byte != 0)),
            Kind::Unsigned => Value::Unsigned(u64::from_le_bytes(low_first)),
            Kind::Signed => {
                let unused = 64 - 8 * u32::try_from(self.bytes.min(8)).unwrap_or(8);
                Value::Int((i64::from_le_bytes(low_first) << unused) >> unused)
            }
            Kind::Float => {
                let [a, b, c, d, ..] = low_first;
                match self.bytes {
                    2 => Value::Single(half::to_f32(u16::from_le_bytes([a, b]))),
                    4 => Value::Single(f32::from_le_bytes([a, b, c, d])),
                    _ => Value::Double(f64::from_le_bytes(low_first)), // of eight
                }
            }
            Kind::Letters => Value::Text(self.letters(bytes)),
            Kind::Bytes => {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                Value::Text(String::from_utf8_lossy(bytes.get(..end).unwrap_or(bytes)).into_owned())
            }
        }
    }

    fn low_first(self, bytes: &[u8]) -> [u8; 8] {
        let mut all = [0; 8];
        if self.is_big_endian {
            all.iter_mut().zip(bytes.iter().rev()).for_each(|(to, byte)| *to = *byte);
        } else {
            all.iter_mut().zip(bytes).for_each(|(to, byte)| *to = *byte);
        }
        all
    }

    fn letters(self, bytes: &[u8]) -> String {
        let letter = |letter: &[u8; 4]| {
            let code = if self.is_big_endian {
                u32::from_be_bytes(*letter)
            } else {
                u32::from_le_bytes(*letter)
            };
            char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
        };
        bytes.as_chunks::<4>().0.iter().map(letter).take_while(|letter| *letter != '\0').collect()
    }
}
