//! Private keys of roles.

use std::fmt;

use ed25519_dalek::Signer as _;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};
use p256::pkcs8::LineEnding;

use super::{Algorithm, InvalidKey, Key, KeyId};

/// A private key of a role.
#[derive(Clone)]
pub struct SigningKey(Private);

#[derive(Clone)]
enum Private {
    Ed25519(ed25519_dalek::SigningKey),
    P256(p256::ecdsa::SigningKey),
}

impl SigningKey {
    /// Makes an Ed25519 key from 32 random bytes of the caller.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Private::Ed25519(ed25519_dalek::SigningKey::from_bytes(seed)))
    }

    /// Makes a key of either kind from 32 random bytes of the caller. About one in 2^32 seeds is no scalar of P-256.
    pub fn generate(algorithm: Algorithm, seed: &[u8; 32]) -> Option<Self> {
        match algorithm {
            Algorithm::Ed25519 => Some(Self::from_seed(seed)),
            Algorithm::P256 => {
                p256::ecdsa::SigningKey::from_slice(seed).ok().map(|key| Self(Private::P256(key)))
            }
        }
    }

    /// Reads PKCS#8 in PEM, as OpenSSL writes it.
    pub fn from_pem(pem: &str) -> Result<Self, InvalidKey> {
        match ed25519_dalek::SigningKey::from_pkcs8_pem(pem) {
            Ok(key) => Ok(Self(Private::Ed25519(key))),
            Err(error) => p256::ecdsa::SigningKey::from_pkcs8_pem(pem)
                .map(|key| Self(Private::P256(key)))
                .map_err(|_| InvalidKey::Pem(error)),
        }
    }

    /// Reads PKCS#8 in DER.
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidKey> {
        match ed25519_dalek::SigningKey::from_pkcs8_der(der) {
            Ok(key) => Ok(Self(Private::Ed25519(key))),
            Err(error) => p256::ecdsa::SigningKey::from_pkcs8_der(der)
                .map(|key| Self(Private::P256(key)))
                .map_err(|_| InvalidKey::Pem(error)),
        }
    }

    /// Writes PKCS#8 version 1 in PEM: version 2, with the public key inside, is not read everywhere.
    pub fn to_pem(&self) -> Result<String, InvalidKey> {
        let pem = match &self.0 {
            Private::Ed25519(key) => pair(key).to_pkcs8_pem(LineEnding::LF),
            Private::P256(key) => key.to_pkcs8_pem(LineEnding::LF),
        };
        Ok(pem.map_err(InvalidKey::Pem)?.to_string())
    }

    /// Writes PKCS#8 in DER, in memory that is wiped when it is given back.
    #[cfg(feature = "key-files")]
    pub(super) fn to_der(&self) -> Result<pkcs8::SecretDocument, InvalidKey> {
        let der = match &self.0 {
            Private::Ed25519(key) => pair(key).to_pkcs8_der(),
            Private::P256(key) => key.to_pkcs8_der(),
        };
        der.map_err(InvalidKey::Pem)
    }

    /// The key object to publish.
    pub fn public(&self) -> Key {
        match &self.0 {
            Private::Ed25519(key) => Key::ed25519(&key.verifying_key()),
            Private::P256(key) => Key::p256(key.verifying_key()),
        }
    }

    /// The id of the key object.
    pub fn id(&self) -> KeyId {
        self.public().id()
    }

    /// Signs a message as TUF writes signatures: Ed25519 as it is, ECDSA in DER over SHA-256.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.0 {
            Private::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
            Private::P256(key) => {
                let signature: p256::ecdsa::DerSignature = key.sign(message);
                signature.as_bytes().to_vec()
            }
        }
    }
}

fn pair(key: &ed25519_dalek::SigningKey) -> KeypairBytes {
    KeypairBytes { secret_key: key.to_bytes(), public_key: None }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuf::testing::key;

    #[test]
    fn a_private_key_survives_pem_and_stays_out_of_logs() {
        let key = key("a");
        let pem = key.to_pem().unwrap();
        assert_eq!(SigningKey::from_pem(&pem).unwrap().id(), key.id());
        assert_eq!(format!("{key:?}"), format!("SigningKey({})", key.id()));
        assert!(SigningKey::from_pem("x").is_err());
    }

    #[test]
    fn a_key_on_p256_signs_what_its_public_key_verifies() {
        let key = SigningKey::generate(Algorithm::P256, &[7; 32]).unwrap();
        let read = SigningKey::from_pem(&key.to_pem().unwrap()).unwrap();
        assert_eq!(read.id(), key.id());
        assert_eq!(key.public().algorithm(), Some(Algorithm::P256));

        let signature = read.sign(b"message");

        assert!(key.public().verifies(b"message", &signature));
        assert!(!key.public().verifies(b"other", &signature));
        assert!(SigningKey::generate(Algorithm::P256, &[0xff; 32]).is_none());
    }
}
