//! The director: signs for each device what it should run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use ed25519_dalek::{SigningKey, VerifyingKey};
use sealift_protocol::capture::{CaptureKey, CaptureList, CapturePolicy};
use sealift_protocol::codec::CodecError;
use sealift_protocol::digest::Digest;
use sealift_protocol::directive::{DesiredSlot, Directive};
use sealift_protocol::halt::HaltList;
use sealift_protocol::id::{DeviceId, Generation, ModelName, TenantId, UnixMillis};
use sealift_protocol::request::{Ask, Nonce, Request};
use sealift_protocol::tuf::key::{Key, KeyId, SigningKey as RoleKey};

use crate::trust::keys::{self, KeyError};
use crate::trust::online::OnlineRole;

/// Signs directives; holds the only copy of the director's key.
pub(crate) struct Director {
    present: RwLock<Present>,
    tenant: TenantId,
    valid_ms: i64,
}

/// The key that signs, by its name in the trust bundle.
#[derive(Clone)]
struct Present {
    key: SigningKey,
    id: KeyId,
    /// Whether no later key stands in the bundle.
    is_newest: bool,
}

impl Director {
    /// Reads the director's key. A directive may be begun for `valid_s` seconds after its signing.
    pub(crate) fn open(folder: &Path, tenant: &TenantId, valid_s: u32) -> Result<Self, KeyError> {
        let key = keys::read_ed25519(&folder.join(keys::DIRECTOR))?;
        Ok(Self::new(key, tenant.clone(), valid_s))
    }

    /// A director with this key.
    pub(crate) fn new(key: SigningKey, tenant: TenantId, valid_s: u32) -> Self {
        let id = Key::ed25519(&key.verifying_key()).id();
        let present = RwLock::new(Present { key, id, is_newest: false });
        Self { present, tenant, valid_ms: i64::from(valid_s) * 1_000 }
    }

    /// Takes up the successor of its key as soon as devices obey that: `obeyed` are the keys of the bundle that are not revoked, the
    /// newest last. Returns whether devices obey the key that it has then.
    pub(crate) fn follow(&self, folder: &Path, obeyed: &[KeyId]) -> Result<bool, KeyError> {
        let mut present = self.present();
        let waiting = OnlineRole::Director.read(folder)?;
        let next = waiting.last().map(RoleKey::id);
        if let Some(next) = next.filter(|next| *next != present.id && obeyed.contains(next)) {
            OnlineRole::Director.succeed(folder)?;
            present.key = keys::read_ed25519(&folder.join(keys::DIRECTOR))?;
            tracing::info!(before = %present.id, key = %next, "director key replaced");
            present.id = next;
        }
        present.is_newest = obeyed.last() == Some(&present.id);
        let is_obeyed = obeyed.contains(&present.id);
        *self.present.write().unwrap_or_else(PoisonError::into_inner) = present;
        Ok(is_obeyed)
    }

    /// The name of the key, if what other keys have signed is to be signed anew with it. Of two servers on one database, the one that
    /// has not got the new key yet leaves alone what the other has signed.
    pub(crate) fn newest_signer(&self) -> Option<KeyId> {
        let Present { id, is_newest, .. } = self.present();
        is_newest.then_some(id)
    }

    /// The public part of the key that signs now.
    pub(crate) fn public(&self) -> VerifyingKey {
        self.present().key.verifying_key()
    }

    fn present(&self) -> Present {
        // A key is replaced as a whole, so a panic elsewhere leaves it usable.
        self.present.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Signs what `device` should run from `now` on, and says with which key.
    pub(crate) fn sign(
        &self,
        device: &DeviceId,
        generation: Generation,
        slots: Vec<DesiredSlot>,
        now: UnixMillis,
    ) -> Result<(Vec<u8>, KeyId), CodecError> {
        let Present { key, id, .. } = self.present();
        let whom = (self.tenant.clone(), device.clone());
        let window = (now, now.plus(self.valid_ms));
        Ok((Directive::new(whom, generation, window, slots).sign(&key)?, id))
    }

    /// Signs what `device` is asked within a window.
    pub(crate) fn sign_request(
        &self,
        device: &DeviceId,
        (nonce, ask): (Nonce, Ask),
        window: (UnixMillis, UnixMillis),
        by: &str,
    ) -> Result<Vec<u8>, CodecError> {
        let whom = (self.tenant.clone(), device.clone());
        Request::new(whom, nonce, window, by, ask).sign(&self.present().key)
    }

    /// Signs which rollouts no device of the tenant goes on with, and says with which key. Devices say within some time that they obey.
    pub(crate) fn sign_halt(
        &self,
        (sequence, now): (u64, UnixMillis),
        reason: &str,
        campaigns: BTreeSet<Digest>,
        say_within_ms: u32,
    ) -> Result<(Vec<u8>, KeyId), CodecError> {
        let Present { key, id, .. } = self.present();
        let (tenant, reason) = (self.tenant.clone(), reason.to_owned());
        let list = HaltList::new(tenant, (sequence, now), reason, campaigns);
        Ok((list.said_within(say_within_ms).sign(&key)?, id))
    }

    /// Signs what devices of the tenant keep for people to look at, and says with which key.
    pub(crate) fn sign_captures(
        &self,
        (sequence, now): (u64, UnixMillis),
        to: CaptureKey,
        models: BTreeMap<ModelName, CapturePolicy>,
    ) -> Result<(Vec<u8>, KeyId), CodecError> {
        let Present { key, id, .. } = self.present();
        let list = CaptureList::new(self.tenant.clone(), (sequence, now), to, models);
        Ok((list.sign(&key)?, id))
    }
}
