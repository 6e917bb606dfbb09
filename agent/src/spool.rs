//! What the server must get: an append-only log in segments, trimmed by the server's receipts alone.
//!
//! ```text
//! spool/id                      8 random bytes: another spool, another life
//! spool/acknowledged            a number that the server has stored, at or above all that were removed; newer ones may not be noted yet
//! spool/given                   a number at or above all that were dropped from the end
//! spool/<first number>.segment  records of {sequence, channel, body}, each with its checksum
//! ```
//! A number is given once: the server takes a second message of one number for the first, sent again. So what is sent is on disk before.
//!
//! The log is bounded. Where it would grow beyond, what may be lost goes first, oldest first, and is counted; reports stay for ever.

mod segment;
#[cfg(test)]
mod laws;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use sealift_protocol::codec;
use sealift_protocol::telemetry::{Ack, Envelope, SpoolId};
use sealift_protocol::topic::Up;

use crate::disk::{self, Secrecy};
use segment::{Content, Segment};

/// A new segment begins beyond this length; a segment is read, rewritten and removed as a whole.
const SEGMENT_BYTES_MAX: u64 = 1 << 20;

/// The newest segment is filled on up to this length although the server has all of it: to end one and begin another for each message
/// costs the flash six writes instead of one. After a crash so much may be sent again, about forty reports; each is stored once.
const FILLED_ON_BYTES_MAX: u64 = 16 << 10;

/// Records that may be lost are synced this many at a time; those that must not, at once.
const UNSYNCED_MAX: u32 = 64;

/// Whether a message may be lost when the spool is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Always,
    WhileThereIsRoom,
}

/// The log of one device.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    id: SpoolId,
    bytes_max: u64,
    segments: VecDeque<Segment>,
    next: u64,
    acknowledged: u64,
    /// What of it is on disk.
    noted: u64,
    unsynced: u32,
    dropped: u64,
}

/// A message as it goes to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) sequence: u64,
    pub(crate) channel: Up,
    pub(crate) envelope: Envelope,
}

/// Why the spool could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    #[error("cannot read or write {path}")]
    Disk {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("message of {bytes} bytes is longer than a record may be")]
    TooLong { bytes: usize },
    #[error("cannot encode a record of the spool")]
    Encode(#[source] codec::CodecError),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    move |source| SpoolError::Disk { path: path.to_owned(), source }
}

impl Spool {
    /// Opens the spool in `dir`, or begins one under the id `fresh`.
    pub(crate) fn open(dir: &Path, bytes_max: u64, fresh: SpoolId) -> Result<Self, SpoolError> {
        disk::private_dir(dir).map_err(at(dir))?;
        let found = (number(&dir.join("id"))?, segment::open_all(dir)?);
        let (id, segments) = match found {
            (Some(id), segments) => (SpoolId(id), segments),
            // Without its id, the numbers mean nothing to the server.
            (None, segments) => {
                segments.into_iter().try_for_each(Segment::remove)?;
                disk::remove(&dir.join("acknowledged")).map_err(at(dir))?;
                disk::remove(&dir.join("given")).map_err(at(dir))?;
                write_number(&dir.join("id"), fresh.0)?;
                (fresh, VecDeque::new())
            }
        };
        let acknowledged = number(&dir.join("acknowledged"))?.unwrap_or(0);
        let last = segments.iter().filter_map(Segment::last).max().unwrap_or(0);
        let given = number(&dir.join("given"))?.unwrap_or(0);
        let next = last.max(acknowledged).max(given) + 1;
        let dir = dir.to_owned();
        let (noted, unsynced, dropped) = (acknowledged, 0, 0);
        let mut spool =
            Self { dir, id, bytes_max, segments, next, acknowledged, noted, unsynced, dropped };
        spool.remove_acknowledged()?;
        Ok(spool)
    }

    /// Appends a message and returns its number.
    pub(crate) fn append(
        &mut self,
        channel: Up,
        keep: Keep,
        body: Vec<u8>,
    ) -> Result<u64, SpoolError> {
        let sequence = self.next;
        let content = Content { sequence, channel: channel.as_str().into(), keep, body };
        self.open_segment()?.append(&content)?;
        self.next += 1;
        self.unsynced += 1;
        if keep == Keep::Always || self.unsynced >= UNSYNCED_MAX {
            self.sync()?;
        }
        self.make_room()?;
        Ok(sequence)
    }

    /// Waits until everything appended is on disk.
    pub(crate) fn sync(&mut self) -> Result<(), SpoolError> {
        if self.unsynced > 0 {
            self.segments.back().map_or(Ok(()), Segment::sync)?;
        }
        self.unsynced = 0;
        Ok(())
    }

    fn open_segment(&mut self) -> Result<&mut Segment, SpoolError> {
        if self.segments.back().is_none_or(|last| last.bytes() >= SEGMENT_BYTES_MAX) {
            self.sync()?;
            self.segments.push_back(Segment::create(&self.dir, self.next)?);
        }
        let next = self.next;
        // Just pushed, if there was none.
        self.segments.back_mut().ok_or_else(|| SpoolError::Disk {
            path: self.dir.join(segment::file_name(next)),
            source: io::Error::from(io::ErrorKind::NotFound),
        })
    }

    /// Drops the oldest messages that may be lost, one segment at a time.
    fn make_room(&mut self) -> Result<(), SpoolError> {
        while self.bytes() > self.bytes_max {
            let droppable = self.segments.iter_mut().find(|segment| segment.is_droppable());
            let Some(segment) = droppable else { return Ok(()) };
            if segment.last() == Some(self.next - 1) {
                write_number(&self.dir.join("given"), self.next - 1)?;
            }
            self.dropped += segment.drop_droppable()?;
        }
        Ok(())
    }

    /// Takes the server's receipt. Another spool's is ignored.
    pub(crate) fn acknowledge(&mut self, ack: Ack) -> Result<(), SpoolError> {
        if ack.spool != self.id || ack.sequence <= self.acknowledged {
            return Ok(());
        }
        // The server cannot have stored what was never sent.
        self.acknowledged = ack.sequence.min(self.next - 1);
        self.remove_acknowledged()
    }

    /// Removes what the server has whole. Until then receipts are forgotten with the agent: what is sent again is stored once, but numbers
    /// must not begin again.
    fn remove_acknowledged(&mut self) -> Result<(), SpoolError> {
        while let Some(oldest) = self.segments.front() {
            let is_done = oldest.last().is_none_or(|last| last <= self.acknowledged);
            let is_filled_on = self.segments.len() == 1 && oldest.bytes() < FILLED_ON_BYTES_MAX;
            if !is_done || is_filled_on {
                break;
            }
            self.note_receipts()?;
            self.segments.pop_front().map_or(Ok(()), Segment::remove)?;
        }
        Ok(())
    }

    /// Keeps over a restart what the server has: an agent that ends in good order sends nothing again.
    pub(crate) fn note_receipts(&mut self) -> Result<(), SpoolError> {
        if self.noted < self.acknowledged {
            write_number(&self.dir.join("acknowledged"), self.acknowledged)?;
            self.noted = self.acknowledged;
        }
        Ok(())
    }

    /// The messages after number `after` that have no receipt, oldest first, at most `count`; on disk, so that they can be sent.
    pub(crate) fn after(&mut self, after: u64, count: usize) -> Result<Vec<Outgoing>, SpoolError> {
        self.sync()?;
        let after = after.max(self.acknowledged);
        let lowest = self.lowest();
        let mut found = Vec::new();
        for segment in &self.segments {
            if segment.last().is_none_or(|last| last <= after) {
                continue;
            }
            for content in segment.read(after, count - found.len())? {
                let Some(channel) = channel(&content.channel) else { continue };
                let Content { sequence, body, .. } = content;
                let envelope = Envelope { spool: self.id, sequence, lowest, body };
                found.push(Outgoing { sequence, channel, envelope });
            }
            if found.len() >= count {
                break;
            }
        }
        Ok(found)
    }

    /// The lowest number without a receipt that is still here; the next one where there is none.
    pub(crate) fn lowest(&self) -> u64 {
        let first = self.segments.iter().find_map(|segment| segment.first_after(self.acknowledged));
        first.unwrap_or(self.next)
    }

    /// The highest number that the server has stored.
    pub(crate) const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Messages without a receipt.
    pub(crate) fn len(&self) -> usize {
        self.segments.iter().map(|segment| segment.count_after(self.acknowledged)).sum()
    }

    /// Messages that were dropped since the spool was opened.
    pub(crate) const fn dropped(&self) -> u64 {
        self.dropped
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(Segment::bytes).sum()
    }
}

/// The spooled channel of this name.
fn channel(name: &str) -> Option<Up> {
    let spooled = [Up::Birth, Up::Report, Up::Profile, Up::Event, Up::Result];
    spooled.into_iter().find(|channel| channel.as_str() == name)
}

fn number(path: &Path) -> Result<Option<u64>, SpoolError> {
    let bytes = disk::read(path, 64).map_err(at(path))?;
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    Ok(text.and_then(|text| text.trim().parse().ok()))
}

fn write_number(path: &Path, number: u64) -> Result<(), SpoolError> {
    disk::replace(path, number.to_string().as_bytes(), Secrecy::Private).map_err(at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: SpoolId = SpoolId(7);

    fn open(dir: &Path, bytes_max: u64) -> Spool {
        Spool::open(dir, bytes_max, FRESH).unwrap()
    }

    fn numbers(spool: &mut Spool) -> Vec<u64> {
        spool.after(0, 1_000).unwrap().iter().map(|message| message.sequence).collect()
    }

    fn report(spool: &mut Spool, bytes: usize) {
        spool.append(Up::Report, Keep::Always, vec![1; bytes]).unwrap();
    }

    fn profile(spool: &mut Spool, bytes: usize) {
        spool.append(Up::Profile, Keep::WhileThereIsRoom, vec![2; bytes]).unwrap();
    }

    #[test]
    fn messages_survive_a_restart_until_the_server_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path(), 1 << 20);
        (0..3).for_each(|_| report(&mut spool, 10));

        spool.acknowledge(Ack { spool: FRESH, sequence: 2 }).unwrap();

        assert_eq!(numbers(&mut spool), [3]);
        let mut spool = Spool::open(dir.path(), 1 << 20, SpoolId(9)).unwrap();
        spool.acknowledge(Ack { spool: FRESH, sequence: 2 }).unwrap();
        assert_eq!(numbers(&mut spool), [3]);
        assert_eq!((spool.lowest(), spool.len()), (3, 1));
        let message = &spool.after(0, 1).unwrap()[0];
        assert_eq!((message.channel, message.envelope.spool), (Up::Report, FRESH));
        assert_eq!(message.envelope.body, vec![1; 10]);
    }

    #[test]
    fn numbers_go_on_after_everything_was_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path(), 1 << 20);
        report(&mut spool, 10);
        spool.acknowledge(Ack { spool: FRESH, sequence: 1 }).unwrap();
        spool.note_receipts().unwrap();

        let mut spool = open(dir.path(), 1 << 20);
        report(&mut spool, 10);

        assert_eq!(numbers(&mut spool), [2]);
    }

    #[test]
    fn after_a_crash_what_has_a_receipt_may_be_sent_again_under_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path(), 1 << 20);
        report(&mut spool, 10);
        spool.acknowledge(Ack { spool: FRESH, sequence: 1 }).unwrap();

        let mut spool = open(dir.path(), 1 << 20);
        report(&mut spool, 10);

        assert_eq!(numbers(&mut spool), [1, 2]);
    }

    #[test]
    fn a_segment_is_filled_on_and_goes_once_it_is_long() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path(), 1 << 20);
        let segments = || {
            let files = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path());
            files.filter(|path| path.extension().is_some_and(|found| found == "segment")).count()
        };
        for sequence in 1..=100 {
            report(&mut spool, 500);
            spool.acknowledge(Ack { spool: FRESH, sequence }).unwrap();
            assert!(segments() <= 1 && spool.bytes() < FILLED_ON_BYTES_MAX + 1_000);
        }

        assert!(spool.noted > 50, "{}", spool.noted);
        assert_eq!((spool.len(), numbers(&mut spool).len()), (0, 0));
    }

    #[test]
    fn a_receipt_of_another_spool_or_beyond_what_was_sent_trims_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path(), 1 << 20);
        report(&mut spool, 10);
        spool.acknowledge(Ack { spool: SpoolId(8), sequence: 1 }).unwrap();
        assert_eq!(numbers(&mut spool), [1]);

        spool.acknowledge(Ack { spool: FRESH, sequence: 1_000 }).unwrap();
        report(&mut spool, 10);

        assert_eq!(numbers(&mut spool), [2]);
    }

    #[test]
    fn a_full_spool_drops_profiles_and_never_reports() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path(), 3 << 20);
        for _ in 0..60 {
            report(&mut spool, 10_000);
            profile(&mut spool, 100_000);
        }

        let kept = spool.after(0, 1_000).unwrap();
        let reports = kept.iter().filter(|message| message.channel == Up::Report).count();
        assert_eq!(reports, 60);
        assert!(spool.dropped() > 20, "{}", spool.dropped());
        assert_eq!(kept.len() as u64 + spool.dropped(), 120);
        assert!(spool.bytes() <= 3 << 20);
        assert_eq!(numbers(&mut open(dir.path(), 3 << 20)).len(), kept.len());
    }

    #[test]
    fn a_torn_tail_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path(), 1 << 20);
        (0..3).for_each(|_| report(&mut spool, 10));
        let path = dir.path().join(segment::file_name(1));
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();

        let mut spool = open(dir.path(), 1 << 20);
        report(&mut spool, 10);

        assert_eq!(numbers(&mut spool), [1, 2, 3]);
    }
}
