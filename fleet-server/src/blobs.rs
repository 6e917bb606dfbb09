//! Content-addressed bytes of a tenant, on disk or in an S3-compatible store.
//!
//! ```text
//! small bytes ──────────────────────────────────────────── hashed ──▶ <tenant>/sha256/<2 digits>/<hex>
//! stream ──▶ <tenant>/uploads/<upload>/<part> … ──read, hashed──┘ digest as promised
//! ```
//!
//! The parts of an upload are objects as well: they survive a crash, and every replica can go on with them.
//!
//! Architecture Invariant: what lies under a digest has that digest. Nothing gets there before its last byte was hashed.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, WriteMultipart};
use sealift_protocol::digest::encode_hex;
use sealift_protocol::id::TenantId;
use tokio::fs;
use tokio::task::{JoinError, spawn_blocking};

use crate::content::{ContentDigest, ContentHasher};

/// Parts in which uploads are kept and blobs go to the object store: the least that S3 takes.
pub(crate) const PART_BYTES: usize = 5 << 20;

/// Parts on their way to the object store at a time, of one blob.
const PARTS_MAX: usize = 2;

/// Why a blob was not stored or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    /// The configured place cannot be used.
    #[error("blobs cannot be kept at {0}")]
    Place(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The object store failed.
    #[error("the blob store failed")]
    Store(#[source] object_store::Error),
    /// The thread that hashes has ended.
    #[error("a blob was not hashed to its end")]
    Hash(#[source] JoinError),
    /// The bytes are not those that were promised.
    #[error("blob has digest {given}, not {promised}")]
    Digest {
        /// What came.
        given: Box<ContentDigest>,
        /// What was announced.
        promised: Box<ContentDigest>,
    },
    /// More bytes than allowed.
    #[error("blob is larger than {0} bytes")]
    TooLarge(u64),
    /// Nothing has this digest.
    #[error("blob {0} is not here")]
    Missing(ContentDigest),
}

/// 128 random bits: nobody finds another's upload by guessing.
pub(crate) fn random_name() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(encode_hex(&bytes))
}

/// The blobs of a tenant; cheap to clone.
#[derive(Clone)]
pub(crate) struct Blobs {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
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
    /// Opens the place that `url` names, or a folder below `data`.
    pub(crate) async fn open(url: Option<&str>, data: &FilePath) -> Result<Self, BlobError> {
        let (store, prefix) = match url {
            Some(url) => remote(url)?,
            None => (local(&data.join("blobs")).await?, Path::default()),
        };
        Ok(Self { store, prefix })
    }

    /// The part that belongs to `tenant`: no other can see it, or clean it up.
    pub(crate) fn of_tenant(self, tenant: &TenantId) -> Self {
        Self { prefix: self.prefix.join(tenant.as_str()), ..self }
    }

    /// Takes small bytes in, under their own digest.
    #[cfg(test)]
    pub(crate) async fn put(
        &self,
        bytes: Vec<u8>,
    ) -> Result<sealift_protocol::digest::Digest, BlobError> {
        let digest = sealift_protocol::digest::Digest::of(&bytes);
        self.write(&self.location(digest.into()), bytes.into()).await?;
        Ok(digest)
    }

    /// Takes small bytes in, if they have the digest that was promised.
    pub(crate) async fn put_as(
        &self,
        promised: ContentDigest,
        bytes: Bytes,
    ) -> Result<(), BlobError> {
        let given = digest_of(promised.hasher(), bytes.clone()).await?.finish();
        if given != promised {
            return Err(mismatch(given, promised));
        }
        self.write(&self.location(promised), bytes).await
    }

    /// Length of a blob, if it is here.
    pub(crate) async fn size(
        &self,
        digest: impl Into<ContentDigest>,
    ) -> Result<Option<u64>, BlobError> {
        match self.store.head(&self.location(digest.into())).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(BlobError::Store(error)),
        }
    }

    /// Serves a blob, or the part of it that `range` names.
    pub(crate) async fn serve(
        &self,
        digest: impl Into<ContentDigest>,
        range: Option<GetRange>,
    ) -> Result<Served, BlobError> {
        let digest = digest.into();
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
    pub(crate) async fn read(
        &self,
        digest: impl Into<ContentDigest>,
        max_bytes: u64,
    ) -> Result<Bytes, BlobError> {
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

    /// Removes a blob, if it is here. Whether anything still names it is the caller's to know.
    pub(crate) async fn remove(&self, digest: ContentDigest) -> Result<(), BlobError> {
        self.delete(&self.location(digest)).await
    }

    fn location(&self, digest: ContentDigest) -> Path {
        let hex = digest.hex();
        let folder = hex.get(..2).unwrap_or_default().to_owned();
        self.prefix.clone().join(digest.algorithm()).join(folder).join(hex)
    }
}

/// Uploads: bytes that have no digest yet.
impl Blobs {
    /// Keeps the next bytes of an upload.
    pub(crate) async fn put_part(
        &self,
        upload: &str,
        part: &str,
        bytes: Bytes,
    ) -> Result<(), BlobError> {
        self.write(&self.upload(upload).join(part), bytes).await
    }

    /// Makes a blob of an upload's parts, in their order, if it has the digest that was promised. Returns its length.
    pub(crate) async fn assemble(
        &self,
        upload: &str,
        parts: &[String],
        promised: ContentDigest,
    ) -> Result<u64, BlobError> {
        let location = self.location(promised);
        let target = self.store.put_multipart(&location).await.map_err(BlobError::Store)?;
        let mut target = WriteMultipart::new_with_chunk_size(target, PART_BYTES);
        let copied = self.copy_parts(upload, parts, promised, &mut target).await;
        let refused = match copied {
            Ok((given, bytes)) if given == promised => {
                target.finish().await.map_err(BlobError::Store)?;
                return Ok(bytes);
            }
            Ok((given, _)) => mismatch(given, promised),
            Err(error) => error,
        };
        target.abort().await.map_err(BlobError::Store)?;
        Err(refused)
    }

    async fn copy_parts(
        &self,
        upload: &str,
        parts: &[String],
        promised: ContentDigest,
        target: &mut WriteMultipart,
    ) -> Result<(ContentDigest, u64), BlobError> {
        let folder = self.upload(upload);
        let (mut hasher, mut total) = (promised.hasher(), 0_u64);
        for part in parts {
            let place = folder.clone().join(part.as_str());
            let got = self.store.get(&place).await.map_err(BlobError::Store)?;
            let bytes = got.bytes().await.map_err(BlobError::Store)?;
            hasher = digest_of(hasher, bytes.clone()).await?;
            total = total.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            target.wait_for_capacity(PARTS_MAX).await.map_err(BlobError::Store)?;
            target.put(bytes);
        }
        Ok((hasher.finish(), total))
    }

    /// Removes one part.
    pub(crate) async fn remove_part(&self, upload: &str, part: &str) -> Result<(), BlobError> {
        self.delete(&self.upload(upload).join(part)).await
    }

    /// Removes everything that is left of an upload.
    pub(crate) async fn remove_upload(&self, upload: &str) -> Result<(), BlobError> {
        let mut parts = self.store.list(Some(&self.upload(upload)));
        while let Some(part) = parts.try_next().await.map_err(BlobError::Store)? {
            self.delete(&part.location).await?;
        }
        Ok(())
    }

    /// The uploads of which there are parts.
    pub(crate) async fn uploads(&self) -> Result<BTreeSet<String>, BlobError> {
        let folder = self.prefix.clone().join(UPLOADS);
        let listed = self.store.list_with_delimiter(Some(&folder)).await;
        let folders = listed.map_err(BlobError::Store)?.common_prefixes;
        let names = folders.iter().filter_map(|folder| folder.filename());
        Ok(names.map(str::to_owned).collect())
    }

    fn upload(&self, upload: &str) -> Path {
        self.prefix.clone().join(UPLOADS).join(upload)
    }

    async fn write(&self, place: &Path, bytes: Bytes) -> Result<(), BlobError> {
        self.store.put(place, bytes.into()).await.map_err(BlobError::Store)?;
        Ok(())
    }

    async fn delete(&self, place: &Path) -> Result<(), BlobError> {
        match self.store.delete(place).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(BlobError::Store(error)),
        }
    }
}

/// The folder of unfinished uploads, beside those of the digests' algorithms.
const UPLOADS: &str = "uploads";

/// Hashes up to [`PART_BYTES`] on a thread of its own: that is milliseconds, too long between two requests.
async fn digest_of(mut hasher: ContentHasher, bytes: Bytes) -> Result<ContentHasher, BlobError> {
    let work = spawn_blocking(move || {
        hasher.update(&bytes);
        hasher
    });
    work.await.map_err(BlobError::Hash)
}

fn mismatch(given: ContentDigest, promised: ContentDigest) -> BlobError {
    BlobError::Digest { given: Box::new(given), promised: Box::new(promised) }
}

async fn local(folder: &FilePath) -> Result<Arc<dyn ObjectStore>, BlobError> {
    let unusable = |error| BlobError::Place(folder.display().to_string(), error);
    fs::create_dir_all(folder).await.map_err(|error| unusable(error.into()))?;
    let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| unusable(error.into()))?;
    Ok(Arc::new(store.with_fsync(true).with_automatic_cleanup(true)))
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
    use sealift_protocol::digest::Digest;

    use super::*;

    async fn blobs() -> (tempfile::TempDir, Blobs) {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(None, folder.path()).await.unwrap();
        (folder, blobs.of_tenant(&TenantId::parse("main").unwrap()))
    }

    async fn upload(blobs: &Blobs, parts: &[&'static str]) -> Vec<String> {
        let mut names = Vec::new();
        for (number, part) in parts.iter().enumerate() {
            let name = format!("{number:020}");
            blobs.put_part("u", &name, (*part).into()).await.unwrap();
            names.push(name);
        }
        names
    }

    #[tokio::test]
    async fn a_flipped_byte_is_not_taken_in_and_leaves_nothing() {
        let (folder, blobs) = blobs().await;
        let parts = upload(&blobs, &["wei", "ghty"]).await;
        let promised = ContentDigest::from(Digest::of(b"weights"));

        let assembled = blobs.assemble("u", &parts, promised).await.unwrap_err();
        let put = blobs.put_as(promised, "weighty".into()).await.unwrap_err();

        assert!(matches!(assembled, BlobError::Digest { .. }), "{assembled}");
        assert!(matches!(put, BlobError::Digest { .. }), "{put}");
        assert_eq!(blobs.size(promised).await.unwrap(), None);
        assert_eq!(blobs.size(Digest::of(b"weighty")).await.unwrap(), None);
        blobs.remove_upload("u").await.unwrap();
        assert_eq!(blobs.uploads().await.unwrap(), BTreeSet::new());
        let left = std::fs::read_dir(folder.path().join("blobs/main/sha256"));
        assert!(left.map_or(0, Iterator::count) <= 1, "only an empty folder may stay");
    }

    #[tokio::test]
    async fn a_blob_is_served_whole_and_in_ranges() {
        let (_folder, blobs) = blobs().await;
        let parts = upload(&blobs, &["wei", "g", "hts"]).await;
        let digest = Digest::of(b"weights");
        assert_eq!(blobs.assemble("u", &parts, digest.into()).await.unwrap(), 7);

        assert_eq!(blobs.read(digest, 7).await.unwrap().as_ref(), b"weights");
        let part = blobs.serve(digest, Some(GetRange::Offset(4))).await.unwrap();
        assert_eq!((part.size, part.range), (7, 4..7));
        assert!(matches!(blobs.read(digest, 6).await, Err(BlobError::TooLarge(6))));
    }

    #[tokio::test]
    async fn a_blob_may_go_by_its_longer_digest() {
        let (_folder, blobs) = blobs().await;
        let digest = ContentDigest::Sha512([0; 64]).same_of(b"weights");

        blobs.put_as(digest, "weights".into()).await.unwrap();

        assert_eq!(blobs.size(digest).await.unwrap(), Some(7));
        assert_eq!(blobs.size(Digest::of(b"weights")).await.unwrap(), None);
        blobs.remove(digest).await.unwrap();
        blobs.remove(digest).await.unwrap();
        assert_eq!(blobs.size(digest).await.unwrap(), None);
    }

    #[tokio::test]
    async fn tenants_do_not_see_each_others_blobs() {
        let (folder, blobs) = blobs().await;
        let other = Blobs::open(None, folder.path()).await.unwrap();
        let other = other.of_tenant(&TenantId::parse("other").unwrap());

        let digest = blobs.put(b"weights".to_vec()).await.unwrap();
        upload(&blobs, &["wei"]).await;

        assert_eq!(other.size(digest).await.unwrap(), None);
        assert_eq!(other.uploads().await.unwrap(), BTreeSet::new());
        assert_eq!(blobs.uploads().await.unwrap(), BTreeSet::from(["u".to_owned()]));
    }
}
