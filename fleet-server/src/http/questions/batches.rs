//! `/api/v1/devices/{id}/batches`: rows that lie on a device, through a model that it serves.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use sealift_protocol::api::Problem;
use sealift_protocol::id::{DeviceId, UnixMillis};
use sealift_protocol::request::{Ask, Batch, BatchJob, BatchRun, BatchState, Outcome};
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
    match left_out(&job.run, &run) {
        None => Ok(Json(job)),
        Some(what) => {
            Err(ApiError::new(StatusCode::CONFLICT, "batch.agent", what).help("update the agent"))
        }
    }
}

/// What an agent of before leaves out of what is asked.
fn left_out(taken: &BatchRun, asked: &BatchRun) -> Option<&'static str> {
    if (taken.format, taken.upload) != (asked.format, asked.upload) {
        return Some(
            "the device's agent knows neither --format nor --upload: the batch runs, and its \
             predictions stay on the device as lines of JSON",
        );
    }
    (taken.array != asked.array).then_some(
        "the device's agent does not know --array: the batch runs if the archive has one array, \
         whichever that is",
    )
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
                let here = results.find(device, name).await?.run;
                let fate = Fate::of(jobs.first(), run, (&here, is_new));
                match fate {
                    Fate::Comes => {}
                    Fate::ComesAnew => results.expect_anew(device, run, asked).await?,
                    Fate::NeverComes | Fate::CameBefore => {
                        results.remove(device, name, now).await?;
                    }
                }
                if fate == Fate::CameBefore {
                    return Err(over(name));
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

/// What becomes of predictions that were asked for, by what the device has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// They come, or are here.
    Comes,
    /// They come, in place of what another batch of the name has brought.
    ComesAnew,
    /// The device does not bring them.
    NeverComes,
    /// The device brought them up once, and they were deleted here since: it does not begin again.
    CameBefore,
}

impl Fate {
    fn of(job: Option<&BatchJob>, run: &BatchRun, (here, is_new): (&BatchRun, bool)) -> Self {
        let Some(job) = job.filter(|job| job.run == *run) else { return Self::NeverComes };
        match job.state {
            BatchState::Done if is_new => Self::CameBefore,
            BatchState::Failed | BatchState::Cancelled if is_new => Self::NeverComes,
            BatchState::Waiting
            | BatchState::Running
            | BatchState::Done
            | BatchState::Failed
            | BatchState::Cancelled => {
                if here == run {
                    Self::Comes
                } else {
                    Self::ComesAnew
                }
            }
        }
    }
}

fn over(name: &str) -> ApiError {
    let detail = format!("the device has ended batch `{name}` before, and brings nothing up again");
    let help = "ask under another name with the same directory: no row is answered again";
    ApiError::new(StatusCode::CONFLICT, "batch.over", detail).help(help)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn run(output: &str) -> BatchRun {
        let run = serde_json::json!({"name": "night", "model": "vision/digits", "input": "/data/rows.csv",
            "output": output, "rows": 256, "upload": true});
        serde_json::from_value(run).unwrap()
    }

    fn job(run: &BatchRun, state: BatchState) -> BatchJob {
        let job = serde_json::json!({"run": run, "by": "ann", "state": state, "answered": 0, "parts": 0,
            "failures": 0, "reason": "", "asked_at": 0, "changed_at": 0});
        serde_json::from_value(job).unwrap()
    }

    #[test]
    fn what_an_agent_of_before_leaves_out_is_told() {
        let asked = BatchRun { array: Some("rows".to_owned()), ..run("/data/a") };
        let told = |taken: &BatchRun| left_out(taken, &asked).unwrap_or_default();
        assert_eq!(told(&asked), "");
        assert!(told(&run("/data/a")).contains("--array"));
        assert!(told(&BatchRun { upload: false, ..run("/data/a") }).contains("--upload"));
    }

    #[test]
    fn what_the_device_says_decides_whether_predictions_are_awaited() {
        let (asked, other) = (run("/data/a"), run("/data/b"));
        let fate = |state, here: &BatchRun, is_new| {
            Fate::of(Some(&job(&asked, state)), &asked, (here, is_new))
        };
        assert_eq!(fate(BatchState::Waiting, &asked, true), Fate::Comes);
        assert_eq!(fate(BatchState::Done, &asked, false), Fate::Comes, "they are here");
        assert_eq!(fate(BatchState::Waiting, &other, false), Fate::ComesAnew);
        assert_eq!(fate(BatchState::Done, &asked, true), Fate::CameBefore);
        assert_eq!(fate(BatchState::Failed, &asked, true), Fate::NeverComes);
        let refused = Fate::of(Some(&job(&other, BatchState::Waiting)), &asked, (&asked, true));
        assert_eq!(
            (refused, Fate::of(None, &asked, (&asked, true))),
            (Fate::NeverComes, Fate::NeverComes)
        );
    }
}
