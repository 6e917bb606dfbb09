//! `/api/v1/models`: what can be rolled out.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use sealift_protocol::api::{ModelView, Page, VersionView};
use sealift_protocol::id::{ModelName, Version};
use sealift_protocol::limits::BASELINE_BYTES_MAX;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Caller;
use super::error::ApiError;
use crate::blobs::{BlobError, Blobs};
use crate::store::TenantStore;
use crate::store::registry::{Usage, VersionRow};

/// What the routes of models need.
#[derive(Clone)]
pub(crate) struct Models {
    /// The tenant's store.
    pub(crate) store: TenantStore,
    /// Where baselines lie.
    pub(crate) blobs: Blobs,
}

/// `/api/v1/models`.
pub(crate) fn router(models: Models) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(model))
        .routes(routes!(version))
        .routes(routes!(baseline))
        .with_state(models)
}

/// Lists models with their versions, newest first.
#[utoipa::path(get, path = "/api/v1/models", tag = "models",
    responses((status = 200, body = Page<ModelView>)))]
async fn list(
    State(models): State<Models>,
    _caller: Caller,
) -> Result<Json<Page<ModelView>>, ApiError> {
    let versions = models.store.versions(None).await?;
    let usage = models.store.usage(None).await?;
    let items: Vec<_> =
        versions.into_iter().map(|(name, rows)| model_view(name, rows, &usage)).collect();
    let total = u64::try_from(items.len()).unwrap_or(u64::MAX);
    Ok(Json(Page { items, total, next_cursor: None }))
}

/// One model with its versions, newest first.
#[utoipa::path(get, path = "/api/v1/models/{team}/{name}", tag = "models",
    params(("team" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = ModelView)))]
async fn model(
    State(models): State<Models>,
    _caller: Caller,
    Path((team, name)): Path<(String, String)>,
) -> Result<Json<ModelView>, ApiError> {
    let name = model_name(&team, &name)?;
    let mut versions = models.store.versions(Some(&name)).await?;
    let Some(rows) = versions.remove(&name) else {
        let detail = format!("there is no model {name}");
        return Err(ApiError::new(StatusCode::NOT_FOUND, "model.not-found", detail));
    };
    let usage = models.store.usage(Some(&name)).await?;
    Ok(Json(model_view(name, rows, &usage)))
}

/// One version of a model.
#[utoipa::path(get, path = "/api/v1/models/{team}/{name}/versions/{version}", tag = "models",
    params(("team" = String, Path), ("name" = String, Path), ("version" = String, Path)),
    responses((status = 200, body = VersionView)))]
async fn version(
    State(models): State<Models>,
    _caller: Caller,
    Path(path): Path<(String, String, String)>,
) -> Result<Json<VersionView>, ApiError> {
    let row = find(&models, path).await?;
    let usage = models.store.usage(Some(&row.model)).await?;
    Ok(Json(version_view(row, &usage)))
}

/// The training distribution of a version, as CBOR.
#[utoipa::path(get, path = "/api/v1/models/{team}/{name}/versions/{version}/baseline",
    tag = "models",
    params(("team" = String, Path), ("name" = String, Path), ("version" = String, Path)),
    responses((status = 200, content_type = "application/cbor")))]
async fn baseline(
    State(models): State<Models>,
    _caller: Caller,
    Path(path): Path<(String, String, String)>,
) -> Result<Response, ApiError> {
    let row = find(&models, path).await?;
    let Some(digest) = row.baseline else {
        let detail = format!("version {} of {} has no baseline", row.version, row.model);
        return Err(ApiError::new(StatusCode::NOT_FOUND, "version.no-baseline", detail));
    };
    let bytes = models.blobs.read(digest, BASELINE_BYTES_MAX as u64).await?;
    Ok(([(CONTENT_TYPE, "application/cbor")], bytes).into_response())
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        Self::internal(error)
    }
}

fn model_name(team: &str, name: &str) -> Result<ModelName, ApiError> {
    ModelName::parse(&format!("{team}/{name}"))
        .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, "model.name", error.to_string()))
}

async fn find(
    models: &Models,
    (team, name, version): (String, String, String),
) -> Result<VersionRow, ApiError> {
    let model = model_name(&team, &name)?;
    let version = Version::parse(&version).map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, "version.name", error.to_string())
    })?;
    let row = models.store.version(&model, &version).await?;
    row.ok_or_else(|| {
        let detail = format!("there is no version {version} of {model}");
        ApiError::new(StatusCode::NOT_FOUND, "version.not-found", detail)
    })
}

fn model_view(name: ModelName, rows: Vec<VersionRow>, usage: &Usage) -> ModelView {
    let description = rows.first().map(|row| row.description.clone()).unwrap_or_default();
    let versions = rows.into_iter().map(|row| version_view(row, usage)).collect();
    ModelView { name, description, versions }
}

fn version_view(row: VersionRow, usage: &Usage) -> VersionView {
    let key = (row.model.clone(), row.version.clone());
    VersionView {
        devices: usage.devices.get(&key).copied().unwrap_or(0),
        rollouts: usage.rollouts.get(&key).cloned().unwrap_or_default(),
        model: row.model,
        version: row.version,
        state: row.state,
        quarantine_reason: row.quarantine_reason,
        digest: row.digest,
        size_bytes: row.size_bytes,
        pushed_at: row.pushed_at,
        signed_by: row.signed_by,
        epoch: row.epoch,
        family: row.family,
        description: row.description,
        licenses: row.licenses,
        variants: row.variants,
        contract: Some(row.contract),
        has_baseline: row.baseline.is_some(),
    }
}
