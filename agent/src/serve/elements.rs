//! The `data` of a tensor in JSON: numbers, booleans or text, flat or nested by the shape, to and from little-endian bytes.
//!
//! Numbers are read straight into the tensor's type, so that no element is rounded twice and no tree of values is built.

use sealift_protocol::tensor::{Datatype, Tensor};
use serde::ser::{Error, SerializeSeq};
use serde::{Serialize, Serializer};

/// Arrays within arrays; the tensors of real models have up to 6 dimensions.
const LEVELS_MAX: usize = 16;

/// An error quotes at most this much of what was given.
const QUOTED_CHARS_MAX: usize = 40;

/// Why `data` is not the elements of its tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidElements {
    #[error("`{token}` is not a {datatype}")]
    Element { token: String, datatype: Datatype },
    #[error("{given} values in a row where the shape says {expected}")]
    Length { given: u64, expected: u64 },
    #[error("rows and values are mixed")]
    Mixed,
    #[error("arrays are nested deeper than the shape, or than {LEVELS_MAX}")]
    Depth,
    #[error("{0} has no form in JSON; send it as binary data")]
    BinaryOnly(Datatype),
    #[error("data is not an array")]
    NotAnArray,
}

/// Reads `json`, which is valid JSON already, as the elements of a tensor; the caller compares their number with the shape.
pub(super) fn parse(
    json: &str,
    datatype: Datatype,
    shape: &[u64],
) -> Result<Vec<u8>, InvalidElements> {
    if matches!(datatype, Datatype::Fp16 | Datatype::Bf16) {
        return Err(InvalidElements::BinaryOnly(datatype));
    }
    // A number takes at least two characters with its comma; the guess is bounded by what came.
    let guess = json.len() / 2 * datatype.element_bytes().unwrap_or(1);
    let bytes = Vec::with_capacity(guess.min(json.len() * 2));
    let mut scanner = Scanner { rest: json.trim_ascii_start(), datatype, shape, bytes };
    if !scanner.rest.starts_with('[') {
        return Err(InvalidElements::NotAnArray);
    }
    scanner.array(0)?;
    Ok(scanner.bytes)
}

struct Scanner<'a> {
    rest: &'a str,
    datatype: Datatype,
    shape: &'a [u64],
    bytes: Vec<u8>,
}

impl<'a> Scanner<'a> {
    /// Reads an array from its bracket on. At `level` 0 it may hold all elements, further in only those of its dimension.
    fn array(&mut self, level: usize) -> Result<(), InvalidElements> {
        if level >= LEVELS_MAX.min(self.shape.len().max(1)) {
            return Err(InvalidElements::Depth);
        }
        self.skip(1);
        let (mut rows, mut values) = (0_u64, 0_u64);
        loop {
            match self.rest.as_bytes().first() {
                None | Some(b']') => break,
                Some(b',') => self.skip(1),
                Some(b'[') => {
                    self.array(level + 1)?;
                    rows += 1;
                }
                Some(_) => {
                    self.element()?;
                    values += 1;
                }
            }
        }
        self.skip(1);
        self.check(level, rows, values)
    }

    fn check(&self, level: usize, rows: u64, values: u64) -> Result<(), InvalidElements> {
        if rows > 0 && values > 0 {
            return Err(InvalidElements::Mixed);
        }
        if level == 0 && rows == 0 {
            return Ok(()); // flat; the tensor compares the number of elements with its shape
        }
        let expected = self.shape.get(level).copied().unwrap_or(0);
        let given = rows.max(values);
        let is_last = level + 1 == self.shape.len();
        if given != expected {
            return Err(InvalidElements::Length { given, expected });
        }
        if values > 0 && !is_last { Err(InvalidElements::Mixed) } else { Ok(()) }
    }

    /// Moves past `bytes` of ASCII and the white space after them.
    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default().trim_ascii_start();
    }

    fn element(&mut self) -> Result<(), InvalidElements> {
        let token = self.token();
        let datatype = self.datatype;
        let refused = || InvalidElements::Element {
            token: token.chars().take(QUOTED_CHARS_MAX).collect(),
            datatype,
        };
        push(&mut self.bytes, datatype, token).ok_or_else(refused)?;
        self.skip(token.len());
        Ok(())
    }

    /// The text of the next value that is no array.
    fn token(&self) -> &'a str {
        let end = if self.rest.starts_with('"') { string_end(self.rest) } else { None };
        let bare = || self.rest.find(|c: char| matches!(c, ',' | ']') || c.is_ascii_whitespace());
        let end = end.or_else(bare).unwrap_or(self.rest.len());
        self.rest.get(..end).unwrap_or_default()
    }
}

/// Where a string, quotes included, ends.
fn string_end(text: &str) -> Option<usize> {
    let mut bytes = text.bytes().enumerate().skip(1);
    while let Some((place, byte)) = bytes.next() {
        match byte {
            b'"' => return Some(place + 1),
            b'\\' => {
                bytes.next();
            }
            _ => (), // part of the text
        }
    }
    None
}

/// Appends an element; none if the token is not one of this type.
fn push(bytes: &mut Vec<u8>, datatype: Datatype, token: &str) -> Option<()> {
    macro_rules! number {
        ($type:ty) => {
            bytes.extend_from_slice(&token.parse::<$type>().ok()?.to_le_bytes())
        };
    }
    // A number begins like this in JSON; Rust would also read `inf` and `NaN`, which JSON's `null` and `nest` are not.
    let is_number = token.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    if !is_number && !matches!(datatype, Datatype::Bool | Datatype::Bytes) {
        return None;
    }
    match datatype {
        Datatype::Bool => bytes.push(match token {
            "true" | "1" => 1,
            "false" | "0" => 0,
            _ => return None, // JSON has two booleans, and some clients send 0 and 1
        }),
        Datatype::Uint8 => number!(u8),
        Datatype::Uint16 => number!(u16),
        Datatype::Uint32 => number!(u32),
        Datatype::Uint64 => number!(u64),
        Datatype::Int8 => number!(i8),
        Datatype::Int16 => number!(i16),
        Datatype::Int32 => number!(i32),
        Datatype::Int64 => number!(i64),
        Datatype::Fp32 => {
            let number = token.parse::<f32>().ok().filter(|number| number.is_finite())?;
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        Datatype::Fp64 => {
            let number = token.parse::<f64>().ok().filter(|number| number.is_finite())?;
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        Datatype::Fp16 | Datatype::Bf16 => return None,
        Datatype::Bytes => {
            let text: std::borrow::Cow<'_, str> = serde_json::from_str(token).ok()?;
            bytes.extend_from_slice(&u32::try_from(text.len()).ok()?.to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    Some(())
}

/// The elements of a tensor as a flat JSON array. What JSON has no form for is an error: text that is not UTF-8 and, by the rule of
/// the binary extension, 16-bit floating point. Numbers that are not finite become `null`.
pub(super) struct Elements<'a>(pub(super) &'a Tensor);

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
            datatype @ (Datatype::Fp16 | Datatype::Bf16) => {
                Err(S::Error::custom(InvalidElements::BinaryOnly(datatype)))
            }
            Datatype::Bytes => texts(&self.0.bytes, serializer),
        }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fp32(json: &str, shape: &[u64]) -> Result<Vec<u8>, InvalidElements> {
        parse(json, Datatype::Fp32, shape)
    }

    fn bytes(numbers: &[f32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    #[test]
    fn flat_and_nested_data_are_the_same_elements() {
        let numbers = bytes(&[1.0, 2.5, -3.0, 4e2]);
        assert_eq!(fp32("[1, 2.5, -3, 4e2]", &[2, 2]).unwrap(), numbers);
        assert_eq!(fp32(" [ [1,2.5] ,\n[ -3 , 4E2] ] ", &[2, 2]).unwrap(), numbers);
    }

    #[test]
    fn data_that_contradicts_its_shape_is_refused() {
        let cases = [
            ("[[1,2,3],[4]]", InvalidElements::Length { given: 3, expected: 2 }),
            ("[[1,2],[3,4],[5,6]]", InvalidElements::Length { given: 3, expected: 2 }),
            ("[1,[2]]", InvalidElements::Length { given: 1, expected: 2 }),
            ("[1,[2,3]]", InvalidElements::Mixed),
            ("[[[1]]]", InvalidElements::Depth),
            ("7", InvalidElements::NotAnArray),
        ];
        for (json, error) in cases {
            assert_eq!(fp32(json, &[2, 2]).unwrap_err(), error, "{json}");
        }
    }

    #[test]
    fn a_value_of_another_type_is_refused_and_quoted() {
        let cases = [
            (Datatype::Fp32, "null"),
            (Datatype::Fp32, "\"1\""),
            (Datatype::Fp32, "true"),
            (Datatype::Fp32, "{}"),
            (Datatype::Fp32, "1e39"),
            (Datatype::Fp64, "1e309"),
            (Datatype::Uint8, "256"),
            (Datatype::Uint8, "-1"),
            (Datatype::Int64, "1.0"),
            (Datatype::Int64, "9223372036854775808"),
            (Datatype::Bool, "2"),
            (Datatype::Bytes, "1"),
        ];
        for (datatype, token) in cases {
            let error = parse(&format!("[{token}]"), datatype, &[1]).unwrap_err();
            assert_eq!(error, InvalidElements::Element { token: token.to_owned(), datatype });
        }
    }

    #[test]
    fn a_hundred_thousand_brackets_are_refused_without_a_crash() {
        let json = "[".repeat(100_000) + &"]".repeat(100_000);
        let shape = vec![1; 100_000];
        assert_eq!(fp32(&json, &shape).unwrap_err(), InvalidElements::Depth);
    }

    fn tensor() -> impl Strategy<Value = Tensor> {
        let length = 0_usize..20;
        let datatype = prop::sample::select(vec![
            Datatype::Bool,
            Datatype::Uint8,
            Datatype::Uint16,
            Datatype::Uint32,
            Datatype::Uint64,
            Datatype::Int8,
            Datatype::Int16,
            Datatype::Int32,
            Datatype::Int64,
            Datatype::Fp32,
            Datatype::Fp64,
        ]);
        let fixed = (datatype, length.clone()).prop_flat_map(|(datatype, length)| {
            let count = length * datatype.element_bytes().unwrap();
            let byte = if datatype == Datatype::Bool { 0..2 } else { 0..256_u16 };
            prop::collection::vec(byte, count).prop_map(move |bytes| {
                let bytes = bytes.into_iter().map(|byte| u8::try_from(byte).unwrap()).collect();
                Tensor::new("x".to_owned(), datatype, vec![length as u64], bytes).unwrap()
            })
        });
        let text = prop::collection::vec(any::<String>(), length).prop_map(|texts| {
            let pack = |text: &String| {
                let length = u32::try_from(text.len()).unwrap();
                [&length.to_le_bytes(), text.as_bytes()].concat()
            };
            let bytes = texts.iter().flat_map(pack).collect();
            let shape = vec![texts.len() as u64];
            Tensor::new("x".to_owned(), Datatype::Bytes, shape, bytes).unwrap()
        });
        let is_finite = |tensor: &Tensor| {
            tensor.numbers().is_none_or(|numbers| numbers.iter().all(|number| number.is_finite()))
        };
        prop_oneof![fixed, text].prop_filter("JSON has finite numbers only", is_finite)
    }

    proptest! {
        #[test]
        fn every_bit_survives_json(tensor in tensor()) {
            let json = serde_json::to_string(&Elements(&tensor)).unwrap();
            let bytes = parse(&json, tensor.datatype, &tensor.shape).unwrap();
            prop_assert_eq!(bytes, tensor.bytes);
        }

        #[test]
        fn any_json_is_elements_or_an_error(json in "[\\[\\]{}\",:0-9a-z. -]{0,40}") {
            if serde_json::from_str::<serde::de::IgnoredAny>(&json).is_ok() {
                let _ = fp32(&json, &[1, 1]).is_ok();
            }
        }
    }
}
