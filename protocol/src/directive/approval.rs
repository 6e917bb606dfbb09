//! An operator's signature under a rollout: a second person's key beside the director's, for devices that demand it.
//!
//! It is made once for a rollout and travels in the directive of each device. What it covers binds it to the tenant, the image and the
//! rollout's digest, so that under another image or rollout it is worthless.

use std::collections::BTreeMap;

use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::cose::{self, CoseError, KeyId, NotOpened, Purpose};
use crate::digest::Digest;
use crate::id::{ModelName, TenantId, Version};

use super::DesiredSlot;

/// A header, four names and digests, a signature: about 400 bytes.
const COSIGNATURE_BYTES_MAX: usize = 1 << 10;

const KIND: cose::Kind =
    cose::Kind { purpose: Purpose::Approval, name: "approval", bytes_max: COSIGNATURE_BYTES_MAX };

/// What an operator signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Whose fleet.
    pub tenant: TenantId,
    /// Digest over everything that the rollout was asked for with.
    pub campaign: Digest,
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// Digest of the OCI index.
    pub index: Digest,
}

/// A signed [`Approval`], as bytes that nobody has checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cosignature(#[serde(with = "codec::bytes")] pub Vec<u8>);

/// Why an image lacks the second person's approval.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalRefused {
    /// There is none.
    #[error("this device demands an operator's signature, and the directive carries none for {0}")]
    Missing(ModelName),
    /// The envelope, the key or the signature.
    #[error("the operator's signature does not count")]
    Cose(#[from] CoseError),
    /// Signed, but not an approval.
    #[error("the operator signed something else")]
    Decode(#[source] CodecError),
    /// An approval of something else.
    #[error("the operator approved {model}@{version} in another rollout, or another image of it")]
    Other {
        /// The model that was approved.
        model: ModelName,
        /// The version that was approved.
        version: Version,
    },
}

impl From<NotOpened> for ApprovalRefused {
    fn from(error: NotOpened) -> Self {
        error.without_size().map_or_else(Self::Decode, Self::Cose)
    }
}

impl ApprovalRefused {
    /// The stable code of the refusal.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing(_) => "cosign.missing",
            Self::Cose(_) => "cosign.signature",
            Self::Decode(_) => "cosign.form",
            Self::Other { .. } => "cosign.other",
        }
    }
}

impl Approval {
    /// Encodes and signs it.
    pub fn sign(&self, operator: &SigningKey) -> Result<Cosignature, CodecError> {
        cose::sign(codec::encode(self)?, Purpose::Approval, operator).map(Cosignature)
    }
}

impl DesiredSlot {
    /// Checks that one of the `operators` has approved this very image for this very rollout.
    pub fn check_approval(
        &self,
        tenant: &TenantId,
        operators: &BTreeMap<KeyId, VerifyingKey>,
    ) -> Result<KeyId, ApprovalRefused> {
        let missing = || ApprovalRefused::Missing(self.model.clone());
        let Cosignature(message) = self.cosignature.as_ref().ok_or_else(missing)?;
        let (approval, signer): (Approval, _) = cose::open(message, operators, KIND)?;
        let is_of_this = approval.tenant == *tenant
            && approval.model == self.model
            && approval.version == self.version
            && approval.index == self.index
            && Some(approval.campaign) == self.campaign;
        if is_of_this {
            return Ok(signer);
        }
        let Approval { model, version, .. } = approval;
        Err(ApprovalRefused::Other { model, version })
    }
}
