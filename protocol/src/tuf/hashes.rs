//! Digests of a file as metadata list them, by algorithm.

use serde::{Deserialize, Deserializer, Serialize, de};
use sha2::{Digest as _, Sha512};

use crate::digest::{Digest, decode_hex, encode_hex};

/// What a file must hash to. Algorithms other than these two may stand beside them and are not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hashes {
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_hex")]
    sha256: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha512: Option<String>,
}

impl Hashes {
    /// The hashes of `bytes` as Sealift writes them: SHA-256 alone.
    pub fn of(bytes: &[u8]) -> Self {
        Self { sha256: Some(Digest::of(bytes)), sha512: None }
    }

    /// The SHA-256, if it is listed.
    pub const fn sha256(&self) -> Option<Digest> {
        self.sha256
    }

    /// Whether `bytes` have every hash that is listed of a known algorithm, and there is at least one: a file that is listed only
    /// under unknown algorithms cannot be checked, and is refused like one that differs.
    pub(crate) fn match_bytes(&self, bytes: &[u8]) -> bool {
        let sha256 = self.sha256.map(|expected| expected == Digest::of(bytes));
        let sha512 = self.sha512.as_ref().map(|expected| *expected == sha512_hex(bytes));
        match (sha256, sha512) {
            (None, None) => false,
            (sha256, sha512) => sha256.unwrap_or(true) && sha512.unwrap_or(true),
        }
    }

    /// The hash that stands before a target's name in a consistent snapshot; none if no algorithm is known.
    pub(crate) fn prefix(&self) -> Option<String> {
        self.sha256.map(|digest| digest.hex()).or_else(|| self.sha512.clone())
    }
}

fn sha512_hex(bytes: &[u8]) -> String {
    encode_hex(&Sha512::digest(bytes))
}

#[expect(clippy::ref_option, reason = "the signature that serde calls")]
fn as_hex<S: serde::Serializer>(digest: &Option<Digest>, to: S) -> Result<S::Ok, S::Error> {
    digest.map(|digest| digest.hex()).serialize(to)
}

#[derive(Deserialize)]
struct RawHashes {
    #[serde(default)]
    sha256: Option<String>,
    #[serde(default)]
    sha512: Option<String>,
}

impl<'de> Deserialize<'de> for Hashes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let RawHashes { sha256, sha512 } = RawHashes::deserialize(from)?;
        let sha256 = sha256.map(|hex| Digest::from_hex(&hex).map_err(de::Error::custom));
        let is_sha512 =
            |hex: &String| decode_hex(hex).is_some_and(|bytes| bytes.len() == SHA512_BYTES);
        if !sha512.iter().all(is_sha512) {
            return Err(de::Error::custom("sha512 is not 128 lower-case hex digits"));
        }
        Ok(Self { sha256: sha256.transpose()?, sha512 })
    }
}

const SHA512_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(json: &serde_json::Value) -> Hashes {
        serde_json::from_value(json.clone()).unwrap()
    }

    #[test]
    fn every_known_hash_must_match() {
        let (short, long) = (Digest::of(b"a").hex(), sha512_hex(b"a"));
        let (other_short, other_long) = (Digest::of(b"b").hex(), sha512_hex(b"b"));
        for (json, is_match) in [
            (serde_json::json!({"sha256": short}), true),
            (serde_json::json!({"sha512": long}), true),
            (serde_json::json!({"sha256": short, "sha512": long, "blake3": "x"}), true),
            (serde_json::json!({"sha256": short, "sha512": other_long}), false),
            (serde_json::json!({"sha256": other_short, "sha512": long}), false),
        ] {
            assert_eq!(hashes(&json).match_bytes(b"a"), is_match, "{json}");
        }
    }

    #[test]
    fn a_file_under_unknown_algorithms_alone_matches_nothing() {
        for json in [serde_json::json!({}), serde_json::json!({"md5": "00"})] {
            assert!(!hashes(&json).match_bytes(b""), "{json}");
            assert_eq!(hashes(&json).prefix(), None);
        }
    }

    #[test]
    fn a_hash_of_another_length_or_spelling_is_refused() {
        for (algorithm, hex) in [
            ("sha256", "00".repeat(31)),
            ("sha256", "AA".repeat(32)),
            ("sha512", "00".repeat(32)),
            ("sha512", "AA".repeat(64)),
        ] {
            let json = serde_json::json!({ algorithm: hex });
            assert!(serde_json::from_value::<Hashes>(json).is_err(), "{algorithm} {hex}");
        }
    }

    #[test]
    fn hashes_survive_json() {
        let json = serde_json::json!({"sha256": Digest::of(b"").hex(), "sha512": sha512_hex(b"")});
        assert_eq!(serde_json::to_value(hashes(&json)).unwrap(), json);
        let own = serde_json::to_value(Hashes::of(b"")).unwrap();
        assert_eq!(own, serde_json::json!({"sha256": Digest::of(b"").hex()}));
    }
}
