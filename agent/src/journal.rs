//! What the device has decided: append-only, checksummed, synced before anything is done about it, replayed at start.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sealift_protocol::codec::{self, CodecError};

use crate::device::Entry;
use crate::disk::{self, Secrecy};
use crate::drill;
use crate::limits::JOURNAL_BYTES_MAX;
use crate::record;

/// A journal that grew beyond this was not written by us: compaction keeps it below twice its limit.
const READ_BYTES_MAX: u64 = 64 << 20;

/// An open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
}

/// Why the journal could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("cannot open journal {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write to the journal")]
    Write(#[source] io::Error),
    #[error("cannot encode a journal entry")]
    Encode(#[source] CodecError),
    #[error("journal entry is longer than a record may be")]
    TooLong,
}

impl Journal {
    /// Opens the journal, and returns the entries that are whole. What comes after the first damage is cut off.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<Entry>), JournalError> {
        let refused = |source| JournalError::Open { path: path.to_owned(), source };
        let bytes = disk::read(path, READ_BYTES_MAX).map_err(refused)?.unwrap_or_default();
        let (entries, whole_bytes) = read_entries(&bytes);
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).open(path).map_err(refused)?;
        if whole_bytes < bytes.len() as u64 {
            tracing::warn!(
                lost_bytes = bytes.len() as u64 - whole_bytes,
                "journal has a torn tail"
            );
            file.set_len(whole_bytes).map_err(refused)?;
        }
        file.sync_all().map_err(refused)?;
        disk::sync_parent(path).map_err(refused)?;
        Ok((Self { path: path.to_owned(), file, bytes: whole_bytes }, entries))
    }

    /// Appends one entry and waits until it is on disk.
    pub(crate) fn append(&mut self, entry: &Entry) -> Result<(), JournalError> {
        let framed = framed(entry)?;
        if let Err(error) = self.write(&framed) {
            // Half a record would hide those that follow it.
            self.file.set_len(self.bytes).map_err(JournalError::Write)?;
            return Err(JournalError::Write(error));
        }
        self.bytes += framed.len() as u64;
        drill::pass("journal written");
        Ok(())
    }

    fn write(&mut self, framed: &[u8]) -> io::Result<()> {
        drill::pass("journal is written");
        self.file.write_all(framed)?;
        self.file.sync_data()
    }

    /// Whether the journal is long enough to be worth a [`Journal::compact`].
    pub(crate) const fn is_long(&self) -> bool {
        self.bytes > JOURNAL_BYTES_MAX
    }

    /// Replaces the journal by `entries`, which tell the same.
    pub(crate) fn compact(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let records = entries.iter().map(framed).collect::<Result<Vec<_>, _>>()?.concat();
        disk::replace(&self.path, &records, Secrecy::Private).map_err(JournalError::Write)?;
        let opened = OpenOptions::new().append(true).open(&self.path);
        self.file = opened.map_err(JournalError::Write)?;
        self.bytes = records.len() as u64;
        Ok(())
    }
}

fn framed(entry: &Entry) -> Result<Vec<u8>, JournalError> {
    let content = codec::encode(entry).map_err(JournalError::Encode)?;
    record::frame(&content).ok_or(JournalError::TooLong)
}

/// All whole entries from the start, and how many bytes they take. An entry of an unknown form is passed over.
fn read_entries(bytes: &[u8]) -> (Vec<Entry>, u64) {
    let mut entries = Vec::new();
    let mut rest = bytes;
    while let Some((content, after)) = record::split(rest) {
        match codec::decode("journal entry", content, record::CONTENT_BYTES_MAX) {
            Ok(entry) => entries.push(entry),
            Err(error) => tracing::warn!(%error, "journal entry is not known"),
        }
        rest = after;
    }
    (entries, (bytes.len() - rest.len()) as u64)
}

#[cfg(test)]
mod tests {
    use sealift_protocol::id::{Epoch, ModelName};

    use super::*;

    fn entry(epoch: u64) -> Entry {
        Entry::Floor { model: ModelName::parse("vision/digits").unwrap(), epoch: Epoch(epoch) }
    }

    fn reopened(path: &Path) -> Vec<Entry> {
        Journal::open(path).unwrap().1
    }

    #[test]
    fn entries_come_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, entries) = Journal::open(&path).unwrap();
        assert_eq!(entries, []);

        journal.append(&entry(1)).unwrap();
        journal.append(&entry(2)).unwrap();

        assert_eq!(reopened(&path), [entry(1), entry(2)]);
    }

    #[test]
    fn a_torn_tail_is_cut_off_and_does_not_hide_what_follows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.append(&entry(1)).unwrap();
        journal.append(&entry(2)).unwrap();
        let whole = std::fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(whole - 3).unwrap();

        let (mut journal, entries) = Journal::open(&path).unwrap();
        journal.append(&entry(3)).unwrap();

        assert_eq!(entries, [entry(1)]);
        assert_eq!(reopened(&path), [entry(1), entry(3)]);
    }

    #[test]
    fn a_compacted_journal_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, _) = Journal::open(&path).unwrap();
        (0..100).for_each(|epoch| journal.append(&entry(epoch)).unwrap());

        journal.compact(&[entry(99)]).unwrap();
        journal.append(&entry(100)).unwrap();

        assert_eq!(reopened(&path), [entry(99), entry(100)]);
    }
}
