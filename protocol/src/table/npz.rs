//! `.npz` files: archives of arrays, as numpy writes them (PKWARE's APPNOTE.TXT, 4.3 and 4.4): stored or deflated, and nothing else.
//!
//! Rule (OWASP, denial of service by compressed data): what an archive says of itself is compared with what is possible before a byte is
//! inflated, and no more is inflated than was said.

use std::io::{self, Read, Seek, SeekFrom, Take};

use crc32fast::Hasher;
use flate2::read::DeflateDecoder;

/// Arrays of one archive; numpy users name them by hand.
const ENTRIES_MAX: u16 = 1_000;

/// Bytes of a name with its `.npy`.
const NAME_BYTES_MAX: u16 = 200;

/// Bytes of the list of arrays: so many with names of that length, and a remark on each.
const DIRECTORY_BYTES_MAX: u32 = 1 << 20;

/// Bytes of an array: it is held in memory where it is read in another order than it is stored.
const ARRAY_BYTES_MAX: u64 = 1 << 30;

/// What deflate makes of one byte at most (zlib's technical notes, "Maximum Compression Factor").
const INFLATION_MAX: u64 = 1_032;

/// Names that a refusal has.
const NAMED_MAX: usize = 8;

const END: u32 = 0x0605_4b50;
const END_BYTES: usize = 22;
const LISTED: u32 = 0x0201_4b50;
const LISTED_BYTES: usize = 46;
const FRONT: u32 = 0x0403_4b50;
const FRONT_BYTES: usize = 30;
/// Stands where a field is too small for what zip64 puts elsewhere.
const ELSEWHERE: u32 = u32::MAX;

/// Why a file is no archive of arrays, or the array that is asked for is not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotNpz {
    /// It cannot be read.
    #[error("cannot read the archive")]
    Read(#[from] io::Error),
    /// It is something else, or damaged.
    #[error("not a .npz archive, or a damaged one: {0}")]
    Form(&'static str),
    /// Larger than what is taken.
    #[error("the archive is a zip64 one, of more than 4 GiB; save arrays by themselves, as .npy")]
    Zip64,
    /// More arrays than anybody names.
    #[error("the archive has {0} entries; at most {ENTRIES_MAX} are taken")]
    Entries(u16),
    /// A longer name than anybody gives.
    #[error("a name in the archive has {0} bytes; at most {NAME_BYTES_MAX} are taken")]
    Name(u16),
    /// Nothing of numpy's is in it.
    #[error("the archive holds no array")]
    Empty,
    /// It must be said which.
    #[error("the archive holds several arrays: {}", named(.0))]
    Several(Vec<String>),
    /// None of that name.
    #[error("the archive holds no array `{name}`, but {}", named(.others))]
    Missing {
        /// What was asked for.
        name: String,
        /// What there is.
        others: Vec<String>,
    },
    /// Under a password.
    #[error("array `{0}` is encrypted; save it without a password")]
    Encrypted(String),
    /// Neither stored nor deflated.
    #[error(
        "array `{0}` is packed by method {1}; `numpy.savez` and `numpy.savez_compressed` are read"
    )]
    Method(String, u16),
    /// More than is taken.
    #[error("array `{name}` has {size} bytes; at most {ARRAY_BYTES_MAX} are taken of an archive")]
    Size {
        /// Which.
        name: String,
        /// By the list of arrays.
        size: u64,
    },
    /// More than deflate could make of it.
    #[error("array `{name}` is said to have {size} bytes, which {packed} packed ones cannot hold")]
    Inflation {
        /// Which.
        name: String,
        /// By the list of arrays.
        size: u64,
        /// Likewise.
        packed: u64,
    },
}

fn named(names: &[String]) -> String {
    let first: Vec<_> = names.iter().take(NAMED_MAX).map(|name| format!("`{name}`")).collect();
    let rest = names.len().saturating_sub(NAMED_MAX);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("{}{more}", first.join(", "))
}

/// An archive, of which the list of arrays was read.
#[derive(Debug)]
pub struct Archive<R> {
    file: R,
    arrays: Vec<Entry>,
    /// Where the list begins: all arrays are before it.
    list: u64,
}

/// An array, as the list has it.
#[derive(Debug)]
struct Entry {
    name: String,
    is_encrypted: bool,
    method: u16,
    checksum: u32,
    packed: u64,
    size: u64,
    place: u64,
}

impl<R: Read + Seek> Archive<R> {
    /// Reads the list of arrays.
    pub fn open(mut file: R) -> Result<Self, NotNpz> {
        let length = file.seek(SeekFrom::End(0))?;
        let (end, bytes) = end(&mut file, length)?;
        let mut fields = Fields(&bytes);
        let (this_part, list_part, here, all) =
            (fields.two()?, fields.two()?, fields.two()?, fields.two()?);
        let (list_bytes, list) = (fields.four()?, fields.four()?);
        if all == u16::MAX || list_bytes == ELSEWHERE || list == ELSEWHERE {
            return Err(NotNpz::Zip64);
        }
        if (this_part, list_part, here) != (0, 0, all) {
            return Err(NotNpz::Form("it is a part of one"));
        }
        if all > ENTRIES_MAX {
            return Err(NotNpz::Entries(all));
        }
        let until = u64::from(list) + u64::from(list_bytes);
        if list_bytes > DIRECTORY_BYTES_MAX || until > end {
            return Err(NotNpz::Form("its list of arrays is too long"));
        }
        file.seek(SeekFrom::Start(list.into()))?;
        let mut listed = vec![0; usize::try_from(list_bytes).unwrap_or(0)];
        file.read_exact(&mut listed)?;
        let mut arrays: Vec<Entry> = Vec::new();
        let mut rest = listed.as_slice();
        for _ in 0..all {
            let Some(entry) = Entry::read(&mut rest)? else { continue };
            if arrays.iter().any(|known| known.name == entry.name) {
                return Err(NotNpz::Form("two of its arrays have one name"));
            }
            arrays.push(entry);
        }
        Ok(Self { file, arrays, list: list.into() })
    }

    /// The array of a name, or the only one, from its first byte on.
    pub fn array(mut self, name: Option<&str>) -> Result<Array<R>, NotNpz> {
        let names = || self.arrays.iter().map(|entry| entry.name.clone()).collect();
        let entry = match (name, self.arrays.as_slice()) {
            (_, []) => return Err(NotNpz::Empty),
            (None, [only]) => only,
            (None, _) => return Err(NotNpz::Several(names())),
            (Some(name), arrays) => {
                let missing = || NotNpz::Missing { name: name.to_owned(), others: names() };
                arrays.iter().find(|entry| entry.name == name).ok_or_else(missing)?
            }
        };
        entry.check()?;
        let Entry { method, checksum, packed, size, place, .. } = *entry;
        self.file.seek(SeekFrom::Start(place))?;
        let mut front = [0; FRONT_BYTES];
        self.file.read_exact(&mut front)?;
        let mut fields = Fields(&front);
        if fields.four()? != FRONT {
            return Err(NotNpz::Form("an array is not where its list says"));
        }
        fields.skip(22)?;
        let lengths = u64::from(fields.two()?) + u64::from(fields.two()?);
        let start = place + FRONT_BYTES as u64 + lengths;
        if start.saturating_add(packed) > self.list {
            return Err(NotNpz::Form("an array does not end before its list"));
        }
        self.file.seek(SeekFrom::Start(start))?;
        let bytes = self.file.take(packed);
        let bytes = match method {
            DEFLATED => Bytes::Deflated(Box::new(DeflateDecoder::new(bytes))),
            _ => Bytes::Stored(bytes), // `check` lets nothing else through
        };
        Ok(Array { bytes, left: size, hasher: Hasher::new(), checksum })
    }
}

const STORED: u16 = 0;
const DEFLATED: u16 = 8;

impl Entry {
    /// The next of the list; nothing for what is no array.
    fn read(rest: &mut &[u8]) -> Result<Option<Self>, NotNpz> {
        let mut fields = Fields(rest.get(..LISTED_BYTES).ok_or(CUT)?);
        if fields.four()? != LISTED {
            return Err(NotNpz::Form("its list of arrays is damaged"));
        }
        fields.skip(4)?;
        let (flags, method) = (fields.two()?, fields.two()?);
        fields.skip(4)?;
        let (checksum, packed, size) = (fields.four()?, fields.four()?, fields.four()?);
        let (name_bytes, more, remark) = (fields.two()?, fields.two()?, fields.two()?);
        fields.skip(8)?;
        let place = fields.four()?;
        if name_bytes > NAME_BYTES_MAX {
            return Err(NotNpz::Name(name_bytes));
        }
        let name_end = LISTED_BYTES + usize::from(name_bytes);
        let name = rest.get(LISTED_BYTES..name_end).ok_or(CUT)?;
        *rest = rest.get(name_end + usize::from(more) + usize::from(remark)..).ok_or(CUT)?;
        let name = std::str::from_utf8(name).map_err(|_| NotNpz::Form("a name is no UTF-8"))?;
        let Some(name) = name.strip_suffix(".npy") else { return Ok(None) };
        if [packed, size, place].contains(&ELSEWHERE) {
            return Err(NotNpz::Zip64);
        }
        Ok(Some(Self {
            name: name.to_owned(),
            // Bit 0: encrypted; bit 13: the list is.
            is_encrypted: flags & (1 | 1 << 13) != 0,
            method,
            checksum,
            packed: packed.into(),
            size: size.into(),
            place: place.into(),
        }))
    }

    fn check(&self) -> Result<(), NotNpz> {
        let Self { size, packed, .. } = *self;
        let name = || self.name.clone();
        if self.is_encrypted {
            return Err(NotNpz::Encrypted(name()));
        }
        if size > ARRAY_BYTES_MAX {
            return Err(NotNpz::Size { name: name(), size });
        }
        match self.method {
            STORED if size == packed => Ok(()),
            STORED => Err(NotNpz::Form("a stored array has two lengths")),
            DEFLATED if size <= packed.saturating_mul(INFLATION_MAX) => Ok(()),
            DEFLATED => Err(NotNpz::Inflation { name: name(), size, packed }),
            method => Err(NotNpz::Method(name(), method)),
        }
    }
}

const CUT: NotNpz = NotNpz::Form("its list of arrays is cut off");

/// Where the end of the archive begins, and what it says after its mark. It is found from behind, for a remark may follow.
fn end(file: &mut (impl Read + Seek), length: u64) -> Result<(u64, Vec<u8>), NotNpz> {
    let longest = END_BYTES as u64 + u64::from(u16::MAX);
    let from = length.saturating_sub(longest);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(longest).read_to_end(&mut tail)?;
    let is_end = |place: &usize| {
        let mut fields = Fields(tail.get(*place..).unwrap_or_default());
        let mark = fields.four();
        let remark = fields.skip(16).and_then(|()| fields.two());
        matches!((mark, remark), (Ok(END), Ok(remark))
            if place + END_BYTES + usize::from(remark) == tail.len())
    };
    let last = tail.len().checked_sub(END_BYTES);
    let place = last.and_then(|last| (0..=last).rev().find(is_end));
    let place = place.ok_or(NotNpz::Form("its end is missing"))?;
    Ok((from + place as u64, tail.split_off(place + 4)))
}

/// Numbers, the low byte first.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn two(&mut self) -> Result<u16, NotNpz> {
        let (first, rest) = self.0.split_first_chunk().ok_or(CUT)?;
        self.0 = rest;
        Ok(u16::from_le_bytes(*first))
    }

    fn four(&mut self) -> Result<u32, NotNpz> {
        let (first, rest) = self.0.split_first_chunk().ok_or(CUT)?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*first))
    }

    fn skip(&mut self, bytes: usize) -> Result<(), NotNpz> {
        self.0 = self.0.get(bytes..).ok_or(CUT)?;
        Ok(())
    }
}

/// An array of an archive, from its head on. With its last byte comes an error where it is not what the list says.
#[derive(Debug)]
pub struct Array<R> {
    bytes: Bytes<R>,
    left: u64,
    hasher: Hasher,
    checksum: u32,
}

#[derive(Debug)]
enum Bytes<R> {
    Stored(Take<R>),
    Deflated(Box<DeflateDecoder<Take<R>>>),
}

impl<R: Read> Read for Bytes<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Stored(bytes) => bytes.read(buffer),
            Self::Deflated(bytes) => bytes.read(buffer),
        }
    }
}

impl<R> Array<R> {
    /// Bytes that are still to come.
    pub const fn left(&self) -> u64 {
        self.left
    }
}

impl<R: Read> Read for Array<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else {
            return Ok(0);
        };
        let read = self.bytes.read(buffer)?;
        if read == 0 {
            return Err(damaged("it ends before its length"));
        }
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        self.left -= read as u64;
        if self.left == 0 {
            self.end()?;
        }
        Ok(read)
    }
}

impl<R: Read> Array<R> {
    fn end(&mut self) -> io::Result<()> {
        if self.bytes.read(&mut [0])? > 0 {
            return Err(damaged("it is longer than its length"));
        }
        let hasher = std::mem::take(&mut self.hasher);
        if hasher.finalize() == self.checksum {
            Ok(())
        } else {
            Err(damaged("its checksum differs"))
        }
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the array in the archive is damaged: {what}"),
    )
}

#[cfg(test)]
mod tests;
