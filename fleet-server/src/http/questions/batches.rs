//! `/api/v1/devices/{id}/batches`: rows that lie on a device, through a model that it serves.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use sealift_protocol::api::Problem;
use sealift_protocol::id::{DeviceId, UnixMillis};
use sealift_protocol::request::{Ask, Batch, BatchJob, BatchRun, Outcome};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{ApiError, Caller, Devices, ask_device, find, nonsense, tame};
use crate::clock;
use crate::results::Results;

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
    check(&Batch::Run(run.clone()))?;
    let (device, now) = (find(&devices, &caller, &id, clock::now()).await?.id, clock::now());
    let expected = Expected::new(&devices, (&device, &run), (caller.name(), now)).await?;
    let asked = jobs(&devices, &caller, &id, (&headers, Batch::Run(run.clone()))).await;
    expected.settle(&asked).await?;
    let job = asked?.into_iter().next().ok_or_else(|| nonsense(&id))?;
    if (job.run.format, job.run.upload) == (run.format, run.upload) {
        return Ok(Json(job));
    }
    let detail = "the device's agent knows neither --format nor --upload: the batch runs, and its \
                  predictions stay on the device as lines of JSON";
    Err(ApiError::new(StatusCode::CONFLICT, "batch.agent", detail).help("update the agent"))
}

/// Predictions that are about to be asked for: a device may be quicker with them than its answer.
struct Expected<'a> {
    results: &'a Results,
    device: &'a DeviceId,
    run: &'a BatchRun,
    asked: (&'a str, UnixMillis),
    is_new: bool,
}

impl<'a> Expected<'a> {
    async fn new(
        devices: &'a Devices,
        (device, run): (&'a DeviceId, &'a BatchRun),
        asked: (&'a str, UnixMillis),
    ) -> Result<Self, ApiError> {
        let results = &devices.results;
        let is_new = run.upload && results.expect(device, run, asked).await?;
        Ok(Self { results, device, run, asked, is_new })
    }

    /// Goes by what the device has said: what it refuses never comes, and what it has begun anew takes the place of what was here.
    async fn settle(self, answered: &Result<Vec<BatchJob>, ApiError>) -> Result<(), ApiError> {
        let Self { results, device, run, asked, is_new } = self;
        let (name, now) = (&run.name, asked.1);
        match answered {
            Ok(jobs) if run.upload => {
                let is_taken = jobs.first().is_some_and(|job| job.run == *run);
                let is_other = results.find(device, name).await?.run != *run;
                if !is_taken || is_other {
                    results.remove(device, name, now).await?;
                }
                if is_taken && is_other {
                    results.expect(device, run, asked).await?;
                }
            }
            // A silent device may have begun.
            Err(error) if is_new && error.code() != "device.silent" => {
                results.remove(device, name, now).await?;
            }
            Ok(_) | Err(_) => {}
        }
        Ok(())
    }
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
    let job = jobs.into_iter().next().ok_or_else(|| nonsense(&id))?;
    devices.results.give_up(&find(&devices, &caller, &id, clock::now()).await?.id, &job).await?;
    Ok(Json(job))
}

async fn jobs(
    devices: &Devices,
    caller: &Caller,
    id: &str,
    (headers, batch): (&HeaderMap, Batch),
) -> Result<Vec<BatchJob>, ApiError> {
    check(&batch)?;
    let outcome = ask_device(devices, caller, id, headers, (Ask::Batch(batch), &[])).await?;
    let Outcome::Batches(jobs) = outcome else { return Err(nonsense(id)) };
    jobs.iter().map(tame).collect()
}

fn check(batch: &Batch) -> Result<(), ApiError> {
    batch.check().map_err(|what| ApiError::invalid("batch.form", format!("this is {what}")))
}
