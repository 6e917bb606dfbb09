//! Takes the list of what is kept for people to look at, by whatever way it comes. Checked as a list of halts is; what it cannot do is
//! overrule the device's owner.

use std::sync::Arc;

use sealift_protocol::capture::{CaptureList, CaptureRefused, VerifiedCaptureList};
use sealift_protocol::cose::CoseError;
use sealift_protocol::digest::Digest;
use sealift_protocol::halt::Listener;
use sealift_protocol::limits::CAPTURE_BYTES_MAX;
use sealift_protocol::telemetry::Severity;

use super::keeper::{Question, Unsigned};
use super::{Input, Supervisor, SupervisorError};
use crate::capture::Captor;
use crate::config;
use crate::device::{Fault, FaultKind};
use crate::kept::{self, Kept};
use crate::origin::Origin;

/// What the device goes by, and who keeps samples.
#[derive(Debug)]
pub(super) struct Captures {
    captor: Captor,
    kept: Option<Kept<CaptureList>>,
    /// Whether a list waits for the metadata. One at a time: junk must not keep the keeper busy.
    is_asked: bool,
    refused: Option<(Digest, &'static str)>,
}

impl Captures {
    pub(super) const fn new(captor: Captor, kept: Option<Kept<CaptureList>>) -> Self {
        Self { captor, kept, is_asked: false, refused: None }
    }
}

impl Supervisor {
    /// What the device went by before the agent was restarted.
    pub(super) fn follow_kept_captures(&mut self) {
        let list = self.captures.kept.as_ref().map(|kept| kept.list.clone());
        self.follow_captures(list);
    }

    fn follow_captures(&self, list: Option<CaptureList>) {
        // The owner's word stands above every signature.
        let is_forbidden = self.setup.config.capture == config::Capture::Forbidden;
        let list = list.filter(|_| !is_forbidden);
        for (model, policy) in list.iter().flat_map(|list| &list.models) {
            let notice = policy.notice_text();
            tracing::warn!(%model, notice, "predictions are kept for people to look at");
        }
        self.captures.captor.follow(list.map(Arc::new));
    }

    /// Takes a list that nobody has checked.
    pub(super) fn on_capture(&mut self, message: Vec<u8>) -> Result<(), SupervisorError> {
        match self.check_capture(&message) {
            Ok(verified) => self.take_captures(&verified),
            Err(CaptureRefused::Cose(CoseError::UnknownKey(_))) => {
                if !self.captures.is_asked {
                    let question = Question::Directors(Unsigned::Capture(message));
                    self.captures.is_asked = self.keeper.try_send(question).is_ok();
                }
            }
            Err(refused) => return self.refuse_captures(&message, &refused),
        }
        Ok(())
    }

    /// Takes a list once more, after the metadata were followed, or could not be.
    pub(super) fn on_capture_again(
        &mut self,
        message: &[u8],
        followed: Result<(), Fault>,
    ) -> Result<(), SupervisorError> {
        self.captures.is_asked = false;
        if let Err(Fault { code, reason, .. }) = followed {
            tracing::warn!(code, reason, "capture list cannot be checked yet");
            return Ok(());
        }
        match self.check_capture(message) {
            Ok(verified) => {
                self.take_captures(&verified);
                Ok(())
            }
            Err(refused) => self.refuse_captures(message, &refused),
        }
    }

    fn check_capture(&self, message: &[u8]) -> Result<VerifiedCaptureList, CaptureRefused> {
        let newest = self.captures.kept.as_ref().map(|kept| (kept.list.sequence, &kept.signer));
        let listener = Listener { tenant: &self.me.tenant, newest };
        CaptureList::verify(message, self.halts.directors(), listener)
    }

    fn take_captures(&mut self, verified: &VerifiedCaptureList) {
        let kept = Kept { list: verified.get().clone(), signer: verified.signer().clone() };
        let (sequence, models) = (kept.list.sequence, kept.list.models.len());
        tracing::info!(sequence, models, "capture list taken");
        // First it is written: a device that loses its power must not go by the list before, which may keep more.
        let written = self.reserve.spend(|| kept.write(&self.setup.store, kept::CAPTURES));
        if let Err(error) = written {
            tracing::error!(%error, "capture list is not kept over a restart");
        }
        self.follow_captures(Some(kept.list.clone()));
        self.captures.kept = Some(kept);
    }

    /// The list that the device goes by stays; people are told once of each that was refused.
    fn refuse_captures(
        &mut self,
        message: &[u8],
        refused: &CaptureRefused,
    ) -> Result<(), SupervisorError> {
        let told = Some((Digest::of(message), refused.code()));
        if !refused.is_security_event() || self.captures.refused == told {
            return Ok(());
        }
        self.captures.refused = told;
        let reason = crate::verify::with_cause(refused);
        tracing::warn!(code = refused.code(), reason, "capture list refused");
        let fault = Fault::new(FaultKind::Untrusted, refused.code(), &reason);
        self.tell(&fault, Severity::Security, None)
    }
}

/// Asks the server: a broker may have lost the list, or keep it back.
pub(super) async fn fetch(origin: &Origin) -> Option<Input> {
    match origin.get("/capture", CAPTURE_BYTES_MAX).await {
        Ok(message) => message.map(Input::Capture),
        Err(error) => {
            tracing::info!(%error, "capture list cannot be fetched");
            None
        }
    }
}
