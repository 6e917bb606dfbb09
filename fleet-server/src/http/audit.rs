//! `/api/v1/audit`.

use axum::Json;
use axum::extract::{Query, State};
use sealift_protocol::api::{AuditEntry, Page};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::error::ApiError;
use super::page::{PageQuery, page};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Lists who did what, newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(PageQuery),
    responses((status = 200, body = Page<AuditEntry>)))]
async fn list(
    State(app): State<App>,
    Query(paging): Query<PageQuery>,
) -> Result<Json<Page<AuditEntry>>, ApiError> {
    let limit = paging.limit();
    let total = app.store.audit_length().await?;
    let entries = app.store.audit_log(paging.number(), limit).await?;
    Ok(Json(page(entries, total, limit, |entry| entry.sequence.to_string())))
}
