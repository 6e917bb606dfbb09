//! Metadata as it came, and metadata whose signatures were checked.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::Deserialize;
use serde::de::Error as _;
use serde_json::{Value, json};

use super::error::{Role, TufError};
use super::json;
use super::key::{Authority, Key, KeyId, SigningKey};
use super::metadata::{Metadata, Root};
use crate::digest::{decode_hex, encode_hex};
use crate::id::UnixMillis;

/// Metadata from outside. Its content cannot be read until its signatures have been checked.
#[derive(Debug, Clone)]
pub struct Signed<T> {
    role: Role,
    bytes: Vec<u8>,
    /// The `signed` part as it came, unknown fields included.
    body: Value,
    /// Its canonical form: what was signed.
    message: Vec<u8>,
    signatures: BTreeMap<KeyId, Vec<u8>>,
    kind: PhantomData<T>,
}

/// Metadata that enough trusted keys signed, with the exact bytes that came. Only verification makes one.
#[derive(Debug, Clone)]
pub struct Verified<T> {
    bytes: Vec<u8>,
    content: T,
}

#[derive(Deserialize)]
struct Envelope {
    signed: Value,
    signatures: Vec<SignatureEntry>,
}

#[derive(Deserialize)]
struct SignatureEntry {
    keyid: KeyId,
    sig: String,
}

impl<T: Metadata> Signed<T> {
    /// Reads the envelope of `role`'s metadata: size before JSON, JSON without two readings, no key id twice.
    pub fn parse(role: Role, bytes: Vec<u8>) -> Result<Self, TufError> {
        let max_bytes = role.bytes_max();
        if bytes.len() > max_bytes {
            return Err(TufError::TooLarge {
                file: role.file(),
                given_bytes: bytes.len(),
                max_bytes,
            });
        }
        let (body, signatures) = match read_envelope(&bytes) {
            Ok(parts) => parts,
            Err(source) => return Err(TufError::Malformed { role, source }),
        };
        // TUF 4.1: signatures are over the canonical form of what came, unknown fields included.
        let message = json::canonical(&body);
        Ok(Self { role, bytes, body, message, signatures, kind: PhantomData })
    }

    /// Accepts the metadata if a threshold of the distinct keys in `authority` signed it; only then is its content decoded.
    pub fn verify(self, authority: Authority<'_>) -> Result<Verified<T>, TufError> {
        self.check(authority)?;
        let content = self.decode()?;
        Ok(Verified { bytes: self.bytes, content })
    }

    /// The ids under which it is signed, by whomever.
    pub fn signers(&self) -> impl Iterator<Item = &KeyId> {
        self.signatures.keys()
    }

    /// How many distinct keys of `authority` have signed it.
    pub fn count(&self, authority: Authority<'_>) -> usize {
        authority.count(&self.message, &self.signatures)
    }

    /// What it says, before enough holders have signed it: for a holder to look at, and never to be trusted.
    pub fn unverified(&self) -> Result<T, TufError> {
        self.decode()
    }

    fn check(&self, authority: Authority<'_>) -> Result<(), TufError> {
        let valid = authority.count(&self.message, &self.signatures);
        let threshold = authority.role.threshold.get();
        if u64::try_from(valid).is_ok_and(|valid| valid >= u64::from(threshold)) {
            Ok(())
        } else {
            Err(TufError::Threshold { role: self.role.clone(), valid, threshold })
        }
    }

    fn decode(&self) -> Result<T, TufError> {
        let content = check_header::<T>(&self.body).and_then(|()| T::deserialize(&self.body));
        content.map_err(|source| TufError::Malformed { role: self.role.clone(), source })
    }
}

impl Signed<Root> {
    /// Accepts a root that reached us by a trusted way, as the anchor; a threshold of its own keys must have signed it.
    pub fn anchor(self) -> Result<Verified<Root>, TufError> {
        let content = self.decode()?;
        self.check(content.authority(&content.roles.root))?;
        Ok(Verified { bytes: self.bytes, content })
    }

    /// Accepts the root that follows `trusted`.
    pub fn succeed(self, trusted: &Root) -> Result<Verified<Root>, TufError> {
        // TUF 5.3.4: a threshold of the keys we trust must vouch for the new root …
        self.check(trusted.authority(&trusted.roles.root))?;
        // … and a threshold of its own keys, or the next rotation could not be verified.
        let next = self.anchor()?;
        // TUF 5.3.5: roots follow one another without a gap, so that no rotation can be left out.
        let expected = trusted.version.saturating_add(1);
        if next.version != expected {
            let offered = next.version;
            return Err(TufError::Version { role: Role::Root, expected, offered });
        }
        Ok(next)
    }
}

impl<T> Verified<T> {
    /// The bytes as they came.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The content, free of its signatures, to be edited and signed anew.
    pub fn into_content(self) -> T {
        self.content
    }
}

impl<T: Metadata> Verified<T> {
    /// Refuses metadata that is not valid at `now`: its expiry must lie after it.
    pub(crate) fn check_expiry(&self, role: &Role, now: UnixMillis) -> Result<(), TufError> {
        let expired_at = self.content.expires();
        if expired_at > now {
            Ok(())
        } else {
            Err(TufError::Expired { role: role.clone(), expired_at, now })
        }
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.content
    }
}

type EnvelopeParts = (Value, BTreeMap<KeyId, Vec<u8>>);

fn read_envelope(bytes: &[u8]) -> Result<EnvelopeParts, serde_json::Error> {
    let envelope = Envelope::deserialize(json::parse(bytes)?)?;
    let mut signatures = BTreeMap::new();
    for SignatureEntry { keyid, sig } in envelope.signatures {
        // A signature that is not hex is one that does not verify: an empty one stands for a signer still to come.
        let signature = decode_hex(&sig).unwrap_or_default();
        if signatures.insert(keyid, signature).is_some() {
            return Err(serde_json::Error::custom("a key id signs twice"));
        }
    }
    Ok((envelope.signed, signatures))
}

/// TUF 4.3: type and specification version stand in every file; another major version means another format.
fn check_header<T: Metadata>(signed: &Value) -> Result<(), serde_json::Error> {
    let text = |name| signed.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("_type") != T::TYPE {
        let message = format!("its type is {:?}, not {:?}", text("_type"), T::TYPE);
        return Err(serde_json::Error::custom(message));
    }
    let specification = text("spec_version");
    if specification.split('.').next() != Some("1") {
        let message = format!("specification version {specification:?} is not 1.x");
        return Err(serde_json::Error::custom(message));
    }
    if signed.get("version").and_then(Value::as_u64).is_none_or(|version| version == 0) {
        return Err(serde_json::Error::custom("its version is not a whole number from 1"));
    }
    Ok(())
}

/// The version of the specification that our own metadata follows.
const SPEC_VERSION: &str = "1.0.31";

/// Writes `role`'s metadata and signs it with `keys`.
pub fn sign<T: Metadata>(
    role: &Role,
    content: &T,
    keys: &[&SigningKey],
) -> Result<Vec<u8>, TufError> {
    let signed = serde_json::to_value(content).and_then(|mut signed| {
        if let Some(members) = signed.as_object_mut() {
            members.insert("_type".into(), T::TYPE.into());
            members.insert("spec_version".into(), SPEC_VERSION.into());
        }
        sign_value(&signed, keys)
    });
    signed.map_err(|source| TufError::Malformed { role: role.clone(), source })
}

/// Signs any `signed` part, well-formed or not.
pub(crate) fn sign_value(
    signed: &Value,
    keys: &[&SigningKey],
) -> Result<Vec<u8>, serde_json::Error> {
    let message = json::canonical(signed);
    let signatures: Vec<_> = keys.iter().map(|key| signature(key, &message)).collect();
    serde_json::to_vec(&json!({"signatures": signatures, "signed": signed}))
}

/// Adds one more holder's signature to `role`'s metadata, leaving what is signed as it came.
pub fn add_signature(role: &Role, bytes: &[u8], key: &SigningKey) -> Result<Vec<u8>, TufError> {
    let signature = key.sign(&message(role, bytes)?);
    attach(role, bytes, &key.public(), &signature)
}

/// What a holder signs of `role`'s metadata: TUF 4.1, the canonical form of the `signed` part. For keys that never leave their token.
pub fn message(role: &Role, bytes: &[u8]) -> Result<Vec<u8>, TufError> {
    let envelope = json::parse(bytes).and_then(|envelope| {
        let signed = envelope.get("signed");
        signed.map(json::canonical).ok_or_else(|| serde_json::Error::custom("nothing to sign"))
    });
    envelope.map_err(|source| TufError::Malformed { role: role.clone(), source })
}

/// Adds a signature that was made elsewhere over [`message`]; one that does not verify is refused.
pub fn attach(role: &Role, bytes: &[u8], key: &Key, signature: &[u8]) -> Result<Vec<u8>, TufError> {
    if !key.verifies(&message(role, bytes)?, signature) {
        return Err(TufError::Threshold { role: role.clone(), valid: 0, threshold: 1 });
    }
    let entry = json!({"keyid": key.id(), "sig": encode_hex(signature)});
    with_signature(bytes, entry)
        .map_err(|source| TufError::Malformed { role: role.clone(), source })
}

fn with_signature(bytes: &[u8], entry: Value) -> Result<Vec<u8>, serde_json::Error> {
    let mut envelope = json::parse(bytes)?;
    let Some(signatures) = envelope.get_mut("signatures").and_then(Value::as_array_mut) else {
        return Err(serde_json::Error::custom("no list of signatures"));
    };
    signatures.retain(|present| present.get("keyid") != entry.get("keyid"));
    signatures.push(entry);
    serde_json::to_vec(&envelope)
}

fn signature(key: &SigningKey, message: &[u8]) -> Value {
    json!({"keyid": key.id(), "sig": encode_hex(&key.sign(message))})
}
