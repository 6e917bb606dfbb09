//! From evidence to a verdict, with a memory: opening is slower and harder than staying open.
//!
//! ```text
//!            differs            differs again (k windows in a row)
//!   Steady ──────────▶ Suspect ──────────────────────────────────▶ Drifted
//!     ▲                   │ does not differ                           │ newest window below the lower threshold
//!     └───────────────────┴───────────────────────────────────────────┘
//! ```

use crate::drift::DriftState;
use crate::drift::Metric;

use super::{Evidence, Finding, Policy, Verdict};
use crate::drift::Scope;

/// Where a metric opens and where it closes.
#[derive(Clone, Copy)]
struct Thresholds {
    open: f64,
    close: f64,
}

/// What to think now, after what was thought before.
pub(super) fn next(finding: &Finding<'_>, before: Option<&Verdict>, policy: &Policy) -> Verdict {
    if let Some(before) = before
        && finding.until <= before.until
    {
        return before.clone();
    }
    let thresholds = thresholds(finding.metric, policy);
    let Some(newest) = finding.spans.first().copied() else {
        return too_few(finding, before, thresholds, policy);
    };
    // What the newest rows no longer show is over, even if longer spans still remember it.
    let is_current = newest.measure.value >= thresholds.close;
    let differs = |span: &&Evidence<'_>| {
        span.measure.value >= thresholds.open && span.corrected_p < policy.alpha()
    };
    let breach = finding.spans.iter().find(differs).copied().filter(|_| is_current);
    let evidence = breach.unwrap_or(newest);

    let streak = match breach {
        Some(_) => before.map_or(0, |before| before.streak).saturating_add(1),
        None => 0,
    };
    let was_drifted = before.is_some_and(|before| before.state == DriftState::Drifted);
    let state = match (was_drifted, streak) {
        (true, _) if is_current => DriftState::Drifted,
        (_, 0) => DriftState::Steady,
        (_, streak) if streak >= policy.windows_in_a_row => DriftState::Drifted,
        (_, _) => DriftState::Suspect,
    };
    let unchanged = before.filter(|before| before.state == state);
    Verdict {
        scope: finding.scope.clone(),
        subject: finding.subject.clone(),
        metric: finding.metric,
        value: evidence.measure.value,
        threshold: thresholds.open,
        p: evidence.measure.p,
        corrected_p: evidence.corrected_p,
        rows: evidence.rows,
        windows: evidence.windows,
        from: evidence.from,
        until: finding.until,
        state,
        streak,
        since: unchanged.map_or(finding.until, |before| before.since),
        why: why(finding, &evidence, state, thresholds),
    }
}

/// Without enough rows what was thought before stays; it becomes neither better nor worse.
fn too_few(
    finding: &Finding<'_>,
    before: Option<&Verdict>,
    thresholds: Thresholds,
    policy: &Policy,
) -> Verdict {
    if let Some(before) = before.filter(|before| before.state != DriftState::TooFew) {
        return before.clone();
    }
    Verdict {
        scope: finding.scope.clone(),
        subject: finding.subject.clone(),
        metric: finding.metric,
        value: 0.0,
        threshold: thresholds.open,
        p: 1.0,
        corrected_p: 1.0,
        rows: finding.rows,
        windows: 1,
        from: finding.from,
        until: finding.until,
        state: DriftState::TooFew,
        streak: 0,
        since: before.map_or(finding.until, |before| before.since),
        why: format!("{} rows; nothing is said below {}", finding.rows, policy.rows_min),
    }
}

const fn thresholds(metric: Metric, policy: &Policy) -> Thresholds {
    if metric.is_share() {
        Thresholds { open: policy.share_open, close: policy.share_close }
    } else {
        Thresholds { open: policy.psi_open, close: policy.psi_close }
    }
}

fn why(
    finding: &Finding<'_>,
    evidence: &Evidence<'_>,
    state: DriftState,
    thresholds: Thresholds,
) -> String {
    let measure = evidence.measure;
    let strongest = measure.strongest.as_ref().filter(|_| state != DriftState::Steady);
    let most = strongest.map_or_else(String::new, |feature| format!(", most in `{feature}`"));
    let windows = if evidence.windows == 1 { "window" } else { "windows" };
    let facts = format!(
        "{} {:.3}{most} (counts from {}), corrected p {:.1e}, over {} rows in {} {windows}",
        finding.metric,
        measure.value,
        thresholds.open,
        evidence.corrected_p,
        evidence.rows,
        evidence.windows,
    );
    if state != DriftState::Drifted {
        return facts;
    }
    format!("{facts}; {}", meaning(finding.scope))
}

/// What drift at this level usually comes from.
const fn meaning(scope: &Scope) -> &'static str {
    match scope {
        Scope::Device(_) => "this device differs from its cohort: look at its sensor first",
        Scope::Cohort { .. } => {
            "the whole cohort differs from the reference: its surroundings changed, or the image does not suit them"
        }
        Scope::Fleet => {
            "the fleet differs from the reference: the world changed, or the image is a bad one"
        }
    }
}
