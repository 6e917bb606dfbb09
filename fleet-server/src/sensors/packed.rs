//! A window as bytes: a sixth of what it takes to reckon with.

use sealift_protocol::id::UnixMillis;
use sealift_protocol::profile::{Mismatch, Profile};

use crate::drift::Window;

/// A window that waits to be looked at.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    from: UnixMillis,
    until: UnixMillis,
    rows: u64,
    skipped: u64,
    bytes: Vec<u8>,
}

impl Packed {
    pub(super) fn new(window: &Window) -> Result<Self, Mismatch> {
        let Window { from, until, profile } = window;
        // What was read from bytes can be written to them again.
        let bytes = profile.encode().map_err(|_| Mismatch::Shape)?;
        let (rows, skipped) = (profile.rows(), profile.skipped());
        Ok(Self { from: *from, until: *until, rows, skipped, bytes })
    }

    pub(super) const fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) const fn skipped(&self) -> u64 {
        self.skipped
    }

    pub(super) const fn until(&self) -> UnixMillis {
        self.until
    }

    pub(super) fn profile(&self) -> Result<Profile, Mismatch> {
        Profile::decode(&self.bytes).map_err(|_| Mismatch::Shape)
    }

    pub(super) fn unpacked(&self) -> Result<Window, Mismatch> {
        Ok(Window { from: self.from, until: self.until, profile: self.profile()? })
    }

    /// Adds what came in the same time, or after it.
    pub(super) fn add(&mut self, taken: &Window) -> Result<(), Mismatch> {
        let mut whole = self.unpacked()?;
        whole.profile.merge(&taken.profile)?;
        whole.from = whole.from.min(taken.from);
        whole.until = whole.until.max(taken.until);
        *self = Self::new(&whole)?;
        Ok(())
    }

    /// A clock that stepped back must not make rows look as if they were judged already.
    pub(super) fn ends_after(&mut self, before: UnixMillis) {
        self.until = self.until.max(before.plus(1));
    }
}
