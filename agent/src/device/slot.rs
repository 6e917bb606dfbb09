//! One model's state machine, up to the pointer swap; `trial` has what comes after it.

use sealift_protocol::digest::Digest;
use sealift_protocol::directive::DesiredSlot;
use sealift_protocol::id::{Epoch, Generation, UnixMillis};
use sealift_protocol::report::{ImageRef, Outcome, OutcomeKind, Progress, ShadowCounts, Shadowed};
use serde::{Deserialize, Serialize};

use super::phase::{
    Attempt, Fault, FaultKind, Lease, Live, Mandate, Phase, Previous, Stage, Standing, Step,
};
use super::shadow::Shadowing;
use super::staged::Staged;
use super::{Answer, Providers, Task, Ticket, Turn};
use crate::limits::{
    BOOTS_MAX, CHECKING_MAX_MS, REVERTING_MAX_MS, STALLED_AFTER_MS, VERIFYING_MAX_MS,
};

/// The code of everything that follows from the deny list.
pub(super) const REVOKED: &str = "image.revoked";

/// What a device does, did last and should do with one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slot {
    /// The newest directive that was accepted, and what it says of this model.
    generation: Generation,
    desired: Option<DesiredSlot>,
    /// The newest directive that was begun; each is begun once.
    pub(super) begun: Generation,
    pub(super) phase: Phase,
    /// How the last attempt ended; stays until the next one ends.
    pub(super) outcome: Option<Outcome>,
    pub(super) providers: Providers,
    /// The highest security epoch of an image that was kept. In one record with the decision to keep it: a crash cannot part them.
    #[serde(default)]
    pub(super) kept_epoch: Epoch,
    /// How the last image compared that was tried beside the live one.
    #[serde(default)]
    pub(super) shadowed: Option<Shadowed>,
    #[serde(skip)]
    pub(super) ticket: TicketSource,
}

/// The number of the newest task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct TicketSource(Ticket);

impl TicketSource {
    fn current(self) -> Ticket {
        self.0
    }

    /// A number that no earlier task has: their answers come too late.
    pub(super) fn next(&mut self) -> Ticket {
        self.0 = Ticket(self.0.0.wrapping_add(1));
        self.0
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            generation: Generation::default(),
            desired: None,
            begun: Generation::default(),
            phase: Phase::Idle { live: None },
            outcome: None,
            providers: Providers::default(),
            kept_epoch: Epoch::default(),
            shadowed: None,
            ticket: TicketSource::default(),
        }
    }
}

impl Slot {
    /// A slot that serves `image` by nobody's mandate that is still known.
    pub(super) fn adopted(image: ImageRef, previous: Option<ImageRef>) -> Self {
        let generation = Generation::default();
        let mandate = Mandate { generation, rollout: None, campaign: None, image };
        let (standing, epoch) = (Standing::Kept, Epoch::default());
        let previous = previous.map(|image| Previous::new(image, epoch));
        let live = Some(Live { mandate, previous, standing, epoch, starts_failed: 0, lease: None });
        Self { phase: Phase::Idle { live }, ..Self::default() }
    }

    /// Notes what the newest directive says.
    pub(super) fn want(&mut self, generation: Generation, desired: Option<DesiredSlot>) {
        if let (Phase::Trial { live, .. }, Some(desired)) = (&mut self.phase, &desired) {
            let is_seen = |lease: &mut Lease| desired.confirmed >= Some(lease.generation);
            live.lease.take_if(|lease| desired.index == live.mandate.image.index && is_seen(lease));
        }
        self.generation = generation;
        self.desired = desired;
    }

    /// Begins what was noted, unless a swap is under way: that ends by itself, and then this is called again.
    pub(super) fn begin_newest(&mut self, turn: &mut Turn<'_>) {
        if self.generation <= self.begun || self.is_swapping() || turn.is_held {
            return;
        }
        self.begun = self.generation;
        match self.desired.clone() {
            Some(desired) => self.begin(Attempt::new(self.generation, desired), turn),
            None => self.begin_removal(turn),
        }
    }

    /// Whether what is live is being changed; that ends by itself.
    pub(super) const fn is_swapping(&self) -> bool {
        matches!(
            self.phase,
            Phase::Activating { .. } | Phase::Reverting { .. } | Phase::Removing { .. }
        )
    }

    /// The owner keeps what is live: what was under way is begun again later, from its beginning.
    pub(super) fn on_held(&mut self, turn: &mut Turn<'_>) {
        match self.take_phase() {
            Phase::Preparing { live, .. } => {
                self.ticket.next();
                turn.cancel();
                self.begun = Generation::default();
                self.phase = Phase::Idle { live };
            }
            phase @ (Phase::Idle { .. }
            | Phase::Activating { .. }
            | Phase::Trial { .. }
            | Phase::Reverting { .. }
            | Phase::SafeMode { .. }
            | Phase::Removing { .. }) => self.phase = phase,
        }
    }

    fn begin(&mut self, wanted: Attempt, turn: &mut Turn<'_>) {
        if self.carry_on_as(&wanted, turn) {
            return;
        }
        self.shadowed.take_if(|shadowed| shadowed.image != wanted.image());
        let was_safe_mode = matches!(self.phase, Phase::SafeMode { .. });
        match self.leave(turn) {
            Some(live) if *live.image() == wanted.image() && !was_safe_mode => {
                self.keep_or_try(Live { mandate: wanted.mandate(), ..live }, &wanted, turn);
            }
            live => self.check(wanted, live, turn),
        }
    }

    /// The same image under a newer generation: no work is lost.
    fn carry_on_as(&mut self, wanted: &Attempt, turn: &Turn<'_>) -> bool {
        match &mut self.phase {
            Phase::Preparing { attempt, step, .. } if attempt.image() == wanted.image() => {
                attempt.generation = wanted.generation;
                attempt.desired = wanted.desired.clone();
                // Whoever says it again wants it looked at again.
                match step {
                    Step::Waiting { until, .. } => *until = turn.now,
                    Step::Shadowing(shadowing) => shadowing.last_for(&wanted.desired.trial.shadow),
                    Step::Checking { .. }
                    | Step::Downloading { .. }
                    | Step::Verifying { .. }
                    | Step::Staged(_)
                    | Step::Warming { .. }
                    | Step::Halted => (),
                }
                true
            }
            Phase::Trial { live, rules, stage, .. } if *live.image() == wanted.image() => {
                live.mandate = wanted.mandate();
                *rules = wanted.desired.trial;
                if *stage == Stage::Watch {
                    self.conclude(wanted.mandate(), OutcomeKind::Committed, None, turn.now);
                }
                true
            }
            // About another image, or about none.
            Phase::Preparing { .. }
            | Phase::Trial { .. }
            | Phase::Idle { .. }
            | Phase::Activating { .. }
            | Phase::Reverting { .. }
            | Phase::SafeMode { .. }
            | Phase::Removing { .. } => false,
        }
    }

    /// Gives up what is under way; the live image stays.
    pub(super) fn leave(&mut self, turn: &mut Turn<'_>) -> Option<Live> {
        match std::mem::replace(&mut self.phase, Phase::Idle { live: None }) {
            Phase::Preparing { attempt, live, .. } => {
                self.ticket.next();
                turn.cancel();
                if !self.has_ended(&attempt) {
                    self.conclude(attempt.mandate(), OutcomeKind::Superseded, None, turn.now);
                }
                live
            }
            Phase::Trial { live, stage, .. } => {
                if stage != Stage::Watch {
                    let mandate = live.mandate.clone();
                    self.conclude(mandate, OutcomeKind::Superseded, None, turn.now);
                }
                Some(live)
            }
            Phase::SafeMode { live, .. } => Some(live),
            // The swaps are never left; were they, what is live would still be kept.
            Phase::Idle { live }
            | Phase::Activating { live, .. }
            | Phase::Removing { live, .. } => live,
            Phase::Reverting { .. } => None,
        }
    }

    /// The wanted image is live already.
    fn keep_or_try(&mut self, live: Live, wanted: &Attempt, turn: &mut Turn<'_>) {
        turn.serve(live.image(), 0);
        match live.standing {
            Standing::Kept => {
                self.conclude(live.mandate.clone(), OutcomeKind::Committed, None, turn.now);
                self.phase = Phase::Idle { live: Some(live) };
            }
            Standing::OnTrial => self.try_out(live, wanted.desired.trial, turn),
        }
    }

    fn begin_removal(&mut self, turn: &mut Turn<'_>) {
        let live = self.leave(turn);
        if live.is_some() {
            self.phase = Phase::Removing { live, until: turn.until(REVERTING_MAX_MS) };
            turn.start(self.ticket.next(), Task::Retire);
        }
    }

    pub(super) fn check(&mut self, attempt: Attempt, live: Option<Live>, turn: &mut Turn<'_>) {
        if turn.halts(attempt.desired.campaign) {
            self.phase = Phase::Preparing { attempt, live, step: Step::Halted };
            return;
        }
        let desired = Box::new(attempt.desired.clone());
        turn.start(self.ticket.next(), Task::Check { desired, floor: turn.floor });
        let step = Step::Checking { until: turn.until(CHECKING_MAX_MS) };
        self.phase = Phase::Preparing { attempt, live, step };
    }

    /// Takes up after a start of the agent: the live image first, then what was under way, from its beginning.
    pub(super) fn on_started(&mut self, turn: &mut Turn<'_>) {
        if let Some(image) = self.serving().cloned() {
            turn.serve(&image, 0);
        }
        match self.take_phase() {
            Phase::Preparing { mut attempt, live, step } => {
                let may_be_the_cause = matches!(step, Step::Warming { .. } | Step::Shadowing(_));
                attempt.boots += u8::from(may_be_the_cause);
                attempt.looks += u16::from(matches!(step, Step::Staged(_)));
                self.check_after_boot(attempt, live, turn);
            }
            Phase::Activating { mut attempt, live, .. } => {
                attempt.boots += 1;
                self.check_after_boot(attempt, live, turn);
            }
            Phase::Reverting { from, to, fault, .. } => {
                let image = to.as_ref().map(Previous::image);
                turn.start(self.ticket.next(), Task::Revert { to: image });
                let until = turn.until(REVERTING_MAX_MS);
                self.phase = Phase::Reverting { from, to, fault, until };
            }
            Phase::Removing { live, .. } => {
                turn.start(self.ticket.next(), Task::Retire);
                self.phase = Phase::Removing { live, until: turn.until(REVERTING_MAX_MS) };
            }
            Phase::SafeMode { live, tries, .. } => {
                self.phase = Phase::SafeMode { live, tries, retry_at: turn.now };
            }
            phase @ Phase::Trial { .. } => self.on_boot_in_trial(phase, turn),
            phase @ Phase::Idle { .. } => self.phase = phase,
        }
    }

    fn check_after_boot(&mut self, attempt: Attempt, live: Option<Live>, turn: &mut Turn<'_>) {
        if attempt.boots > BOOTS_MAX {
            let reason = "the agent stopped each time that the image was loaded";
            let fault = Fault::new(FaultKind::Failed, "warming.boots", reason);
            self.give_up(&attempt, live, fault, turn);
        } else {
            self.check(attempt, live, turn);
        }
    }

    /// Takes the answer of the newest task; those of earlier ones come too late.
    pub(super) fn on_answer(&mut self, ticket: Ticket, answer: Answer, turn: &mut Turn<'_>) {
        if ticket != self.ticket.current() {
            return;
        }
        match (self.take_phase(), answer) {
            (Phase::Preparing { attempt, live, step }, answer) => {
                self.on_prepared(attempt, live, (step, answer), turn);
            }
            (Phase::Activating { attempt, live, .. }, Answer::Activated { providers }) => {
                self.providers = providers;
                let again = live.as_ref().filter(|live| live.has_kept(&attempt.image()));
                let standing = again.map_or(Standing::OnTrial, |live| live.standing);
                let before = again.and_then(|live| live.previous.clone());
                let previous = live.as_ref().and_then(|live| live.fallback_from(&attempt.image()));
                let previous = previous.or(before);
                let (mandate, epoch) = (attempt.mandate(), attempt.epoch);
                let live =
                    Live { mandate, previous, standing, epoch, starts_failed: 0, lease: None };
                self.try_out(live, attempt.desired.trial, turn);
            }
            (Phase::Activating { attempt, live, .. }, Answer::Failed(fault)) => {
                let to = live.map(|live| live.as_previous());
                self.revert(attempt.mandate(), to, fault, turn);
            }
            (phase @ (Phase::Reverting { .. } | Phase::Removing { .. }), answer) => {
                self.on_swapped_back(phase, answer, turn);
            }
            (phase, _) => self.phase = phase, // no task runs in the other phases
        }
    }

    fn on_prepared(
        &mut self,
        mut attempt: Attempt,
        live: Option<Live>,
        (step, answer): (Step, Answer),
        turn: &mut Turn<'_>,
    ) {
        let image = attempt.image();
        let step = match (step, answer) {
            (Step::Checking { .. }, Answer::Checked { epoch, total_bytes }) => {
                attempt.epoch = epoch;
                // A device that answers nobody, or with a known hole, does not wait for the night.
                let is_urgent = live.as_ref().is_none_or(|live| live.epoch < epoch);
                turn.start(self.ticket.next(), Task::Download { image, is_urgent });
                let stalled_at = turn.until(STALLED_AFTER_MS);
                Step::Downloading { progress: Progress { done_bytes: 0, total_bytes }, stalled_at }
            }
            (Step::Downloading { progress: before, stalled_at }, Answer::Progress(progress)) => {
                // A download that asks and asks, and gets nothing, says so, too.
                let has_grown = before.done_bytes < progress.done_bytes;
                let stalled_at = if has_grown { turn.until(STALLED_AFTER_MS) } else { stalled_at };
                Step::Downloading { progress, stalled_at }
            }
            (Step::Downloading { .. }, Answer::Downloaded) => {
                attempt.tries = 0;
                turn.start(self.ticket.next(), Task::Verify { image });
                Step::Verifying { until: turn.until(VERIFYING_MAX_MS) }
            }
            (Step::Verifying { .. }, Answer::Verified) => {
                return self.on_complete(attempt, live, turn);
            }
            (Step::Warming { .. }, Answer::Warmed) => {
                return self.on_warm(attempt, live, turn);
            }
            (Step::Shadowing(shadowing), Answer::Compared(counts)) => {
                return self.on_compared((attempt, live), shadowing, counts, turn);
            }
            (_, Answer::Failed(fault)) => return self.on_fault(attempt, live, fault, turn),
            (step, _) => step, // an answer to another step cannot have this ticket
        };
        self.phase = Phase::Preparing { attempt, live, step };
    }

    /// Ends what has reached its deadline.
    pub(super) fn on_tick(&mut self, turn: &mut Turn<'_>) {
        let is_staged = matches!(self.phase, Phase::Preparing { step: Step::Staged(_), .. });
        if !is_staged && self.deadline().is_none_or(|deadline| turn.now < deadline) {
            return;
        }
        match self.take_phase() {
            Phase::Preparing { attempt, live, step } => self.on_late(attempt, live, step, turn),
            Phase::Activating { attempt, live, .. } => {
                let fault = Fault::new(FaultKind::Failed, "activate.timeout", "the swap hung");
                let to = live.map(|live| live.as_previous());
                self.revert(attempt.mandate(), to, fault, turn);
            }
            Phase::Removing { live, .. } => {
                turn.start(self.ticket.next(), Task::Retire);
                self.phase = Phase::Removing { live, until: turn.until(REVERTING_MAX_MS) };
            }
            phase @ (Phase::Trial { .. } | Phase::Reverting { .. } | Phase::SafeMode { .. }) => {
                self.on_trial_tick(phase, turn);
            }
            phase @ Phase::Idle { .. } => self.phase = phase,
        }
    }

    pub(super) fn take_phase(&mut self) -> Phase {
        std::mem::replace(&mut self.phase, Phase::Idle { live: None })
    }

    pub(super) fn conclude(
        &mut self,
        mandate: Mandate,
        result: OutcomeKind,
        fault: Option<Fault>,
        at: UnixMillis,
    ) {
        let (code, reason) = fault.map(|fault| (fault.code, fault.reason)).unwrap_or_default();
        let Mandate { generation, rollout, image, campaign: _ } = mandate;
        let kept = self.outcome.take().filter(|before| {
            result == OutcomeKind::RolledBack
                && before.result == OutcomeKind::Committed
                && before.image == image
        });
        let kept_at = kept.map(|before| before.at);
        self.outcome =
            Some(Outcome { generation, rollout, image, result, code, reason, at, kept_at });
    }

    /// When the phase ends by itself.
    pub(crate) const fn deadline(&self) -> Option<UnixMillis> {
        match &self.phase {
            Phase::Idle { .. } => None,
            Phase::Preparing { step, .. } => match step {
                Step::Waiting { until, .. }
                | Step::Staged(Staged { until, .. })
                | Step::Shadowing(Shadowing { until, .. })
                | Step::Checking { until }
                | Step::Verifying { until }
                | Step::Warming { until } => Some(*until),
                Step::Downloading { stalled_at, .. } => Some(*stalled_at),
                Step::Halted => None,
            },
            Phase::Trial { live: Live { lease: Some(lease), .. }, until, .. }
                if lease.until.0 < until.0 =>
            {
                Some(lease.until)
            }
            Phase::Activating { until, .. }
            | Phase::Trial { until, .. }
            | Phase::Reverting { until, .. }
            | Phase::Removing { until, .. } => Some(*until),
            Phase::SafeMode { retry_at, .. } => Some(*retry_at),
        }
    }

    /// Nothing is served, nothing is wanted, nothing is under way.
    pub(super) fn is_gone(&self) -> bool {
        let is_done = self.generation <= self.begun;
        is_done && self.desired.is_none() && self.phase == Phase::Idle { live: None }
    }

    /// Whether the journal need not know of the change: progress is found again on disk, and a shadow begins anew with the agent.
    pub(super) fn is_same_on_disk(&self, other: &Self) -> bool {
        let durable = |slot: &Self| {
            let mut slot = slot.clone();
            slot.ticket = TicketSource::default();
            if let Phase::Preparing { step, .. } = &mut slot.phase {
                if let Step::Downloading { progress, stalled_at } = step {
                    progress.done_bytes = 0;
                    *stalled_at = UnixMillis::default();
                }
                if let Step::Shadowing(shadowing) = step {
                    shadowing.shadowed.counts = ShadowCounts::default();
                }
            }
            slot
        };
        durable(self) == durable(other)
    }

    pub(super) const fn live(&self) -> Option<&Live> {
        match &self.phase {
            Phase::Idle { live }
            | Phase::Preparing { live, .. }
            | Phase::Activating { live, .. }
            | Phase::Removing { live, .. } => live.as_ref(),
            Phase::Trial { live, .. } | Phase::SafeMode { live, .. } => Some(live),
            Phase::Reverting { .. } => None,
        }
    }

    /// The image that answers requests, or should.
    pub(crate) fn serving(&self) -> Option<&ImageRef> {
        self.live().map(Live::image)
    }

    /// What the live image can be replaced by without a download.
    pub(super) fn previous(&self) -> Option<&Previous> {
        self.live()?.previous.as_ref()
    }

    /// Why the model answers nobody, where that is because its image was revoked.
    pub(super) fn withdrawn(&self) -> Option<String> {
        let outcome = self.outcome.as_ref().filter(|outcome| outcome.code == REVOKED)?;
        let version = &outcome.image.version;
        self.serving()
            .is_none()
            .then(|| format!("version {version} was revoked: {}", outcome.reason))
    }

    /// Begins again what the directive asks for, now with what it names as fallback. Returns whether it names one.
    pub(super) fn want_fallback(&mut self, revoked: Digest) -> bool {
        let Some(desired) = self.desired.as_mut().filter(|desired| desired.index == revoked) else {
            return false;
        };
        let Some(ImageRef { version, index }) = desired.fallback.take() else { return false };
        (desired.version, desired.index) = (version, index);
        // Both are about the image that was revoked.
        (desired.manifest, desired.campaign, desired.cosignature) = (None, None, None);
        desired.epoch = Epoch::default();
        self.begun = Generation::default();
        true
    }

    /// What the slot cannot do without, now or later.
    pub(super) fn images(&self) -> Vec<Digest> {
        let live = self.live().into_iter();
        let live = live.flat_map(|live| {
            [Some(live.image().index), live.previous.as_ref().map(Previous::index)]
        });
        let mut images: Vec<_> = live.flatten().collect();
        match &self.phase {
            Phase::Preparing { attempt, .. } | Phase::Activating { attempt, .. } => {
                images.push(attempt.desired.index);
            }
            Phase::Reverting { from, to, .. } => {
                images.push(from.image.index);
                images.extend(to.as_ref().map(Previous::index));
            }
            Phase::Idle { .. }
            | Phase::Trial { .. }
            | Phase::SafeMode { .. }
            | Phase::Removing { .. } => {}
        }
        images
    }
}
