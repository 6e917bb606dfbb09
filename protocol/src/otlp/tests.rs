//! What is sent, and when, without anybody who takes it.

use super::*;

const AGENT: &str = "# HELP sealift_model_requests_total Since the image went live.\n# TYPE sealift_model_requests_total counter\n";

fn text(lines: &str) -> String {
    format!("{AGENT}{lines}")
}

/// Since when each counter counts, at `now`.
fn since(series: &mut Series, lines: &str, now: i64) -> Vec<i64> {
    let mut metrics = points::of(&text(lines));
    series.follow(&mut metrics, UnixMillis(now));
    metrics.iter().flat_map(|metric| &metric.points).map(|point| point.since.0).collect()
}

fn series() -> Series {
    Series::new(vec![("service.name".to_owned(), "sealift".to_owned())], UnixMillis(1_000))
}

/// `ExportMetricsServiceRequest.SerializeToString()` of the package `opentelemetry-proto` with the same values.
#[test]
fn a_request_has_the_bytes_that_others_write() {
    let text = "# HELP a_requests Requests\n# TYPE a_requests counter\na_requests_total{status=\"200\"} 5\n# HELP a_rate Rate\n# TYPE a_rate gauge\na_rate 0.25\n# EOF\n";
    let bytes = series().request(text, UnixMillis(2_000));
    let golden = include_str!("golden/request.hex");
    assert_eq!(crate::digest::encode_hex(&bytes), golden.trim());
}

/// The same package with what an agent says of two models, one of which began anew between two exports.
#[test]
fn a_request_of_an_agent_has_the_bytes_that_others_write() {
    let about = [("service.name", "sealift-agent"), ("sealift.device", "cam-7"), ("site", "osaka")];
    let about = about.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let mut series = Series::new(about, UnixMillis(1_000));
    let lines = |first: u32, second: u32| {
        text(&format!(
            "sealift_model_requests_total{{model=\"vision/digits\",version=\"3\"}} {first}\nsealift_model_requests_total{{model=\"vision/faces\",version=\"1\"}} {second}\n"
        ))
    };
    series.request(&lines(7, 40), UnixMillis(2_000));

    let bytes = series.request(&lines(9, 4), UnixMillis(3_500));

    let golden = include_str!("golden/agent.hex");
    assert_eq!(crate::digest::encode_hex(&bytes), golden.trim());
}

#[test]
fn a_counter_that_begins_anew_says_so() {
    let mut series = series();
    let one = |value: u32| format!("sealift_model_requests_total{{model=\"a\"}} {value}\n");
    assert_eq!(since(&mut series, &one(5), 2_000), [1_000]);
    assert_eq!(since(&mut series, &one(5), 3_000), [1_000], "nothing was asked, nothing is new");
    assert_eq!(since(&mut series, &one(2), 4_000), [3_000], "another image has gone live");
    assert_eq!(since(&mut series, &one(9), 5_000), [3_000]);
}

#[test]
fn a_counter_that_was_not_there_counts_from_the_last_export_on() {
    let mut series = series();
    let line = |model: &str| format!("sealift_model_requests_total{{model=\"{model}\"}} 3\n");
    assert_eq!(since(&mut series, &line("a"), 2_000), [1_000]);
    assert_eq!(since(&mut series, &(line("a") + &line("b")), 3_000), [1_000, 2_000]);
    assert_eq!(since(&mut series, &line("b"), 4_000), [2_000]);
    assert_eq!(since(&mut series, &line("a"), 5_000), [4_000], "it was away");
}

#[test]
fn a_clock_that_was_set_back_gives_no_counter_that_begins_after_its_end() {
    let mut series = series();
    assert_eq!(since(&mut series, "sealift_model_requests_total 3\n", 500), [500]);
    assert_eq!(since(&mut series, "sealift_model_requests_total 4\n", 400), [400]);
}

#[test]
fn what_passes_is_tried_four_times_with_growing_waits() {
    let mut tries = Tries::default();
    let seconds = |after: Option<Duration>| after.map(|wait| wait.as_secs());
    assert_eq!(seconds(tries.after(Answer::None)), Some(1));
    assert_eq!(seconds(tries.after(Answer::Status(503, None))), Some(2));
    assert_eq!(seconds(tries.after(Answer::Status(429, Some(600)))), Some(30), "it asks for more");
    assert_eq!(seconds(tries.after(Answer::None)), None);
}

#[test]
fn a_refusal_is_final() {
    for status in [301, 400, 401, 403, 404, 413, 500, 501] {
        assert_eq!(Tries::default().after(Answer::Status(status, Some(1))), None, "{status}");
    }
    for status in [429, 502, 503, 504] {
        assert!(Tries::default().after(Answer::Status(status, None)).is_some(), "{status}");
    }
}

#[test]
fn headers_are_lines_and_what_is_none_is_named() {
    let text = "# to the collector\n\nauthorization: Bearer a:b\n  x-one:1\n";
    assert_eq!(headers(text).unwrap(), [("authorization", "Bearer a:b", 3), ("x-one", "1", 4)]);
    assert_eq!(headers("x-one: 1\n\nBearer s3cret\n"), Err(3));
    assert!(headers(&format!("a: {}", "x".repeat(HEADERS_BYTES_MAX))).is_err());
}
