//! `/api/v1/devices`.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use sealift_protocol::api::{
    DeviceForget, DeviceForgotten, DeviceRevoke, DeviceView, LabelsChange, Page, Problem,
    TimelineEntry,
};
use sealift_protocol::id::DeviceId;
use sealift_protocol::limits::{LABELS_MAX, REASON_CHARS_MAX};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::access::Caller;
use super::error::ApiError;
use super::page::{PageQuery, page};
use super::reach;
use crate::audit::Deed;
use crate::clock;
use crate::filter::{self, Filter};
use crate::history::Forgotten;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(timeline))
        .routes(routes!(change_labels))
        .routes(routes!(revoke))
        .routes(routes!(forget))
}

/// Whom a list is about.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Which devices, such as `site:tokyo -state:offline`; all if not given.
    #[serde(default)]
    filter: String,
}

/// Lists devices by id.
#[utoipa::path(get, path = "/api/v1/devices", tag = "devices", params(ListQuery, PageQuery),
    responses((status = 200, body = Page<DeviceView>), (status = 422, body = Problem)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
    Query(paging): Query<PageQuery>,
) -> Result<Json<Page<DeviceView>>, ApiError> {
    let filter: Filter = query.filter.parse()?;
    let filter = filter.and(caller.reach().filter());
    let presence = app.patience.presence(clock::now());
    let after = paging.cursor.as_deref().map(DeviceId::parse).transpose();
    let after = after.map_err(|error| ApiError::invalid("cursor.invalid", error.to_string()))?;
    let limit = paging.limit();
    let total = app.store.count_devices(&filter, presence).await?;
    let devices = app.store.devices(&filter, presence, after.as_ref(), limit).await?;
    Ok(Json(page(devices, total, limit, |device| device.id.to_string())))
}

/// Shows one device: desired beside reported.
#[utoipa::path(get, path = "/api/v1/devices/{id}", tag = "devices",
    params(("id" = String, Path, description = "The device")),
    responses((status = 200, body = DeviceView), (status = 404, body = Problem)))]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<DeviceView>, ApiError> {
    let id = device_id(&id)?;
    let presence = app.patience.presence(clock::now());
    let device = reach::device(&app, &caller, &id, presence).await?;
    device.map(Json).ok_or_else(|| unknown(&id))
}

/// Lists what happened to a device, newest first.
#[utoipa::path(get, path = "/api/v1/devices/{id}/timeline", tag = "devices",
    params(("id" = String, Path, description = "The device"), PageQuery),
    responses((status = 200, body = Page<TimelineEntry>), (status = 404, body = Problem)))]
async fn timeline(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Query(paging): Query<PageQuery>,
) -> Result<Json<Page<TimelineEntry>>, ApiError> {
    let id = device_id(&id)?;
    find(&app, &caller, &id).await?;
    let limit = paging.limit();
    let entries = app.store.timeline(&id, paging.number(), limit).await?;
    let total = app.store.timeline_length(&id).await?;
    let numbered = page(entries, total, limit, |(number, _)| number.to_string());
    let items = numbered.items.into_iter().map(|(_, entry)| entry).collect();
    Ok(Json(Page { items, total, next_cursor: numbered.next_cursor }))
}

/// Sets and removes labels.
#[utoipa::path(patch, path = "/api/v1/devices/{id}/labels", tag = "devices",
    params(("id" = String, Path, description = "The device")), request_body = LabelsChange,
    responses((status = 200, body = DeviceView), (status = 404, body = Problem),
        (status = 422, body = Problem)))]
async fn change_labels(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Json(change): Json<LabelsChange>,
) -> Result<Json<DeviceView>, ApiError> {
    let id = device_id(&id)?;
    check_labels(&change)?;
    let now = clock::now();
    let device = find(&app, &caller, &id).await?;
    stays_in_reach(&caller, device, &change)?;
    let mut transaction = app.store.begin().await?;
    if !transaction.change_labels(&id, &change.labels).await? {
        return Err(unknown(&id));
    }
    if transaction.count_labels(&id).await? > LABELS_MAX as u64 {
        return Err(ApiError::invalid("labels.too-many", "a device has at most 64 labels"));
    }
    let set = |(name, value): (&String, &Option<String>)| match value {
        Some(value) => format!("{name}={value}"),
        None => format!("-{name}"),
    };
    let detail: Vec<_> = change.labels.iter().map(set).collect();
    let detail = detail.join(" ");
    transaction.audit(&caller.deed("device.label", id.as_str(), &detail), now).await?;
    transaction.commit().await?;
    app.signals.orders().notify_one();
    app.hub.touch_device(id.clone());
    let device = app.store.device(&id, app.patience.presence(now)).await?;
    device.map(Json).ok_or_else(|| unknown(&id))
}

/// Revokes a device: its certificates are good no more, and its connections end. There is no way back but to enrol it anew, with a token
/// made for its id: whoever had the key may still have it.
#[utoipa::path(post, path = "/api/v1/devices/{id}/revoke", tag = "devices",
    params(("id" = String, Path, description = "The device")), request_body = DeviceRevoke,
    responses((status = 200, body = DeviceView), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Json(order): Json<DeviceRevoke>,
) -> Result<Json<DeviceView>, ApiError> {
    let id = device_id(&id)?;
    find(&app, &caller, &id).await?;
    let reason = checked(&order.reason)?;
    let now = clock::now();
    let mut change = app.store.begin().await?;
    if !change.revoke_device(&id, reason, now).await? {
        let detail = format!("device {id} is revoked already");
        return Err(ApiError::new(StatusCode::CONFLICT, "device.revoked", detail));
    }
    let deed = Deed {
        actor: caller.name(),
        action: "device.revoke",
        subject: id.as_str(),
        reason: Some(reason),
        detail: "",
    };
    change.audit(&deed, now).await?;
    change.commit().await?;
    app.signals.revoke(id.clone());
    app.signals.orders().notify_one();
    app.hub.touch_device(id.clone());
    let device = app.store.device(&id, app.patience.presence(now)).await?;
    device.map(Json).ok_or_else(|| unknown(&id))
}

/// Deletes what a device has sent: profile windows, its part of all hours and days, events, heartbeats, predictions that
/// it kept for people to look at, and those of batches. The device stays, and so does what the audit log says of it.
#[utoipa::path(post, path = "/api/v1/devices/{id}/forget", tag = "devices",
    params(("id" = String, Path, description = "The device")), request_body = DeviceForget,
    responses((status = 200, body = DeviceForgotten), (status = 404, body = Problem),
        (status = 422, body = Problem)))]
async fn forget(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Json(order): Json<DeviceForget>,
) -> Result<Json<DeviceForgotten>, ApiError> {
    let id = device_id(&id)?;
    find(&app, &caller, &id).await?;
    let reason = checked(&order.reason)?;
    let now = clock::now();
    let mut change = app.store.begin().await?;
    let Forgotten { rows, spans } = app.history.forget(&mut change, &id).await?;
    let samples = change.forget_samples(&id).await?;
    let batches = change.forget_batch_results(&id, now).await?;
    let deed = Deed {
        actor: caller.name(),
        action: "device.forget",
        subject: id.as_str(),
        reason: Some(reason),
        detail: &format!(
            "{} windows, {spans} spans, {} events, {samples} samples, {batches} batches",
            rows.windows, rows.events
        ),
    };
    change.audit(&deed, now).await?;
    change.commit().await?;
    app.signals.profiles().notify_one();
    app.hub.touch_device(id);
    let spans = u64::try_from(spans).unwrap_or(u64::MAX);
    let (windows, events) = (rows.windows, rows.events);
    Ok(Json(DeviceForgotten { windows, spans, events, samples, batches }))
}

/// A reason without the space around it.
fn checked(reason: &str) -> Result<&str, ApiError> {
    let reason = reason.trim();
    if reason.is_empty() || reason.chars().count() > REASON_CHARS_MAX {
        return Err(ApiError::invalid("reason.invalid", "a reason has 1 to 400 characters"));
    }
    Ok(reason)
}

/// A device that is there for the caller.
async fn find(app: &App, caller: &Caller, id: &DeviceId) -> Result<DeviceView, ApiError> {
    let presence = app.patience.presence(clock::now());
    reach::device(app, caller, id, presence).await?.ok_or_else(|| unknown(id))
}

/// Rule: nobody puts a device out of their scope, and with it out of the sight of those who gave it to them.
fn stays_in_reach(
    caller: &Caller,
    device: DeviceView,
    change: &LabelsChange,
) -> Result<(), ApiError> {
    let mut labels = device.labels;
    for (name, value) in &change.labels {
        match value {
            Some(value) => labels.insert(name.clone(), value.clone()),
            None => labels.remove(name),
        };
    }
    if caller.reach().has(&labels) {
        return Ok(());
    }
    let detail =
        format!("with these labels {} would be beyond your scope `{}`", device.id, caller.reach());
    Err(ApiError::beyond_scope(detail))
}

fn device_id(text: &str) -> Result<DeviceId, ApiError> {
    DeviceId::parse(text)
        .map_err(|error| ApiError::not_found("device.not-found", error.to_string()))
}

fn unknown(id: &DeviceId) -> ApiError {
    ApiError::not_found("device.not-found", format!("there is no device {id}"))
}

fn check_labels(change: &LabelsChange) -> Result<(), ApiError> {
    /// Stands for the value of a label that is removed.
    const ANY_VALUE: &str = "x";
    let is_label = |(name, value): (&String, &Option<String>)| {
        filter::is_label(name, value.as_deref().unwrap_or(ANY_VALUE))
    };
    if change.labels.iter().all(is_label) {
        return Ok(());
    }
    Err(ApiError::invalid("labels.invalid", filter::LABEL_RULE))
}
