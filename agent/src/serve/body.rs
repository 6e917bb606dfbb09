//! Bodies of HTTP requests: read whole, or refused by their length.

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use super::endpoint::BODY_BYTES_MAX;
use super::refusal::Refusal;

/// How long a body can be, as far as it says.
pub(super) fn length(body: &Body) -> Option<u64> {
    body.size_hint().upper()
}

/// Reads a body that is not larger than allowed; one that announces more is not begun. One that came in one piece is not copied.
pub(super) async fn read(body: Body) -> Result<Bytes, Refusal> {
    let too_large = || Refusal::TooLarge(BODY_BYTES_MAX);
    let announced = body.size_hint().lower();
    if announced > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let mut chunks = body.into_data_stream();
    let mut next = async || chunks.next().await.transpose().map_err(|_| Refusal::Body);
    let Some(first) = next().await? else { return Ok(Bytes::new()) };
    let Some(second) = next().await? else { return Ok(first) };
    let mut bytes = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0));
    let mut chunk = Some(second);
    bytes.extend_from_slice(&first);
    while let Some(more) = chunk {
        if bytes.len() + more.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        bytes.extend_from_slice(&more);
        chunk = next().await?;
    }
    Ok(bytes.freeze())
}
