//! `/api/v1/status`, `/metrics` and `/healthz`.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use sealift_protocol::api::{AttentionItem, DeviceState, RolloutState, Status};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::error::ApiError;
use crate::clock;
use crate::metrics::Gauges;
use crate::rollout::Stage;
use crate::store::StoreError;
use crate::store::matching::Presence;
use crate::store::rollouts::RolloutRow;

/// Devices with something wrong that are named one by one.
const TROUBLED_MAX: u32 = 20;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(status)).route("/metrics", get(metrics))
}

/// Shows the fleet in a few numbers, and what needs a person.
#[utoipa::path(get, path = "/api/v1/status", tag = "status",
    responses((status = 200, body = Status)))]
async fn status(State(app): State<App>) -> Result<Json<Status>, ApiError> {
    Ok(Json(read(&app).await?))
}

pub(super) async fn read(app: &App) -> Result<Status, StoreError> {
    let now = clock::now();
    let presence = app.patience.presence(now);
    let states = app.store.devices_by_state(presence).await?;
    let of = |state| states.get(&state).copied().unwrap_or_default();
    let live = app.store.live_rollouts().await?;
    Ok(Status {
        at: now,
        attention: attention(app, &live, presence).await?,
        devices_online: of(DeviceState::Online),
        devices_offline: of(DeviceState::Offline),
        devices_unhealthy: of(DeviceState::Unhealthy),
        adoption: app.store.adoption().await?,
        rollouts_running: u64::try_from(live.len()).unwrap_or(u64::MAX),
        alerts_open: app.store.open_alerts().await?,
        requests_per_s: app.store.requests_per_s(presence).await?,
    })
}

/// Worst first.
async fn attention(
    app: &App,
    live: &[RolloutRow],
    presence: Presence,
) -> Result<Vec<AttentionItem>, StoreError> {
    let mut items: Vec<_> =
        live.iter().filter(|row| row.stage == Stage::Halted).map(halted).collect();
    let alerts = app.store.open_alerts().await?;
    if alerts > 0 {
        items.push(AttentionItem {
            severity: "warning".to_owned(),
            title: format!("{alerts} open alert(s)"),
            detail: "nobody has said yet that they look after them".to_owned(),
            href: "/alerts?state=open".to_owned(),
        });
    }
    if let Some(item) = keys_left_here(app).await {
        items.push(item);
    }
    items.extend(app.expiries.attention(presence.now));
    let troubled = app.store.troubled_devices(presence, TROUBLED_MAX).await?;
    items.extend(troubled.into_iter().map(|(device, trouble)| AttentionItem {
        severity: "warning".to_owned(),
        title: format!("device {device} is unhealthy"),
        detail: trouble,
        href: format!("/devices/{device}"),
    }));
    Ok(items)
}

fn halted(row: &RolloutRow) -> AttentionItem {
    AttentionItem {
        severity: "critical".to_owned(),
        title: format!("rollout {} of {} is halted", row.id, row.order.model),
        detail: format!("{}; resume it, or roll back", row.why),
        href: format!("/rollouts/{}", row.id),
    }
}

/// Whoever takes over a server with its root keys can sign anything for ever.
async fn keys_left_here(app: &App) -> Option<AttentionItem> {
    let folder = app.offline_keys.as_ref()?;
    // A folder that cannot be looked into is there as well.
    let is_here = tokio::fs::try_exists(folder).await.unwrap_or(true);
    is_here.then(|| AttentionItem {
        severity: "warning".to_owned(),
        title: "root key is still on this server".to_owned(),
        detail: format!(
            "move {} to a place that is not connected: docs/operate/keys.md says how",
            folder.display()
        ),
        href: "/settings".to_owned(),
    })
}

/// What Prometheus reads.
async fn metrics(State(app): State<App>) -> Result<Response, ApiError> {
    let status = read(&app).await?;
    let moving = |state: RolloutState| state == RolloutState::Halted;
    let live = app.store.live_rollouts().await?;
    let halted =
        live.iter().filter(|row| moving(crate::store::rollouts::stage_words(row.stage).0)).count();
    let gauges = Gauges {
        status: &status,
        rollouts_halted: u64::try_from(halted).unwrap_or(u64::MAX),
        expiries: &app.expiries.all(),
    };
    let text = app.metrics.encode(&gauges).map_err(ApiError::internal)?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// Whether the server can do its work; for supervisors, without any detail.
pub(super) async fn health(State(app): State<App>) -> Response {
    match app.store.ping().await {
        Ok(()) => "ok".into_response(),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the store does not answer");
            (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer").into_response()
        }
    }
}
