//! Trust metadata: read by everyone who verifies, written by whoever holds the keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealift_protocol::api::Page;
use sealift_protocol::id::UnixMillis;
use sealift_protocol::tuf::repository::{Change, Pace};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Caller;
use super::error::ApiError;
use crate::broker::courier::Courier;
use crate::clock;
use crate::limits::REASON_CHARS_MAX;
use crate::trust::{Trust, TrustError};

/// The largest metadata of four roles, 5 MiB each, in base64, with a bundle and a deny list.
const UPLOAD_BYTES_MAX: usize = 32 << 20;

/// Metadata with target files.
const UPLOAD_TYPE: &str = "application/vnd.sealift.trust-upload+json";

/// `/tuf/…`: the files of the repository, as they were signed.
pub(crate) fn metadata_router(trust: Arc<Trust>) -> Router {
    Router::new().route("/tuf/{*name}", get(metadata)).with_state(trust)
}

async fn metadata(
    State(trust): State<Arc<Trust>>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let Some(body) = trust.file(&name).await? else {
        let detail = format!("there is no metadata file {name}");
        return Err(ApiError::new(StatusCode::NOT_FOUND, "trust.no-file", detail));
    };
    // Every other file carries its version or its digest in its name.
    let cache = if name == "timestamp.json" { "no-cache" } else { "max-age=86400, immutable" };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static(cache)),
    ];
    Ok((headers, body).into_response())
}

/// What the routes of roles need.
#[derive(Clone)]
pub(crate) struct Roles {
    /// The repository.
    pub(crate) trust: Arc<Trust>,
    /// Tells devices that something changed.
    pub(crate) courier: Courier,
}

/// `/api/v1/trust/roles`.
pub(crate) fn router(roles: Roles) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(publish))
        .routes(routes!(change))
        .routes(routes!(prepare_key))
        .layer(DefaultBodyLimit::max(UPLOAD_BYTES_MAX))
        .with_state(roles)
}

/// A role of the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct RoleView {
    /// Its name.
    name: String,
    /// Its newest version.
    version: u64,
    /// When that expires.
    expires_at: UnixMillis,
    /// Target files that it names.
    targets: u64,
}

/// Lists the roles that name targets, and their newest metadata.
#[utoipa::path(get, path = "/api/v1/trust/roles", tag = "trust",
    responses((status = 200, body = Page<RoleView>)))]
async fn list(
    State(roles): State<Roles>,
    _caller: Caller,
) -> Result<Json<Page<RoleView>>, ApiError> {
    let roles = roles.trust.roles().await?;
    let items: Vec<_> = roles
        .into_iter()
        .map(|(name, targets)| RoleView {
            name,
            version: targets.version,
            expires_at: targets.expires,
            targets: u64::try_from(targets.targets.len()).unwrap_or(u64::MAX),
        })
        .collect();
    let total = u64::try_from(items.len()).unwrap_or(u64::MAX);
    Ok(Json(Page { items, total, next_cursor: None }))
}

/// New metadata together with target files that lie in the repository itself, such as `trust/revocations.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct WithFiles {
    /// The signed metadata, base64.
    metadata: String,
    /// Target files by path, base64.
    files: BTreeMap<String, String>,
}

/// Publishes the next metadata of a role.
///
/// The body is the signed metadata as it is; or, as `application/vnd.sealift.trust-upload+json`, metadata and target files in base64.
#[utoipa::path(put, path = "/api/v1/trust/roles/{role}", tag = "trust",
    params(("role" = String, Path, description = "`publisher-<team>`, `revocations`, `targets` or `root`")),
    request_body(content = Vec<u8>, content_type = "application/json"),
    responses((status = 204)))]
async fn publish(
    State(roles): State<Roles>,
    caller: Caller,
    Path(role): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let by = caller.may_publish()?;
    let is_bundle = headers.get(CONTENT_TYPE).is_some_and(|it| it == UPLOAD_TYPE);
    let change = if is_bundle {
        let WithFiles { metadata, files } = read_json(&body)?;
        Change::of(&role, decode(&metadata)?).with_files(decode_all(files)?)
    } else {
        Change::of(&role, body.into())
    };
    let published = roles.trust.accept(change, (by, None), clock::now()).await?;
    roles.courier.hint(published.timestamp).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Metadata of several roles that belong together: a root and the targets under it, a delegation and the role that it is to.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Together {
    /// Signed roots, base64, each the next after the one before it.
    #[serde(default)]
    roots: Vec<String>,
    /// Signed metadata by role, base64.
    #[serde(default)]
    roles: BTreeMap<String, String>,
    /// Target files by path, base64.
    #[serde(default)]
    files: BTreeMap<String, String>,
    /// Whether versions may be left out, since they were published elsewhere.
    #[serde(default)]
    catch_up: bool,
    /// Why; kept in the audit log.
    #[serde(default)]
    reason: Option<String>,
}

/// Publishes the next metadata of several roles in one snapshot: all of it, or nothing.
#[utoipa::path(put, path = "/api/v1/trust/changes", tag = "trust",
    request_body(content = Vec<u8>, content_type = "application/json"),
    responses((status = 204), (status = 409, description = "somebody else has published in between")))]
async fn change(
    State(roles): State<Roles>,
    caller: Caller,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let by = caller.may_publish()?;
    let together: Together = read_json(&body)?;
    let reason = together.reason.filter(|reason| !reason.is_empty());
    if reason.as_ref().is_some_and(|reason| reason.chars().count() > REASON_CHARS_MAX) {
        let detail = format!("the reason has more than {REASON_CHARS_MAX} characters");
        return Err(ApiError::invalid("trust.reason", detail));
    }
    let change = Change {
        roots: together.roots.iter().map(|text| decode(text)).collect::<Result<_, _>>()?,
        targets: decode_all(together.roles)?,
        files: decode_all(together.files)?,
        pace: if together.catch_up { Pace::CatchUp } else { Pace::Next },
    };
    let asker = (by, reason.as_deref());
    let published = roles.trust.accept(change, asker, clock::now()).await?;
    roles.courier.hint(published.timestamp).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a new key of a role whose key the server holds, and shows its public part. It signs nothing before those who hold offline
/// keys have named it.
#[utoipa::path(post, path = "/api/v1/trust/keys/{role}", tag = "trust",
    params(("role" = String, Path, description = "`director`, `snapshot` or `timestamp`")),
    responses((status = 200, body = Object, description = "the key object, as trust metadata name it")))]
async fn prepare_key(
    State(roles): State<Roles>,
    caller: Caller,
    Path(role): Path<String>,
) -> Result<Response, ApiError> {
    let by = caller.may_administer()?;
    let key = roles.trust.prepare_key(&role, by, clock::now()).await?;
    let json = HeaderValue::from_static("application/json");
    Ok(([(CONTENT_TYPE, json)], key.to_json()).into_response())
}

fn read_json<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| refused(&error))
}

fn decode(text: &str) -> Result<Vec<u8>, ApiError> {
    STANDARD.decode(text).map_err(|error| refused(&error))
}

fn decode_all(texts: BTreeMap<String, String>) -> Result<BTreeMap<String, Vec<u8>>, ApiError> {
    texts.into_iter().map(|(name, text)| Ok((name, decode(&text)?))).collect()
}

fn refused(error: &dyn std::error::Error) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "trust.upload", error.to_string())
}

impl From<TrustError> for ApiError {
    fn from(error: TrustError) -> Self {
        match error.code() {
            Some(code) if error.is_conflict() => {
                Self::new(StatusCode::CONFLICT, code, error.to_string())
                    .help("somebody else has published in between: follow them, then sign again")
            }
            Some(code) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, error.to_string()),
            None => Self::internal(error),
        }
    }
}
