//! New images beside live ones: shown what applications ask, and told to the device as they compare.

use sealift_protocol::directive::Shadow;
use sealift_protocol::id::{ModelName, UnixMillis};
use sealift_protocol::report::{ImageRef, ShadowCounts};
use tokio::task::AbortHandle;

use super::{Supervisor, SupervisorError};
use crate::device::{Answer, Event, Fault, FaultKind, Ticket};
use crate::limits::SHADOW_TOLD_MS;
use crate::serve::Challenger;

/// An image beside what is live. Its worker is the warm one.
#[derive(Debug)]
pub(super) struct Beside {
    challenger: Challenger,
    ticket: Ticket,
    job: AbortHandle,
    /// What the device knows, and since when.
    told: ShadowCounts,
    told_at: UnixMillis,
}

impl Supervisor {
    /// Puts the warm worker beside the live one.
    pub(super) fn begin_shadow(
        &mut self,
        model: &ModelName,
        ticket: Ticket,
        (image, rules): (&ImageRef, Shadow),
    ) -> Result<(), Fault> {
        self.end_shadow(model);
        let warm = self.workers.warm.get(model).filter(|live| live.image() == image);
        let ended = || {
            let reason = "the worker ended before it was put beside the live one";
            Fault::new(FaultKind::Failed, "shadow.crashed", reason)
        };
        let live = warm.ok_or_else(ended)?.clone();
        tracing::info!(%model, version = %image.version, span_s = rules.span_s, "image is beside the live one");
        let (challenger, samples) = Challenger::new(live, rules);
        // Not on the thread on which applications are answered.
        let captor = self.switchboard.captor().clone();
        let job = tokio::spawn(challenger.clone().compare(samples, captor)).abort_handle();
        self.switchboard.challenge(model, Some(challenger.clone()));
        let (told, told_at) = (ShadowCounts::default(), self.clock.steady());
        let beside = Beside { challenger, ticket, job, told, told_at };
        self.workers.shadows.insert(model.clone(), beside);
        Ok(())
    }

    /// Takes away what is beside the live worker; its own worker stays.
    pub(super) fn end_shadow(&mut self, model: &ModelName) {
        if let Some(beside) = self.workers.shadows.remove(model) {
            beside.job.abort();
            self.switchboard.challenge(model, None);
        }
    }

    /// Tells the device how images compare: at once when something follows from it, else now and then.
    pub(super) fn tell_shadows(&mut self, now: UnixMillis) -> Result<(), SupervisorError> {
        let models: Vec<_> = self.workers.shadows.keys().cloned().collect();
        for model in models {
            let Some((&rules, until)) = self.device.shadow(&model) else { continue };
            let Some(beside) = self.workers.shadows.get_mut(&model) else { continue };
            beside.challenger.set_rules(rules);
            let counts = beside.challenger.counts();
            let is_due = until <= now
                || now.since(beside.told_at) >= SHADOW_TOLD_MS
                || rules.so_far(&counts).is_some();
            if counts == beside.told || !is_due {
                continue;
            }
            (beside.told, beside.told_at) = (counts, now);
            let (ticket, answer) = (beside.ticket, Answer::Compared(counts));
            self.feed(Event::Answer { model, ticket, answer })?;
        }
        Ok(())
    }
}
