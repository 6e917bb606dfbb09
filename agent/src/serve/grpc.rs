//! Open Inference Protocol v2 over gRPC: `inference.GRPCInferenceService`, unary calls on the port of HTTP.
//!
//! "gRPC over HTTP2": a message is a byte for its compression, a 4-byte big-endian length, and so many bytes; how a call went is in the
//! trailers.

mod message;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt::Write;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http_body_util::{BodyExt, Full};
use sealift_protocol::tensor::{Datatype, InvalidTensor, Tensor};
use tokio::time::timeout;

use super::challenger::Split;
use super::endpoint::{Asked, Endpoint, REQUEST_MAX};
use super::live::Live;
use super::refusal::Refusal;
use super::response::NoResponse;
use super::{body, infer as http_infer};
use message::{InferCall, Named};
use wire::Malformed;

/// Bytes before a message: how it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// Why a call is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidCall {
    #[error("content-type is not application/grpc")]
    ContentType,
    #[error("method `{0}` is not served")]
    Method(String),
    #[error("messages are taken uncompressed only")]
    Compressed,
    #[error("a call is one message: {announced} bytes announced, {given} given")]
    Length { announced: usize, given: usize },
    #[error("not a message: {0}")]
    Message(#[from] Malformed),
    #[error("{0}")]
    Tensor(#[from] InvalidTensor),
    #[error("input `{name}`: `{given}` is not a datatype")]
    Datatype { name: String, given: String },
    #[error("input `{name}`: shape {given:?} has a negative length")]
    Shape { name: String, given: Vec<i64> },
    #[error("input `{name}`: contents are not those of {datatype}")]
    Contents { name: String, datatype: Datatype },
    #[error("input `{name}`: a value is out of the range of {datatype}")]
    Range { name: String, datatype: Datatype },
    #[error("input `{name}` has both contents and raw contents")]
    TwiceData { name: String },
    #[error("{given} raw contents for {expected} inputs")]
    RawCount { given: usize, expected: usize },
}

impl InvalidCall {
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Method(_) | Self::Compressed => StatusCode::NOT_IMPLEMENTED,
            Self::Length { .. }
            | Self::Message(_)
            | Self::Tensor(_)
            | Self::Datatype { .. }
            | Self::Shape { .. }
            | Self::Contents { .. }
            | Self::Range { .. }
            | Self::TwiceData { .. }
            | Self::RawCount { .. } => StatusCode::BAD_REQUEST,
        }
    }
}

/// Routes of the service.
pub(super) fn router() -> Router<Endpoint> {
    Router::new().route("/inference.GRPCInferenceService/{method}", post(call))
}

async fn call(
    State(endpoint): State<Endpoint>,
    Path(method): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if !content_type.is_some_and(|content_type| content_type.starts_with(b"application/grpc")) {
        return Refusal::from(InvalidCall::ContentType).into_response();
    }
    let deadline = headers.get("grpc-timeout").and_then(|value| duration(value.to_str().ok()?));
    let limit = deadline.map_or(REQUEST_MAX, |deadline| deadline.min(REQUEST_MAX));
    let answered = timeout(limit, answer(&endpoint, &method, (&headers, body))).await;
    match answered.unwrap_or(Err(Refusal::TooLate(limit))) {
        Ok(message) => succeed(message),
        Err(refusal) => refuse(&refusal),
    }
}

/// The message that answers a call.
async fn answer(
    endpoint: &Endpoint,
    method: &str,
    (metadata, body): (&HeaderMap, Body),
) -> Result<Vec<u8>, Refusal> {
    let (body, _admitted) = body::read(endpoint, body).await?;
    let message = unframe(&body)?;
    let all = || endpoint.board.all();
    Ok(match method {
        "ModelInfer" => infer(endpoint, InferCall::read(message)?, metadata).await?,
        "ServerLive" => message::flag(true),
        "ServerReady" => message::flag(!all().is_empty()),
        "ModelReady" => message::flag(find(endpoint, &Named::read(message)?).is_ok()),
        "ServerMetadata" => message::server(),
        "ModelMetadata" => message::metadata(&find(endpoint, &Named::read(message)?)?),
        "RepositoryIndex" => message::index(&all()),
        "RepositoryModelLoad" | "RepositoryModelUnload" => return Err(Refusal::Managed),
        other => return Err(InvalidCall::Method(other.chars().take(40).collect()).into()),
    })
}

fn find(endpoint: &Endpoint, named: &Named) -> Result<Live, Refusal> {
    endpoint.find(&named.name, Some(&named.version))
}

async fn infer(
    endpoint: &Endpoint,
    call: InferCall,
    metadata: &HeaderMap,
) -> Result<Vec<u8>, Refusal> {
    let live = find(endpoint, &call.model)?;
    let unknown = call.outputs.iter().find(|name| !has_output(&live, name));
    if let Some(name) = unknown {
        return Err(NoResponse::unknown_output(&live, name).into());
    }
    let split = match &call.key {
        _ if !call.model.version.is_empty() => Split::Never,
        Some(key) => Split::Key(key.as_bytes()),
        None => http_infer::split_by(metadata),
    };
    let inference = endpoint.name(Some(&call.id));
    let (inputs, deadline) = (call.inputs.as_slice(), call.timeout);
    let asked = Asked { inference: &inference, inputs, deadline, split };
    let (live, outputs) = endpoint.ask(live, asked).await?;
    let wanted = |tensor: &&Tensor| call.outputs.is_empty() || call.outputs.contains(&tensor.name);
    let outputs: Vec<_> = outputs.iter().filter(wanted).collect();
    let id = if call.id.is_empty() { inference.as_str() } else { &call.id };
    Ok(message::outputs(&live, id, &outputs))
}

fn has_output(live: &Live, name: &str) -> bool {
    live.contract().outputs.iter().any(|spec| spec.name == name)
}

/// Takes the one message out of its frame.
fn unframe(body: &[u8]) -> Result<&[u8], InvalidCall> {
    let given = body.len();
    let cut_off = InvalidCall::Length { announced: PREFIX_BYTES, given };
    let (&[compression, length @ ..], message) =
        body.split_first_chunk::<PREFIX_BYTES>().ok_or(cut_off)?;
    if compression != 0 {
        return Err(InvalidCall::Compressed);
    }
    let announced = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    let given = message.len();
    if announced == given { Ok(message) } else { Err(InvalidCall::Length { announced, given }) }
}

/// "Timeout": at most 8 digits, and a unit.
fn duration(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| is_number)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

fn succeed(message: Vec<u8>) -> Response {
    let mut framed = Vec::with_capacity(PREFIX_BYTES + message.len());
    framed.push(0);
    // An answer that is longer would not have come out of the worker, whose frames end before.
    framed.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend(message);
    let trailers = HeaderMap::from_iter([(STATUS, HeaderValue::from_static("0"))]);
    let body = Full::from(framed).with_trailers(std::future::ready(Some(Ok(trailers))));
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::new(body)).into_response()
}

const STATUS: header::HeaderName = header::HeaderName::from_static("grpc-status");
const MESSAGE: header::HeaderName = header::HeaderName::from_static("grpc-message");

/// "Trailers-Only": a call that failed at once has its status among the headers.
fn refuse(refusal: &Refusal) -> Response {
    let headers = [
        (header::CONTENT_TYPE, CONTENT_TYPE),
        (STATUS, HeaderValue::from(code(refusal.status()))),
        (MESSAGE, percent_encoded(&refusal.to_string())),
    ];
    (headers, Body::empty()).into_response()
}

/// Codes of gRPC ("Status codes and their use") for what HTTP says the same by.
fn code(status: StatusCode) -> u16 {
    match status {
        StatusCode::BAD_REQUEST => 3,     // INVALID_ARGUMENT
        StatusCode::GATEWAY_TIMEOUT => 4, // DEADLINE_EXCEEDED
        StatusCode::NOT_FOUND => 5,       // NOT_FOUND
        StatusCode::FORBIDDEN => 7,       // PERMISSION_DENIED
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => 8, // RESOURCE_EXHAUSTED
        StatusCode::NOT_IMPLEMENTED => 12, // UNIMPLEMENTED
        StatusCode::SERVICE_UNAVAILABLE => 14, // UNAVAILABLE
        _ => 13,                          // INTERNAL
    }
}

/// "Status-Message": printable ASCII but for the per cent sign; every other byte as `%XX`.
fn percent_encoded(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            let _written = write!(encoded, "%{byte:02X}");
        }
    }
    HeaderValue::try_from(encoded).unwrap_or(HeaderValue::from_static("refused"))
}
