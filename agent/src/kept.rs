//! A signed list that this device obeys, kept over restarts. It was checked before it was written.

use std::io;
use std::path::Path;

use sealift_protocol::codec;
use sealift_protocol::cose::KeyId;
use sealift_protocol::limits::{CAPTURE_BYTES_MAX, HALT_BYTES_MAX};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::disk::{self, Secrecy};

/// Who signed it, and the names of the fields.
const HEAD_BYTES_MAX: usize = 256;

/// Where a list lies, and how long it may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    file: &'static str,
    bytes_max: usize,
}

/// The list of halted rollouts.
pub(crate) const HALTS: Place =
    Place { file: "halt.cbor", bytes_max: HALT_BYTES_MAX + HEAD_BYTES_MAX };

/// The list of what is kept for people to look at.
pub(crate) const CAPTURES: Place =
    Place { file: "capture.cbor", bytes_max: CAPTURE_BYTES_MAX + HEAD_BYTES_MAX };

/// What a device obeys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept<L> {
    pub(crate) list: L,
    /// Its sequence counts for as long as this key is trusted.
    pub(crate) signer: KeyId,
}

impl<L: Serialize + DeserializeOwned> Kept<L> {
    /// What was written last. A file that cannot be read stops nothing: the server is asked for the list at the next look.
    pub(crate) fn read(store: &Path, place: Place) -> Option<Self> {
        let limit = u64::try_from(place.bytes_max).unwrap_or(u64::MAX);
        let bytes = disk::read(&store.join(place.file), limit).ok().flatten()?;
        let kept = codec::decode("kept list", &bytes, place.bytes_max);
        let file = place.file;
        kept.inspect_err(|error| tracing::error!(file, %error, "a kept list is lost")).ok()
    }

    pub(crate) fn write(&self, store: &Path, place: Place) -> io::Result<()> {
        let bytes = codec::encode(self).map_err(io::Error::other)?;
        disk::replace(&store.join(place.file), &bytes, Secrecy::Private)
    }
}
