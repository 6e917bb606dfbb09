//! Takes the list of what is kept for people to look at, by whatever way it comes. Checked as a list of halts is; what it cannot do is
//! overrule the device's owner.

use std::sync::Arc;

use sealift_protocol::capture::{CaptureList, CaptureRefused, VerifiedCaptureList};
use sealift_protocol::halt::Listener;
use sealift_protocol::limits::CAPTURE_BYTES_MAX;

use super::doorstep::{Doorstep, Met};
use super::keeper::Unsigned;
use super::{Input, Supervisor, SupervisorError};
use crate::capture::Captor;
use crate::config;
use crate::device::Fault;
use crate::kept::{self, Kept};
use crate::origin::Origin;

/// What the device goes by, and who keeps samples.
#[derive(Debug)]
pub(super) struct Captures {
    captor: Captor,
    kept: Option<Kept<CaptureList>>,
    pub(super) door: Doorstep,
}

impl Captures {
    pub(super) fn new(captor: Captor, kept: Option<Kept<CaptureList>>) -> Self {
        Self { captor, kept, door: Doorstep::default() }
    }

    /// The newest list that the device goes by; 0 for none.
    pub(super) fn sequence(&self) -> u64 {
        self.kept.as_ref().map_or(0, |kept| kept.list.sequence)
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
        let checked = self.check_capture(&message);
        if let Met::Taken(verified) = self.meet(&Unsigned::Capture(message), checked)? {
            self.take_captures(&verified);
        }
        Ok(())
    }

    /// Takes a list once more, after the metadata were followed, or could not be.
    pub(super) fn on_capture_again(
        &mut self,
        message: &Unsigned,
        followed: Result<(), Fault>,
    ) -> Result<(), SupervisorError> {
        if let Met::Taken(verified) = self.meet_again(message, followed, Self::check_capture)? {
            self.take_captures(&verified);
        }
        Ok(())
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
        self.owe_report();
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
