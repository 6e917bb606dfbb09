//! A job on disk: what it is about, and its parts.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use sealift_protocol::digest::{Digest, Hasher};
use serde::{Deserialize, Serialize};

use super::part_name;

/// A job is some hundred bytes.
const JOB_BYTES_MAX: u64 = 64 << 10;

/// Bytes that are hashed at once.
const HASH_BYTES: usize = 1 << 20;

/// What a job is about. One that was broken off goes on only as the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Job {
    /// Version of this format; 1.
    schema: u32,
    model: String,
    /// Digest of the image's OCI index, so that all rows are answered by one image.
    image: String,
    /// Digest of the input.
    input: Digest,
    /// Of an archive, the array that was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    array: Option<String>,
    rows: u32,
}

/// What a finished job has done.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    pub(super) rows: u64,
    pub(super) parts: u64,
}

/// Why a job's directory is of no use.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    Disk {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process works there.
    #[error("another batch writes to {0}")]
    InUse(PathBuf),
    /// It has another job's parts.
    #[error("{path} has a job of another {what}: {before} then, {now} now; use a new directory")]
    Other {
        /// The directory.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// In the job that was begun.
        before: String,
        /// In this one.
        now: String,
    },
}

impl Job {
    /// Reads the input once, so that a job never goes on with another.
    pub(super) fn new(
        (input, array): (&Path, Option<&str>),
        model: &str,
        image: &str,
        rows: u32,
    ) -> Result<Self, JobError> {
        let at = |source| JobError::Disk { path: input.to_owned(), source };
        let (mut file, mut hasher) = (File::open(input).map_err(at)?, Hasher::default());
        let mut buffer = vec![0; HASH_BYTES];
        loop {
            let read = file.read(&mut buffer).map_err(at)?;
            if read == 0 {
                break;
            }
            hasher.update(buffer.get(..read).unwrap_or_default());
        }
        let (model, image) = (model.to_owned(), image.to_owned());
        let array = array.map(str::to_owned);
        Ok(Self { schema: 1, model, image, input: hasher.finish(), array, rows })
    }

    pub(super) fn image(&self) -> &str {
        &self.image
    }

    /// What differs from the job that was begun, and how.
    fn difference(&self, before: &Self) -> Option<(&'static str, String, String)> {
        let fields = |job: &Self| {
            [
                ("form", job.schema.to_string()),
                ("model", job.model.clone()),
                ("image", job.image.clone()),
                ("input", job.input.to_string()),
                ("array", job.array.clone().unwrap_or_else(|| "the only one".to_owned())),
                ("number of rows", job.rows.to_string()),
            ]
        };
        let mut pairs = fields(before).into_iter().zip(fields(self));
        let ((what, before), (_, now)) = pairs.find(|(before, now)| before != now)?;
        Some((what, before, now))
    }
}

/// Where a job's parts are; nobody else works there as long as this lives.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Begins a job, or goes on with the same.
    pub(super) fn open(path: &Path, job: &Job) -> Result<Self, JobError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| JobError::Disk { path, source }
        };
        fs::create_dir_all(path).map_err(at(path))?;
        let lock_path = path.join("lock");
        let lock = File::create(&lock_path).map_err(at(&lock_path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| JobError::InUse(path.to_owned()))?;
        let directory = Self { path: path.to_owned(), _lock: lock };
        let file = path.join("job.json");
        let begun = crate::disk::read(&file, JOB_BYTES_MAX).map_err(at(&file))?;
        let Some(begun) = begun else {
            let text = serde_json::to_vec_pretty(job).map_err(|error| at(&file)(error.into()))?;
            directory.replace("job.json", &text)?;
            return Ok(directory);
        };
        let begun: Job = serde_json::from_slice(&begun).map_err(|error| at(&file)(error.into()))?;
        match job.difference(&begun) {
            None => Ok(directory),
            Some((what, before, now)) => {
                Err(JobError::Other { path: path.to_owned(), what, before, now })
            }
        }
    }

    /// Whether a part is there; it is whole then.
    pub(super) fn has(&self, part: u64) -> bool {
        self.path.join(part_name(part)).exists()
    }

    /// Writes a part so that it is whole or is not there.
    pub(super) fn write(&self, part: u64, lines: &[u8]) -> Result<(), JobError> {
        self.replace(&part_name(part), lines)
    }

    /// Says that every part is there.
    pub(super) fn finish(&self, done: &Done) -> Result<(), JobError> {
        let text =
            serde_json::to_vec(done).map_err(|error| self.failed("done.json", error.into()))?;
        self.replace("done.json", &text)
    }

    /// The lines of a part that is there.
    #[cfg(feature = "parquet")]
    pub(super) fn read(&self, part: u64) -> Result<String, JobError> {
        let name = part_name(part);
        fs::read_to_string(self.path.join(&name)).map_err(|source| self.failed(&name, source))
    }

    /// Begins a file that takes its name with [`Directory::put`] alone.
    pub(super) fn begin(&self, name: &str) -> Result<File, JobError> {
        File::create(self.beside(name)).map_err(|source| self.failed(name, source))
    }

    /// Gives a file that was begun its name, whole, in place of what has it.
    pub(super) fn put(&self, name: &str, file: &File) -> Result<(), JobError> {
        let failed = |source| self.failed(name, source);
        file.sync_all().map_err(failed)?;
        fs::rename(self.beside(name), self.path.join(name)).map_err(failed)?;
        File::open(&self.path).and_then(|directory| directory.sync_all()).map_err(failed)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), JobError> {
        let mut file = self.begin(name)?;
        file.write_all(bytes).map_err(|source| self.failed(name, source))?;
        self.put(name, &file)
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.new"))
    }

    fn failed(&self, name: &str, source: io::Error) -> JobError {
        JobError::Disk { path: self.path.join(name), source }
    }
}
