//! Trust metadata on disk: what belongs together changes together.
//!
//! Architecture Invariant: whenever the agent ends, what is on disk is what was trusted before a set of changes or after it. A new root
//! and the removal of what it no longer vouches for are such a set: the root alone would keep versions that a stolen key has raised,
//! the removal alone would let versions come back that were outdated.

use std::io;
use std::path::{Path, PathBuf};

use sealift_protocol::codec;
use sealift_protocol::tuf::client::Persist;
use serde::{Deserialize, Serialize};

use crate::disk::{self, Secrecy};

/// The set of changes that is being carried out.
const CHANGES_FILE: &str = "changes";

/// A set holds one root, of at most 1 MiB.
const CHANGES_BYTES_MAX: u64 = 2 << 20;

/// A change as it is written down.
#[derive(Debug, Serialize, Deserialize)]
enum Change {
    Write {
        name: String,
        #[serde(with = "codec::bytes")]
        bytes: Vec<u8>,
    },
    Remove {
        name: String,
    },
}

/// Why changes were not carried out: the file that was to change, and what the system said.
pub(crate) type Refused = (PathBuf, io::Error);

/// Carries out all `changes` to the files in `dir`, or none of them.
pub(crate) fn change(dir: &Path, changes: Vec<Persist>, secrecy: Secrecy) -> Result<(), Refused> {
    let changes: Vec<_> = changes.into_iter().map(Change::from).collect();
    if changes.len() < 2 {
        return changes.iter().try_for_each(|change| change.carry_out(dir, secrecy));
    }
    let path = dir.join(CHANGES_FILE);
    let encoded = codec::encode(&changes).map_err(io::Error::other);
    let written = encoded.and_then(|bytes| disk::replace(&path, &bytes, secrecy));
    written.map_err(|source| (path, source))?;
    complete(dir, &changes, secrecy)
}

/// Carries out what was written down and perhaps not done.
pub(crate) fn recover(dir: &Path, secrecy: Secrecy) -> Result<(), Refused> {
    let path = dir.join(CHANGES_FILE);
    let refused = |source| (path.clone(), source);
    let Some(bytes) = disk::read(&path, CHANGES_BYTES_MAX).map_err(refused)? else {
        return Ok(());
    };
    let changes: Result<Vec<Change>, _> = codec::decode("set of changes", &bytes, bytes.len());
    complete(dir, &changes.map_err(|error| refused(io::Error::other(error)))?, secrecy)
}

fn complete(dir: &Path, changes: &[Change], secrecy: Secrecy) -> Result<(), Refused> {
    changes.iter().try_for_each(|change| change.carry_out(dir, secrecy))?;
    let path = dir.join(CHANGES_FILE);
    disk::remove(&path).map_err(|source| (path, source))
}

impl From<Persist> for Change {
    fn from(persist: Persist) -> Self {
        match persist {
            Persist::Write { name, bytes } => Self::Write { name, bytes },
            Persist::Remove { name } => Self::Remove { name },
        }
    }
}

impl Change {
    fn carry_out(&self, dir: &Path, secrecy: Secrecy) -> Result<(), Refused> {
        let (path, done) = match self {
            Self::Write { name, bytes } => {
                let path = dir.join(name);
                let ready = lasting_parent(dir, &path);
                let done = ready.and_then(|()| disk::replace(&path, bytes, secrecy));
                (path, done)
            }
            Self::Remove { name } => {
                let path = dir.join(name);
                let done = disk::remove(&path);
                (path, done)
            }
        };
        done.map_err(|source| (path, source))
    }
}

/// Makes the directories from `dir` to `path`, and their names outlast a power loss: a file is where its directory is.
fn lasting_parent(dir: &Path, path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) else { return Ok(()) };
    disk::private_dir(parent)?;
    let above = parent.ancestors().take_while(|above| above.starts_with(dir) && *above != dir);
    above.into_iter().try_for_each(disk::sync_parent)
}
