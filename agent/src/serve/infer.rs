//! One inference, whatever protocol it came by: check, ask, ask once more if the worker died, observe.

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use sealift_protocol::tensor::Tensor;
use tokio::time::Instant;

use super::live::Live;
use super::refusal::Refusal;
use super::request::InferRequest;
use super::response::{self, InferResponse};
use super::switchboard::Switchboard;
use crate::worker::InferError;

/// Length of the JSON before binary data, in requests and answers; by the binary tensor extension.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Digest of the OCI index of the image that answered.
const IMAGE: HeaderName = HeaderName::from_static("x-sealift-image");

/// One request's body: a batch of 50 images of 224 x 224 in FP32.
pub(super) const BODY_BYTES_MAX: usize = 32 << 20;

/// Answers a request to `live`.
pub(super) async fn answer(
    board: &Switchboard,
    live: Live,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let body = read(body).await?;
    let request = InferRequest::parse(&body, header_length(headers)?)?;
    drop(body);
    live.contract().check_inputs(&request.inputs)?;
    response::check_wanted(&live, &request.outputs)?;
    let (live, outputs) = ask(board, live, &request.inputs).await?;
    let response = InferResponse::write(&live, &request, &outputs)?;
    Ok(respond(&live, response))
}

/// Asks the model and counts the answer.
async fn ask(
    board: &Switchboard,
    live: Live,
    inputs: &[Tensor],
) -> Result<(Live, Vec<Tensor>), Refusal> {
    let begin = Instant::now();
    let answer = ask_twice(board, live, inputs).await;
    match &answer {
        Ok(_) => board.count(begin.elapsed(), false),
        Err(Refusal::Infer(InferError::Input(_)) | Refusal::Contract(_)) => (), // the sender's fault
        Err(_) => board.count(begin.elapsed(), true),
    }
    answer
}

/// A request whose worker dies is tried once on what replaces it, so that a crash is no outage. Never more often: the request may be
/// what kills workers.
async fn ask_twice(
    board: &Switchboard,
    live: Live,
    inputs: &[Tensor],
) -> Result<(Live, Vec<Tensor>), Refusal> {
    let gone = match live.infer(inputs).await {
        Ok(outputs) => return Ok((live, outputs)),
        Err(InferError::WorkerGone { reason }) => InferError::WorkerGone { reason },
        Err(error) => return Err(error.into()),
    };
    let live = board.replacement(&live).await.ok_or(gone)?;
    live.contract().check_inputs(inputs)?;
    let outputs = live.infer(inputs).await?;
    Ok((live, outputs))
}

/// Reads a body that is not larger than allowed; one that announces more is not begun.
async fn read(body: Body) -> Result<Vec<u8>, Refusal> {
    let too_large = || Refusal::TooLarge(BODY_BYTES_MAX);
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Refusal::Body)?;
        if bytes.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn header_length(headers: &HeaderMap) -> Result<Option<usize>, Refusal> {
    let Some(value) = headers.get(HEADER_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|value| value.parse().ok());
    let refused = || Refusal::Header {
        name: "Inference-Header-Content-Length",
        value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
    };
    length.map(Some).ok_or_else(refused)
}

fn respond(live: &Live, response: InferResponse) -> Response {
    let InferResponse { body, header_bytes } = response;
    let content_type =
        if header_bytes.is_some() { "application/octet-stream" } else { "application/json" };
    let mut response = Body::from(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(header_bytes) = header_bytes {
        headers.insert(HEADER_LENGTH, HeaderValue::from(header_bytes));
    }
    if let Ok(digest) = HeaderValue::try_from(live.image().index.to_string()) {
        headers.insert(IMAGE, digest);
    }
    response
}
