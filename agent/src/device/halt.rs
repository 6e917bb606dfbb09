//! What the list of halted rollouts does to one model: before the swap everything stops where it is, after it nothing does.

use sealift_protocol::digest::Digest;
use sealift_protocol::report::Halted;

use super::phase::{Phase, Step};
use super::slot::Slot;
use super::{Device, Effect, HaltList, Turn};
use sealift_protocol::id::UnixMillis;

impl Turn<'_> {
    /// Whether what belongs to this rollout must not be gone on with.
    pub(super) fn halts(&self, campaign: Option<Digest>) -> bool {
        self.halt.is_some_and(|halt| halt.stops(campaign))
    }
}

impl Device {
    /// A list is absolute: whatever it does not name goes on from where it was.
    pub(super) fn on_halt(&mut self, list: HaltList, now: UnixMillis, effects: &mut Vec<Effect>) {
        if self.halt.as_ref() == Some(&list) {
            return;
        }
        self.halt = Some(list);
        self.each(now, effects, |_, _| ());
        effects.push(Effect::Report);
    }

    /// What a slot that waits says of it.
    pub(super) fn halted(&self) -> Option<Halted> {
        let halt = self.halt.as_ref()?;
        Some(Halted { since: halt.issued_at, reason: halt.reason.clone() })
    }
}

impl Slot {
    /// Whether it waits because its rollout is halted.
    pub(super) const fn is_halted(&self) -> bool {
        matches!(self.phase, Phase::Preparing { step: Step::Halted, .. })
    }

    /// Stops what is before the swap and halted, with what it has on disk; lets go on what was halted and is not any more. The swap and
    /// what follows it end by themselves.
    pub(super) fn obey_halt(&mut self, turn: &mut Turn<'_>) {
        let Phase::Preparing { attempt, step, .. } = &self.phase else { return };
        let is_to_stop = turn.halts(attempt.desired.campaign);
        let has_stopped = *step == Step::Halted;
        if is_to_stop == has_stopped {
            return;
        }
        let Phase::Preparing { attempt, live, .. } = self.take_phase() else { return };
        if is_to_stop {
            self.ticket.next();
            turn.cancel();
            self.phase = Phase::Preparing { attempt, live, step: Step::Halted };
        } else {
            self.check(attempt, live, turn);
        }
    }
}
