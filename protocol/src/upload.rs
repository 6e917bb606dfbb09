//! What a device brings up to the server in parts: each goes where the server says that it has come to, so that a cut costs one part.

use serde::{Deserialize, Serialize};

use crate::limits::UPLOAD_PART_BYTES_MAX;

/// How far the server has something; its answer to whoever sends a part of it, or asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// Bytes from the beginning that need not be sent again.
    pub offset: u64,
    /// Whether all of it is stored.
    pub is_complete: bool,
}

/// Where a part belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its first byte.
    pub from: u64,
    /// Bytes of the whole.
    pub size: u64,
}

/// Why a part is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPart {
    /// Of something larger than is taken.
    #[error("more bytes in all than may come")]
    Whole,
    /// Empty, too long, or beyond the end.
    #[error("no bytes, or more than are left")]
    Bytes,
}

impl Place {
    /// The byte after the last one of a part of so many bytes, if such a part may be here.
    pub fn until(self, bytes: usize, size_max: u64) -> Result<u64, InvalidPart> {
        if self.size > size_max {
            return Err(InvalidPart::Whole);
        }
        let until = self.from.saturating_add(bytes as u64);
        let is_part = (1..=UPLOAD_PART_BYTES_MAX).contains(&bytes) && until <= self.size;
        if is_part { Ok(until) } else { Err(InvalidPart::Bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_bytes_and_ends_where_the_whole_does_at_the_latest() {
        let at = |from, size| Place { from, size };
        assert_eq!(at(3, 5).until(2, 5), Ok(5));
        assert_eq!(at(3, 5).until(2, 4), Err(InvalidPart::Whole));
        assert_eq!(at(3, 5).until(3, 5), Err(InvalidPart::Bytes));
        assert_eq!(at(3, 5).until(0, 5), Err(InvalidPart::Bytes));
        assert_eq!(at(u64::MAX, u64::MAX).until(1, u64::MAX), Ok(u64::MAX));
        let long = UPLOAD_PART_BYTES_MAX + 1;
        assert_eq!(at(0, 1 << 30).until(long, 1 << 30), Err(InvalidPart::Bytes));
    }
}
