//! Cleans up: uploads that nobody goes on with, blobs that no manifest names, bytes that nothing names.
//!
//! Every step looks at the database again and is safe to repeat; a server that is killed in between goes on at its next turn. Nothing is
//! taken from a push under way (see `store/loose.rs`), and a blob that any manifest names stays, tagged or not.

use std::time::Duration;

use sealift_protocol::id::UnixMillis;
use sealift_protocol::limits::MANIFEST_BYTES_MAX;

use super::document::{Document, InvalidDocument};
use crate::blobs::{BlobError, Blobs};
use crate::clock;
use crate::store::{StoreError, TenantStore};

/// How often it is looked; what waits for it costs disk, nothing else.
const EVERY: Duration = Duration::from_mins(10);

/// A push that was cut is gone on with within a day, or begun anew.
const UPLOAD_KEPT_MS: i64 = 24 * HOUR_MS;
/// A blob is pushed before the manifest that names it; the longest pushes are hours, people's pauses a day.
pub(crate) const BLOB_KEPT_MS: i64 = 24 * HOUR_MS;
/// Time to make a blob of its parts: 16 GiB at 5 MB/s.
pub(crate) const FINISH_MAX: Duration = Duration::from_hours(1);
/// Bytes are written at most [`FINISH_MAX`] before the row that names them; this is twice that, for clocks that differ.
const LOOSE_KEPT_MS: i64 = 2 * HOUR_MS;
const HOUR_MS: i64 = 3_600_000;

/// Why a turn ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SweepError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blob store.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// A manifest that was taken once cannot be read any more.
    #[error("a stored manifest cannot be read")]
    Manifest(#[from] InvalidDocument),
}

/// What a turn did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Uploads that were ended, or of which remains were removed.
    pub(crate) uploads: u64,
    /// Blobs taken out of repositories.
    pub(crate) blobs: u64,
    /// Contents whose bytes were removed.
    pub(crate) contents: u64,
}

/// Cleans up one tenant's registry.
#[derive(Clone)]
pub(crate) struct Sweeper {
    store: TenantStore,
    blobs: Blobs,
}

impl Sweeper {
    /// A sweeper of `store` and `blobs`.
    pub(crate) const fn new(store: TenantStore, blobs: Blobs) -> Self {
        Self { store, blobs }
    }

    /// Cleans up again and again; never returns.
    pub(crate) async fn run(self) {
        loop {
            match self.sweep(clock::now()).await {
                Ok(swept) if swept == Swept::default() => (),
                Ok(Swept { uploads, blobs, contents }) => {
                    tracing::info!(uploads, blobs, contents, "registry cleaned up");
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "registry not cleaned up; tried again later");
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Cleans up once, as of `now`.
    pub(crate) async fn sweep(&self, now: UnixMillis) -> Result<Swept, SweepError> {
        let uploads = self.end_uploads(now).await? + self.remove_remains().await?;
        // A manifest that was not read yet may name anything: nothing is unreferenced until all are read.
        let blobs = if self.describe().await? { self.drop_unreferenced(now).await? } else { 0 };
        let contents = self.remove_loose(now).await?;
        Ok(Swept { uploads, blobs, contents })
    }

    async fn end_uploads(&self, now: UnixMillis) -> Result<u64, SweepError> {
        let mut change = self.store.begin().await?;
        let ended = change.end_idle_uploads(now.plus(-UPLOAD_KEPT_MS)).await?;
        change.commit().await?;
        Ok(u64::try_from(ended.len()).unwrap_or(u64::MAX))
    }

    /// Removes the parts of uploads that have ended. An upload's row is there before its first part, so no row means that it has ended.
    async fn remove_remains(&self) -> Result<u64, SweepError> {
        let mut removed = 0;
        for upload in self.blobs.uploads().await? {
            if !self.store.is_upload(&upload).await? {
                self.blobs.remove_upload(&upload).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Reads manifests that were pushed before the registry did; returns whether all are read.
    async fn describe(&self) -> Result<bool, SweepError> {
        for (repository, digest) in self.store.undescribed().await? {
            let bytes = self.blobs.read(digest, MANIFEST_BYTES_MAX as u64).await?;
            let reference = super::name::Reference::Digest(digest);
            let Some(stored) = self.store.manifest(&repository, &reference).await? else {
                continue;
            };
            let document = Document::parse(&bytes, Some(&stored.media_type))?;
            let mut change = self.store.begin().await?;
            change.describe_manifest(&repository, digest, &document).await?;
            change.commit().await?;
        }
        Ok(self.store.undescribed().await?.is_empty())
    }

    async fn drop_unreferenced(&self, now: UnixMillis) -> Result<u64, SweepError> {
        let mut change = self.store.begin().await?;
        let dropped = change.drop_unreferenced(now.plus(-BLOB_KEPT_MS), now).await?;
        change.commit().await?;
        Ok(dropped)
    }

    async fn remove_loose(&self, now: UnixMillis) -> Result<u64, SweepError> {
        let before = now.plus(-LOOSE_KEPT_MS);
        let mut removed = 0;
        for digest in self.store.loose(before).await? {
            let mut change = self.store.begin().await?;
            if change.take_loose(digest, before).await? {
                // Within the change: its lock keeps a push of the same bytes waiting.
                self.blobs.remove(digest).await?;
                removed += 1;
            }
            change.commit().await?;
        }
        Ok(removed)
    }
}
