//! What a slot says of itself.

use sealift_protocol::id::ModelName;
use sealift_protocol::report::{self, ImageRef, Progress, SlotReport, Wait};

use super::phase::{Fault, Lease, Phase, Previous, Stage, Step};
use super::slot::Slot;

impl Slot {
    pub(super) fn report(&self, model: &ModelName) -> SlotReport {
        let (phase, next, progress) = self.work();
        let is_serving = !matches!(self.phase, Phase::SafeMode { .. });
        SlotReport {
            model: model.clone(),
            generation: self.begun,
            phase,
            serving: self.serving().filter(|_| is_serving).cloned(),
            next,
            previous: self.previous().map(Previous::image),
            progress,
            outcome: self.outcome.clone(),
            providers: self.providers.clone(),
            campaign: self.live().and_then(|live| live.mandate.campaign),
            lease_until: self.lease().map(|lease| lease.until),
            held: None,
            wait: self.wait(),
            halted: None,
            shadow: self.compared().cloned(),
        }
    }

    /// What keeps it from going on at once.
    fn wait(&self) -> Option<Wait> {
        let Phase::Preparing { step, .. } = &self.phase else { return None };
        match step {
            Step::Staged(staged) => Some(staged.wait()),
            Step::Waiting { until, why: Some(Fault { code, reason, .. }) } => {
                Some(Wait { code: code.clone(), reason: reason.clone(), until: *until })
            }
            Step::Waiting { why: None, .. }
            | Step::Checking { .. }
            | Step::Downloading { .. }
            | Step::Verifying { .. }
            | Step::Warming { .. }
            | Step::Shadowing(_)
            | Step::Halted => None,
        }
    }

    /// What the server must still countersign.
    fn lease(&self) -> Option<Lease> {
        match &self.phase {
            Phase::Trial { live, .. } => live.lease,
            Phase::Idle { .. }
            | Phase::Preparing { .. }
            | Phase::Activating { .. }
            | Phase::Reverting { .. }
            | Phase::SafeMode { .. }
            | Phase::Removing { .. } => None,
        }
    }

    /// The phase by its public name, the image worked towards, and how far a download is.
    fn work(&self) -> (report::Phase, Option<ImageRef>, Option<Progress>) {
        use report::Phase as Public;
        match &self.phase {
            Phase::Idle { .. } => (Public::Idle, None, None),
            Phase::Preparing { attempt, step, .. } => {
                let (phase, progress) = match step {
                    // What it waits for is said beside the phase: an older server knows no other word.
                    Step::Waiting { .. } | Step::Halted => (Public::Waiting, None),
                    Step::Checking { .. } => (Public::Checking, None),
                    Step::Downloading { progress, .. } => (Public::Downloading, Some(*progress)),
                    Step::Verifying { .. } => (Public::Verifying, None),
                    Step::Staged(_) => (Public::Staged, None),
                    Step::Warming { .. } => (Public::Warming, None),
                    Step::Shadowing(_) => (Public::Shadowing, None),
                };
                (phase, Some(attempt.image()), progress)
            }
            Phase::Activating { attempt, .. } => (Public::Activating, Some(attempt.image()), None),
            Phase::Trial { stage: Stage::Probation { .. }, .. } => (Public::Probation, None, None),
            Phase::Trial { stage: Stage::Watch, .. } => (Public::Watch, None, None),
            Phase::Reverting { to, .. } => {
                (Public::Reverting, to.as_ref().map(Previous::image), None)
            }
            Phase::Removing { .. } => (Public::Reverting, None, None),
            Phase::SafeMode { live, .. } => (Public::SafeMode, Some(live.image().clone()), None),
        }
    }
}
