//! Pushing blobs: whole, or in chunks. A digest that does not match leaves nothing behind.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CONTENT_RANGE, LOCATION, RANGE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use futures_util::StreamExt as _;
use sealift_protocol::digest::{Digest, encode_hex};
use sealift_protocol::id::{ModelName, UnixMillis};
use sealift_protocol::limits::WEIGHTS_BYTES_MAX;
use serde::Deserialize;

use super::{CONTENT_DIGEST, OciError, Registry, digest, insert, repository};
use crate::blobs::{BlobError, Staged};
use crate::clock;
use crate::http::access::Caller;

/// Uploads under way at a time.
const UPLOADS_MAX: usize = 64;

/// An upload that nobody went on with for this long is dropped.
const IDLE_MAX_MS: i64 = 3_600 * 1_000;

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// Uploads under way, by id. One that is being written to is not in here, so that nobody else can write to it.
#[derive(Default)]
pub(super) struct Uploads(Mutex<BTreeMap<String, Upload>>);

struct Upload {
    repository: ModelName,
    staged: Staged,
    touched: UnixMillis,
}

impl Uploads {
    fn park(&self, id: &str, upload: Upload) -> Result<(), OciError> {
        let mut uploads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.retain(|_, other| upload.touched.since(other.touched) < IDLE_MAX_MS);
        if uploads.len() >= UPLOADS_MAX {
            return Err(OciError::TooMany);
        }
        uploads.insert(id.to_owned(), upload);
        Ok(())
    }

    fn take(&self, id: &str, repository: &ModelName) -> Result<Upload, OciError> {
        let mut uploads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if uploads.get(id).is_none_or(|upload| upload.repository != *repository) {
            return Err(OciError::UploadUnknown);
        }
        uploads.remove(id).ok_or(OciError::UploadUnknown)
    }
}

pub(super) fn router() -> Router<Registry> {
    Router::new().route("/v2/{team}/{name}/blobs/uploads/", post(begin)).route(
        "/v2/{team}/{name}/blobs/uploads/{id}",
        get(progress).patch(append).put(finish).delete(cancel),
    )
}

#[derive(Deserialize)]
struct BeginQuery {
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    mount: Option<String>,
    #[serde(default)]
    from: Option<String>,
}

async fn begin(
    State(registry): State<Registry>,
    Path((team, name)): Path<(String, String)>,
    Query(query): Query<BeginQuery>,
    caller: Caller,
    request: Request,
) -> Result<Response, OciError> {
    caller.may_push()?;
    let repository = repository(&team, &name)?;
    if let (Some(mount), Some(from)) = (&query.mount, &query.from)
        && let (Ok(digest), Ok(from)) = (digest(mount), ModelName::parse(from))
        && registry.store.has_blob(&from, digest).await?
        && let Some(size) = registry.blobs().size(digest).await?
    {
        record(&registry, &repository, digest, size).await?;
        return Ok(created(&repository, digest));
    }
    let mut staged = registry.blobs().stage().await?;
    if let Some(promised) = &query.digest {
        let promised = digest(promised)?;
        receive(&mut staged, request.into_body()).await?;
        return keep(&registry, &repository, staged, promised).await;
    }
    let id = new_id()?;
    let upload = Upload { repository: repository.clone(), staged, touched: clock::now() };
    registry.uploads.park(&id, upload)?;
    Ok(accepted(&repository, &id, 0))
}

async fn progress(
    State(registry): State<Registry>,
    Path((team, name, id)): Path<(String, String, String)>,
    caller: Caller,
) -> Result<Response, OciError> {
    caller.may_push()?;
    let repository = repository(&team, &name)?;
    let upload = registry.uploads.take(&id, &repository)?;
    let bytes = upload.staged.bytes();
    registry.uploads.park(&id, upload)?;
    let mut response = accepted(&repository, &id, bytes);
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

async fn append(
    State(registry): State<Registry>,
    Path((team, name, id)): Path<(String, String, String)>,
    caller: Caller,
    request: Request,
) -> Result<Response, OciError> {
    caller.may_push()?;
    let repository = repository(&team, &name)?;
    let mut upload = registry.uploads.take(&id, &repository)?;
    if !is_next(request.headers(), upload.staged.bytes()) {
        registry.uploads.park(&id, upload)?;
        return Err(OciError::Range);
    }
    receive(&mut upload.staged, request.into_body()).await?;
    let bytes = upload.staged.bytes();
    upload.touched = clock::now();
    registry.uploads.park(&id, upload)?;
    Ok(accepted(&repository, &id, bytes))
}

#[derive(Deserialize)]
struct FinishQuery {
    digest: String,
}

async fn finish(
    State(registry): State<Registry>,
    Path((team, name, id)): Path<(String, String, String)>,
    Query(query): Query<FinishQuery>,
    caller: Caller,
    request: Request,
) -> Result<Response, OciError> {
    caller.may_push()?;
    let (repository, promised) = (repository(&team, &name)?, digest(&query.digest)?);
    let mut upload = registry.uploads.take(&id, &repository)?;
    if !is_next(request.headers(), upload.staged.bytes()) {
        return Err(OciError::Range);
    }
    receive(&mut upload.staged, request.into_body()).await?;
    keep(&registry, &repository, upload.staged, promised).await
}

async fn cancel(
    State(registry): State<Registry>,
    Path((team, name, id)): Path<(String, String, String)>,
    caller: Caller,
) -> Result<StatusCode, OciError> {
    caller.may_push()?;
    registry.uploads.take(&id, &repository(&team, &name)?)?;
    Ok(StatusCode::NO_CONTENT)
}

/// A chunk says where it begins; one that does not is the next.
fn is_next(headers: &HeaderMap, bytes: u64) -> bool {
    let Some(range) = headers.get(CONTENT_RANGE) else { return true };
    let first = range.to_str().ok().and_then(|range| range.split_once('-')?.0.parse::<u64>().ok());
    first == Some(bytes)
}

async fn receive(staged: &mut Staged, body: Body) -> Result<(), OciError> {
    let mut stream = body.into_data_stream();
    while let Some(bytes) = stream.next().await {
        let bytes = bytes.map_err(|_| OciError::Broken)?;
        staged.append(&bytes, WEIGHTS_BYTES_MAX).await?;
    }
    Ok(())
}

async fn keep(
    registry: &Registry,
    repository: &ModelName,
    staged: Staged,
    promised: Digest,
) -> Result<Response, OciError> {
    let size = registry.blobs().keep(staged, promised).await?;
    record(registry, repository, promised, size).await?;
    Ok(created(repository, promised))
}

async fn record(
    registry: &Registry,
    repository: &ModelName,
    digest: Digest,
    size: u64,
) -> Result<(), OciError> {
    let mut change = registry.store.begin().await?;
    change.add_blob(repository, digest, size, clock::now()).await?;
    Ok(change.commit().await?)
}

fn new_id() -> Result<String, OciError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| OciError::from(BlobError::Staging(error.into())))?;
    Ok(encode_hex(&bytes))
}

fn accepted(repository: &ModelName, id: &str, bytes: u64) -> Response {
    let mut response = StatusCode::ACCEPTED.into_response();
    let headers = response.headers_mut();
    insert(headers, LOCATION, &format!("/v2/{repository}/blobs/uploads/{id}"));
    insert(headers, RANGE, &format!("0-{}", bytes.saturating_sub(1)));
    insert(headers, UPLOAD_ID, id);
    response
}

fn created(repository: &ModelName, digest: Digest) -> Response {
    let mut response = StatusCode::CREATED.into_response();
    let headers = response.headers_mut();
    insert(headers, LOCATION, &format!("/v2/{repository}/blobs/{digest}"));
    insert(headers, CONTENT_DIGEST, &digest.to_string());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_out_of_order_is_noticed() {
        let headers = |range: &str| {
            let mut headers = HeaderMap::new();
            insert(&mut headers, CONTENT_RANGE, range);
            headers
        };
        assert!(is_next(&HeaderMap::new(), 7));
        assert!(is_next(&headers("7-9"), 7));
        for range in ["0-9", "8-9", "x-9", "7"] {
            assert!(!is_next(&headers(range), 7), "{range}");
        }
    }
}
