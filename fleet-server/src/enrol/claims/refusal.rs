//! Why a claim does not let a device in.

use std::net::IpAddr;

use sealift_protocol::id::DeviceId;

use crate::certificate::{CertificateError, RequestError};
use crate::store::StoreError;

/// Why a device was not enrolled by a claim, or something about claims not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    /// No certificate of a claim, or one that this server never made.
    #[error("the certificate of a claim is needed")]
    NoClaim,
    /// Revoked.
    #[error("the claim of batch {0} is revoked")]
    Revoked(String),
    /// Too late.
    #[error("the claim of batch {0} has expired")]
    Expired(String),
    /// Every place is taken.
    #[error("every place of the claim of batch {0} is taken")]
    Full(String),
    /// Too many wait.
    #[error("too many devices of batch {0} wait to be approved")]
    Queue(String),
    /// Somebody said no.
    #[error("{0} was denied: {1}")]
    Denied(DeviceId, String),
    /// The id is taken.
    #[error("a device {0} is enrolled already")]
    Taken(DeviceId),
    /// The serial number let another device in.
    #[error("the serial number {0} was used before")]
    SerialUsed(String),
    /// The serial number is for another batch or another id.
    #[error("the serial number {0} is registered for another batch or another device")]
    SerialBound(String),
    /// The certificate request.
    #[error("the certificate request is refused: {0}")]
    Request(#[from] RequestError),
    /// The authority does not sign.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Too many refusals.
    #[error("too many enrolments from {0} at once, or too many refused")]
    TooMany(IpAddr),
    /// Terms that make no sense.
    #[error("{0}")]
    Terms(&'static str),
    /// A serial number that is registered already.
    #[error("the serial number {0} is registered already; none was added")]
    SerialKnown(String),
    /// No random bytes from the system.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ClaimError {
    /// The stable code of the refusal; none where the server is at fault.
    pub(crate) const fn code(&self) -> Option<&'static str> {
        match self {
            Self::NoClaim => Some("enrol.no-claim"),
            Self::Revoked(_) => Some("enrol.claim-revoked"),
            Self::Expired(_) => Some("enrol.claim-expired"),
            Self::Full(_) => Some("enrol.claim-full"),
            Self::Queue(_) => Some("enrol.queue-full"),
            Self::Denied(..) => Some("enrol.denied"),
            Self::Taken(_) => Some("enrol.device-taken"),
            Self::SerialUsed(_) => Some("enrol.serial-used"),
            Self::SerialBound(_) => Some("enrol.serial-bound"),
            Self::Request(error) => Some(error.code()),
            Self::TooMany(_) => Some("enrol.too-many"),
            Self::Terms(_) => Some("enrol.terms"),
            Self::SerialKnown(_) => Some("enrol.serial-known"),
            Self::Certificate(_) | Self::Random(_) | Self::Store(_) => None,
        }
    }

    /// What to do about it.
    pub(crate) const fn help(&self) -> Option<&'static str> {
        match self {
            Self::NoClaim => Some("enrol with a token, or with the file of a claim"),
            Self::Revoked(_) | Self::Expired(_) | Self::Full(_) => {
                Some("`fleetctl enrol claim create` makes another claim")
            }
            Self::Queue(_) => Some("`fleetctl enrol pending` shows them"),
            Self::Denied(..) => Some("`fleetctl enrol approve` takes it back"),
            Self::Taken(_) => Some("a claim replaces no device; `fleetctl enrol create --device`"),
            Self::SerialUsed(_) => {
                Some("find out which device it was: `fleetctl enrol serials list`")
            }
            Self::TooMany(_) => Some("wait a minute"),
            Self::SerialKnown(_) => Some("take it out of the file"),
            Self::SerialBound(_)
            | Self::Request(_)
            | Self::Terms(_)
            | Self::Certificate(_)
            | Self::Random(_)
            | Self::Store(_) => None,
        }
    }
}
