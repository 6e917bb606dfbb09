//! `/api/v1/audit`: pages for people; rows, checkpoints and proofs for whoever checks the log without believing the server.

use axum::Json;
use axum::extract::{Query, State};
use sealift_protocol::api::{AuditCheckpoint, AuditEntry, AuditKeyView, AuditProof, Page, Problem};
use sealift_protocol::id::UnixMillis;
use sealift_protocol::merkle::InvalidProof;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::error::ApiError;
use super::page::{PageQuery, page};
use crate::clock;
use crate::store::audit::{AuditFilter, StoredCheckpoint};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(verify))
        .routes(routes!(rows))
        .routes(routes!(key))
        .routes(routes!(checkpoint))
        .routes(routes!(checkpoints))
        .routes(routes!(inclusion))
        .routes(routes!(consistency))
}

/// `?actor=&action=&target=&from=&until=&directives=`.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Who: an operator, `device:<id>`, `server`.
    #[serde(default)]
    actor: Option<String>,
    /// What, such as `rollback`.
    #[serde(default)]
    action: Option<String>,
    /// To what, such as `r-3` or a device.
    #[serde(default)]
    target: Option<String>,
    /// Not before this moment.
    #[serde(default)]
    from: Option<i64>,
    /// Before this moment.
    #[serde(default)]
    until: Option<i64>,
    /// Whether each single directive is listed too; they are by far the most rows.
    #[serde(default)]
    directives: bool,
}

impl From<Wanted> for AuditFilter {
    fn from(wanted: Wanted) -> Self {
        Self {
            actor: wanted.actor.unwrap_or_default(),
            action: wanted.action.unwrap_or_default(),
            subject: wanted.target.unwrap_or_default(),
            from: wanted.from.map(UnixMillis),
            until: wanted.until.map(UnixMillis),
            with_directives: wanted.directives,
        }
    }
}

/// Lists who did what, newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(PageQuery, Wanted),
    responses((status = 200, body = Page<AuditEntry>)))]
async fn list(
    State(app): State<App>,
    Query(paging): Query<PageQuery>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<AuditEntry>>, ApiError> {
    let (limit, filter) = (paging.limit(), AuditFilter::from(wanted));
    let total = app.store.audit_count(&filter).await?;
    let entries = app.store.audit_log(&filter, paging.number(), limit).await?;
    Ok(Json(page(entries, total, limit, |entry| entry.sequence.to_string())))
}

/// Lists every row in the order of the log.
#[utoipa::path(get, path = "/api/v1/audit/rows", tag = "audit", params(PageQuery),
    responses((status = 200, body = Page<AuditEntry>)))]
async fn rows(
    State(app): State<App>,
    Query(paging): Query<PageQuery>,
) -> Result<Json<Page<AuditEntry>>, ApiError> {
    let limit = paging.limit();
    let total = app.store.audit_head().await?.size();
    let entries = app.store.audit_rows(paging.number().unwrap_or(0), limit).await?;
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

/// Checks every row against the tree, and the tree against its checkpoints. The server checks itself here: `fleetctl audit verify` does
/// so without believing it.
#[utoipa::path(get, path = "/api/v1/audit/verify", tag = "audit",
    responses((status = 200, body = AuditCheck)))]
async fn verify(State(app): State<App>) -> Result<Json<AuditCheck>, ApiError> {
    let first_broken = app.store.audit_break(&app.notary.public()).await?;
    let rows = app.store.audit_head().await?.size();
    Ok(Json(AuditCheck { is_intact: first_broken.is_none(), first_broken, rows }))
}

/// Shows the key that checkpoints are signed with, to be compared with the one that was pinned.
#[utoipa::path(get, path = "/api/v1/audit/key", tag = "audit",
    responses((status = 200, body = AuditKeyView)))]
async fn key(State(app): State<App>) -> Json<AuditKeyView> {
    Json(AuditKeyView { key: app.notary.public().to_string() })
}

/// Signs how long the log is now, and under which root.
#[utoipa::path(get, path = "/api/v1/audit/checkpoint", tag = "audit",
    responses((status = 200, body = AuditCheckpoint)))]
async fn checkpoint(State(app): State<App>) -> Result<Json<AuditCheckpoint>, ApiError> {
    Ok(Json(view(app.notary.checkpoint(&app.store, clock::now()).await?)))
}

/// Lists the checkpoints that were signed, oldest first.
#[utoipa::path(get, path = "/api/v1/audit/checkpoints", tag = "audit", params(PageQuery),
    responses((status = 200, body = Page<AuditCheckpoint>)))]
async fn checkpoints(
    State(app): State<App>,
    Query(paging): Query<PageQuery>,
) -> Result<Json<Page<AuditCheckpoint>>, ApiError> {
    let (limit, after) = (paging.limit(), paging.number().unwrap_or(0));
    let stored = app.store.audit_checkpoints(after, limit).await?;
    let items: Vec<_> = stored.into_iter().map(view).collect();
    let total = app.store.count_audit_checkpoints().await?;
    Ok(Json(page(items, total, limit, |checkpoint| checkpoint.size.to_string())))
}

fn view(StoredCheckpoint { size, at, note }: StoredCheckpoint) -> AuditCheckpoint {
    AuditCheckpoint { size, at, note }
}

/// `?row=&size=`.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Inclusion {
    /// The row.
    row: u64,
    /// Rows of the checkpoint that it is proved against.
    size: u64,
}

/// Proves that a row is in the log of a checkpoint (RFC 9162, section 2.1.3).
#[utoipa::path(get, path = "/api/v1/audit/proof/inclusion", tag = "audit", params(Inclusion),
    responses((status = 200, body = AuditProof), (status = 422, body = Problem)))]
async fn inclusion(
    State(app): State<App>,
    Query(Inclusion { row, size }): Query<Inclusion>,
) -> Result<Json<AuditProof>, ApiError> {
    let hashes = app.store.audit_inclusion(row, size).await?.map_err(no_proof)?;
    Ok(Json(AuditProof { hashes }))
}

/// `?from=&to=`.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Consistency {
    /// Rows of the earlier checkpoint.
    from: u64,
    /// Rows of the later one.
    to: u64,
}

/// Proves that a later log begins with an earlier one (RFC 9162, section 2.1.4).
#[utoipa::path(get, path = "/api/v1/audit/proof/consistency", tag = "audit", params(Consistency),
    responses((status = 200, body = AuditProof), (status = 422, body = Problem)))]
async fn consistency(
    State(app): State<App>,
    Query(Consistency { from, to }): Query<Consistency>,
) -> Result<Json<AuditProof>, ApiError> {
    let hashes = app.store.audit_consistency(from, to).await?.map_err(no_proof)?;
    Ok(Json(AuditProof { hashes }))
}

fn no_proof(error: InvalidProof) -> ApiError {
    ApiError::invalid("audit.no-proof", error.to_string())
        .help("rows count from 1; `GET /api/v1/audit/checkpoint` says how many there are")
}
