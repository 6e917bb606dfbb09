//! `/api/v1/batches`: what devices have brought up of their batches' predictions.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use sealift_protocol::api::{BatchResultState, BatchResultView, Page, Problem};
use sealift_protocol::id::{DeviceId, UnixMillis};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::page::{PageQuery, page};
use super::super::ranges::{self, NotServed};
use super::{ApiError, Caller, Devices, find};
use crate::clock;
use crate::results::ResultError;
use crate::store::batch_results::{ResultRow, Which, Whole};

pub(super) fn router() -> OpenApiRouter<Devices> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, delete)).routes(routes!(file))
}

impl From<ResultError> for ApiError {
    fn from(error: ResultError) -> Self {
        let text = error.to_string();
        let conflict = |code| Self::new(StatusCode::CONFLICT, code, text.clone());
        match error {
            ResultError::NotAsked(_) => Self::not_found("batch.not-asked", text)
                .help("`fleetctl batch run --upload` has a device bring them up"),
            ResultError::NotHere(_) => conflict("batch.not-here")
                .help("`fleetctl batch show` says how far the device is with it"),
            ResultError::Other(_) => conflict("batch.other").help(
                "give the batch another name, or delete those that are here: `fleetctl batch delete`",
            ),
            ResultError::Quota { .. } => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "batch.quota", text).help(
                    "`fleetctl batch delete` makes room; `retention.batch_team_mb` is the limit",
                )
            }
            ResultError::Busy => Self::new(StatusCode::TOO_MANY_REQUESTS, "batch.busy", text)
                .help("the device tries again by itself"),
            ResultError::TooLarge(_) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "batch.too-large", text)
                    .help("split the rows over several batches")
            }
            ResultError::Part(_) => Self::invalid("batch.part", text),
            ResultError::Digest(_) => Self::invalid("batch.digest", text),
            ResultError::Store(error) => error.into(),
            ResultError::Blobs(error) => Self::internal(error),
            ResultError::Random(error) => Self::internal(error),
        }
    }
}

/// Which predictions.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only of batches of this name.
    #[serde(default)]
    name: Option<String>,
    /// Only of this device.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    device: Option<DeviceId>,
}

/// Lists what devices have brought up, or are to, by batch and device. No device is asked for it.
#[utoipa::path(get, path = "/api/v1/batches", tag = "devices", params(ListQuery, PageQuery),
    responses((status = 200, body = Page<BatchResultView>)))]
async fn list(
    State(devices): State<Devices>,
    caller: Caller,
    Query(ListQuery { name, device }): Query<ListQuery>,
    Query(paging): Query<PageQuery>,
) -> Result<Json<Page<BatchResultView>>, ApiError> {
    let (store, limit) = (devices.questions.store(), paging.limit());
    let presence = devices.patience.presence(clock::now());
    let which =
        Which { name: name.as_deref(), device: device.as_ref(), among: caller.reach().filter() };
    let after = paging.cursor.as_deref().and_then(|cursor| cursor.split_once('/'));
    let total = store.count_batch_results(which, presence).await?;
    let rows = store.batch_results(which, presence, after.unwrap_or_default(), limit).await?;
    let views = rows.into_iter().map(view).collect();
    let cursor = |view: &BatchResultView| format!("{}/{}", view.name, view.device);
    Ok(Json(page(views, total, limit, cursor)))
}

/// Says how far a batch's predictions are here.
#[utoipa::path(get, path = "/api/v1/devices/{id}/batches/{name}/result", tag = "devices",
    params(("id" = String, Path, description = "The device"),
        ("name" = String, Path, description = "The batch")),
    responses((status = 200, body = BatchResultView), (status = 404, body = Problem)))]
async fn get(
    State(devices): State<Devices>,
    caller: Caller,
    Path((id, name)): Path<(String, String)>,
) -> Result<Json<BatchResultView>, ApiError> {
    let device = find(&devices, &caller, &id, clock::now()).await?;
    let row = devices.results.find(&device.id, &name).await?;
    Ok(Json(view(row)))
}

/// Deletes a batch's predictions here; what lies on the device stays.
#[utoipa::path(delete, path = "/api/v1/devices/{id}/batches/{name}/result", tag = "devices",
    params(("id" = String, Path, description = "The device"),
        ("name" = String, Path, description = "The batch")),
    responses((status = 204), (status = 404, body = Problem)))]
async fn delete(
    State(devices): State<Devices>,
    caller: Caller,
    Path((id, name)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let now = clock::now();
    let device = find(&devices, &caller, &id, now).await?;
    let row = devices.results.find(&device.id, &name).await?;
    let mut change = devices.questions.store().begin().await?;
    change.remove_batch_result(&device.id, &name, now).await?;
    let detail = format!("batch {name}, {}", told(row.whole));
    let deed = caller.deed("device.batch-delete", device.id.as_str(), &detail);
    change.audit(&deed, now).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The predictions, as one file: whole, or the range that is asked for. The audit log notes who has fetched which.
#[utoipa::path(get, path = "/api/v1/devices/{id}/batches/{name}/file", tag = "devices",
    params(("id" = String, Path, description = "The device"),
        ("name" = String, Path, description = "The batch"),
        ("Range" = Option<String>, Header, description = "`bytes=FIRST-`, to go on with")),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 416, body = Problem)))]
async fn file(
    State(devices): State<Devices>,
    caller: Caller,
    Path((id, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let now = clock::now();
    let device = find(&devices, &caller, &id, now).await?;
    let row = devices.results.find(&device.id, &name).await?;
    let here = row.whole.filter(|_| row.done_at.is_some());
    let whole = here.ok_or_else(|| ResultError::NotHere(name.clone()))?;
    note_fetch(&devices, &caller, (&row, whole), now).await?;
    let blob = (whole.digest.into(), whole.size);
    ranges::serve(devices.results.blobs(), blob, &headers).await.map_err(|error| match error {
        NotServed::Range(size) => {
            let detail = format!("the predictions have {size} bytes");
            ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "batch.range", detail)
        }
        NotServed::Blobs(error) => ApiError::internal(error),
    })
}

async fn note_fetch(
    devices: &Devices,
    caller: &Caller,
    (row, whole): (&ResultRow, Whole),
    now: UnixMillis,
) -> Result<(), ApiError> {
    let subject = format!("{}/{}@{}", row.device, row.run.name, whole.digest);
    let detail = told(Some(whole));
    let mut change = devices.questions.store().begin().await?;
    change.audit_look(&caller.deed("device.batch-fetch", &subject, &detail), now).await?;
    Ok(change.commit().await?)
}

fn told(whole: Option<Whole>) -> String {
    let told = |whole: Whole| format!("{} bytes, {}", whole.size, whole.digest);
    whole.map_or_else(|| "nothing had come".to_owned(), told)
}

fn view(row: ResultRow) -> BatchResultView {
    let bytes = row.bytes();
    let state = match (row.done_at, bytes) {
        (Some(_), _) => BatchResultState::Here,
        (None, 0) => BatchResultState::Awaited,
        (None, _) => BatchResultState::Coming,
    };
    BatchResultView {
        device: row.device,
        name: row.run.name,
        model: row.run.model,
        format: row.run.format,
        state,
        bytes,
        size_bytes: row.whole.map(|whole| whole.size),
        digest: row.whole.map(|whole| whole.digest),
        asked_by: row.asked_by,
        asked_at: row.asked_at,
        done_at: row.done_at,
        delete_at: row.delete_at,
    }
}
