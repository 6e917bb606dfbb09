//! Which rollouts are stopped: one list for all devices of a tenant, absolute, with a sequence that only rises.
//!
//! A device obeys the newest list that it has verified, before whatever its directive says. The list can stop a change and let it go on;
//! it can start nothing, so that it is worth less to a thief than a directive, and a device obeys it without asking anybody first.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::cose::{self, CoseError, KeyId, NotOpened, Purpose};
use crate::digest::Digest;
use crate::id::{TenantId, UnixMillis};
use crate::limits::{HALT_BYTES_MAX, HALTED_MAX, REASON_CHARS_MAX};

#[cfg(test)]
mod tests;

/// The version of this format.
const VERSION: u16 = 1;

const KIND: cose::Kind = cose::Kind {
    purpose: Purpose::Halt,
    name: "list of halted rollouts",
    bytes_max: HALT_BYTES_MAX,
};

/// What a list may ask of devices: whoever waits longer for their word does not know whether they have heard it.
const SAY_WITHIN_MAX_MS: u32 = 30_000;

/// The rollouts that no device goes on with until a newer list says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaltList {
    /// Version of the format.
    version: u16,
    /// Whose fleet.
    pub tenant: TenantId,
    /// Higher than that of every earlier list of the tenant.
    pub sequence: u64,
    /// When it was signed.
    pub issued_at: UnixMillis,
    /// Why, for people; empty where nothing is stopped.
    #[serde(default)]
    pub reason: String,
    /// Digests of the rollouts, as directives carry them; empty: all go on.
    pub campaigns: BTreeSet<Digest>,
    /// A device obeys at once, and says so at some moment within this time, so that the word of thousands does not hold up the list on
    /// its way to the others. Absent: at once.
    #[serde(default, skip_serializing_if = "is_none")]
    say_within_ms: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_none(say_within_ms: &u32) -> bool {
    *say_within_ms == 0
}

/// A list that is signed, of this tenant, and newer than the one before. Only [`HaltList::verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedHaltList {
    list: HaltList,
    signer: KeyId,
}

impl VerifiedHaltList {
    /// The list.
    pub const fn get(&self) -> &HaltList {
        &self.list
    }

    /// The key that signed it.
    pub const fn signer(&self) -> &KeyId {
        &self.signer
    }

    /// The same list for another listener. All is checked again but the signature; of the key it is checked that it is still a director's.
    pub fn again(
        &self,
        directors: &BTreeMap<KeyId, VerifyingKey>,
        listener: Listener<'_>,
    ) -> Result<Self, HaltRefused> {
        if !directors.contains_key(&self.signer) {
            return Err(HaltRefused::Cose(CoseError::UnknownKey(self.signer.clone())));
        }
        self.list.check(listener, directors)?;
        Ok(self.clone())
    }
}

/// Whose list it must be, and what it must be newer than.
#[derive(Debug, Clone, Copy)]
pub struct Listener<'a> {
    /// The device's tenant.
    pub tenant: &'a TenantId,
    /// The list that the device obeys, and who signed it; none if it has not taken one yet.
    pub newest: Option<(u64, &'a KeyId)>,
}

/// Why a list is no news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotNewer {
    /// The list that the device obeys already, redelivered.
    #[error("list {0} is the one that is obeyed")]
    Known(u64),
    /// Older than what the device obeys: replayed.
    #[error("list has sequence {given}, the device obeys {newest}")]
    Stale {
        /// The list's sequence.
        given: u64,
        /// The device's.
        newest: u64,
    },
}

impl Listener<'_> {
    /// Rule: a sequence only rises, so that an old list neither stops what goes on nor lets go on what is stopped. It rises among the
    /// lists of keys that are trusted: a thief of a key that was revoked since must not have spoken for ever.
    pub(crate) fn takes(
        &self,
        given: u64,
        directors: &BTreeMap<KeyId, VerifyingKey>,
    ) -> Result<(), NotNewer> {
        let newest = self.newest.filter(|(_, signer)| directors.contains_key(*signer));
        match newest.map(|(sequence, _)| sequence) {
            Some(newest) if given == newest => Err(NotNewer::Known(given)),
            Some(newest) if given < newest => Err(NotNewer::Stale { given, newest }),
            Some(_) | None => Ok(()),
        }
    }
}

/// Why a list was refused.
#[derive(Debug, thiserror::Error)]
pub enum HaltRefused {
    /// More bytes than any list has.
    #[error("list of halted rollouts has {0} bytes, at most {HALT_BYTES_MAX} are taken")]
    TooLarge(usize),
    /// The envelope, the key or the signature.
    #[error("list of halted rollouts is not signed by a trusted director")]
    Cose(#[from] CoseError),
    /// Signed, but not such a list.
    #[error("signed bytes are not a list of halted rollouts")]
    Decode(#[source] CodecError),
    /// Another version of the format.
    #[error("list of halted rollouts has format version {0}; {VERSION} is known")]
    Version(u16),
    /// Of another tenant.
    #[error("list of halted rollouts is of tenant {0}")]
    Audience(TenantId),
    /// More rollouts than a list may name, or a reason that is a novel.
    #[error(
        "list names more than {HALTED_MAX} rollouts, or has a reason of more than {REASON_CHARS_MAX} characters"
    )]
    Size,
    /// Redelivered, or replayed.
    #[error(transparent)]
    NotNewer(#[from] NotNewer),
}

impl From<NotOpened> for HaltRefused {
    fn from(error: NotOpened) -> Self {
        match error {
            NotOpened::TooLarge(bytes) => Self::TooLarge(bytes),
            NotOpened::Cose(error) => Self::Cose(error),
            NotOpened::Decode(error) => Self::Decode(error),
        }
    }
}

impl HaltRefused {
    /// The stable code of the refusal.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "halt.too-large",
            Self::Cose(cose) => cose.code(),
            Self::Decode(_) => "halt.form",
            Self::Version(_) => "halt.version",
            Self::Audience(_) => "halt.audience",
            Self::Size => "halt.size",
            Self::NotNewer(NotNewer::Known(_)) => "halt.known",
            Self::NotNewer(NotNewer::Stale { .. }) => "halt.stale",
        }
    }

    /// Whether it is an attack or a fault rather than an ordinary redelivery.
    pub const fn is_security_event(&self) -> bool {
        !matches!(self, Self::NotNewer(NotNewer::Known(_)))
    }
}

impl HaltList {
    /// Makes a list of the current format.
    pub fn new(
        tenant: TenantId,
        (sequence, issued_at): (u64, UnixMillis),
        reason: String,
        campaigns: BTreeSet<Digest>,
    ) -> Self {
        let say_within_ms = 0;
        Self { version: VERSION, tenant, sequence, issued_at, reason, campaigns, say_within_ms }
    }

    /// The same list for a fleet that takes this long to be heard.
    #[must_use]
    pub fn said_within(self, ms: u32) -> Self {
        Self { say_within_ms: ms, ..self }
    }

    /// Within how many milliseconds a device says that it obeys; at most half a minute, whatever the list says.
    pub fn say_within_ms(&self) -> u32 {
        self.say_within_ms.min(SAY_WITHIN_MAX_MS)
    }

    /// Encodes and signs it.
    pub fn sign(&self, director: &SigningKey) -> Result<Vec<u8>, CodecError> {
        cose::sign(codec::encode(self)?, Purpose::Halt, director)
    }

    /// Whether it stops a rollout. What belongs to no rollout is never stopped: the way out of a revoked image is none.
    pub fn stops(&self, campaign: Option<Digest>) -> bool {
        campaign.is_some_and(|campaign| self.campaigns.contains(&campaign))
    }

    /// Checks a message in this order: size, signature by a trusted director, form, tenant, size of what it names, sequence.
    pub fn verify(
        message: &[u8],
        directors: &BTreeMap<KeyId, VerifyingKey>,
        listener: Listener<'_>,
    ) -> Result<VerifiedHaltList, HaltRefused> {
        let (list, signer): (Self, _) = cose::open(message, directors, KIND)?;
        list.check(listener, directors)?;
        Ok(VerifiedHaltList { list, signer })
    }

    fn check(
        &self,
        listener: Listener<'_>,
        directors: &BTreeMap<KeyId, VerifyingKey>,
    ) -> Result<(), HaltRefused> {
        if self.version != VERSION {
            return Err(HaltRefused::Version(self.version));
        }
        if self.tenant != *listener.tenant {
            return Err(HaltRefused::Audience(self.tenant.clone()));
        }
        if self.campaigns.len() > HALTED_MAX || self.reason.chars().count() > REASON_CHARS_MAX {
            return Err(HaltRefused::Size);
        }
        Ok(listener.takes(self.sequence, directors)?)
    }
}
