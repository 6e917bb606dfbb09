//! What a device keeps for people to look at: by which rules, and where it goes.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use sealift_protocol::capture::{SampleId, Upload};
use sealift_protocol::limits::SAMPLE_PART_BYTES_MAX;
use serde::Deserialize;

use super::super::error::ApiError;
use super::signed_document;
use crate::certificate::Identity;
use crate::clock;
use crate::review::Review;
use crate::store::TenantStore;
use crate::store::samples::Part;

/// Time for a part to come up: the longest at 130 kbit/s.
const PART_MAX: Duration = Duration::from_secs(16);

pub(super) fn router(store: TenantStore, review: Review) -> Router {
    let list = Router::new().route("/capture", get(list)).with_state(store);
    let samples = Router::new().route("/samples/{id}", get(upload).put(part)).with_state(review);
    list.merge(samples)
}

async fn list(State(store): State<TenantStore>, headers: HeaderMap) -> Result<Response, ApiError> {
    Ok(signed_document(&headers, store.signed_captures().await?))
}

/// Says how far a sample is here. Of one that is here whole, the device knows the size.
async fn upload(
    State(review): State<Review>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
) -> Result<Json<Upload>, ApiError> {
    Ok(Json(review.upload(&identity.device, parse(&id)?, 0).await?))
}

/// Which part.
#[derive(Debug, Deserialize)]
struct PartQuery {
    /// Where it begins.
    offset: u64,
    /// Bytes of the whole sample.
    size: u64,
}

/// Takes a part, where it comes next; the answer says which one does after it.
async fn part(
    State(review): State<Review>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
    Query(PartQuery { offset, size }): Query<PartQuery>,
    body: Body,
) -> Result<Json<Upload>, ApiError> {
    let id = parse(&id)?;
    let late = |_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "sample.late", "the part is slow");
    let read = tokio::time::timeout(PART_MAX, to_bytes(body, SAMPLE_PART_BYTES_MAX)).await;
    let body = read.map_err(late)?;
    let body = body.map_err(|error| ApiError::invalid("sample.part", error.to_string()))?;
    let part = Part { from: offset, size, body: body.to_vec() };
    Ok(Json(review.take_part(&identity.device, id, part, clock::now()).await?))
}

fn parse(text: &str) -> Result<SampleId, ApiError> {
    text.parse().map_err(|_| ApiError::not_found("sample.not-found", "there is no such sample"))
}
