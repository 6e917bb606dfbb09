//! A part of something that a device brings up, out of a request's body.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::StatusCode;
use sealift_protocol::limits::UPLOAD_PART_BYTES_MAX;

use super::super::error::ApiError;

/// Time for a part to come up: the longest at 130 kbit/s.
const PART_MAX: Duration = Duration::from_secs(16);

/// Reads a part, or says with one of these codes that it is slow, or none.
pub(super) async fn read(
    body: Body,
    (late, invalid): (&'static str, &'static str),
) -> Result<Vec<u8>, ApiError> {
    let late = |_| ApiError::new(StatusCode::REQUEST_TIMEOUT, late, "the part is slow");
    let read = tokio::time::timeout(PART_MAX, to_bytes(body, UPLOAD_PART_BYTES_MAX)).await;
    let body = read.map_err(late)?;
    let body = body.map_err(|error| ApiError::invalid(invalid, error.to_string()))?;
    Ok(body.to_vec())
}
