//! Takes the list of halted rollouts, by whatever way it comes, and obeys it at once.
//!
//! A halt waits for nothing: it is checked here, with the keys that were trusted when the metadata were last followed, and not behind the
//! questions of the keeper, which wait for the network. Only a list of a key that is not known yet is checked after the metadata.

use std::collections::BTreeMap;

use ed25519_dalek::VerifyingKey;
use sealift_protocol::cose::KeyId;
use sealift_protocol::halt::{HaltList, HaltRefused, Listener, VerifiedHaltList};
use sealift_protocol::id::UnixMillis;
use sealift_protocol::limits::HALT_BYTES_MAX;

use super::doorstep::{Doorstep, Met};
use super::keeper::Unsigned;
use super::{Input, Supervisor, SupervisorError};
use crate::device::{Event, Fault};
use crate::kept::{self, Kept};
use crate::origin::Origin;
use crate::verify;

/// What the device obeys, and whom it believes.
#[derive(Debug, Default)]
pub(super) struct Halts {
    kept: Option<Kept<HaltList>>,
    directors: BTreeMap<KeyId, VerifyingKey>,
    /// When the first of the metadata expires that say so.
    earliest_expiry: UnixMillis,
    pub(super) door: Doorstep,
}

impl Halts {
    pub(super) fn new(kept: Option<Kept<HaltList>>) -> Self {
        Self { kept, ..Self::default() }
    }

    /// The newest list that is obeyed; 0 for none.
    pub(super) fn sequence(&self) -> u64 {
        self.kept.as_ref().map_or(0, |kept| kept.list.sequence)
    }

    pub(super) fn trust(&mut self, directors: BTreeMap<KeyId, VerifyingKey>, until: UnixMillis) {
        (self.directors, self.earliest_expiry) = (directors, until);
    }

    /// The keys that may sign, as far as the metadata were followed.
    pub(super) const fn directors(&self) -> &BTreeMap<KeyId, VerifyingKey> {
        &self.directors
    }

    /// When the first of the metadata expires that were followed.
    pub(super) const fn earliest_expiry(&self) -> UnixMillis {
        self.earliest_expiry
    }
}

impl Supervisor {
    /// What was obeyed before the agent was restarted.
    pub(super) fn obey_kept_halt(&mut self) -> Result<(), SupervisorError> {
        match &self.halts.kept {
            Some(kept) => self.feed(Event::Halts(kept.list.clone())),
            None => Ok(()),
        }
    }

    /// Takes a list that nobody has checked.
    pub(super) fn on_halt(&mut self, message: Vec<u8>) -> Result<(), SupervisorError> {
        let checked = self.check_halt(&message);
        match self.meet(&Unsigned::Halt(message), checked)? {
            Met::Taken(verified) => self.obey_halt(&verified),
            Met::Waits | Met::Refused(_) => Ok(()),
        }
    }

    /// Takes a list once more, after the metadata were followed, or could not be.
    pub(super) fn on_halt_again(
        &mut self,
        message: &Unsigned,
        followed: Result<(), Fault>,
    ) -> Result<(), SupervisorError> {
        match self.meet_again(message, followed, Self::check_halt)? {
            Met::Taken(verified) => self.obey_halt(&verified),
            Met::Waits | Met::Refused(_) => Ok(()),
        }
    }

    fn check_halt(&self, message: &[u8]) -> Result<VerifiedHaltList, HaltRefused> {
        let newest = self.halts.kept.as_ref().map(|kept| (kept.list.sequence, &kept.signer));
        let listener = Listener { tenant: &self.me.tenant, newest };
        match &self.setup.crowd {
            Some(crowd) => crowd.check_halt(message, &self.halts.directors, listener),
            None => HaltList::verify(message, &self.halts.directors, listener),
        }
    }

    /// First it is obeyed, then written: a device that loses its power between the two hears it again. It is said when the list asks for
    /// that, and what it has stopped with it.
    fn obey_halt(&mut self, verified: &VerifiedHaltList) -> Result<(), SupervisorError> {
        let kept = Kept { list: verified.get().clone(), signer: verified.signer().clone() };
        let HaltList { sequence, campaigns, reason, .. } = &kept.list;
        tracing::warn!(sequence, rollouts = campaigns.len(), reason, "list of halted rollouts");
        let due_before = self.report_due;
        self.feed(Event::Halts(kept.list.clone()))?;
        self.report_due = due_before;
        if let Some(crowd) = &self.setup.crowd {
            crowd.obeys(kept.list.sequence);
        }
        let written = self.reserve.spend(|| kept.write(&self.setup.store, kept::HALTS));
        if let Err(error) = written {
            tracing::error!(%error, "list of halted rollouts is not kept over a restart");
        }
        let pause_ms = pause_ms(kept.list.say_within_ms(), verify::spread_permille());
        self.halts.kept = Some(kept);
        self.owe_report_at(self.clock.steady().plus(pause_ms));
        Ok(())
    }
}

/// When a device says that it obeys, of the time in which all of a fleet are to. The first third is the list's own: answers to it would
/// take up the server and the links that have yet to bring it to others.
fn pause_ms(within_ms: u32, spread_permille: u16) -> i64 {
    let quiet_ms = i64::from(within_ms / 3);
    quiet_ms + (i64::from(within_ms) - quiet_ms) * i64::from(spread_permille) / 1_000
}

/// Asks the server: a broker may have lost the list, or keep it back.
pub(super) async fn fetch(origin: &Origin) -> Option<Input> {
    match origin.get("/halt", HALT_BYTES_MAX).await {
        Ok(message) => message.map(Input::Halt),
        Err(error) => {
            tracing::info!(%error, "list of halted rollouts cannot be fetched");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_leave_the_first_third_to_the_list_and_end_in_time() {
        assert_eq!(
            (pause_ms(3_000, 0), pause_ms(3_000, 500), pause_ms(3_000, 1_000)),
            (1_000, 2_000, 3_000)
        );
        assert_eq!(pause_ms(0, 1_000), 0);
    }
}
