//! Encrypts samples to the server, by RFC 9180 (HPKE).

use std::sync::{Mutex, PoisonError};

use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePublicKey};
use sealift_protocol::capture::{CaptureKey, HPKE_INFO, Sample, SealedSample};
use sealift_protocol::codec::CodecError;
use sealift_protocol::id::{DeviceId, TenantId};
use sealift_protocol::limits::SAMPLE_BYTES_MAX;

/// Why a sample was not encrypted.
#[derive(Debug, thiserror::Error)]
pub(super) enum SealError {
    #[error("capture was switched off in between")]
    Off,
    #[error("sample has {0} bytes, more than may be sent")]
    TooLarge(usize),
    #[error("sample cannot be encoded")]
    Encode(#[from] CodecError),
    #[error("sample cannot be encrypted")]
    Encrypt(#[from] rustls::Error),
}

/// Knows the server's key.
#[derive(Debug)]
pub(super) struct Sealer {
    whose: (TenantId, DeviceId),
    key: Mutex<Option<CaptureKey>>,
}

impl Sealer {
    pub(super) const fn new(whose: (TenantId, DeviceId)) -> Self {
        Self { whose, key: Mutex::new(None) }
    }

    pub(super) fn change_key(&self, key: Option<CaptureKey>) {
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = key;
    }

    /// RFC 9180, section 5.2: each sample has an encapsulated key of its own. Rule: nothing on the device opens it again, not even the
    /// device.
    pub(super) fn seal(&self, sample: &Sample) -> Result<Vec<u8>, SealError> {
        let key = self.key.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let CaptureKey { number, public } = key.ok_or(SealError::Off)?;
        let plain = sample.encode()?;
        if plain.len() > SAMPLE_BYTES_MAX {
            return Err(SealError::TooLarge(plain.len()));
        }
        let context = SealedSample::context(&self.whose.0, &self.whose.1, sample.id);
        let hpke = DH_KEM_X25519_HKDF_SHA256_AES_256;
        let (EncapsulatedSecret(encapsulated), body) =
            hpke.seal(HPKE_INFO, &context, &plain, &HpkePublicKey(public))?;
        Ok(SealedSample::new(number, encapsulated, body).encode()?)
    }
}
