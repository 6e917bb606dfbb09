//! Refusals and failures as `application/problem+json` (RFC 9457). Causes inside the server go to the log, under the request's id.

use axum::Json;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sealift_protocol::api::Problem;
use tracing::Instrument as _;

use crate::auth::{AuthError, PasswordError};
use crate::filter::InvalidFilter;
use crate::history::HistoryError;
use crate::order::OrderError;
use crate::reconcile::ReconcileError;
use crate::store::StoreError;

/// Before the code, in the type of a problem.
const TYPE_PREFIX: &str = "urn:sealift:problem:";

/// What a caller is told instead of a result.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    detail: String,
    help: Option<&'static str>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ApiError {
    /// A refusal with a stable code.
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), help: None, cause: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub(crate) const fn help(mut self, help: &'static str) -> Self {
        self.help = Some(help);
        self
    }

    /// A thing that is not there.
    pub(crate) fn not_found(code: &'static str, what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, what)
    }

    /// A value that makes no sense.
    pub(crate) fn invalid(code: &'static str, what: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, what)
    }

    /// The server's own fault; the caller is told no more than that.
    pub(crate) fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let detail = "something failed inside the server; its log says what, under the request id";
        let error = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail);
        Self { cause: Some(cause.into()), ..error }
    }

    /// What failed inside the server, if that is why.
    pub(crate) fn into_cause(self) -> Option<Box<dyn std::error::Error + Send + Sync>> {
        self.cause
    }

    /// Nobody known asks.
    pub(crate) fn unauthenticated() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "auth.missing", "no valid token or session was given")
            .help("`fleet-server token create` makes a token, `fleet-server login-link` a link")
    }

    /// Somebody known asks for what they may not do.
    pub(crate) fn forbidden(detail: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "auth.forbidden", detail)
    }

    /// Somebody known asks for devices that they do not reach.
    pub(crate) fn beyond_scope(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "auth.scope", detail)
            .help("name only devices in your scope, or ask somebody whose scope is wider")
    }

    /// Somebody asks, or is wrong, too often.
    pub(crate) fn too_many(detail: &'static str) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "auth.too-many", detail)
            .help("wait a minute, then try again")
    }

    /// The stable code.
    pub(crate) const fn code(&self) -> &'static str {
        self.code
    }

    /// The status that it is answered with.
    pub(crate) const fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Changed(_) => {
                Self::new(StatusCode::CONFLICT, "conflict", error.to_string())
                    .help("look again, then try again")
            }
            error @ (StoreError::Url(_)
            | StoreError::Open(_)
            | StoreError::Migrate(_)
            | StoreError::Query(_)
            | StoreError::Corrupt { .. }
            | StoreError::TooLarge(_)) => Self::internal(error),
        }
    }
}

impl From<HistoryError> for ApiError {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Store(error) => error.into(),
            error @ (HistoryError::Baseline(_) | HistoryError::Sum(_)) => Self::internal(error),
        }
    }
}

impl From<InvalidFilter> for ApiError {
    fn from(error: InvalidFilter) -> Self {
        Self::invalid("filter.syntax", error.to_string())
            .help("terms are `label:value`, `state:offline`, `model:team/name@<2`, `id:cam-*`, `seen:<5m`, `sim:true`")
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Store(error) => error.into(),
            error @ (AuthError::Random(_) | AuthError::Seal) => Self::internal(error),
            error @ AuthError::Name => Self::invalid("name.invalid", error.to_string()),
            AuthError::Scope(error) => Self::invalid("scope.invalid", error.to_string())
                .help("a scope is made of labels, such as `site:osaka`"),
            AuthError::Password(error) => error.into(),
            error @ AuthError::Wrong => {
                Self::new(StatusCode::UNAUTHORIZED, "auth.wrong", error.to_string())
                    .help("a code of the authenticator works once, for half a minute")
            }
            AuthError::TooMany => Self::too_many("there were too many wrong passwords or codes"),
            error @ AuthError::Taken(_) => {
                Self::new(StatusCode::CONFLICT, "operator.taken", error.to_string())
            }
            error @ AuthError::Unknown(_) => {
                Self::not_found("operator.not-found", error.to_string())
            }
            error @ AuthError::NotLocal(_) => {
                Self::new(StatusCode::CONFLICT, "operator.not-local", error.to_string())
                    .help("confirm through the provider: log in again")
            }
        }
    }
}

impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        match error {
            error @ PasswordError::Rule => Self::invalid("password.rule", error.to_string())
                .help("a sentence of your own is long, and easy to keep in mind"),
            error @ (PasswordError::Random(_)
            | PasswordError::Hash(_)
            | PasswordError::Stopping) => Self::internal(error),
        }
    }
}

impl From<ReconcileError> for ApiError {
    fn from(error: ReconcileError) -> Self {
        match error {
            ReconcileError::Store(error) => error.into(),
            error @ ReconcileError::Filter { .. } => Self::internal(error),
        }
    }
}

impl From<OrderError> for ApiError {
    fn from(error: OrderError) -> Self {
        let text = error.to_string();
        match error {
            OrderError::Store(error) => error.into(),
            OrderError::Reconcile(error) => error.into(),
            OrderError::Filter(error) => error.into(),
            OrderError::NoVersion { .. } => Self::not_found("version.not-found", text)
                .help("`fleetctl model list` shows the versions that were pushed"),
            OrderError::Unsigned { .. } => {
                Self::new(StatusCode::CONFLICT, "version.unsigned", text)
                    .help("`fleetctl model sign` signs it with the publisher's key")
            }
            OrderError::Quarantined { .. } => {
                Self::new(StatusCode::CONFLICT, "version.quarantined", text)
                    .help("push a new version; a quarantined one is not rolled out again")
            }
            OrderError::Waves(_) => Self::invalid("waves.invalid", text),
            OrderError::Budget(_) => Self::invalid("budget.invalid", text),
            OrderError::Behaviour(_) => Self::invalid("behaviour.invalid", text),
            OrderError::Shadow(_) => Self::invalid("shadow.invalid", text),
            OrderError::Start => Self::invalid("start.too-late", text),
            OrderError::Reason => Self::invalid("reason.missing", text)
                .help("say why, for whoever looks at this tomorrow"),
            OrderError::NoDevices(_) => Self::invalid("rollout.no-devices", text)
                .help("`fleetctl device list -l FILTER` shows whom a filter names"),
            OrderError::NoRollout(_) => Self::not_found("rollout.not-found", text),
            OrderError::OwnOrder { .. } => Self::new(StatusCode::FORBIDDEN, "approval.own", text)
                .help("somebody else with the role approver or admin approves it"),
            OrderError::NotNow { .. } => Self::new(StatusCode::CONFLICT, "rollout.not-now", text),
            OrderError::TooManyDevices(_) => Self::invalid("rollback.devices", text),
            OrderError::NotPlaced(..) => Self::not_found("rollback.device", text)
                .help("`fleetctl device get` shows what a device runs"),
            OrderError::NobodyGoesBack { .. } => {
                Self::new(StatusCode::CONFLICT, "rollback.nothing", text)
                    .help("name a version with `--to`")
            }
            OrderError::NoEarlier(_) => {
                Self::new(StatusCode::CONFLICT, "rollback.no-earlier", text)
                    .help("name the version with `--to`")
            }
            OrderError::NothingToGoBackFrom { .. } => {
                Self::new(StatusCode::CONFLICT, "rollback.nothing", text)
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Some(cause) = &self.cause {
            tracing::error!(error = cause.as_ref() as &dyn std::error::Error, "request failed");
        }
        let problem = Problem {
            r#type: format!("{TYPE_PREFIX}{}", self.code),
            title: self.status.canonical_reason().unwrap_or_default().to_owned(),
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            detail: self.detail,
            help: self.help.map(str::to_owned),
            request_id: None,
        };
        let mut response = written(self.status, &problem);
        response.extensions_mut().insert(problem);
        response
    }
}

fn written(status: StatusCode, problem: &Problem) -> Response {
    let mut response = (status, Json(problem)).into_response();
    let problem_json = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, problem_json);
    response
}

/// Longest text of a refusal by the framework.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// Puts the request's id into the problem that answers it, so that people can find it in the log. What the framework itself refuses
/// (a body that is no JSON, too large, too late) becomes a problem as well.
pub(crate) async fn name_request(request: Request, next: Next) -> Response {
    let id = request.headers().get("x-request-id").and_then(|id| id.to_str().ok());
    let id = id.unwrap_or_default().to_owned();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let span = tracing::info_span!("request", %id, %method, path);
    let (mut head, body) = next.run(request).instrument(span).await.into_parts();
    let problem = match head.extensions.remove::<Problem>() {
        Some(problem) => problem,
        None if is_bare_refusal(&head, &path) => {
            let text = to_bytes(body, TEXT_BYTES_MAX).await.unwrap_or_default();
            bare_problem(head.status, &String::from_utf8_lossy(&text))
        }
        None => return Response::from_parts(head, body),
    };
    let mut named = written(head.status, &Problem { request_id: Some(id), ..problem });
    for (name, value) in &head.headers {
        if name != header::CONTENT_LENGTH && name != header::CONTENT_TYPE {
            named.headers_mut().append(name.clone(), value.clone());
        }
    }
    named
}

fn is_bare_refusal(head: &axum::http::response::Parts, path: &str) -> bool {
    let kind = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    let is_refusal = head.status.is_client_error() || head.status.is_server_error();
    is_refusal && path.starts_with("/api/") && (kind.is_empty() || kind.starts_with(b"text/plain"))
}

fn bare_problem(status: StatusCode, text: &str) -> Problem {
    let title = status.canonical_reason().unwrap_or_default().to_owned();
    Problem {
        r#type: format!("{TYPE_PREFIX}request.invalid"),
        status: status.as_u16(),
        code: "request.invalid".to_owned(),
        detail: if text.is_empty() { title.clone() } else { text.to_owned() },
        title,
        help: None,
        request_id: None,
    }
}
