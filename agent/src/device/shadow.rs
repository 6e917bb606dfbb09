//! A loaded image beside the live one: it sees the inputs of applications, they do not see its answers. It is made live when both agree as
//! often as the directive asks for.

use sealift_protocol::digest::Digest;
use sealift_protocol::directive::{Likeness, Quiet, Shadow};
use sealift_protocol::id::UnixMillis;
use sealift_protocol::report::{ShadowCounts, Shadowed};
use serde::{Deserialize, Serialize};

use super::phase::{Attempt, Fault, FaultKind, Live, Phase, Step};
use super::slot::Slot;
use super::staged::waits;
use super::{Task, Turn};
use crate::limits::{ACTIVATING_MAX_MS, LOOK_MS, STARTS_FAILED_MAX};

/// A shadow that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shadowing {
    pub(super) until: UnixMillis,
    pub(super) shadowed: Shadowed,
}

impl Shadowing {
    /// The same rules for as long as they now say, from its begin on.
    pub(super) const fn last_for(&mut self, rules: &Shadow) {
        self.until = self.shadowed.since.plus(span_ms(rules));
    }
}

impl Slot {
    /// The image is loaded and has passed its self-test: it is compared first, where that is asked for and there is something to be
    /// compared with.
    pub(super) fn on_warm(&mut self, attempt: Attempt, live: Option<Live>, turn: &mut Turn<'_>) {
        let rules = attempt.desired.trial.shadow;
        let is_proved = rules.is_off() || attempt.alike_at.is_some();
        let beside = live.as_ref().filter(|live| !is_proved && answers(live, &attempt));
        let Some(beside) = beside else { return self.activate(attempt, live, turn) };
        let (image, beside) = (attempt.image(), beside.image().clone());
        turn.start(self.ticket.next(), Task::Shadow { image: image.clone(), rules });
        let counts = ShadowCounts::default();
        let shadowed = Shadowed { image, live: beside, since: turn.now, counts };
        let step = Step::Shadowing(Shadowing { until: turn.until(span_ms(&rules)), shadowed });
        self.phase = Phase::Preparing { attempt, live, step };
    }

    /// What was counted so far.
    pub(super) fn on_compared(
        &mut self,
        (attempt, live): (Attempt, Option<Live>),
        mut shadowing: Shadowing,
        counts: ShadowCounts,
        turn: &mut Turn<'_>,
    ) {
        shadowing.shadowed.counts = counts;
        if let Some(found) = attempt.desired.trial.shadow.so_far(&counts) {
            return self.end_shadow((attempt, live), shadowing, found, turn);
        }
        let step = Step::Shadowing(shadowing);
        self.phase = Phase::Preparing { attempt, live, step };
    }

    /// Its span is over, or nobody answers any more that it could be compared with.
    pub(super) fn on_shadow_over(
        &mut self,
        (attempt, live): (Attempt, Option<Live>),
        shadowing: Shadowing,
        turn: &mut Turn<'_>,
    ) {
        let rules = attempt.desired.trial.shadow;
        let is_answered = live.as_ref().is_some_and(|live| answers(live, &attempt));
        let found = if rules.is_off() || !is_answered {
            Likeness::Alike
        } else {
            rules.at_end(&shadowing.shadowed.counts)
        };
        self.end_shadow((attempt, live), shadowing, found, turn);
    }

    fn end_shadow(
        &mut self,
        (mut attempt, live): (Attempt, Option<Live>),
        Shadowing { shadowed, .. }: Shadowing,
        found: Likeness,
        turn: &mut Turn<'_>,
    ) {
        let rules = attempt.desired.trial.shadow;
        let fault = match (found, rules.quiet) {
            (Likeness::Unlike, _) => Some(disagreement(&rules, &shadowed)),
            (Likeness::Unseen, Quiet::Fail) => Some(quiet(&rules, &shadowed)),
            (Likeness::Unseen, Quiet::Pass) | (Likeness::Alike, _) => None,
        };
        self.shadowed = Some(shadowed);
        if let Some(fault) = fault {
            return self.give_up(&attempt, live, fault, turn);
        }
        attempt.alike_at = Some(turn.now);
        // A shadow that went on beyond its window has disturbed nobody; what follows would.
        if let Some(staged) = waits(&attempt, live.as_ref(), turn.until(LOOK_MS), turn) {
            self.ticket.next();
            turn.cancel();
            self.phase = Phase::Preparing { attempt, live, step: Step::Staged(staged) };
        } else {
            self.activate(attempt, live, turn);
        }
    }

    fn activate(&mut self, attempt: Attempt, live: Option<Live>, turn: &mut Turn<'_>) {
        let image = attempt.image();
        let previous = live.as_ref().and_then(|live| live.fallback_from(&image));
        let previous = previous.map(|previous| previous.image());
        turn.start(self.ticket.next(), Task::Activate { image, previous });
        let until = turn.until(ACTIVATING_MAX_MS);
        self.phase = Phase::Activating { attempt, live, until };
    }

    /// Whether this image is beside the live one, and its worker ended by itself: the live one does not notice.
    pub(super) fn has_lost_shadow(
        &mut self,
        image: Digest,
        reason: &str,
        turn: &mut Turn<'_>,
    ) -> bool {
        let Phase::Preparing { attempt, live, step: Step::Shadowing(shadowing) } = &self.phase
        else {
            return false;
        };
        if attempt.desired.index != image {
            return false;
        }
        let (attempt, live) = (attempt.clone(), live.clone());
        self.shadowed = Some(shadowing.shadowed.clone());
        let reason = format!("its worker ended beside the live image: {reason}");
        let fault = Fault::new(FaultKind::Failed, "shadow.crashed", &reason);
        self.give_up(&attempt, live, fault, turn);
        true
    }

    /// What a shadow that goes on is run by, and until when.
    pub(super) fn shadow_rules(&self) -> Option<(&Shadow, UnixMillis)> {
        let Phase::Preparing { attempt, step: Step::Shadowing(shadowing), .. } = &self.phase else {
            return None;
        };
        Some((&attempt.desired.trial.shadow, shadowing.until))
    }

    /// How the last image compares, or does so far.
    pub(super) fn compared(&self) -> Option<&Shadowed> {
        if let Phase::Preparing { step: Step::Shadowing(shadowing), .. } = &self.phase {
            return Some(&shadowing.shadowed);
        }
        self.shadowed.as_ref()
    }
}

/// Whether another image answers that this one can be compared with.
fn answers(live: &Live, attempt: &Attempt) -> bool {
    live.starts_failed < STARTS_FAILED_MAX && live.image().index != attempt.desired.index
}

fn disagreement(rules: &Shadow, shadowed: &Shadowed) -> Fault {
    let ShadowCounts { rows, agreed, failed, .. } = shadowed.counts;
    let share = 100.0 * shadowed.counts.agreement().unwrap_or_default();
    let asked = f64::from(rules.agreement_permille) / 10.0;
    let version = &shadowed.live.version;
    let of_failed =
        if failed > 0 { format!("; it failed {failed} requests") } else { String::new() };
    let reason = format!(
        "it agrees with version {version} on {agreed} of {rows} rows ({share:.1} %), {asked:.1} % is asked for{of_failed}"
    );
    Fault::new(FaultKind::Unlike, "shadow.disagreement", &reason)
}

fn quiet(rules: &Shadow, shadowed: &Shadowed) -> Fault {
    let ShadowCounts { rows, skipped, .. } = shadowed.counts;
    let reason = format!(
        "{rows} rows were compared in {} s, {} are asked for; {skipped} requests were skipped",
        rules.span_s, rules.rows_min
    );
    Fault::new(FaultKind::Unlike, "shadow.quiet", &reason)
}

const fn span_ms(rules: &Shadow) -> i64 {
    rules.span_s as i64 * 1_000
}
