//! The reported state: said anew whenever it has changed, steps on the way together.

use std::time::Duration;

use sealift_protocol::id::{Generation, UnixMillis};
use sealift_protocol::report::{Phase, Report, SlotReport, Trusted};
use sealift_protocol::topic::Up;

use super::{Supervisor, SupervisorError};
use crate::disk::{self, Secrecy};
use crate::spool::Keep;

/// So long a device may be at a step before the server hears of it. One that has the image takes five steps in a tenth of a second, and a
/// fleet that goes back takes them all at once: the server then writes what they have come to, once each.
const STEP_REST_MS: i64 = 500;

impl Supervisor {
    /// The reported state may have changed.
    pub(super) fn owe_report(&mut self) {
        self.owe_report_at(self.clock.steady());
    }

    /// The reported state has changed in a way of which the server need not hear before some moment.
    pub(super) fn owe_report_at(&mut self, at: UnixMillis) {
        self.report_due = Some(self.report_due.map_or(at, |due| due.min(at)));
    }

    /// How long nothing need be looked at for the sake of a report; none where none is due.
    pub(super) fn report_rests(&self) -> Option<Duration> {
        Some(rest(self.report_due?, self.clock.steady()))
    }

    /// Spools the reported state, due since a moment, unless it is the one that was reported last. One that could not be kept is said
    /// again later.
    pub(super) fn report(&mut self, since: UnixMillis) -> Result<(), SupervisorError> {
        let trusted = self.trusted();
        let report = Report { trusted, ..self.device.report(self.clock.now()) };
        let has_rested = self.clock.steady().since(since) >= STEP_REST_MS;
        if let Some(last) = &self.last_report {
            let is_same = Report { at: report.at, ..last.clone() } == report;
            if !is_same && !has_rested && is_step(last, &report) {
                return Ok(());
            }
            if is_same {
                self.report_due = None;
                return Ok(());
            }
        }
        self.report_due = None;
        let is_kept = self.spool(Up::Report, Keep::Always, &report)?;
        self.write_status(&report);
        self.last_report = Some(report).filter(|_| is_kept);
        Ok(())
    }

    pub(super) fn trusted(&self) -> Option<Trusted> {
        let (halt, capture) = (self.halts.sequence(), self.captures.sequence());
        self.trusted.clone().map(|trusted| Trusted { halt, capture, ..trusted })
    }

    /// For `fleet-agent status`, which reads what the agent last reported; nobody stands before a simulated device.
    fn write_status(&self, report: &Report) {
        if self.setup.crowd.is_some() {
            return;
        }
        let path = self.setup.store.join("run").join("status.json");
        let written =
            serde_json::to_vec_pretty(report).map_err(std::io::Error::other).and_then(|text| {
                disk::private_dir(&self.setup.store.join("run"))?;
                disk::replace(&path, &text, Secrecy::Public)
            });
        if let Err(error) = written {
            tracing::warn!(%error, "status is not written");
        }
    }
}

/// Until a report is due; of one that is due, until the step that it may be about has rested.
fn rest(due: UnixMillis, now: UnixMillis) -> Duration {
    let rest_ms = if due > now { due.since(now) } else { STEP_REST_MS - now.since(due) };
    Duration::from_millis(u64::try_from(rest_ms).unwrap_or(0))
}

/// Whether a device has come to another step on its way, and nothing else has changed.
fn is_step(last: &Report, next: &Report) -> bool {
    let obeyed =
        |report: &Report| report.trusted.as_ref().map(|trusted| (trusted.halt, trusted.capture));
    last.refused == next.refused
        && obeyed(last) == obeyed(next)
        && last.slots.len() == next.slots.len()
        && last.slots.iter().zip(&next.slots).all(|(was, is)| {
            let is_under_way = was.phase == is.phase || is_on_its_way(is.phase);
            is_under_way && without_step(was) == without_step(is)
        })
}

/// Phases that are over by themselves.
const fn is_on_its_way(phase: Phase) -> bool {
    match phase {
        Phase::Checking
        | Phase::Downloading
        | Phase::Verifying
        | Phase::Warming
        | Phase::Activating => true,
        Phase::Idle
        | Phase::Waiting
        | Phase::Staged
        | Phase::Shadowing
        | Phase::Probation
        | Phase::Watch
        | Phase::Reverting
        | Phase::SafeMode => false,
    }
}

/// What of a slot outlasts a step.
fn without_step(slot: &SlotReport) -> SlotReport {
    SlotReport {
        generation: Generation(0),
        phase: Phase::Idle,
        next: None,
        progress: None,
        wait: None,
        ..slot.clone()
    }
}

#[cfg(test)]
mod tests {
    use sealift_protocol::digest::Digest;
    use sealift_protocol::report::{ImageRef, Outcome, OutcomeKind};

    use super::*;

    #[test]
    fn a_step_rests_and_what_it_came_to_does_not() {
        let idle = report(1, Phase::Watch, "1", None);

        assert!(is_step(&idle, &report(2, Phase::Checking, "1", None)));
        assert!(is_step(
            &report(2, Phase::Checking, "1", None),
            &report(2, Phase::Warming, "1", None)
        ));
        assert!(!is_step(
            &report(2, Phase::Warming, "1", None),
            &report(2, Phase::Probation, "2", None)
        ));
        assert!(!is_step(
            &report(2, Phase::Warming, "1", None),
            &report(2, Phase::Waiting, "1", None)
        ));
        let failed = Some(OutcomeKind::Failed);
        assert!(!is_step(
            &report(2, Phase::Warming, "1", None),
            &report(2, Phase::Checking, "1", failed)
        ));
    }

    #[test]
    fn a_report_rests_until_it_is_due_and_a_step_for_a_while_after() {
        let rest_ms = |due, now| rest(UnixMillis(due), UnixMillis(now)).as_millis();

        assert_eq!(rest_ms(9_000, 4_000), 5_000);
        assert_eq!(rest_ms(9_000, 9_000), 500);
        assert_eq!(rest_ms(9_000, 9_200), 300);
        assert_eq!(rest_ms(9_000, 9_500), 0);
        assert_eq!(rest_ms(9_000, 60_000), 0);
    }

    #[test]
    fn a_halt_that_is_obeyed_does_not_rest() {
        let last = report(1, Phase::Watch, "1", None);
        let trusted = Some(Trusted { halt: 2, ..Trusted::default() });
        let next = Report { trusted, ..report(1, Phase::Watch, "1", None) };

        assert!(!is_step(&last, &next));
    }

    fn report(generation: u64, phase: Phase, serving: &str, ended: Option<OutcomeKind>) -> Report {
        let generation = Generation(generation);
        let image =
            ImageRef { version: serving.parse().unwrap(), index: Digest::of(serving.as_bytes()) };
        let outcome = ended.map(|result| Outcome {
            generation,
            rollout: None,
            image: image.clone(),
            result,
            code: String::new(),
            reason: String::new(),
            at: UnixMillis(0),
            kept_at: None,
        });
        let slot = SlotReport {
            phase,
            serving: Some(image),
            outcome,
            ..SlotReport::idle("vision/digits".parse().unwrap(), generation)
        };
        let trusted = Some(Trusted::default());
        Report { generation, refused: None, slots: vec![slot], at: UnixMillis(0), trusted }
    }
}
