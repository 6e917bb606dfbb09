//! Keys of roles: public ones that verify, private ones that sign.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;

use p256::ecdsa::signature::Verifier as _;
use p256::pkcs8::{DecodePublicKey as _, EncodePublicKey as _, LineEnding};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Value, json};

use super::json;
use crate::digest::{Digest, decode_hex, encode_hex};

#[cfg(feature = "key-files")]
mod file;
mod signing;

#[cfg(feature = "key-files")]
pub use file::{Salt, is_encrypted};
pub use signing::SigningKey;

/// How metadata refers to a key. Our own are the SHA-256 of the key's canonical JSON; foreign ones may be any text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl KeyId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key object as metadata holds it. One of an unknown or weak kind is kept, because others may use it, but it verifies nothing.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Key {
    object: Value,
    #[serde(skip)]
    public: Option<PublicKey>,
}

/// How a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// Ed25519.
    Ed25519,
    /// ECDSA on P-256 with SHA-256.
    P256,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ed25519 => "ed25519",
            Self::P256 => "p256",
        })
    }
}

#[derive(Debug, Clone)]
enum PublicKey {
    Ed25519(ed25519_dalek::VerifyingKey),
    P256(Box<p256::ecdsa::VerifyingKey>),
}

impl Key {
    /// The key object of an Ed25519 public key.
    pub fn ed25519(public: &ed25519_dalek::VerifyingKey) -> Self {
        let hex = encode_hex(public.as_bytes());
        Self::of(json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": hex}}))
    }

    /// The key object of a public key on P-256.
    pub fn p256(public: &p256::ecdsa::VerifyingKey) -> Self {
        // A point that was a key always has a PEM; without one the object verifies nothing.
        let pem = public.to_public_key_pem(LineEnding::LF).unwrap_or_default();
        let value = json!({ "public": pem });
        Self::of(json!({"keytype": "ecdsa", "scheme": "ecdsa-sha2-nistp256", "keyval": value}))
    }

    /// The key object of an uncompressed point on P-256, as tokens give it.
    pub fn p256_point(point: &[u8]) -> Option<Self> {
        p256::ecdsa::VerifyingKey::from_sec1_bytes(point).ok().map(|key| Self::p256(&key))
    }

    /// The key object of the 32 bytes of an Ed25519 public key, as tokens give it.
    pub fn ed25519_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 32] = bytes.try_into().ok()?;
        ed25519_dalek::VerifyingKey::from_bytes(&bytes).ok().map(|key| Self::ed25519(&key))
    }

    /// The 32 bytes of an Ed25519 public key; none of another kind.
    pub fn ed25519_public(&self) -> Option<[u8; 32]> {
        match self.public.as_ref()? {
            PublicKey::Ed25519(key) => Some(key.to_bytes()),
            PublicKey::P256(_) => None,
        }
    }

    /// How it verifies; none where it does not.
    pub fn algorithm(&self) -> Option<Algorithm> {
        self.public.as_ref().map(|public| match public {
            PublicKey::Ed25519(_) => Algorithm::Ed25519,
            PublicKey::P256(_) => Algorithm::P256,
        })
    }

    /// Reads the key object of another party's public key, such as a publisher's; it must be of a kind that verifies.
    pub fn from_json(bytes: &[u8]) -> Result<Self, InvalidKey> {
        if bytes.len() > KEY_BYTES_MAX {
            return Err(InvalidKey::TooLarge);
        }
        let key = Self::of(json::parse(bytes).map_err(InvalidKey::Json)?);
        if key.public.is_some() { Ok(key) } else { Err(InvalidKey::Kind) }
    }

    /// The key object as JSON, to be handed to whoever holds the delegating role.
    pub fn to_json(&self) -> Vec<u8> {
        // Not the canonical form: that writes the lines of a PEM as they are, which no JSON has.
        self.object.to_string().into_bytes()
    }

    /// Section 4.2: the SHA-256 of the canonical form of type, scheme and public value.
    pub fn id(&self) -> KeyId {
        let field = |name: &str| self.object.get(name).cloned().unwrap_or_default();
        let [kind, scheme, value] = ["keytype", "scheme", "keyval"].map(field);
        let identity = json!({"keytype": kind, "scheme": scheme, "keyval": value});
        KeyId(Digest::of(&json::canonical(&identity)).hex())
    }

    fn of(object: Value) -> Self {
        let public = PublicKey::read(&object);
        Self { object, public }
    }

    /// Whether this key made `signature` over `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.public.as_ref().is_some_and(|public| public.verifies(message, signature))
    }
}

/// A key object holds a PEM of 200 bytes at most.
const KEY_BYTES_MAX: usize = 8 << 10;

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Value::deserialize(deserializer)?;
        if object.is_object() {
            Ok(Self::of(object))
        } else {
            Err(de::Error::custom("a key is an object"))
        }
    }
}

impl PublicKey {
    fn read(object: &Value) -> Option<Self> {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
        let public = text("/keyval/public")?;
        match (text("/keytype")?, text("/scheme")?) {
            ("ed25519", "ed25519") => Self::read_ed25519(public),
            // `ecdsa-sha2-nistp256` is how key types were written before specification 1.0.30.
            ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => {
                let key = p256::ecdsa::VerifyingKey::from_public_key_pem(public).ok()?;
                Some(Self::P256(Box::new(key)))
            }
            _ => None, // other kinds are allowed in metadata; here they verify nothing
        }
    }

    fn read_ed25519(hex: &str) -> Option<Self> {
        let bytes: [u8; 32] = decode_hex(hex)?.try_into().ok()?;
        let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes).ok()?;
        // A key of small order verifies forged signatures; a point in a second spelling would count as a second key.
        let is_sound = !key.is_weak() && key.to_edwards().compress().to_bytes() == bytes;
        is_sound.then_some(Self::Ed25519(key))
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
            Self::P256(key) => p256::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        }
    }

    /// The same bytes for the same key, whatever it is called.
    fn identity(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => key.to_bytes().to_vec(),
            Self::P256(key) => key.to_sec1_point(true).as_bytes().to_vec(),
        }
    }
}

/// Which keys sign for a role, and how many of them must.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleKeys {
    /// Ids of the keys.
    #[serde(deserialize_with = "distinct")]
    pub keyids: BTreeSet<KeyId>,
    /// How many distinct keys must sign.
    pub threshold: NonZeroU32,
}

fn distinct<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<KeyId>, D::Error> {
    let list = Vec::<KeyId>::deserialize(deserializer)?;
    let count = list.len();
    let set: BTreeSet<_> = list.into_iter().collect();
    if set.len() == count { Ok(set) } else { Err(de::Error::custom("a role names a key twice")) }
}

impl RoleKeys {
    /// A role of these keys, `threshold` of which must sign.
    pub fn of(keys: &[Key], threshold: NonZeroU32) -> Self {
        Self { keyids: keys.iter().map(Key::id).collect(), threshold }
    }
}

/// Key objects by id, as metadata holds them.
pub(crate) fn by_id(keys: impl IntoIterator<Item = Key>) -> BTreeMap<KeyId, Key> {
    keys.into_iter().map(|key| (key.id(), key)).collect()
}

/// Who may sign for a role: its keys, and the objects behind their ids.
#[derive(Debug, Clone, Copy)]
pub struct Authority<'a> {
    /// Key objects by id.
    pub keys: &'a BTreeMap<KeyId, Key>,
    /// The role's keys and threshold.
    pub role: &'a RoleKeys,
}

impl Authority<'_> {
    /// Counts the distinct public keys of this role that signed `message`.
    ///
    /// Section 4.2.1: one key counts once for a threshold, however often it signs and under however many ids it is listed.
    pub(crate) fn count(&self, message: &[u8], signatures: &BTreeMap<KeyId, Vec<u8>>) -> usize {
        let signers = self.role.keyids.iter().filter_map(|id| {
            let (key, signature) = (self.keys.get(id)?, signatures.get(id)?);
            key.verifies(message, signature)
                .then(|| key.public.as_ref().map(PublicKey::identity))?
        });
        signers.collect::<BTreeSet<_>>().len()
    }

    /// Whether a public key of this role no longer stands in `next`, whatever it is called there.
    pub(crate) fn loses_a_key_in(&self, next: Authority<'_>) -> bool {
        let identities = |authority: &Authority<'_>| -> BTreeSet<Vec<u8>> {
            let keys = authority.role.keyids.iter().filter_map(|id| authority.keys.get(id));
            keys.filter_map(|key| key.public.as_ref().map(PublicKey::identity)).collect()
        };
        !identities(self).is_subset(&identities(&next))
    }
}

/// An ECDSA signature on P-256 as TUF writes it, from the two numbers that tokens give.
pub fn ecdsa_der(raw: &[u8]) -> Option<Vec<u8>> {
    let signature = p256::ecdsa::Signature::from_slice(raw).ok()?;
    Some(signature.to_der().as_bytes().to_vec())
}

/// Why a key was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum InvalidKey {
    /// Far more bytes than a key has.
    #[error("key is larger than {KEY_BYTES_MAX} bytes")]
    TooLarge,
    /// Not JSON.
    #[error("key is not JSON")]
    Json(#[source] serde_json::Error),
    /// Not Ed25519 and not ECDSA on P-256, or weak.
    #[error("key is neither a sound Ed25519 key nor an ECDSA key on P-256")]
    Kind,
    /// Not PKCS#8 in PEM.
    #[error("key is not a private key on Ed25519 or P-256 in PKCS#8 PEM")]
    Pem(#[source] ed25519_dalek::pkcs8::Error),
    /// Under a passphrase, and none was given.
    #[error("key is under a passphrase")]
    Locked,
    /// Another passphrase, or a damaged file.
    #[error("the passphrase does not open the key")]
    Passphrase,
    /// Deriving the key would take more time or memory than a key file is worth.
    #[error("key is encrypted in a way that takes too much time or memory, or is not known")]
    Costly,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuf::testing::key;

    #[test]
    fn a_public_key_survives_json() {
        let p256 = SigningKey::generate(Algorithm::P256, &[2; 32]).unwrap();
        for public in [key("a").public(), p256.public()] {
            assert_eq!(Key::from_json(&public.to_json()).unwrap().id(), public.id());
        }
    }

    #[test]
    fn keys_that_would_verify_nothing_are_not_taken_from_publishers() {
        let ed25519 = |public: &str| {
            let value =
                json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": public}});
            Key::from_json(&serde_json::to_vec(&value).unwrap())
        };
        // Of order one, of order two, a second spelling of the point of order one, and no point at all.
        for weak in ["01", "ec", "ee", "02"] {
            let middle =
                if weak.starts_with('e') { "ff".repeat(30) + "7f" } else { "00".repeat(31) };
            assert!(matches!(ed25519(&format!("{weak}{middle}")), Err(InvalidKey::Kind)), "{weak}");
        }
        // Every other second spelling: heights of points, raised by the prime of the field.
        for (height, sign) in (0..19_u8).flat_map(|height| [(height, "7f"), (height, "ff")]) {
            let spelling = format!("{:02x}{}{sign}", 0xed + height, "ff".repeat(30));
            assert!(matches!(ed25519(&spelling), Err(InvalidKey::Kind)), "{spelling}");
        }
        assert!(matches!(ed25519("xy"), Err(InvalidKey::Kind)));
        assert!(matches!(Key::from_json(b"{}"), Err(InvalidKey::Kind)));
        assert!(matches!(Key::from_json(&[b' '; 9000]), Err(InvalidKey::TooLarge)));
    }
}
