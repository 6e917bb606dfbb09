//! Private keys under a passphrase: PKCS#8 `ENCRYPTED PRIVATE KEY` in PEM (RFC 5958, RFC 8018), scrypt and AES-256-GCM.
//!
//! What OpenSSL writes is read too (PBKDF2 or scrypt with AES-CBC), as long as it costs no more than a person would wait for.

use pkcs8::pkcs5::pbes2::{self, AES_256_GCM_OID, Kdf};
use pkcs8::pkcs5::{self, EncryptionScheme};
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef};
use pkcs8::{SecretDocument, der::pem::PemLabel as _};

use super::{InvalidKey, SigningKey};

/// scrypt's cost as a power of two, its block size and its lanes: 128 MiB and about half a second for each guess.
const SCRYPT_LOG_N: u8 = 17;
const SCRYPT_R: u32 = 8;
const SCRYPT_P: u32 = 1;

/// The most of either that is spent on a file: 1 GiB, and a few seconds.
const SCRYPT_BYTES_MAX: u64 = 1 << 30;
const SCRYPT_LANES_MAX: u16 = 4;
const PBKDF2_ROUNDS_MAX: u32 = 10_000_000;

/// Random bytes for one encryption, never used twice.
#[derive(Debug, Clone, Copy)]
pub struct Salt {
    /// For the derivation.
    pub salt: [u8; 16],
    /// For the cipher.
    pub nonce: [u8; 12],
}

/// Whether a PEM holds a key under a passphrase.
pub fn is_encrypted(pem: &str) -> bool {
    pem.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
}

impl SigningKey {
    /// Writes the key under a passphrase.
    pub fn to_encrypted_pem(&self, passphrase: &[u8], salt: &Salt) -> Result<String, InvalidKey> {
        encrypt(self.to_der()?.as_bytes(), passphrase, salt).map_err(InvalidKey::Pem)
    }

    /// Reads a key under a passphrase.
    pub fn from_encrypted_pem(pem: &str, passphrase: &[u8]) -> Result<Self, InvalidKey> {
        let (label, document) =
            SecretDocument::from_pem(pem).map_err(|error| InvalidKey::Pem(error.into()))?;
        EncryptedPrivateKeyInfoRef::validate_pem_label(label)
            .map_err(|error| InvalidKey::Pem(error.into()))?;
        let encrypted =
            EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(InvalidKey::Pem)?;
        if !is_affordable(&encrypted.encryption_algorithm) {
            return Err(InvalidKey::Costly);
        }
        // A wrong passphrase shows as a wrong tag, as wrong padding, or as bytes that are no key.
        let opened = encrypted.decrypt(passphrase).map_err(|_| InvalidKey::Passphrase)?;
        Self::from_der(opened.as_bytes()).map_err(|_| InvalidKey::Passphrase)
    }
}

fn encrypt(der: &[u8], passphrase: &[u8], salt: &Salt) -> Result<String, pkcs8::Error> {
    let invalid = || pkcs5::Error::AlgorithmParametersInvalid { oid: AES_256_GCM_OID };
    let cost = scrypt::Params::new(SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P).map_err(|_| invalid())?;
    let scheme = pbes2::Parameters::scrypt_aes256gcm(cost, &salt.salt, salt.nonce)?;
    let document = PrivateKeyInfoRef::try_from(der)?.encrypt_with_params(scheme, passphrase)?;
    let pem = document.to_pem(EncryptedPrivateKeyInfoRef::PEM_LABEL, LineEnding::LF)?;
    Ok(pem.to_string())
}

/// A file that came from elsewhere does not decide how much memory and time this program takes.
fn is_affordable(scheme: &EncryptionScheme) -> bool {
    let Some(parameters) = scheme.pbes2() else { return false };
    match &parameters.kdf {
        Kdf::Pbkdf2(cost) => cost.iteration_count <= PBKDF2_ROUNDS_MAX,
        Kdf::Scrypt(cost) => {
            let bytes =
                cost.cost_parameter.saturating_mul(u64::from(cost.block_size).saturating_mul(128));
            bytes <= SCRYPT_BYTES_MAX && cost.parallelization <= SCRYPT_LANES_MAX
        }
        _ => false, // others do not exist in RFC 8018
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuf::key::Algorithm;

    const SALT: Salt = Salt { salt: [3; 16], nonce: [5; 12] };

    /// Made by OpenSSL 3: `openssl genpkey -algorithm ed25519 -aes256 -pass pass:tide`.
    const BY_OPENSSL: &str = include_str!("by_openssl.pem");

    #[test]
    fn a_key_under_a_passphrase_opens_with_it_alone() {
        for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
            let key = SigningKey::generate(algorithm, &[9; 32]).unwrap();

            let pem = key.to_encrypted_pem(b"correct horse", &SALT).unwrap();

            assert!(is_encrypted(&pem) && !is_encrypted(&key.to_pem().unwrap()));
            let opened = SigningKey::from_encrypted_pem(&pem, b"correct horse").unwrap();
            assert_eq!(opened.id(), key.id());
            let wrong = SigningKey::from_encrypted_pem(&pem, b"wrong horse");
            assert!(matches!(wrong, Err(InvalidKey::Passphrase)), "{wrong:?}");
            assert!(matches!(SigningKey::from_pem(&pem), Err(InvalidKey::Pem(_))));
        }
    }

    #[test]
    fn a_flipped_bit_is_found() {
        let key = SigningKey::from_seed(&[1; 32]);
        let pem = key.to_encrypted_pem(b"p", &SALT).unwrap();
        let (_, document) = SecretDocument::from_pem(&pem).unwrap();
        let mut bytes = document.as_bytes().to_vec();
        let last = bytes.len() - 20;
        bytes[last] ^= 1;
        let damaged = SecretDocument::try_from(bytes).unwrap();
        let pem = damaged.to_pem(EncryptedPrivateKeyInfoRef::PEM_LABEL, LineEnding::LF).unwrap();
        let refused = SigningKey::from_encrypted_pem(&pem, b"p");
        assert!(matches!(refused, Err(InvalidKey::Passphrase)), "{refused:?}");
    }

    #[test]
    fn a_key_that_openssl_encrypted_is_read() {
        let key = SigningKey::from_encrypted_pem(BY_OPENSSL, b"tide").unwrap();
        assert_eq!(key.public().algorithm(), Some(Algorithm::Ed25519));
    }

    #[test]
    fn a_file_that_asks_for_a_terabyte_is_refused() {
        let cost = scrypt::Params::new(30, 8, 1).unwrap();
        let scheme = pbes2::Parameters::scrypt_aes256gcm(cost, &[1; 16], [2; 12]).unwrap();
        assert!(!is_affordable(&scheme.into()));
    }
}
