//! A blob on disk as far as it has come: chunks of 1 MiB, each with its hash in a list beside it.
//!
//! ```text
//! model.onnx           the bytes, some chunks perhaps missing
//! .model.onnx.chunks   for each chunk that is there: its number, who sent it, its hash
//! ```
//! After a power loss the list tells nothing but what to look at: a chunk counts only if its bytes on disk still have its hash, so that
//! nothing needs to be synced before the end. What the hash cannot tell is whether the chunk is the one that was signed. That
//! is checked at once where the publisher has signed the chunks' digests, and else at the end, by the digest of the whole.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sealift_protocol::digest::{Digest, Hasher};
use sealift_protocol::image::{CHUNK_BYTES, ChunkList, Layer};

use crate::disk::{self, Secrecy};
use crate::slots::digest_of_file;

/// A line of the list: number, sender, hash.
const LINE_BYTES: usize = 4 + 4 + 32;

/// A list names each chunk at most a few times: once more for each time that it came wrong.
const LIST_BYTES_MAX: u64 = 8 << 20;

/// Who sent a chunk: what is left of an address in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sender(pub(super) u32);

impl Sender {
    pub(super) fn of(address: &str) -> Self {
        Self(crc32fast::hash(address.as_bytes()))
    }
}

/// A chunk that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chunk {
    hash: Digest,
    sender: Sender,
}

/// What was signed about a blob.
#[derive(Debug, Clone)]
pub(super) struct Signed {
    pub(super) size: u64,
    digest: Digest,
    chunks: Option<ChunkList>,
}

impl Signed {
    pub(super) fn of(layer: &Layer) -> Self {
        Self { size: layer.blob.size, digest: layer.blob.digest, chunks: layer.chunks() }
    }
}

/// A blob on disk as far as it has come.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) path: PathBuf,
    /// Locked: an earlier download that was given up may still be writing its last piece.
    file: File,
    list: File,
    signed: Signed,
    have: Vec<Option<Chunk>>,
    /// Where the next byte goes, and what is known of the chunk that it is in.
    at: u64,
    hasher: Hasher,
    sender: Option<Sender>,
    /// Of everything up to `hashed`, as long as chunks come in order.
    whole: Hasher,
    hashed: u64,
}

/// What came of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Taken,
    /// They ended a chunk that is not the one that was signed; it is to be fetched again.
    Wrong,
}

impl Staged {
    /// Takes up what is there and still as it was written; begins anew where there is nothing.
    pub(super) fn open(path: PathBuf, signed: Signed) -> io::Result<Self> {
        let file = open_own(&path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
        let listed = read_list(&list_path(&path)?)?;
        let count = usize::try_from(signed.size.div_ceil(CHUNK_BYTES)).unwrap_or(usize::MAX);
        let list = OpenOptions::new().read(true).open("/dev/null")?;
        let mut staged = Self {
            path,
            file,
            list,
            signed,
            have: vec![None; count],
            at: 0,
            hasher: Hasher::default(),
            sender: None,
            whole: Hasher::default(),
            hashed: 0,
        };
        if staged.file.metadata()?.len() > staged.signed.size {
            staged.file.set_len(0)?;
        }
        if listed.is_empty() {
            staged.take_up_whole()?;
        } else {
            staged.take_up(&listed);
        }
        staged.list = staged.write_list()?;
        Ok(staged)
    }

    /// A blob that was complete before has no list any more.
    fn take_up_whole(&mut self) -> io::Result<()> {
        let is_long = self.file.metadata()?.len() == self.signed.size;
        if is_long && digest_of_file(&mut self.file.try_clone()?)? == self.signed.digest {
            let chunk = Chunk { hash: self.signed.digest, sender: Sender(0) };
            self.have.fill(Some(chunk));
        }
        Ok(())
    }

    /// Looks at the chunks of a list, in order.
    fn take_up(&mut self, listed: &[(usize, Chunk)]) {
        for &(number, chunk) in listed {
            if let Some(have) = self.have.get_mut(number) {
                *have = Some(chunk);
            }
        }
        let mut bytes = Vec::new();
        for number in 0..self.have.len() {
            let Some(Some(chunk)) = self.have.get(number).copied() else { continue };
            let place = self.place(number);
            bytes.resize(usize::try_from(place.end - place.start).unwrap_or(0), 0);
            let is_there = self.file.read_exact_at(&mut bytes, place.start).is_ok();
            if !is_there || Digest::of(&bytes) != chunk.hash || !self.is_signed(number, chunk.hash)
            {
                self.forget(number);
            } else if self.hashed == place.start {
                self.whole.update(&bytes);
                self.hashed = place.end;
            }
        }
    }

    /// Bytes of a chunk.
    fn place(&self, number: usize) -> Range<u64> {
        let start = (number as u64).saturating_mul(CHUNK_BYTES);
        start..start.saturating_add(CHUNK_BYTES).min(self.signed.size)
    }

    fn forget(&mut self, number: usize) {
        if let Some(have) = self.have.get_mut(number) {
            *have = None;
        }
    }

    fn is_signed(&self, number: usize, hash: Digest) -> bool {
        let chunks = self.signed.chunks.as_ref();
        chunks.is_none_or(|chunks| chunks.get(number) == Some(hash))
    }

    /// Bytes that need not come any more.
    pub(super) fn done_bytes(&self) -> u64 {
        let chunks = self.have.iter().enumerate().filter(|(_, chunk)| chunk.is_some());
        let whole =
            chunks.map(|(number, _)| self.place(number)).map(|place| place.end - place.start);
        whole.sum::<u64>() + self.at % CHUNK_BYTES
    }

    /// The next bytes to fetch; none if all are there. What is put next belongs there.
    pub(super) fn gap(&mut self) -> Option<Range<u64>> {
        let first = self.have.iter().position(Option::is_none)?;
        let rest = self.have.get(first..).unwrap_or_default();
        let count = rest.iter().position(Option::is_some).unwrap_or(rest.len());
        let (begin, end) = (self.place(first).start, self.place(first + count - 1).end);
        if !(begin..end).contains(&self.at) || self.at >= self.place(first).end {
            self.go_to(begin);
        }
        Some(self.at..end)
    }

    fn go_to(&mut self, at: u64) {
        (self.at, self.hasher, self.sender) = (at, Hasher::default(), None);
    }

    /// Writes what came from `sender`, whom nothing is held against if `is_server`: in a chunk from two, the other one is to blame.
    pub(super) fn put(
        &mut self,
        mut bytes: &[u8],
        (sender, is_server): (Sender, bool),
    ) -> io::Result<Put> {
        while !bytes.is_empty() {
            let number = usize::try_from(self.at / CHUNK_BYTES).unwrap_or(usize::MAX);
            let end = self.place(number).end;
            let room = usize::try_from(end.saturating_sub(self.at)).unwrap_or(0);
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            if now.is_empty() {
                return Err(io::Error::other("more bytes than there is room for"));
            }
            self.file.write_all_at(now, self.at)?;
            self.hasher.update(now);
            if self.sender.is_none() || !is_server {
                self.sender = Some(sender);
            }
            self.at += now.len() as u64;
            bytes = rest;
            if self.at == end && self.close(number)? == Put::Wrong {
                return Ok(Put::Wrong);
            }
        }
        Ok(Put::Taken)
    }

    /// Ends a chunk: into the list, or back to its beginning.
    fn close(&mut self, number: usize) -> io::Result<Put> {
        let place = self.place(number);
        let hash = std::mem::take(&mut self.hasher).finish();
        let sender = self.sender.take().unwrap_or(Sender(0));
        if !self.is_signed(number, hash) {
            self.go_to(place.start);
            return Ok(Put::Wrong);
        }
        if self.hashed == place.start {
            self.hash_again(&place)?;
        }
        let chunk = Chunk { hash, sender };
        self.list.write_all(&line(number, &chunk))?;
        if let Some(have) = self.have.get_mut(number) {
            *have = Some(chunk);
        }
        Ok(Put::Taken)
    }

    /// Takes a chunk into the hash of the whole: from the file, whose pages are still in memory, for only now it is known to stay.
    fn hash_again(&mut self, place: &Range<u64>) -> io::Result<()> {
        let mut bytes = vec![0; usize::try_from(place.end - place.start).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, place.start)?;
        self.whole.update(&bytes);
        self.hashed = place.end;
        Ok(())
    }

    /// Whether everything is there and is what was signed. Then it is on disk for good.
    pub(super) fn is_as_signed(&mut self) -> io::Result<bool> {
        let is_hashed = self.hashed == self.signed.size;
        let digest = if is_hashed {
            self.whole.clone().finish()
        } else {
            digest_of_file(&mut self.reading()?)?
        };
        if digest != self.signed.digest {
            return Ok(false);
        }
        self.file.sync_all()?;
        disk::remove(&list_path(&self.path)?)?;
        Ok(true)
    }

    fn reading(&self) -> io::Result<File> {
        crate::slots::open_plain(&self.path)
    }

    /// Who has sent chunks that are there.
    pub(super) fn senders(&self) -> BTreeSet<Sender> {
        self.have.iter().flatten().map(|chunk| chunk.sender).collect()
    }

    /// Drops all chunks of some senders; the others stay.
    pub(super) fn drop_those_of(&mut self, senders: &BTreeSet<Sender>) -> io::Result<()> {
        for have in &mut self.have {
            have.take_if(|chunk| senders.contains(&chunk.sender));
        }
        self.go_to(0);
        (self.whole, self.hashed) = (Hasher::default(), 0);
        self.list = self.write_list()?;
        Ok(())
    }

    /// Removes what was staged.
    pub(super) fn remove(self) -> io::Result<()> {
        disk::remove(&list_path(&self.path)?)?;
        disk::remove(&self.path)
    }

    /// Writes the list anew and returns it open, for more.
    fn write_list(&self) -> io::Result<File> {
        let path = list_path(&self.path)?;
        let lines = self.have.iter().enumerate();
        let lines = lines.filter_map(|(number, chunk)| Some(line(number, chunk.as_ref()?)));
        disk::replace(&path, &lines.collect::<Vec<_>>().concat(), Secrecy::Private)?;
        OpenOptions::new().append(true).open(&path)
    }
}

/// Opens the device's own file, or makes it: never through a link, never a file with a second name.
fn open_own(path: &Path) -> io::Result<File> {
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let opened = OpenOptions::new().read(true).write(true).custom_flags(no_follow).open(path);
    if let Ok(file) = opened {
        let metadata = file.metadata()?;
        if metadata.is_file() && metadata.nlink() == 1 {
            return Ok(file);
        }
    }
    disk::remove(path)?;
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// No layer's name begins with a dot.
fn list_path(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| io::Error::other("a blob has a name"))?;
    Ok(path.with_file_name(format!(".{name}.chunks")))
}

fn line(number: usize, chunk: &Chunk) -> Vec<u8> {
    let number = u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let sender = chunk.sender.0.to_le_bytes();
    [&number[..], &sender, chunk.hash.as_bytes()].concat()
}

/// All whole lines of a list. Garbage does no harm: it matches no bytes.
fn read_list(path: &Path) -> io::Result<Vec<(usize, Chunk)>> {
    let mut bytes = Vec::new();
    match crate::slots::open_plain(path) {
        Ok(file) => file.take(LIST_BYTES_MAX).read_to_end(&mut bytes)?,
        Err(_) => return Ok(Vec::new()),
    };
    let (lines, _) = bytes.as_chunks::<LINE_BYTES>();
    let read = |line: &[u8; LINE_BYTES]| {
        let (number, rest) = line.split_first_chunk::<4>()?;
        let (sender, rest) = rest.split_first_chunk::<4>()?;
        let hash = Digest::from_bytes(*rest.first_chunk::<32>()?);
        let sender = Sender(u32::from_le_bytes(*sender));
        let number = usize::try_from(u32::from_le_bytes(*number)).ok()?;
        Some((number, Chunk { hash, sender }))
    };
    Ok(lines.iter().filter_map(read).collect())
}

#[cfg(test)]
mod tests;
