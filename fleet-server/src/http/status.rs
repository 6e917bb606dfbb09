//! `/api/v1/status`, `/metrics` and `/healthz`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use reqwest::Url;
use sealift_protocol::api::{
    AlertState, AttentionItem, DeviceState, DeviceView, RolloutState, Status, TargetGroup,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Caller;
use super::error::ApiError;
use super::{App, reach};
use crate::clock;
use crate::halt::Halt;
use crate::limits::PAGE_MAX;
use crate::metrics::Gauges;
use crate::reach::Reach;
use crate::rollout::Stage;
use crate::store::StoreError;
use crate::store::channels::Channel;
use crate::store::matching::Presence;
use crate::store::rollouts::RolloutRow;

/// Devices with something wrong that are named one by one.
const TROUBLED_MAX: u32 = 20;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(targets))
        .route("/metrics", get(metrics))
}

/// Shows the fleet in a few numbers, and what needs a person.
#[utoipa::path(get, path = "/api/v1/status", tag = "status",
    responses((status = 200, body = Status)))]
async fn status(State(app): State<App>, caller: Caller) -> Result<Json<Status>, ApiError> {
    Ok(Json(read(&app, caller.reach()).await?))
}

/// The overview of what is in scope.
pub(super) async fn read(app: &App, reach: &Reach) -> Result<Status, StoreError> {
    let now = clock::now();
    let presence = app.patience.presence(now);
    let states = app.store.devices_by_state(reach.filter(), presence).await?;
    let of = |state| states.get(&state).copied().unwrap_or_default();
    let mut live = Vec::new();
    for row in app.store.live_rollouts().await? {
        if reach::sees_rollout(app, reach, &row, presence).await? {
            live.push(row);
        }
    }
    let alerts_open = open_alerts(app, reach, presence).await?;
    Ok(Status {
        at: now,
        attention: attention(app, reach, (&live, alerts_open), presence).await?,
        devices_online: of(DeviceState::Online),
        devices_offline: of(DeviceState::Offline),
        devices_unhealthy: of(DeviceState::Unhealthy),
        adoption: app.store.adoption(reach.filter(), presence).await?,
        rollouts_running: u64::try_from(live.len()).unwrap_or(u64::MAX),
        alerts_open,
        requests_per_s: app.store.requests_per_s(reach.filter(), presence).await?,
    })
}

/// Alerts that nobody looks after, about what is in scope.
async fn open_alerts(app: &App, reach: &Reach, presence: Presence) -> Result<u64, StoreError> {
    if reach.is_whole() {
        return app.store.open_alerts().await;
    }
    let mut count = 0;
    for alert in app.store.alerts(&[AlertState::Open].into(), None, PAGE_MAX).await? {
        count += u64::from(reach::sees_alert(app, reach, &alert, presence).await?);
    }
    Ok(count)
}

/// Worst first.
async fn attention(
    app: &App,
    reach: &Reach,
    (live, alerts): (&[RolloutRow], u64),
    presence: Presence,
) -> Result<Vec<AttentionItem>, StoreError> {
    let mut items: Vec<_> =
        live.iter().filter(|row| row.stage == Stage::Halted).map(halted).collect();
    if let Some(halt) = app.store.halt().await?.halt {
        items.insert(0, fleet_halted(&halt));
    }
    if alerts > 0 {
        items.push(AttentionItem {
            severity: "warning".to_owned(),
            title: format!("{alerts} open {}", if alerts == 1 { "alert" } else { "alerts" }),
            detail: "nobody has said yet that they look after them".to_owned(),
            href: "/alerts?state=open".to_owned(),
        });
    }
    if reach.is_whole()
        && let Some(item) = keys_left_here(app).await
    {
        items.push(item);
    }
    items.extend(app.expiries.attention(presence.now));
    let troubled = app.store.troubled_devices(reach.filter(), presence, TROUBLED_MAX).await?;
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

fn fleet_halted(halt: &Halt) -> AttentionItem {
    AttentionItem {
        severity: "critical".to_owned(),
        title: "all rollouts are halted".to_owned(),
        detail: format!("{halt}; `fleetctl resume` lets them go on"),
        href: "/rollouts".to_owned(),
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
async fn metrics(State(app): State<App>, caller: Caller) -> Result<Response, ApiError> {
    let text = metrics_text(&app, caller.reach()).await?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// All metrics, as far as somebody reaches.
pub(super) async fn metrics_text(app: &App, reach: &Reach) -> Result<String, ApiError> {
    let status = read(app, reach).await?;
    let moving = |state: RolloutState| state == RolloutState::Halted;
    let live = app.store.live_rollouts().await?;
    let halted =
        live.iter().filter(|row| moving(crate::store::rollouts::stage_words(row.stage).0)).count();
    let gauges = Gauges {
        status: &status,
        rollouts_halted: u64::try_from(halted).unwrap_or(u64::MAX),
        expiries: &app.expiries.all(),
        alerts: &live_by_severity(app).await?,
        waiting: &waiting_by_channel(app).await?,
    };
    app.metrics.encode(&gauges).map_err(ApiError::internal)
}

async fn live_by_severity(app: &App) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut counts = BTreeMap::new();
    for alert in app.store.live_alerts().await? {
        *counts.entry(alert.finding.severity.as_str().to_owned()).or_default() += 1;
    }
    Ok(counts)
}

async fn waiting_by_channel(app: &App) -> Result<BTreeMap<String, u64>, StoreError> {
    let channels = app.store.channels().await?;
    Ok(channels.iter().map(Channel::view).map(|view| (view.name, view.pending)).collect())
}

/// Where Prometheus finds agents: those that say on which address they answer, by Prometheus' HTTP service discovery. An agent on
/// loopback can be reached from its own device alone, and is left out.
#[utoipa::path(get, path = "/api/v1/prometheus/targets", tag = "status",
    responses((status = 200, body = Vec<TargetGroup>)))]
async fn targets(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<Vec<TargetGroup>>, ApiError> {
    let presence = app.patience.presence(clock::now());
    let mut groups = Vec::new();
    let mut after = None;
    loop {
        let filter = caller.reach().filter();
        let page = app.store.devices(filter, presence, after.as_ref(), PAGE_MAX).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        for device in &page {
            groups.extend(target(device));
        }
    }
    Ok(Json(groups))
}

/// Labels of a target are what Prometheus adds to what it reads there: which device it is, is said here alone.
fn target(device: &DeviceView) -> Option<TargetGroup> {
    let url = Url::parse(device.endpoint.as_deref()?).ok()?;
    let host = url.host_str()?;
    let port = url.port_or_known_default()?;
    let is_own = host == "localhost"
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|it| it.is_loopback());
    if is_own {
        return None;
    }
    let name = |name: &str| {
        let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
        format!("label_{}", name.chars().map(plain).collect::<String>())
    };
    let labels = device.labels.iter().map(|(key, value)| (name(key), value.clone()));
    let own = [
        ("device".to_owned(), device.id.to_string()),
        ("__scheme__".to_owned(), url.scheme().to_owned()),
    ];
    Some(TargetGroup {
        targets: vec![format!("{host}:{port}")],
        labels: labels.chain(own).collect(),
    })
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
