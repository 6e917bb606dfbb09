//! `/v2/`: the OCI distribution specification 1.1. Pull, push, discovery and management.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::HeaderValue;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use tokio::sync::Semaphore;

use super::access::Caller;
use crate::blobs::Blobs;
use crate::content::ContentDigest;
use crate::registry::name::Repository;
use crate::store::TenantStore;

mod blobs;
mod discovery;
mod error;
mod manifests;
mod path;
mod upload;

pub(crate) use error::OciError;
use path::{Place, What};

/// Pushes whose bytes are worked on at a time: each holds up to five parts, 25 MiB, and the allocator keeps as much again. Others wait, and
/// their senders with them.
const RECEIVERS_MAX: usize = 8;

/// Time that a push waits for its turn.
const TURN_MAX: Duration = Duration::from_mins(1);

pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Blobs and manifests of one tenant; cheap to clone.
#[derive(Clone)]
pub(crate) struct Registry {
    store: TenantStore,
    blobs: Blobs,
    receivers: Arc<Semaphore>,
    mounts_from_anywhere: bool,
}

impl Registry {
    /// A registry over `blobs`.
    pub(crate) fn new(store: TenantStore, blobs: Blobs) -> Self {
        let receivers = Arc::new(Semaphore::new(RECEIVERS_MAX));
        Self { store, blobs, receivers, mounts_from_anywhere: true }
    }

    /// Whether a blob that some repository has is mounted where the client names none.
    #[must_use]
    pub(crate) fn mounting_from_anywhere(self, is_allowed: bool) -> Self {
        Self { mounts_from_anywhere: is_allowed, ..self }
    }

    /// The same for what devices ask.
    pub(crate) fn for_devices(&self) -> Self {
        Self { store: self.store.for_devices(), ..self.clone() }
    }

    /// Blobs by digest.
    pub(crate) const fn blobs(&self) -> &Blobs {
        &self.blobs
    }
}

/// A request to one repository.
struct Ask {
    registry: Registry,
    repository: Repository,
    parts: Parts,
}

impl Ask {
    /// A parameter of the query.
    fn parameter(&self, name: &str) -> Option<String> {
        let query = self.parts.uri.query().unwrap_or_default().as_bytes();
        let mut pairs = url::form_urlencoded::parse(query);
        pairs.find_map(|(key, value)| (key == name).then(|| value.into_owned()))
    }

    fn header(&self, name: HeaderName) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }

    fn is_head(&self) -> bool {
        self.parts.method == Method::HEAD
    }
}

/// Everything, for callers that the operators' port has let in.
pub(crate) fn router(registry: Registry) -> Router {
    Router::new()
        .route("/v2", get(ping))
        .route("/v2/", get(ping))
        .route("/v2/{*path}", any(operator))
        .with_state(registry)
}

/// Pull by digest alone, for devices: what they may ask for was named in a directive.
pub(crate) fn device_router(registry: Registry) -> Router {
    Router::new().route("/v2/{*path}", get(device)).with_state(registry)
}

async fn ping() -> Response {
    ([(HeaderName::from_static("docker-distribution-api-version"), "registry/2.0")], "{}")
        .into_response()
}

async fn operator(
    State(registry): State<Registry>,
    Path(path): Path<String>,
    caller: Caller,
    request: Request,
) -> Result<Response, OciError> {
    let Place { repository, what } = Place::parse(&path)?;
    let (parts, body) = request.into_parts();
    let ask = Ask { registry, repository, parts };
    let method = ask.parts.method.clone();
    match what {
        What::Upload(_) | What::Uploads => {
            let by = caller.may_push()?;
            upload::serve(ask, what, body, by).await
        }
        What::Tags | What::Referrers(_) | What::Manifest(_) | What::Blob(_) => {
            if is_reading(&method) {
                return read(&ask, what, &caller).await;
            }
            let by = caller.may_push()?;
            write(ask, what, body, by).await
        }
    }
}

async fn read(ask: &Ask, what: What, caller: &Caller) -> Result<Response, OciError> {
    match what {
        What::Tags => discovery::tags(ask).await,
        What::Referrers(digest) => discovery::referrers(ask, &digest).await,
        What::Manifest(reference) => manifests::get(ask, &reference).await,
        What::Blob(digest) => blobs::get(ask, &digest, caller.may_push().is_ok()).await,
        What::Uploads | What::Upload(_) => Err(OciError::Unsupported),
    }
}

async fn write(ask: Ask, what: What, body: Body, by: &str) -> Result<Response, OciError> {
    let is_delete = ask.parts.method == Method::DELETE;
    match what {
        What::Manifest(reference) if ask.parts.method == Method::PUT => {
            manifests::put(&ask, &reference, body, by).await
        }
        What::Manifest(reference) if is_delete => manifests::delete(&ask, &reference, by).await,
        What::Blob(digest) if is_delete => blobs::delete(&ask, &digest, by).await,
        What::Manifest(_) | What::Blob(_) | What::Tags | What::Referrers(_) => {
            Err(OciError::Unsupported)
        }
        What::Uploads | What::Upload(_) => Err(OciError::Unsupported),
    }
}

async fn device(
    State(registry): State<Registry>,
    Path(path): Path<String>,
    request: Request,
) -> Result<Response, OciError> {
    let Place { repository, what } = Place::parse(&path)?;
    let ask = Ask { registry, repository, parts: request.into_parts().0 };
    match what {
        What::Manifest(reference) => {
            digest(&reference)?;
            manifests::get(&ask, &reference).await
        }
        What::Blob(digest) => blobs::get(&ask, &digest, false).await,
        What::Tags | What::Uploads | What::Upload(_) | What::Referrers(_) => Err(OciError::NoRoute),
    }
}

fn is_reading(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn digest(text: &str) -> Result<ContentDigest, OciError> {
    ContentDigest::parse(text).map_err(|error| OciError::Digest(error.to_string()))
}

/// Every value written here is ASCII of our own making; one that is not would be left out.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
