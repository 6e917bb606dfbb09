//! Files that survive a power loss: written beside, synced, renamed, and the directory synced.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::drill;

/// Whether others may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrecy {
    Private,
    Public,
}

/// Replaces `path` in one step: a reader, or a power loss, sees the old content or the new.
pub(crate) fn replace(path: &Path, bytes: &[u8], secrecy: Secrecy) -> io::Result<()> {
    let fresh = path.with_added_extension("new");
    let mode = if secrecy == Secrecy::Private { 0o600 } else { 0o644 };
    let create = || OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh);
    let mut file = match create() {
        // What lies there is a leftover, or a link that somebody planted: it is not written through.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&fresh)?;
            create()?
        }
        created => created?,
    };
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    drill::pass("file written");
    if let Err(error) = written.and_then(|()| fs::rename(&fresh, path)) {
        // On a full disk half a file would only take more room. Whether it goes does not change what went wrong.
        let _ = fs::remove_file(&fresh);
        return Err(error);
    }
    sync_parent(path)?;
    drill::pass("file replaced");
    Ok(())
}

/// Whether an error says that there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Room that is given up when the disk is full, so that what must be written still can be: journal, pointer, endpoint.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    bytes: usize,
}

impl Reserve {
    /// Takes the room, if there is some.
    pub(crate) fn open(path: PathBuf, bytes: usize) -> Self {
        let reserve = Self { path, bytes };
        reserve.restore();
        reserve
    }

    /// Takes the room again, if there is some.
    pub(crate) fn restore(&self) {
        if self.path.metadata().is_ok_and(|metadata| metadata.len() == self.bytes as u64) {
            return;
        }
        if let Err(error) = replace(&self.path, &vec![0x5a; self.bytes], Secrecy::Private) {
            tracing::warn!(%error, "there is no room for a reserve");
        }
    }

    pub(crate) fn give_up(&self) {
        if let Err(error) = remove(&self.path) {
            tracing::error!(%error, "reserve is not given up");
        }
    }

    /// Writes what must be written: if there is no room, into the reserve.
    pub(crate) fn spend<T>(&self, write: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match write() {
            Err(error) if is_full(&error) => {
                tracing::warn!(%error, "disk is full, the reserve is given up");
                self.give_up();
                write()
            }
            done => done,
        }
    }
}

/// Removes a file, if it is there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            sync_parent(path)?;
            drill::pass("file removed");
            Ok(())
        }
    }
}

/// Removes a directory and what it holds, if it is there.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_parent(path),
    }
}

/// Makes names in the directory of `path` survive a power loss.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Creates a directory that only its owner may enter.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Reads a file of at most `bytes_max`; none if it is not there.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "file is larger than its kind"));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_kept_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");

        replace(&path, b"first", Secrecy::Private).unwrap();
        replace(&path, b"second", Secrecy::Private).unwrap();

        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_that_was_planted_beside_a_file_is_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let (path, outside) = (dir.path().join("pointer"), dir.path().join("outside"));
        fs::write(&outside, b"precious").unwrap();
        std::os::unix::fs::symlink(&outside, dir.path().join("pointer.new")).unwrap();

        replace(&path, b"new", Secrecy::Private).unwrap();

        assert_eq!(
            (fs::read(&outside).unwrap(), fs::read(&path).unwrap()),
            (b"precious".to_vec(), b"new".to_vec())
        );
    }

    #[test]
    fn a_file_larger_than_its_kind_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::write(&path, [0; 65]).unwrap();
        assert!(read(&path, 64).is_err());
        assert_eq!(read(&path, 65).unwrap().unwrap().len(), 65);
        assert_eq!(read(&dir.path().join("none"), 1).unwrap(), None);
    }
}
