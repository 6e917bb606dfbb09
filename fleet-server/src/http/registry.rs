//! `/v2/`: the OCI distribution specification 1.1, push and pull.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LOCATION, RANGE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use object_store::GetRange;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::ModelName;
use sealift_protocol::limits::MANIFEST_BYTES_MAX;
use serde::Deserialize;
use std::sync::Arc;

use super::access::Caller;
use crate::audit::Deed;
use crate::blobs::Blobs;
use crate::clock;
use crate::registry::{self, Kind, Reference};
use crate::store::TenantStore;
use crate::store::registry::ManifestRow;

mod error;
mod upload;

pub(crate) use error::OciError;
use upload::Uploads;

/// Tags on one page.
const TAGS_MAX: i64 = 1_000;

pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Blobs and manifests of one tenant.
#[derive(Clone)]
pub(crate) struct Registry {
    store: TenantStore,
    blobs: Blobs,
    uploads: Arc<Uploads>,
}

impl Registry {
    /// A registry over `blobs`.
    pub(crate) fn new(store: TenantStore, blobs: Blobs) -> Self {
        Self { store, blobs, uploads: Arc::default() }
    }

    /// Blobs by digest.
    pub(crate) const fn blobs(&self) -> &Blobs {
        &self.blobs
    }
}

/// Push and pull, for callers that the operators' port has let in.
pub(crate) fn router(registry: Registry) -> Router {
    Router::new()
        .route("/v2/", get(ping))
        .route("/v2/{team}/{name}/tags/list", get(tags))
        .route("/v2/{team}/{name}/manifests/{reference}", get(manifest).put(put_manifest))
        .route("/v2/{team}/{name}/blobs/{digest}", get(blob))
        .merge(upload::router())
        .with_state(registry)
}

/// Pull by digest alone, for devices: what they may ask for was named in a directive.
pub(crate) fn device_router(registry: Registry) -> Router {
    Router::new()
        .route("/v2/{team}/{name}/manifests/{reference}", get(manifest_by_digest))
        .route("/v2/{team}/{name}/blobs/{digest}", get(blob))
        .with_state(registry)
}

async fn ping() -> Response {
    ([(HeaderName::from_static("docker-distribution-api-version"), "registry/2.0")], "{}")
        .into_response()
}

pub(super) fn repository(team: &str, name: &str) -> Result<ModelName, OciError> {
    ModelName::parse(&format!("{team}/{name}")).map_err(|error| OciError::Name(error.to_string()))
}

fn digest(text: &str) -> Result<Digest, OciError> {
    Digest::parse(text).map_err(|error| OciError::Digest(error.to_string()))
}

#[derive(Deserialize)]
struct TagsQuery {
    #[serde(default)]
    n: Option<i64>,
    #[serde(default)]
    last: String,
}

async fn tags(
    State(registry): State<Registry>,
    Path((team, name)): Path<(String, String)>,
    Query(query): Query<TagsQuery>,
) -> Result<Response, OciError> {
    let repository = repository(&team, &name)?;
    let limit = query.n.unwrap_or(TAGS_MAX).clamp(0, TAGS_MAX);
    let tags = registry.store.tags(&repository, &query.last, limit).await?;
    let body = serde_json::json!({ "name": repository.to_string(), "tags": tags });
    let is_full = i64::try_from(tags.len()).is_ok_and(|count| count == limit);
    let next = tags
        .last()
        .filter(|_| is_full)
        .map(|last| format!("</v2/{repository}/tags/list?n={limit}&last={last}>; rel=\"next\""));
    let next = next.and_then(|link| HeaderValue::try_from(link).ok());
    let mut response = axum::Json(body).into_response();
    if let Some(link) = next {
        response.headers_mut().insert(axum::http::header::LINK, link);
    }
    Ok(response)
}

async fn manifest(
    State(registry): State<Registry>,
    Path((team, name, reference)): Path<(String, String, String)>,
    method: Method,
) -> Result<Response, OciError> {
    let repository = repository(&team, &name)?;
    let reference = Reference::parse(&reference).ok_or(OciError::ManifestUnknown)?;
    serve_manifest(&registry, &repository, &reference, &method).await
}

async fn manifest_by_digest(
    State(registry): State<Registry>,
    Path((team, name, reference)): Path<(String, String, String)>,
    method: Method,
) -> Result<Response, OciError> {
    let repository = repository(&team, &name)?;
    let reference = Reference::Digest(digest(&reference)?);
    serve_manifest(&registry, &repository, &reference, &method).await
}

async fn serve_manifest(
    registry: &Registry,
    repository: &ModelName,
    reference: &Reference,
    method: &Method,
) -> Result<Response, OciError> {
    let row = registry.store.manifest(repository, reference).await?;
    let row = row.ok_or(OciError::ManifestUnknown)?;
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        registry.blobs.read(row.digest, MANIFEST_BYTES_MAX as u64).await?.into()
    };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    insert(headers, CONTENT_TYPE, &row.media_type);
    insert(headers, CONTENT_LENGTH, &row.size.to_string());
    insert(headers, CONTENT_DIGEST, &row.digest.to_string());
    insert(headers, ETAG, &format!("\"{}\"", row.digest));
    Ok(response)
}

async fn blob(
    State(registry): State<Registry>,
    Path((team, name, text)): Path<(String, String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, OciError> {
    let (repository, digest) = (repository(&team, &name)?, digest(&text)?);
    if !registry.store.has_blob(&repository, digest).await? {
        return Err(OciError::BlobUnknown);
    }
    if method == Method::HEAD {
        let size = registry.blobs.size(digest).await?.ok_or(OciError::BlobUnknown)?;
        return Ok(blob_response(digest, size, Body::empty()));
    }
    let range = match headers.get(RANGE) {
        Some(range) => Some(parse_range(range).ok_or(OciError::Range)?),
        None => None,
    };
    let is_partial = range.is_some();
    if let Some(range) = &range {
        let size = registry.blobs.size(digest).await?.ok_or(OciError::BlobUnknown)?;
        range.as_range(size).map_err(|_| OciError::Range)?;
    }
    let served = registry.blobs.serve(digest, range).await?;
    let length = served.range.end.saturating_sub(served.range.start);
    let mut response = blob_response(digest, length, Body::from_stream(served.stream));
    if is_partial {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let last = served.range.end.saturating_sub(1);
        let range = format!("bytes {}-{last}/{}", served.range.start, served.size);
        insert(response.headers_mut(), CONTENT_RANGE, &range);
    }
    Ok(response)
}

fn blob_response(digest: Digest, length: u64, body: Body) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    insert(headers, CONTENT_TYPE, "application/octet-stream");
    insert(headers, CONTENT_LENGTH, &length.to_string());
    insert(headers, ACCEPT_RANGES, "bytes");
    insert(headers, CONTENT_DIGEST, &digest.to_string());
    insert(headers, ETAG, &format!("\"{digest}\""));
    response
}

/// One range of bytes (RFC 9110, section 14.1.2); a list of ranges is not served.
fn parse_range(value: &HeaderValue) -> Option<GetRange> {
    let (first, last) = value.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    match (first, last) {
        ("", suffix) => Some(GetRange::Suffix(suffix.parse().ok()?)),
        (first, "") => Some(GetRange::Offset(first.parse().ok()?)),
        (first, last) => {
            let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last).then(|| GetRange::Bounded(first..last.saturating_add(1)))
        }
    }
}

async fn put_manifest(
    State(registry): State<Registry>,
    Path((team, name, text)): Path<(String, String, String)>,
    caller: Caller,
    request: Request,
) -> Result<Response, OciError> {
    let operator = caller.may_push()?;
    let repository = repository(&team, &name)?;
    let reference = Reference::parse(&text).ok_or(OciError::Tag(text))?;
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let content_type = content_type.map(str::to_owned);
    let bytes = to_bytes(request.into_body(), MANIFEST_BYTES_MAX).await;
    let bytes = bytes.map_err(|_| OciError::TooLarge(MANIFEST_BYTES_MAX as u64))?;
    let digest = Digest::of(&bytes);
    if let Reference::Digest(promised) = reference
        && promised != digest
    {
        return Err(OciError::Digest(format!("manifest has digest {digest}")));
    }
    let (kind, media_type) = registry::classify(&bytes, content_type.as_deref())?;
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let row = ManifestRow { digest, media_type, size };
    let pushed = Pushed { repository, reference, row, bytes: bytes.into() };
    pushed.keep(&registry, kind, operator).await?;
    let location = format!("/v2/{}/manifests/{digest}", pushed.repository);
    let mut response = StatusCode::CREATED.into_response();
    insert(response.headers_mut(), LOCATION, &location);
    insert(response.headers_mut(), CONTENT_DIGEST, &digest.to_string());
    Ok(response)
}

struct Pushed {
    repository: ModelName,
    reference: Reference,
    row: ManifestRow,
    bytes: Vec<u8>,
}

impl Pushed {
    /// Checks the manifest as what it is, then stores bytes, rows, tag and version. The rows come last: a crash leaves bytes
    /// that nobody refers to.
    async fn keep(&self, registry: &Registry, kind: Kind, by: &str) -> Result<(), OciError> {
        let (repository, digest) = (&self.repository, self.row.digest);
        let facts = match kind {
            Kind::Foreign => None,
            Kind::ModelManifest => {
                registry::check_manifest(&registry.blobs, repository, &self.bytes).await?;
                None
            }
            Kind::ModelIndex => {
                Some(registry::check_index(&registry.blobs, repository, &self.bytes).await?)
            }
        };
        if let (Some(facts), Reference::Tag(tag)) = (&facts, &self.reference) {
            registry::check_tag(facts, tag)?;
            let listed = registry.store.version(repository, &facts.version).await?;
            if listed.is_some_and(|listed| listed.digest != digest) {
                return Err(OciError::VersionTaken(facts.version.to_string()));
            }
        }
        registry.blobs.put(self.bytes.clone()).await?;
        let now = clock::now();
        let mut change = registry.store.begin().await?;
        change.add_manifest(repository, &self.row, now).await?;
        if let Reference::Tag(tag) = &self.reference {
            change.set_tag(repository, tag, digest).await?;
            if let Some(facts) = &facts {
                let is_new = change.add_version(repository, &self.row, facts, (by, now)).await?;
                if is_new {
                    let subject = format!("{repository}@{}", facts.version);
                    let (action, detail) = ("version.push", digest.to_string());
                    let deed = Deed {
                        actor: by,
                        action,
                        subject: &subject,
                        reason: None,
                        detail: &detail,
                    };
                    change.audit(&deed, now).await?;
                }
            }
        }
        change.commit().await?;
        Ok(())
    }
}

/// Every value written here is ASCII of our own making; one that is not would be left out.
pub(super) fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Option<GetRange> {
        parse_range(&HeaderValue::from_str(text).unwrap())
    }

    #[test]
    fn one_range_is_read_and_anything_else_refused() {
        assert_eq!(range("bytes=0-3"), Some(GetRange::Bounded(0..4)));
        assert_eq!(range("bytes=7-"), Some(GetRange::Offset(7)));
        assert_eq!(range("bytes=-5"), Some(GetRange::Suffix(5)));
        for text in ["bytes=3-1", "bytes=0-1,4-5", "rows=0-1", "bytes=-", "bytes=a-b", "0-1"] {
            assert_eq!(range(text), None, "{text}");
        }
    }
}
