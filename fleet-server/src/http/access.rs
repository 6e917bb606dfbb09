//! Who asks, and what they may do. Every guarded route passes here; a route cannot forget it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use sealift_protocol::api::Role;
use sealift_protocol::id::UnixMillis;
use subtle::ConstantTimeEq as _;

use super::App;
use super::error::ApiError;
use super::registry::OciError;
use crate::auth;
use crate::clock;
use crate::listen::Peer;
use crate::store::operators::{Operator, Session};

/// The session's cookie.
pub(super) const COOKIE: &str = "sealift_session";
/// The header that must come with changes made through a cookie.
const CSRF_HEADER: &str = "x-csrf-token";
/// Wrong secrets that one address may send a minute before it has to wait.
const FAILURES_A_MINUTE: u32 = 30;
/// Addresses remembered for that.
const ADDRESSES_MAX: usize = 10_000;
const MINUTE_MS: i64 = 60_000;
/// What is read of a body that is refused: the largest manifest, and some.
const REFUSED_BODY_BYTES_MAX: usize = 5 << 20;
/// Time for that.
const REFUSED_BODY_MAX: Duration = Duration::from_secs(5);

/// Whoever asks; only [`guard`] makes one.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    operator: Operator,
    session: Option<Session>,
}

impl Caller {
    /// Their name, for the audit log.
    pub(crate) fn name(&self) -> &str {
        &self.operator.name
    }

    /// What they may do.
    pub(crate) const fn role(&self) -> Role {
        self.operator.role
    }

    /// The session they come with; none for a token.
    pub(crate) const fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// Their name, if they may roll out, roll back, label, acknowledge, enrol.
    pub(crate) fn may_operate(&self) -> Result<&str, ApiError> {
        match self.operator.role {
            Role::Operator | Role::Admin => Ok(self.name()),
            Role::Viewer | Role::Publisher => {
                Err(ApiError::forbidden("this needs the role operator or admin"))
            }
        }
    }

    /// Their name, if they may do everything.
    pub(crate) fn may_administer(&self) -> Result<&str, ApiError> {
        match self.operator.role {
            Role::Admin => Ok(self.name()),
            Role::Viewer | Role::Publisher | Role::Operator => {
                Err(ApiError::forbidden("this needs the role admin"))
            }
        }
    }

    /// Their name, if they may hand in signed metadata.
    pub(crate) fn may_publish(&self) -> Result<&str, ApiError> {
        match self.operator.role {
            Role::Publisher | Role::Admin => Ok(self.name()),
            Role::Viewer | Role::Operator => {
                Err(ApiError::forbidden("this needs the role publisher or admin"))
            }
        }
    }

    /// Their name, if they may push to the registry.
    pub(crate) fn may_push(&self) -> Result<&str, OciError> {
        self.may_publish().map_err(|_| OciError::Denied)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(ApiError::unauthenticated)
    }
}

/// Lets in whoever has a token or a session, and puts the [`Caller`] into the request.
pub(super) async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let now = clock::now();
    let address = request.extensions().get::<Peer>().map(|peer| peer.address.ip());
    if address.is_some_and(|address| app.metrics.failures().is_over(address, now)) {
        if is_registry(&request) {
            return OciError::Throttled.into_response();
        }
        let detail = "too many wrong tokens from this address";
        return ApiError::new(StatusCode::TOO_MANY_REQUESTS, "auth.too-many", detail)
            .help("wait a minute")
            .into_response();
    }
    let refusal = match caller(&app, request.method(), request.headers(), now).await {
        Ok(Some(caller)) => {
            request.extensions_mut().insert(caller);
            return next.run(request).await;
        }
        Ok(None) => None,
        Err(error) => Some(error),
    };
    // Registries' clients ask without a secret first, to be told which kind is wanted: that is no attempt to guess one.
    if let Some(address) = address
        && has_secret(request.headers())
    {
        app.metrics.failures().add(address, now);
    }
    if is_registry(&request) {
        drain(request.into_body()).await;
        return refusal.map_or(OciError::Unauthorized, OciError::from).into_response();
    }
    refusal.unwrap_or_else(ApiError::unauthenticated).into_response()
}

fn is_registry(request: &Request) -> bool {
    let path = request.uri().path();
    path == "/v2" || path.starts_with("/v2/")
}

fn has_secret(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION) || cookie(headers).is_some()
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
    if let Some(token) = token(headers) {
        let operator = app.store.api_token(auth::hash(&token)).await?;
        return Ok(operator.map(|operator| Caller { operator, session: None }));
    }
    let Some(secret) = cookie(headers) else { return Ok(None) };
    let Some(session) = app.store.session(auth::hash(secret), now).await? else { return Ok(None) };
    // A cookie comes by itself, also when another site makes the browser ask; the header does not.
    let is_change = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if is_change && !has_csrf(headers, &session) {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "auth.csrf",
            "a change through a session needs its X-Csrf-Token",
        ));
    }
    Ok(Some(Caller { operator: session.operator.clone(), session: Some(session) }))
}

fn has_csrf(headers: &HeaderMap, session: &Session) -> bool {
    let given = headers.get(CSRF_HEADER).map_or(&b""[..], |value| value.as_bytes());
    given.ct_eq(session.csrf.as_bytes()).into()
}

/// A bearer token; or, as registries' clients send it, the password of whatever user.
fn token(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, credentials) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(credentials.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(credentials.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    text.split_once(':').map(|(_, password)| password.to_owned())
}

/// The secret of the session's cookie.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = pairs.flat_map(|pairs| pairs.split(';'));
    pairs.find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE).then_some(value)
    })
}

/// Counts requests by status.
pub(super) async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    app.metrics.count_request(response.status().as_u16());
    response
}

/// Wrong secrets of the last minute, by address; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failures {
    inner: Arc<Mutex<BTreeMap<IpAddr, (UnixMillis, u32)>>>,
}

impl Failures {
    fn is_over(&self, address: IpAddr, now: UnixMillis) -> bool {
        // Plain counters: a panic elsewhere leaves them usable.
        let failures = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get(&address).is_some_and(|&(since, count)| {
            now.since(since) < MINUTE_MS && count >= FAILURES_A_MINUTE
        })
    }

    fn add(&self, address: IpAddr, now: UnixMillis) {
        let mut failures = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= ADDRESSES_MAX {
            failures.retain(|_, (since, _)| now.since(*since) < MINUTE_MS);
        }
        let entry = failures.entry(address).or_insert((now, 0));
        if now.since(entry.0) >= MINUTE_MS {
            *entry = (now, 0);
        }
        entry.1 = entry.1.saturating_add(1);
    }
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
        assert_eq!(cookie(&headers), Some("s"));
    }

    #[test]
    fn an_address_with_many_failures_waits_a_minute() {
        let failures = Failures::default();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..FAILURES_A_MINUTE {
            assert!(!failures.is_over(address, UnixMillis(0)));
            failures.add(address, UnixMillis(0));
        }
        assert!(failures.is_over(address, UnixMillis(59_999)));
        assert!(!failures.is_over(address, UnixMillis(60_000)));
    }
}
