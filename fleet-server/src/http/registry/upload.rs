//! Pushing blobs: whole, in chunks, or mounted from another repository.
//!
//! ```text
//! POST ──▶ session ──PATCH──▶ part, part, … ──PUT digest──▶ blob
//!             ▲                   │
//!             └── GET: how far? ──┘   after a cut connection, a restart, on another replica
//! ```
//!
//! What has come is written in parts, and noted by compare-and-swap on the length: of two who go on at one place, one is told so.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::StreamExt as _;
use sealift_protocol::limits::WEIGHTS_BYTES_MAX;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::{Ask, CONTENT_DIGEST, OciError, TURN_MAX, What, digest, insert};
use crate::blobs::{self, PART_BYTES};
use crate::clock;
use crate::content::ContentDigest;
use crate::registry::name::Repository;
use crate::registry::sweep::FINISH_MAX;
use crate::store::uploads::{NewPart, Upload};

/// Sessions at a time; most that are begun and left have no bytes.
const UPLOADS_MAX: u64 = 1_024;

/// Bytes of unfinished uploads at a time: four of the largest weights.
const UNFINISHED_BYTES_MAX: u64 = 4 * WEIGHTS_BYTES_MAX;

/// Parts of one upload: five times what the largest blob needs, for clients that send small chunks.
const UPLOAD_PARTS_MAX: i64 = 10_000;

/// A client that sends nothing for this long in the middle of a body has gone.
const READ_MAX: Duration = Duration::from_mins(1);

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

pub(super) async fn serve(
    ask: Ask,
    what: What,
    body: Body,
    by: &str,
) -> Result<Response, OciError> {
    match (what, ask.parts.method.as_str()) {
        (What::Uploads, "POST") => begin(ask, body, by).await,
        (What::Upload(id), "GET" | "HEAD") => progress(&ask, &id).await,
        (What::Upload(id), "PATCH") => detached(append(ask, id, body)).await,
        (What::Upload(id), "PUT") => {
            let promised = ask.parameter("digest");
            let none = || OciError::Digest("the query names no digest".to_owned());
            let promised = digest(&promised.ok_or_else(none)?)?;
            detached(finish(ask, id, body, promised)).await
        }
        (What::Upload(id), "DELETE") => cancel(&ask, &id).await,
        _ => Err(OciError::Unsupported), // no other method of the specification
    }
}

/// Goes on when the client has gone: what came is kept.
async fn detached(
    work: impl Future<Output = Result<Response, OciError>> + Send + 'static,
) -> Result<Response, OciError> {
    tokio::spawn(work).await.map_err(|error| OciError::Internal(error.into()))?
}

async fn begin(ask: Ask, body: Body, by: &str) -> Result<Response, OciError> {
    if let Some(response) = mount(&ask).await? {
        return Ok(response);
    }
    let promised = ask.parameter("digest").map(|text| digest(&text)).transpose()?;
    check_room(&ask).await?;
    let id = random_name()?;
    let now = clock::now();
    let mut change = ask.registry.store.begin().await?;
    change.add_upload(Some(&ask.repository), &id, (by, now)).await?;
    change.commit().await?;
    match promised {
        Some(promised) => detached(finish(ask, id, body, promised)).await,
        None => Ok(accepted(&ask.repository, &id, 0)),
    }
}

/// Takes a blob over from another repository of the tenant; without a name, from whichever has it. None where that cannot be done: then the
/// client sends it (OCI distribution specification, "mounting a blob from another repository").
async fn mount(ask: &Ask) -> Result<Option<Response>, OciError> {
    let Some(mount) = ask.parameter("mount") else { return Ok(None) };
    let digest = digest(&mount)?;
    let from = match ask.parameter("from") {
        None if !ask.registry.mounts_from_anywhere => return Ok(None),
        None => None,
        Some(name) => match Repository::parse(&name) {
            Ok(from) => Some(from),
            Err(_) => return Ok(None),
        },
    };
    let now = clock::now();
    let mut change = ask.registry.store.begin().await?;
    let Some(size) = change.touch_blob(from.as_ref(), digest, now).await? else {
        return Ok(None);
    };
    change.add_blob(&ask.repository, digest, size, now).await?;
    change.commit().await?;
    Ok(Some(created(&ask.repository, digest)))
}

async fn check_room(ask: &Ask) -> Result<(), OciError> {
    let (count, bytes) = ask.registry.store.uploads_under_way().await?;
    let has_room = count < UPLOADS_MAX && bytes < UNFINISHED_BYTES_MAX;
    if has_room { Ok(()) } else { Err(OciError::TooMany) }
}

async fn find(ask: &Ask, id: &str) -> Result<Upload, OciError> {
    let upload = ask.registry.store.upload(&ask.repository, id).await?;
    upload.ok_or(OciError::UploadUnknown)
}

async fn progress(ask: &Ask, id: &str) -> Result<Response, OciError> {
    let upload = find(ask, id).await?;
    let mut response = accepted(&ask.repository, id, upload.bytes);
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

async fn append(ask: Ask, id: String, body: Body) -> Result<Response, OciError> {
    let upload = find(&ask, &id).await?;
    check_range(&ask, &upload)?;
    let mut receiver = Receiver::begin(ask, upload).await?;
    let ended = receiver.receive(body).await;
    receiver.flush().await?;
    ended?;
    Ok(accepted(&receiver.ask.repository, &id, receiver.upload.bytes))
}

async fn finish(
    ask: Ask,
    id: String,
    body: Body,
    promised: ContentDigest,
) -> Result<Response, OciError> {
    let upload = find(&ask, &id).await?;
    check_range(&ask, &upload)?;
    let mut receiver = Receiver::begin(ask, upload).await?;
    if let Err(broken) = receiver.receive(body).await {
        receiver.flush().await?;
        return Err(broken);
    }
    let kept = timeout(FINISH_MAX, receiver.keep(promised)).await;
    match kept.map_err(|error| OciError::Internal(error.into()))? {
        Ok(()) => Ok(created(&receiver.ask.repository, promised)),
        Err(refused @ OciError::Digest(_)) => {
            end(&receiver.ask, &id).await?;
            Err(refused)
        }
        Err(error) => Err(error),
    }
}

async fn cancel(ask: &Ask, id: &str) -> Result<Response, OciError> {
    find(ask, id).await?;
    end(ask, id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Row first, then bytes: what is left when the server is killed in between is cleaned up later.
async fn end(ask: &Ask, id: &str) -> Result<(), OciError> {
    let mut change = ask.registry.store.begin().await?;
    change.end_upload(id).await?;
    change.commit().await?;
    Ok(ask.registry.blobs.remove_upload(id).await?)
}

/// Rule (OCI distribution specification, "pushing a blob in chunks"): a chunk begins where the last one ended, and is as long as it says.
fn check_range(ask: &Ask, upload: &Upload) -> Result<(), OciError> {
    let Some(range) = ask.header(CONTENT_RANGE) else { return Ok(()) };
    let ends = range.split_once('-');
    let ends = ends.and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    let Some((first, last)): Option<(u64, u64)> = ends else { return Err(OciError::ChunkSize) };
    if first != upload.bytes {
        return Err(out_of_order(ask, upload));
    }
    let length = ask.header(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    let said = last.checked_sub(first).and_then(|length| length.checked_add(1));
    if said.is_none() || length.is_some_and(|length| Some(length) != said) {
        return Err(OciError::ChunkSize);
    }
    Ok(())
}

fn out_of_order(ask: &Ask, upload: &Upload) -> OciError {
    OciError::UploadRange { location: place(&ask.repository, &upload.id), bytes: upload.bytes }
}

/// Takes the bytes of one request into an upload.
struct Receiver {
    ask: Ask,
    upload: Upload,
    buffer: Vec<u8>,
    _turn: OwnedSemaphorePermit,
}

impl Receiver {
    async fn begin(ask: Ask, upload: Upload) -> Result<Self, OciError> {
        let turn = timeout(TURN_MAX, ask.registry.receivers.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| OciError::TooMany)?;
        let turn = turn.map_err(|error| OciError::Internal(error.into()))?;
        Ok(Self { ask, upload, buffer: Vec::new(), _turn: turn })
    }

    /// Reads a body to its end. Less than a part stays in memory.
    async fn receive(&mut self, body: Body) -> Result<(), OciError> {
        let mut stream = body.into_data_stream();
        while let Some(bytes) = next_bytes(&mut stream).await? {
            let coming = self.buffer.len().saturating_add(bytes.len());
            let coming = u64::try_from(coming).unwrap_or(u64::MAX);
            if self.upload.bytes.saturating_add(coming) > WEIGHTS_BYTES_MAX {
                return Err(OciError::TooLarge(WEIGHTS_BYTES_MAX));
            }
            self.buffer.extend_from_slice(&bytes);
            if self.buffer.len() >= PART_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Writes what is in memory as the next part.
    async fn flush(&mut self) -> Result<(), OciError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        check_room(&self.ask).await?;
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let (registry, start) = (&self.ask.registry, self.upload.bytes);
        let name = format!("{start:020}-{}", random_name()?);
        registry.blobs.put_part(&self.upload.id, &name, bytes).await?;
        let part = NewPart { start, size, name: &name };
        let mut change = registry.store.begin().await?;
        let is_next =
            change.add_upload_part(&self.upload.id, part, UPLOAD_PARTS_MAX, clock::now()).await?;
        change.commit().await?;
        if !is_next {
            registry.blobs.remove_part(&self.upload.id, &name).await?;
            let now = find(&self.ask, &self.upload.id).await?;
            return Err(out_of_order(&self.ask, &now));
        }
        self.upload.bytes = start.saturating_add(size);
        Ok(())
    }

    /// Makes a blob of everything that has come.
    async fn keep(&mut self, promised: ContentDigest) -> Result<(), OciError> {
        let (store, blobs) = (self.ask.registry.store.clone(), self.ask.registry.blobs.clone());
        let mut change = store.begin().await?;
        change.hold(promised, clock::now()).await?;
        change.commit().await?;
        let is_small = self.upload.bytes == 0;
        let size = if is_small {
            let bytes = Bytes::from(std::mem::take(&mut self.buffer));
            let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            blobs.put_as(promised, bytes).await?;
            size
        } else {
            self.flush().await?;
            let parts = store.upload_parts(&self.upload.id).await?;
            blobs.assemble(&self.upload.id, &parts, promised).await?
        };
        let mut change = store.begin().await?;
        change.add_blob(&self.ask.repository, promised, size, clock::now()).await?;
        change.end_upload(&self.upload.id).await?;
        change.commit().await?;
        if !is_small {
            blobs.remove_upload(&self.upload.id).await?;
        }
        Ok(())
    }
}

/// The next bytes of a body, as long as some come.
pub(super) async fn next_bytes(stream: &mut BodyDataStream) -> Result<Option<Bytes>, OciError> {
    match timeout(READ_MAX, stream.next()).await {
        Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
        Ok(None) => Ok(None),
        Ok(Some(Err(_))) | Err(_) => Err(OciError::Broken),
    }
}

fn random_name() -> Result<String, OciError> {
    blobs::random_name().map_err(|error| OciError::Internal(error.into()))
}

fn place(repository: &Repository, id: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}

/// The range of an upload that has come; the specification has no form for none.
pub(super) fn received(bytes: u64) -> String {
    format!("0-{}", bytes.saturating_sub(1))
}

fn accepted(repository: &Repository, id: &str, bytes: u64) -> Response {
    let mut response = StatusCode::ACCEPTED.into_response();
    let headers = response.headers_mut();
    insert(headers, LOCATION, &place(repository, id));
    insert(headers, RANGE, &received(bytes));
    insert(headers, UPLOAD_ID, id);
    response
}

fn created(repository: &Repository, digest: ContentDigest) -> Response {
    let mut response = StatusCode::CREATED.into_response();
    let headers = response.headers_mut();
    insert(headers, LOCATION, &format!("/v2/{repository}/blobs/{digest}"));
    insert(headers, CONTENT_DIGEST, &digest.to_string());
    response
}
