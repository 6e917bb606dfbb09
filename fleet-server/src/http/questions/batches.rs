//! `/api/v1/devices/{id}/batches`: rows that lie on a device, through a model that it serves.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use sealift_protocol::api::Problem;
use sealift_protocol::request::{Ask, Batch, BatchJob, BatchRun, Outcome};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{ApiError, Caller, Devices, ask_device, nonsense, tame};

pub(super) fn router() -> OpenApiRouter<Devices> {
    OpenApiRouter::new().routes(routes!(list, run)).routes(routes!(cancel))
}

/// How all batches of a device stand, the newest last.
#[utoipa::path(get, path = "/api/v1/devices/{id}/batches", tag = "devices",
    params(("id" = String, Path, description = "The device")),
    responses((status = 200, body = Vec<BatchJob>), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 429, body = Problem), (status = 504, body = Problem)))]
async fn list(
    State(devices): State<Devices>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Vec<BatchJob>>, ApiError> {
    jobs(&devices, &caller, &id, (&headers, Batch::List)).await.map(Json)
}

/// Has a device answer the rows of a file that lies on it, in a directory that its owner has opened. Asked for twice by one name, it is
/// begun once. The device goes on with it after a restart.
#[utoipa::path(post, path = "/api/v1/devices/{id}/batches", tag = "devices",
    params(("id" = String, Path, description = "The device")), request_body = BatchRun,
    responses((status = 200, body = BatchJob), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem), (status = 429, body = Problem),
        (status = 504, body = Problem)))]
async fn run(
    State(devices): State<Devices>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(run): Json<BatchRun>,
) -> Result<Json<BatchJob>, ApiError> {
    let jobs = jobs(&devices, &caller, &id, (&headers, Batch::Run(run))).await?;
    jobs.into_iter().next().map(Json).ok_or_else(|| nonsense(&id))
}

/// Ends a batch; what it has written stays.
#[utoipa::path(delete, path = "/api/v1/devices/{id}/batches/{name}", tag = "devices",
    params(("id" = String, Path, description = "The device"),
        ("name" = String, Path, description = "The batch")),
    responses((status = 200, body = BatchJob), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 429, body = Problem), (status = 504, body = Problem)))]
async fn cancel(
    State(devices): State<Devices>,
    caller: Caller,
    Path((id, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<BatchJob>, ApiError> {
    let jobs = jobs(&devices, &caller, &id, (&headers, Batch::Cancel(name))).await?;
    jobs.into_iter().next().map(Json).ok_or_else(|| nonsense(&id))
}

async fn jobs(
    devices: &Devices,
    caller: &Caller,
    id: &str,
    (headers, batch): (&HeaderMap, Batch),
) -> Result<Vec<BatchJob>, ApiError> {
    batch.check().map_err(|what| ApiError::invalid("batch.form", format!("this is {what}")))?;
    let outcome = ask_device(devices, caller, id, headers, (Ask::Batch(batch), &[])).await?;
    let Outcome::Batches(jobs) = outcome else { return Err(nonsense(id)) };
    jobs.iter().map(tame).collect()
}
