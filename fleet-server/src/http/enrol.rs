//! `/api/v1/enrol-tokens`: letting devices in.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use sealift_protocol::api::{EnrolTokenCreated, EnrolTokenNew, EnrolTokenView, Page};

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Caller;
use super::error::ApiError;
use crate::clock;
use crate::enrol::{EnrolError, Enrolment};

impl From<EnrolError> for ApiError {
    fn from(error: EnrolError) -> Self {
        let Some(code) = error.code() else { return Self::internal(error) };
        let status = match &error {
            EnrolError::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            EnrolError::Terms(_) | EnrolError::Request { .. } => StatusCode::BAD_REQUEST,
            EnrolError::Taken(_) => StatusCode::CONFLICT,
            EnrolError::Unknown
            | EnrolError::Expired
            | EnrolError::Used
            | EnrolError::Bound(_)
            | EnrolError::Certificate(_)
            | EnrolError::Random(_)
            | EnrolError::Store(_) => StatusCode::FORBIDDEN,
        };
        let refusal = Self::new(status, code, error.to_string());
        match error.help() {
            Some(help) => refusal.help(help),
            None => refusal,
        }
    }
}

/// `/api/v1/enrol-tokens`.
pub(crate) fn router(enrolment: Arc<Enrolment>) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(revoke)).with_state(enrolment)
}

/// Makes a token; the answer is the only time that it is shown.
#[utoipa::path(post, path = "/api/v1/enrol-tokens", tag = "devices", request_body = EnrolTokenNew,
    responses((status = 201, body = EnrolTokenCreated)))]
async fn create(
    State(enrolment): State<Arc<Enrolment>>,
    caller: Caller,
    Json(terms): Json<EnrolTokenNew>,
) -> Result<(StatusCode, Json<EnrolTokenCreated>), ApiError> {
    if !caller.reach().has(&terms.labels) {
        let detail =
            format!("devices with these labels are beyond your scope `{}`", caller.reach());
        return Err(ApiError::beyond_scope(detail));
    }
    let by = caller.name();
    let created = enrolment.create_token(terms, by, clock::now()).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Lists tokens that are not revoked, newest first, without their secrets.
#[utoipa::path(get, path = "/api/v1/enrol-tokens", tag = "devices",
    responses((status = 200, body = Page<EnrolTokenView>)))]
async fn list(
    State(enrolment): State<Arc<Enrolment>>,
    caller: Caller,
) -> Result<Json<Page<EnrolTokenView>>, ApiError> {
    let mut items = enrolment.tokens().await?;
    items.retain(|token| caller.reach().has(&token.labels));
    let total = u64::try_from(items.len()).unwrap_or(u64::MAX);
    Ok(Json(Page { items, total, next_cursor: None }))
}

/// Revokes a token; devices that it has let in stay.
#[utoipa::path(delete, path = "/api/v1/enrol-tokens/{id}", tag = "devices",
    params(("id" = String, Path, description = "As `GET /enrol-tokens` names it")),
    responses((status = 204)))]
async fn revoke(
    State(enrolment): State<Arc<Enrolment>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let by = caller.name();
    let tokens = enrolment.tokens().await?;
    let is_beyond = |token: &EnrolTokenView| token.id == id && !caller.reach().has(&token.labels);
    let is_beyond = tokens.iter().any(is_beyond);
    if !is_beyond && enrolment.revoke_token(&id, by, clock::now()).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    let detail = format!("there is no enrolment token {id}");
    Err(ApiError::new(StatusCode::NOT_FOUND, "enrol-token.not-found", detail))
}
