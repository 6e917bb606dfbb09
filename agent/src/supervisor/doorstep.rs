//! Where signed messages wait until it is known whether they may come in: lists of halts, lists of what is kept, requests.
//!
//! ```text
//!  message ──check──▶ taken
//!             ├── of a key that is not known ──▶ the metadata are followed ──▶ checked once more
//!             └── refused ──▶ people are told, once of each
//! ```

use sealift_protocol::capture::CaptureRefused;
use sealift_protocol::cose::CoseError;
use sealift_protocol::digest::Digest;
use sealift_protocol::halt::HaltRefused;
use sealift_protocol::request::RequestRefused;
use sealift_protocol::telemetry::Severity;

use super::keeper::{Question, Unsigned};
use super::{Supervisor, SupervisorError};
use crate::device::{Fault, FaultKind};

/// What is remembered at one door.
#[derive(Debug, Default)]
pub(super) struct Doorstep {
    /// Whether a message waits for the metadata. One at a time: junk must not keep the keeper busy.
    is_asked: bool,
    /// What was told last.
    refused: Option<(Digest, &'static str)>,
}

/// Why a signed message was refused.
pub(super) trait Refusal: std::error::Error {
    /// The stable code.
    fn code(&self) -> &'static str;
    /// Whether it is signed by a key that the metadata may have brought since.
    fn is_unknown_key(&self) -> bool;
    /// Whether it is an attack or a fault rather than an ordinary redelivery.
    fn is_security_event(&self) -> bool;
}

/// Each kind of refusal, and when it is an attack or a fault.
macro_rules! refusals {
    ($($refused:ty: $is_security_event:expr),+ $(,)?) => {$(
        impl Refusal for $refused {
            fn code(&self) -> &'static str {
                self.code()
            }

            fn is_unknown_key(&self) -> bool {
                matches!(self, Self::Cose(CoseError::UnknownKey(_)))
            }

            fn is_security_event(&self) -> bool {
                $is_security_event(self)
            }
        }
    )+};
}

refusals! {
    HaltRefused: Self::is_security_event,
    CaptureRefused: Self::is_security_event,
    RequestRefused: always,
}

/// A request that comes again is taken, and answered once: what is refused of them is never an ordinary redelivery.
const fn always<T>(_: &T) -> bool {
    true
}

impl Unsigned {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Halt(message) | Self::Request(message) | Self::Capture(message) => message,
        }
    }

    /// For people.
    const fn what(&self) -> &'static str {
        match self {
            Self::Halt(_) => "list of halted rollouts",
            Self::Request(_) => "request",
            Self::Capture(_) => "capture list",
        }
    }
}

/// What becomes of a message at the door.
#[derive(Debug)]
pub(super) enum Met<T, R> {
    /// It may be believed.
    Taken(T),
    /// It waits, or is no news to anybody.
    Waits,
    /// People were told of it.
    Refused(R),
}

impl Supervisor {
    /// Meets a message that was checked for the first time.
    pub(super) fn meet<T, R: Refusal>(
        &mut self,
        message: &Unsigned,
        checked: Result<T, R>,
    ) -> Result<Met<T, R>, SupervisorError> {
        match checked {
            Err(refused) if refused.is_unknown_key() => {
                if !self.door(message).is_asked {
                    let question = Question::Directors(message.clone());
                    let is_asked = self.keeper.try_send(question).is_ok();
                    self.door(message).is_asked = is_asked;
                }
                Ok(Met::Waits)
            }
            checked => self.meet_for_good(message, checked),
        }
    }

    /// Meets a message once more, after the metadata were followed, or could not be.
    pub(super) fn meet_again<T, R: Refusal>(
        &mut self,
        message: &Unsigned,
        followed: Result<(), Fault>,
        check: impl FnOnce(&Self, &[u8]) -> Result<T, R>,
    ) -> Result<Met<T, R>, SupervisorError> {
        self.door(message).is_asked = false;
        if let Err(Fault { code, reason, .. }) = followed {
            let what = message.what();
            tracing::warn!(what, code, reason, "signed message cannot be checked yet");
            return Ok(Met::Waits);
        }
        let checked = check(self, message.bytes());
        self.meet_for_good(message, checked)
    }

    /// What the device goes by stays; people are told once of each message that was refused.
    fn meet_for_good<T, R: Refusal>(
        &mut self,
        message: &Unsigned,
        checked: Result<T, R>,
    ) -> Result<Met<T, R>, SupervisorError> {
        let refused = match checked {
            Ok(taken) => return Ok(Met::Taken(taken)),
            Err(refused) => refused,
        };
        let told = Some((Digest::of(message.bytes()), refused.code()));
        if !refused.is_security_event() || self.door(message).refused == told {
            return Ok(Met::Waits);
        }
        self.door(message).refused = told;
        let (what, reason) = (message.what(), crate::verify::with_cause(&refused));
        tracing::warn!(what, code = refused.code(), reason, "signed message refused");
        let fault = Fault::new(FaultKind::Untrusted, refused.code(), &reason);
        self.tell(&fault, Severity::Security, None)?;
        Ok(Met::Refused(refused))
    }

    const fn door(&mut self, message: &Unsigned) -> &mut Doorstep {
        match message {
            Unsigned::Halt(_) => &mut self.halts.door,
            Unsigned::Request(_) => &mut self.requests.door,
            Unsigned::Capture(_) => &mut self.captures.door,
        }
    }
}
