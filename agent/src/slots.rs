//! The device's store of images: staged beside, complete under their digest, and a pointer to the live one of each model.
//!
//! ```text
//! slots/<sha256 of index>/          complete: index.json manifest.json config.json and the layers by name
//! slots/<sha256 of index>.partial/  being downloaded
//! active/<team>--<name>.json        {active, previous}
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sealift_protocol::digest::{Digest, Hasher};
use sealift_protocol::id::ModelName;
use sealift_protocol::image::{ImageManifest, LayerKind};
use sealift_protocol::limits::{MANIFEST_BYTES_MAX, SLOTS_MAX};
use sealift_protocol::report::ImageRef;
use serde::{Deserialize, Serialize};

use crate::disk::{self, Reserve, Secrecy};
use crate::worker::SlotFiles;

pub(crate) const INDEX_FILE: &str = "index.json";
pub(crate) const MANIFEST_FILE: &str = "manifest.json";
pub(crate) const CONFIG_FILE: &str = "config.json";

/// POSIX `stat`: the unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

/// A pointer is two versions and two digests.
const POINTER_BYTES_MAX: u64 = 4 << 10;

/// The store of images.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    slots: PathBuf,
    active: PathBuf,
}

/// What a model serves, and what it can go back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pointer {
    pub(crate) model: ModelName,
    pub(crate) active: ImageRef,
    pub(crate) previous: Option<ImageRef>,
}

/// Why an image on disk is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SlotError {
    #[error("cannot read or write {path}")]
    Disk {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} has another digest than was signed")]
    Digest { path: PathBuf },
    #[error("{path} cannot be read as what it should be")]
    Form { path: PathBuf },
    #[error("image {0} is not on disk")]
    Absent(Digest),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> SlotError {
    move |source| SlotError::Disk { path: path.to_owned(), source }
}

impl Slots {
    /// Opens the store below `root`.
    pub(crate) fn open(root: &Path) -> Result<Self, SlotError> {
        let slots = Self { slots: root.join("slots"), active: root.join("active") };
        for dir in [&slots.slots, &slots.active] {
            disk::private_dir(dir).map_err(at(dir))?;
        }
        Ok(slots)
    }

    /// Where a complete image lies.
    pub(crate) fn path(&self, index: Digest) -> PathBuf {
        self.slots.join(index.hex())
    }

    /// Where an image is put together.
    pub(crate) fn partial(&self, index: Digest) -> PathBuf {
        self.slots.join(format!("{}.partial", index.hex()))
    }

    /// Whether an image is complete on disk.
    pub(crate) fn has(&self, index: Digest) -> bool {
        self.path(index).join(MANIFEST_FILE).is_file()
    }

    /// The digest of a complete image's manifest: which of its variants is here.
    pub(crate) fn manifest_digest(&self, index: Digest) -> Result<Digest, SlotError> {
        Ok(Digest::of(&read_document(&self.path(index).join(MANIFEST_FILE))?))
    }

    /// Bytes that an ordinary user may still write.
    pub(crate) fn free_bytes(&self) -> Result<u64, SlotError> {
        let stat = rustix::fs::statvfs(&self.slots)
            .map_err(|errno| at(&self.slots)(io::Error::from(errno)))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Bytes of an image that are on disk already.
    pub(crate) fn present_bytes(&self, index: Digest) -> u64 {
        let dirs = [self.path(index), self.partial(index)];
        let files = dirs.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
        let metadata = files.filter_map(|file| file.metadata().ok());
        // What is missing in the middle takes no room yet.
        metadata.map(|metadata| metadata.len().min(metadata.blocks() * BLOCK_BYTES)).sum()
    }

    /// Gives a staged image its final name; from here on it can be made live.
    pub(crate) fn complete(&self, index: Digest) -> Result<(), SlotError> {
        let (partial, path) = (self.partial(index), self.path(index));
        File::open(&partial).and_then(|dir| dir.sync_all()).map_err(at(&partial))?;
        fs::rename(&partial, &path).map_err(at(&path))?;
        disk::sync_parent(&path).map_err(at(&path))
    }

    /// Takes a complete image back to staging, so that what is damaged can be fetched again.
    pub(crate) fn reopen(&self, index: Digest) -> Result<(), SlotError> {
        let (partial, path) = (self.partial(index), self.path(index));
        disk::remove_tree(&partial).map_err(at(&partial))?;
        fs::rename(&path, &partial).map_err(at(&path))
    }

    /// Checks every byte of a complete image against the digests that were signed.
    pub(crate) fn check(&self, index: Digest) -> Result<ImageManifest, SlotError> {
        if !self.has(index) {
            return Err(SlotError::Absent(index));
        }
        check_files(&self.path(index), index)
    }

    /// The files of a complete image, for a worker.
    pub(crate) fn files(&self, index: Digest) -> Result<SlotFiles, SlotError> {
        let dir = self.path(index);
        let manifest = read_manifest(&dir)?;
        let path = |kind| manifest.layer(kind).map(|layer| dir.join(&layer.name));
        let absent = || SlotError::Form { path: dir.clone() };
        let needed = |kind| path(kind).ok_or_else(absent);
        Ok(SlotFiles {
            weights: needed(LayerKind::Weights)?,
            weights_digest: manifest.layer(LayerKind::Weights).ok_or_else(absent)?.blob.digest,
            contract: needed(LayerKind::Contract)?,
            golden: needed(LayerKind::Golden)?,
            baseline: path(LayerKind::Baseline),
            policy: path(LayerKind::Policy),
        })
    }

    /// Points a model at its live image, in one step.
    pub(crate) fn point(&self, pointer: &Pointer, reserve: &Reserve) -> Result<(), SlotError> {
        let path = self.pointer_path(&pointer.model);
        let bytes = serde_json::to_vec_pretty(pointer)
            .map_err(|_| SlotError::Form { path: path.clone() })?;
        reserve.spend(|| disk::replace(&path, &bytes, Secrecy::Private)).map_err(at(&path))
    }

    /// Removes a model's pointer.
    pub(crate) fn unpoint(&self, model: &ModelName) -> Result<(), SlotError> {
        let path = self.pointer_path(model);
        disk::remove(&path).map_err(at(&path))
    }

    /// All pointers that can be read.
    pub(crate) fn pointers(&self) -> Result<Vec<Pointer>, SlotError> {
        let files = fs::read_dir(&self.active).map_err(at(&self.active))?;
        let pointer = |file: io::Result<fs::DirEntry>| {
            let bytes = disk::read(&file.ok()?.path(), POINTER_BYTES_MAX).ok()??;
            serde_json::from_slice(&bytes).ok()
        };
        let mut pointers: Vec<Pointer> = files.filter_map(pointer).take(SLOTS_MAX).collect();
        pointers.sort_by(|left, right| left.model.cmp(&right.model));
        Ok(pointers)
    }

    fn pointer_path(&self, model: &ModelName) -> PathBuf {
        self.active.join(format!("{}--{}.json", model.team(), model.name()))
    }

    /// Removes every image that is neither in `keep` nor named by a pointer, staged ones too.
    pub(crate) fn prune(&self, keep: &BTreeSet<Digest>) -> Result<(), SlotError> {
        // What is live, and what it goes back to, stays whatever the caller believes.
        let pointed = self.pointers()?.into_iter();
        let pointed = pointed.flat_map(|pointer| [Some(pointer.active), pointer.previous]);
        let pointed: Vec<_> = pointed.flatten().map(|image| image.index).collect();
        let kept: BTreeSet<_> = keep
            .iter()
            .chain(&pointed)
            .flat_map(|&index| [self.path(index), self.partial(index)])
            .collect();
        for entry in fs::read_dir(&self.slots).map_err(at(&self.slots))? {
            let path = entry.map_err(at(&self.slots))?.path();
            if !kept.contains(&path) {
                disk::remove_tree(&path).map_err(at(&path))?;
            }
        }
        Ok(())
    }
}

/// Reads the manifest that lies in an image's directory.
pub(crate) fn read_manifest(dir: &Path) -> Result<ImageManifest, SlotError> {
    let path = dir.join(MANIFEST_FILE);
    let bytes = read_document(&path)?;
    ImageManifest::parse(&bytes).map_err(|_| SlotError::Form { path })
}

fn read_document(path: &Path) -> Result<Vec<u8>, SlotError> {
    let absent = || SlotError::Form { path: path.to_owned() };
    disk::read(path, MANIFEST_BYTES_MAX as u64).map_err(at(path))?.ok_or_else(absent)
}

/// Index against its digest, manifest against the index, configuration and layers against the manifest.
pub(crate) fn check_files(dir: &Path, index: Digest) -> Result<ImageManifest, SlotError> {
    let differs = |name: &str| SlotError::Digest { path: dir.join(name) };
    let index_bytes = read_document(&dir.join(INDEX_FILE))?;
    if Digest::of(&index_bytes) != index {
        return Err(differs(INDEX_FILE));
    }
    let named = sealift_protocol::image::ModelIndex::parse(&index_bytes)
        .map_err(|_| SlotError::Form { path: dir.join(INDEX_FILE) })?;
    let manifest = Digest::of(&read_document(&dir.join(MANIFEST_FILE))?);
    if !named.variants().iter().any(|variant| variant.manifest.digest == manifest) {
        return Err(differs(MANIFEST_FILE));
    }
    let manifest = read_manifest(dir)?;
    if digest_of(&dir.join(CONFIG_FILE))? != manifest.config().digest {
        return Err(differs(CONFIG_FILE));
    }
    for layer in manifest.layers() {
        if digest_of(&dir.join(&layer.name))? != layer.blob.digest {
            return Err(differs(&layer.name));
        }
    }
    Ok(manifest)
}

/// Hashes a regular file; a link is refused.
fn digest_of(path: &Path) -> Result<Digest, SlotError> {
    let mut file = open_plain(path).map_err(at(path))?;
    digest_of_file(&mut file).map_err(at(path))
}

/// Hashes what is left of an open file.
pub(crate) fn digest_of_file(file: &mut File) -> io::Result<Digest> {
    let mut hasher = Hasher::default();
    io::copy(&mut io::BufReader::with_capacity(64 << 10, file), &mut Hashing(&mut hasher))?;
    Ok(hasher.finish())
}

/// Opens a regular file for reading, following no link.
pub(crate) fn open_plain(path: &Path) -> io::Result<File> {
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(no_follow).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.nlink() == 1 {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file"))
    }
}

/// Hashes what is written to it.
struct Hashing<'a>(&'a mut Hasher);

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod laws;
