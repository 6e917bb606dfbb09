//! What a device keeps for people to look at: by which rules, and where it goes.

use axum::body::Body;
use axum::extract::{Extension, Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use sealift_protocol::capture::SampleId;
use sealift_protocol::upload::Upload;
use serde::Deserialize;

use super::super::error::ApiError;
use super::{part, signed_document};
use crate::certificate::Identity;
use crate::clock;
use crate::review::Review;
use crate::store::TenantStore;
use crate::store::samples::Part;

pub(super) fn router(store: TenantStore, review: Review) -> Router {
    let list = Router::new().route("/capture", get(list)).with_state(store);
    let samples = Router::new().route("/samples/{id}", get(upload).put(take)).with_state(review);
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
async fn take(
    State(review): State<Review>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
    Query(PartQuery { offset, size }): Query<PartQuery>,
    body: Body,
) -> Result<Json<Upload>, ApiError> {
    let id = parse(&id)?;
    let body = part::read(body, ("sample.late", "sample.part")).await?;
    let part = Part { from: offset, size, body };
    Ok(Json(review.take_part(&identity.device, id, part, clock::now()).await?))
}

fn parse(text: &str) -> Result<SampleId, ApiError> {
    text.parse().map_err(|_| ApiError::not_found("sample.not-found", "there is no such sample"))
}
