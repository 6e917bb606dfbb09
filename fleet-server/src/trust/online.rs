//! The keys that the server holds, and their successors.
//!
//! A successor is made here and waits beside the present key until those who hold offline keys have named it: a root the one of
//! snapshot or timestamp, the trust bundle the one of the director. Then it takes the present key's place.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sealift_protocol::tuf::key::{Key, RoleKeys, SigningKey};
use sealift_protocol::tuf::metadata::Root;
use sealift_protocol::tuf::repository::OnlineKeys;

use super::keys::{self, KeyError};

/// Whose key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnlineRole {
    /// Signs directives.
    Director,
    /// Signs snapshots.
    Snapshot,
    /// Signs timestamps.
    Timestamp,
}

impl OnlineRole {
    /// The role of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "director" => Some(Self::Director),
            "snapshot" => Some(Self::Snapshot),
            "timestamp" => Some(Self::Timestamp),
            _ => None, // other roles have no key here
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Self::Director => keys::DIRECTOR,
            Self::Snapshot => keys::SNAPSHOT,
            Self::Timestamp => keys::TIMESTAMP,
        }
    }

    fn present(self, folder: &Path) -> PathBuf {
        folder.join(self.file())
    }

    fn successor(self, folder: &Path) -> PathBuf {
        folder.join(self.file().replace(".pem", "-next.pem"))
    }

    /// The present key, and its successor if one waits.
    pub(crate) fn read(self, folder: &Path) -> Result<Vec<SigningKey>, KeyError> {
        let present = keys::read_role(&self.present(folder));
        let path = self.successor(folder);
        if !path.exists() {
            return Ok(vec![present?]);
        }
        let next = keys::read_role(&path)?;
        // A server killed between the two steps of `succeed` has the successor alone, or twice.
        Ok(present.into_iter().chain([next]).collect())
    }

    /// Makes a successor, or finds the one that waits.
    pub(crate) fn prepare(self, folder: &Path) -> Result<Key, KeyError> {
        let path = self.successor(folder);
        if !path.exists() {
            keys::write_new(&path, &keys::generate()?.to_pem().map_err(KeyError::Encode)?)?;
        }
        Ok(keys::read_role(&path)?.public())
    }

    /// Puts the successor in the present key's place, which is then gone.
    pub(crate) fn succeed(self, folder: &Path) -> Result<(), KeyError> {
        let (present, next) = (self.present(folder), self.successor(folder));
        keys::replace(&present, &keys::read_secret(&next)?)?;
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(KeyError::Write(next, error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// The keys of snapshot and timestamp, each with its successor if one waits.
pub(crate) struct Online {
    snapshot: Vec<SigningKey>,
    timestamp: Vec<SigningKey>,
}

impl Online {
    /// Reads them.
    pub(crate) fn read(folder: &Path) -> Result<Self, KeyError> {
        Ok(Self {
            snapshot: OnlineRole::Snapshot.read(folder)?,
            timestamp: OnlineRole::Timestamp.read(folder)?,
        })
    }

    /// The keys that `root` names; none if it names none of a role's.
    pub(crate) fn of(&self, root: &Root) -> Option<OnlineKeys<'_>> {
        let named = |keys: &'_ [SigningKey], role: &RoleKeys| {
            keys.iter().position(|key| role.keyids.contains(&key.id()))
        };
        let snapshot = self.snapshot.get(named(&self.snapshot, &root.roles.snapshot)?)?;
        let timestamp = self.timestamp.get(named(&self.timestamp, &root.roles.timestamp)?)?;
        Some(OnlineKeys { snapshot, timestamp })
    }

    /// Puts successors in their places once `root` names them and no longer the present keys.
    pub(crate) fn settle(&self, folder: &Path, root: &Root) -> Result<(), KeyError> {
        let roles = [
            (OnlineRole::Snapshot, &self.snapshot, &root.roles.snapshot),
            (OnlineRole::Timestamp, &self.timestamp, &root.roles.timestamp),
        ];
        for (role, keys, named) in roles {
            let [present, next] = keys.as_slice() else { continue };
            if named.keyids.contains(&next.id()) && !named.keyids.contains(&present.id()) {
                role.succeed(folder)?;
                tracing::info!(?role, key = %next.id(), "online key replaced");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_is_made_once_and_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let present = keys::generate().unwrap();
        keys::write_new(&folder.join(keys::DIRECTOR), &present.to_pem().unwrap()).unwrap();

        let next = OnlineRole::Director.prepare(folder).unwrap().id();
        assert_eq!(OnlineRole::Director.prepare(folder).unwrap().id(), next);
        let ids: Vec<_> =
            OnlineRole::Director.read(folder).unwrap().iter().map(SigningKey::id).collect();
        assert_eq!(ids, [present.id(), next.clone()]);

        OnlineRole::Director.succeed(folder).unwrap();

        let left = OnlineRole::Director.read(folder).unwrap();
        assert_eq!(left.iter().map(SigningKey::id).collect::<Vec<_>>(), [next]);
    }
}
