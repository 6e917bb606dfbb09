//! Blobs: read whole or in part, and removed.

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, RANGE,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use object_store::GetRange;

use super::manifests::unlist;
use super::{Ask, CONTENT_DIGEST, OciError, digest, insert};
use crate::audit::Deed;
use crate::clock;
use crate::content::ContentDigest;
use crate::registry::sweep::BLOB_KEPT_MS;

/// Serves a blob. A pusher who finds it here will not send it again, so that it must stay until the manifest comes.
pub(super) async fn get(ask: &Ask, text: &str, is_pusher: bool) -> Result<Response, OciError> {
    let digest = digest(text)?;
    let store = &ask.registry.store;
    let (size, pushed_at) =
        store.blob(&ask.repository, digest).await?.ok_or(OciError::BlobUnknown)?;
    let now = clock::now();
    if is_pusher && now.since(pushed_at) > BLOB_KEPT_MS / 2 {
        let mut change = store.begin().await?;
        let touched = change.touch_blob(Some(&ask.repository), digest, now).await?;
        touched.ok_or(OciError::BlobUnknown)?;
        change.commit().await?;
    }
    if ask.is_head() {
        // After a database was restored without its blobs, a pusher must hear that the bytes are gone.
        let is_here = ask.registry.blobs.size(digest).await? == Some(size);
        return if is_here {
            Ok(response(digest, size, Body::empty()))
        } else {
            Err(OciError::BlobUnknown)
        };
    }
    match wanted(ask, digest, size)? {
        None => {
            let served = ask.registry.blobs.serve(digest, None).await?;
            Ok(response(digest, served.size, Body::from_stream(served.stream)))
        }
        Some(range) => serve_part(ask, digest, range).await,
    }
}

async fn serve_part(
    ask: &Ask,
    digest: ContentDigest,
    range: GetRange,
) -> Result<Response, OciError> {
    let served = ask.registry.blobs.serve(digest, Some(range)).await?;
    let length = served.range.end.saturating_sub(served.range.start);
    let mut response = response(digest, length, Body::from_stream(served.stream));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let last = served.range.end.saturating_sub(1);
    let range = format!("bytes {}-{last}/{}", served.range.start, served.size);
    insert(response.headers_mut(), CONTENT_RANGE, &range);
    Ok(response)
}

/// The part that is asked for; none for the whole. Rule (RFC 9110, section 13.1.5): a range of another content is not served.
fn wanted(ask: &Ask, digest: ContentDigest, size: u64) -> Result<Option<GetRange>, OciError> {
    let Some(header) = ask.parts.headers.get(RANGE) else { return Ok(None) };
    if ask.header(IF_RANGE).is_some_and(|known| known != etag(digest)) {
        return Ok(None);
    }
    let range = match parse_range(header) {
        Asked::Whole => return Ok(None),
        Asked::Part(range) => range,
        Asked::Nothing => return Err(OciError::BlobRange(size)),
    };
    if matches!(range, GetRange::Suffix(0)) || range.as_range(size).is_err() {
        return Err(OciError::BlobRange(size));
    }
    Ok(Some(range))
}

fn etag(digest: ContentDigest) -> String {
    format!("\"{digest}\"")
}

fn response(digest: ContentDigest, length: u64, body: Body) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    insert(headers, CONTENT_TYPE, "application/octet-stream");
    insert(headers, CONTENT_LENGTH, &length.to_string());
    insert(headers, ACCEPT_RANGES, "bytes");
    insert(headers, CONTENT_DIGEST, &digest.to_string());
    insert(headers, ETAG, &etag(digest));
    response
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

/// Takes a blob out of the repository, unless a signed or deployed version needs it.
pub(super) async fn delete(ask: &Ask, text: &str, by: &str) -> Result<Response, OciError> {
    let digest = digest(text)?;
    let now = clock::now();
    let mut change = ask.registry.store.begin().await?;
    unlist(ask, &mut change, digest).await?;
    if !change.remove_blob(&ask.repository, digest, now).await? {
        return Err(OciError::BlobUnknown);
    }
    let subject = format!("{}@{digest}", ask.repository);
    let action = "registry.blob-delete";
    let deed = Deed { actor: by, action, subject: &subject, reason: None, detail: "" };
    change.audit(&deed, now).await?;
    change.commit().await?;
    Ok(StatusCode::ACCEPTED.into_response())
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
