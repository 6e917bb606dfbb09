//! Content-addressed bytes of model images, on disk or in an S3-compatible store.
//!
//! ```text
//! stream ──▶ staging/<random>  (counted, hashed)  ──digest as promised──▶ sha256/<2 digits>/<hex>
//! ```
//!
//! Architecture Invariant: what lies under a digest has that digest. Nothing gets there before its last byte was hashed.

use std::io;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, WriteMultipart};
use sealift_protocol::digest::{Digest, Hasher, encode_hex};
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Parts in which a blob goes to the object store; S3 takes none below 5 MiB.
const PART_BYTES: usize = 8 << 20;

/// Parts on their way at a time.
const PARTS_MAX: usize = 4;

/// Why a blob was not stored or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    /// The configured place cannot be used.
    #[error("blobs cannot be kept at {0}")]
    Place(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The staging area on disk failed.
    #[error("cannot stage a blob")]
    Staging(#[source] io::Error),
    /// The object store failed.
    #[error("the blob store failed")]
    Store(#[source] object_store::Error),
    /// The bytes are not those that were promised.
    #[error("blob has digest {given}, not {promised}")]
    Digest {
        /// What came.
        given: Digest,
        /// What was announced.
        promised: Digest,
    },
    /// More bytes than allowed.
    #[error("blob is larger than {0} bytes")]
    TooLarge(u64),
    /// Nothing has this digest.
    #[error("blob {0} is not here")]
    Missing(Digest),
}

/// The blobs of all images; cheap to clone.
#[derive(Clone)]
pub(crate) struct Blobs {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    staging: Arc<FilePath>,
}

/// A blob on its way in. Dropped without [`Blobs::keep`] it leaves nothing behind.
pub(crate) struct Staged {
    path: PathBuf,
    file: File,
    hasher: Hasher,
    bytes: u64,
}

/// A blob, or a range of it, on its way out.
pub(crate) struct Served {
    /// Length of the whole blob.
    pub(crate) size: u64,
    /// Which bytes follow.
    pub(crate) range: Range<u64>,
    /// The bytes.
    pub(crate) stream: BoxStream<'static, object_store::Result<Bytes>>,
}

impl Blobs {
    /// Opens the place that `url` names, or a folder below `data`. Staged remains of an earlier run are removed.
    pub(crate) async fn open(url: Option<&str>, data: &FilePath) -> Result<Self, BlobError> {
        let staging = data.join("staging");
        if let Err(error) = fs::remove_dir_all(&staging).await
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(BlobError::Staging(error));
        }
        fs::create_dir_all(&staging).await.map_err(BlobError::Staging)?;
        let (store, prefix) = match url {
            Some(url) => remote(url)?,
            None => (local(&data.join("blobs")).await?, Path::default()),
        };
        Ok(Self { store, prefix, staging: staging.into() })
    }

    /// Begins a blob.
    pub(crate) async fn stage(&self) -> Result<Staged, BlobError> {
        let mut name = [0; 16];
        getrandom::fill(&mut name).map_err(|error| BlobError::Staging(error.into()))?;
        let path = self.staging.join(encode_hex(&name));
        let file = File::create_new(&path).await.map_err(BlobError::Staging)?;
        Ok(Staged { path, file, hasher: Hasher::default(), bytes: 0 })
    }

    /// Takes a staged blob in if it has the digest that was promised. Returns its length.
    pub(crate) async fn keep(&self, staged: Staged, promised: Digest) -> Result<u64, BlobError> {
        let (mut staged, given) = staged.finish().await?;
        if given != promised {
            return Err(BlobError::Digest { given, promised });
        }
        let location = self.location(promised);
        let upload = self.store.put_multipart(&location).await.map_err(BlobError::Store)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        staged.file = File::open(&staged.path).await.map_err(BlobError::Staging)?;
        let mut part = vec![0; PART_BYTES];
        loop {
            let read = staged.file.read(&mut part).await.map_err(BlobError::Staging)?;
            let Some(bytes) = part.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            upload.wait_for_capacity(PARTS_MAX).await.map_err(BlobError::Store)?;
            upload.write(bytes);
        }
        upload.finish().await.map_err(BlobError::Store)?;
        Ok(staged.bytes)
    }

    /// Takes small bytes in, under their own digest.
    pub(crate) async fn put(&self, bytes: Vec<u8>) -> Result<Digest, BlobError> {
        let digest = Digest::of(&bytes);
        self.store.put(&self.location(digest), bytes.into()).await.map_err(BlobError::Store)?;
        Ok(digest)
    }

    /// Length of a blob, if it is here.
    pub(crate) async fn size(&self, digest: Digest) -> Result<Option<u64>, BlobError> {
        match self.store.head(&self.location(digest)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(BlobError::Store(error)),
        }
    }

    /// Serves a blob, or the part of it that `range` names.
    pub(crate) async fn serve(
        &self,
        digest: Digest,
        range: Option<GetRange>,
    ) -> Result<Served, BlobError> {
        let options = GetOptions { range, ..GetOptions::default() };
        let got = match self.store.get_opts(&self.location(digest), options).await {
            Ok(got) => got,
            Err(object_store::Error::NotFound { .. }) => return Err(BlobError::Missing(digest)),
            Err(error) => return Err(BlobError::Store(error)),
        };
        let (size, range) = (got.meta.size, got.range.clone());
        Ok(Served { size, range, stream: got.into_stream() })
    }

    /// Reads a whole small blob.
    pub(crate) async fn read(&self, digest: Digest, max_bytes: u64) -> Result<Bytes, BlobError> {
        let served = self.serve(digest, None).await?;
        if served.size > max_bytes {
            return Err(BlobError::TooLarge(max_bytes));
        }
        let mut stream = served.stream;
        let mut bytes = Vec::new();
        while let Some(part) = stream.next().await {
            bytes.extend_from_slice(&part.map_err(BlobError::Store)?);
        }
        Ok(bytes.into())
    }

    fn location(&self, digest: Digest) -> Path {
        let hex = digest.hex();
        let folder = hex.get(..2).unwrap_or_default().to_owned();
        self.prefix.clone().join("sha256").join(folder).join(hex)
    }
}

impl Staged {
    /// Bytes so far.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends `bytes`, if the whole then has at most `max_bytes`.
    pub(crate) async fn append(&mut self, bytes: &[u8], max_bytes: u64) -> Result<(), BlobError> {
        let total = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if total > max_bytes {
            return Err(BlobError::TooLarge(max_bytes));
        }
        // Network reads are some kilobytes: hashing one takes microseconds, less than handing it to another thread.
        self.hasher.update(bytes);
        self.file.write_all(bytes).await.map_err(BlobError::Staging)?;
        self.bytes = total;
        Ok(())
    }

    async fn finish(mut self) -> Result<(Self, Digest), BlobError> {
        self.file.flush().await.map_err(BlobError::Staging)?;
        let digest = std::mem::take(&mut self.hasher).finish();
        Ok((self, digest))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, "staged blob not removed; the next start does it");
        }
    }
}

async fn local(folder: &FilePath) -> Result<Arc<dyn ObjectStore>, BlobError> {
    let unusable = |error| BlobError::Place(folder.display().to_string(), error);
    fs::create_dir_all(folder).await.map_err(|error| unusable(error.into()))?;
    let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| unusable(error.into()))?;
    Ok(Arc::new(store.with_fsync(true)))
}

/// An S3-compatible store takes its credentials and endpoint from the usual `AWS_…` variables of the environment.
fn remote(url: &str) -> Result<(Arc<dyn ObjectStore>, Path), BlobError> {
    let unusable = |error| BlobError::Place(url.to_owned(), error);
    let parsed = url::Url::parse(url).map_err(|error| unusable(error.into()))?;
    let settings = std::env::vars()
        .filter(|(name, _)| name.starts_with("AWS_"))
        .map(|(name, value)| (name.to_ascii_lowercase(), value));
    let (store, prefix) =
        object_store::parse_url_opts(&parsed, settings).map_err(|error| unusable(error.into()))?;
    Ok((Arc::from(store), prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn blobs() -> (tempfile::TempDir, Blobs) {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(None, folder.path()).await.unwrap();
        (folder, blobs)
    }

    #[tokio::test]
    async fn a_flipped_byte_is_not_taken_in_and_leaves_nothing() {
        let (folder, blobs) = blobs().await;
        let mut staged = blobs.stage().await.unwrap();
        staged.append(b"weighty", 100).await.unwrap();
        let promised = Digest::of(b"weights");

        let refused = blobs.keep(staged, promised).await.unwrap_err();

        assert!(matches!(refused, BlobError::Digest { .. }), "{refused}");
        assert_eq!(blobs.size(promised).await.unwrap(), None);
        assert_eq!(blobs.size(Digest::of(b"weighty")).await.unwrap(), None);
        let staging = std::fs::read_dir(folder.path().join("staging")).unwrap();
        assert_eq!(staging.count(), 0);
    }

    #[tokio::test]
    async fn a_blob_is_served_whole_and_in_ranges() {
        let (_folder, blobs) = blobs().await;
        let mut staged = blobs.stage().await.unwrap();
        staged.append(b"wei", 7).await.unwrap();
        staged.append(b"ghts", 7).await.unwrap();
        let digest = Digest::of(b"weights");
        assert_eq!(blobs.keep(staged, digest).await.unwrap(), 7);

        assert_eq!(blobs.read(digest, 7).await.unwrap().as_ref(), b"weights");
        let part = blobs.serve(digest, Some(GetRange::Offset(4))).await.unwrap();
        assert_eq!((part.size, part.range), (7, 4..7));
        assert!(matches!(blobs.read(digest, 6).await, Err(BlobError::TooLarge(6))));
    }

    #[tokio::test]
    async fn more_bytes_than_allowed_are_refused_while_they_come() {
        let (_folder, blobs) = blobs().await;
        let mut staged = blobs.stage().await.unwrap();
        staged.append(b"1234", 4).await.unwrap();
        assert!(matches!(staged.append(b"5", 4).await, Err(BlobError::TooLarge(4))));
    }
}
