//! Open Inference Protocol v2 over HTTP, metrics and health.

use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use sealift_protocol::image::TensorSpec;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::endpoint::{Endpoint, REQUEST_MAX};
use super::live::Live;
use super::refusal::Refusal;
use super::{grpc, infer, metrics, scoring};

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
pub(super) fn router(endpoint: Endpoint) -> Router {
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
        .merge(grpc::router())
        .merge(scoring::router())
        .fallback(async || Refusal::UnknownPath)
        .with_state(endpoint)
}

/// What the server calls itself.
pub(super) const NAME: &str = "sealift";

/// Its version.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Extensions of the protocol that are served.
pub(super) const EXTENSIONS: [&str; 4] =
    ["binary_tensor_data", "model_repository(index)", "model_configuration", "statistics"];

/// What kind of model all of them are.
pub(super) const PLATFORM: &str = "onnxruntime_onnx";

async fn server() -> Json<Value> {
    Json(json!({ "name": NAME, "version": VERSION, "extensions": EXTENSIONS }))
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
    let live = path.find(&endpoint);
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
    let mut response = Json(body).into_response();
    response.headers_mut().extend(infer::image(&live));
    Ok(response)
}

async fn infer(
    State(endpoint): State<Endpoint>,
    Path(path): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let (Parts { headers, .. }, body) = request.into_parts();
    let path = ModelPath::parse(&path).filter(|path| path.wish == Wish::Infer);
    let path = path.ok_or(Refusal::UnknownPath)?;
    let live = (path.find(&endpoint)?, path.version.is_some());
    let answer = infer::answer(&endpoint, live, &headers, body);
    let answer = timeout(REQUEST_MAX, answer).await;
    answer.unwrap_or(Err(Refusal::Deadline(REQUEST_MAX.as_secs())))
}

async fn exposition(State(endpoint): State<Endpoint>) -> Response {
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, metrics::write(&endpoint.board)).into_response()
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

    fn find(&self, endpoint: &Endpoint) -> Result<Live, Refusal> {
        endpoint.find(&self.model, self.version.as_deref())
    }
}

fn metadata(live: &Live) -> Value {
    let tensor = |spec: &TensorSpec| json!({ "name": spec.name, "datatype": spec.datatype, "shape": spec.shape });
    json!({
        "name": live.model(),
        "versions": [live.image().version.as_str()],
        "platform": PLATFORM,
        "inputs": live.contract().inputs.iter().map(tensor).collect::<Value>(),
        "outputs": live.contract().outputs.iter().map(tensor).collect::<Value>(),
    })
}

/// The part of the model configuration extension that has a meaning here.
fn config(live: &Live) -> Value {
    let tensor = |spec: &TensorSpec| json!({ "name": spec.name, "data_type": format!("TYPE_{}", spec.datatype), "dims": spec.shape });
    json!({
        "name": live.model(),
        "platform": PLATFORM,
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
