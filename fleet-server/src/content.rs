//! Digests of content in the registry: SHA-256, and SHA-512 for whoever prefers it (OCI image specification, "registered algorithms").
//!
//! What devices run is named by SHA-256 alone; there the type is [`Digest`].

use std::fmt;
use std::str::FromStr;

use sealift_protocol::digest::{Digest, Hasher, InvalidDigest, decode_hex, encode_hex};
use sha2::{Digest as _, Sha512};

/// What content is called by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ContentDigest {
    /// The usual one.
    Sha256(Digest),
    /// The longer one.
    Sha512([u8; 64]),
}

/// Why a text is not a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidContentDigest {
    /// Another algorithm, or none.
    #[error("digest does not start with `sha256:` or `sha512:`")]
    Algorithm,
    /// Digits that are not of that algorithm.
    #[error("digest is not as many lower-case hex digits as its algorithm has")]
    Hex,
}

impl ContentDigest {
    /// Parses `sha256:` and 64 lower-case hex digits, or `sha512:` and 128.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidContentDigest> {
        if let Some(hex) = text.strip_prefix("sha512:") {
            let bytes = decode_hex(hex).and_then(|bytes| bytes.try_into().ok());
            return bytes.map(Self::Sha512).ok_or(InvalidContentDigest::Hex);
        }
        Digest::parse(text).map(Self::Sha256).map_err(|error| match error {
            InvalidDigest::Algorithm => InvalidContentDigest::Algorithm,
            InvalidDigest::Hex => InvalidContentDigest::Hex,
        })
    }

    /// Its algorithm's name.
    pub(crate) const fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "sha256",
            Self::Sha512(_) => "sha512",
        }
    }

    /// Lower-case hex digits, without the algorithm.
    pub(crate) fn hex(&self) -> String {
        match self {
            Self::Sha256(digest) => digest.hex(),
            Self::Sha512(bytes) => encode_hex(bytes),
        }
    }

    /// The digest as devices know it, if it is one.
    pub(crate) const fn sha256(&self) -> Option<Digest> {
        match self {
            Self::Sha256(digest) => Some(*digest),
            Self::Sha512(_) => None,
        }
    }

    /// A hasher of the same algorithm.
    pub(crate) fn hasher(&self) -> ContentHasher {
        match self {
            Self::Sha256(_) => ContentHasher::Sha256(Hasher::default()),
            Self::Sha512(_) => ContentHasher::Sha512(Sha512::default()),
        }
    }

    /// Hashes `bytes` by the same algorithm.
    pub(crate) fn same_of(&self, bytes: &[u8]) -> Self {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish()
    }
}

impl From<Digest> for ContentDigest {
    fn from(digest: Digest) -> Self {
        Self::Sha256(digest)
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex())
    }
}

impl FromStr for ContentDigest {
    type Err = InvalidContentDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// A digest in the making, for streams.
#[derive(Debug, Clone)]
pub(crate) enum ContentHasher {
    /// The usual one.
    Sha256(Hasher),
    /// The longer one.
    Sha512(Sha512),
}

impl ContentHasher {
    /// Takes the next bytes of the stream.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of everything taken.
    pub(crate) fn finish(self) -> ContentDigest {
        match self {
            Self::Sha256(hasher) => ContentDigest::Sha256(hasher.finish()),
            Self::Sha512(hasher) => ContentDigest::Sha512(hasher.finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA512_OF_ABC: &str = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                                 2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

    #[test]
    fn both_algorithms_are_read_and_hashed_as_fips_180_does() {
        let digest = ContentDigest::parse(SHA512_OF_ABC).unwrap();
        assert_eq!(digest.to_string(), SHA512_OF_ABC);
        assert_eq!(digest.same_of(b"abc"), digest);
        let usual = ContentDigest::from(Digest::of(b"abc"));
        assert_eq!(usual.same_of(b"abc"), usual);
        assert_eq!(ContentDigest::parse(&usual.to_string()), Ok(usual));
    }

    #[test]
    fn other_algorithms_and_other_spellings_are_refused() {
        let md5 = "md5:d41d8cd98f00b204e9800998ecf8427e";
        assert_eq!(ContentDigest::parse(md5), Err(InvalidContentDigest::Algorithm));
        for text in ["sha256:00", "sha512:00", "sha256:", &SHA512_OF_ABC.to_uppercase()[..]] {
            assert!(ContentDigest::parse(text).is_err(), "{text}");
        }
        let upper = SHA512_OF_ABC.replace('d', "D");
        assert_eq!(ContentDigest::parse(&upper), Err(InvalidContentDigest::Hex));
    }
}
