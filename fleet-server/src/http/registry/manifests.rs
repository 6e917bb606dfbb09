//! Manifests: read by tag or digest, taken in with what they say, and removed.

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, LOCATION, WARNING};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{ModelName, UnixMillis};
use sealift_protocol::limits::MANIFEST_BYTES_MAX;

use super::upload::next_bytes;
use super::{Ask, CONTENT_DIGEST, OciError, insert};
use crate::audit::Deed;
use crate::blobs::BlobError;
use crate::clock;
use crate::content::ContentDigest;
use crate::registry::ImageFacts;
use crate::registry::document::{Document, Kind};
use crate::registry::model::{self, Unfit};
use crate::registry::name::{InvalidReference, Reference};
use crate::store::registry::ManifestRow;
use crate::store::{Change, StoreError};

/// Tags that one push may set.
const TAGS_MAX: usize = 32;

/// Characters of a warning; a header holds a line.
const WARNING_CHARS_MAX: usize = 400;

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAG: HeaderName = HeaderName::from_static("oci-tag");

/// Serves a manifest, byte for byte as it was pushed.
pub(super) async fn get(ask: &Ask, text: &str) -> Result<Response, OciError> {
    let reference = Reference::parse(text).map_err(|invalid| match invalid {
        InvalidReference::Digest => OciError::Digest(format!("`{text}` is not a digest")),
        InvalidReference::Tag => OciError::ManifestUnknown,
    })?;
    let stored = ask.registry.store.manifest(&ask.repository, &reference).await?;
    let stored = stored.ok_or(OciError::ManifestUnknown)?;
    let body = if ask.is_head() {
        Body::empty()
    } else {
        ask.registry.blobs.read(stored.digest, MANIFEST_BYTES_MAX as u64).await?.into()
    };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    insert(headers, CONTENT_TYPE, &stored.media_type);
    insert(headers, CONTENT_LENGTH, &stored.size.to_string());
    insert(headers, CONTENT_DIGEST, &stored.digest.to_string());
    insert(headers, ETAG, &format!("\"{}\"", stored.digest));
    Ok(response)
}

/// A manifest that is being pushed.
struct Pushed {
    digest: ContentDigest,
    bytes: Bytes,
    document: Document,
    tags: Vec<String>,
}

/// Takes a manifest in if everything it names is here; lists it if it is a model image under its version's tag.
pub(super) async fn put(ask: &Ask, text: &str, body: Body, by: &str) -> Result<Response, OciError> {
    let reference = Reference::parse(text).map_err(|invalid| match invalid {
        InvalidReference::Digest => OciError::Digest(format!("`{text}` is not a digest")),
        InvalidReference::Tag => OciError::Tag(text.to_owned()),
    })?;
    let bytes = receive(body).await?;
    let pushed = Pushed::read(ask, &reference, bytes)?;
    let listing = pushed.appraise(ask).await?;
    pushed.keep(ask, &listing, by).await?;
    Ok(pushed.answer(ask, &listing))
}

/// Reads a body of a manifest's length. One that is too long is read on for a while: a client hears an answer only after it has sent.
async fn receive(body: Body) -> Result<Bytes, OciError> {
    let mut stream = body.into_data_stream();
    let (mut bytes, mut total) = (Vec::new(), 0_usize);
    while let Some(next) = next_bytes(&mut stream).await? {
        total = total.saturating_add(next.len());
        if total <= MANIFEST_BYTES_MAX {
            bytes.extend_from_slice(&next);
        } else if total > 2 * MANIFEST_BYTES_MAX {
            break;
        }
    }
    if total > MANIFEST_BYTES_MAX {
        return Err(OciError::TooLarge(MANIFEST_BYTES_MAX as u64));
    }
    Ok(bytes.into())
}

/// Whether a pushed manifest is listed as a version of a model.
enum Listing {
    /// It says nothing about being one.
    None,
    /// It is one.
    Version(ModelName, Digest, Box<ImageFacts>),
    /// It says it is a model image, and is stored as any content is; why it is not listed.
    Unlisted(String),
}

impl Pushed {
    fn read(ask: &Ask, reference: &Reference, bytes: Bytes) -> Result<Self, OciError> {
        let document = Document::parse(&bytes, ask.header(CONTENT_TYPE));
        let (digest, tags) = match reference {
            Reference::Tag(tag) => (Digest::of(&bytes).into(), vec![tag.clone()]),
            Reference::Digest(promised) => {
                let given = promised.same_of(&bytes);
                if given != *promised {
                    return Err(OciError::Digest(format!("manifest has digest {given}")));
                }
                (given, more_tags(ask)?)
            }
        };
        let document = document.map_err(OciError::Document)?;
        Ok(Self { digest, bytes, document, tags })
    }

    async fn appraise(&self, ask: &Ask) -> Result<Listing, OciError> {
        let (Kind::ModelIndex, Some(digest)) = (self.document.kind(), self.digest.sha256()) else {
            return Ok(Listing::None);
        };
        let Some(model) = ask.repository.model() else {
            let why = "a repository that is not team/name holds no model's versions";
            return Ok(Listing::Unlisted(why.to_owned()));
        };
        let mut listing = Listing::None; // without a tag nobody asks for it to be listed
        for tag in &self.tags {
            match model::check(&ask.registry.blobs, (&model, tag), &self.bytes).await {
                Ok(facts) => return Ok(Listing::Version(model, digest, Box::new(facts))),
                Err(Unfit::Blobs(error @ (BlobError::Store(_) | BlobError::Hash(_)))) => {
                    return Err(error.into());
                }
                Err(unfit) => listing = Listing::Unlisted(unfit.to_string()),
            }
        }
        Ok(listing)
    }

    /// Stores bytes, then rows, tags and version. A crash in between leaves bytes that are cleaned up later.
    async fn keep(&self, ask: &Ask, listing: &Listing, by: &str) -> Result<(), OciError> {
        let (store, repository) = (&ask.registry.store, &ask.repository);
        let now = clock::now();
        let mut change = store.begin().await?;
        change.hold(self.digest, now).await?;
        change.commit().await?;
        ask.registry.blobs.put_as(self.digest, self.bytes.clone()).await?;
        let mut change = store.begin().await?;
        if let Some(fault) = change.check_links(repository, &self.document, now).await? {
            return Err(OciError::Link(fault));
        }
        let size = u64::try_from(self.bytes.len()).unwrap_or(u64::MAX);
        change.add_manifest(repository, (self.digest, size), &self.document, now).await?;
        for tag in &self.tags {
            change.set_tag(repository, tag, self.digest).await?;
        }
        if let Listing::Version(model, digest, facts) = listing {
            let media_type = self.document.media_type.clone();
            let row = ManifestRow { digest: *digest, media_type, size };
            list(&mut change, model, (&row, facts), (by, now)).await?;
        }
        self.check_versions(ask, &mut change).await?;
        Ok(change.commit().await?)
    }

    /// Rule: the tag of a listed version never moves, whatever is pushed.
    async fn check_versions(&self, ask: &Ask, change: &mut Change) -> Result<(), OciError> {
        let Some(model) = ask.repository.model() else { return Ok(()) };
        for tag in &self.tags {
            let listed = change.listed(&model, tag).await?;
            if listed.is_some_and(|listed| ContentDigest::from(listed) != self.digest) {
                return Err(OciError::VersionTaken(format!("{model}@{tag}")));
            }
        }
        Ok(())
    }

    fn answer(&self, ask: &Ask, listing: &Listing) -> Response {
        let mut response = StatusCode::CREATED.into_response();
        let headers = response.headers_mut();
        let (repository, digest) = (&ask.repository, self.digest);
        insert(headers, LOCATION, &format!("/v2/{repository}/manifests/{digest}"));
        insert(headers, CONTENT_DIGEST, &digest.to_string());
        if let Some(subject) = self.document.subject {
            insert(headers, SUBJECT, &subject.to_string());
        }
        for tag in &self.tags {
            if let Ok(tag) = tag.parse() {
                headers.append(TAG, tag);
            }
        }
        if let Listing::Unlisted(why) = listing {
            tracing::info!(%repository, %digest, why, "model image stored, not listed");
            insert(headers, WARNING, &warning(why));
        }
        response
    }
}

/// Rule (OCI distribution specification, "warnings"): code 299, no agent, a quoted text.
fn warning(why: &str) -> String {
    let text: String = why
        .chars()
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .map(|c| if matches!(c, '"' | '\\') { '\'' } else { c })
        .take(WARNING_CHARS_MAX)
        .collect();
    format!("299 - \"stored, but not listed as a version: {text}\"")
}

/// Tags that come beside a digest, as parameters.
fn more_tags(ask: &Ask) -> Result<Vec<String>, OciError> {
    let query = ask.parts.uri.query().unwrap_or_default();
    let mut tags = Vec::new();
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if key != "tag" {
            continue;
        }
        let Ok(Reference::Tag(tag)) = Reference::parse(&value) else {
            return Err(OciError::Tag(value.into_owned()));
        };
        tags.push(tag);
    }
    if tags.len() > TAGS_MAX {
        return Err(OciError::Tag(format!("{} tags at a time", tags.len())));
    }
    Ok(tags)
}

async fn list(
    change: &mut Change,
    model: &ModelName,
    (row, facts): (&ManifestRow, &ImageFacts),
    (by, now): (&str, UnixMillis),
) -> Result<(), StoreError> {
    if change.add_version(model, row, facts, (by, now)).await? {
        let subject = format!("{model}@{}", facts.version);
        let (action, detail) = ("version.push", row.digest.to_string());
        let deed = Deed { actor: by, action, subject: &subject, reason: None, detail: &detail };
        change.audit(&deed, now).await?;
    }
    Ok(())
}

/// Removes a tag, or a manifest with its tags; neither if a signed or deployed version needs it.
pub(super) async fn delete(ask: &Ask, text: &str, by: &str) -> Result<Response, OciError> {
    let reference = Reference::parse(text).map_err(|_| OciError::ManifestUnknown)?;
    let repository = &ask.repository;
    let stored = ask.registry.store.manifest(repository, &reference).await?;
    let digest = stored.ok_or(OciError::ManifestUnknown)?.digest;
    let now = clock::now();
    let mut change = ask.registry.store.begin().await?;
    let is_gone = match &reference {
        Reference::Tag(tag) => {
            unlist_tag(ask, &mut change, tag, digest).await?;
            change.remove_tag(repository, tag).await?
        }
        Reference::Digest(digest) => {
            unlist(ask, &mut change, *digest).await?;
            change.remove_manifest(repository, *digest, now).await?
        }
    };
    if !is_gone {
        return Err(OciError::ManifestUnknown);
    }
    let (subject, detail) = (format!("{repository}:{text}"), digest.to_string());
    let action = "registry.manifest-delete";
    let deed = Deed { actor: by, action, subject: &subject, reason: None, detail: &detail };
    change.audit(&deed, now).await?;
    change.commit().await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

async fn unlist_tag(
    ask: &Ask,
    change: &mut Change,
    tag: &str,
    digest: ContentDigest,
) -> Result<(), OciError> {
    let Some(model) = ask.repository.model() else { return Ok(()) };
    if change.listed(&model, tag).await?.map(ContentDigest::from) == Some(digest) {
        unlist(ask, change, digest).await?;
    }
    Ok(())
}

/// Takes the versions that need the content off the list, or refuses where one is signed or deployed.
pub(super) async fn unlist(
    ask: &Ask,
    change: &mut Change,
    digest: ContentDigest,
) -> Result<(), OciError> {
    if let Some(in_use) = change.in_use(&ask.repository, digest).await? {
        return Err(OciError::in_use(&ask.repository, in_use));
    }
    Ok(change.unlist(&ask.repository, digest).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_fits_into_a_header() {
        let text = warning("a \"name\"\r\nwith \\ and ü");
        assert_eq!(text, "299 - \"stored, but not listed as a version: a 'name'with ' and \"");
        assert!(warning(&"x".repeat(10_000)).len() < 500);
    }
}
