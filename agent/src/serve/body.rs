//! Bodies of HTTP requests: read whole, or refused by their length.

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use super::endpoint::{Admitted, BODY_BYTES_MAX, Endpoint};
use super::refusal::Refusal;

/// Reads a body that is not larger than allowed, and holds room for it; one that announces more is not begun. One that came in one piece is
/// not copied.
///
/// Calls of gRPC never announce a length, so that room is taken as they grow: by what they might be, eight would fill the device.
pub(super) async fn read(endpoint: &Endpoint, body: Body) -> Result<(Bytes, Admitted), Refusal> {
    let too_large = || Refusal::TooLarge(BODY_BYTES_MAX);
    let announced = body.size_hint().lower();
    if announced > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let mut admitted = endpoint.admit(announced)?;
    let mut chunks = body.into_data_stream();
    let mut next = async || chunks.next().await.transpose().map_err(|_| Refusal::Body);
    let Some(first) = next().await? else { return Ok((Bytes::new(), admitted)) };
    admitted.grow(first.len())?;
    let Some(second) = next().await? else { return Ok((first, admitted)) };
    let mut bytes = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0));
    let mut chunk = Some(second);
    bytes.extend_from_slice(&first);
    while let Some(more) = chunk {
        let length = bytes.len() + more.len();
        if length > BODY_BYTES_MAX {
            return Err(too_large());
        }
        admitted.grow(length)?;
        bytes.extend_from_slice(&more);
        chunk = next().await?;
    }
    Ok((bytes.freeze(), admitted))
}
