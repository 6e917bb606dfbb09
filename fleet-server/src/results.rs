//! What devices bring up of their batches' predictions: one file of each batch that an operator has asked for with it.
//!
//! ```text
//!  operator ──▶ row: asked for ──────────────┐
//!  device ──▶ part, part, … ──▶ upload ──▶ whole, of the digest that the device said ──▶ blob ──▶ fetched, deleted after its days
//!               ▲                │
//!               └── how far? ────┘   after a cut, a restart, at another server
//! ```
//! Uploads and blobs are the registry's: parts are objects, a blob lies under its digest, and what nothing names is cleaned up.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealift_protocol::id::{DeviceId, TeamId, UnixMillis};
use sealift_protocol::limits::BATCH_RESULT_BYTES_MAX;
use sealift_protocol::request::{BatchJob, BatchRun, BatchState};
use sealift_protocol::upload::{InvalidPart, Place, Upload};
use tokio::time::{sleep, timeout};

use crate::blobs::{BlobError, Blobs, random_name};
use crate::clock;
use crate::config::Retention;
use crate::store::batch_results::{ResultRow, THROWN_AWAY_MAX, Whole};
use crate::store::uploads::NewPart;
use crate::store::{StoreError, TenantStore};

/// Predictions that are on their way at a time, of all devices: each has a place on the disk.
const UNDER_WAY_MAX: u64 = 256;

/// Parts of one upload: those of the largest file, and some that were sent in smaller ones.
const PARTS_MAX: i64 = 10_000;

/// For how long a device waits while its parts are put together; after that it asks again.
const TOGETHER_MAX: Duration = Duration::from_secs(10);

/// Between two looks at what is past its time.
const EVERY: Duration = Duration::from_mins(1);

/// Why predictions were not taken, or are not given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResultError {
    /// Nobody has asked this device for it, or what it had brought up was deleted.
    #[error("no operator has asked this device for the predictions of batch `{0}`")]
    NotAsked(String),
    /// Others are here by that name.
    #[error("other predictions of batch `{0}` are here already")]
    Other(String),
    /// Nothing has come, or not all of it.
    #[error("the predictions of batch `{0}` are not here")]
    NotHere(String),
    /// There is no room for the team.
    #[error(
        "team {team} may keep {max_mb} MiB of predictions here; {taken_mb} MiB are taken, and batch `{name}` has {size_mb} MiB"
    )]
    Quota {
        /// The team of the model.
        team: TeamId,
        /// The batch.
        name: String,
        /// What it may keep.
        max_mb: u64,
        /// What others of it take.
        taken_mb: u64,
        /// What this one would.
        size_mb: u64,
    },
    /// Too many at a time.
    #[error("predictions of {UNDER_WAY_MAX} batches are on their way already")]
    Busy,
    /// More bytes than one file may have.
    #[error(
        "the predictions have {0} bytes; at most {BATCH_RESULT_BYTES_MAX} are taken of one batch"
    )]
    TooLarge(u64),
    /// It sends what does not fit.
    #[error("a part of the predictions has {0}")]
    Part(#[from] InvalidPart),
    /// What came is not what was said.
    #[error("what came is not what the device has said: {0}")]
    Digest(String),
    /// The blobs.
    #[error(transparent)]
    Blobs(BlobError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No random number can be had.
    #[error("no random number can be had")]
    Random(#[from] getrandom::Error),
}

impl From<BlobError> for ResultError {
    fn from(error: BlobError) -> Self {
        if matches!(error, BlobError::Digest { .. }) {
            Self::Digest(error.to_string())
        } else {
            Self::Blobs(error)
        }
    }
}

/// Predictions of batches, of one tenant; cheap to clone.
#[derive(Clone)]
pub(crate) struct Results {
    store: TenantStore,
    blobs: Blobs,
    retention: Retention,
    /// Uploads that are being put together here.
    together: Arc<Mutex<BTreeSet<String>>>,
}

impl Results {
    /// Of one tenant.
    pub(crate) fn new(store: TenantStore, blobs: Blobs, retention: Retention) -> Self {
        Self { store, blobs, retention, together: Arc::default() }
    }

    /// The same for what devices bring.
    pub(crate) fn for_devices(&self) -> Self {
        Self { store: self.store.for_devices(), ..self.clone() }
    }

    /// Deletes what is past its time; never returns.
    pub(crate) async fn run(self) {
        loop {
            match self.throw_away(clock::now()).await {
                Ok(0) => (),
                Ok(gone) => {
                    tracing::info!(gone, "predictions of batches deleted after their time");
                    if gone >= THROWN_AWAY_MAX.unsigned_abs() {
                        continue;
                    }
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "predictions are not deleted; tried again later");
                }
            }
            sleep(EVERY).await;
        }
    }

    async fn throw_away(&self, now: UnixMillis) -> Result<u64, StoreError> {
        let mut change = self.store.begin().await?;
        let gone = change.throw_away_batch_results(now).await?;
        change.commit().await?;
        Ok(gone)
    }

    /// Where the bytes are.
    pub(crate) const fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Expects what a device is about to be asked for. Said again it is said once.
    pub(crate) async fn expect(
        &self,
        device: &DeviceId,
        run: &BatchRun,
        (by, now): (&str, UnixMillis),
    ) -> Result<bool, ResultError> {
        let mut change = self.store.begin().await?;
        let row = self.awaited(device, run, (by, now));
        let is_new = change.expect_batch_result(&row).await?;
        change.commit().await?;
        Ok(is_new)
    }

    /// Expects it in place of what another batch of the name has brought, or was to bring.
    pub(crate) async fn expect_anew(
        &self,
        device: &DeviceId,
        run: &BatchRun,
        (by, now): (&str, UnixMillis),
    ) -> Result<(), ResultError> {
        let mut change = self.store.begin().await?;
        change.remove_batch_result(device, &run.name, now).await?;
        change.expect_batch_result(&self.awaited(device, run, (by, now))).await?;
        Ok(change.commit().await?)
    }

    /// What a device is to bring, before anything has come.
    fn awaited(
        &self,
        device: &DeviceId,
        run: &BatchRun,
        (by, now): (&str, UnixMillis),
    ) -> ResultRow {
        ResultRow {
            device: device.clone(),
            run: run.clone(),
            asked_by: by.to_owned(),
            asked_at: now,
            upload: None,
            arrived: None,
            whole: None,
            done_at: None,
            delete_at: now.plus(self.retention.batches_ms()),
        }
    }

    /// What a batch is that has come, or is to come, by a name.
    pub(crate) async fn find(
        &self,
        device: &DeviceId,
        name: &str,
    ) -> Result<ResultRow, ResultError> {
        let row = self.store.batch_result(device, name).await?;
        row.ok_or_else(|| ResultError::NotAsked(name.to_owned()))
    }

    /// Deletes what has come, or was to come; returns whether there was anything.
    pub(crate) async fn remove(
        &self,
        device: &DeviceId,
        name: &str,
        now: UnixMillis,
    ) -> Result<bool, ResultError> {
        let mut change = self.store.begin().await?;
        let is_gone = change.remove_batch_result(device, name, now).await?;
        change.commit().await?;
        Ok(is_gone)
    }

    /// Expects nothing more of a batch that was ended; what is here whole stays.
    pub(crate) async fn give_up(
        &self,
        device: &DeviceId,
        job: &BatchJob,
    ) -> Result<(), ResultError> {
        let row = self.store.batch_result(device, &job.run.name).await?;
        let is_open = row.is_some_and(|row| row.done_at.is_none());
        if is_open && job.state == BatchState::Cancelled {
            self.remove(device, &job.run.name, clock::now()).await?;
        }
        Ok(())
    }

    /// How far the predictions of a batch are here, if they are the same as before.
    pub(crate) async fn upload(
        &self,
        device: &DeviceId,
        name: &str,
        whole: Whole,
    ) -> Result<Upload, ResultError> {
        let row = self.find(device, name).await?;
        match standing(&row, whole)? {
            Standing::Here => Ok(Upload { offset: whole.size, is_complete: true }),
            Standing::Coming { upload, bytes } if bytes == whole.size => {
                self.put_together(row, (upload, whole)).await
            }
            Standing::Coming { bytes, .. } => Ok(Upload { offset: bytes, is_complete: false }),
            Standing::Nothing => Ok(Upload { offset: 0, is_complete: false }),
        }
    }

    /// Takes a part, if it comes next; the answer says which one does after it.
    ///
    /// Rule (OWASP API Security Top 10, API4, unrestricted resource consumption): a device hands in what an operator has asked it for, once,
    /// at most so many bytes, and in the room that its model's team has.
    pub(crate) async fn take_part(
        &self,
        (device, name): (&DeviceId, &str),
        whole: Whole,
        (from, body): (u64, Vec<u8>),
        now: UnixMillis,
    ) -> Result<Upload, ResultError> {
        if whole.size > BATCH_RESULT_BYTES_MAX {
            return Err(ResultError::TooLarge(whole.size));
        }
        let until = Place { from, size: whole.size }.until(body.len(), BATCH_RESULT_BYTES_MAX)?;
        let row = self.find(device, name).await?;
        let upload = match standing(&row, whole)? {
            Standing::Here => return Ok(Upload { offset: whole.size, is_complete: true }),
            Standing::Coming { upload, bytes } if bytes == from => upload,
            Standing::Nothing if from == 0 => self.begin(&row, whole, now).await?,
            Standing::Coming { .. } | Standing::Nothing => {
                return self.upload(device, name, whole).await;
            }
        };
        if !self.put_part(&upload, (from, body), now).await? {
            return self.upload(device, name, whole).await;
        }
        if until < whole.size {
            return Ok(Upload { offset: until, is_complete: false });
        }
        self.put_together(row, (upload, whole)).await
    }

    /// Begins an upload in the room that the team has left.
    async fn begin(
        &self,
        row: &ResultRow,
        whole: Whole,
        now: UnixMillis,
    ) -> Result<String, ResultError> {
        let mut change = self.store.begin().await?;
        let (taken, under_way) = change.batch_room(row).await?;
        let max = self.retention.batch_team_bytes();
        if taken.saturating_add(whole.size) > max {
            let (team, name) = (row.team().clone(), row.run.name.clone());
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            let (max_mb, taken_mb, size_mb) = (max >> 20, mib(taken), mib(whole.size));
            return Err(ResultError::Quota { team, name, max_mb, taken_mb, size_mb });
        }
        if under_way >= UNDER_WAY_MAX {
            return Err(ResultError::Busy);
        }
        let id = random_name()?;
        if !change.begin_batch_upload(row, (&id, whole), now).await? {
            return Err(StoreError::Changed("upload of predictions").into());
        }
        change.commit().await?;
        // At once: whoever begins anew again and again must not fill the disk until the next cleaning.
        if let Some(before) = &row.upload {
            self.blobs.remove_upload(before).await?;
        }
        Ok(id)
    }

    /// Keeps a part; false if another has come to its place.
    async fn put_part(
        &self,
        upload: &str,
        (start, body): (u64, Vec<u8>),
        now: UnixMillis,
    ) -> Result<bool, ResultError> {
        let name = format!("{start:020}-{}", random_name()?);
        let part = NewPart { start, size: body.len() as u64, name: &name };
        self.blobs.put_part(upload, &name, body.into()).await?;
        let mut change = self.store.begin().await?;
        let is_next = change.add_upload_part(upload, part, PARTS_MAX, now).await?;
        change.commit().await?;
        if !is_next {
            self.blobs.remove_part(upload, &name).await?;
        }
        Ok(is_next)
    }

    /// Makes a blob of everything that has come. That goes on when the device has gone; who asks meanwhile hears that it is not done.
    async fn put_together(
        &self,
        row: ResultRow,
        (upload, whole): (String, Whole),
    ) -> Result<Upload, ResultError> {
        let not_yet = Upload { offset: whole.size, is_complete: false };
        let Some(hand) = Hand::take(&self.together, &upload) else { return Ok(not_yet) };
        let results = self.clone();
        let work = tokio::spawn(async move {
            let done = results.keep(&row, (&upload, whole)).await;
            drop(hand);
            if let Err(error) = &done {
                let (device, batch) = (&row.device, &row.run.name);
                tracing::warn!(%device, batch, %error, "predictions are not put together");
            }
            done
        });
        match timeout(TOGETHER_MAX, work).await {
            Ok(Ok(done)) => done.map(|()| Upload { is_complete: true, ..not_yet }),
            Ok(Err(_)) | Err(_) => Ok(not_yet),
        }
    }

    async fn keep(
        &self,
        row: &ResultRow,
        (upload, whole): (&str, Whole),
    ) -> Result<(), ResultError> {
        let digest = whole.digest.into();
        let mut change = self.store.begin().await?;
        change.hold(digest, clock::now()).await?;
        change.commit().await?;
        let parts = self.store.upload_parts(upload).await?;
        let assembled = self.blobs.assemble(upload, &parts, digest).await;
        let mut change = self.store.begin().await?;
        if let Err(error) = assembled {
            if matches!(error, BlobError::Digest { .. }) {
                change.end_batch_upload(&row.device, upload).await?;
                change.commit().await?;
                self.blobs.remove_upload(upload).await?;
            }
            return Err(error.into());
        }
        let now = clock::now();
        let times = (now, now.plus(self.retention.batches_ms()));
        let is_wanted = change.finish_batch_result(row, (upload, whole), times).await?;
        change.commit().await?;
        self.blobs.remove_upload(upload).await?;
        // Deleted meanwhile: what is loose is cleaned up.
        if is_wanted { Ok(()) } else { Err(ResultError::NotAsked(row.run.name.clone())) }
    }
}

/// An upload that is being put together by nobody else here; let go when the work ends, however it ends.
struct Hand {
    together: Arc<Mutex<BTreeSet<String>>>,
    upload: String,
}

impl Hand {
    fn take(together: &Arc<Mutex<BTreeSet<String>>>, upload: &str) -> Option<Self> {
        let is_free = held(together).insert(upload.to_owned());
        is_free.then(|| Self { together: Arc::clone(together), upload: upload.to_owned() })
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        held(&self.together).remove(&self.upload);
    }
}

fn held(together: &Mutex<BTreeSet<String>>) -> MutexGuard<'_, BTreeSet<String>> {
    together.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Compares what is here of a batch's predictions with what its device says of them.
fn standing(row: &ResultRow, whole: Whole) -> Result<Standing, ResultError> {
    let is_same = row.whole == Some(whole);
    if row.done_at.is_some() {
        let other = || ResultError::Other(row.run.name.clone());
        return if is_same { Ok(Standing::Here) } else { Err(other()) };
    }
    // One that nobody has gone on with for a day is cleaned up.
    let coming = row.upload.clone().zip(row.arrived).filter(|_| is_same);
    Ok(coming.map_or(Standing::Nothing, |(upload, bytes)| Standing::Coming { upload, bytes }))
}

/// How a batch's predictions stand, against what a device says of them now.
enum Standing {
    /// All of it is here.
    Here,
    /// So many bytes have come by this upload.
    Coming { upload: String, bytes: u64 },
    /// Nothing, or something else.
    Nothing,
}
