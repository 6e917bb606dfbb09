//! `fleetctl drift`.

mod devices;
mod replay;

pub(crate) use replay::Replay;

use std::cmp::Reverse;

use sealift_protocol::api::{DriftState, DriftView, HistogramView, HistoryPoint};
use sealift_protocol::id::UnixMillis;

use crate::cli::Drift;
use crate::client::Client;
use crate::output::{Output, note, table, word};

/// `connect` is called only by what needs a server: a replay does not.
pub(crate) async fn run(
    connect: impl Fn() -> anyhow::Result<Client>,
    output: Output,
    drift: Drift,
) -> anyhow::Result<()> {
    match drift {
        Drift::List { model, scope, all } => {
            let model = model.map(|model| model.to_string()).unwrap_or_default();
            let scope = scope.unwrap_or_default();
            let query = [("model", model.as_str()), ("scope", scope.as_str())];
            let verdicts = connect()?.list("drift", &query).await?;
            list(output, verdicts, all)
        }
        Drift::Devices { model, device, all } => {
            let model = model.map(|model| model.to_string()).unwrap_or_default();
            let name = device.as_ref().map(ToString::to_string).unwrap_or_default();
            let mut query = Vec::new();
            query.extend((!model.is_empty()).then_some(("model", model.as_str())));
            query.extend((!name.is_empty()).then_some(("device", name.as_str())));
            let devices = connect()?.list("drift/devices", &query).await?;
            devices::list(output, devices, all || device.is_some())
        }
        Drift::Show { model, scope, subject } => {
            let model = model.to_string();
            let query =
                [("model", model.as_str()), ("scope", scope.as_str()), ("subject", &subject)];
            let histogram: HistogramView = connect()?.get("drift/histogram", &query).await?;
            output.text(&histogram, text)
        }
        Drift::History { model, scope, subject, since, until, step } => {
            let model = model.to_string();
            let moment = |at: Option<UnixMillis>| at.map(|at| at.0.to_string());
            let (since, until) = (moment(since), moment(until));
            let mut query = vec![
                ("model", model.as_str()),
                ("scope", scope.as_str()),
                ("subject", &subject),
                ("step", &step),
            ];
            query.extend(since.as_deref().map(|since| ("from", since)));
            query.extend(until.as_deref().map(|until| ("until", until)));
            let points: Vec<HistoryPoint> = connect()?.get("drift/history", &query).await?;
            history(output, &points)
        }
        Drift::Replay(replay) => replay::run(output.format(), &replay),
    }
}

fn list(output: Output, verdicts: Vec<DriftView>, all: bool) -> anyhow::Result<()> {
    let given = verdicts.len();
    let is_news = |verdict: &DriftView| {
        all || matches!(verdict.state, DriftState::Suspect | DriftState::Drifted)
    };
    let mut verdicts: Vec<_> = verdicts.into_iter().filter(is_news).collect();
    verdicts.sort_by(|a, b| {
        let rank = |verdict: &DriftView| Reverse(verdict.state == DriftState::Drifted);
        rank(a).cmp(&rank(b)).then(b.value.total_cmp(&a.value))
    });
    let rows = verdicts.iter().map(|verdict| {
        [
            verdict.model.to_string(),
            verdict.version.to_string(),
            verdict.scope.clone(),
            verdict.subject.clone(),
            word(verdict.state),
            format!("{:.3} / {:.3}", verdict.value, verdict.threshold),
            verdict.metric.clone(),
            counted(verdict.rows, verdict.skipped),
        ]
    });
    let columns =
        ["MODEL", "VERSION", "SCOPE", "SUBJECT", "STATE", "VALUE / LIMIT", "METRIC", "ROWS"];
    output.rows(&verdicts, columns, rows)?;
    if verdicts.is_empty() {
        note(&format!("nothing drifts ({given} verdicts; --all shows them)"));
    }
    Ok(())
}

fn history(output: Output, points: &[HistoryPoint]) -> anyhow::Result<()> {
    let largest = points.iter().map(|point| point.value).fold(f64::MIN_POSITIVE, f64::max);
    let rows = points.iter().map(|point| {
        [
            point.from.to_string(),
            point.version.to_string(),
            counted(point.rows, point.skipped),
            word(point.state),
            format!("{:.3} / {:.3}", point.value, point.threshold),
            bar(point.value / largest),
        ]
    });
    output.rows(&points, ["FROM", "VERSION", "ROWS", "STATE", "VALUE / LIMIT", ""], rows)?;
    if points.is_empty() {
        note("nothing is known of that time; hours are kept for weeks, days for about a year");
    }
    Ok(())
}

/// Characters of the longest bar.
const BAR_CHARS: f64 = 30.0;

fn text(histogram: &HistogramView) -> String {
    let bars = histogram.bins.iter().zip(&histogram.reference).zip(&histogram.current);
    let rows = bars.map(|((bin, &reference), &current)| {
        [bin.clone(), percent(reference), percent(current), bar(current)]
    });
    let table = table(["BIN", "REFERENCE", "CURRENT", ""], rows);
    let different = histogram.different.map_or_else(String::new, |different| {
        let least = if different.is_at_least { "at least " } else { "" };
        format!(", {least}{:.0} different values", different.values)
    });
    let rows = counted(histogram.rows, histogram.skipped);
    format!("{} ({rows} rows{different})\n{table}", histogram.subject)
}

/// Rows that were looked at, and how many came in the same time and were passed over.
fn counted(rows: u64, skipped: u64) -> String {
    if skipped == 0 {
        rows.to_string()
    } else {
        format!("{rows} of {}", rows.saturating_add(skipped))
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn bar(share: f64) -> String {
    let full = (share * BAR_CHARS).clamp(0.0, BAR_CHARS);
    (1_u8..=30).take_while(|&step| f64::from(step) <= full).map(|_| '█').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_were_passed_over_are_counted_beside_those_that_were_looked_at() {
        let json = |more: &str| {
            format!(
                r#"{{"subject":"feature:light","bins":["dark","bright"],"reference":[0.5,0.5],
                "current":[1.0,0.0],"rows":400{more}}}"#
            )
        };
        let shown = |more: &str| text(&serde_json::from_str(&json(more)).unwrap());

        assert!(shown(r#","skipped":35"#).starts_with("feature:light (400 of 435 rows)\n"));
        assert!(shown("").starts_with("feature:light (400 rows)\n"), "an older server says none");
    }
}
