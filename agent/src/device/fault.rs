//! What a fault means for an attempt: another try after a pause, or its end.

use sealift_protocol::report::OutcomeKind;

use super::Turn;
use super::phase::{Attempt, Fault, FaultKind, Live, Phase, Step};
use super::retry::pause_ms;
use super::slot::Slot;
use crate::limits::{CORRUPT_MAX, RETRY_MAX_MS};

/// Share of the span that passes after bytes were not as signed: a wrong digest is no matter of a crowd.
const CORRUPT_SPREAD_PERMILLE: u16 = 500;

/// Nobody frees a disk within a second: the first pause is a minute,
const ROOM_TRIES_SKIPPED: u32 = 5;

/// and all of it, as this is no matter of a crowd either.
const ROOM_SPREAD_PERMILLE: u16 = 1_000;

impl Slot {
    pub(super) fn on_fault(
        &mut self,
        mut attempt: Attempt,
        live: Option<Live>,
        fault: Fault,
        turn: &mut Turn<'_>,
    ) {
        let pause_ms = match fault.kind {
            FaultKind::Unreachable { spread_permille } => {
                attempt.tries = attempt.tries.saturating_add(1);
                pause_ms(attempt.tries, spread_permille)
            }
            FaultKind::Later { pause_ms } => pause_ms.clamp(1_000, RETRY_MAX_MS),
            FaultKind::Corrupt if attempt.corrupt + 1 < CORRUPT_MAX => {
                attempt.corrupt += 1;
                turn.alarm(&attempt.image(), &fault);
                pause_ms(u32::from(attempt.corrupt), CORRUPT_SPREAD_PERMILLE)
            }
            FaultKind::NoRoom => {
                attempt.tries = attempt.tries.saturating_add(1);
                // Whoever waits for a result has it, once; room may appear all the same.
                if !self.has_ended(&attempt) {
                    turn.alarm(&attempt.image(), &fault);
                    let (mandate, fault) = (attempt.mandate(), Some(fault.clone()));
                    self.conclude(mandate, OutcomeKind::Rejected, fault, turn.now);
                }
                pause_ms(attempt.tries.saturating_add(ROOM_TRIES_SKIPPED), ROOM_SPREAD_PERMILLE)
            }
            FaultKind::Corrupt
            | FaultKind::Untrusted
            | FaultKind::NotApplicable
            | FaultKind::Failed
            | FaultKind::Unlike => return self.give_up(&attempt, live, fault, turn),
        };
        let step = Step::Waiting { until: turn.until(pause_ms), why: Some(fault) };
        self.phase = Phase::Preparing { attempt, live, step };
    }

    /// An error before the swap: the attempt ends, and what is live stays as it is.
    pub(super) fn give_up(
        &mut self,
        attempt: &Attempt,
        live: Option<Live>,
        fault: Fault,
        turn: &mut Turn<'_>,
    ) {
        self.ticket.next();
        turn.cancel();
        turn.alarm(&attempt.image(), &fault);
        let result = fault.outcome();
        self.conclude(attempt.mandate(), result, Some(fault), turn.now);
        if let Some(live) = live.as_ref().filter(|live| live.starts_failed > 0) {
            turn.serve(live.image(), 0);
        }
        self.phase = Phase::Idle { live };
    }

    pub(super) fn on_late(
        &mut self,
        attempt: Attempt,
        live: Option<Live>,
        step: Step,
        turn: &mut Turn<'_>,
    ) {
        let kind = FaultKind::Unreachable { spread_permille: 1_000 };
        let fault = match step {
            Step::Waiting { .. } | Step::Halted => return self.check(attempt, live, turn),
            Step::Staged(staged) => return self.look_again(attempt, live, &staged, turn),
            Step::Shadowing(shadowing) => {
                return self.on_shadow_over((attempt, live), shadowing, turn);
            }
            Step::Checking { .. } => Fault::new(kind, "check.timeout", "checks took too long"),
            Step::Downloading { .. } => {
                let fault = Fault::new(kind, "download.stalled", "no byte came for an hour");
                turn.alarm(&attempt.image(), &fault);
                fault
            }
            Step::Verifying { .. } => {
                Fault::new(FaultKind::Failed, "verify.timeout", "verifying took too long")
            }
            Step::Warming { .. } => {
                let reason = "loading and golden tests took too long";
                Fault::new(FaultKind::Failed, "self-test.timeout", reason)
            }
        };
        self.ticket.next();
        turn.cancel();
        self.on_fault(attempt, live, fault, turn);
    }

    /// Whether the result of this attempt was said already, although it goes on.
    pub(super) fn has_ended(&self, attempt: &Attempt) -> bool {
        self.outcome.as_ref().is_some_and(|outcome| {
            outcome.generation == attempt.generation
                && outcome.image == attempt.image()
                && outcome.result == OutcomeKind::Rejected
        })
    }
}
