//! What one device should run: absolute, signed for this device alone, with a generation that only rises.

use std::collections::BTreeMap;

use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::cose::{self, CoseError, KeyId, NotOpened, Purpose};
use crate::digest::Digest;
use crate::id::{DeviceId, Epoch, Generation, ModelName, RolloutId, TenantId, UnixMillis, Version};
use crate::limits::{DIRECTIVE_BYTES_MAX, REASON_CHARS_MAX, SLOTS_MAX};
use crate::report::ImageRef;

mod approval;
mod behaviour;
mod shadow;
#[cfg(test)]
mod tests;
mod window;

pub use approval::{Approval, ApprovalRefused, Cosignature};
pub use behaviour::{Behaviour, InvalidBehaviour};
pub use shadow::{InvalidShadow, Likeness, Quiet, Shadow};
pub use window::{InvalidWindow, MaintenanceWindow, Opening};

/// The version of this format.
const VERSION: u16 = 1;

const KIND: cose::Kind =
    cose::Kind { purpose: Purpose::Directive, name: "directive", bytes_max: DIRECTIVE_BYTES_MAX };

/// Everything a device should run. A model that is not named should not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directive {
    /// Version of the format.
    version: u16,
    /// Whose device.
    pub tenant: TenantId,
    /// Which device.
    pub device: DeviceId,
    /// Newer than every earlier directive for the device.
    pub generation: Generation,
    /// When it was signed.
    pub issued_at: UnixMillis,
    /// After this it is not begun any more.
    pub not_after: UnixMillis,
    /// One entry per model.
    pub slots: Vec<DesiredSlot>,
}

/// One model that a device should run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredSlot {
    /// The model.
    pub model: ModelName,
    /// The version, for people; the digest decides.
    pub version: Version,
    /// Digest of the OCI index; must be the one that the publisher signed for [`DesiredSlot::target`].
    pub index: Digest,
    /// The security epoch that the server believes the image to have.
    pub epoch: Epoch,
    /// How long and how strictly the image is on trial.
    #[serde(default)]
    pub trial: Trial,
    /// The rollout that asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutId>,
    /// Digest over everything that the rollout was asked for with, the same for all its devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign: Option<Digest>,
    /// The target as the director names it; must be [`DesiredSlot::target`]. Without it that is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_path: Option<String>,
    /// The only variant that may be taken; without it the device takes the one that fits best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// What to run, after a check like that of any image, where this one is revoked and nothing to go back to is on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<ImageRef>,
    /// An operator's signature under the rollout, for devices that demand one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosignature: Option<Cosignature>,
    /// The server's countersign: it has seen the device's report of this generation, with the image on trial. See [`Trial::lease_s`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<Generation>,
}

/// How a device judges a new image. A missing field takes the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Trial {
    /// Seconds that the image serves uncommitted.
    pub probation_s: u32,
    /// Seconds after that during which the previous slot is kept and errors still turn back.
    pub watch_s: u32,
    /// Worker crashes that turn back.
    pub crashes_max: u8,
    /// Failed requests, in per mille, that turn back, once there are [`Trial::requests_min`].
    pub errors_max_permille: u16,
    /// Fewer requests than this are not judged.
    pub requests_min: u32,
    /// Seconds within which the server must have seen the image on trial and said so; otherwise the device turns back by itself, for
    /// the image may be what keeps it from being heard. 0: it need not; then the bytes are those of a trial without this field, which
    /// are kept under the digests of earlier rollouts.
    #[serde(skip_serializing_if = "is_no_lease")]
    pub lease_s: u32,
    /// The local time of the device in which it may load and begin to serve the image; at any time if there is none. What goes back
    /// has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<MaintenanceWindow>,
    /// How far it may be from what the image before has shown.
    #[serde(skip_serializing_if = "Behaviour::is_unsaid")]
    pub behaviour: Behaviour,
    /// How it is tried beside the live image before it is made live. What goes back is not.
    #[serde(skip_serializing_if = "Shadow::is_unsaid")]
    pub shadow: Shadow,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_no_lease(lease_s: &u32) -> bool {
    *lease_s == 0
}

impl Default for Trial {
    fn default() -> Self {
        Self {
            probation_s: 600,
            watch_s: 86_400,
            crashes_max: 2,
            errors_max_permille: 200,
            requests_min: 20,
            lease_s: 0,
            window: None,
            behaviour: Behaviour::OFF,
            shadow: Shadow::OFF,
        }
    }
}

/// Whom a directive must be for, and what it must be newer than.
#[derive(Debug, Clone)]
pub struct Audience<'a> {
    /// The device's tenant.
    pub tenant: &'a TenantId,
    /// The device.
    pub device: &'a DeviceId,
    /// The newest generation that the device has accepted.
    pub newest: Generation,
    /// The device's best idea of the time.
    pub now: UnixMillis,
}

/// A directive that is signed, for this device, new and in time. Only [`Directive::verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedDirective(Directive);

impl VerifiedDirective {
    /// The directive.
    pub const fn get(&self) -> &Directive {
        &self.0
    }
}

/// Why a directive was refused.
#[derive(Debug, thiserror::Error)]
pub enum DirectiveRefused {
    /// The envelope, the key or the signature.
    #[error("directive is not signed by a trusted director")]
    Cose(#[from] CoseError),
    /// Signed, but not a directive.
    #[error("signed bytes are not a directive")]
    Decode(#[source] CodecError),
    /// Another version of the format.
    #[error("directive has format version {0}; {VERSION} is known")]
    Version(u16),
    /// For another device or tenant.
    #[error("directive is for {tenant}:{device}")]
    Audience {
        /// Whose device it is for.
        tenant: TenantId,
        /// The device it is for.
        device: DeviceId,
    },
    /// Not newer than what the device has accepted: redelivered, or replayed.
    #[error("directive has generation {given}, the device has followed {newest}")]
    Stale {
        /// The directive's generation.
        given: Generation,
        /// The device's.
        newest: Generation,
    },
    /// Issued in the future, or too old to be begun.
    #[error("directive is valid from {issued_at} to {not_after}; it is {now}")]
    Window {
        /// Begin.
        issued_at: UnixMillis,
        /// End.
        not_after: UnixMillis,
        /// The device's time.
        now: UnixMillis,
    },
    /// Too many slots, or one model twice.
    #[error("directive has more than {SLOTS_MAX} slots, or names a model twice")]
    Slots,
    /// A target that is not that of the slot's own model and version.
    #[error("directive names target {given} for {expected}")]
    Target {
        /// The target of the slot's model and version.
        expected: String,
        /// What it names.
        given: String,
    },
}

impl From<NotOpened> for DirectiveRefused {
    fn from(error: NotOpened) -> Self {
        error.without_size().map_or_else(Self::Decode, Self::Cose)
    }
}

impl DirectiveRefused {
    /// The stable code of the refusal.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Cose(cose) => cose.code(),
            Self::Decode(_) => "directive.form",
            Self::Version(_) => "directive.version",
            Self::Audience { .. } => "directive.audience",
            Self::Stale { .. } => "directive.stale",
            Self::Window { .. } => "directive.window",
            Self::Slots => "directive.slots",
            Self::Target { .. } => "directive.target",
        }
    }

    /// Whether it is an attack or a fault rather than an ordinary redelivery.
    pub const fn is_security_event(&self) -> bool {
        !matches!(self, Self::Stale { .. })
    }
}

/// Devices' clocks may be behind the server's by this much.
const CLOCK_SKEW_MAX_MS: i64 = 5 * 60 * 1_000;

impl Directive {
    /// Makes a directive of the current format.
    pub fn new(
        (tenant, device): (TenantId, DeviceId),
        generation: Generation,
        (issued_at, not_after): (UnixMillis, UnixMillis),
        slots: Vec<DesiredSlot>,
    ) -> Self {
        Self { version: VERSION, tenant, device, generation, issued_at, not_after, slots }
    }

    /// Encodes and signs it.
    pub fn sign(&self, director: &SigningKey) -> Result<Vec<u8>, CodecError> {
        cose::sign(codec::encode(self)?, Purpose::Directive, director)
    }

    /// Checks a message in this order: size, signature by a trusted director, form, audience, generation, time, slots.
    pub fn verify(
        message: &[u8],
        directors: &BTreeMap<KeyId, VerifyingKey>,
        audience: &Audience<'_>,
    ) -> Result<VerifiedDirective, DirectiveRefused> {
        Self::verify_until(message, directors, audience, audience.now.plus(CLOCK_SKEW_MAX_MS))
    }

    /// The same for a device whose clock is known to be wrong: a directive may have been issued until `issued_until`, of which something
    /// else than the director must have made sure.
    pub fn verify_until(
        message: &[u8],
        directors: &BTreeMap<KeyId, VerifyingKey>,
        audience: &Audience<'_>,
        issued_until: UnixMillis,
    ) -> Result<VerifiedDirective, DirectiveRefused> {
        let (directive, _): (Self, _) = cose::open(message, directors, KIND)?;
        directive.check(audience, issued_until)?;
        Ok(VerifiedDirective(directive))
    }

    fn check(
        &self,
        audience: &Audience<'_>,
        issued_until: UnixMillis,
    ) -> Result<(), DirectiveRefused> {
        if self.version != VERSION {
            return Err(DirectiveRefused::Version(self.version));
        }
        if self.tenant != *audience.tenant || self.device != *audience.device {
            let (tenant, device) = (self.tenant.clone(), self.device.clone());
            return Err(DirectiveRefused::Audience { tenant, device });
        }
        if self.generation <= audience.newest {
            let (given, newest) = (self.generation, audience.newest);
            return Err(DirectiveRefused::Stale { given, newest });
        }
        let (issued_at, not_after, now) = (self.issued_at, self.not_after, audience.now);
        if issued_until < issued_at || not_after < now {
            return Err(DirectiveRefused::Window { issued_at, not_after, now });
        }
        let models: std::collections::BTreeSet<_> =
            self.slots.iter().map(|slot| &slot.model).collect();
        if self.slots.len() > SLOTS_MAX || models.len() != self.slots.len() {
            return Err(DirectiveRefused::Slots);
        }
        self.slots.iter().try_for_each(DesiredSlot::check_target)
    }
}

impl DesiredSlot {
    /// An image with default rules of trial, and nothing else said about it.
    pub fn new(model: ModelName, version: Version, index: Digest) -> Self {
        Self {
            model,
            version,
            index,
            epoch: Epoch::default(),
            trial: Trial::default(),
            rollout: None,
            campaign: None,
            target_path: None,
            manifest: None,
            fallback: None,
            cosignature: None,
            confirmed: None,
        }
    }

    /// Rule: a slot is about the target of its own model and version, whatever path the directive spells out.
    fn check_target(&self) -> Result<(), DirectiveRefused> {
        let expected = self.target();
        match &self.target_path {
            Some(given) if *given != expected => {
                let given = given.chars().take(REASON_CHARS_MAX).collect();
                Err(DirectiveRefused::Target { expected, given })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The TUF target that must name the same digest: `models/<team>/<name>/<version>`.
    pub fn target(&self) -> String {
        target_path(&self.model, &self.version)
    }
}

/// The TUF target of a version: `models/<team>/<name>/<version>`.
pub fn target_path(model: &ModelName, version: &Version) -> String {
    format!("models/{model}/{version}")
}
