//! Blobs: read whole or in part, and removed.

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use super::manifests::unlist;
use super::{Ask, CONTENT_DIGEST, OciError, digest, insert};
use crate::audit::Deed;
use crate::clock;
use crate::content::ContentDigest;
use crate::http::ranges::{self, NotServed};
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
        return if is_here { Ok(head(digest, size)) } else { Err(OciError::BlobUnknown) };
    }
    let served = ranges::serve(&ask.registry.blobs, (digest, size), &ask.parts.headers).await;
    let mut response = served.map_err(|error| match error {
        NotServed::Range(size) => OciError::BlobRange(size),
        NotServed::Blobs(error) => error.into(),
    })?;
    insert(response.headers_mut(), CONTENT_DIGEST, &digest.to_string());
    Ok(response)
}

fn head(digest: ContentDigest, size: u64) -> Response {
    let mut response = ranges::head(digest, size, Body::empty());
    insert(response.headers_mut(), CONTENT_DIGEST, &digest.to_string());
    response
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
