//! `/api/v1/alerts` and `/api/v1/webhooks`.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealift_protocol::api::{Acknowledge, AlertState, AlertView, Page, WebhookNew, WebhookView};
use sealift_protocol::id::AlertId;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::access::Caller;
use super::error::ApiError;
use super::page::{PageQuery, page};
use super::reach;
use crate::alert::deliver;
use crate::audit::Deed;
use crate::clock;
use crate::limits::PAGE_MAX;

/// Characters of a note.
const NOTE_CHARS_MAX: usize = 1_000;
/// Characters of an address.
const URL_CHARS_MAX: usize = 500;
/// Webhooks of one tenant: each alert is sent to each.
const WEBHOOKS_MAX: usize = 20;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(acknowledge))
        .routes(routes!(webhooks, add_webhook))
        .routes(routes!(remove_webhook))
}

/// Which alerts.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only in these states, such as `open,acknowledged`; in any if not given, or empty.
    #[serde(default)]
    state: Option<String>,
    /// Entries on the page; 100 if not given, at most 1,000.
    #[serde(default)]
    limit: Option<u32>,
    /// Where the page starts: `next_cursor` of the page before.
    #[serde(default)]
    cursor: Option<String>,
}

/// Lists alerts, newest first.
#[utoipa::path(get, path = "/api/v1/alerts", tag = "alerts", params(ListQuery),
    responses((status = 200, body = Page<AlertView>)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<AlertView>>, ApiError> {
    let states = states(query.state.as_deref().unwrap_or_default())?;
    let paging = PageQuery { limit: query.limit, cursor: query.cursor };
    let limit = paging.limit();
    let (alerts, total) = seen(&app, &caller, &states, (paging.number(), limit)).await?;
    Ok(Json(page(alerts, total, limit, |alert| alert.id.0.to_string())))
}

/// Newest alerts about what is in scope, numbered below `before`, and how many there are.
async fn seen(
    app: &App,
    caller: &Caller,
    states: &BTreeSet<AlertState>,
    (before, limit): (Option<u64>, u32),
) -> Result<(Vec<AlertView>, u64), ApiError> {
    if caller.reach().is_whole() {
        let total = app.store.count_alerts(states).await?;
        return Ok((app.store.alerts(states, before, limit).await?, total));
    }
    let presence = app.patience.presence(clock::now());
    let mut seen = Vec::new();
    for alert in app.store.alerts(states, None, PAGE_MAX).await? {
        if reach::sees_alert(app, caller.reach(), &alert, presence).await? {
            seen.push(alert);
        }
    }
    let total = u64::try_from(seen.len()).unwrap_or(u64::MAX);
    seen.retain(|alert| before.is_none_or(|before| alert.id.0 < before));
    seen.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok((seen, total))
}

/// Parses names of states with commas in between; no name stands for all.
fn states(text: &str) -> Result<BTreeSet<AlertState>, ApiError> {
    if text.is_empty() {
        return Ok([AlertState::Open, AlertState::Acknowledged, AlertState::Closed].into());
    }
    let state = |name: &str| match name {
        "open" => Ok(AlertState::Open),
        "acknowledged" => Ok(AlertState::Acknowledged),
        "closed" => Ok(AlertState::Closed),
        other => {
            let what = format!("`{other}` is none of `open`, `acknowledged`, `closed`");
            Err(ApiError::invalid("alert.state", what))
        }
    };
    text.split(',').map(state).collect()
}

/// Says that somebody looks after an alert.
#[utoipa::path(post, path = "/api/v1/alerts/{id}/acknowledge", tag = "alerts",
    params(("id" = String, Path)), request_body = Acknowledge,
    responses((status = 200, body = AlertView)))]
async fn acknowledge(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<AlertId>,
    Json(request): Json<Acknowledge>,
) -> Result<Json<AlertView>, ApiError> {
    let by = caller.name();
    let note: String = request.note.chars().take(NOTE_CHARS_MAX).collect();
    let mut change = app.store.begin().await?;
    if !change.acknowledge_alert(id, (by, &note)).await? {
        let what = format!("there is no alert {id}, or it is over");
        return Err(ApiError::not_found("alert.not-found", what));
    }
    let subject = id.to_string();
    let deed = Deed {
        actor: by,
        action: "alert.acknowledge",
        subject: &subject,
        reason: Some(&note),
        detail: "",
    };
    change.audit(&deed, clock::now()).await?;
    let view = change.alert(id).await?;
    let presence = app.patience.presence(clock::now());
    if !reach::sees_alert(&app, caller.reach(), &view, presence).await? {
        // Dropped without a commit, nothing was acknowledged.
        return Err(ApiError::not_found("alert.not-found", format!("there is no alert {id}")));
    }
    change.commit().await?;
    app.hub.publish("alert", &view);
    app.hub.touch_status();
    Ok(Json(view))
}

/// Lists webhooks; their secrets are not shown again.
#[utoipa::path(get, path = "/api/v1/webhooks", tag = "alerts",
    responses((status = 200, body = Page<WebhookView>)))]
async fn webhooks(State(app): State<App>) -> Result<Json<Page<WebhookView>>, ApiError> {
    let items = app.store.webhooks().await?;
    let total = u64::try_from(items.len()).unwrap_or(u64::MAX);
    Ok(Json(Page { items, total, next_cursor: None }))
}

/// Adds a webhook; the answer has the secret with which messages are signed, this once.
#[utoipa::path(post, path = "/api/v1/webhooks", tag = "alerts", request_body = WebhookNew,
    responses((status = 201, body = WebhookView)))]
async fn add_webhook(
    State(app): State<App>,
    caller: Caller,
    Json(request): Json<WebhookNew>,
) -> Result<(StatusCode, Json<WebhookView>), ApiError> {
    let actor = caller.name();
    if request.url.len() > URL_CHARS_MAX {
        return Err(ApiError::invalid("webhook.url", "the address is too long"));
    }
    deliver::address(&request.url)
        .map_err(|error| ApiError::invalid("webhook.url", error.to_string()))?;
    if app.store.webhooks().await?.len() >= WEBHOOKS_MAX {
        let what = format!("there are {WEBHOOKS_MAX} webhooks already");
        return Err(ApiError::new(StatusCode::CONFLICT, "webhook.too-many", what));
    }
    let mut key = [0; 32];
    getrandom::fill(&mut key)
        .map_err(|_| ApiError::internal("the system gives no random bytes"))?;
    let secret = format!("{}{}", deliver::SECRET_PREFIX, STANDARD.encode(key));
    let mut change = app.store.begin().await?;
    let id = change.add_webhook(&request.url, &secret, clock::now()).await?;
    let (subject, url) = (id.to_string(), request.url);
    let deed = Deed { actor, action: "webhook.add", subject: &subject, reason: None, detail: &url };
    change.audit(&deed, clock::now()).await?;
    change.commit().await?;
    let view = WebhookView { id, url, secret: Some(secret), last_delivery: None, pending: 0 };
    Ok((StatusCode::CREATED, Json(view)))
}

/// Removes a webhook, and what was still to be sent to it.
#[utoipa::path(delete, path = "/api/v1/webhooks/{id}", tag = "alerts",
    params(("id" = u64, Path)), responses((status = 204)))]
async fn remove_webhook(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u64>,
) -> Result<StatusCode, ApiError> {
    let actor = caller.name();
    let mut change = app.store.begin().await?;
    if !change.remove_webhook(id).await? {
        return Err(ApiError::not_found("webhook.not-found", format!("there is no webhook {id}")));
    }
    let subject = id.to_string();
    let deed =
        Deed { actor, action: "webhook.remove", subject: &subject, reason: None, detail: "" };
    change.audit(&deed, clock::now()).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
