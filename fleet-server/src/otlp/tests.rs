//! A collector that says what a test tells it to, and remembers what it got.

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap as Headers;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;

use super::*;

const TEXT: &str = "# HELP a_rate Rate.\n# TYPE a_rate gauge\na_rate 0.25\n# EOF\n";
const NOW: UnixMillis = UnixMillis(2_000);

#[derive(Clone, Default)]
struct Collector {
    /// What it answers, one after the other; then success.
    answers: Arc<Mutex<VecDeque<u16>>>,
    taken: Arc<Mutex<Vec<(Headers, Bytes)>>>,
}

impl Collector {
    /// A collector that answers so, and an exporter to it.
    async fn with(answers: &[u16]) -> (Self, Exporter) {
        let collector = Self::default();
        collector.answers.lock().unwrap().extend(answers);
        let router = Router::new().route("/v1/metrics", post(take)).with_state(collector.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        (collector, exporter(&endpoint, None).unwrap())
    }

    fn taken(&self) -> Vec<(Headers, Bytes)> {
        self.taken.lock().unwrap().clone()
    }
}

async fn take(State(collector): State<Collector>, headers: Headers, body: Bytes) -> Response {
    collector.taken.lock().unwrap().push((headers, body));
    let status = collector.answers.lock().unwrap().pop_front().unwrap_or(200);
    (StatusCode::from_u16(status).unwrap(), [("retry-after", "0")]).into_response()
}

fn exporter(endpoint: &str, headers_file: Option<&Path>) -> Result<Exporter, OtlpError> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let settings = Otlp {
        endpoint: endpoint.parse().unwrap(),
        headers_file: headers_file.map(Path::to_owned),
        ca: None,
        interval_s: 20,
    };
    Exporter::new(&settings, &TenantId::parse("main").unwrap(), UnixMillis(1_000))
}

#[tokio::test]
async fn a_request_is_protobuf_and_says_who_sends_it() {
    let (collector, mut exporter) = Collector::with(&[]).await;

    exporter.export(TEXT, NOW).await;

    let taken = collector.taken();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].0["content-type"], "application/x-protobuf");
    let text = String::from_utf8_lossy(&taken[0].1);
    for said in ["service.name", "sealift-fleet-server", "sealift.tenant", "main", "a_rate"] {
        assert!(text.contains(said), "{said}");
    }
    assert!(!exporter.is_failing);
}

#[tokio::test]
async fn a_collector_that_is_busy_is_asked_again() {
    let (collector, mut exporter) = Collector::with(&[503, 429]).await;
    exporter.export(TEXT, NOW).await;
    assert_eq!(collector.taken().len(), 3);
    assert!(!exporter.is_failing);
}

#[tokio::test]
async fn it_is_not_asked_for_ever() {
    let (collector, mut exporter) = Collector::with(&[502; 20]).await;
    exporter.export(TEXT, NOW).await;
    assert_eq!(collector.taken().len(), 4);
    assert!(exporter.is_failing);
}

#[tokio::test]
async fn a_refusal_is_final_and_the_next_export_goes_on() {
    let (collector, mut exporter) = Collector::with(&[400]).await;
    exporter.export(TEXT, NOW).await;
    assert_eq!((collector.taken().len(), exporter.is_failing), (1, true));
    exporter.export(TEXT, NOW).await;
    assert_eq!((collector.taken().len(), exporter.is_failing), (2, false));
}

#[tokio::test]
async fn headers_come_from_a_file_and_are_not_shown() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "# to the collector\n\nauthorization: Bearer s3cret").unwrap();
    let (collector, plain) = Collector::with(&[]).await;
    let base = plain.url.as_str().trim_end_matches("/v1/metrics").to_owned();
    let mut exporter = exporter(&base, Some(file.path())).unwrap();

    exporter.export(TEXT, NOW).await;

    assert_eq!(collector.taken()[0].0["authorization"], "Bearer s3cret");
    assert!(!format!("{:?}", exporter.client).contains("s3cret"));
}

#[test]
fn a_line_that_is_no_header_is_named_and_its_value_is_not() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "x-one: 1\nBearer s3cret").unwrap();
    let error = exporter("http://127.0.0.1:9", Some(file.path())).err().unwrap();
    let text = error.to_string();
    assert!(text.starts_with("line 2 of ") && !text.contains("s3cret"), "{text}");
}
