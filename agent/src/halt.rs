//! The list of halted rollouts that this device obeys, kept over restarts. It was checked before it was written.

use std::io;
use std::path::Path;

use sealift_protocol::codec;
use sealift_protocol::cose::KeyId;
use sealift_protocol::halt::{HaltList, VerifiedHaltList};
use sealift_protocol::limits::HALT_BYTES_MAX;
use serde::{Deserialize, Serialize};

use crate::disk::{self, Secrecy};

const FILE: &str = "halt.cbor";

/// The longest list, and who signed it.
const BYTES_MAX: usize = HALT_BYTES_MAX + 256;

/// What a device obeys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) list: HaltList,
    /// Its sequence counts for as long as this key is trusted.
    pub(crate) signer: KeyId,
}

impl Kept {
    pub(crate) fn new(verified: &VerifiedHaltList) -> Self {
        Self { list: verified.get().clone(), signer: verified.signer().clone() }
    }

    /// What was written last. A file that cannot be read stops nothing: the server is asked for the list at the next look.
    pub(crate) fn read(store: &Path) -> Option<Self> {
        let limit = u64::try_from(BYTES_MAX).unwrap_or(u64::MAX);
        let bytes = disk::read(&store.join(FILE), limit).ok().flatten()?;
        let kept = codec::decode("kept list of halted rollouts", &bytes, BYTES_MAX);
        kept.inspect_err(|error| tracing::error!(%error, "list of halted rollouts is lost")).ok()
    }

    pub(crate) fn write(&self, store: &Path) -> io::Result<()> {
        let bytes = codec::encode(self).map_err(io::Error::other)?;
        disk::replace(&store.join(FILE), &bytes, Secrecy::Private)
    }
}
