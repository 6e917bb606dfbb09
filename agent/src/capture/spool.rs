//! Samples on the disk until the server has them: a file each, encrypted, and what today's budget has left.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sealift_protocol::capture::{Sample, SampleId, Spent};
use sealift_protocol::codec;
use sealift_protocol::id::ModelName;
use sealift_protocol::limits::{CAPTURE_MODELS_MAX, SEALED_SAMPLE_BYTES_MAX};
use serde::{Deserialize, Serialize};

use crate::disk::{self, Secrecy};
use crate::limits::CAPTURE_SPOOL_BYTES_MAX;

const EXTENSION: &str = "sample";
const SPENT: &str = "spent.cbor";

/// A name and three numbers for each model.
const SPENT_BYTES_MAX: usize = CAPTURE_MODELS_MAX * 256;

/// Names of the fields, besides the sample.
const FILE_BYTES_MAX: usize = SEALED_SAMPLE_BYTES_MAX + 256;

/// A sample that the server does not have yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub(super) id: SampleId,
    /// The exact bytes that go up.
    #[serde(with = "codec::bytes")]
    pub(super) sealed: Vec<u8>,
}

/// The samples of a device.
#[derive(Debug)]
pub(super) struct Samples {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    files: VecDeque<File>,
    bytes: u64,
    next: u64,
}

/// One file: `NUMBER.TEAM.NAME.sample`, none of which has a dot of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct File {
    number: u64,
    model: String,
    bytes: u64,
}

impl File {
    fn name(&self) -> String {
        format!("{:020}.{}.{EXTENSION}", self.number, self.model.replace('/', "."))
    }

    fn parse(path: &Path) -> Option<Self> {
        let stem = path.file_name()?.to_str()?.strip_suffix(EXTENSION)?.strip_suffix('.')?;
        let mut parts = stem.splitn(3, '.');
        let (number, team, name) = (parts.next()?, parts.next()?, parts.next()?);
        let model = ModelName::parse(&format!("{team}/{name}")).ok()?.to_string();
        Some(Self { number: number.parse().ok()?, model, bytes: path.metadata().ok()?.len() })
    }
}

impl Samples {
    /// Opens the samples in a directory, which is made if it is not there.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        disk::private_dir(dir)?;
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            match File::parse(&path) {
                Some(file) => files.push(file),
                // Half a file, from before a power loss.
                None if !path.ends_with(SPENT) => disk::remove(&path)?,
                None => {}
            }
        }
        files.sort_by_key(|file| file.number);
        let bytes = files.iter().map(|file| file.bytes).sum();
        let next = files.last().map_or(1, |file| file.number.saturating_add(1));
        let state = Mutex::new(State { files: files.into(), bytes, next });
        Ok(Self { dir: dir.to_owned(), state })
    }

    /// What was kept today, as it was written last. Without it a day begins anew.
    pub(super) fn spent(&self) -> BTreeMap<ModelName, Spent> {
        let bytes = disk::read(&self.dir.join(SPENT), SPENT_BYTES_MAX as u64).ok().flatten();
        bytes
            .and_then(|bytes| codec::decode("budget", &bytes, SPENT_BYTES_MAX).ok())
            .unwrap_or_default()
    }

    /// Writes a sample, if there is room for it, and what it has left of the budget.
    pub(super) fn add(
        &self,
        sample: &Sample,
        sealed: Vec<u8>,
        spent: &BTreeMap<ModelName, Spent>,
    ) -> io::Result<()> {
        let waiting =
            codec::encode(&Waiting { id: sample.id, sealed }).map_err(io::Error::other)?;
        let bytes = waiting.len() as u64;
        let mut state = self.state();
        if state.bytes + bytes > CAPTURE_SPOOL_BYTES_MAX {
            let full = "as many samples wait to be uploaded as may";
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, full));
        }
        let spent = codec::encode(spent).map_err(io::Error::other)?;
        // The budget first: whoever cuts the power between the two gains no sample.
        disk::replace(&self.dir.join(SPENT), &spent, Secrecy::Private)?;
        let file = File { number: state.next, model: sample.model.to_string(), bytes };
        disk::replace(&self.dir.join(file.name()), &waiting, Secrecy::Private)?;
        state.next += 1;
        state.bytes += bytes;
        state.files.push_back(file);
        Ok(())
    }

    /// The oldest sample, and its number; none if all are up. One that cannot be read is given up.
    pub(super) fn oldest(&self) -> io::Result<Option<(u64, Waiting)>> {
        loop {
            let Some(file) = self.state().files.front().cloned() else { return Ok(None) };
            let read = disk::read(&self.dir.join(file.name()), FILE_BYTES_MAX as u64)?;
            let waiting =
                read.and_then(|bytes| codec::decode("sample", &bytes, FILE_BYTES_MAX).ok());
            if let Some(waiting) = waiting {
                return Ok(Some((file.number, waiting)));
            }
            tracing::warn!(file = file.name(), "a sample on the disk is damaged, and given up");
            self.remove(file.number)?;
        }
    }

    /// Deletes a sample that is up, or never will be.
    pub(super) fn remove(&self, number: u64) -> io::Result<()> {
        self.remove_where(|file| file.number == number)
    }

    /// Deletes what is of other models than these.
    pub(super) fn keep_only(&self, models: &[String]) -> io::Result<()> {
        self.remove_where(|file| !models.contains(&file.model))
    }

    fn remove_where(&self, is_meant: impl Fn(&File) -> bool) -> io::Result<()> {
        let mut state = self.state();
        while let Some(place) = state.files.iter().position(&is_meant) {
            if let Some(file) = state.files.get(place) {
                disk::remove(&self.dir.join(file.name()))?;
            }
            if let Some(gone) = state.files.remove(place) {
                state.bytes = state.bytes.saturating_sub(gone.bytes);
            }
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sealift_protocol::capture::{InferenceId, Why};
    use sealift_protocol::digest::Digest;
    use sealift_protocol::id::{UnixMillis, Version};
    use sealift_protocol::report::ImageRef;

    use super::*;

    fn sample(byte: u8, model: &str) -> Sample {
        let image = ImageRef { version: Version::parse("1").unwrap(), index: Digest::of(b"i") };
        Sample::new(
            (SampleId::new([byte; 16]), InferenceId::parse("a").unwrap()),
            (ModelName::parse(model).unwrap(), image),
            UnixMillis(0),
            (Vec::new(), Vec::new()),
            (BTreeSet::from([Why::Random]), 1.0),
        )
    }

    fn add(samples: &Samples, byte: u8, bytes: usize) -> io::Result<()> {
        samples.add(&sample(byte, "a/b"), vec![byte; bytes], &spent(byte))
    }

    fn spent(day: u8) -> BTreeMap<ModelName, Spent> {
        let mut spent = Spent::default();
        spent.turn(UnixMillis(i64::from(day) << 40));
        BTreeMap::from([(ModelName::parse("a/b").unwrap(), spent)])
    }

    fn oldest(samples: &Samples) -> Option<(u64, SampleId)> {
        samples.oldest().unwrap().map(|(number, waiting)| (number, waiting.id))
    }

    #[test]
    fn samples_wait_in_order_over_a_restart_with_what_is_left_of_the_day() {
        let dir = tempfile::tempdir().unwrap();
        let samples = Samples::open(dir.path()).unwrap();
        assert!(add(&samples, 1, 5).is_ok() && add(&samples, 2, 5).is_ok());
        std::fs::write(dir.path().join("00000000000000000003.a.b.sample.new"), "half").unwrap();

        let again = Samples::open(dir.path()).unwrap();

        assert_eq!(oldest(&again), Some((1, SampleId::new([1; 16]))));
        assert_eq!(again.spent(), spent(2));
        again.remove(1).unwrap();
        assert_eq!(oldest(&again), Some((2, SampleId::new([2; 16]))));
        assert!(add(&again, 3, 5).is_ok());
        again.remove(2).unwrap();
        assert_eq!(oldest(&again), Some((3, SampleId::new([3; 16]))), "no number twice");
    }

    #[test]
    fn there_are_no_more_than_may_be_and_room_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let samples = Samples::open(dir.path()).unwrap();
        assert!((0..8).all(|byte| add(&samples, byte, (4 << 20) - 100).is_ok()));
        assert!(add(&samples, 9, 4 << 20).is_err());
        samples.remove(1).unwrap();
        assert!(add(&samples, 9, (4 << 20) - 100).is_ok());
    }

    #[test]
    fn a_damaged_sample_costs_itself_and_other_models_stay() {
        let dir = tempfile::tempdir().unwrap();
        let samples = Samples::open(dir.path()).unwrap();
        add(&samples, 1, 5).unwrap();
        samples.add(&sample(2, "a/c"), vec![2; 5], &BTreeMap::new()).unwrap();
        std::fs::write(dir.path().join("00000000000000000001.a.b.sample"), "x").unwrap();
        assert_eq!(oldest(&samples), Some((2, SampleId::new([2; 16]))));

        add(&samples, 3, 5).unwrap();
        samples.keep_only(&["a/b".to_owned()]).unwrap();
        assert_eq!(oldest(&samples), Some((3, SampleId::new([3; 16]))));
    }
}
