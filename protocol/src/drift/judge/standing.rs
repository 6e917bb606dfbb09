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
    let breach = supported(finding, thresholds.open, policy.alpha());
    let was_drifted = before.is_some_and(|before| before.state == DriftState::Drifted);
    let support = match breach {
        None if was_drifted => supported(finding, thresholds.close, policy.alpha_close()),
        breach => breach,
    };
    let evidence = support.unwrap_or(newest);

    let streak = match breach {
        Some(_) => before.map_or(0, |before| before.streak).saturating_add(1),
        None => 0,
    };
    let calm = match support {
        None if was_drifted => before.map_or(0, |before| before.calm).saturating_add(1),
        Some(_) | None => 0,
    };
    let state = match (was_drifted, streak) {
        (true, _) if calm < policy.windows_in_a_row => DriftState::Drifted,
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
        statistic: evidence.measure.statistic,
        p: evidence.measure.p,
        corrected_p: evidence.corrected_p,
        rows: evidence.rows,
        windows: evidence.windows,
        from: evidence.from,
        until: finding.until,
        state,
        streak,
        calm,
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
        statistic: 0.0,
        p: 1.0,
        corrected_p: 1.0,
        rows: finding.rows,
        windows: 1,
        from: finding.from,
        until: finding.until,
        state: DriftState::TooFew,
        streak: 0,
        calm: 0,
        since: before.map_or(finding.until, |before| before.since),
        why: format!("{} rows; nothing is said below {}", finding.rows, policy.rows_judged_min),
    }
}

/// The shortest span that says it differs, unless its newest rows say otherwise: what they no longer show is over, even if longer spans
/// still remember it.
fn supported<'a>(finding: &Finding<'a>, threshold: f64, alpha: f64) -> Option<Evidence<'a>> {
    let differs = |(place, span): &(usize, &Evidence<'a>)| {
        let measure = span.measure;
        let mut newer = finding.spans.iter().take(*place);
        measure.effect() >= threshold
            && span.corrected_p < alpha
            && !newer.any(|newer| newer.measure.contradicts(measure))
    };
    finding.spans.iter().enumerate().find(differs).map(|(_, span)| *span)
}

const fn thresholds(metric: Metric, policy: &Policy) -> Thresholds {
    match metric {
        Metric::MissingShare
        | Metric::WrongTypeShare
        | Metric::OutOfRangeShare
        | Metric::UnseenShare => Thresholds { open: policy.share_open, close: policy.share_close },
        Metric::Stuck => Thresholds { open: 1.0, close: 1.0 },
        Metric::SdRatio
        | Metric::RankShift
        | Metric::ConfidenceShift
        | Metric::RankSpread
        | Metric::ConfidenceSpread => {
            Thresholds { open: policy.rank_open, close: policy.rank_close }
        }
        Metric::CutGap | Metric::ConfidenceGap | Metric::CategoryGap | Metric::ClassGap => {
            Thresholds { open: policy.gap_open, close: policy.gap_close }
        }
        Metric::Concordance => {
            Thresholds { open: policy.concordance_open, close: policy.concordance_close }
        }
        Metric::PsiNumeric
        | Metric::PsiCategorical
        | Metric::PsiClasses
        | Metric::PsiConfidence
        | Metric::PsiGroup
        | Metric::JensenShannon
        | Metric::KolmogorovSmirnov
        | Metric::WassersteinSd
        | Metric::ChiSquare
        | Metric::Cardinality => Thresholds { open: policy.psi_open, close: policy.psi_close },
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
    format!(
        "{} {:.3}{most} (counts from {}), corrected p {:.1e}, over {} rows in {} {windows}",
        finding.metric,
        measure.value,
        thresholds.open,
        evidence.corrected_p,
        evidence.rows,
        evidence.windows,
    )
}
