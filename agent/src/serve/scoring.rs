//! Scoring, as SageMaker, MLflow and Azure ML have it: rows in, predictions out, without names of tensors where there is no need.
//!
//! ```text
//!  SageMaker   GET /ping    POST /invocations    POST /endpoints/{model}/invocations    JSON, CSV
//!  MLflow      GET /ping, /health, /version      POST /invocations                       JSON, CSV
//!  Azure ML    GET /        POST /score                                                  JSON
//! ```

mod answer;
mod columns;
mod request;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use tokio::time::timeout;

use super::endpoint::{Asked, Endpoint, REQUEST_MAX};
use super::http::VERSION;
use super::live::Live;
use super::refusal::{self, Refusal};
use super::{body, infer};
use answer::Form;
use request::Encoding;
pub(super) use request::InvalidScoring;

/// The model of a SageMaker endpoint that has several.
const TARGET_MODEL: HeaderName = HeaderName::from_static("x-amzn-sagemaker-target-model");

/// The name of an inference, by SageMaker's `InvokeEndpoint`.
const INFERENCE_ID: HeaderName = HeaderName::from_static("x-amzn-sagemaker-inference-id");

/// By which SageMaker's clients tell kinds of errors apart.
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// Routes of the three.
pub(super) fn router() -> Router<Endpoint> {
    Router::new()
        .route("/", get(alive))
        .route("/ping", get(ping))
        .route("/health", get(ping))
        .route("/version", get(async || VERSION))
        .route("/invocations", post(invocations))
        .route("/endpoints/{name}/invocations", post(named_invocations))
        .route("/score", post(score))
}

/// Azure ML's sign of life.
async fn alive() -> &'static str {
    "Healthy"
}

/// Ready is a device that serves at least one model.
async fn ping(State(endpoint): State<Endpoint>) -> Response {
    if endpoint.board.all().is_empty() {
        return refuse(&Refusal::NothingServed);
    }
    "\n".into_response()
}

async fn invocations(State(endpoint): State<Endpoint>, headers: HeaderMap, body: Body) -> Response {
    let named = headers.get(TARGET_MODEL).map(|name| String::from_utf8_lossy(name.as_bytes()));
    let live = named.map_or_else(|| endpoint.only(), |name| endpoint.find(&name, None));
    respond(&endpoint, live, &headers, body, Form::Predictions).await
}

/// Whatever signature SageMaker's clients add is not looked at: who reaches this port may ask.
async fn named_invocations(
    State(endpoint): State<Endpoint>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let live = endpoint.find(&name, None);
    let mut response = respond(&endpoint, live, &headers, body, Form::Predictions).await;
    let variant = HeaderName::from_static("x-amzn-invoked-production-variant");
    response.headers_mut().insert(variant, HeaderValue::from_static("sealift"));
    response
}

async fn score(State(endpoint): State<Endpoint>, headers: HeaderMap, body: Body) -> Response {
    respond(&endpoint, endpoint.only(), &headers, body, Form::Bare).await
}

async fn respond(
    endpoint: &Endpoint,
    live: Result<Live, Refusal>,
    headers: &HeaderMap,
    body: Body,
    form: Form,
) -> Response {
    let answered = match live {
        Ok(live) => timeout(REQUEST_MAX, answer(endpoint, live, headers, body, form)).await,
        Err(refusal) => return refuse(&refusal),
    };
    let late = Err(Refusal::Deadline(REQUEST_MAX.as_secs()));
    answered.unwrap_or(late).unwrap_or_else(|refusal| refuse(&refusal))
}

async fn answer(
    endpoint: &Endpoint,
    live: Live,
    headers: &HeaderMap,
    body: Body,
    form: Form,
) -> Result<Response, Refusal> {
    let encoding = Encoding::of(headers.get(header::CONTENT_TYPE))?;
    let (body, _admitted) = body::read(endpoint, body).await?;
    let inputs = request::parse(live.contract(), encoding, &body)?;
    drop(body);
    let inference = endpoint.name(given_name(headers));
    let split = infer::split_by(headers);
    let asked = Asked { inference: &inference, inputs: &inputs, deadline: None, split };
    let (live, outputs) = endpoint.ask(live, asked).await?;
    let accepts_csv = headers.get(header::ACCEPT).is_some_and(|accept| accept == "text/csv");
    let form = if accepts_csv { Form::Csv } else { form };
    let written = answer::write(&outputs, form)?;
    let content_type = HeaderValue::from_static(form.content_type());
    let mut response = ([(header::CONTENT_TYPE, content_type)], written).into_response();
    response.headers_mut().extend(infer::source((&live, &inference)));
    Ok(response)
}

/// What SageMaker's clients call an inference, `InferenceId`: ground truth is joined by it there as well.
fn given_name(headers: &HeaderMap) -> Option<&str> {
    headers.get(INFERENCE_ID)?.to_str().ok()
}

/// One form for all three: MLflow's code, and the message that the others look for.
fn refuse(refusal: &Refusal) -> Response {
    let status = refusal.status();
    let (code, kind) = match status {
        StatusCode::NOT_FOUND => ("RESOURCE_DOES_NOT_EXIST", "ValidationError"),
        StatusCode::TOO_MANY_REQUESTS => ("RESOURCE_EXHAUSTED", "ThrottlingException"),
        StatusCode::SERVICE_UNAVAILABLE => ("TEMPORARILY_UNAVAILABLE", "ServiceUnavailable"),
        status if status.is_client_error() => ("BAD_REQUEST", "ValidationError"),
        _ => ("INTERNAL_ERROR", "ModelError"), // the model's fault, or the agent's
    };
    let body = json!({ "error_code": code, "message": refusal.to_string() });
    let mut response = refusal::respond(status, body);
    response.headers_mut().insert(ERROR_TYPE, HeaderValue::from_static(kind));
    response
}
