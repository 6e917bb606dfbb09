//! The devices' port: enrolment for whoever has a token, everything else for devices with a good certificate.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Extension, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use sealift_protocol::api::{EnrolRequest, EnrolResponse};
use sealift_protocol::digest::Digest;

use super::error::ApiError;
use super::registry::{self, Registry};
use super::trust;
use crate::certificate::Identity;
use crate::clock;
use crate::enrol::Enrolment;
use crate::listen::Peer;
use crate::store::TenantStore;
use crate::trust::Trust;

/// A request to enrol holds a token and a certificate request.
const ENROL_BODY_BYTES_MAX: usize = 64 << 10;

/// What the devices' port serves from.
pub(crate) struct DevicePort {
    /// The tenant's devices.
    pub(crate) store: TenantStore,
    /// Lets devices in.
    pub(crate) enrolment: Arc<Enrolment>,
    /// Trust metadata.
    pub(crate) trust: Arc<Trust>,
    /// Model images.
    pub(crate) registry: Registry,
}

/// All routes of the port.
pub(crate) fn router(port: DevicePort) -> Router {
    let DevicePort { store, enrolment, trust, registry } = port;
    let devices = Router::new()
        .route("/directive", get(directive))
        .with_state(store.clone())
        .merge(trust::metadata_router(trust))
        .merge(registry::device_router(registry))
        .layer(from_fn_with_state(store, admit));
    let enrolment = Router::new()
        .route("/enrol", axum::routing::post(enrol))
        .layer(DefaultBodyLimit::max(ENROL_BODY_BYTES_MAX))
        .with_state(enrolment);
    devices.merge(enrolment)
}

/// Rule: a device is who its certificate says, and the certificate is its newest and not revoked.
async fn admit(
    State(store): State<TenantStore>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let Some(presented) = peer.certificate else {
        let detail = "a device certificate is needed";
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "device.no-certificate", detail));
    };
    let Identity { tenant, device } = &presented.identity;
    let is_good = tenant == store.tenant()
        && store.is_certificate_good(device, Some(&presented.serial)).await?;
    if !is_good {
        let detail = format!("the certificate of {device} is revoked, superseded or unknown");
        return Err(ApiError::new(StatusCode::FORBIDDEN, "device.revoked", detail));
    }
    request.extensions_mut().insert(presented.identity);
    Ok(next.run(request).await)
}

async fn directive(
    State(store): State<TenantStore>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Some(body) = store.signed_directive(&identity.device).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let tag = HeaderValue::try_from(format!("\"{}\"", Digest::of(&body)));
    let tag = tag.unwrap_or(HeaderValue::from_static("\"\""));
    if headers.get(IF_NONE_MATCH) == Some(&tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response());
    }
    let kind = HeaderValue::from_static("application/cose");
    Ok(([(CONTENT_TYPE, kind), (ETAG, tag)], body).into_response())
}

async fn enrol(
    State(enrolment): State<Arc<Enrolment>>,
    Extension(peer): Extension<Peer>,
    Json(request): Json<EnrolRequest>,
) -> Result<Json<EnrolResponse>, ApiError> {
    let answer = enrolment.enrol(request, peer.address.ip(), clock::now()).await?;
    Ok(Json(answer))
}
