//! Protocol Buffers on the wire ("Encoding", protobuf.dev): fields out of bytes, and into them. Messages here are few and small, and
//! their tensors raw bytes, so that generated code would be the larger part of the program.

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::serve) enum Malformed {
    #[error("message ends within a field")]
    CutOff,
    #[error("a number has more than 64 bits")]
    TooLong,
    #[error("wire type {0} is not known")]
    WireType(u8),
    #[error("field {0} has another wire type than it should")]
    Type(u32),
    #[error("text is not UTF-8")]
    Text,
}

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

/// The fields of a message, in the order in which they came.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

/// A field: its number, and its value.
pub(super) type Field<'a> = (u32, Value<'a>);

impl<'a> Fields<'a> {
    /// The next field; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Field<'a>>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = varint(&mut self.0)?;
        let number = u32::try_from(tag >> 3).map_err(|_| Malformed::TooLong)?;
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut self.0)?),
            1 => Value::Fixed64(chunk(&mut self.0)?),
            2 => Value::Bytes(block(&mut self.0)?),
            5 => Value::Fixed32(chunk(&mut self.0)?),
            // 3 and 4 are groups, which no message here has.
            other => return Err(Malformed::WireType(u8::try_from(other).unwrap_or(u8::MAX))),
        };
        Ok(Some((number, value)))
    }
}

impl<'a> Value<'a> {
    pub(super) fn bytes(self, number: u32) -> Result<&'a [u8], Malformed> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(Malformed::Type(number)) }
    }

    pub(super) fn text(self, number: u32) -> Result<String, Malformed> {
        let text = str::from_utf8(self.bytes(number)?).map_err(|_| Malformed::Text)?;
        Ok(text.to_owned())
    }

    pub(super) fn varint(self, number: u32) -> Result<u64, Malformed> {
        if let Self::Varint(value) = self { Ok(value) } else { Err(Malformed::Type(number)) }
    }

    /// Hands each number of a repeated field to `take`, packed or not.
    pub(super) fn varints(self, number: u32, mut take: impl FnMut(u64)) -> Result<(), Malformed> {
        let mut packed = match self {
            Self::Varint(value) => {
                take(value);
                return Ok(());
            }
            Self::Bytes(packed) => packed,
            Self::Fixed32(_) | Self::Fixed64(_) => return Err(Malformed::Type(number)),
        };
        while !packed.is_empty() {
            take(varint(&mut packed)?);
        }
        Ok(())
    }

    /// The bytes of a repeated field of 4-byte or 8-byte numbers, packed or not.
    pub(super) fn fixed<const N: usize>(&'a self, number: u32) -> Result<&'a [u8], Malformed> {
        let bytes = match self {
            Self::Fixed32(bytes) => bytes.as_slice(),
            Self::Fixed64(bytes) => bytes.as_slice(),
            Self::Bytes(packed) => packed,
            Self::Varint(_) => return Err(Malformed::Type(number)),
        };
        if bytes.len().is_multiple_of(N) { Ok(bytes) } else { Err(Malformed::CutOff) }
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for place in 0..10 {
        let [byte] = chunk(bytes)?;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if place == 9 && bits > 1 {
            return Err(Malformed::TooLong);
        }
        value |= bits << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed::TooLong)
}

fn chunk<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (chunk, rest) = bytes.split_first_chunk().ok_or(Malformed::CutOff)?;
    *bytes = rest;
    Ok(*chunk)
}

fn block<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = usize::try_from(varint(bytes)?).map_err(|_| Malformed::CutOff)?;
    let (block, rest) = bytes.split_at_checked(length).ok_or(Malformed::CutOff)?;
    *bytes = rest;
    Ok(block)
}

/// Appends a number without its field.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let bits = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            out.push(bits);
            return;
        }
        out.push(bits | 0x80);
    }
}

/// Appends a field that is a number; 0 is what is not there.
pub(super) fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_varint(out, u64::from(number) << 3);
        put_varint(out, value);
    }
}

/// Appends a field that is text, bytes or a message, also an empty one.
pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a field that is text; empty text is what is not there.
pub(super) fn put_text(out: &mut Vec<u8>, number: u32, text: &str) {
    if !text.is_empty() {
        put_bytes(out, number, text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_specification_are_read() {
        let mut fields = Fields(b"\x08\x96\x01\x12\x07testing\x32\x06\x03\x8e\x02\x9e\xa7\x05");
        assert_eq!(fields.next(), Ok(Some((1, Value::Varint(150)))));
        assert_eq!(fields.next(), Ok(Some((2, Value::Bytes(b"testing")))));
        let (number, packed) = fields.next().unwrap().unwrap();
        let mut numbers = Vec::new();
        packed.varints(number, |value| numbers.push(value)).unwrap();
        assert_eq!(numbers, [3, 270, 86_942]);
        assert_eq!(fields.next(), Ok(None));
    }

    #[test]
    fn numbers_of_more_than_64_bits_are_refused() {
        let mut minus_one = b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01".to_vec();
        assert_eq!(Fields(&minus_one).next(), Ok(Some((1, Value::Varint(u64::MAX)))));
        *minus_one.last_mut().unwrap() = 2;
        assert_eq!(Fields(&minus_one).next(), Err(Malformed::TooLong));
        assert_eq!(Fields(b"\x0b").next(), Err(Malformed::WireType(3)));
        assert_eq!(Fields(b"\x12\x05abc").next(), Err(Malformed::CutOff));
    }

    proptest! {
        #[test]
        fn fields_survive(number in 1_u32..1 << 29, value in any::<u64>(), bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut out = Vec::new();
            put_number(&mut out, number, value);
            put_bytes(&mut out, number, &bytes);
            let mut fields = Fields(&out);
            if value != 0 {
                prop_assert_eq!(fields.next(), Ok(Some((number, Value::Varint(value)))));
            }
            prop_assert_eq!(fields.next(), Ok(Some((number, Value::Bytes(&bytes)))));
            prop_assert_eq!(fields.next(), Ok(None));
        }

        #[test]
        fn any_bytes_are_fields_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut fields = Fields(&bytes);
            while let Ok(Some(_)) = fields.next() {}
        }
    }
}
