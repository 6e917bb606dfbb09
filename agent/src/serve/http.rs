//! Open Inference Protocol v2 over HTTP, metrics and health.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::serve::ListenerExt;
use axum::{Json, Router};
use sealift_protocol::image::TensorSpec;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::infer::{self, BODY_BYTES_MAX};
use super::live::Live;
use super::metrics;
use super::refusal::Refusal;
use super::switchboard::Switchboard;

/// Requests in flight, in parts of [`PART_BYTES`]: 64 small ones, or 8 of the largest, so that bodies take at most 256 MiB.
const PARTS_MAX: u32 = 64;

/// What one part of the requests in flight may hold.
const PART_BYTES: u64 = 4 << 20;

/// Longest time for one request: a slow body, one answer and one more from the worker after it.
const REQUEST_MAX: Duration = Duration::from_secs(75);

#[derive(Debug, Clone)]
struct Endpoint {
    board: Switchboard,
    parts: Arc<Semaphore>,
}

/// What a path below `/v2/models/` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Metadata,
    Ready,
    Config,
    Stats,
    Infer,
}

/// A path below `/v2/models/`.
#[derive(Debug, PartialEq, Eq)]
struct ModelPath {
    model: String,
    version: Option<String>,
    wish: Wish,
}

/// Routes for local applications.
pub fn router(board: Switchboard) -> Router {
    let parts = Semaphore::new(usize::try_from(PARTS_MAX).unwrap_or(usize::MAX));
    Router::new()
        .route("/v2", get(server))
        .route("/v2/", get(server))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{*path}", get(model).post(infer))
        .route("/v2/repository/index", post(index))
        .route("/v2/repository/models/{*path}", any(async || Refusal::Managed))
        .route("/metrics", get(exposition))
        .route("/healthz", get(live))
        .fallback(async || Refusal::UnknownPath)
        .with_state(Endpoint { board, parts: Arc::new(parts) })
}

/// Answers on `listener` until it is dropped, each time at once: a held-back last packet would cost a client 40 ms.
pub async fn listen(listener: TcpListener, board: Switchboard) -> io::Result<()> {
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "answers on a connection may be held back");
        }
    });
    axum::serve(listener, router(board)).await
}

async fn server() -> Json<Value> {
    let version = env!("CARGO_PKG_VERSION");
    let extensions =
        ["binary_tensor_data", "model_repository(index)", "model_configuration", "statistics"];
    Json(json!({ "name": "sealift", "version": version, "extensions": extensions }))
}

async fn live() -> Json<Value> {
    Json(json!({ "live": true }))
}

/// Ready is a device that serves at least one model.
async fn ready(State(endpoint): State<Endpoint>) -> Response {
    readiness(!endpoint.board.all().is_empty())
}

fn readiness(ready: bool) -> Response {
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready }))).into_response()
}

async fn index(State(endpoint): State<Endpoint>) -> Json<Value> {
    let models = endpoint.board.all().into_iter().map(|live| {
        let version = live.image().version.as_str();
        json!({ "name": live.model(), "version": version, "state": "READY", "reason": "" })
    });
    Json(models.collect())
}

async fn model(
    State(endpoint): State<Endpoint>,
    Path(path): Path<String>,
) -> Result<Response, Refusal> {
    let path = ModelPath::parse(&path).ok_or(Refusal::UnknownPath)?;
    let live = path.find(&endpoint.board);
    if path.wish == Wish::Ready {
        return live.map(|_| readiness(true));
    }
    let live = live?;
    let body = match path.wish {
        Wish::Metadata => metadata(&live),
        Wish::Config => config(&live),
        Wish::Stats => stats(&live),
        Wish::Infer | Wish::Ready => return Err(Refusal::UnknownPath),
    };
    Ok(Json(body).into_response())
}

async fn infer(
    State(endpoint): State<Endpoint>,
    Path(path): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let path = ModelPath::parse(&path).filter(|path| path.wish == Wish::Infer);
    let live = path.ok_or(Refusal::UnknownPath)?.find(&endpoint.board)?;
    let _parts = endpoint.admit(&body)?;
    let answer = infer::answer(&endpoint.board, live, &headers, body);
    let answer = timeout(REQUEST_MAX, answer).await;
    answer.unwrap_or(Err(Refusal::Deadline(REQUEST_MAX.as_secs())))
}

async fn exposition(State(endpoint): State<Endpoint>) -> Response {
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, metrics::write(&endpoint.board)).into_response()
}

impl Endpoint {
    /// Takes as many parts as the body may need; a body that does not tell its length may need the most.
    fn admit(&self, body: &Body) -> Result<OwnedSemaphorePermit, Refusal> {
        let bytes = body.size_hint().upper().unwrap_or(BODY_BYTES_MAX as u64);
        let parts = bytes.min(BODY_BYTES_MAX as u64).div_ceil(PART_BYTES).max(1);
        let parts = u32::try_from(parts).unwrap_or(PARTS_MAX);
        let admitted = Arc::clone(&self.parts).try_acquire_many_owned(parts);
        admitted.map_err(|_| Refusal::Busy)
    }
}

impl ModelPath {
    /// Parses `MODEL[/versions/VERSION][/WISH]`, where `MODEL` is `team/name` or `name`.
    fn parse(path: &str) -> Option<Self> {
        let mut parts: Vec<_> = path.split('/').collect();
        let wish = match *parts.last()? {
            "ready" => Wish::Ready,
            "config" => Wish::Config,
            "stats" => Wish::Stats,
            "infer" => Wish::Infer,
            _ => Wish::Metadata, // the last part belongs to the name or the version
        };
        if wish != Wish::Metadata {
            parts.pop();
        }
        let version = match parts.as_slice() {
            [.., _, "versions", version] => Some((*version).to_owned()),
            _ => None, // without a version whatever is live is meant
        };
        if version.is_some() {
            parts.truncate(parts.len() - 2);
        }
        let is_model = matches!(parts.len(), 1 | 2) && parts.iter().all(|part| !part.is_empty());
        is_model.then(|| Self { model: parts.join("/"), version, wish })
    }

    fn find(&self, board: &Switchboard) -> Result<Live, Refusal> {
        let Some(live) = board.find(&self.model) else {
            if let Some((model, why)) = board.withdrawn(&self.model) {
                return Err(Refusal::Withdrawn { model: model.to_string(), why });
            }
            let names: Vec<_> = board.all().iter().map(|live| live.model().to_string()).collect();
            let served = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(Refusal::UnknownModel { name: self.model.clone(), served });
        };
        let served = live.image().version.as_str();
        match &self.version {
            Some(given) if given != served => Err(Refusal::UnknownVersion {
                model: live.model().to_string(),
                given: given.clone(),
                served: served.to_owned(),
            }),
            Some(_) | None => Ok(live),
        }
    }
}

fn metadata(live: &Live) -> Value {
    let tensor = |spec: &TensorSpec| json!({ "name": spec.name, "datatype": spec.datatype, "shape": spec.shape });
    json!({
        "name": live.model(),
        "versions": [live.image().version.as_str()],
        "platform": "onnxruntime_onnx",
        "inputs": live.contract().inputs.iter().map(tensor).collect::<Value>(),
        "outputs": live.contract().outputs.iter().map(tensor).collect::<Value>(),
    })
}

/// The part of the model configuration extension that has a meaning here.
fn config(live: &Live) -> Value {
    let tensor = |spec: &TensorSpec| json!({ "name": spec.name, "data_type": format!("TYPE_{}", spec.datatype), "dims": spec.shape });
    json!({
        "name": live.model(),
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "max_batch_size": 0,
        "input": live.contract().inputs.iter().map(tensor).collect::<Value>(),
        "output": live.contract().outputs.iter().map(tensor).collect::<Value>(),
    })
}

/// The part of the statistics extension that is counted here, since the image went live.
fn stats(live: &Live) -> Value {
    let counters = live.counters();
    let succeeded = counters.requests.saturating_sub(counters.errors);
    json!({ "model_stats": [{
        "name": live.model(),
        "version": live.image().version.as_str(),
        "inference_count": succeeded,
        "execution_count": succeeded,
        "inference_stats": { "success": { "count": succeeded }, "fail": { "count": counters.errors } },
    }]})
}

#[cfg(test)]
mod tests;
