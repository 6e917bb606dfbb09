//! What the four kinds of metadata say.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::delegation::Delegations;
use super::error::{Role, TufError};
use super::hashes::Hashes;
use super::key::{Authority, Key, KeyId, RoleKeys};
use crate::digest::Digest;
use crate::id::{Epoch, UnixMillis};

/// One of the four kinds of metadata.
pub trait Metadata: Serialize + DeserializeOwned {
    /// Its `_type`.
    const TYPE: &'static str;

    /// Its version.
    fn version(&self) -> u64;

    /// When it stops being valid.
    fn expires(&self) -> UnixMillis;
}

/// Section 4.3: the keys of every top-level role.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Root {
    /// Rises by one.
    pub version: u64,
    /// Valid until here.
    #[serde(with = "expiry")]
    pub expires: UnixMillis,
    /// Whether metadata files carry their version, and target files their digest, in their names.
    #[serde(default)]
    pub consistent_snapshot: bool,
    /// Key objects by id.
    pub keys: BTreeMap<KeyId, Key>,
    /// The four top-level roles.
    pub roles: TopRoles,
}

/// The top-level roles; each must be there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TopRoles {
    /// Signs the next root.
    pub root: RoleKeys,
    /// Signs the timestamp.
    pub timestamp: RoleKeys,
    /// Signs the snapshot.
    pub snapshot: RoleKeys,
    /// Signs the top-level targets.
    pub targets: RoleKeys,
}

impl Root {
    /// Who may sign for one of its roles.
    pub fn authority<'a>(&'a self, role: &'a RoleKeys) -> Authority<'a> {
        Authority { keys: &self.keys, role }
    }
}

/// Section 4.4: the version of every targets file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Snapshot {
    /// Rises.
    pub version: u64,
    /// Valid until here.
    #[serde(with = "expiry")]
    pub expires: UnixMillis,
    /// Files by name, such as `targets.json`.
    pub meta: BTreeMap<String, MetaFile>,
}

impl Snapshot {
    /// What the snapshot says about `role`'s file.
    pub(crate) fn listed(&self, role: &Role) -> Result<&MetaFile, TufError> {
        let unlisted = || TufError::Unlisted { role: role.clone() };
        self.meta.get(&role.listing()).ok_or_else(unlisted)
    }
}

/// Section 4.6: the newest snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Timestamp {
    /// Rises.
    pub version: u64,
    /// Valid until here.
    #[serde(with = "expiry")]
    pub expires: UnixMillis,
    /// The one file it names.
    pub meta: TimestampMeta,
}

/// The one file that a timestamp names.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TimestampMeta {
    /// The newest snapshot.
    #[serde(rename = "snapshot.json")]
    pub snapshot: MetaFile,
}

/// Version, and if known length and digest, of a metadata file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaFile {
    /// Its version.
    pub version: u64,
    /// Its length in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Its digests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hashes: Option<Hashes>,
}

impl MetaFile {
    /// Describes the bytes of `version`.
    pub fn of(version: u64, bytes: &[u8]) -> Self {
        let length = u64::try_from(bytes.len()).ok();
        Self { version, length, hashes: Some(Hashes::of(bytes)) }
    }

    /// The most bytes that may come for it.
    pub(crate) fn bytes_max(&self, role: &Role) -> usize {
        let announced = self.length.and_then(|length| usize::try_from(length).ok());
        role.bytes_max().min(announced.unwrap_or(usize::MAX))
    }

    /// Refuses bytes of another length or digest than announced.
    pub(crate) fn check(&self, role: &Role, bytes: &[u8]) -> Result<(), TufError> {
        let given = u64::try_from(bytes.len()).ok();
        if self.length.is_some() && self.length != given {
            return Err(TufError::Mismatch { file: role.file(), what: "length" });
        }
        if self.hashes.as_ref().is_some_and(|hashes| !hashes.match_bytes(bytes)) {
            return Err(TufError::Mismatch { file: role.file(), what: "digest" });
        }
        Ok(())
    }
}

/// Section 4.5: target files, and roles that name more of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Targets {
    /// Rises.
    pub version: u64,
    /// Valid until here.
    #[serde(with = "expiry")]
    pub expires: UnixMillis,
    /// Target files by path.
    pub targets: BTreeMap<String, TargetFile>,
    /// Roles that name more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegations: Option<Delegations>,
}

/// The member of a model image's `custom` value that holds its security epoch.
const EPOCH: &str = "epoch";

/// Length and digest of a target file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetFile {
    /// Its length in bytes.
    pub length: u64,
    /// Its digests.
    pub hashes: Hashes,
    /// What the signer adds; a model's security epoch, for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<Value>,
}

impl TargetFile {
    /// Describes `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Self { length, hashes: Hashes::of(bytes), custom: None }
    }

    /// Describes a model image by its OCI index.
    pub fn of_model(index: &[u8], epoch: Epoch) -> Self {
        Self { custom: Some(json!({ EPOCH: epoch })), ..Self::of(index) }
    }

    /// Its SHA-256, by which a registry names an image; none if only other digests were signed.
    pub const fn digest(&self) -> Option<Digest> {
        self.hashes.sha256()
    }

    /// The security epoch that the publisher gave a model image.
    pub fn epoch(&self) -> Option<Epoch> {
        self.custom.as_ref()?.get(EPOCH)?.as_u64().map(Epoch)
    }

    /// TUF 5.7.3: bytes of another length or digest than signed are not the target.
    pub fn check(&self, path: &str, bytes: &[u8]) -> Result<(), TufError> {
        if u64::try_from(bytes.len()) != Ok(self.length) {
            return Err(TufError::Mismatch { file: path.to_owned(), what: "length" });
        }
        if !self.hashes.match_bytes(bytes) {
            return Err(TufError::Mismatch { file: path.to_owned(), what: "digest" });
        }
        Ok(())
    }

    /// Where a repository keeps the target `path`, below its folder of targets and not yet encoded for a URL: with consistent
    /// snapshots a digest stands before the file's name.
    pub fn location(&self, path: &str, is_consistent: bool) -> String {
        match (self.hashes.prefix(), path.rsplit_once('/')) {
            (Some(hex), Some((folder, file))) if is_consistent => format!("{folder}/{hex}.{file}"),
            (Some(hex), None) if is_consistent => format!("{hex}.{path}"),
            _ => path.to_owned(), // also where no digest is known: then no bytes are accepted
        }
    }
}

macro_rules! metadata {
    ($($kind:ident is $name:literal),*) => {$(
        impl Metadata for $kind {
            const TYPE: &'static str = $name;

            fn version(&self) -> u64 {
                self.version
            }

            fn expires(&self) -> UnixMillis {
                self.expires
            }
        }
    )*};
}

metadata!(Root is "root", Snapshot is "snapshot", Timestamp is "timestamp", Targets is "targets");

/// Section 4.1: times are written `YYYY-MM-DDTHH:MM:SSZ`.
mod expiry {
    use jiff::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serializer, de, ser};

    use crate::id::UnixMillis;

    const FORMAT: &str = "%Y-%m-%dT%H:%M:%SZ";

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
    pub(super) fn serialize<S: Serializer>(at: &UnixMillis, to: S) -> Result<S::Ok, S::Error> {
        let time = Timestamp::from_millisecond(at.0).map_err(ser::Error::custom)?;
        to.collect_str(&time.strftime(FORMAT))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<UnixMillis, D::Error> {
        let text = String::deserialize(from)?;
        let time: Timestamp = text.parse().map_err(de::Error::custom)?;
        // One time has one spelling: no fractions, no offsets, no lower case.
        if time.strftime(FORMAT).to_string() == text {
            Ok(UnixMillis(time.as_millisecond()))
        } else {
            Err(de::Error::custom(format_args!("{text:?} is not of the form YYYY-MM-DDTHH:MM:SSZ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timestamp(expires: &str) -> Result<Timestamp, serde_json::Error> {
        let meta = serde_json::json!({"snapshot.json": {"version": 1}});
        serde_json::from_value(serde_json::json!({"version": 1, "expires": expires, "meta": meta}))
    }

    #[test]
    fn a_time_has_one_spelling() {
        assert_eq!(timestamp("1970-01-01T00:00:01Z").unwrap().expires, UnixMillis(1000));
        for text in ["1970-01-01", "1970-01-01T00:00:01.5Z", "1970-01-01t00:00:01z", "never"] {
            assert!(timestamp(text).is_err(), "{text}");
        }
        assert!(timestamp("1970-01-01T00:00:01+00:00").is_err());
    }

    #[test]
    fn a_digest_precedes_the_name_in_a_consistent_snapshot() {
        let file = TargetFile::of(b"");
        let hex = Digest::of(b"").hex();
        assert_eq!(file.location("trust/bundle.json", true), format!("trust/{hex}.bundle.json"));
        assert_eq!(file.location("bundle.json", true), format!("{hex}.bundle.json"));
        assert_eq!(file.location("trust/bundle.json", false), "trust/bundle.json");
    }
}
