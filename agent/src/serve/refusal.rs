//! Why a request got no answer, as each protocol tells it: the Open Inference Protocol by a status and `{"error": "…"}`, gRPC by its own
//! codes, the scoring protocols by a message beside a code.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sealift_protocol::image::ContractError;
use serde_json::json;

use sealift_protocol::local::InvalidFrame;

use super::grpc::InvalidCall;
use super::request::InvalidRequest;
use super::response::NoResponse;
use super::scoring::InvalidScoring;
use crate::worker::InferError;

/// Seconds after which a caller may try again: a full queue is empty by then, and a dead worker replaced.
const RETRY_AFTER_S: u16 = 1;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("model `{name}` is not served; served: {served}")]
    UnknownModel { name: String, served: String },
    #[error("model `{model}` is withdrawn: {why}; ask whoever runs the fleet")]
    Withdrawn { model: String, why: String },
    #[error("version {given} of {model} is not served; {served} is")]
    UnknownVersion { model: String, given: String, served: String },
    #[error("no model is served")]
    NothingServed,
    #[error("several models are served, and none is named; served: {served}")]
    Unnamed { served: String },
    #[error("nothing is served at this path")]
    UnknownPath,
    #[error("{0}")]
    Request(#[from] InvalidRequest),
    #[error("not a question: {0}")]
    Frame(#[from] InvalidFrame),
    #[error("{0}")]
    Call(#[from] InvalidCall),
    #[error("{0}")]
    Scoring(#[from] InvalidScoring),
    #[error("{0}")]
    Contract(#[from] ContractError),
    #[error("{0}")]
    Response(#[from] NoResponse),
    #[error("header {name}: {value} is not a length")]
    Header { name: &'static str, value: String },
    #[error("the body has more than {0} bytes")]
    TooLarge(usize),
    #[error("the body did not come completely")]
    Body,
    #[error("too many requests in flight")]
    Busy,
    #[error("models are managed by the fleet")]
    Managed,
    #[error("{0}")]
    Infer(#[from] InferError),
    #[error("the request was not done within {0} s")]
    Deadline(u64),
    #[error("no answer within the {0:?} that the request allows")]
    TooLate(Duration),
}

impl Refusal {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::UnknownModel { .. } | Self::UnknownVersion { .. } | Self::UnknownPath => {
                StatusCode::NOT_FOUND
            }
            Self::Request(InvalidRequest::NotImages { .. }) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Request(_) | Self::Contract(_) | Self::Header { .. } | Self::Body => {
                StatusCode::BAD_REQUEST
            }
            Self::Call(error) => error.status(),
            Self::Scoring(error) => error.status(),
            Self::Unnamed { .. }
            | Self::Frame(_)
            | Self::Response(NoResponse::UnknownOutput { .. })
            | Self::Infer(InferError::Input(_)) => StatusCode::BAD_REQUEST,
            // The model has outputs that only the binary extension can carry.
            Self::Response(NoResponse::Json(_) | NoResponse::Csv) => StatusCode::NOT_ACCEPTABLE,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::Managed => StatusCode::FORBIDDEN,
            Self::Withdrawn { .. }
            | Self::NothingServed
            | Self::Infer(InferError::WorkerGone { .. }) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Infer(InferError::Deadline) | Self::Deadline(_) | Self::TooLate(_) => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::Infer(InferError::Model(_)) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        respond(self.status(), json!({ "error": self.to_string() }))
    }
}

/// A status and a body of JSON; where another try may go better, the header that says when.
pub(super) fn respond(status: StatusCode, body: serde_json::Value) -> Response {
    let mut response = (status, Json(body)).into_response();
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
    }
    response
}
