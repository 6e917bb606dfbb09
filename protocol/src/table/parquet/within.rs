//! What a damaged file says of its own lengths is compared with its length before memory is taken for it.

use ::parquet::errors::{ParquetError, Result};
use ::parquet::file::reader::{ChunkReader, Length};
use bytes::Bytes;

/// A file of which only what is there is read.
pub(super) struct Within<R>(pub(super) R);

impl<R: ChunkReader> Within<R> {
    fn check(&self, start: u64, length: u64) -> Result<()> {
        let is_there = start.checked_add(length).is_some_and(|end| end <= self.0.len());
        let told = || format!("{length} bytes at {start} of a file of {}", self.0.len());
        if is_there { Ok(()) } else { Err(ParquetError::EOF(told())) }
    }
}

impl<R: ChunkReader> Length for Within<R> {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl<R: ChunkReader> ChunkReader for Within<R> {
    type T = R::T;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        self.check(start, 0)?;
        self.0.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.check(start, length as u64)?;
        self.0.get_bytes(start, length)
    }
}
