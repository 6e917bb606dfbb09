//! What detectors did, added up: one table of all, and one of what each missed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Deserialize;

/// What one detector did on one stream.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Outcome {
    /// Which list the stream is from.
    kind: String,
    stream: String,
    detector: String,
    /// Windows with an alarm before anything drifted, and all such windows.
    alarms: u32,
    quiet: u32,
    is_drift: bool,
    /// Windows from the first that drifted to the first with an alarm; none if it was missed.
    delay: Option<u32>,
}

/// Sums over streams.
#[derive(Debug, Default)]
struct Sums {
    alarms: u32,
    quiet: u32,
    drifts: u32,
    delays: Vec<u32>,
}

impl Sums {
    fn add(&mut self, outcome: &Outcome) {
        self.alarms += outcome.alarms;
        self.quiet += outcome.quiet;
        self.drifts += u32::from(outcome.is_drift);
        self.delays.extend(outcome.delay.filter(|_| outcome.is_drift));
    }

    fn rate(&self) -> f64 {
        1_000.0 * f64::from(self.alarms) / f64::from(self.quiet.max(1))
    }

    fn missed(&self) -> usize {
        usize::try_from(self.drifts).unwrap_or(usize::MAX).saturating_sub(self.delays.len())
    }

    fn mean_delay(&self) -> Option<f64> {
        let found = u32::try_from(self.delays.len()).ok().filter(|found| *found > 0)?;
        Some(self.delays.iter().copied().map(f64::from).sum::<f64>() / f64::from(found))
    }
}

/// Writes both tables.
pub(super) fn of(outcomes: &[Outcome]) -> String {
    let mut by_detector = BTreeMap::<(&str, &str), Sums>::new();
    for outcome in outcomes {
        for kind in ["all", outcome.kind.as_str()] {
            by_detector.entry((kind, &outcome.detector)).or_default().add(outcome);
        }
    }
    let mut text = format!(
        "{:8} {:24} {:>13} {:>14} {:>12} {:>10}\n",
        "streams", "detector", "quiet windows", "false / 1,000", "missed", "delay"
    );
    for ((kind, detector), sums) in &by_detector {
        let missed = format!("{} of {}", sums.missed(), sums.drifts);
        let delay = sums.mean_delay().map_or_else(|| "-".to_owned(), |delay| format!("{delay:.1}"));
        let (quiet, rate) = (sums.quiet, sums.rate());
        let _ = writeln!(
            text,
            "{kind:8} {detector:24} {quiet:>13} {rate:>14.2} {missed:>12} {delay:>10}"
        );
    }
    text.push_str(&by_stream(outcomes));
    text
}

/// For each stream what each detector did: false alarms of a quiet one, misses and mean delay of a drift.
fn by_stream(outcomes: &[Outcome]) -> String {
    let detectors: BTreeSet<&str> = outcomes.iter().map(|outcome| &*outcome.detector).collect();
    let mut by_stream = BTreeMap::<(bool, &str, &str), BTreeMap<&str, Sums>>::new();
    for outcome in outcomes {
        let stream = (outcome.is_drift, outcome.kind.as_str(), outcome.stream.as_str());
        let of_stream = by_stream.entry(stream).or_default();
        of_stream.entry(&outcome.detector).or_default().add(outcome);
    }
    let mut text =
        "\nfalse alarms of quiet streams; of drifts the missed, and the delay of those found\n"
            .to_owned();
    let _ = write!(text, "{:32}", "");
    for detector in &detectors {
        let _ = write!(text, " {:>14}", detector.chars().take(14).collect::<String>());
    }
    text.push('\n');
    for ((is_drift, _, stream), of_stream) in &by_stream {
        let _ = write!(text, "{stream:32}");
        for detector in &detectors {
            let cell =
                of_stream.get(detector).map_or_else(String::new, |sums| cell(*is_drift, sums));
            let _ = write!(text, " {cell:>14}");
        }
        text.push('\n');
    }
    text
}

fn cell(is_drift: bool, sums: &Sums) -> String {
    if !is_drift {
        return format!("{}/{}", sums.alarms, sums.quiet);
    }
    let missed = format!("{}/{}", sums.missed(), sums.drifts);
    sums.mean_delay().map_or_else(|| missed.clone(), |delay| format!("{missed} {delay:.1}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(stream: &str, alarms: u32, delay: Option<u32>) -> Outcome {
        let is_drift = stream == "drift";
        let (kind, detector) = ("streams".to_owned(), "Sealift".to_owned());
        Outcome { kind, stream: stream.to_owned(), detector, alarms, quiet: 500, is_drift, delay }
    }

    #[test]
    fn quiet_windows_of_every_stream_count_and_delays_of_drifts_alone() {
        let outcomes =
            [outcome("quiet", 1, None), outcome("drift", 0, Some(3)), outcome("drift", 0, None)];
        let text = of(&outcomes);
        let line = text.lines().find(|line| line.starts_with("all")).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words, ["all", "Sealift", "1500", "0.67", "1", "of", "2", "3.0"]);
        assert!(text.contains("1/500") && text.contains("1/2 3.0"), "{text}");
    }
}
