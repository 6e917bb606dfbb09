//! Blobs over HTTP: whole, or the part that is asked for (RFC 9110, section 14).

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use object_store::GetRange;

use crate::blobs::{BlobError, Blobs, Served};
use crate::content::ContentDigest;

/// Why a blob is not served.
#[derive(Debug)]
pub(super) enum NotServed {
    /// A part that it does not have; it has so many bytes.
    Range(u64),
    /// The blob store.
    Blobs(BlobError),
}

/// Serves a blob of so many bytes, or the part of it that is asked for.
pub(super) async fn serve(
    blobs: &Blobs,
    (digest, size): (ContentDigest, u64),
    asked: &HeaderMap,
) -> Result<Response, NotServed> {
    let range = wanted(asked, digest, size)?;
    let is_part = range.is_some();
    let served = blobs.serve(digest, range).await.map_err(NotServed::Blobs)?;
    let Served { size, range, stream } = served;
    let length = range.end.saturating_sub(range.start);
    let mut response = head(digest, length, Body::from_stream(stream));
    if is_part {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let last = range.end.saturating_sub(1);
        insert(&mut response, CONTENT_RANGE, &format!("bytes {}-{last}/{size}", range.start));
    }
    Ok(response)
}

/// What is said of a blob, with as many bytes of it as follow.
pub(super) fn head(digest: ContentDigest, length: u64, body: Body) -> Response {
    let mut response = body.into_response();
    insert(&mut response, CONTENT_TYPE, "application/octet-stream");
    insert(&mut response, CONTENT_LENGTH, &length.to_string());
    insert(&mut response, ACCEPT_RANGES, "bytes");
    insert(&mut response, ETAG, &etag(digest));
    response
}

fn insert(response: &mut Response, name: HeaderName, value: &str) {
    // Digits and hex are always a header's value.
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// The part that is asked for; none for the whole. Rule (RFC 9110, section 13.1.5): a range of another content is not served.
fn wanted(
    headers: &HeaderMap,
    digest: ContentDigest,
    size: u64,
) -> Result<Option<GetRange>, NotServed> {
    let Some(header) = headers.get(RANGE) else { return Ok(None) };
    if headers.get(IF_RANGE).is_some_and(|known| known.as_bytes() != etag(digest).as_bytes()) {
        return Ok(None);
    }
    let range = match parse_range(header) {
        Asked::Whole => return Ok(None),
        Asked::Part(range) => range,
        Asked::Nothing => return Err(NotServed::Range(size)),
    };
    if matches!(range, GetRange::Suffix(0)) || range.as_range(size).is_err() {
        return Err(NotServed::Range(size));
    }
    Ok(Some(range))
}

fn etag(digest: ContentDigest) -> String {
    format!("\"{digest}\"")
}

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// Everything: what is not understood is left out of account (RFC 9110, section 14.2), lists of ranges with it.
    Whole,
    /// One range.
    Part(GetRange),
    /// A range that ends before it begins.
    Nothing,
}

fn parse_range(value: &HeaderValue) -> Asked {
    let range = value.to_str().ok().and_then(|range| range.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
        return Asked::Whole;
    };
    match (first, first.parse::<u64>(), last.parse::<u64>()) {
        ("", _, Ok(suffix)) => Asked::Part(GetRange::Suffix(suffix)),
        (_, Ok(first), Err(_)) if last.is_empty() => Asked::Part(GetRange::Offset(first)),
        (_, Ok(first), Ok(last)) if first <= last => {
            Asked::Part(GetRange::Bounded(first..last.saturating_add(1)))
        }
        (_, Ok(_), Ok(_)) => Asked::Nothing,
        (_, Ok(_) | Err(_), Ok(_) | Err(_)) => Asked::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Asked {
        parse_range(&HeaderValue::from_str(text).unwrap())
    }

    #[test]
    fn one_range_is_read_and_what_is_not_understood_is_the_whole() {
        assert_eq!(range("bytes=0-3"), Asked::Part(GetRange::Bounded(0..4)));
        assert_eq!(range("bytes=7-"), Asked::Part(GetRange::Offset(7)));
        assert_eq!(range("bytes=-5"), Asked::Part(GetRange::Suffix(5)));
        assert_eq!(range("bytes=3-1"), Asked::Nothing);
        for text in ["bytes=0-1,4-5", "rows=0-1", "bytes=-", "bytes=a-b", "0-1", "bytes=1-b"] {
            assert_eq!(range(text), Asked::Whole, "{text}");
        }
    }
}
