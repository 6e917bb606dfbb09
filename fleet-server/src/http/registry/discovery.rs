//! What a repository holds: its tags, and who refers to a manifest.

use axum::Json;
use axum::http::header::{CONTENT_TYPE, LINK};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use sealift_protocol::image::media_type;
use sealift_protocol::limits::MANIFEST_BYTES_MAX;
use serde_json::{Value, json};

use super::{Ask, OciError, digest, insert};
use crate::store::repositories::{Referrer, ReferrerQuery};

/// Tags on one page.
const TAGS_MAX: i64 = 1_000;

/// Referrers on one page; the list is an index, and has a manifest's limit in bytes.
const REFERRERS_MAX: i64 = 200;

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Rule (OCI distribution specification, "listing tags"): in the order of their bytes, `n` at most, those after `last`.
pub(super) async fn tags(ask: &Ask) -> Result<Response, OciError> {
    let limit = match ask.parameter("n").map(|n| n.parse::<i64>()) {
        None => TAGS_MAX,
        Some(Ok(n)) if n >= 0 => n.min(TAGS_MAX),
        Some(Ok(_) | Err(_)) => return Err(OciError::PageSize),
    };
    let last = ask.parameter("last").unwrap_or_default();
    let repository = &ask.repository;
    // One more than asked for tells whether there is a next page.
    let tags = ask.registry.store.tags(repository, &last, limit.saturating_add(1)).await?;
    let mut tags = tags.ok_or(OciError::NameUnknown)?;
    let page = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = tags.len() > page;
    tags.truncate(page);
    let mut response = Json(json!({ "name": repository.as_str(), "tags": tags })).into_response();
    if let Some(last) = tags.last().filter(|_| has_more) {
        let next = format!("/v2/{repository}/tags/list?n={limit}&last={last}");
        link(&mut response, &next);
    }
    Ok(response)
}

fn link(response: &mut Response, next: &str) {
    insert(response.headers_mut(), LINK, &format!("<{next}>; rel=\"next\""));
}

/// Rule (OCI distribution specification, "listing referrers"): an index of what names the digest as its subject; an empty one where
/// nothing does, known or not.
pub(super) async fn referrers(ask: &Ask, text: &str) -> Result<Response, OciError> {
    let subject = digest(text)?;
    let artifact_type = ask.parameter("artifactType").filter(|kind| !kind.is_empty());
    let after = ask.parameter("last").unwrap_or_default();
    let query = ReferrerQuery {
        subject,
        artifact_type: artifact_type.as_deref(),
        after: &after,
        limit: REFERRERS_MAX,
    };
    let found = ask.registry.store.referrers(&ask.repository, query).await?;
    let page = page(&found);
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media_type::INDEX,
        "manifests": page,
    });
    let mut response = Json(index).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type::INDEX));
    if artifact_type.is_some() {
        headers.insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    let is_full = i64::try_from(found.len()).is_ok_and(|count| count >= REFERRERS_MAX);
    if let Some(last) = found.get(page.len().saturating_sub(1))
        && (is_full || page.len() < found.len())
    {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("last", &last.manifest.digest.to_string());
        query.extend_pairs(artifact_type.iter().map(|kind| ("artifactType", kind)));
        let next = format!("/v2/{}/referrers/{subject}?{}", ask.repository, query.finish());
        link(&mut response, &next);
    }
    Ok(response)
}

/// As many as fit into an index, at least one.
fn page(found: &[Referrer]) -> Vec<Value> {
    let mut bytes = 0_usize;
    let mut page = Vec::new();
    for referrer in found {
        let described = describe(referrer);
        bytes = bytes.saturating_add(described.to_string().len());
        if bytes > MANIFEST_BYTES_MAX - 1_024 && !page.is_empty() {
            break;
        }
        page.push(described);
    }
    page
}

fn describe(referrer: &Referrer) -> Value {
    let manifest = &referrer.manifest;
    let mut descriptor = json!({
        "mediaType": manifest.media_type,
        "digest": manifest.digest.to_string(),
        "size": manifest.size,
    });
    if let Some(fields) = descriptor.as_object_mut() {
        if let Some(kind) = &referrer.artifact_type {
            fields.insert("artifactType".to_owned(), json!(kind));
        }
        if !referrer.annotations.is_empty() {
            fields.insert("annotations".to_owned(), json!(referrer.annotations));
        }
    }
    descriptor
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sealift_protocol::digest::Digest;

    use super::*;
    use crate::store::repositories::StoredManifest;

    fn referrer(note: &str) -> Referrer {
        Referrer {
            manifest: StoredManifest {
                digest: Digest::of(note.as_bytes()).into(),
                media_type: media_type::MANIFEST.to_owned(),
                size: 7,
            },
            artifact_type: None,
            annotations: BTreeMap::from([("note".to_owned(), note.to_owned())]),
        }
    }

    #[test]
    fn a_page_of_referrers_is_no_larger_than_a_manifest() {
        let long = "x".repeat(MANIFEST_BYTES_MAX / 3);
        let found: Vec<_> = (0..5).map(|number| referrer(&format!("{number}{long}"))).collect();
        assert_eq!(page(&found).len(), 2);
        let huge = referrer(&"x".repeat(MANIFEST_BYTES_MAX));
        assert_eq!(page(&[huge.clone(), huge]).len(), 1);
    }

    #[test]
    fn what_a_referrer_does_not_say_is_left_out() {
        let silent = Referrer { annotations: BTreeMap::new(), ..referrer("a") };
        let described = describe(&silent);
        assert_eq!(described.as_object().unwrap().len(), 3, "{described}");
    }
}
