//! One file of the spool, and where in it each message lies.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sealift_protocol::codec;
use serde::{Deserialize, Serialize};

use super::{Keep, SpoolError, at};
use crate::disk::{self, Secrecy};
use crate::record;

/// What a record holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    pub(super) sequence: u64,
    pub(super) channel: String,
    #[serde(with = "keep")]
    pub(super) keep: Keep,
    #[serde(with = "codec::bytes")]
    pub(super) body: Vec<u8>,
}

mod keep {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Keep;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(keep: &Keep, serializer: S) -> Result<S::Ok, S::Error> {
        (*keep == Keep::Always).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Keep, D::Error> {
        let always = bool::deserialize(deserializer)?;
        Ok(if always { Keep::Always } else { Keep::WhileThereIsRoom })
    }
}

/// Where a message lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    sequence: u64,
    offset: u64,
    bytes: usize,
    keep: Keep,
}

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    file: File,
    places: Vec<Place>,
    bytes: u64,
}

pub(super) fn file_name(first: u64) -> String {
    format!("{first:020}.segment")
}

/// Opens all segments of a spool, in order.
pub(super) fn open_all(dir: &Path) -> Result<VecDeque<Segment>, SpoolError> {
    let files = fs::read_dir(dir).map_err(at(dir))?.flatten().map(|file| file.path());
    let mut paths: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|found| found == "segment")).collect();
    paths.sort();
    paths.iter().map(|path| Segment::open(path)).collect()
}

impl Segment {
    pub(super) fn create(dir: &Path, first: u64) -> Result<Self, SpoolError> {
        let path = dir.join(file_name(first));
        let mut options = OpenOptions::new();
        let options = options.read(true).append(true).create(true).mode(0o600);
        let file = options.open(&path).map_err(at(&path))?;
        disk::sync_parent(&path).map_err(at(&path))?;
        Ok(Self { path, file, places: Vec::new(), bytes: 0 })
    }

    fn open(path: &Path) -> Result<Self, SpoolError> {
        let bytes = fs::read(path).map_err(at(path))?;
        let mut places = Vec::new();
        let mut rest = bytes.as_slice();
        while let Some((content, after)) = record::split(rest) {
            let offset = (bytes.len() - rest.len()) as u64;
            if let Ok(content) = decode(content) {
                let bytes = rest.len() - after.len();
                let Content { sequence, keep, .. } = content;
                places.push(Place { sequence, offset, bytes, keep });
            }
            rest = after;
        }
        let whole = (bytes.len() - rest.len()) as u64;
        let file = OpenOptions::new().read(true).append(true).open(path).map_err(at(path))?;
        if !rest.is_empty() {
            tracing::warn!(lost_bytes = rest.len(), "spool segment has a torn tail");
            file.set_len(whole).map_err(at(path))?;
        }
        Ok(Self { path: path.to_owned(), file, places, bytes: whole })
    }

    pub(super) fn append(&mut self, content: &Content) -> Result<(), SpoolError> {
        let (framed, place) = framed(content, self.bytes)?;
        if let Err(error) = self.file.write_all(&framed) {
            // Half a record would hide those that follow it.
            self.file.set_len(self.bytes).map_err(at(&self.path))?;
            return Err(at(&self.path)(error));
        }
        self.bytes += framed.len() as u64;
        self.places.push(place);
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), SpoolError> {
        self.file.sync_data().map_err(at(&self.path))
    }

    /// At most `count` messages with numbers above `after`.
    pub(super) fn read(&self, after: u64, count: usize) -> Result<Vec<Content>, SpoolError> {
        let places = self.places.iter().filter(|place| place.sequence > after);
        places.take(count).filter_map(|place| self.read_at(*place).transpose()).collect()
    }

    /// A record that was damaged since it was written is passed over.
    fn read_at(&self, place: Place) -> Result<Option<Content>, SpoolError> {
        let mut bytes = vec![0; place.bytes];
        self.file.read_exact_at(&mut bytes, place.offset).map_err(at(&self.path))?;
        Ok(record::split(&bytes).and_then(|(content, _)| decode(content).ok()))
    }

    pub(super) fn is_droppable(&self) -> bool {
        self.places.iter().any(|place| place.keep == Keep::WhileThereIsRoom)
    }

    /// Rewrites the segment without what may be lost, and returns how many that were.
    pub(super) fn drop_droppable(&mut self) -> Result<u64, SpoolError> {
        let before = self.places.len();
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        for place in self.places.iter().filter(|place| place.keep == Keep::Always) {
            let Some(content) = self.read_at(*place)? else { continue };
            let (framed, place) = framed(&content, bytes.len() as u64)?;
            bytes.extend(framed);
            places.push(place);
        }
        disk::replace(&self.path, &bytes, Secrecy::Private).map_err(at(&self.path))?;
        let opened = OpenOptions::new().read(true).append(true).open(&self.path);
        self.file = opened.map_err(at(&self.path))?;
        self.bytes = bytes.len() as u64;
        let dropped = before - places.len();
        self.places = places;
        Ok(dropped as u64)
    }

    pub(super) fn remove(self) -> Result<(), SpoolError> {
        disk::remove(&self.path).map_err(at(&self.path))
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn last(&self) -> Option<u64> {
        self.places.last().map(|place| place.sequence)
    }

    pub(super) fn first_after(&self, after: u64) -> Option<u64> {
        self.places.iter().map(|place| place.sequence).find(|&sequence| sequence > after)
    }

    pub(super) fn count_after(&self, after: u64) -> usize {
        self.places.iter().filter(|place| place.sequence > after).count()
    }
}

fn framed(content: &Content, offset: u64) -> Result<(Vec<u8>, Place), SpoolError> {
    let encoded = codec::encode(content).map_err(SpoolError::Encode)?;
    let framed = record::frame(&encoded).ok_or(SpoolError::TooLong { bytes: encoded.len() })?;
    let Content { sequence, keep, .. } = *content;
    let place = Place { sequence, offset, bytes: framed.len(), keep };
    Ok((framed, place))
}

fn decode(content: &[u8]) -> Result<Content, codec::CodecError> {
    codec::decode("record of the spool", content, record::CONTENT_BYTES_MAX)
}
