//! `/api/v1/session`: in, out, and the confirmation in between.

use axum::Json;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Extension, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use sealift_protocol::api::{
    LoginMethod, LoginToken, LoginWays, Page, PasswordLogin, Problem, SessionEntry, SessionNew,
    SessionView, StepUp,
};
use sealift_protocol::id::UnixMillis;
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::access::{self, Caller};
use super::error::ApiError;
use super::operators::Whose;
use crate::audit::Deed;
use crate::auth::{self, NewSession, Visit};
use crate::clock;
use crate::limits::API_REQUEST_MAX;
use crate::listen::Peer;
use crate::permission::Permission;
use crate::store::sessions::Session;

pub(super) mod oidc;

/// A name, a password, a code.
const LOGIN_BODY_BYTES_MAX: usize = 16 << 10;
/// Logins worked on at a time; passwords among them wait in turn for two processors.
const LOGINS_MAX: usize = 64;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_session, end))
        .routes(routes!(step_up))
        .routes(routes!(list))
        .routes(routes!(end_named))
}

/// What needs nobody to be logged in.
pub(super) fn open_router() -> Router<App> {
    Router::new()
        .route("/api/v1/session", post(begin))
        .route("/api/v1/session/ways", get(ways))
        .route("/api/v1/session/password", post(with_password))
        .route("/api/v1/session/oidc", get(oidc::begin))
        .route("/api/v1/session/oidc/callback", get(oidc::callback))
        .route("/api/v1/session/oidc/device", post(oidc::device))
        .route("/api/v1/session/oidc/device/poll", post(oidc::poll))
        .layer(
            ServiceBuilder::new()
                .layer(GlobalConcurrencyLimitLayer::new(LOGINS_MAX))
                .layer(TimeoutLayer::with_status_code(
                    StatusCode::SERVICE_UNAVAILABLE,
                    API_REQUEST_MAX,
                ))
                .layer(DefaultBodyLimit::max(LOGIN_BODY_BYTES_MAX))
                .layer(SetResponseHeaderLayer::overriding(
                    header::CACHE_CONTROL,
                    HeaderValue::from_static("no-store"),
                )),
        )
}

/// From where somebody comes who is not known yet; refused where they come too often, or another site sends them.
fn visit(
    app: &App,
    headers: &HeaderMap,
    peer: Option<&Peer>,
    now: UnixMillis,
) -> Result<Visit, ApiError> {
    let visit = access::visit(headers, peer);
    app.rates.check_address(&visit)?;
    if app.auth.must_wait(&visit, now) {
        return Err(ApiError::too_many("too many failed logins from this address"));
    }
    Ok(visit)
}

/// The peer, where there is a socket.
pub(super) type From = Option<Extension<Peer>>;

/// Says how one can come in.
#[utoipa::path(get, path = "/api/v1/session/ways", tag = "session",
    responses((status = 200, body = LoginWays)))]
pub(super) async fn ways(State(app): State<App>) -> Result<Json<LoginWays>, ApiError> {
    let oidc = app.auth.oidc.as_ref().map(|_| "/api/v1/session/oidc".to_owned());
    Ok(Json(LoginWays { password: app.store.has_local_accounts().await?, oidc }))
}

/// Turns a one-time code into a session.
#[utoipa::path(post, path = "/api/v1/session", tag = "session", request_body = SessionNew,
    responses((status = 200, body = SessionView), (status = 401, body = Problem)))]
pub(super) async fn begin(
    State(app): State<App>,
    from: From,
    headers: HeaderMap,
    Json(new): Json<SessionNew>,
) -> Result<Response, ApiError> {
    access::check_origin(&headers)?;
    let now = clock::now();
    let visit = visit(&app, &headers, from.as_deref(), now)?;
    let Some(begun) = app.auth.log_in(&new.code, &visit, now).await? else {
        let detail = "the login code is wrong, used, or older than five minutes";
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "auth.code", detail)
            .help("`fleet-server login-link` prints a new link"));
    };
    entered(&app, &begun)
}

/// Logs a local account in: with a cookie, or with a token for `fleetctl`.
#[utoipa::path(post, path = "/api/v1/session/password", tag = "session", request_body = PasswordLogin,
    responses((status = 200, body = SessionView, description = "The session, and its cookie"),
        (status = 201, body = LoginToken, description = "The token, if one was asked for"),
        (status = 401, body = Problem), (status = 429, body = Problem)))]
pub(super) async fn with_password(
    State(app): State<App>,
    from: From,
    headers: HeaderMap,
    Json(login): Json<PasswordLogin>,
) -> Result<Response, ApiError> {
    access::check_origin(&headers)?;
    let now = clock::now();
    let visit = visit(&app, &headers, from.as_deref(), now)?;
    if login.wants_token {
        let token = app.auth.token_with_password(login, &visit, now).await?;
        return Ok((StatusCode::CREATED, Json(token)).into_response());
    }
    entered(&app, &app.auth.log_in_with_password(login, &visit, now).await?)
}

/// Shows who is asking.
#[utoipa::path(get, path = "/api/v1/session", tag = "session",
    responses((status = 200, body = SessionView), (status = 401, body = Problem)))]
async fn get_session(caller: Caller) -> Json<SessionView> {
    Json(SessionView {
        operator: caller.name().to_owned(),
        roles: vec![caller.role()],
        scope: caller.reach().text().to_owned(),
        method: caller.session().map_or(LoginMethod::Token, |session| session.method),
        csrf_token: caller.session().map(|session| session.csrf.clone()).unwrap_or_default(),
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// Ends the session, or the token of `fleetctl login`.
#[utoipa::path(delete, path = "/api/v1/session", tag = "session", responses((status = 204)))]
async fn end(State(app): State<App>, caller: Caller) -> Result<Response, ApiError> {
    let mut change = app.store.begin().await?;
    let ended = if caller.session().is_some() {
        change.end_session(caller.hash()).await?
    } else {
        // A token that a program was given is not ended by mistake: it is revoked by its name.
        caller.is_account() && change.forget_api_token(caller.hash()).await?
    };
    if ended {
        let name = caller.name();
        let deed =
            Deed { actor: name, action: "session.end", subject: name, reason: None, detail: "" };
        change.audit(&deed, clock::now()).await?;
    }
    change.commit().await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(header::SET_COOKIE, session_cookie(&app, "", 0)?);
    Ok(response)
}

/// Confirms that it is still the same person: what does most harm can be done for five minutes.
#[utoipa::path(post, path = "/api/v1/session/step-up", tag = "session", request_body = StepUp,
    responses((status = 204), (status = 401, body = Problem), (status = 409, body = Problem)))]
async fn step_up(
    State(app): State<App>,
    from: From,
    headers: HeaderMap,
    caller: Caller,
    Json(step_up): Json<StepUp>,
) -> Result<StatusCode, ApiError> {
    let now = clock::now();
    let visit = visit(&app, &headers, from.as_deref(), now)?;
    let name = caller.name();
    if !caller.is_account() {
        let detail = "there is no account to confirm with";
        return Err(ApiError::new(StatusCode::CONFLICT, "operator.not-local", detail)
            .help("log in with an account, or with a new link"));
    }
    app.auth.confirms(name, step_up.secret, &visit, now).await?;
    let mut change = app.store.begin().await?;
    let by = if caller.session().is_some() {
        change.step_session_up(caller.hash(), now).await?;
        "in the console"
    } else {
        change.step_token_up(caller.hash(), now).await?;
        "with fleetctl"
    };
    let deed =
        Deed { actor: name, action: "session.step-up", subject: name, reason: None, detail: by };
    change.audit(&deed, now).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists sessions, newest first: one's own, or everybody's.
#[utoipa::path(get, path = "/api/v1/sessions", tag = "session", params(Whose),
    responses((status = 200, body = Page<SessionEntry>), (status = 403, body = Problem)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(whose): Query<Whose>,
) -> Result<Json<Page<SessionEntry>>, ApiError> {
    let of = whose.of(&caller)?;
    let mut items = app.store.sessions(of, clock::now(), app.auth.rules.idle_ms).await?;
    let own = crate::store::tokens::id_of(&caller.hash().to_string());
    for entry in &mut items {
        entry.is_own = entry.id == own;
    }
    let total = u64::try_from(items.len()).unwrap_or(u64::MAX);
    Ok(Json(Page { items, total, next_cursor: None }))
}

/// Ends a session: one's own, or, with the permission, somebody else's.
#[utoipa::path(delete, path = "/api/v1/sessions/{id}", tag = "session",
    params(("id" = String, Path, description = "As `GET /sessions` names it")),
    responses((status = 204), (status = 404, body = Problem)))]
async fn end_named(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let of = caller.may(Permission::Access).is_err().then(|| caller.name());
    let now = clock::now();
    let mut change = app.store.begin().await?;
    let Some(operator) = change.end_session_named(&id, of).await? else {
        return Err(ApiError::not_found("session.not-found", format!("there is no session {id}")));
    };
    let deed = Deed {
        actor: caller.name(),
        action: "session.end",
        subject: &operator,
        reason: None,
        detail: &id,
    };
    change.audit(&deed, now).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The answer to a login: who it is, and the cookie.
fn entered(app: &App, begun: &NewSession) -> Result<Response, ApiError> {
    let cookie = cookie_of(app, begun)?;
    let mut response = Json(view(&begun.session)).into_response();
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

fn cookie_of(app: &App, begun: &NewSession) -> Result<HeaderValue, ApiError> {
    session_cookie(app, &begun.secret, app.auth.rules.life_ms / 1_000)
}

fn view(session: &Session) -> SessionView {
    SessionView {
        operator: session.operator.name.clone(),
        roles: vec![session.operator.role],
        scope: session.operator.scope.clone(),
        method: session.method,
        csrf_token: session.csrf.clone(),
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Not readable by scripts, not sent when another site links here.
fn session_cookie(app: &App, secret: &str, life_s: i64) -> Result<HeaderValue, ApiError> {
    let name = access::cookie_name(app.auth.rules.has_tls);
    cookie(app, (name, secret), life_s, "Strict")
}

fn cookie(
    app: &App,
    (name, value): (&str, &str),
    life_s: i64,
    same_site: &str,
) -> Result<HeaderValue, ApiError> {
    let secure = if app.auth.rules.has_tls { "; Secure" } else { "" };
    let cookie =
        format!("{name}={value}; Path=/; Max-Age={life_s}; HttpOnly; SameSite={same_site}{secure}");
    HeaderValue::try_from(cookie).map_err(ApiError::internal)
}

/// The hash of the session that a request comes with, if any.
fn own_session(app: &App, headers: &HeaderMap) -> Option<sealift_protocol::digest::Digest> {
    access::cookie(headers, app.auth.rules.has_tls).map(auth::hash)
}
