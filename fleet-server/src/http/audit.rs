//! `/api/v1/audit`.

use axum::Json;
use axum::extract::{Query, State};
use sealift_protocol::api::{AuditEntry, Page};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::error::ApiError;
use super::page::{PageQuery, page};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(verify))
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

/// Whether the log is as it was written.
#[derive(Debug, Serialize, ToSchema)]
struct AuditCheck {
    /// Whether no row was edited, removed or put elsewhere.
    is_intact: bool,
    /// The first row that was.
    first_broken: Option<u64>,
    /// Rows in the log.
    rows: u64,
}

/// Checks the hash of every row against the row before.
#[utoipa::path(get, path = "/api/v1/audit/verify", tag = "audit",
    responses((status = 200, body = AuditCheck)))]
async fn verify(State(app): State<App>) -> Result<Json<AuditCheck>, ApiError> {
    let first_broken = app.store.audit_break().await?;
    let rows = app.store.audit_length().await?;
    Ok(Json(AuditCheck { is_intact: first_broken.is_none(), first_broken, rows }))
}
