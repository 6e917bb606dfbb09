//! Who asks, and what they may do. Every guarded route passes here and is looked up in the table of permissions; a route cannot forget it.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use sealift_protocol::api::{LoginMethod, Role};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::UnixMillis;
use subtle::ConstantTimeEq as _;

use super::App;
use super::error::ApiError;
use super::registry::OciError;
use crate::audit::Deed;
use crate::auth::{self, Auth, Visit, account};
use crate::clock;
use crate::listen::Peer;
use crate::permission::{self, Entry, Permission};
use crate::reach::Reach;
use crate::store::operators::Operator;
use crate::store::sessions::Session;
use crate::store::tokens::Token;

/// The session's cookie without TLS, which is on loopback alone.
const COOKIE: &str = "sealift_session";
/// RFC 6265bis, 4.1.3.2: with this prefix a browser takes the cookie only over TLS, for this host alone, for every path.
const COOKIE_OVER_TLS: &str = "__Host-sealift_session";
/// The header that must come with changes made through a cookie.
const CSRF_HEADER: &str = "x-csrf-token";
const BEARER: &str = "bearer";
/// What is read of a body that is refused: the largest manifest, and some.
const REFUSED_BODY_BYTES_MAX: usize = 5 << 20;
/// Time for that.
const REFUSED_BODY_MAX: Duration = Duration::from_secs(5);

/// Whoever asks; only [`guard`] makes one.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    operator: Operator,
    reach: Reach,
    proof: Proof,
    hash: Digest,
}

/// By what they are known.
#[derive(Debug, Clone)]
enum Proof {
    Token(Token),
    Session(Session),
}

impl Caller {
    /// Their name, for the audit log.
    pub(crate) fn name(&self) -> &str {
        &self.operator.name
    }

    /// What they have done, for the audit log, where no reason is asked for.
    pub(crate) fn deed<'a>(
        &'a self,
        action: &'a str,
        subject: &'a str,
        detail: &'a str,
    ) -> Deed<'a> {
        Deed { actor: self.name(), action, subject, reason: None, detail }
    }

    /// What they may do.
    pub(crate) const fn role(&self) -> Role {
        self.operator.role
    }

    /// Which devices they see and change.
    pub(crate) const fn reach(&self) -> &Reach {
        &self.reach
    }

    /// The session they come with; none for a token.
    pub(crate) const fn session(&self) -> Option<&Session> {
        match &self.proof {
            Proof::Session(session) => Some(session),
            Proof::Token(_) => None,
        }
    }

    /// The hash of the secret that they come with.
    pub(crate) const fn hash(&self) -> Digest {
        self.hash
    }

    /// Whether they have an account, which ends everything that was made in its name.
    pub(crate) const fn is_account(&self) -> bool {
        match &self.proof {
            Proof::Session(session) => session.is_account,
            Proof::Token(token) => token.is_account,
        }
    }

    /// Their name, if they have a permission that the table asks for beside the route's own.
    pub(crate) fn may(&self, permission: Permission) -> Result<&str, ApiError> {
        if !permission.is_of(self.operator.role) {
            return Err(ApiError::forbidden(permission.lacking()));
        }
        if permission.takes_whole_fleet() && !self.reach.is_whole() {
            let detail =
                format!("this is about the whole fleet, and your scope is `{}`", self.reach);
            return Err(ApiError::beyond_scope(detail));
        }
        Ok(self.name())
    }

    /// Their name, if they may push to the registry.
    pub(crate) fn may_push(&self) -> Result<&str, OciError> {
        self.may(Permission::Publish).map_err(|_| OciError::Denied)
    }

    /// OWASP ASVS 5.0, 7.5.3: what does most harm is confirmed by the person once more.
    ///
    /// Rule: a person has logged in or confirmed within five minutes; a program was made to do without. A one-time link has nothing to
    /// confirm with: on a port without TLS, which is on this machine alone, it counts as long as its session lasts.
    pub(crate) fn has_stepped_up(&self, auth: &Auth, now: UnixMillis) -> Result<(), ApiError> {
        let has = match &self.proof {
            Proof::Token(token) => token.step_up || Auth::is_fresh(token.stepped_up_at, now),
            Proof::Session(session) => {
                let is_link = session.method == LoginMethod::Link;
                (is_link && !auth.rules.has_tls) || Auth::is_fresh(session.stepped_up_at, now)
            }
        };
        if has {
            return Ok(());
        }
        let help = match &self.proof {
            Proof::Token(token) if !token.is_account => {
                "use a token made with `--step-up`, or `fleetctl login` as a person"
            }
            Proof::Session(session) if session.method == LoginMethod::Link => {
                "log in with a new link; a confirmation counts for five minutes"
            }
            Proof::Token(_) | Proof::Session(_) => {
                "confirm with your password or a code of your authenticator; it counts for five minutes"
            }
        };
        let detail = "this must be confirmed by the person who asks";
        Err(ApiError::new(StatusCode::FORBIDDEN, "auth.step-up", detail).help(help))
    }

    /// Whether they would still be let in.
    pub(super) async fn is_still_known(&self, auth: &Auth, now: UnixMillis) -> bool {
        let (hash, idle_ms) = (self.hash, auth.rules.idle_ms);
        let found = match &self.proof {
            Proof::Token(_) => auth.store.api_token(hash, now).await.map(|it| it.is_some()),
            Proof::Session(_) => {
                auth.store.session(hash, now, idle_ms).await.map(|it| it.is_some())
            }
        };
        found.unwrap_or(false)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(ApiError::unauthenticated)
    }
}

/// Lets in whoever has a token or a session and the permission that the route takes, and puts the [`Caller`] into the request.
pub(super) async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let asked = Asked {
        method: request.method().clone(),
        headers: request.headers().clone(),
        peer: request.extensions().get::<Peer>().cloned(),
        route: request.extensions().get::<MatchedPath>().cloned(),
    };
    let refusal = match admit(&app, &asked, clock::now()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            return next.run(request).await;
        }
        Err(refusal) => refusal,
    };
    let (method, path) = (request.method(), request.uri().path());
    tracing::info!(%method, path, code = refusal.code(), "request refused");
    if is_registry(&request) {
        return refuse_to_registry_client(refusal, request).await;
    }
    refusal.into_response()
}

/// What of a request says who asks for what; its body is not looked at.
struct Asked {
    method: Method,
    headers: HeaderMap,
    peer: Option<Peer>,
    route: Option<MatchedPath>,
}

async fn admit(app: &App, asked: &Asked, now: UnixMillis) -> Result<Caller, ApiError> {
    let visit = visit(&asked.headers, asked.peer.as_ref());
    app.rates.check_address(&visit)?;
    if app.auth.must_wait(&visit, now) {
        return Err(ApiError::too_many("too many wrong tokens from this address"));
    }
    let Some(caller) = caller(app, &asked.method, &asked.headers, now).await? else {
        if token(&asked.headers).is_some()
            || cookie(&asked.headers, app.auth.rules.has_tls).is_some()
        {
            app.auth
                .refused(&visit, "unknown", "wrong, revoked or late token or session", now)
                .await?;
        }
        return Err(ApiError::unauthenticated());
    };
    app.rates.check_operator(&caller)?;
    let route = asked.route.as_ref().map_or("", MatchedPath::as_str);
    match permission::look_up(asked.method.as_str(), route) {
        Entry::Takes(permission) => {
            caller.may(permission)?;
            if permission.takes_step_up() {
                caller.has_stepped_up(&app.auth, now)?;
            }
            Ok(caller)
        }
        Entry::NoMethod => Err(ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "request.method",
            format!("{} is nothing that can be done here", asked.method),
        )),
        Entry::Unlisted => {
            tracing::error!(route, "a route is not in the table of permissions, and refused");
            Err(ApiError::forbidden("nobody is permitted to do this"))
        }
    }
}

/// Registries' clients expect their own form, and the hint that a password is wanted.
async fn refuse_to_registry_client(refusal: ApiError, request: Request) -> Response {
    let refusal = match refusal.status() {
        StatusCode::TOO_MANY_REQUESTS => return OciError::Throttled.into_response(),
        StatusCode::UNAUTHORIZED => OciError::Unauthorized,
        _ => OciError::from(refusal),
    };
    drain(request.into_body()).await;
    refusal.into_response()
}

fn is_registry(request: &Request) -> bool {
    let path = request.uri().path();
    path == "/v2" || path.starts_with("/v2/")
}

/// Reads a refused body for a moment: many clients hear a refusal only after they have sent everything.
async fn drain(body: Body) {
    let mut stream = body.into_data_stream();
    let mut left = REFUSED_BODY_BYTES_MAX;
    let read = async {
        while let Some(Ok(bytes)) = stream.next().await {
            left = left.saturating_sub(bytes.len());
            if left == 0 {
                break;
            }
        }
    };
    if tokio::time::timeout(REFUSED_BODY_MAX, read).await.is_err() {
        tracing::debug!("refused body not read to its end");
    }
}

async fn caller(
    app: &App,
    method: &Method,
    headers: &HeaderMap,
    now: UnixMillis,
) -> Result<Option<Caller>, ApiError> {
    let made = |operator: &Operator, proof, hash| {
        let (operator, reach) = (operator.clone(), account::reach_of(operator)?);
        Ok(Some(Caller { operator, reach, proof, hash }))
    };
    if let Some(token) = token(headers) {
        let hash = auth::hash(&token);
        let Some(token) = app.auth.store.api_token(hash, now).await? else { return Ok(None) };
        return made(&token.operator.clone(), Proof::Token(token), hash);
    }
    let Some(secret) = cookie(headers, app.auth.rules.has_tls) else { return Ok(None) };
    let (hash, idle_ms) = (auth::hash(secret), app.auth.rules.idle_ms);
    let Some(session) = app.auth.store.session(hash, now, idle_ms).await? else { return Ok(None) };
    // A cookie comes by itself, also when another site makes the browser ask; the header does not.
    let is_change = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if is_change {
        check_origin(headers)?;
        if !has_csrf(headers, &session) {
            return Err(csrf("a change through a session needs its X-Csrf-Token"));
        }
    }
    made(&session.operator.clone(), Proof::Session(session), hash)
}

fn csrf(detail: &'static str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "auth.csrf", detail)
        .help("reload the console; other sites cannot act in its name")
}

/// OWASP Cross-Site Request Forgery Prevention Cheat Sheet, "fetch metadata headers" and "verifying origin with standard headers".
///
/// Rule: a browser says which site makes it ask; another one than this is refused. What is no browser says nothing.
pub(super) fn check_origin(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if !matches!(text("sec-fetch-site"), None | Some("same-origin" | "none")) {
        return Err(csrf("another site has made the browser ask"));
    }
    let host = text("host").unwrap_or_default();
    let is_own = |origin: &str| {
        origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
    };
    if text("origin").is_some_and(|origin| !is_own(origin)) {
        return Err(csrf("the request comes from another origin"));
    }
    Ok(())
}

fn has_csrf(headers: &HeaderMap, session: &Session) -> bool {
    let given = headers.get(CSRF_HEADER).map_or(&b""[..], |value| value.as_bytes());
    given.ct_eq(session.csrf.as_bytes()).into()
}

/// From where a request comes.
pub(super) fn visit(headers: &HeaderMap, peer: Option<&Peer>) -> Visit {
    let browser = headers.get(header::USER_AGENT).and_then(|it| it.to_str().ok());
    Visit {
        address: peer.map(|peer| peer.address.ip()),
        browser: browser.unwrap_or_default().to_owned(),
    }
}

/// A bearer token; or, as registries' clients send it, the password of whatever user.
fn token(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, credentials) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case(BEARER) {
        return Some(credentials.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(credentials.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    text.split_once(':').map(|(_, password)| password.to_owned())
}

/// What the session's cookie is called.
pub(super) const fn cookie_name(has_tls: bool) -> &'static str {
    if has_tls { COOKIE_OVER_TLS } else { COOKIE }
}

/// The secret of the session's cookie.
pub(super) fn cookie(headers: &HeaderMap, has_tls: bool) -> Option<&str> {
    cookie_named(headers, cookie_name(has_tls))
}

/// The value of a cookie.
pub(super) fn cookie_named<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = pairs.flat_map(|pairs| pairs.split(';'));
    pairs.find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == wanted).then_some(value)
    })
}

/// Counts requests by status.
pub(super) async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    app.metrics.count_request(response.status().as_u16());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_as_bearer_or_as_password() {
        let of = |value: &str| {
            token(&HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]))
        };
        assert_eq!(of("Bearer slt_x").as_deref(), Some("slt_x"));
        let basic = format!("Basic {}", STANDARD.encode("anybody:slt_x"));
        assert_eq!(of(&basic).as_deref(), Some("slt_x"));
        assert_eq!(of("Digest slt_x"), None);
    }

    #[test]
    fn the_sessions_cookie_is_found_among_others() {
        let headers = HeaderMap::from_iter([(
            header::COOKIE,
            "a=1; sealift_session=s; b=2".parse().unwrap(),
        )]);
        assert_eq!(cookie(&headers, false), Some("s"));
        assert_eq!(
            cookie(&headers, true),
            None,
            "over TLS only the cookie that came over TLS counts"
        );
    }

    #[test]
    fn other_sites_and_origins_are_refused() {
        let check = |pairs: &[(&'static str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                (header::HeaderName::from_static(name), value.parse().unwrap())
            });
            check_origin(&pairs.collect()).is_ok()
        };
        let host = ("host", "fleet.example:8080");
        assert!(check(&[host]) && check(&[host, ("sec-fetch-site", "same-origin")]));
        assert!(check(&[host, ("origin", "https://fleet.example:8080")]));
        for bad in ["cross-site", "same-site", "\u{7f}"] {
            assert!(bad == "\u{7f}" || !check(&[host, ("sec-fetch-site", bad)]), "{bad}");
        }
        for bad in ["https://evil.example", "null", "https://fleet.example", ""] {
            assert!(!check(&[host, ("origin", bad)]), "{bad}");
        }
    }
}
