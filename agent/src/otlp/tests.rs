//! A collector that says what a test tells it to, and remembers what it got.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::sync::Mutex;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap as Headers;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use sealift_protocol::id::{DeviceId, TenantId};
use sealift_protocol::telemetry::Facts;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::clock::system_time;

const TEXT: &str = "# HELP a_rate Rate.\n# TYPE a_rate gauge\na_rate 0.25\n";
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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        (collector, exporter(&endpoint, |_| ()))
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

fn exporter(endpoint: &str, change: impl Fn(&mut OtlpConfig)) -> Exporter {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut settings = OtlpConfig {
        endpoint: endpoint.parse().unwrap(),
        headers_file: None,
        ca: None,
        interval_s: 20,
        attributes: BTreeMap::from([("site".to_owned(), "osaka".to_owned())]),
    };
    change(&mut settings);
    let me = Me {
        tenant: TenantId::parse("main").unwrap(),
        device: DeviceId::parse("cam-7").unwrap(),
        facts: Facts::default(),
        accelerators: vec![],
        require_cosign: false,
    };
    Exporter::new(settings, &me, Clock::new(UnixMillis(0), system_time))
}

#[tokio::test]
async fn a_request_says_which_device_sends_it() {
    let (collector, mut exporter) = Collector::with(&[]).await;

    exporter.export(TEXT, NOW).await;

    let taken = collector.taken();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].0["content-type"], "application/x-protobuf");
    let text = String::from_utf8_lossy(&taken[0].1);
    for said in ["sealift-agent", "sealift.tenant", "main", "sealift.device", "cam-7", "osaka"] {
        assert!(text.contains(said), "{said}");
    }
    assert!(text.contains("a_rate") && !exporter.is_failing);
}

#[tokio::test]
async fn a_collector_that_is_busy_is_asked_again_and_not_for_ever() {
    let (collector, mut exporter) = Collector::with(&[503, 429, 200, 502, 502, 502, 502]).await;
    exporter.export(TEXT, NOW).await;
    assert_eq!((collector.taken().len(), exporter.is_failing), (3, false));
    exporter.export(TEXT, NOW).await;
    assert_eq!((collector.taken().len(), exporter.is_failing), (7, true));
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
async fn a_token_that_is_new_after_a_refusal_counts_without_a_restart() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "authorization: Bearer 0ld").unwrap();
    let (collector, plain) = Collector::with(&[200, 401]).await;
    let base = plain.url.as_str().trim_end_matches("/v1/metrics").to_owned();
    let path = file.path().to_owned();
    let mut exporter = exporter(&base, |settings| settings.headers_file = Some(path.clone()));

    exporter.export(TEXT, NOW).await;
    std::fs::write(&path, "authorization: Bearer n3w\n").unwrap();
    exporter.export(TEXT, NOW).await;
    exporter.export(TEXT, NOW).await;

    let tokens: Vec<_> =
        collector.taken().iter().map(|(headers, _)| headers["authorization"].clone()).collect();
    assert_eq!(tokens, ["Bearer 0ld", "Bearer 0ld", "Bearer n3w"]);
    assert!(!format!("{exporter:?}").contains("n3w"), "secrets are not shown");
}

#[tokio::test]
async fn files_that_are_not_there_are_looked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("headers");
    let (collector, plain) = Collector::with(&[]).await;
    let base = plain.url.as_str().trim_end_matches("/v1/metrics").to_owned();
    let mut exporter = exporter(&base, |settings| settings.headers_file = Some(path.clone()));

    exporter.export(TEXT, NOW).await;
    assert_eq!((collector.taken().len(), exporter.is_failing), (0, true));
    std::fs::write(&path, "x-one: 1\nBearer s3cret\n").unwrap();
    let error = exporter.send(vec![]).await.unwrap_err().to_string();
    assert!(error.starts_with("line 2 of ") && !error.contains("s3cret"), "{error}");
    std::fs::write(&path, "x-one: 1\n").unwrap();
    exporter.export(TEXT, NOW).await;

    assert_eq!((collector.taken().len(), exporter.is_failing), (1, false));
}

#[tokio::test]
async fn metrics_without_end_are_not_sent() {
    let (collector, mut exporter) = Collector::with(&[]).await;
    let line = format!("a_rate{{model=\"{}\"}} 1\n", "x".repeat(1_000));
    exporter.export(&(TEXT.to_owned() + &line.repeat(1_100)), NOW).await;
    assert_eq!((collector.taken().len(), exporter.is_failing), (0, true));
}

#[tokio::test]
async fn only_a_collector_of_the_authority_that_was_named_gets_anything() {
    let (ours, others) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    for (authority, is_failing) in [(&ours, false), (&others, true)] {
        let port = ours.collector().await;
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, &authority.pem).unwrap();
        let endpoint = format!("https://localhost:{port}");
        let mut exporter = exporter(&endpoint, |settings| {
            settings.ca = Some(path.clone());
            // There is no time for another try, and what is told is what has happened.
            settings.interval_s = 1;
        });
        let sent = exporter.send(vec![1; 9]).await;
        assert_eq!(sent.is_err(), is_failing, "{sent:?}");
        let told = sent.err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(told.contains("invalid peer certificate"), is_failing, "{told}");
    }
}

/// An authority of collectors.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// The port of a collector that takes everything, over TLS.
    async fn collector(&self) -> u16 {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let chain = vec![params.signed_by(&key, &self.issuer).unwrap().der().clone()];
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let acceptor: tokio_rustls::TlsAcceptor =
            Arc::new(config.with_single_cert(chain, key).unwrap()).into();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut seen = Vec::new();
                while !seen.ends_with(&[1; 9]) {
                    stream.read_buf(&mut seen).await.unwrap();
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        port
    }
}
