//! A device with models that need no library, and applications beside it.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{ModelName, UnixMillis, Version};
use sealift_protocol::image::{Golden, IoContract};
use sealift_protocol::profile::Baseline;
use sealift_protocol::report::ImageRef;
use serde_json::Value;
use tower::ServiceExt;

use super::endpoint::Endpoint;
use super::{Live, LiveImage, Switchboard, http};
use crate::worker::{EngineChoice, SlotFiles, Worker, WorkerSpec};

/// Rows of two numbers in, a class and three shares out.
pub(super) const CONTRACT: &str = r#"{"schema":1,
    "inputs":[{"name":"x","datatype":"FP32","shape":[-1,2]}],
    "outputs":[{"name":"label","datatype":"INT64","shape":[-1],"role":"class"},
               {"name":"p","datatype":"FP32","shape":[-1,3],"role":"probabilities"}]}"#;

/// A request that keeps it.
pub(super) const REQUEST: &str =
    r#"{"id":"a1","inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}"#;

/// A model of this contract.
pub(super) async fn live_with(contract: &str, model: &str, version: &str) -> Live {
    live_watched(contract, (model, version), None).await
}

/// The same, of which what it sees is counted.
pub(super) async fn live_watched(
    contract: &str,
    (model, version): (&str, &str),
    baseline: Option<Baseline>,
) -> Live {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let golden = Golden { schema: 1, cases: vec![] };
    std::fs::write(path("contract"), contract).unwrap();
    std::fs::write(path("golden"), sealift_protocol::codec::encode(&golden).unwrap()).unwrap();
    let spec = WorkerSpec {
        slot_dir: directory.path().to_owned(),
        files: SlotFiles {
            weights: path("weights"),
            weights_digest: Digest::of(b""),
            contract: path("contract"),
            golden: path("golden"),
            baseline: None,
            policy: None,
        },
        engine: EngineChoice::Fake,
        scratch_dir: directory.path().to_owned(),
        executable: None,
    };
    let (worker, warmed) = Worker::start(spec).await.unwrap();
    let image = ImageRef {
        version: Version::parse(version).unwrap(),
        index: Digest::of(version.as_bytes()),
    };
    let live = LiveImage {
        model: ModelName::parse(model).unwrap(),
        image,
        contract: Arc::new(IoContract::parse(contract.as_bytes()).unwrap()),
        baseline: baseline.map(Arc::new),
        providers: warmed.providers,
        since: UnixMillis(0),
    };
    Live::new(live, worker)
}

pub(super) async fn live_of(model: &str, version: &str) -> Live {
    live_with(CONTRACT, model, version).await
}

/// A device with these models, each in version 3.
pub(super) async fn device(models: &[&str]) -> (Switchboard, Router) {
    let board = Switchboard::new();
    for model in models {
        let live = live_of(model, "3").await;
        board.swap(&live.model().clone(), Some(live));
    }
    (board.clone(), http::router(Endpoint::new(board)))
}

/// A device with one model of this contract.
pub(super) async fn device_with(contract: &str) -> (Endpoint, Router) {
    let board = Switchboard::new();
    let live = live_with(contract, "vision/digits", "3").await;
    board.swap(&live.model().clone(), Some(live));
    let endpoint = Endpoint::new(board);
    (endpoint.clone(), http::router(endpoint))
}

/// What came back.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Told {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status, and the words of the Open Inference Protocol's error.
    pub(super) fn error(&self) -> (u16, String) {
        (self.status.as_u16(), self.json()["error"].as_str().unwrap().to_owned())
    }
}

pub(super) async fn send(router: &Router, request: Request<Body>) -> Told {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    Told { status: parts.status, headers: parts.headers, body }
}

pub(super) async fn get(router: &Router, path: &str) -> Told {
    send(router, Request::get(path).body(Body::empty()).unwrap()).await
}

pub(super) async fn post(router: &Router, path: &str, body: &str) -> Told {
    send(router, Request::post(path).body(Body::from(body.to_owned())).unwrap()).await
}
