//! Blobs into the staging directory: resumed where they stopped, bounded by the size that was signed, hashed on the way.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sealift_protocol::digest::{Digest, Hasher};
use sealift_protocol::id::ModelName;
use sealift_protocol::image::Layer;
use sealift_protocol::report::Progress;
use tokio::sync::mpsc;

use crate::device::{Fault, FaultKind};
use crate::origin::{Blob, Origin};
use crate::slots::{self, SlotError, Slots};
use crate::verify;

/// Chunks between the network and the disk; each is at most a few hundred kilobytes.
const CHUNKS_AHEAD: usize = 4;

/// What to fetch, from where, to where.
#[derive(Debug, Clone)]
pub(crate) struct Download {
    pub(crate) origin: Origin,
    pub(crate) slots: Slots,
    pub(crate) model: ModelName,
    pub(crate) index: Digest,
}

impl Download {
    /// Fetches every layer that is not there yet; `progress` hears of every full hundredth.
    pub(crate) async fn run(self, progress: impl Fn(Progress) + Send) -> Result<(), Fault> {
        if self.slots.has(self.index) {
            return Ok(());
        }
        let dir = self.slots.partial(self.index);
        let manifest = slots::read_manifest(&dir).map_err(|error| verify::on_disk(&error))?;
        let total_bytes = manifest.size_bytes();
        let mut told = Told { progress, total_bytes, done_bytes: manifest.config().size, step: 0 };
        for layer in manifest.layers() {
            self.layer(&dir, layer, &mut told).await?;
        }
        Ok(())
    }

    async fn layer<P: Fn(Progress) + Send>(
        &self,
        dir: &Path,
        layer: &Layer,
        told: &mut Told<P>,
    ) -> Result<(), Fault> {
        let path = dir.join(&layer.name);
        let (size, digest) = (layer.blob.size, layer.blob.digest);
        let mut staged = open_staged(path.clone(), size).await?;
        told.add(staged.bytes);
        let complete = staged.bytes == size && size > 0;
        if !complete {
            let url = format!("/v2/{}/blobs/{digest}", self.model);
            let opened = self.origin.blob(&url, staged.bytes).await;
            let mut blob = opened.map_err(|error| verify::unreachable(&error))?;
            if blob.starts_at != staged.bytes {
                told.done_bytes -= staged.bytes;
                staged = fresh(path.clone()).await?;
            }
            staged = receive(&mut blob, staged, size, told).await?;
        }
        finish(staged, size, digest).await
    }
}

/// How much is done, and who hears of it.
struct Told<P> {
    progress: P,
    total_bytes: u64,
    done_bytes: u64,
    step: u64,
}

/// Steps of progress that are told: more would fill the spool.
const STEPS: u64 = 10;

impl<P: Fn(Progress)> Told<P> {
    fn add(&mut self, bytes: u64) {
        self.done_bytes += bytes;
        let step = self.done_bytes.saturating_mul(STEPS) / self.total_bytes.max(1);
        if step > self.step {
            self.step = step;
            let Self { done_bytes, total_bytes, .. } = *self;
            (self.progress)(Progress { done_bytes, total_bytes });
        }
    }
}

/// A blob on disk as far as it has come.
#[derive(Debug)]
struct Staged {
    path: PathBuf,
    file: File,
    hasher: Hasher,
    bytes: u64,
}

impl Staged {
    /// Takes up what is there, hashing it again; begins anew where there is nothing, or more than there may be.
    fn open(path: PathBuf, size: u64) -> io::Result<Self> {
        let Ok(mut read) = slots::open_plain(&path) else { return Self::fresh(path) };
        if read.metadata()?.len() > size {
            return Self::fresh(path);
        }
        let mut hashing = Hashing(Hasher::default());
        let bytes = io::copy(&mut read, &mut hashing)?;
        let file = OpenOptions::new().append(true).open(&path)?;
        Ok(Self { path, file, hasher: hashing.0, bytes })
    }

    /// A new file: never one that somebody else has put there.
    fn fresh(path: PathBuf) -> io::Result<Self> {
        crate::disk::remove(&path)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { path, file, hasher: Hasher::default(), bytes: 0 })
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all(chunk)?;
        self.hasher.update(chunk);
        self.bytes += chunk.len() as u64;
        Ok(())
    }
}

struct Hashing(Hasher);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn open_staged(path: PathBuf, size: u64) -> Result<Staged, Fault> {
    on_own_thread(path.clone(), move || Staged::open(path, size)).await
}

async fn fresh(path: PathBuf) -> Result<Staged, Fault> {
    on_own_thread(path.clone(), move || Staged::fresh(path)).await
}

async fn on_own_thread<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|_| Err(io::Error::other("the thread ended")));
    done.map_err(|source| verify::on_disk(&SlotError::Disk { path, source }))
}

/// Hands chunks to a thread that writes and hashes; stops at the first byte too many.
async fn receive<P: Fn(Progress)>(
    blob: &mut Blob,
    staged: Staged,
    size: u64,
    told: &mut Told<P>,
) -> Result<Staged, Fault> {
    let mut left = size - staged.bytes;
    let path = staged.path.clone();
    let (chunks, queue) = mpsc::channel(CHUNKS_AHEAD);
    let writer = tokio::task::spawn_blocking(move || write_all(staged, queue));
    let received = loop {
        let chunk = match blob.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break Ok(()),
            Err(error) => break Err(verify::unreachable(&error)),
        };
        let length = chunk.len() as u64;
        if length > left {
            let reason = format!("{} is longer than was signed", path.display());
            break Err(Fault::new(FaultKind::Corrupt, "image.size", &reason));
        }
        left -= length;
        told.add(length);
        // The writer has ended by an error, which it returns below.
        if chunks.send(chunk).await.is_err() {
            break Ok(());
        }
    };
    drop(chunks);
    let written = writer.await.unwrap_or_else(|_| Err(io::Error::other("the thread ended")));
    let staged = written.map_err(|source| verify::on_disk(&SlotError::Disk { path, source }))?;
    received.map(|()| staged)
}

fn write_all(mut staged: Staged, mut queue: mpsc::Receiver<Bytes>) -> io::Result<Staged> {
    while let Some(chunk) = queue.blocking_recv() {
        staged.write(&chunk)?;
    }
    Ok(staged)
}

/// Syncs a blob that is complete; removes one that is not what was signed, so that it is fetched anew.
async fn finish(staged: Staged, size: u64, digest: Digest) -> Result<(), Fault> {
    if staged.bytes < size {
        let reason =
            format!("{} ended after {} of {size} bytes", staged.path.display(), staged.bytes);
        let kind = FaultKind::Unreachable { spread_permille: verify::spread_permille() };
        return Err(Fault::new(kind, "image.short", &reason));
    }
    let Staged { path, file, hasher, .. } = staged;
    if hasher.finish() == digest {
        return on_own_thread(path, move || file.sync_all()).await;
    }
    let removed = path.clone();
    on_own_thread(path.clone(), move || crate::disk::remove(&removed)).await?;
    let reason = format!("{} has another digest than was signed", path.display());
    Err(Fault::new(FaultKind::Corrupt, "image.digest", &reason))
}
