//! What comes to the supervisor from its tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use sealift_protocol::cose::KeyId;
use sealift_protocol::digest::Digest;
use sealift_protocol::directive::VerifiedDirective;
use sealift_protocol::id::{ModelName, UnixMillis};
use sealift_protocol::report::{ImageRef, Trusted};

use super::keeper::Unsigned;
use super::requests::Worked;
use crate::device::{Answer, Fault, Ticket};
use crate::identity::Identity;
use crate::renewal::RenewError;
use crate::serve::Live;
use crate::verify::NotAccepted;

/// What comes to the supervisor from its tasks.
#[derive(Debug)]
pub(super) enum Input {
    /// A signed directive, by whatever way it came.
    Message(Vec<u8>),
    /// A signed list of halted rollouts, by whatever way it came.
    Halt(Vec<u8>),
    /// A signed list of what is kept for people to look at, by whatever way it came.
    Capture(Vec<u8>),
    /// A message of a key that was not known, once more, after the metadata were followed, or could not be.
    Again {
        message: Unsigned,
        followed: Result<(), Fault>,
    },
    /// The keys of directors have changed, or when the first of the metadata expires.
    Directors(BTreeMap<KeyId, VerifyingKey>, UnixMillis),
    /// A request that was worked on beside the supervisor.
    Worked(Box<Worked>),
    Accepted(VerifiedDirective),
    NotAccepted {
        message: Digest,
        why: NotAccepted,
    },
    Answer {
        model: ModelName,
        ticket: Ticket,
        answer: Answer,
    },
    /// A source beside the server sent bytes that were not signed.
    Lie {
        model: ModelName,
        image: ImageRef,
        fault: Fault,
    },
    /// The deny list has changed; these images are on it.
    Denied(Arc<BTreeSet<Digest>>),
    /// The trust metadata were followed further.
    Trusted(Box<Trusted>),
    /// Whether the deny list could be brought up to date.
    Refreshed(Result<(), Fault>),
    /// A worker is ready, or is not.
    Worker {
        model: ModelName,
        purpose: Purpose,
        ready: Result<Ready, Fault>,
    },
    /// The server takes nothing from this device but a renewal of its certificate.
    MustRenew,
    Renewed(Result<Box<Identity>, RenewError>),
    /// A worker ended by itself.
    Exited {
        model: ModelName,
        image: Digest,
        reason: String,
    },
}

/// A worker that has passed its self-test.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) live: Live,
    /// Name and version of the inference library.
    pub(super) runtime: String,
}

/// What a worker was started for.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    /// A new image, not live yet.
    Warm(Ticket),
    /// The image to go back to.
    Revert(Ticket),
    /// The live image again.
    Serve(Digest),
}
