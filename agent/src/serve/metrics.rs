//! `/metrics` in the Prometheus text format 0.0.4. Names of devices are no labels: that is what the scrape target is for.

use std::fmt::Write;

use super::challenger::Challenger;
use super::live::Live;
use super::switchboard::Switchboard;

/// Writes what is counted of the live models.
pub(super) fn write(board: &Switchboard) -> String {
    let mut all = board.all();
    let beside = board.challengers();
    let totals = board.counters();
    let mut text = String::new();
    family(&mut text, "sealift_requests_total", "counter", "Requests answered or failed.");
    line(&mut text, "sealift_requests_total", "", totals.requests);
    family(
        &mut text,
        "sealift_request_errors_total",
        "counter",
        "Requests that failed by our fault.",
    );
    line(&mut text, "sealift_request_errors_total", "", totals.errors);
    family(&mut text, "sealift_request_latency_p95_microseconds", "gauge", "Of the last minutes.");
    line(&mut text, "sealift_request_latency_p95_microseconds", "", totals.latency_p95_us.into());
    family(&mut text, "sealift_model_info", "gauge", "Image that answers for a model.");
    for live in &all {
        let labels = format!("{},image=\"{}\"", labels(live), live.image().index);
        line(&mut text, "sealift_model_info", &labels, 1);
    }
    family(
        &mut text,
        "sealift_model_provider_nodes",
        "gauge",
        "Graph nodes by execution provider.",
    );
    for live in &all {
        for (provider, nodes) in live.providers() {
            let labels = format!("{},provider=\"{}\"", labels(live), escape(provider));
            line(&mut text, "sealift_model_provider_nodes", &labels, u64::from(*nodes));
        }
    }
    // What is beside a live image may answer a share of its requests.
    all.extend(beside.iter().map(|beside| beside.live().clone()));
    family(&mut text, "sealift_model_requests_total", "counter", "Since the image went live.");
    for live in &all {
        line(&mut text, "sealift_model_requests_total", &labels(live), live.counters().requests);
    }
    family(&mut text, "sealift_model_errors_total", "counter", "Since the image went live.");
    for live in &all {
        line(&mut text, "sealift_model_errors_total", &labels(live), live.counters().errors);
    }
    pictures(&mut text, &all);
    shadows(&mut text, &beside);
    text
}

/// Writes how many pictures drift is watched on.
fn pictures(text: &mut String, all: &[Live]) {
    let name = "sealift_model_pictures_total";
    family(text, name, "counter", "Pictures by whether drift is watched on them.");
    for (live, looks) in all.iter().filter_map(|live| Some((live, live.looks()?))) {
        let labels = labels(live);
        for (result, count) in [("looked-at", looks.looked_at), ("passed-over", looks.passed_over)]
        {
            line(text, name, &format!("{labels},result=\"{result}\""), count);
        }
    }
}

/// Writes how images beside live ones compare.
fn shadows(text: &mut String, beside: &[Challenger]) {
    let rows = "sealift_shadow_rows_total";
    family(text, rows, "counter", "Rows of a new image beside the live one.");
    for challenger in beside {
        let (labels, counts) = (labels(challenger.live()), challenger.counts());
        let differed = counts.rows.saturating_sub(counts.agreed);
        for (result, count) in [("agreed", counts.agreed), ("differed", differed)] {
            line(text, rows, &format!("{labels},result=\"{result}\""), count);
        }
    }
    let requests = "sealift_shadow_requests_total";
    family(text, requests, "counter", "Requests shown to a new image, or answered by it.");
    for challenger in beside {
        let (labels, counts) = (labels(challenger.live()), challenger.counts());
        for (result, count) in [
            ("compared", counts.requests),
            ("failed", counts.failed),
            ("skipped", counts.skipped),
            ("answered", counts.answered),
            ("returned", counts.returned),
        ] {
            line(text, requests, &format!("{labels},result=\"{result}\""), count);
        }
    }
}

/// Names of models and versions need no escape: they are parsed, and hold letters, digits and a few signs.
fn labels(live: &Live) -> String {
    format!("model=\"{}\",version=\"{}\"", live.model(), live.image().version.as_str())
}

/// As the text format asks for label values.
fn escape(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a `String` cannot fail.
    let _written = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn line(text: &mut String, name: &str, labels: &str, value: u64) {
    let _written = if labels.is_empty() {
        writeln!(text, "{name} {value}")
    } else {
        writeln!(text, "{name}{{{labels}}} {value}")
    };
}
