//! What is too long for a message: the input of a request, and its answer. For the device that was asked, and while it is.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, put};
use sealift_protocol::limits::ANSWER_BYTES_MAX;
use sealift_protocol::request::{Answer, Nonce};

use super::super::error::ApiError;
use crate::certificate::Identity;
use crate::clock;
use crate::signals::Signals;
use crate::store::TenantStore;

/// Time for an answer to come up: the longest at 4 Mbit/s.
const ANSWER_MAX: Duration = Duration::from_secs(16);

#[derive(Clone)]
struct Asked {
    store: TenantStore,
    signals: Signals,
}

pub(super) fn router(store: TenantStore, signals: Signals) -> Router {
    Router::new()
        .route("/requests/{nonce}/input", get(input))
        .route("/requests/{nonce}/answer", put(answer))
        .with_state(Asked { store, signals })
}

async fn input(
    State(Asked { store, .. }): State<Asked>,
    Extension(identity): Extension<Identity>,
    Path(nonce): Path<String>,
) -> Result<Response, ApiError> {
    let nonce = parse(&nonce)?;
    let input = store.request_input(&identity.device, nonce, clock::now()).await?;
    let input = input.ok_or_else(not_asked)?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], input).into_response())
}

async fn answer(
    State(Asked { store, signals }): State<Asked>,
    Extension(identity): Extension<Identity>,
    Path(nonce): Path<String>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let nonce = parse(&nonce)?;
    // Whoever was not asked is not listened to.
    if !store.is_open(&identity.device, nonce, clock::now()).await? {
        return Err(not_asked());
    }
    let late = |_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "request.late", "the answer is slow");
    let read = tokio::time::timeout(ANSWER_MAX, to_bytes(body, ANSWER_BYTES_MAX)).await;
    let invalid = |why: String| ApiError::invalid("request.answer", why);
    let bytes = read.map_err(late)?.map_err(|error| invalid(error.to_string()))?;
    let answer = Answer::decode(&bytes).map_err(|error| invalid(error.to_string()))?;
    if answer.nonce != nonce {
        return Err(invalid("the answer is to another request".to_owned()));
    }
    let mut change = store.begin().await?;
    let answer = (nonce, bytes.to_vec());
    if !change.set_answer(&identity.device, answer, clock::now()).await? {
        return Err(not_asked());
    }
    change.commit().await?;
    signals.answers().notify_waiters();
    Ok(StatusCode::NO_CONTENT)
}

fn parse(text: &str) -> Result<Nonce, ApiError> {
    text.parse().map_err(|_| not_asked())
}

fn not_asked() -> ApiError {
    let detail = "this device is not asked that, or not any more";
    ApiError::not_found("request.not-found", detail)
}
