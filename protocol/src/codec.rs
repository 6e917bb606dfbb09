//! CBOR, the one encoding of everything that is not JSON by somebody else's standard. Only this file knows the crate behind it.
//!
//! Structs are maps with text keys, so that a field can be added: a reader skips what it does not know and takes the default of
//! what is missing. The crate limits recursion to 128 levels and refuses bytes after the value.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes were not decoded, or a value not encoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The input is larger than its kind may be; it was not looked at.
    #[error("{given_bytes} bytes given, at most {max_bytes} allowed")]
    TooLarge {
        /// How much came.
        given_bytes: usize,
        /// How much may come.
        max_bytes: usize,
    },
    /// Not CBOR, or not the expected type.
    #[error("not a valid {kind}")]
    Decode {
        /// What was expected.
        kind: &'static str,
        /// What the decoder said.
        #[source]
        source: serde_cbor::Error,
    },
    /// A value that CBOR cannot hold.
    #[error("cannot encode")]
    Encode(#[source] serde_cbor::Error),
}

/// Encodes `value`.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    serde_cbor::to_vec(value).map_err(CodecError::Encode)
}

/// Decodes exactly one `kind` of at most `max_bytes`; bytes after it are an error.
pub fn decode<T: DeserializeOwned>(
    kind: &'static str,
    bytes: &[u8],
    max_bytes: usize,
) -> Result<T, CodecError> {
    if bytes.len() > max_bytes {
        return Err(CodecError::TooLarge { given_bytes: bytes.len(), max_bytes });
    }
    serde_cbor::from_slice(bytes).map_err(|source| CodecError::Decode { kind, source })
}

/// `#[serde(with = "codec::bytes")]`: a CBOR byte string, where serde alone would write an array of numbers.
pub mod bytes {
    use std::fmt;

    use serde::{Deserializer, Serializer, de};

    /// Writes a byte string.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    /// Reads a byte string.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_byte_buf(Visitor)
    }

    struct Visitor;

    impl de::Visitor<'_> for Visitor {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a byte string")
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7_u8).unwrap();
        bytes.push(0);
        assert!(decode::<u8>("number", &bytes, 16).is_err());
    }

    #[test]
    fn a_million_nested_arrays_are_refused_without_a_crash() {
        let bomb = vec![0x81; 1_000_000];
        assert!(decode::<serde_json::Value>("bomb", &bomb, 2_000_000).is_err());
    }

    #[test]
    fn a_declared_length_of_2_to_the_63_is_refused_without_memory() {
        let text = [0x7b, 0x80, 0, 0, 0, 0, 0, 0, 0, b'x'];
        assert!(decode::<String>("text", &text, 64).is_err());
    }

    #[test]
    fn oversize_is_refused_before_decoding() {
        let refused = decode::<u8>("number", &[0xff; 65], 64).unwrap_err();
        assert!(matches!(refused, CodecError::TooLarge { given_bytes: 65, max_bytes: 64 }));
    }
}
