//! COSE_Sign1 (RFC 9052, section 4.2) with EdDSA over the exact bytes.
//!
//! Only what we make is accepted: tag 18, the algorithm and the key id in the protected header and nowhere else, an empty
//! unprotected header, an attached payload. Each purpose has its own `external_aad`, so that a signature made for one
//! kind of message is worthless for another.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_cbor::Value;
use serde_cbor::tags::Tagged;
use std::collections::BTreeMap;

use crate::codec::{self, CodecError};
use crate::digest::{Digest, encode_hex};

/// CBOR tag of COSE_Sign1 (RFC 9052, table 1).
const TAG_SIGN1: u64 = 18;
/// Header label `alg` (RFC 9052, table 3).
const LABEL_ALG: i128 = 1;
/// Header label `kid`.
const LABEL_KID: i128 = 4;
/// Algorithm EdDSA (RFC 9053, table 2).
const ALG_EDDSA: i128 = -8;

/// Names an Ed25519 key: the first 16 bytes of the SHA-256 of its 32 bytes, as 32 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl KeyId {
    /// The id of `key`.
    pub fn of(key: &VerifyingKey) -> Self {
        let digest = Digest::of(key.as_bytes());
        Self(encode_hex(digest.as_bytes().first_chunk::<16>().map_or(&[], |half| half.as_slice())))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a signature is for; goes into what is signed, not into the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// What a device should run.
    Directive,
    /// The list of halted generations.
    Halt,
    /// A question to a device.
    Request,
    /// An operator's word for a rollout.
    Approval,
    /// The list of what devices keep for people to look at.
    Capture,
}

impl Purpose {
    const fn external_aad(self) -> &'static str {
        match self {
            Self::Directive => "sealift-directive-v1",
            Self::Halt => "sealift-halt-v1",
            Self::Request => "sealift-request-v1",
            Self::Approval => "sealift-approval-v1",
            Self::Capture => "sealift-capture-v1",
        }
    }
}

/// Why a message was refused; the code is stable.
#[derive(Debug, thiserror::Error)]
pub enum CoseError {
    /// Larger than allowed, or not CBOR of the right shape.
    #[error("message is not COSE_Sign1")]
    Shape(#[source] CodecError),
    /// CBOR, but not the one form that is accepted.
    #[error("COSE_Sign1 has {0}")]
    Form(&'static str),
    /// Any algorithm but EdDSA, or none.
    #[error("signature algorithm is not EdDSA")]
    Algorithm,
    /// Signed by a key that is not trusted, or no longer.
    #[error("signing key {0} is not trusted")]
    UnknownKey(KeyId),
    /// The signature does not match.
    #[error("signature does not match key {key}")]
    Signature {
        /// The key the message names.
        key: KeyId,
        /// What the verifier said.
        #[source]
        source: ed25519_dalek::SignatureError,
    },
}

impl CoseError {
    /// The stable code of the refusal.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Shape(_) | Self::Form(_) => "cose.form",
            Self::Algorithm => "cose.algorithm",
            Self::UnknownKey(_) => "cose.key",
            Self::Signature { .. } => "cose.signature",
        }
    }
}

/// A payload whose signature was checked, and who signed it. Only [`verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedPayload {
    payload: Vec<u8>,
    signer: KeyId,
}

impl VerifiedPayload {
    /// The exact bytes that were signed.
    pub fn bytes(&self) -> &[u8] {
        &self.payload
    }

    /// The key that signed.
    pub const fn signer(&self) -> &KeyId {
        &self.signer
    }
}

type Sign1 = (Bytes, BTreeMap<Value, Value>, Bytes, Bytes);

/// A CBOR byte string.
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        codec::bytes::deserialize(deserializer).map(Self)
    }
}

/// Signs `payload` for `purpose`.
pub fn sign(payload: Vec<u8>, purpose: Purpose, key: &SigningKey) -> Result<Vec<u8>, CodecError> {
    let kid = KeyId::of(&key.verifying_key());
    let header = BTreeMap::from([
        (Value::Integer(LABEL_ALG), Value::Integer(ALG_EDDSA)),
        (Value::Integer(LABEL_KID), Value::Bytes(kid.0.into_bytes())),
    ]);
    let protected = codec::encode(&header)?;
    let signature = key.sign(&to_be_signed(&protected, purpose, &payload)?);
    let message: Sign1 =
        (Bytes(protected), BTreeMap::new(), Bytes(payload), Bytes(signature.to_bytes().to_vec()));
    codec::encode(&Tagged::new(Some(TAG_SIGN1), message))
}

/// Checks a message of at most `bytes_max` against the `trusted` keys. The payload is not looked at.
pub fn verify(
    message: &[u8],
    purpose: Purpose,
    trusted: &BTreeMap<KeyId, VerifyingKey>,
    bytes_max: usize,
) -> Result<VerifiedPayload, CoseError> {
    let tagged: Tagged<Sign1> =
        codec::decode("COSE_Sign1", message, bytes_max).map_err(CoseError::Shape)?;
    if tagged.tag != Some(TAG_SIGN1) {
        return Err(CoseError::Form("another tag than 18"));
    }
    let (Bytes(protected), unprotected, Bytes(payload), Bytes(signature)) = tagged.value;
    // RFC 9052, section 3: what is in the unprotected header is not signed. We put nothing there and believe nothing there.
    if !unprotected.is_empty() {
        return Err(CoseError::Form("an unprotected header"));
    }
    let kid = signer_of(&protected)?;
    let key = trusted.get(&kid).ok_or_else(|| CoseError::UnknownKey(kid.clone()))?;
    let signature = Signature::from_slice(&signature)
        .map_err(|source| CoseError::Signature { key: kid.clone(), source })?;
    // RFC 9052, section 4.4: the signature covers context, protected header as received, external data and payload.
    let signed = to_be_signed(&protected, purpose, &payload).map_err(CoseError::Shape)?;
    // Strict: refuses the malleable forms and the weak keys that RFC 8032 leaves open.
    key.verify_strict(&signed, &signature)
        .map_err(|source| CoseError::Signature { key: kid.clone(), source })?;
    Ok(VerifiedPayload { payload, signer: kid })
}

/// A kind of signed message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// What the signature is for.
    pub(crate) purpose: Purpose,
    /// What it is called.
    pub(crate) name: &'static str,
    /// Bytes that the longest of them has.
    pub(crate) bytes_max: usize,
}

/// Why a message was not opened.
#[derive(Debug)]
pub(crate) enum NotOpened {
    /// More bytes than any of its kind has.
    TooLarge(usize),
    /// The envelope, the key or the signature.
    Cose(CoseError),
    /// Signed, but not of its kind.
    Decode(CodecError),
}

impl NotOpened {
    /// The same for whoever has no word of their own for what is too large.
    pub(crate) fn without_size(self) -> Result<CoseError, CodecError> {
        match self {
            Self::TooLarge(_) => Ok(CoseError::Form("more bytes than any message of its kind")),
            Self::Cose(error) => Ok(error),
            Self::Decode(error) => Err(error),
        }
    }
}

/// Opens a signed message, in the order in which every one is opened: size, signature by a trusted key, form. What it says is the caller's
/// to check; it comes with the key that has signed it.
pub(crate) fn open<T: DeserializeOwned>(
    message: &[u8],
    trusted: &BTreeMap<KeyId, VerifyingKey>,
    kind: Kind,
) -> Result<(T, KeyId), NotOpened> {
    let Kind { purpose, name, bytes_max } = kind;
    // RFC 8949, section 10: a decoder of what others send bounds it first. Rule: what is longer than any of its kind is not looked into.
    if message.len() > bytes_max {
        return Err(NotOpened::TooLarge(message.len()));
    }
    // RFC 9052, section 4.4: the external data are part of what is signed. Rule: ours name the purpose, so that what was signed as one kind
    // cannot be taken for another, although one key signs several.
    let payload = verify(message, purpose, trusted, bytes_max).map_err(NotOpened::Cose)?;
    // RFC 9052, section 4.4: what was verified are bytes. Rule: only these are read, and after the signature.
    let opened = codec::decode(name, payload.bytes(), bytes_max).map_err(NotOpened::Decode)?;
    Ok((opened, payload.signer))
}

/// A protected header has at most an algorithm and a key id.
const HEADER_BYTES_MAX: usize = 128;

/// RFC 9053, section 2: the algorithm is fixed by us and must be in the protected header; there is nothing to negotiate.
fn signer_of(protected: &[u8]) -> Result<KeyId, CoseError> {
    let mut header: BTreeMap<Value, Value> =
        codec::decode("protected header", protected, HEADER_BYTES_MAX).map_err(CoseError::Shape)?;
    if header.remove(&Value::Integer(LABEL_ALG)) != Some(Value::Integer(ALG_EDDSA)) {
        return Err(CoseError::Algorithm);
    }
    let Some(Value::Bytes(kid)) = header.remove(&Value::Integer(LABEL_KID)) else {
        return Err(CoseError::Form("no key id in the protected header"));
    };
    if !header.is_empty() {
        return Err(CoseError::Form("an unknown protected header"));
    }
    String::from_utf8(kid).map(KeyId).map_err(|_| CoseError::Form("a key id that is not text"))
}

/// `Sig_structure` of RFC 9052, section 4.4.
fn to_be_signed(protected: &[u8], purpose: Purpose, payload: &[u8]) -> Result<Vec<u8>, CodecError> {
    let external_aad = purpose.external_aad().as_bytes();
    let bytes = |bytes: &[u8]| Bytes(bytes.to_vec());
    codec::encode(&("Signature1", bytes(protected), bytes(external_aad), bytes(payload)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 10;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn trusted(seed: u8) -> BTreeMap<KeyId, VerifyingKey> {
        let key = key(seed).verifying_key();
        BTreeMap::from([(KeyId::of(&key), key)])
    }

    /// A message with headers of the attacker's choice, correctly signed over them.
    fn forged(protected: &BTreeMap<Value, Value>, unprotected: BTreeMap<Value, Value>) -> Vec<u8> {
        let protected = codec::encode(protected).unwrap();
        let signed = to_be_signed(&protected, Purpose::Directive, b"payload").unwrap();
        let signature = key(1).sign(&signed).to_bytes().to_vec();
        let message: Sign1 =
            (Bytes(protected), unprotected, Bytes(b"payload".to_vec()), Bytes(signature));
        codec::encode(&Tagged::new(Some(TAG_SIGN1), message)).unwrap()
    }

    fn header(alg: Option<i128>) -> BTreeMap<Value, Value> {
        let kid = KeyId::of(&key(1).verifying_key()).0.into_bytes();
        let kid = (Value::Integer(LABEL_KID), Value::Bytes(kid));
        let alg = alg.map(|alg| (Value::Integer(LABEL_ALG), Value::Integer(alg)));
        alg.into_iter().chain([kid]).collect()
    }

    #[test]
    fn what_was_signed_comes_back() {
        let message = sign(b"payload".to_vec(), Purpose::Directive, &key(1)).unwrap();
        let verified = verify(&message, Purpose::Directive, &trusted(1), MAX).unwrap();
        assert_eq!(verified.bytes(), b"payload");
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let message = sign(b"payload".to_vec(), Purpose::Directive, &key(1)).unwrap();
        for bit in 0..message.len() * 8 {
            let mut message = message.clone();
            message[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&message, Purpose::Directive, &trusted(1), MAX).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_signature_for_another_purpose_is_refused() {
        let message = sign(b"payload".to_vec(), Purpose::Request, &key(1)).unwrap();
        let refused = verify(&message, Purpose::Directive, &trusted(1), MAX).unwrap_err();
        assert_eq!(refused.code(), "cose.signature");
    }

    #[test]
    fn an_untrusted_key_is_refused() {
        let message = sign(b"payload".to_vec(), Purpose::Directive, &key(2)).unwrap();
        let refused = verify(&message, Purpose::Directive, &trusted(1), MAX).unwrap_err();
        assert_eq!(refused.code(), "cose.key");
    }

    #[test]
    fn algorithm_none_and_es256_are_refused() {
        for alg in [None, Some(0), Some(-7), Some(-19)] {
            let message = forged(&header(alg), BTreeMap::new());
            let refused = verify(&message, Purpose::Directive, &trusted(1), MAX).unwrap_err();
            assert_eq!(refused.code(), "cose.algorithm", "{alg:?}");
        }
        let control = forged(&header(Some(ALG_EDDSA)), BTreeMap::new());
        assert!(verify(&control, Purpose::Directive, &trusted(1), MAX).is_ok());
    }

    #[test]
    fn algorithm_only_in_the_unprotected_header_is_refused() {
        let alg = BTreeMap::from([(Value::Integer(LABEL_ALG), Value::Integer(ALG_EDDSA))]);
        let refused = forged(&header(None), alg.clone());
        assert!(verify(&refused, Purpose::Directive, &trusted(1), MAX).is_err());
        let refused = forged(&header(Some(ALG_EDDSA)), alg);
        assert!(verify(&refused, Purpose::Directive, &trusted(1), MAX).is_err());
    }
}
