//! `/api/v1/enrol-claims`, `/enrol-requests` and `/enrol-serials`: letting batches of devices in.

use std::sync::Arc;

use axum::Json;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use sealift_protocol::api::{
    EnrolClaimCreated, EnrolClaimNew, EnrolClaimView, EnrolDeny, EnrolRequestState,
    EnrolRequestView, EnrolSerialView, EnrolSerialsAdded, EnrolSerialsNew, Page, Problem,
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Caller;
use super::error::ApiError;
use super::page::{PageQuery, page};
use crate::clock;
use crate::enrol::claims::{ClaimError, Claims};
use crate::permission::Permission;

/// 10,000 serial numbers with a few labels each.
const SERIALS_BODY_BYTES_MAX: usize = 4 << 20;

impl From<ClaimError> for ApiError {
    fn from(error: ClaimError) -> Self {
        let Some(code) = error.code() else { return Self::internal(error) };
        let status = match &error {
            ClaimError::NoClaim => StatusCode::UNAUTHORIZED,
            ClaimError::TooMany(_) | ClaimError::Queue(_) => StatusCode::TOO_MANY_REQUESTS,
            ClaimError::Terms(_) | ClaimError::Request(_) => StatusCode::BAD_REQUEST,
            ClaimError::Taken(_) | ClaimError::SerialKnown(_) => StatusCode::CONFLICT,
            ClaimError::Revoked(_)
            | ClaimError::Expired(_)
            | ClaimError::Full(_)
            | ClaimError::Denied(..)
            | ClaimError::SerialUsed(_)
            | ClaimError::SerialBound(_)
            | ClaimError::Certificate(_)
            | ClaimError::Random(_)
            | ClaimError::Store(_) => StatusCode::FORBIDDEN,
        };
        let refusal = Self::new(status, code, error.to_string());
        match error.help() {
            Some(help) => refusal.help(help),
            None => refusal,
        }
    }
}

/// All routes about claims.
pub(crate) fn router(claims: Arc<Claims>) -> OpenApiRouter {
    let serials = OpenApiRouter::new()
        .routes(routes!(add_serials, serials))
        .layer(DefaultBodyLimit::max(SERIALS_BODY_BYTES_MAX));
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(revoke))
        .routes(routes!(requests))
        .routes(routes!(approve))
        .routes(routes!(deny))
        .merge(serials)
        .with_state(claims)
}

/// Makes a claim for a batch of devices, by a certificate request for the claim's key.
#[utoipa::path(post, path = "/api/v1/enrol-claims", tag = "devices", request_body = EnrolClaimNew,
    responses((status = 201, body = EnrolClaimCreated), (status = 400, body = Problem)))]
async fn create(
    State(claims): State<Arc<Claims>>,
    caller: Caller,
    Json(new): Json<EnrolClaimNew>,
) -> Result<(StatusCode, Json<EnrolClaimCreated>), ApiError> {
    let by = whole_fleet(&caller)?;
    Ok((StatusCode::CREATED, Json(claims.create(new, by, clock::now()).await?)))
}

/// Lists claims, newest first.
#[utoipa::path(get, path = "/api/v1/enrol-claims", tag = "devices",
    responses((status = 200, body = Page<EnrolClaimView>)))]
async fn list(
    State(claims): State<Arc<Claims>>,
    _caller: Caller,
) -> Result<Json<Page<EnrolClaimView>>, ApiError> {
    Ok(Json(whole(claims.list().await?)))
}

/// Revokes a claim; devices that it has let in stay.
#[utoipa::path(delete, path = "/api/v1/enrol-claims/{id}", tag = "devices",
    params(("id" = String, Path, description = "As `GET /enrol-claims` names it")),
    responses((status = 204), (status = 404, body = Problem)))]
async fn revoke(
    State(claims): State<Arc<Claims>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let by = whole_fleet(&caller)?;
    if claims.revoke(&id, by, clock::now()).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::not_found("enrol-claim.not-found", format!("there is no claim {id} to revoke")))
}

/// Which requests.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RequestsQuery {
    /// Only requests in this state; those that wait if not given.
    #[serde(default)]
    state: Option<EnrolRequestState>,
}

/// Lists devices that asked to be enrolled, oldest first.
#[utoipa::path(get, path = "/api/v1/enrol-requests", tag = "devices", params(RequestsQuery),
    responses((status = 200, body = Page<EnrolRequestView>)))]
async fn requests(
    State(claims): State<Arc<Claims>>,
    _caller: Caller,
    Query(query): Query<RequestsQuery>,
) -> Result<Json<Page<EnrolRequestView>>, ApiError> {
    let state = query.state.unwrap_or(EnrolRequestState::Waiting);
    Ok(Json(whole(claims.requests(state).await?)))
}

/// Lets a device in; it fetches its certificate when it asks next.
#[utoipa::path(post, path = "/api/v1/enrol-requests/{id}/approve", tag = "devices",
    params(("id" = String, Path, description = "As `GET /enrol-requests` names it")),
    responses((status = 204), (status = 404, body = Problem)))]
async fn approve(
    State(claims): State<Arc<Claims>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    decide(&claims, whole_fleet(&caller)?, &id, None).await
}

/// Refuses a device; it is told why.
#[utoipa::path(post, path = "/api/v1/enrol-requests/{id}/deny", tag = "devices",
    params(("id" = String, Path, description = "As `GET /enrol-requests` names it")),
    request_body = EnrolDeny,
    responses((status = 204), (status = 400, body = Problem), (status = 404, body = Problem)))]
async fn deny(
    State(claims): State<Arc<Claims>>,
    caller: Caller,
    Path(id): Path<String>,
    Json(order): Json<EnrolDeny>,
) -> Result<StatusCode, ApiError> {
    decide(&claims, whole_fleet(&caller)?, &id, Some(&order.reason)).await
}

/// Rule: a claim lets devices in that nobody has labelled yet, so it is nothing for somebody whose scope is a part of the fleet.
fn whole_fleet(caller: &Caller) -> Result<&str, ApiError> {
    let by = caller.may(Permission::Enrol)?;
    if caller.reach().is_whole() {
        return Ok(by);
    }
    let detail = format!("this is about the whole fleet, and your scope is `{}`", caller.reach());
    Err(ApiError::beyond_scope(detail))
}

async fn decide(
    claims: &Claims,
    by: &str,
    id: &str,
    denied: Option<&str>,
) -> Result<StatusCode, ApiError> {
    if claims.decide(id, denied, by, clock::now()).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    let detail = format!("there is no request {id} that can still be decided on");
    Err(ApiError::not_found("enrol-request.not-found", detail))
}

/// Registers serial numbers, all or none: their devices need no approval.
#[utoipa::path(post, path = "/api/v1/enrol-serials", tag = "devices",
    request_body = EnrolSerialsNew,
    responses((status = 200, body = EnrolSerialsAdded), (status = 400, body = Problem),
        (status = 409, body = Problem)))]
async fn add_serials(
    State(claims): State<Arc<Claims>>,
    caller: Caller,
    Json(new): Json<EnrolSerialsNew>,
) -> Result<Json<EnrolSerialsAdded>, ApiError> {
    let added = claims.add_serials(&new, whole_fleet(&caller)?, clock::now()).await?;
    Ok(Json(EnrolSerialsAdded { added }))
}

/// Lists serial numbers by name.
#[utoipa::path(get, path = "/api/v1/enrol-serials", tag = "devices", params(PageQuery),
    responses((status = 200, body = Page<EnrolSerialView>)))]
async fn serials(
    State(claims): State<Arc<Claims>>,
    _caller: Caller,
    Query(paging): Query<PageQuery>,
) -> Result<Json<Page<EnrolSerialView>>, ApiError> {
    let limit = paging.limit();
    let (serials, total) = claims.serials(paging.cursor.as_deref(), limit).await?;
    Ok(Json(page(serials, total, limit, |serial| serial.serial.clone())))
}

fn whole<T>(items: Vec<T>) -> Page<T> {
    let total = u64::try_from(items.len()).unwrap_or(u64::MAX);
    Page { items, total, next_cursor: None }
}
