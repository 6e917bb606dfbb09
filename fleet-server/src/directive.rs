//! The director: signs for each device what it should run.

use std::path::Path;

use ed25519_dalek::{SigningKey, VerifyingKey};
use sealift_protocol::codec::CodecError;
use sealift_protocol::directive::{DesiredSlot, Directive};
use sealift_protocol::id::{DeviceId, Generation, TenantId, UnixMillis};

use crate::trust::keys::{self, KeyError};

/// Signs directives; holds the only copy of the director's key.
pub(crate) struct Director {
    key: SigningKey,
    tenant: TenantId,
    valid_ms: i64,
}

impl Director {
    /// Reads the director's key. A directive may be begun for `valid_s` seconds after its signing.
    pub(crate) fn open(folder: &Path, tenant: &TenantId, valid_s: u32) -> Result<Self, KeyError> {
        let key = keys::read_ed25519(&folder.join(keys::DIRECTOR))?;
        Ok(Self::new(key, tenant.clone(), valid_s))
    }

    /// A director with this key.
    pub(crate) fn new(key: SigningKey, tenant: TenantId, valid_s: u32) -> Self {
        Self { key, tenant, valid_ms: i64::from(valid_s) * 1_000 }
    }

    /// The key that devices check directives with.
    pub(crate) fn public(&self) -> VerifyingKey {
        self.key.verifying_key()
    }

    /// Signs what `device` should run from `now` on.
    pub(crate) fn sign(
        &self,
        device: &DeviceId,
        generation: Generation,
        slots: Vec<DesiredSlot>,
        now: UnixMillis,
    ) -> Result<Vec<u8>, CodecError> {
        let whom = (self.tenant.clone(), device.clone());
        let window = (now, now.plus(self.valid_ms));
        Directive::new(whom, generation, window, slots).sign(&self.key)
    }
}
