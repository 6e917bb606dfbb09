//! Brings a job's predictions up to the server, as one file: its parts one after the other, or the Parquet file that was made of them.
//!
//! What was told of the whole is told anew by each try, and the server goes on only with the same bytes. All of it is read once to know
//! what it is; further tries go by that for as long as the files are seen to be the same.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use sealift_protocol::digest::Hasher;
use sealift_protocol::limits::{BATCH_RESULT_BYTES_MAX, UPLOAD_PART_BYTES_MAX};
use sealift_protocol::request::{BatchFormat, BatchRun, BatchUpload};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, spawn_blocking};

use crate::batch::{fence, file_name, part_name};
use crate::origin::Origin;
use crate::upload::{Destination, NotUp};

/// What the server will never take, whoever asks how often.
const FINAL: [&str; 4] = ["batch.not-asked", "batch.quota", "batch.too-large", "batch.other"];

/// What the server says where the bytes are not those that were told of.
const OTHER_BYTES: &str = "batch.digest";

/// What is heard of a job whose predictions are brought up.
#[derive(Debug)]
pub(super) enum Sent {
    /// What it is, for the tries after this one; nothing where the server has seen that it is not.
    Known(Option<Arc<Whole>>),
    /// So far it is.
    Progress(BatchUpload),
    /// All of it is there.
    Done(BatchUpload),
    /// It cannot go on, now or at all.
    Failed { is_final: bool, reason: String },
}

/// Predictions on their way; dropped, they are left where they are.
pub(super) struct Sending {
    task: AbortHandle,
    heard: mpsc::Receiver<Sent>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why predictions are not up.
#[derive(Debug, thiserror::Error)]
enum NotSent {
    #[error("the predictions cannot be read")]
    Read(#[from] io::Error),
    #[error(
        "the predictions have {0} bytes, more than the {BATCH_RESULT_BYTES_MAX} that the server takes of one batch"
    )]
    TooLarge(u64),
    #[error("the input has no rows, so that there are no predictions to bring up")]
    Nothing,
    #[error("the predictions are not up")]
    Up(#[from] NotUp),
}

impl Sending {
    /// Goes on with bringing up the predictions of a job, in so many parts, which an earlier try may have come to know.
    pub(super) fn start(
        origin: Origin,
        directories: Vec<PathBuf>,
        job: (BatchRun, u64),
        known: Option<Arc<Whole>>,
    ) -> Self {
        let (told, heard) = mpsc::channel(4);
        let task = tokio::spawn(async move {
            let name = job.0.name.clone();
            let whole = spawn_blocking(move || Whole::again(known, directories, job)).await;
            let whole = whole.unwrap_or_else(|error| Err(io::Error::other(error).into()));
            let sent = match whole {
                Ok(whole) => send(&origin, &name, &whole, &told).await,
                Err(error) => Err(error),
            };
            let said = match sent {
                Ok(whole) => Sent::Done(whole),
                Err(error) => {
                    let reason = crate::verify::with_cause(&error);
                    Sent::Failed { is_final: is_final(&error), reason }
                }
            };
            // Whoever listened may have gone.
            drop(told.send(said).await);
        });
        Self { task: task.abort_handle(), heard }
    }

    /// What is heard next.
    pub(super) async fn next(&mut self) -> Sent {
        let ended = || Sent::Failed { is_final: false, reason: "the upload has ended".to_owned() };
        self.heard.recv().await.unwrap_or_else(ended)
    }
}

fn is_final(error: &NotSent) -> bool {
    match error {
        NotSent::Read(_) => false,
        NotSent::TooLarge(_) | NotSent::Nothing => true,
        NotSent::Up(error) => error.is_one_of(&FINAL),
    }
}

async fn send(
    origin: &Origin,
    name: &str,
    whole: &Arc<Whole>,
    told: &mpsc::Sender<Sent>,
) -> Result<BatchUpload, NotSent> {
    // Whoever listened may have gone.
    drop(told.send(Sent::Known(Some(Arc::clone(whole)))).await);
    let (path, said) = (format!("/batches/{name}/result"), format!("digest={}", whole.said.digest));
    let to = Destination { origin, path: &path, whole: &said, size: whole.said.size_bytes };
    let tell = |bytes| {
        // Whoever does not keep up hears the next.
        drop(told.try_send(Sent::Progress(BatchUpload { bytes, ..whole.said })));
    };
    let read = |from| {
        let whole = Arc::clone(whole);
        async move {
            let read = spawn_blocking(move || whole.read(from)).await;
            read.unwrap_or_else(|error| Err(io::Error::other(error)))
        }
    };
    if let Err(error) = to.bring_up(read, tell).await {
        if error.is_one_of(&[OTHER_BYTES]) {
            drop(told.send(Sent::Known(None)).await);
        }
        return Err(error.into());
    }
    Ok(BatchUpload { bytes: whole.said.size_bytes, ..whole.said })
}

/// The files of a job's predictions, as one.
#[derive(Debug)]
pub(super) struct Whole {
    directories: Vec<PathBuf>,
    job: (BatchRun, u64),
    pieces: Vec<Piece>,
    said: BatchUpload,
}

/// A file, and the byte of the whole after its last.
#[derive(Debug)]
struct Piece {
    path: String,
    until: u64,
    seen: Seen,
}

/// What another file at the same path, or other bytes in the same file, differ in.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    file: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl Seen {
    fn of(file: &File) -> io::Result<Self> {
        let it = file.metadata()?;
        let changed = (it.ctime(), it.ctime_nsec());
        Ok(Self { file: (it.dev(), it.ino()), size: it.len(), changed })
    }
}

impl Whole {
    /// What is known of a job's predictions, or, where it is another job or a file has changed since, what is found out by reading all.
    fn again(
        known: Option<Arc<Self>>,
        directories: Vec<PathBuf>,
        job: (BatchRun, u64),
    ) -> Result<Arc<Self>, NotSent> {
        let is_same = |whole: &Arc<Self>| whole.job == job && whole.is_unchanged();
        match known.filter(is_same) {
            Some(whole) => Ok(whole),
            None => Self::of(directories, job).map(Arc::new),
        }
    }

    /// Whether every file is the one that was read, and was not written to since.
    fn is_unchanged(&self) -> bool {
        self.pieces.iter().all(|piece| {
            let file = fence::open_file(&self.directories, &piece.path);
            let seen = file.ok().and_then(|file| Seen::of(&file).ok());
            seen.as_ref() == Some(&piece.seen)
        })
    }

    /// Reads all of it once, to know what it is.
    fn of(directories: Vec<PathBuf>, job: (BatchRun, u64)) -> Result<Self, NotSent> {
        let (run, parts) = &job;
        let names = match run.format {
            BatchFormat::Jsonl => (0..*parts).map(part_name).collect(),
            BatchFormat::Parquet => vec![file_name(BatchFormat::Parquet)],
        };
        let (mut pieces, mut until, mut hasher) = (Vec::new(), 0, Hasher::default());
        let mut buffer = vec![0; UPLOAD_PART_BYTES_MAX];
        for name in names {
            let path = format!("{}/{name}", run.output);
            let mut file = fence::open_file(&directories, &path).map_err(io::Error::other)?;
            // Before it is read: what is written meanwhile shows the next time.
            let seen = Seen::of(&file)?;
            loop {
                let read = file.read(&mut buffer)?;
                if read == 0 {
                    break;
                }
                until += read as u64;
                hasher.update(buffer.get(..read).unwrap_or_default());
            }
            if until > BATCH_RESULT_BYTES_MAX {
                return Err(NotSent::TooLarge(until));
            }
            pieces.push(Piece { path, until, seen });
        }
        if until == 0 {
            return Err(NotSent::Nothing);
        }
        let said = BatchUpload { bytes: 0, size_bytes: until, digest: hasher.finish() };
        Ok(Self { directories, job, pieces, said })
    }

    /// At most as many bytes as a part has, from a place on; over as many files as that takes.
    fn read(&self, from: u64) -> io::Result<Vec<u8>> {
        let first = self.pieces.partition_point(|piece| piece.until <= from);
        let (mut at, mut bytes) = (from, Vec::new());
        let mut begin = first.checked_sub(1).and_then(|before| self.pieces.get(before));
        for piece in self.pieces.iter().skip(first) {
            let room = (UPLOAD_PART_BYTES_MAX - bytes.len()) as u64;
            if room == 0 {
                break;
            }
            let before = begin.map_or(0, |before| before.until);
            let file = fence::open_file(&self.directories, &piece.path);
            let mut file = file.map_err(io::Error::other)?;
            file.seek(SeekFrom::Start(at - before))?;
            let wanted = room.min(piece.until - at);
            if file.take(wanted).read_to_end(&mut bytes)? as u64 != wanted {
                return Err(io::Error::other(format!("{} has become shorter", piece.path)));
            }
            at += wanted;
            begin = Some(piece);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use sealift_protocol::digest::Digest;
    use sealift_protocol::id::ModelName;

    use super::*;

    fn run(output: &str, format: BatchFormat) -> BatchRun {
        BatchRun {
            name: "night".to_owned(),
            model: ModelName::parse("vision/digits").unwrap(),
            input: "/data/rows.csv".to_owned(),
            output: output.to_owned(),
            rows: 256,
            no_header: false,
            array: None,
            format,
            upload: true,
        }
    }

    #[test]
    fn files_are_read_as_one_from_any_place_and_never_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        std::fs::create_dir(&out).unwrap();
        let mut all = Vec::new();
        for (part, length) in [5_usize, 0, 200_000, 1, 100_000].into_iter().enumerate() {
            let byte = u8::try_from(part).unwrap();
            let bytes = vec![byte; length];
            std::fs::write(out.join(part_name(part as u64)), &bytes).unwrap();
            all.extend(bytes);
        }
        let (open, run) =
            (vec![folder.path().to_owned()], run(out.to_str().unwrap(), BatchFormat::Jsonl));

        let whole = Whole::of(open.clone(), (run.clone(), 5)).unwrap();

        assert_eq!(whole.said.size_bytes, all.len() as u64);
        assert_eq!(whole.said.digest, Digest::of(&all));
        for from in [0, 4, 5, 6, 200_004, 200_005, 200_006, all.len() - 1, all.len()] {
            let until = all.len().min(from + UPLOAD_PART_BYTES_MAX);
            assert_eq!(whole.read(from as u64).unwrap(), all[from..until], "from {from}");
        }

        let nothing = Whole::of(open.clone(), (run.clone(), 0)).err().unwrap();
        assert!(is_final(&nothing), "no try brings up what is not there: {nothing}");

        std::fs::write(folder.path().join("secret"), "key").unwrap();
        std::fs::remove_file(out.join(part_name(3))).unwrap();
        std::os::unix::fs::symlink("../secret", out.join(part_name(3))).unwrap();
        assert!(Whole::of(open, (run, 5)).is_err(), "a link leads to other files");
    }

    #[test]
    fn what_is_known_of_files_is_believed_until_one_of_them_changes() {
        let folder = tempfile::tempdir().unwrap();
        let part = |part| folder.path().join(part_name(part));
        std::fs::write(part(0), "one").unwrap();
        std::fs::write(part(1), "two").unwrap();
        let run = run(folder.path().to_str().unwrap(), BatchFormat::Jsonl);
        let job = (run.clone(), 2);
        let open = || vec![folder.path().to_owned()];
        let again =
            |known: &Arc<Whole>, job| Whole::again(Some(Arc::clone(known)), open(), job).unwrap();
        let known = Whole::again(None, open(), job.clone()).unwrap();

        assert!(Arc::ptr_eq(&known, &again(&known, job.clone())), "nothing is read again");
        let fewer = again(&known, (run, 1));
        assert_eq!(fewer.said.digest, Digest::of(b"one"), "it is another job's");

        // As many bytes, in the same file and in another one at the path. The file system's clock has steps.
        let seen = || Seen::of(&File::open(part(1)).unwrap()).unwrap();
        let before = seen();
        while seen() == before {
            std::fs::write(part(1), "owt").unwrap();
        }
        let written = again(&known, job.clone());
        assert_eq!(written.said.digest, Digest::of(b"oneowt"));
        std::fs::write(folder.path().join("new"), "eno").unwrap();
        std::fs::rename(folder.path().join("new"), part(0)).unwrap();
        assert_eq!(again(&written, job).said.digest, Digest::of(b"enoowt"));
    }
}
