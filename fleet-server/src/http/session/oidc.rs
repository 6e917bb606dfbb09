//! `/api/v1/session/oidc`: through the provider of identities and back.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use sealift_protocol::api::{DeviceLogin, DevicePoll, DeviceProgressed, Problem};
use sealift_protocol::id::UnixMillis;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{App, From, access, cookie, cookie_of, own_session, visit};
use crate::auth::oidc::OidcError;
use crate::auth::oidc::enter::{Arrival, EnterError, Return};
use crate::clock;
use crate::http::error::ApiError;

/// The cookie of a browser that is on its way: it comes back from another site, which a strict cookie would not.
const COOKIE: &str = "sealift_login";
const COOKIE_OVER_TLS: &str = "__Host-sealift_login";
/// As long as a login may take.
const COOKIE_LIFE_S: i64 = 600;

/// Why somebody goes to the provider.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct BeginQuery {
    /// To confirm the session that there is.
    #[serde(default)]
    step_up: bool,
}

/// Sends the browser to the provider of identities.
#[utoipa::path(get, path = "/api/v1/session/oidc", tag = "session", params(BeginQuery),
    responses((status = 303, description = "To the provider"), (status = 502, body = Problem)))]
pub(crate) async fn begin(
    State(app): State<App>,
    from: From,
    headers: HeaderMap,
    Query(query): Query<BeginQuery>,
) -> Result<Response, ApiError> {
    let now = clock::now();
    may_depart(&app, &from, &headers, now)?;
    let session = own_session(&app, &headers).filter(|_| query.step_up);
    let departure = app.auth.depart(session, now).await?;
    let mut response = Redirect::to(&departure.address).into_response();
    let value = cookie(&app, (login_cookie(&app), &departure.browser), COOKIE_LIFE_S, "Lax")?;
    response.headers_mut().insert(header::SET_COOKIE, value);
    Ok(response)
}

fn may_depart(
    app: &App,
    from: &From,
    headers: &HeaderMap,
    now: UnixMillis,
) -> Result<(), ApiError> {
    let visit = visit(app, headers, from.as_deref(), now)?;
    if app.auth.may_depart(&visit, now) {
        return Ok(());
    }
    Err(ApiError::too_many("too many logins were begun from this address"))
}

/// What the provider answers with.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct CallbackQuery {
    /// Of the login that it answers.
    #[serde(default)]
    state: String,
    /// To be turned into an ID token.
    #[serde(default)]
    code: String,
    /// Who answers.
    #[serde(default)]
    iss: Option<String>,
    /// Why there is no code.
    #[serde(default)]
    error: Option<String>,
}

/// Takes the browser back from the provider, and into the console.
#[utoipa::path(get, path = "/api/v1/session/oidc/callback", tag = "session", params(CallbackQuery),
    responses((status = 303, description = "Into the console, or back to the login with what went wrong")))]
pub(crate) async fn callback(
    State(app): State<App>,
    from: From,
    headers: HeaderMap,
    Query(query): Query<CallbackQuery>,
) -> Response {
    match arrive(&app, from, &headers, query).await {
        Ok(response) => response,
        Err(error) => {
            // A person waits in a browser: they see the login page and what to do, and the log has the rest.
            let code = error.code();
            tracing::warn!(code, "login through the provider came to nothing");
            Redirect::to(&format!("/login?problem={code}")).into_response()
        }
    }
}

async fn arrive(
    app: &App,
    from: From,
    headers: &HeaderMap,
    query: CallbackQuery,
) -> Result<Response, ApiError> {
    let now = clock::now();
    let visit = visit(app, headers, from.as_deref(), now)?;
    if let Some(error) = query.error {
        let error: String = error.chars().filter(char::is_ascii_graphic).take(80).collect();
        return Err(EnterError::from(OidcError::Refused(error)).into());
    }
    let browser = access::cookie_named(headers, login_cookie(app)).unwrap_or_default();
    let back =
        Return { state: &query.state, code: &query.code, issuer: query.iss.as_deref(), browser };
    let arrival = app.auth.arrive(&back, &visit, now).await?;
    let over = cookie(app, (login_cookie(app), ""), 0, "Lax")?;
    let mut response = Redirect::to("/").into_response();
    response.headers_mut().append(header::SET_COOKIE, over);
    if let Arrival::Session(begun) = arrival {
        response.headers_mut().append(header::SET_COOKIE, cookie_of(app, &begun)?);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Begins a login on a machine without a browser.
#[utoipa::path(post, path = "/api/v1/session/oidc/device", tag = "session",
    responses((status = 200, body = DeviceLogin), (status = 502, body = Problem)))]
pub(crate) async fn device(
    State(app): State<App>,
    from: From,
    headers: HeaderMap,
) -> Result<Json<DeviceLogin>, ApiError> {
    access::check_origin(&headers)?;
    let now = clock::now();
    may_depart(&app, &from, &headers, now)?;
    Ok(Json(app.auth.begin_device(now).await?))
}

/// Asks whether somebody has confirmed it.
#[utoipa::path(post, path = "/api/v1/session/oidc/device/poll", tag = "session", request_body = DevicePoll,
    responses((status = 200, body = DeviceProgressed), (status = 401, body = Problem)))]
pub(crate) async fn poll(
    State(app): State<App>,
    from: From,
    headers: HeaderMap,
    Json(poll): Json<DevicePoll>,
) -> Result<Json<DeviceProgressed>, ApiError> {
    access::check_origin(&headers)?;
    let now = clock::now();
    let visit = visit(&app, &headers, from.as_deref(), now)?;
    Ok(Json(app.auth.poll_device(&poll.handle, &visit, now).await?))
}

fn login_cookie(app: &App) -> &'static str {
    if app.auth.rules.has_tls { COOKIE_OVER_TLS } else { COOKIE }
}

impl std::convert::From<EnterError> for ApiError {
    fn from(error: EnterError) -> Self {
        let text = error.to_string();
        match error {
            EnterError::Auth(error) => error.into(),
            EnterError::Oidc(error) => {
                let (status, code, help) = match error {
                    OidcError::Provider(_) => (
                        StatusCode::BAD_GATEWAY,
                        "oidc.provider",
                        "the server's log says more; `[oidc]` in its configuration names the provider",
                    ),
                    OidcError::Refused(_) => {
                        (StatusCode::UNAUTHORIZED, "oidc.refused", "begin the login again")
                    }
                    OidcError::State => (
                        StatusCode::UNAUTHORIZED,
                        "oidc.state",
                        "begin the login again, in one browser",
                    ),
                    OidcError::Token(_) => (
                        StatusCode::UNAUTHORIZED,
                        "oidc.token",
                        "begin again; if it goes on, somebody may be in between",
                    ),
                    OidcError::NoRole(_) => (
                        StatusCode::FORBIDDEN,
                        "oidc.no-role",
                        "ask to be put into a group that `[[oidc.roles]]` names",
                    ),
                    OidcError::NameTaken(_) => (
                        StatusCode::CONFLICT,
                        "oidc.name-taken",
                        "rename or remove the other account",
                    ),
                    OidcError::NotConfirmed(_) => (
                        StatusCode::UNAUTHORIZED,
                        "oidc.not-confirmed",
                        "confirm as the person who is logged in here",
                    ),
                    OidcError::Pending { .. } => {
                        (StatusCode::CONFLICT, "oidc.pending", "confirm in the browser first")
                    }
                    OidcError::TooMany => {
                        (StatusCode::TOO_MANY_REQUESTS, "auth.too-many", "wait a minute")
                    }
                };
                Self::new(status, code, text).help(help)
            }
        }
    }
}
