//! `/api/v1/session`: from a one-time code to a cookie, and out again.

use axum::Json;
use axum::Router;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use sealift_protocol::api::{Problem, SessionNew, SessionView};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::access::{self, Caller};
use super::error::ApiError;
use crate::auth::{self, SESSION_LIFE_MS};
use crate::clock;
use crate::listen::Peer;
use crate::store::operators::{Operator, Session};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get, end))
}

/// The one change that needs nobody to be logged in.
pub(super) fn open_router() -> Router<App> {
    Router::new().route("/api/v1/session", post(begin))
}

/// Turns a one-time code into a session.
#[utoipa::path(post, path = "/api/v1/session", tag = "session", request_body = SessionNew,
    responses((status = 200, body = SessionView), (status = 401, body = Problem)))]
pub(super) async fn begin(
    State(app): State<App>,
    peer: Option<Extension<Peer>>,
    Json(new): Json<SessionNew>,
) -> Result<Response, ApiError> {
    let Some(begun) = auth::log_in(&app.store, &new.code, clock::now()).await? else {
        let from = peer.map(|Extension(peer)| peer.address.ip());
        access::note_failure(&app, from, "login", clock::now()).await?;
        let detail = "the login code is wrong, used, or older than five minutes";
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "auth.code", detail)
            .help("`fleet-server login-link` prints a new link"));
    };
    let cookie = cookie(&begun.secret, SESSION_LIFE_MS / 1_000, app.has_tls)?;
    let session = begun.session;
    let mut response = Json(view(&session.operator, Some(&session))).into_response();
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

/// Shows who is asking.
#[utoipa::path(get, path = "/api/v1/session", tag = "session",
    responses((status = 200, body = SessionView), (status = 401, body = Problem)))]
async fn get(caller: Caller) -> Json<SessionView> {
    let operator = Operator { name: caller.name().to_owned(), role: caller.role() };
    Json(view(&operator, caller.session()))
}

/// Ends the session.
#[utoipa::path(delete, path = "/api/v1/session", tag = "session", responses((status = 204)))]
async fn end(State(app): State<App>, headers: HeaderMap) -> Result<Response, ApiError> {
    if let Some(secret) = access::cookie(&headers) {
        let mut change = app.store.begin().await?;
        change.end_session(auth::hash(secret)).await?;
        change.commit().await?;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(header::SET_COOKIE, cookie("", 0, app.has_tls)?);
    Ok(response)
}

fn view(operator: &Operator, session: Option<&Session>) -> SessionView {
    SessionView {
        operator: operator.name.clone(),
        roles: vec![operator.role],
        csrf_token: session.map(|session| session.csrf.clone()).unwrap_or_default(),
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Not readable by scripts, not sent when another site links here.
fn cookie(secret: &str, life_s: i64, has_tls: bool) -> Result<HeaderValue, ApiError> {
    let name = access::COOKIE;
    let secure = if has_tls { "; Secure" } else { "" };
    let cookie =
        format!("{name}={secret}; Path=/; Max-Age={life_s}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::try_from(cookie).map_err(ApiError::internal)
}
