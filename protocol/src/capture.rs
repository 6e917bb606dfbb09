//! Which predictions devices keep for people to look at: one signed list for all devices of a tenant, absolute, with a sequence that only
//! rises and an end that is near.
//!
//! Without a list nothing is kept. A list takes effect only under a director's signature, so that whoever has the broker cannot switch
//! capture on, and it lapses by itself, so that whoever keeps back the list that switches it off gains days and no more.

use std::collections::BTreeMap;

use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::cose::{self, CoseError, KeyId, NotOpened, Purpose};
use crate::halt::{Listener, NotNewer};
use crate::id::{ModelName, TenantId, UnixMillis};
use crate::limits::{CAPTURE_BYTES_MAX, CAPTURE_MODELS_MAX};

mod decide;
mod judged;
mod policy;
mod sample;
mod spent;
#[cfg(test)]
mod tests;

pub use decide::{Left, Seen, Taken, Why};
pub use judged::{Judged, judge, row};
pub use policy::{CapturePolicy, InvalidPolicy, Ppm};
pub use sample::{
    HPKE_INFO, InferenceId, InvalidInferenceId, InvalidSample, Sample, SampleId, SealedSample,
};
pub use spent::Spent;

/// The version of this format.
const VERSION: u16 = 1;

const KIND: cose::Kind =
    cose::Kind { purpose: Purpose::Capture, name: "capture list", bytes_max: CAPTURE_BYTES_MAX };

/// For how long a list is good after its signing. The server signs a new one each day.
pub const CAPTURE_VALID_MS: i64 = 7 * 24 * 3_600 * 1_000;

/// To whom samples are encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureKey {
    /// Its number; the server may have older ones for samples that are on their way.
    pub number: u32,
    /// The X25519 public key, 32 bytes.
    #[serde(with = "codec::bytes")]
    pub public: Vec<u8>,
}

/// What devices keep of which model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureList {
    /// Version of the format.
    version: u16,
    /// Whose fleet.
    pub tenant: TenantId,
    /// Higher than that of every earlier list of the tenant.
    pub sequence: u64,
    /// When it was signed.
    pub issued_at: UnixMillis,
    /// When it lapses.
    pub until: UnixMillis,
    /// To whom samples are encrypted.
    pub key: CaptureKey,
    /// Models of which something is kept, and by which rules; of all others nothing is.
    pub models: BTreeMap<ModelName, CapturePolicy>,
}

/// A list that is signed, of this tenant, and newer than the one before. Only [`CaptureList::verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedCaptureList {
    list: CaptureList,
    signer: KeyId,
}

impl VerifiedCaptureList {
    /// The list.
    pub const fn get(&self) -> &CaptureList {
        &self.list
    }

    /// The key that signed it.
    pub const fn signer(&self) -> &KeyId {
        &self.signer
    }
}

/// Why a list was refused.
#[derive(Debug, thiserror::Error)]
pub enum CaptureRefused {
    /// More bytes than any list has.
    #[error("capture list has {0} bytes, at most {CAPTURE_BYTES_MAX} are taken")]
    TooLarge(usize),
    /// The envelope, the key or the signature.
    #[error("capture list is not signed by a trusted director")]
    Cose(#[from] CoseError),
    /// Signed, but not such a list.
    #[error("signed bytes are not a capture list")]
    Decode(#[source] CodecError),
    /// Another version of the format.
    #[error("capture list has format version {0}; {VERSION} is known")]
    Version(u16),
    /// Of another tenant.
    #[error("capture list is of tenant {0}")]
    Audience(TenantId),
    /// More models than a list may name.
    #[error("capture list names {0} models, at most {CAPTURE_MODELS_MAX} are taken")]
    Models(usize),
    /// A rule that is none.
    #[error("capture list has no good policy for {model}")]
    Policy {
        /// Of which model.
        model: ModelName,
        /// What is wrong with it.
        #[source]
        source: InvalidPolicy,
    },
    /// A key of another kind.
    #[error("key of the capture list has {0} bytes, not 32")]
    Key(usize),
    /// It would be good for longer than any list is.
    #[error("capture list is good until {until}, too long after its signing at {issued_at}")]
    Life {
        /// When it was signed.
        issued_at: UnixMillis,
        /// Its end.
        until: UnixMillis,
    },
    /// Redelivered, or replayed.
    #[error(transparent)]
    NotNewer(#[from] NotNewer),
}

impl From<NotOpened> for CaptureRefused {
    fn from(error: NotOpened) -> Self {
        match error {
            NotOpened::TooLarge(bytes) => Self::TooLarge(bytes),
            NotOpened::Cose(error) => Self::Cose(error),
            NotOpened::Decode(error) => Self::Decode(error),
        }
    }
}

impl CaptureRefused {
    /// The stable code of the refusal.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "capture.too-large",
            Self::Cose(cose) => cose.code(),
            Self::Decode(_) => "capture.form",
            Self::Version(_) => "capture.version",
            Self::Audience(_) => "capture.audience",
            Self::Models(_) => "capture.models",
            Self::Policy { .. } => "capture.policy",
            Self::Key(_) => "capture.key",
            Self::Life { .. } => "capture.life",
            Self::NotNewer(NotNewer::Known(_)) => "capture.known",
            Self::NotNewer(NotNewer::Stale { .. }) => "capture.stale",
        }
    }

    /// Whether it is an attack or a fault rather than an ordinary redelivery.
    pub const fn is_security_event(&self) -> bool {
        !matches!(self, Self::NotNewer(NotNewer::Known(_)))
    }
}

impl CaptureList {
    /// Makes a list of the current format, good for as long as a list may be.
    pub const fn new(
        tenant: TenantId,
        (sequence, issued_at): (u64, UnixMillis),
        key: CaptureKey,
        models: BTreeMap<ModelName, CapturePolicy>,
    ) -> Self {
        let until = issued_at.plus(CAPTURE_VALID_MS);
        Self { version: VERSION, tenant, sequence, issued_at, until, key, models }
    }

    /// Encodes and signs it.
    pub fn sign(&self, director: &SigningKey) -> Result<Vec<u8>, CodecError> {
        cose::sign(codec::encode(self)?, Purpose::Capture, director)
    }

    /// The rules for a model, if something of it is to be kept at `now`.
    pub fn policy(&self, model: &ModelName, now: UnixMillis) -> Option<&CapturePolicy> {
        self.models.get(model).filter(|_| now <= self.until)
    }

    /// Checks a message in this order: size, signature by a trusted director, form, tenant, what it says, sequence.
    pub fn verify(
        message: &[u8],
        directors: &BTreeMap<KeyId, VerifyingKey>,
        listener: Listener<'_>,
    ) -> Result<VerifiedCaptureList, CaptureRefused> {
        let (list, signer): (Self, _) = cose::open(message, directors, KIND)?;
        list.check(listener.tenant)?;
        listener.takes(list.sequence, directors)?;
        Ok(VerifiedCaptureList { list, signer })
    }

    fn check(&self, tenant: &TenantId) -> Result<(), CaptureRefused> {
        const KEY_BYTES: usize = 32;
        if self.version != VERSION {
            return Err(CaptureRefused::Version(self.version));
        }
        if self.tenant != *tenant {
            return Err(CaptureRefused::Audience(self.tenant.clone()));
        }
        if self.models.len() > CAPTURE_MODELS_MAX {
            return Err(CaptureRefused::Models(self.models.len()));
        }
        // RFC 7748, section 5: a public key of X25519 has 32 bytes.
        if self.key.public.len() != KEY_BYTES {
            return Err(CaptureRefused::Key(self.key.public.len()));
        }
        // Rule: a list lapses soon, so that one that was stolen together with a key that is revoked since is not good for ever.
        let (issued_at, until) = (self.issued_at, self.until);
        if !(0..=CAPTURE_VALID_MS).contains(&until.since(issued_at)) {
            return Err(CaptureRefused::Life { issued_at, until });
        }
        for (model, policy) in &self.models {
            let refused = |source| CaptureRefused::Policy { model: model.clone(), source };
            policy.check().map_err(refused)?;
        }
        Ok(())
    }
}
