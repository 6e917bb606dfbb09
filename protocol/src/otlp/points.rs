//! What `/metrics` says, as values: the `OpenMetrics` text that the server writes, the Prometheus text that agents write, and no more of
//! both formats than these write.

use crate::id::UnixMillis;

/// What samples of counters have behind their name.
const TOTAL: &str = "_total";

/// A metric with its points.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Metric {
    pub(super) name: String,
    pub(super) help: String,
    pub(super) is_counter: bool,
    pub(super) points: Vec<Point>,
}

/// A value with its labels.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Point {
    pub(super) labels: Vec<(String, String)>,
    pub(super) value: f64,
    /// Since when it counts, of a counter.
    pub(super) since: UnixMillis,
}

/// Reads the text; what is not understood is left out.
pub(super) fn of(text: &str) -> Vec<Metric> {
    let mut metrics: Vec<Metric> = Vec::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|it| it.split_once(' ')) {
            let (name, help) = (name.to_owned(), help.to_owned());
            metrics.push(Metric { name, help, ..Metric::default() });
            continue;
        }
        let Some(metric) = metrics.last_mut() else { continue };
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|it| it.split_once(' ')) {
            metric.is_counter = name == metric.name && kind == "counter";
            // Prometheus' text has the suffix in the name of the family, too; OpenMetrics and OTLP do not.
            if metric.is_counter
                && let Some(name) = name.strip_suffix(TOTAL)
            {
                name.clone_into(&mut metric.name);
            }
            continue;
        }
        let suffix = if metric.is_counter { TOTAL } else { "" };
        let rest = line.strip_prefix(&metric.name).and_then(|rest| rest.strip_prefix(suffix));
        metric.points.extend(rest.and_then(point));
    }
    metrics.retain(|metric| !metric.points.is_empty());
    metrics
}

/// `{state="online"} 5`, or ` 5`.
fn point(text: &str) -> Option<Point> {
    let (labels, value) = match text.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), text),
    };
    let value = value.strip_prefix(' ')?.parse().ok()?;
    Some(Point { labels, value, since: UnixMillis(0) })
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.strip_prefix(',').unwrap_or(rest).split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, character) => value.push(character),
            }
        };
        labels.push((name.to_owned(), value));
        rest = after.get(end + 1..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_gauges_and_labels_are_read() {
        let text = "# HELP a_requests Requests answered.\n# TYPE a_requests counter\na_requests_total{status=\"200\",way=\"x \\\"y\\\", {z}\"} 5\na_requests_total{status=\"404\"} 1\n# HELP a_rate So much.\n# TYPE a_rate gauge\na_rate 0.25\n# HELP a_none Nothing.\n# TYPE a_none gauge\n# EOF\n";
        let metrics = of(text);
        assert_eq!(metrics.len(), 2, "{metrics:?}");
        assert_eq!((metrics[0].name.as_str(), metrics[0].is_counter), ("a_requests", true));
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let labels = vec![label("status", "200"), label("way", "x \"y\", {z}")];
        assert_eq!(metrics[0].points[0], Point { labels, value: 5.0, since: UnixMillis(0) });
        assert_eq!(
            metrics[1].points,
            [Point { labels: vec![], value: 0.25, since: UnixMillis(0) }]
        );
        assert_eq!(metrics[1].help, "So much.");
    }

    #[test]
    fn the_suffix_of_counters_is_taken_off_in_prometheus_text_too() {
        let text = "# HELP a_requests_total Requests answered.\n# TYPE a_requests_total counter\na_requests_total 7\n# HELP a_total So much.\n# TYPE a_total gauge\na_total 2\n";
        let metrics = of(text);
        let found: Vec<_> =
            metrics.iter().map(|metric| (metric.name.as_str(), metric.points[0].value)).collect();
        assert_eq!(found, [("a_requests", 7.0), ("a_total", 2.0)]);
    }
}
