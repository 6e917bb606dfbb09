//! A slot from the pointer swap on: probation, watch, and the way back.

use sealift_protocol::digest::Digest;
use sealift_protocol::directive::Trial;
use sealift_protocol::id::Generation;
use sealift_protocol::image::OnRevoked;
use sealift_protocol::report::OutcomeKind;

use super::phase::{
    Fault, FaultKind, Lease, Live, Mandate, Phase, Previous, Stage, Standing, Step,
};
use super::retry::pause_ms;
use super::slot::{REVOKED, Slot};
use super::{Answer, Providers, Task, Turn};
use crate::behaviour::Misstep;
use crate::limits::{BOOTS_MAX, REVERTING_MAX_MS, STARTS_FAILED_MAX};

/// Pause before the worker of a live image is started again.
const RESTART_MS: i64 = 500;

/// Share of the span that a restart waits: one device's worker is no matter of a crowd.
const RESTART_SPREAD_PERMILLE: u16 = 500;

impl Slot {
    /// Serves an image on trial.
    pub(super) fn try_out(&mut self, live: Live, rules: Trial, turn: &Turn<'_>) {
        let until = turn.until(millis(rules.probation_s));
        let generation = live.mandate.generation;
        let lease = Lease { generation, until: turn.until(millis(rules.lease_s)) };
        let live = Live { lease: Some(lease).filter(|_| rules.lease_s > 0), ..live };
        let stage = Stage::Probation { boots: 0 };
        self.phase = Phase::Trial { live, rules, until, crashes: 0, stage };
    }

    pub(super) fn on_boot_in_trial(&mut self, phase: Phase, turn: &mut Turn<'_>) {
        let Phase::Trial { mut live, rules, until, crashes, stage } = phase else { return };
        if let Some(lease) = &mut live.lease {
            // While the agent did not run, nobody could have heard of it.
            lease.until = turn.until(millis(rules.lease_s));
        }
        self.phase = match stage {
            Stage::Probation { boots } if boots >= BOOTS_MAX => {
                let reason = "the agent was started too often while the image was on trial";
                let fault = Fault::new(FaultKind::Failed, "trial.boots", reason);
                return self.turn_back(live, fault, turn);
            }
            Stage::Probation { boots } => {
                // Time in which nothing was served proves nothing.
                let until = turn.until(millis(rules.probation_s));
                let stage = Stage::Probation { boots: boots + 1 };
                Phase::Trial { live, rules, until, crashes, stage }
            }
            Stage::Watch => {
                // A clock that was wrong before must not make the watch last for years.
                let until = until.min(turn.until(millis(rules.watch_s)));
                Phase::Trial { live, rules, until, crashes, stage }
            }
        };
    }

    pub(super) fn on_trial_tick(&mut self, phase: Phase, turn: &mut Turn<'_>) {
        match phase {
            Phase::Trial { live: live @ Live { lease: Some(lease), .. }, .. }
                if lease.until <= turn.now =>
            {
                let reason = "the server has not countersigned in time; it may not hear the device";
                let fault = Fault::new(FaultKind::Failed, "trial.lease", reason);
                self.turn_back(live, fault, turn);
            }
            Phase::Trial { live, rules, stage: Stage::Probation { .. }, .. } => {
                self.keep(live, rules, turn);
            }
            Phase::Trial { live, stage: Stage::Watch, .. } => {
                let live = Live { lease: None, ..live };
                self.phase = Phase::Idle { live: Some(live) };
            }
            Phase::Reverting { from, to, fault, .. } => {
                self.ticket.next();
                turn.cancel();
                self.not_reverted(from, to, fault, turn);
            }
            Phase::SafeMode { live, tries, .. } => {
                turn.serve(live.image(), 0);
                let tries = tries.saturating_add(1);
                let retry_at = turn.until(pause_ms(tries, 1_000));
                self.phase = Phase::SafeMode { live, tries, retry_at };
            }
            // Not handed over by the parent.
            phase @ (Phase::Idle { .. }
            | Phase::Preparing { .. }
            | Phase::Activating { .. }
            | Phase::Removing { .. }) => self.phase = phase,
        }
    }

    fn keep(&mut self, live: Live, rules: Trial, turn: &mut Turn<'_>) {
        self.conclude(live.mandate.clone(), OutcomeKind::Committed, None, turn.now);
        // trust.md, 14: only an image that is kept raises the floor: going back from a trial must stay possible. From then on what is
        // below the floor is not gone back to either: a worker that can be made to crash must not bring a known hole back.
        self.kept_epoch = self.kept_epoch.max(live.epoch);
        let floor = turn.floor.max(live.epoch);
        let previous = live.previous.filter(|previous| previous.epoch >= floor);
        let live = Live { standing: Standing::Kept, previous, ..live };
        let until = turn.until(millis(rules.watch_s));
        self.phase = Phase::Trial { live, rules, until, crashes: 0, stage: Stage::Watch };
    }

    /// The worker of a live image answers.
    pub(super) fn on_served(&mut self, image: Digest, providers: Providers) {
        let Some(live) = self.live_mut(image) else { return };
        live.starts_failed = 0;
        self.providers = providers;
        if let Phase::SafeMode { live, .. } = &self.phase {
            self.phase = Phase::Idle { live: Some(live.clone()) };
        }
    }

    /// The worker of a live image could not be started.
    pub(super) fn on_not_served(&mut self, image: Digest, reason: &str, turn: &mut Turn<'_>) {
        let Some(live) = self.live_mut(image) else { return };
        live.starts_failed = live.starts_failed.saturating_add(1);
        let (failed, image) = (live.starts_failed, live.image().clone());
        let fault = Fault::new(FaultKind::Failed, "worker.start", reason);
        let after_ms = pause_ms(u32::from(failed), RESTART_SPREAD_PERMILLE);
        match self.take_phase() {
            Phase::Trial { live, .. } if failed >= STARTS_FAILED_MAX => {
                self.turn_back(live, fault, turn);
            }
            Phase::Idle { live: Some(live) } if failed >= STARTS_FAILED_MAX => {
                self.turn_back_or_wait(live, fault, turn);
            }
            Phase::Preparing { attempt, live, step: Step::Shadowing(shadowing) }
                if failed >= STARTS_FAILED_MAX =>
            {
                self.on_shadow_over((attempt, live), shadowing, turn);
            }
            // Its own clock says when to try again.
            phase @ Phase::SafeMode { .. } => self.phase = phase,
            phase @ (Phase::Idle { .. }
            | Phase::Preparing { .. }
            | Phase::Activating { .. }
            | Phase::Trial { .. }
            | Phase::Reverting { .. }
            | Phase::Removing { .. }) => {
                turn.serve(&image, after_ms);
                self.phase = phase;
            }
        }
    }

    fn turn_back_or_wait(&mut self, live: Live, fault: Fault, turn: &mut Turn<'_>) {
        if live.previous.is_some() {
            return self.turn_back(live, fault, turn);
        }
        turn.alarm(live.image(), &fault);
        let retry_at = turn.until(pause_ms(1, 1_000));
        self.phase = Phase::SafeMode { live, tries: 1, retry_at };
    }

    /// The worker of a live image ended by itself.
    pub(super) fn on_crashed(&mut self, image: Digest, reason: &str, turn: &mut Turn<'_>) {
        if self.has_lost_shadow(image, reason, turn) {
            return;
        }
        let Some(live) = self.live_mut(image) else { return };
        let image = live.image().clone();
        let fault = Fault::new(FaultKind::Failed, "worker.crashed", reason);
        match self.take_phase() {
            Phase::Trial { live, rules, crashes, .. }
                if crashes.saturating_add(1) >= rules.crashes_max =>
            {
                self.turn_back(live, fault, turn);
            }
            Phase::Trial { live, rules, until, crashes, stage } => {
                turn.alarm(&image, &fault);
                turn.serve(&image, 0);
                let crashes = crashes + 1;
                self.phase = Phase::Trial { live, rules, until, crashes, stage };
            }
            phase @ (Phase::Idle { .. }
            | Phase::Preparing { .. }
            | Phase::Activating { .. }
            | Phase::Reverting { .. }
            | Phase::SafeMode { .. }
            | Phase::Removing { .. }) => {
                turn.alarm(&image, &fault);
                turn.serve(&image, RESTART_MS);
                self.phase = phase;
            }
        }
    }

    /// Judges an image on trial by the requests that failed.
    pub(super) fn on_counted(
        &mut self,
        image: Digest,
        (requests, errors): (u64, u64),
        turn: &mut Turn<'_>,
    ) {
        let Phase::Trial { live, rules, .. } = &self.phase else { return };
        let limit = u128::from(rules.errors_max_permille) * u128::from(requests);
        let is_bad = u128::from(errors) * 1_000 > limit;
        if live.image().index != image || requests < u64::from(rules.requests_min) || !is_bad {
            return;
        }
        let reason = format!(
            "{errors} of {requests} requests failed, at most {} per mille may",
            rules.errors_max_permille
        );
        let fault = Fault::new(FaultKind::Failed, "trial.errors", &reason);
        let live = live.clone();
        self.turn_back(live, fault, turn);
    }

    /// The rules of the trial and what can be gone back to.
    pub(super) fn trial(&self) -> Option<(&Trial, Digest)> {
        let Phase::Trial { live, rules, .. } = &self.phase else { return None };
        Some((rules, live.previous.as_ref()?.index()))
    }

    /// An image on trial behaves worse than the image before. Where there is none before, a slow or unsure image is better than nothing.
    pub(super) fn on_misbehaved(&mut self, image: Digest, misstep: &Misstep, turn: &mut Turn<'_>) {
        let Phase::Trial { live, rules, .. } = &self.phase else { return };
        // The rules may have changed since it was judged.
        let limit = misstep.limit_permille(&rules.behaviour);
        let Some(limit) = limit.filter(|_| live.image().index == image) else { return };
        if live.previous.is_none() {
            return;
        }
        let fault = Fault::new(FaultKind::Failed, misstep.code(), &misstep.reason(limit));
        let live = live.clone();
        self.turn_back(live, fault, turn);
    }

    /// An image was put on the deny list: it is not prepared any further, not gone back to, and its policy says what follows where
    /// it is live.
    pub(super) fn on_revoked(&mut self, image: Digest, action: OnRevoked, turn: &mut Turn<'_>) {
        // A swap ends by itself, and then the deny list is looked at again.
        if self.is_swapping() {
            return;
        }
        self.forget_previous(image);
        if let Phase::Preparing { attempt, live, .. } = &self.phase
            && attempt.desired.index == image
        {
            let fault = revoked("the image was put on the deny list while it was prepared");
            let (attempt, live) = (attempt.clone(), live.clone());
            self.give_up(&attempt, live, fault, turn);
        }
        if self.live_mut(image).is_some() {
            self.on_live_revoked(image, action, turn);
        }
    }

    fn on_live_revoked(&mut self, image: Digest, action: OnRevoked, turn: &mut Turn<'_>) {
        if action == OnRevoked::KeepWithAlarm {
            let fault = revoked(
                "the live image is on the deny list; it serves on, as its publisher wishes",
            );
            if let Some(live) = self.live_mut(image) {
                turn.alarm(&live.image().clone(), &fault);
            }
            return;
        }
        // What was on its way is begun again once the revoked image is off the board.
        let is_preparing = matches!(self.phase, Phase::Preparing { .. });
        if is_preparing {
            self.begun = Generation::default();
        }
        let Some(live) = self.leave(turn) else { return };
        let to = live.previous.filter(|_| action == OnRevoked::Fallback);
        let is_fetched = action == OnRevoked::Fallback
            && to.is_none()
            && !is_preparing
            && self.want_fallback(image);
        let fault = revoked(match (&to, action) {
            (Some(_), _) => {
                "the live image was put on the deny list; the image before it serves again"
            }
            (None, _) if is_fetched => {
                "the live image was put on the deny list; the fallback is fetched"
            }
            (None, OnRevoked::Fallback) => {
                "it is on the deny list, and there is no image to go back to"
            }
            (None, OnRevoked::Stop | OnRevoked::KeepWithAlarm) => {
                "it is on the deny list, and its publisher wants it stopped"
            }
        });
        self.revert(live.mandate, to, fault, turn);
    }

    /// What is on the deny list is not gone back to.
    fn forget_previous(&mut self, image: Digest) {
        let live = match &mut self.phase {
            Phase::Idle { live } | Phase::Preparing { live, .. } => live.as_mut(),
            Phase::Trial { live, .. } | Phase::SafeMode { live, .. } => Some(live),
            Phase::Activating { .. } | Phase::Reverting { .. } | Phase::Removing { .. } => None,
        };
        if let Some(live) = live {
            live.previous.take_if(|previous| previous.index() == image);
        }
    }

    /// Goes back; from an image that was kept once, and has none before it, to itself: something bad to serve is better than nothing.
    fn turn_back(&mut self, live: Live, fault: Fault, turn: &mut Turn<'_>) {
        let itself = (live.standing == Standing::Kept).then(|| live.as_previous());
        self.revert(live.mandate, live.previous.or(itself), fault, turn);
    }

    /// Goes back from an image that was made live.
    pub(super) fn revert(
        &mut self,
        from: Mandate,
        to: Option<Previous>,
        fault: Fault,
        turn: &mut Turn<'_>,
    ) {
        turn.alarm(&from.image, &fault);
        let image = to.as_ref().map(Previous::image);
        turn.start(self.ticket.next(), Task::Revert { to: image });
        self.phase = Phase::Reverting { from, to, fault, until: turn.until(REVERTING_MAX_MS) };
    }

    pub(super) fn on_swapped_back(&mut self, phase: Phase, answer: Answer, turn: &mut Turn<'_>) {
        match (phase, answer) {
            (Phase::Reverting { from, to, fault, .. }, Answer::Reverted { providers }) => {
                self.providers = providers;
                let live = to.map(|to| kept(&from, &to));
                self.conclude(from, OutcomeKind::RolledBack, Some(fault), turn.now);
                self.phase = Phase::Idle { live };
            }
            (Phase::Reverting { from, to, fault, .. }, Answer::Failed(_)) => {
                self.not_reverted(from, to, fault, turn);
            }
            (Phase::Removing { .. }, Answer::Retired) => {
                self.providers.clear();
                self.phase = Phase::Idle { live: None };
            }
            // A removal that failed is tried again at its deadline; other answers belong to no swap.
            (phase, _) => self.phase = phase,
        }
    }

    /// The image to go back to does not start either: nothing but the agent works, and it keeps trying.
    fn not_reverted(
        &mut self,
        from: Mandate,
        to: Option<Previous>,
        fault: Fault,
        turn: &mut Turn<'_>,
    ) {
        self.phase = match to {
            Some(to) => {
                let live = kept(&from, &to);
                let retry_at = turn.until(pause_ms(1, 1_000));
                Phase::SafeMode { live, tries: 1, retry_at }
            }
            None => Phase::Idle { live: None },
        };
        self.conclude(from, OutcomeKind::RolledBack, Some(fault), turn.now);
    }

    fn live_mut(&mut self, image: Digest) -> Option<&mut Live> {
        let live = match &mut self.phase {
            Phase::Idle { live }
            | Phase::Preparing { live, .. }
            | Phase::Activating { live, .. }
            | Phase::Removing { live, .. } => live.as_mut(),
            Phase::Trial { live, .. } | Phase::SafeMode { live, .. } => Some(live),
            Phase::Reverting { .. } => None,
        };
        live.filter(|live| live.image().index == image)
    }
}

fn revoked(reason: &str) -> Fault {
    Fault::new(FaultKind::Untrusted, REVOKED, reason)
}

/// An image that served before `from` and serves again.
fn kept(from: &Mandate, to: &Previous) -> Live {
    let (standing, epoch, image) = (Standing::Kept, to.epoch, to.image());
    let mandate = Mandate { generation: from.generation, rollout: None, campaign: None, image };
    Live { mandate, previous: None, standing, epoch, starts_failed: 0, lease: None }
}

fn millis(seconds: u32) -> i64 {
    i64::from(seconds) * 1_000
}
