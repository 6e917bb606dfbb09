//! `/api/v1/devices/{id}/{infer,logs,diagnose}`: what a device is asked, and says at once.

mod batches;
mod results;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use sealift_protocol::api::{DeviceView, InferView, LogsNew, Problem};
use sealift_protocol::id::{DeviceId, ModelName, UnixMillis, Version};
use sealift_protocol::limits::{INPUT_BYTES_MAX, LOG_LINES_MAX};
use sealift_protocol::request::{
    Ask, Diagnosis, Infer, Inferred, Input, LogTail, Logs, Outcome, Refused,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Caller;
use super::error::ApiError;
use crate::clock;
use crate::ingest::plain;
use crate::question::{Asker, NoAnswer, Questions};
use crate::reconcile::Patience;
use crate::results::Results;

/// Lines of a log tail where nobody says how many.
const LINES_DEFAULT: u32 = 200;

/// Characters of a text in an answer that is shown.
const TEXT_CHARS_MAX: usize = 500;

/// Characters of a media type; the longest there is has some 70.
const CONTENT_TYPE_CHARS_MAX: usize = 100;

/// Characters of an `Idempotency-Key`.
const KEY_CHARS_MAX: usize = 80;

/// What the routes need.
#[derive(Clone)]
pub(crate) struct Devices {
    /// Asks.
    pub(crate) questions: Questions,
    /// Times.
    pub(crate) patience: Patience,
    /// What devices bring up.
    pub(crate) results: Results,
}

pub(crate) fn router(devices: Devices) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(infer))
        .routes(routes!(logs))
        .routes(routes!(diagnose))
        .merge(batches::router())
        .merge(results::router())
        .layer(DefaultBodyLimit::max(INPUT_BYTES_MAX))
        .with_state(devices)
}

/// Which model answers.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct InferQuery {
    /// `team/name`.
    #[param(value_type = String)]
    model: ModelName,
    /// Only this version; whichever is served if not given.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    version: Option<Version>,
}

/// Asks a model on a device, as an application there would: a body of the Open Inference Protocol v2, in JSON or with binary data after
/// it (`Inference-Header-Content-Length`), or an image. It counts for no profile, no error rate and no latency.
#[utoipa::path(post, path = "/api/v1/devices/{id}/infer", tag = "devices",
    params(("id" = String, Path, description = "The device"), InferQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "Asked twice by one name, the device is asked once")),
    request_body(content = Object, description = "The body of a request to the model"),
    responses((status = 200, body = InferView), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem),
        (status = 429, body = Problem), (status = 504, body = Problem)))]
async fn infer(
    State(devices): State<Devices>,
    caller: Caller,
    at: (Path<String>, Query<InferQuery>),
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<InferView>, ApiError> {
    let (Path(id), Query(InferQuery { model, version })) = at;
    let ask = Ask::Infer(Infer {
        model,
        version,
        input: Input::of(&body),
        content_type: content_type(&headers)?,
        header_bytes: header_bytes(&headers)?,
    });
    let begin = clock::now();
    let outcome = ask_device(&devices, &caller, &id, &headers, (ask, &body)).await?;
    let Outcome::Inferred(inferred) = outcome else { return Err(nonsense(&id)) };
    inferred_view(inferred, begin).map(Json)
}

/// Reads the newest lines of the agent's log, oldest first. Its owner must let others do that.
#[utoipa::path(post, path = "/api/v1/devices/{id}/logs", tag = "devices",
    params(("id" = String, Path, description = "The device")), request_body = LogsNew,
    responses((status = 200, body = LogTail), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 429, body = Problem), (status = 504, body = Problem)))]
async fn logs(
    State(devices): State<Devices>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(wanted): Json<LogsNew>,
) -> Result<Json<LogTail>, ApiError> {
    let LogsNew { lines, since, level } = wanted;
    let lines = lines.unwrap_or(LINES_DEFAULT);
    if !(1..=LOG_LINES_MAX).contains(&lines) {
        let detail = format!("a log tail has 1 to {LOG_LINES_MAX} lines");
        return Err(ApiError::invalid("logs.lines", detail));
    }
    let ask = Ask::Logs(Logs { lines, since, level: level.unwrap_or_default() });
    let outcome = ask_device(&devices, &caller, &id, &headers, (ask, &[])).await?;
    let Outcome::Logs(tail) = outcome else { return Err(nonsense(&id)) };
    tame(&tail).map(Json)
}

/// Asks a device how it does, from the inside.
#[utoipa::path(post, path = "/api/v1/devices/{id}/diagnose", tag = "devices",
    params(("id" = String, Path, description = "The device")),
    responses((status = 200, body = Diagnosis), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 429, body = Problem), (status = 504, body = Problem)))]
async fn diagnose(
    State(devices): State<Devices>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Diagnosis>, ApiError> {
    let outcome = ask_device(&devices, &caller, &id, &headers, (Ask::Diagnose, &[])).await?;
    let Outcome::Diagnosed(diagnosis) = outcome else { return Err(nonsense(&id)) };
    tame(&*diagnosis).map(Json)
}

async fn ask_device(
    devices: &Devices,
    caller: &Caller,
    id: &str,
    headers: &HeaderMap,
    question: (Ask, &[u8]),
) -> Result<Outcome, ApiError> {
    let now = clock::now();
    let device = find(devices, caller, id, now).await?;
    let asker = Asker { name: caller.name(), idempotency: idempotency(headers)? };
    let outcome = devices.questions.ask(asker, &device, question, now).await?;
    if let Outcome::Refused(refused) = &outcome {
        return Err(refusal(refused));
    }
    Ok(outcome)
}

/// A device that is there for the caller.
async fn find(
    devices: &Devices,
    caller: &Caller,
    id: &str,
    now: UnixMillis,
) -> Result<DeviceView, ApiError> {
    let unknown = |text: String| ApiError::not_found("device.not-found", text);
    let id = DeviceId::parse(id).map_err(|error| unknown(error.to_string()))?;
    let presence = devices.patience.presence(now);
    let device = devices.questions.store().device(&id, presence).await?;
    let device = device.filter(|device| caller.reach().has(&device.labels));
    device.ok_or_else(|| unknown(format!("there is no device {id}")))
}

fn inferred_view(inferred: Inferred, begin: UnixMillis) -> Result<InferView, ApiError> {
    let Inferred { model, image, latency_us, body } = inferred;
    let answer = String::from_utf8(body).ok().and_then(|text| RawValue::from_string(text).ok());
    let answer = answer.ok_or_else(|| {
        let detail = "the device has sent an answer that is no JSON";
        ApiError::new(StatusCode::BAD_GATEWAY, "device.nonsense", detail)
    })?;
    let took_ms = u64::try_from(clock::now().since(begin)).unwrap_or(0);
    let (version, digest) = (image.version, image.index);
    Ok(InferView { model, version, digest, latency_us, took_ms, answer })
}

fn content_type(headers: &HeaderMap) -> Result<String, ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok("application/json".to_owned());
    };
    let text = value.to_str().ok().filter(|text| text.len() <= CONTENT_TYPE_CHARS_MAX);
    let invalid = || ApiError::invalid("infer.content-type", "the media type makes no sense");
    text.map(str::to_owned).ok_or_else(invalid)
}

fn header_bytes(headers: &HeaderMap) -> Result<Option<u32>, ApiError> {
    let Some(value) = headers.get("inference-header-content-length") else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    let invalid = || {
        let detail = "Inference-Header-Content-Length is not a length";
        ApiError::invalid("infer.header-length", detail)
    };
    length.map(Some).ok_or_else(invalid)
}

fn idempotency(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=KEY_CHARS_MAX).contains(&key.len()));
    let invalid = || {
        let detail = format!("an Idempotency-Key has 1 to {KEY_CHARS_MAX} characters of ASCII");
        ApiError::invalid("idempotency.invalid", detail)
    };
    key.map(Some).ok_or_else(invalid)
}

/// Makes every text of a device's answer plain: control characters could forge lines in a terminal or a log.
fn tame<T: Serialize + DeserializeOwned>(value: &T) -> Result<T, ApiError> {
    fn walk(value: &mut Value) {
        match value {
            Value::String(text) => *text = plain(text, TEXT_CHARS_MAX),
            Value::Array(items) => items.iter_mut().for_each(walk),
            Value::Object(fields) => fields.values_mut().for_each(walk),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut tamed = serde_json::to_value(value).map_err(ApiError::internal)?;
    walk(&mut tamed);
    serde_json::from_value(tamed).map_err(ApiError::internal)
}

/// What a device refuses with; one that says something else is not quoted as a code.
const CODES: [&str; 23] = [
    "request.forbidden",
    "request.busy",
    "request.not-kept",
    "request.window",
    "request.input",
    "request.upload",
    "request.answer-too-large",
    "infer.not-served",
    "infer.version",
    "infer.withdrawn",
    "infer.failed",
    "infer.worker-gone",
    "infer.late",
    "infer.ended",
    "infer.no-json",
    "infer.input",
    "batch.path",
    "batch.name",
    "batch.not-found",
    "batch.too-many",
    "batch.not-kept",
    "batch.start",
    "batch.ended",
];

fn refusal(refused: &Refused) -> ApiError {
    let code = CODES.iter().find(|code| **code == refused.code).copied();
    let (code, reason) = (code.unwrap_or("device.refused"), plain(&refused.reason, TEXT_CHARS_MAX));
    // 401 and the server's own faults are the server's to tell.
    let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let status = match status {
        StatusCode::UNAUTHORIZED | StatusCode::INTERNAL_SERVER_ERROR => StatusCode::BAD_GATEWAY,
        status => status,
    };
    ApiError::new(status, code, format!("the device says: {reason}"))
}

fn nonsense(id: &str) -> ApiError {
    let detail = format!("device {id} has answered something else than was asked");
    ApiError::new(StatusCode::BAD_GATEWAY, "device.nonsense", detail)
}

impl From<NoAnswer> for ApiError {
    fn from(error: NoAnswer) -> Self {
        let text = error.to_string();
        let conflict = |code| Self::new(StatusCode::CONFLICT, code, text.clone());
        match error {
            NoAnswer::Offline(_) => {
                conflict("device.offline").help("`fleetctl device get` says when it was last seen")
            }
            NoAnswer::Revoked(_) => conflict("device.revoked"),
            NoAnswer::Silent(_) => Self::new(StatusCode::GATEWAY_TIMEOUT, "device.silent", text)
                .help("its timeline says whether the question came to it; ask again"),
            NoAnswer::Busy(_) => Self::new(StatusCode::TOO_MANY_REQUESTS, "request.busy", text)
                .help("wait some seconds, then try again"),
            NoAnswer::Idempotency => Self::invalid("idempotency.mismatch", text),
            NoAnswer::Invalid(..) => Self::new(StatusCode::BAD_GATEWAY, "device.nonsense", text),
            NoAnswer::Broker(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "broker.unavailable", text)
                    .help("the server's log says what the broker does not do")
            }
            NoAnswer::Store(error) => error.into(),
            NoAnswer::Made(error) => Self::internal(error),
        }
    }
}
