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
use sealift_protocol::api::{CosignNew, Page, Problem, RevocationView};
use sealift_protocol::id::{RolloutId, UnixMillis};
use sealift_protocol::tuf::repository::{Change, Pace};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Caller;
use super::error::ApiError;
use crate::auth::Auth;
use crate::broker::courier::Courier;
use crate::clock;
use crate::directive::Director;
use crate::limits::REASON_CHARS_MAX;
use crate::order::cosign::CosignError;
use crate::order::{self, Asker};
use crate::permission::Permission;
use crate::signals::Signals;
use crate::store::TenantStore;
use crate::trust::deny::Because;
use crate::trust::{Published, Trust, TrustError};

/// The largest metadata of four roles, 5 MiB each, in base64, with a bundle and a deny list.
const UPLOAD_BYTES_MAX: usize = 32 << 20;

/// The role whose metadata takes something back.
const REVOCATIONS: &str = "revocations";

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
    /// Ends connections of revoked devices, and wakes rollouts.
    pub(crate) signals: Signals,
    /// Knows who has confirmed.
    pub(crate) auth: Arc<Auth>,
    /// Where rollouts are.
    pub(crate) store: TenantStore,
    /// Signs directives again.
    pub(crate) director: Arc<Director>,
}

impl Roles {
    /// What follows from new metadata: devices look, those that are denied are cut off, rollouts are looked at again.
    fn follow(&self, published: Published) {
        self.courier.hint(published.timestamp);
        for device in published.fallout.devices {
            self.signals.revoke(device);
        }
        self.signals.orders().notify_one();
    }
}

/// `/api/v1/trust/roles`.
pub(crate) fn router(roles: Roles) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(publish))
        .routes(routes!(revocations))
        .routes(routes!(cosign))
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
    /// Why; kept in the audit log, and beside what it put on the deny list.
    #[serde(default)]
    reason: String,
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
    let by = if role == REVOCATIONS {
        caller.has_stepped_up(&roles.auth, clock::now())?;
        caller.name()
    } else {
        caller.may(Permission::Publish)?
    };
    let is_bundle = headers.get(CONTENT_TYPE).is_some_and(|it| it == UPLOAD_TYPE);
    let (change, reason) = if is_bundle {
        let WithFiles { metadata, files, reason } = read_json(&body)?;
        check_reason(&reason)?;
        (Change::of(&role, decode(&metadata)?).with_files(decode_all(files)?), reason)
    } else {
        (Change::of(&role, body.into()), String::new())
    };
    let because = Because { by, reason: &reason, now: clock::now() };
    let published = roles.trust.accept(change, because).await?;
    roles.follow(published);
    Ok(StatusCode::NO_CONTENT)
}
/// Lists what is on the deny list and why, newest first.
#[utoipa::path(get, path = "/api/v1/trust/revocations", tag = "trust",
    responses((status = 200, body = Page<RevocationView>)))]
async fn revocations(
    State(roles): State<Roles>,
    _caller: Caller,
) -> Result<Json<Page<RevocationView>>, ApiError> {
    let items = roles.trust.revocations().await?;
    let total = u64::try_from(items.len()).unwrap_or(u64::MAX);
    Ok(Json(Page { items, total, next_cursor: None }))
}

/// Puts an operator's second signature under a rollout.
#[utoipa::path(post, path = "/api/v1/rollouts/{id}/cosign", tag = "rollouts",
    params(("id" = String, Path, description = "The rollout")), request_body = CosignNew,
    responses((status = 204), (status = 404, body = Problem), (status = 422, body = Problem)))]
async fn cosign(
    State(roles): State<Roles>,
    caller: Caller,
    Path(id): Path<String>,
    Json(new): Json<CosignNew>,
) -> Result<StatusCode, ApiError> {
    let asker = Asker { name: caller.may(Permission::Approve)?, now: clock::now() };
    let id = RolloutId::parse(&id)
        .map_err(|error| ApiError::not_found("rollout.not-found", error.to_string()))?;
    let place = (&roles.store, &*roles.trust, &*roles.director);
    order::cosign::cosign(place, id, &new.cosignature, asker).await?;
    roles.signals.directives().notify_one();
    Ok(StatusCode::NO_CONTENT)
}

impl From<CosignError> for ApiError {
    fn from(error: CosignError) -> Self {
        let text = error.to_string();
        match error {
            CosignError::Order(error) => error.into(),
            CosignError::Trust(error) => error.into(),
            CosignError::Form => Self::invalid("cosign.form", text),
            CosignError::Refused(refused) => Self::invalid(refused.code(), text)
                .help("sign with a key that the trust bundle names among its operators"),
        }
    }
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
    let together: Together = read_json(&body)?;
    let reason = together.reason.unwrap_or_default();
    check_reason(&reason)?;
    if together.roles.contains_key(REVOCATIONS) {
        caller.has_stepped_up(&roles.auth, clock::now())?;
    }
    let is_denial = together.roots.is_empty() && together.roles.keys().all(|it| it == REVOCATIONS);
    let by = if is_denial { caller.name() } else { caller.may(Permission::Publish)? };
    let change = Change {
        roots: together.roots.iter().map(|text| decode(text)).collect::<Result<_, _>>()?,
        targets: decode_all(together.roles)?,
        files: decode_all(together.files)?,
        pace: if together.catch_up { Pace::CatchUp } else { Pace::Next },
    };
    let because = Because { by, reason: &reason, now: clock::now() };
    roles.follow(roles.trust.accept(change, because).await?);
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
    let by = caller.may(Permission::Configure)?;
    let key = roles.trust.prepare_key(&role, by, clock::now()).await?;
    let json = HeaderValue::from_static("application/json");
    Ok(([(CONTENT_TYPE, json)], key.to_json()).into_response())
}

fn check_reason(reason: &str) -> Result<(), ApiError> {
    if reason.chars().count() <= REASON_CHARS_MAX {
        return Ok(());
    }
    let detail = format!("a reason has at most {REASON_CHARS_MAX} characters");
    Err(ApiError::invalid("trust.reason", detail))
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
