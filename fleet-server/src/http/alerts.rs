//! `/api/v1/alerts`.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, Query, State};
use sealift_protocol::api::{Acknowledge, AlertState, AlertView, Page};
use sealift_protocol::id::AlertId;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::access::Caller;
use super::alerting::mark_silenced;
use super::channels::parsed;
use super::error::ApiError;
use super::page::{PageQuery, page};
use super::reach;
use crate::alert::matcher::{Matcher, all_hold};
use crate::audit::Deed;
use crate::clock;
use crate::limits::PAGE_MAX;

/// Characters of a note.
const NOTE_CHARS_MAX: usize = 1_000;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(acknowledge))
}

/// Which alerts.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only in these states, such as `open,acknowledged`; in any if not given, or empty.
    #[serde(default)]
    state: Option<String>,
    /// Only those that all of these match, such as `site=osaka,kind!=drift`; looked for among the newest 1,000.
    #[serde(default, rename = "match")]
    matchers: Option<String>,
}

/// Lists alerts, newest first.
#[utoipa::path(get, path = "/api/v1/alerts", tag = "alerts", params(ListQuery, PageQuery),
    responses((status = 200, body = Page<AlertView>)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
    Query(paging): Query<PageQuery>,
) -> Result<Json<Page<AlertView>>, ApiError> {
    let states = states(query.state.as_deref().unwrap_or_default())?;
    let limit = paging.limit();
    let texts = query.matchers.unwrap_or_default();
    let texts: Vec<_> =
        texts.split(',').filter(|text| !text.is_empty()).map(str::to_owned).collect();
    let matchers = parsed(&texts)?;
    let place = (paging.number(), limit);
    let (mut alerts, total) = seen(&app, &caller, (&states, &matchers), place).await?;
    mark_silenced(&app, &mut alerts).await?;
    Ok(Json(page(alerts, total, limit, |alert| alert.id.0.to_string())))
}

/// Newest alerts about what is in scope, numbered below `before`, and how many there are.
async fn seen(
    app: &App,
    caller: &Caller,
    (states, matchers): (&BTreeSet<AlertState>, &[Matcher]),
    (before, limit): (Option<u64>, u32),
) -> Result<(Vec<AlertView>, u64), ApiError> {
    if caller.reach().is_whole() && matchers.is_empty() {
        let total = app.store.count_alerts(states).await?;
        return Ok((app.store.alerts(states, before, limit).await?, total));
    }
    let presence = app.patience.presence(clock::now());
    let mut seen = Vec::new();
    for alert in app.store.alerts(states, None, PAGE_MAX).await? {
        let is_seen = caller.reach().is_whole()
            || reach::sees_alert(app, caller.reach(), &alert, presence).await?;
        if is_seen && all_hold(matchers, &alert) {
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
