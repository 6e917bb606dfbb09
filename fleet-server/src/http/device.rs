//! The devices' port: enrolment for whoever has a token, everything else for devices with a good certificate.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Extension, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use sealift_protocol::api::{
    ClaimAnswer, ClaimRequest, EnrolRequest, EnrolResponse, RenewRequest, RenewResponse,
};
use sealift_protocol::digest::Digest;
use tower::limit::GlobalConcurrencyLimitLayer;

use super::error::ApiError;
use super::registry::{self, Registry};
use super::trust;
use crate::certificate::Identity;
use crate::clock;
use crate::enrol::Enrolment;
use crate::enrol::claims::Claims;
use crate::listen::Peer;
use crate::renewal::{Refused, Renewal};
use crate::results::Results;
use crate::review::Review;
use crate::signals::Signals;
use crate::store::TenantStore;
use crate::trust::Trust;
use recent::Recent;

mod asked;
mod part;
mod recent;
mod results;
mod samples;

/// A request to enrol holds a token and a certificate request.
const ENROL_BODY_BYTES_MAX: usize = 64 << 10;

/// Requests of devices for what the server has, worked on at a time; more wait. Whoever uploads has no part in it: slow ones would hold
/// up all.
const FETCHES_MAX: usize = 64;

/// For so long a device that was let in is not looked up again on the same connection. One that is revoked here loses that at once.
const ADMITTED_MS: i64 = 2_000;

/// What the devices' port serves from.
pub(crate) struct DevicePort {
    /// The tenant's devices.
    pub(crate) store: TenantStore,
    /// Wakes whoever waits for an answer.
    pub(crate) signals: Signals,
    /// Lets devices in.
    pub(crate) enrolment: Arc<Enrolment>,
    /// Lets batches of devices in.
    pub(crate) claims: Arc<Claims>,
    /// Knows what their certificates are good for.
    pub(crate) renewal: Renewal,
    /// Trust metadata.
    pub(crate) trust: Arc<Trust>,
    /// Model images.
    pub(crate) registry: Registry,
    /// Predictions that devices keep.
    pub(crate) review: Review,
    /// Predictions of batches.
    pub(crate) results: Results,
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let status = match &refused {
            Refused::NoCertificate => StatusCode::UNAUTHORIZED,
            Refused::SameKey(_) | Refused::Request { .. } => StatusCode::BAD_REQUEST,
            Refused::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
            Refused::Unknown(_)
            | Refused::Revoked(_)
            | Refused::Superseded(_)
            | Refused::Expired(_)
            | Refused::Early(_)
            | Refused::Lapsed(_) => StatusCode::FORBIDDEN,
            Refused::Certificate(_) | Refused::Store(_) => return Self::internal(refused),
        };
        let (code, help) = (refused.code().unwrap_or("internal"), refused.help());
        let error = Self::new(status, code, refused.to_string());
        match help {
            Some(help) => error.help(help),
            None => error,
        }
    }
}

/// All routes of the port.
pub(crate) fn router(port: DevicePort) -> Router {
    let DevicePort { store, signals, enrolment, claims, renewal, trust, registry, review, results } =
        port;
    let fixed = trust::metadata_router(trust)
        .merge(registry::device_router(registry))
        .layer(from_fn_with_state(Recent::default(), recent::answer));
    let fetches = Router::new()
        .route("/directive", get(directive))
        .route("/halt", get(halt))
        .with_state(store.clone())
        .merge(fixed)
        .layer(from_fn_with_state(renewal.clone(), admit))
        .layer(GlobalConcurrencyLimitLayer::new(FETCHES_MAX));
    let uploads = samples::router(store.clone(), review)
        .merge(results::router(results))
        .merge(asked::router(store, signals))
        .layer(from_fn_with_state(renewal.clone(), admit));
    let renewal = Router::new()
        .route("/renew", post(renew))
        .layer(DefaultBodyLimit::max(ENROL_BODY_BYTES_MAX))
        .with_state(renewal);
    let enrolment = Router::new()
        .route("/enrol", post(enrol))
        .layer(DefaultBodyLimit::max(ENROL_BODY_BYTES_MAX))
        .with_state(enrolment);
    let claims = Router::new()
        .route("/claim", post(claim))
        .layer(DefaultBodyLimit::max(ENROL_BODY_BYTES_MAX))
        .with_state(claims);
    fetches.merge(uploads).merge(renewal).merge(enrolment).merge(claims)
}

async fn admit(
    State(renewal): State<Renewal>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let now = clock::now();
    let identity = if let Some(identity) = peer.admitted(now, ADMITTED_MS) {
        identity
    } else {
        let identity = renewal.admit(peer.certificate.as_ref(), now).await?;
        peer.admit(identity.clone(), now);
        identity
    };
    request.extensions_mut().insert(identity);
    Ok(next.run(request).await)
}

async fn renew(
    State(renewal): State<Renewal>,
    Extension(peer): Extension<Peer>,
    Json(request): Json<RenewRequest>,
) -> Result<Json<RenewResponse>, ApiError> {
    Ok(Json(renewal.renew(peer.certificate.as_ref(), &request, clock::now()).await?))
}

async fn claim(
    State(claims): State<Arc<Claims>>,
    Extension(peer): Extension<Peer>,
    Json(request): Json<ClaimRequest>,
) -> Result<Json<ClaimAnswer>, ApiError> {
    let from = peer.address.ip();
    let answer = claims.ask(peer.certificate.as_ref(), &request, from, clock::now()).await?;
    Ok(Json(answer))
}

async fn directive(
    State(store): State<TenantStore>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    Ok(signed_document(&headers, store.signed_directive(&identity.device).await?))
}

async fn halt(State(store): State<TenantStore>, headers: HeaderMap) -> Result<Response, ApiError> {
    Ok(signed_document(&headers, store.signed_halt().await?))
}

/// What the director has signed, unless there is nothing or the device has it.
fn signed_document(headers: &HeaderMap, body: Option<Vec<u8>>) -> Response {
    let Some(body) = body else { return StatusCode::NO_CONTENT.into_response() };
    let tag = HeaderValue::try_from(format!("\"{}\"", Digest::of(&body)));
    let tag = tag.unwrap_or(HeaderValue::from_static("\"\""));
    if headers.get(IF_NONE_MATCH) == Some(&tag) {
        return (StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response();
    }
    let kind = HeaderValue::from_static("application/cose");
    ([(CONTENT_TYPE, kind), (ETAG, tag)], body).into_response()
}

async fn enrol(
    State(enrolment): State<Arc<Enrolment>>,
    Extension(peer): Extension<Peer>,
    Json(request): Json<EnrolRequest>,
) -> Result<Json<EnrolResponse>, ApiError> {
    let answer = enrolment.enrol(request, peer.address.ip(), clock::now()).await?;
    Ok(Json(answer))
}
