//! What a device has predicted in a batch, on its way up: part by part, for whoever was asked for it.

use axum::body::Body;
use axum::extract::{Extension, Path, Query, State};
use axum::routing::get;
use axum::{Json, Router};
use sealift_protocol::digest::Digest;
use sealift_protocol::upload::Upload;
use serde::Deserialize;

use super::super::error::ApiError;
use super::part;
use crate::certificate::Identity;
use crate::clock;
use crate::results::Results;
use crate::store::batch_results::Whole;

pub(super) fn router(results: Results) -> Router {
    Router::new().route("/batches/{name}/result", get(upload).put(take)).with_state(results)
}

/// Of all of it.
#[derive(Debug, Deserialize)]
struct WholeQuery {
    /// Bytes.
    size: u64,
    /// What they are.
    digest: Digest,
}

async fn upload(
    State(results): State<Results>,
    Extension(identity): Extension<Identity>,
    Path(name): Path<String>,
    Query(WholeQuery { size, digest }): Query<WholeQuery>,
) -> Result<Json<Upload>, ApiError> {
    Ok(Json(results.upload(&identity.device, &name, Whole { size, digest }).await?))
}

/// Which part of what.
#[derive(Debug, Deserialize)]
struct PartQuery {
    /// Where it begins.
    offset: u64,
    /// Bytes of the whole.
    size: u64,
    /// What the whole is.
    digest: Digest,
}

async fn take(
    State(results): State<Results>,
    Extension(identity): Extension<Identity>,
    Path(name): Path<String>,
    Query(PartQuery { offset, size, digest }): Query<PartQuery>,
    body: Body,
) -> Result<Json<Upload>, ApiError> {
    let body = part::read(body, ("batch.late", "batch.part")).await?;
    let (device, whole) = (&identity.device, Whole { size, digest });
    let taken = results.take_part((device, &name), whole, (offset, body), clock::now()).await?;
    Ok(Json(taken))
}
