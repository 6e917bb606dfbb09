//! The `data` of a tensor in JSON: numbers, booleans or text, flat or nested by the shape, to and from little-endian bytes.
//!
//! Numbers are read straight into the tensor's type, so that no element is rounded twice and no tree of values is built.

mod write;

use sealift_protocol::tensor::{Datatype, half};

pub(super) use write::{Elements, Values};

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
    #[error("data is not an array")]
    NotAnArray,
}

/// What `null` is where a number of floating point should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Null {
    /// An error: the Open Inference Protocol has numbers only.
    Refused,
    /// A missing value, as tables have it: NaN.
    Missing,
}

/// Reads `json`, which is valid JSON already, as the elements of a tensor; the caller compares their number with the shape.
pub(super) fn parse(
    json: &str,
    datatype: Datatype,
    shape: &[u64],
    null: Null,
) -> Result<Vec<u8>, InvalidElements> {
    // A number takes at least two characters with its comma; the guess is bounded by what came.
    let guess = json.len() / 2 * datatype.element_bytes().unwrap_or(1);
    let bytes = Vec::with_capacity(guess.min(json.len() * 2));
    let mut scanner = Scanner { rest: json.trim_ascii_start(), datatype, shape, null, bytes };
    if !scanner.rest.starts_with('[') {
        return Err(InvalidElements::NotAnArray);
    }
    scanner.array(0)?;
    Ok(scanner.bytes)
}

impl InvalidElements {
    /// A value that is none of its type, quoted.
    pub(super) fn element(token: &str, datatype: Datatype) -> Self {
        Self::Element { token: token.chars().take(QUOTED_CHARS_MAX).collect(), datatype }
    }
}

struct Scanner<'a> {
    rest: &'a str,
    datatype: Datatype,
    shape: &'a [u64],
    null: Null,
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
        let refused = || InvalidElements::element(token, datatype);
        let pushed = match (self.null, token) {
            (Null::Missing, "null") => push_missing(&mut self.bytes, datatype),
            _ => push(&mut self.bytes, datatype, token), // a value, or an error
        };
        pushed.ok_or_else(refused)?;
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

/// The lengths of `json`'s arrays, as its first elements have them; none for what is no array.
pub(super) fn shape_of(json: &str) -> Vec<u64> {
    let mut rest = json.trim_ascii_start();
    let mut shape = Vec::new();
    // An array that has ended cannot be the first of its level again.
    let (mut level, mut ended) = (0, usize::MAX);
    while let Some(first) = rest.bytes().next() {
        let mut length = 1;
        match first {
            b'[' => {
                count(&mut shape, level, ended);
                level += 1;
                if shape.len() < level && level <= ended && level <= LEVELS_MAX {
                    shape.push(0);
                }
            }
            b']' => {
                ended = ended.min(level);
                level = level.saturating_sub(1);
            }
            b',' | b':' | b'{' | b'}' => (),
            b'"' => {
                count(&mut shape, level, ended);
                length = string_end(rest).unwrap_or(rest.len());
            }
            _ => {
                count(&mut shape, level, ended);
                let end = rest.find(|c: char| matches!(c, ',' | ']') || c.is_ascii_whitespace());
                length = end.unwrap_or(rest.len());
            }
        }
        rest = rest.get(length..).unwrap_or_default().trim_ascii_start();
    }
    shape
}

fn count(shape: &mut [u64], level: usize, ended: usize) {
    let counted = level.checked_sub(1).filter(|_| level < ended);
    if let Some(length) = counted.and_then(|place| shape.get_mut(place)) {
        *length += 1;
    }
}

/// The items of `json`, which is an array and valid, one by one as they stand there; nothing for what is no array.
pub(super) struct Items<'a> {
    rest: &'a str,
}

impl<'a> Items<'a> {
    pub(super) fn of(json: &'a str) -> Self {
        let rest = json.trim_ascii_start().strip_prefix('[').unwrap_or_default();
        Self { rest: rest.trim_ascii_start() }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() || self.rest.starts_with(']') {
            return None;
        }
        let end = item_end(self.rest);
        let (item, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest.strip_prefix(',').unwrap_or(rest).trim_ascii_start();
        Some(item.trim_ascii_end())
    }
}

/// Where the item at the front ends: at the comma or bracket that is not its own.
fn item_end(text: &str) -> usize {
    let (mut place, mut level) = (0, 0_usize);
    while let Some(rest) = text.get(place..) {
        match rest.bytes().next() {
            Some(b'"') => place += string_end(rest).unwrap_or(rest.len()) - 1,
            Some(b'[' | b'{') => level += 1,
            Some(b']' | b'}') if level > 0 => level -= 1,
            Some(b',') if level > 0 => (),
            None | Some(b']' | b'}' | b',') => break,
            Some(_) => (), // part of the item
        }
        place += 1;
        // Texts, where other characters may be, are passed as a whole.
        debug_assert!(text.is_char_boundary(place), "JSON is ASCII outside of its texts");
    }
    place
}

/// Appends NaN; none for types that have none.
pub(super) fn push_missing(bytes: &mut Vec<u8>, datatype: Datatype) -> Option<()> {
    match datatype {
        Datatype::Fp16 => bytes.extend_from_slice(&half::from_f64(f64::NAN).to_le_bytes()),
        Datatype::Bf16 => bytes.extend_from_slice(&half::bf16_from_f32(f32::NAN).to_le_bytes()),
        Datatype::Fp32 => bytes.extend_from_slice(&f32::NAN.to_le_bytes()),
        Datatype::Fp64 => bytes.extend_from_slice(&f64::NAN.to_le_bytes()),
        Datatype::Bool
        | Datatype::Uint8
        | Datatype::Uint16
        | Datatype::Uint32
        | Datatype::Uint64
        | Datatype::Int8
        | Datatype::Int16
        | Datatype::Int32
        | Datatype::Int64
        | Datatype::Bytes => return None,
    }
    Some(())
}

/// Appends an element; none if the token is not one of this type.
pub(super) fn push(bytes: &mut Vec<u8>, datatype: Datatype, token: &str) -> Option<()> {
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
        Datatype::Fp16 => {
            let bits = half::from_f64(token.parse().ok()?);
            bytes.extend_from_slice(&finite(bits, half::to_f32(bits))?.to_le_bytes());
        }
        Datatype::Bf16 => {
            let bits = half::bf16_from_f32(token.parse().ok()?);
            bytes.extend_from_slice(&finite(bits, half::from_bf16(bits))?.to_le_bytes());
        }
        Datatype::Bytes => {
            let text: std::borrow::Cow<'_, str> = serde_json::from_str(token).ok()?;
            bytes.extend_from_slice(&u32::try_from(text.len()).ok()?.to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    Some(())
}

/// The bits, if the number that they are is finite.
fn finite(bits: u16, number: f32) -> Option<u16> {
    number.is_finite().then_some(bits)
}

#[cfg(test)]
mod tests;
