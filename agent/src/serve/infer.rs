//! An inference by the Open Inference Protocol v2 over HTTP.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use sealift_protocol::capture::InferenceId;

use super::body;
use super::challenger::Split;
use super::endpoint::{Asked, Endpoint};
use super::live::Live;
use super::refusal::Refusal;
use super::request::{self, InferRequest};
use super::response::{self, InferResponse};

/// Length of the JSON before binary data, in requests and answers; by the binary tensor extension.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// By what an application that is asked to answer twice wants the same image to answer both times.
const KEY: HeaderName = HeaderName::from_static("sealift-key");

/// Digest of the OCI index of the image that answered.
const IMAGE: HeaderName = HeaderName::from_static("x-sealift-image");

/// Name of the inference, as in the body of an answer by this protocol.
const INFERENCE: HeaderName = HeaderName::from_static("x-sealift-inference-id");

/// Answers a request to `live`.
pub(super) async fn answer(
    endpoint: &Endpoint,
    (live, is_version_named): (Live, bool),
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let (body, _admitted) = body::read(endpoint, body).await?;
    let is_image = |value: &HeaderValue| value.to_str().is_ok_and(request::is_image);
    let mut request = if headers.get(header::CONTENT_TYPE).is_some_and(is_image) {
        InferRequest::of_image(live.contract(), &body)?
    } else {
        InferRequest::parse(&body, header_length(headers)?)?
    };
    drop(body);
    response::check_wanted(&live, &request.outputs)?;
    let deadline = (request.timeout_us > 0).then(|| Duration::from_micros(request.timeout_us));
    let split = if is_version_named {
        Split::Never
    } else {
        request.key.as_ref().map_or_else(|| split_by(headers), |key| Split::Key(key.as_bytes()))
    };
    let inference = endpoint.name(request.id.as_deref());
    let inputs = request.inputs.as_slice();
    let asked = Asked { inference: &inference, inputs, deadline, split };
    let (live, outputs) = endpoint.ask(live, asked).await?;
    request.id.get_or_insert_with(|| inference.to_string());
    let response = InferResponse::write(&live, &request, &outputs)?;
    Ok(respond((&live, &inference), response))
}

/// By the application's key, if it has sent one.
pub(super) fn split_by(headers: &HeaderMap) -> Split<'_> {
    headers.get(KEY).map_or(Split::Each, |key| Split::Key(key.as_bytes()))
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

fn respond(answered: (&Live, &InferenceId), response: InferResponse) -> Response {
    let InferResponse { body, header_bytes } = response;
    let content_type =
        if header_bytes.is_some() { "application/octet-stream" } else { "application/json" };
    let mut response = Body::from(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(header_bytes) = header_bytes {
        headers.insert(HEADER_LENGTH, HeaderValue::from(header_bytes));
    }
    headers.extend(source(answered));
    response
}

/// The headers that say which image has answered, and by which name ground truth can be told of the inference.
pub(super) fn source(
    (live, inference): (&Live, &InferenceId),
) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let inference = HeaderValue::try_from(inference.as_str()).ok();
    image(live).into_iter().chain(inference.map(|inference| (INFERENCE, inference)))
}

/// The header that says which image has answered.
pub(super) fn image(live: &Live) -> Option<(HeaderName, HeaderValue)> {
    Some((IMAGE, HeaderValue::try_from(live.image().index.to_string()).ok()?))
}
