//! The operators' port: `/api/v1`, the console, metrics. Each resource has its own router; here they are put behind the same doors.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use axum::middleware;
use axum::routing::get;
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, Predicate};
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;
use utoipa_axum::router::OpenApiRouter;

use crate::alert::deliver::Dispatch;
use crate::audit::Notary;
use crate::auth::Auth;
use crate::clock;
use crate::config::Approval;
use crate::directive::Director;
use crate::events::Hub;
use crate::history::History;
use crate::limits::{API_BODY_BYTES_MAX, API_REQUEST_MAX, API_REQUESTS_MAX};
use crate::metrics::Metrics;
use crate::otlp::{self, Exporter};
use crate::reach::Reach;
use crate::reconcile::{Patience, Reconciler};
use crate::review::Review;
use crate::signals::Signals;
use crate::store::TenantStore;
use crate::trust::expiry::Expiries;
use crate::watch::Watch;
use rates::Rates;

pub(crate) mod access;
mod alerting;
mod alerts;
mod audit;
mod channels;
mod console;
pub(crate) mod device;
mod devices;
mod drift;
pub(crate) mod claims;
pub(crate) mod enrol;
pub(crate) mod error;
mod events;
mod halt;
pub(crate) mod models;
pub(crate) mod openapi;
mod operators;
mod page;
pub(crate) mod questions;
mod ranges;
pub(crate) mod rates;
mod reach;
pub(crate) mod registry;
mod review;
mod rollbacks;
mod rollouts;
mod session;
mod status;
mod taken;
pub(crate) mod trust;

/// What the resources are made of; cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    /// The tenant's part of the store.
    pub(crate) store: TenantStore,
    /// Looks at rollouts.
    pub(crate) reconciler: Reconciler,
    /// Signs directives.
    pub(crate) director: Arc<Director>,
    /// Signs checkpoints of the audit log.
    pub(crate) notary: Arc<Notary>,
    /// Times.
    pub(crate) patience: Patience,
    /// Wakes the other tasks.
    pub(crate) signals: Signals,
    /// Tells browsers what has changed.
    pub(crate) hub: Hub,
    /// Knows the verdicts.
    pub(crate) watch: Watch,
    /// Knows what was seen before.
    pub(crate) history: History,
    /// Sends alerts to channels.
    pub(crate) dispatch: Dispatch,
    /// Knows what devices keep for people to look at.
    pub(crate) review: Review,
    /// Recognises operators.
    pub(crate) auth: Arc<Auth>,
    /// How fast anybody may ask.
    pub(crate) rates: Rates,
    /// Which rollouts somebody else must approve.
    pub(crate) approval: Approval,
    /// Counts what happens.
    pub(crate) metrics: Metrics,
    /// Where `init` wrote the offline keys: they should not stay there.
    pub(crate) offline_keys: Option<PathBuf>,
    /// When which role of the trust metadata has to be signed again.
    pub(crate) expiries: Expiries,
}

/// RFC 6797: for a year this host is asked over TLS alone.
const HSTS: &str = "max-age=31536000";

/// How often browsers are told of changes.
const EVENTS_EVERY: Duration = Duration::from_millis(500);

/// The whole port. `edge` are the routes of registry, trust and enrolment, which bring their own state.
pub(crate) fn router(app: App, edge: OpenApiRouter) -> Router {
    let (api, mut document) = api(app.clone(), edge).split_for_parts();
    openapi::name_operations(&mut document);
    // The router is cloned for each connection.
    let document = Arc::new(document);
    let open = Router::new()
        .route("/healthz", get(status::health))
        .route("/openapi.json", get(async move || openapi::serve(&document)))
        .merge(session::open_router())
        .fallback(console::serve)
        .layer(CompressionLayer::new().compress_when(worth_compressing()))
        .with_state(app.clone());
    let guarded = api.layer(middleware::from_fn_with_state(app.clone(), access::guard));
    let has_tls = app.auth.rules.has_tls;
    guarded.merge(open).layer(
        ServiceBuilder::new()
            .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
            .layer(PropagateRequestIdLayer::x_request_id())
            .layer(middleware::from_fn_with_state(app, access::count))
            .layer(middleware::from_fn(error::name_request))
            .layer(CatchPanicLayer::new())
            .layer(always("x-content-type-options", "nosniff"))
            .layer(always("referrer-policy", "no-referrer"))
            .layer(always("x-frame-options", "DENY"))
            .layer(always("content-security-policy", console::POLICY))
            .layer(always("cross-origin-opener-policy", "same-origin"))
            .layer(always("cross-origin-resource-policy", "same-origin"))
            .layer(always("permissions-policy", "camera=(), microphone=(), geolocation=()"))
            .option_layer(has_tls.then(|| always("strict-transport-security", HSTS))),
    )
}

/// Everything that needs an operator. Streams and uploads have no deadline and no small body; all else has both.
fn api(app: App, edge: OpenApiRouter) -> OpenApiRouter {
    let limited = OpenApiRouter::with_openapi(openapi::head())
        .merge(devices::router())
        .merge(rollouts::router())
        .merge(rollbacks::router())
        .merge(halt::router())
        .merge(review::router())
        .merge(audit::router())
        .merge(drift::router())
        .merge(taken::router())
        .merge(alerts::router())
        .merge(alerting::router())
        .merge(channels::router())
        .merge(operators::router())
        .merge(session::router())
        .merge(status::router())
        .layer(
            ServiceBuilder::new()
                .layer(GlobalConcurrencyLimitLayer::new(API_REQUESTS_MAX))
                .layer(TimeoutLayer::with_status_code(
                    StatusCode::SERVICE_UNAVAILABLE,
                    API_REQUEST_MAX,
                ))
                .layer(CompressionLayer::new().compress_when(worth_compressing()))
                .layer(DefaultBodyLimit::max(API_BODY_BYTES_MAX))
                .layer(SetResponseHeaderLayer::if_not_present(
                    header::CACHE_CONTROL,
                    HeaderValue::from_static("no-store"),
                )),
        );
    limited.merge(events::router()).with_state(app).merge(edge)
}

/// Refusals stay as they are: the request's id is still to be written into them.
fn worth_compressing() -> impl Predicate {
    let is_success =
        |status: StatusCode, _: Version, _: &HeaderMap, _: &Extensions| status.is_success();
    DefaultPredicate::new().and(is_success)
}

fn always(name: &'static str, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(
        HeaderName::from_static(name),
        HeaderValue::from_static(value),
    )
}

/// Looks up what was touched and tells the browsers; never returns.
pub(crate) async fn tell_browsers(app: App) {
    let mut teller = events::Teller::new(app);
    loop {
        tokio::time::sleep(EVENTS_EVERY).await;
        if let Err(error) = teller.tell(clock::now()).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "browsers were not told");
        }
    }
}

/// Sends what `/metrics` says to a collector; never returns.
pub(crate) async fn export_metrics(app: App, exporter: Exporter) {
    let read = || async {
        let error = match status::metrics_text(&app, &Reach::default()).await {
            Ok(text) => return Some((text, clock::now())),
            Err(error) => error.into_cause(),
        };
        let error = error.as_deref().map(|error| error as &dyn std::error::Error);
        tracing::warn!(error, "metrics cannot be read, and are not exported");
        None
    };
    otlp::run(exporter, read).await;
}

#[cfg(test)]
mod tests;
