//! SHA-256 digests, in the form the OCI image specification gives them: `sha256:` and 64 lower-case hex digits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

/// The SHA-256 of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDigest {
    /// Another algorithm, or none. Only `sha256:` is accepted, so that no weaker one can be asked for.
    #[error("digest does not start with `sha256:`")]
    Algorithm,
    /// Not 64 lower-case hex digits.
    #[error("digest is not 64 lower-case hex digits")]
    Hex,
}

impl Digest {
    /// Hashes `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Wraps 32 bytes that are already a SHA-256.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Parses `sha256:` and 64 lower-case hex digits.
    pub fn parse(text: &str) -> Result<Self, InvalidDigest> {
        let hex = text.strip_prefix("sha256:").ok_or(InvalidDigest::Algorithm)?;
        Self::from_hex(hex)
    }

    /// Parses 64 lower-case hex digits, as TUF writes hashes.
    pub fn from_hex(hex: &str) -> Result<Self, InvalidDigest> {
        let bytes = decode_hex(hex).ok_or(InvalidDigest::Hex)?;
        Ok(Self(bytes.try_into().map_err(|_| InvalidDigest::Hex)?))
    }

    /// 64 lower-case hex digits.
    pub fn hex(&self) -> String {
        encode_hex(&self.0)
    }

    /// The first 12 hex digits, for people.
    pub fn short(&self) -> String {
        encode_hex(self.0.first_chunk::<6>().map_or(&[], |head| head.as_slice()))
    }
}

/// A SHA-256 in the making, for streams.
#[derive(Debug, Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Takes the next bytes of the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything taken.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// Lower-case hex of `bytes`.
pub fn encode_hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    let mut text = String::with_capacity(bytes.len() * 2);
    text.extend(digits.filter_map(|digit| char::from_digit(digit.into(), 16)));
    text
}

/// The bytes of an even number of lower-case hex digits, or nothing.
pub fn decode_hex(hex: &str) -> Option<Vec<u8>> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None, // upper case is refused: one digest has one spelling
    };
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let byte = |&[high, low]: &[u8; 2]| Some(nibble(high)? << 4 | nibble(low)?);
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.short())
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// Text in JSON, a 32-byte string in CBOR.
impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            Self::parse(&text).map_err(de::Error::custom)
        } else {
            deserializer.deserialize_bytes(BytesVisitor)
        }
    }
}

struct BytesVisitor;

impl de::Visitor<'_> for BytesVisitor {
    type Value = Digest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a byte string of 32 bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Digest, E> {
        bytes.try_into().map(Digest).map_err(|_| E::invalid_length(bytes.len(), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_nothing_is_the_one_of_fips_180() {
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), text);
        assert_eq!(Digest::parse(text), Ok(Digest::of(b"")));
    }

    #[test]
    fn weaker_algorithms_and_second_spellings_are_refused() {
        let md5 = "md5:d41d8cd98f00b204e9800998ecf8427e";
        assert_eq!(Digest::parse(md5), Err(InvalidDigest::Algorithm));
        let upper = Digest::of(b"").hex().to_uppercase();
        assert_eq!(Digest::from_hex(&upper), Err(InvalidDigest::Hex));
        assert_eq!(Digest::from_hex("e3b0"), Err(InvalidDigest::Hex));
    }

    #[test]
    fn streamed_and_whole_hashing_agree() {
        let mut hasher = Hasher::default();
        hasher.update(b"sea");
        hasher.update(b"lift");
        assert_eq!(hasher.finish(), Digest::of(b"sealift"));
    }
}
