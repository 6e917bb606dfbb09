//! The signing side: a repository of metadata that the fleet server keeps, and that key holders and publishers add to.
//!
//! The server holds the online keys, of snapshot and timestamp, and no others: it says which metadata belong together and that they
//! are fresh, but cannot name a target. What holders of offline keys sign is checked here as a device would check it, so that
//! nothing is published that devices refuse.

use std::collections::BTreeMap;

use super::client::{Persist, TARGETS_FOLDER};
use super::error::{Role, TufError};
use super::key::SigningKey;
use super::metadata::{
    MetaFile, Metadata, Root, Snapshot, TargetFile, Targets, Timestamp, TimestampMeta,
};
use super::signed::{self, Signed, Verified};
use crate::id::UnixMillis;

mod ceremony;
mod change;
mod draft;
#[cfg(test)]
mod tests;

use change::Published;

pub use ceremony::{
    CeremonyKeys, ceremony, publisher_delegation, revocations_delegation, runtime_delegation,
};
pub use change::{Change, Pace};
pub use draft::{RootDraft, TargetsDraft};

/// Old versions of a file that stay, for devices in the middle of an update. Roots stay for ever.
const VERSIONS_KEPT: u64 = 100;

/// Target files below this folder lie in this repository; all others, such as model images, lie in a registry.
const KEPT_HERE: &str = "trust/";

/// How long new metadata is valid, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// Root metadata.
    pub root_ms: i64,
    /// Top-level targets.
    pub targets_ms: i64,
    /// A team's targets.
    pub publisher_ms: i64,
    /// The deny list.
    pub revocations_ms: i64,
    /// Agents and inference libraries.
    pub runtime_ms: i64,
    /// The snapshot.
    pub snapshot_ms: i64,
    /// The timestamp: how long a device can be kept from news without noticing.
    pub timestamp_ms: i64,
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

impl Lifetimes {
    /// For devices that reach their server every day.
    pub const ONLINE: Self = Self {
        root_ms: 365 * DAY_MS,
        targets_ms: 180 * DAY_MS,
        publisher_ms: 90 * DAY_MS,
        revocations_ms: 30 * DAY_MS,
        runtime_ms: 180 * DAY_MS,
        snapshot_ms: 7 * DAY_MS,
        timestamp_ms: DAY_MS,
    };

    /// For devices whose metadata is carried to them.
    pub const AIR_GAPPED: Self =
        Self { snapshot_ms: 90 * DAY_MS, timestamp_ms: 30 * DAY_MS, ..Self::ONLINE };
}

/// The keys that the server holds.
#[derive(Debug, Clone, Copy)]
pub struct OnlineKeys<'a> {
    /// Signs snapshots.
    pub snapshot: &'a SigningKey,
    /// Signs timestamps.
    pub timestamp: &'a SigningKey,
}

/// All files of a repository with consistent snapshots, by the names under which devices fetch them.
#[derive(Debug, Clone)]
pub struct Repository {
    lifetimes: Lifetimes,
    files: BTreeMap<String, Vec<u8>>,
    root: Verified<Root>,
    targets: Verified<Targets>,
    snapshot: Verified<Snapshot>,
    timestamp: Verified<Timestamp>,
}

/// Versions that the next ones must be above, besides the present ones.
#[derive(Debug, Clone, Copy, Default)]
struct Above {
    snapshot: u64,
    timestamp: u64,
}

impl Repository {
    /// Opens the files of a repository and checks that they belong together. Expired metadata passes: the server may have been off.
    pub fn open(files: BTreeMap<String, Vec<u8>>, lifetimes: Lifetimes) -> Result<Self, TufError> {
        let (root, before) = newest_roots(&files)?;
        // A server stopped between a new root and its first timestamp still has those signed by the keys before.
        let online = before.as_ref().unwrap_or(&root);
        let timestamp = read::<Timestamp>(&files, &Role::Timestamp, &Role::Timestamp.file())?;
        let timestamp = timestamp
            .clone()
            .verify(root.authority(&root.roles.timestamp))
            .or_else(|_| timestamp.verify(online.authority(&online.roles.timestamp)))?;
        let meta = &timestamp.meta.snapshot;
        let snapshot = read_listed::<Snapshot>(&files, &Role::Snapshot, meta)?;
        let snapshot = snapshot
            .clone()
            .verify(root.authority(&root.roles.snapshot))
            .or_else(|_| snapshot.verify(online.authority(&online.roles.snapshot)))?;
        let meta = snapshot.listed(&Role::Targets)?;
        let targets = read_listed::<Targets>(&files, &Role::Targets, meta)?;
        let targets = targets.verify(root.authority(&root.roles.targets))?;
        for (name, meta) in &snapshot.meta {
            let role = Role::of_targets(name.strip_suffix(".json").unwrap_or(name));
            read_listed::<Targets>(&files, &role, meta)?;
        }
        Ok(Self { lifetimes, files, root, targets, snapshot, timestamp })
    }

    /// Every file by the name under which devices fetch it.
    pub fn files(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.files
    }

    /// The newest root: what a new device is given as its anchor.
    pub fn root(&self) -> &Verified<Root> {
        &self.root
    }

    /// The newest top-level targets.
    pub fn targets(&self) -> &Verified<Targets> {
        &self.targets
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> &Verified<Snapshot> {
        &self.snapshot
    }

    /// The newest timestamp.
    pub fn timestamp(&self) -> &Verified<Timestamp> {
        &self.timestamp
    }

    /// The newest metadata of a delegated role, for its holder to add to.
    pub fn delegated(&self, name: &str) -> Option<&[u8]> {
        let role = Role::Delegated(name.to_owned());
        let version = self.snapshot.meta.get(&role.listing())?.version;
        self.files.get(&role.versioned_file(version)).map(Vec::as_slice)
    }

    /// Signs a new timestamp, and a new snapshot once half of its life is over. Returns what to persist, in order.
    pub fn refresh_timestamp(
        &mut self,
        online: OnlineKeys<'_>,
        now: UnixMillis,
    ) -> Result<Vec<Persist>, TufError> {
        let snapshot = Signed::<Snapshot>::parse(Role::Snapshot, self.snapshot.bytes().to_vec())?;
        let is_trusted = snapshot.verify(self.root.authority(&self.root.roles.snapshot)).is_ok();
        let is_young = self.snapshot.expires.since(now) > self.lifetimes.snapshot_ms / 2;
        if !(is_trusted && is_young) {
            return self.publish(&Vec::new(), online, now);
        }
        let timestamp = self.sign_timestamp(&self.snapshot, 0, online, now)?;
        let changes = vec![Persist::Write {
            name: Role::Timestamp.file(),
            bytes: timestamp.bytes().to_vec(),
        }];
        self.timestamp = timestamp;
        self.carry_out(&changes);
        Ok(changes)
    }

    /// Makes a new snapshot and a new timestamp with versions above these. TUF 5.4.3, 5.5.5: a device takes none that is older than
    /// what it has followed, so that a repository which was restored from a backup has to begin above all that devices have seen.
    pub fn jump(
        &mut self,
        (snapshot, timestamp): (u64, u64),
        online: OnlineKeys<'_>,
        now: UnixMillis,
    ) -> Result<Vec<Persist>, TufError> {
        let above = Above { snapshot, timestamp };
        self.publish_above(&Vec::new(), &above, online, now)
    }

    /// Makes a new snapshot, with new metadata if there are any, and a new timestamp: the timestamp last, so that what it leads to is
    /// there before it.
    fn publish(
        &mut self,
        new: &Published,
        online: OnlineKeys<'_>,
        now: UnixMillis,
    ) -> Result<Vec<Persist>, TufError> {
        self.publish_above(new, &Above::default(), online, now)
    }

    fn publish_above(
        &mut self,
        new: &Published,
        above: &Above,
        online: OnlineKeys<'_>,
        now: UnixMillis,
    ) -> Result<Vec<Persist>, TufError> {
        let mut meta = self.snapshot.meta.clone();
        let mut changes = Vec::new();
        for (role, targets) in new {
            meta.insert(role.listing(), MetaFile::of(targets.version, targets.bytes()));
            changes.push(version_of(role, targets.version, targets.bytes()));
            changes.extend(forget(role, targets.version));
        }
        let expires = now.plus(self.lifetimes.snapshot_ms);
        let version = self.snapshot.version.max(above.snapshot).saturating_add(1);
        let snapshot = Snapshot { version, expires, meta };
        let bytes = signed::sign(&Role::Snapshot, &snapshot, &[online.snapshot])?;
        // Verified as devices will: a wrong online key is found here and not in the field.
        let snapshot = Signed::<Snapshot>::parse(Role::Snapshot, bytes)?
            .verify(self.root.authority(&self.root.roles.snapshot))?;
        let timestamp = self.sign_timestamp(&snapshot, above.timestamp, online, now)?;
        changes.push(version_of(&Role::Snapshot, version, snapshot.bytes()));
        changes.push(Persist::Write {
            name: Role::Timestamp.file(),
            bytes: timestamp.bytes().to_vec(),
        });
        changes.extend(forget(&Role::Snapshot, version));
        (self.snapshot, self.timestamp) = (snapshot, timestamp);
        self.carry_out(&changes);
        Ok(changes)
    }

    fn sign_timestamp(
        &self,
        snapshot: &Verified<Snapshot>,
        above: u64,
        online: OnlineKeys<'_>,
        now: UnixMillis,
    ) -> Result<Verified<Timestamp>, TufError> {
        let version = self.timestamp.version.max(above).saturating_add(1);
        let timestamp = new_timestamp(version, snapshot, now.plus(self.lifetimes.timestamp_ms));
        let bytes = signed::sign(&Role::Timestamp, &timestamp, &[online.timestamp])?;
        let signed = Signed::<Timestamp>::parse(Role::Timestamp, bytes)?;
        signed.verify(self.root.authority(&self.root.roles.timestamp))
    }

    fn carry_out(&mut self, changes: &[Persist]) {
        for change in changes {
            match change {
                Persist::Write { name, bytes } => {
                    self.files.insert(name.clone(), bytes.clone());
                }
                Persist::Remove { name } => {
                    self.files.remove(name);
                }
            }
        }
    }
}

fn new_timestamp(version: u64, snapshot: &Verified<Snapshot>, expires: UnixMillis) -> Timestamp {
    let meta = TimestampMeta { snapshot: MetaFile::of(snapshot.version, snapshot.bytes()) };
    Timestamp { version, expires, meta }
}

fn target_name(path: &str, entry: &TargetFile) -> String {
    format!("{TARGETS_FOLDER}{}", entry.location(path, true))
}

fn version_of(role: &Role, version: u64, bytes: &[u8]) -> Persist {
    Persist::Write { name: role.versioned_file(version), bytes: bytes.to_vec() }
}

/// The version that no device can still be about to fetch.
fn forget(role: &Role, version: u64) -> Option<Persist> {
    let old = version.checked_sub(VERSIONS_KEPT)?;
    Some(Persist::Remove { name: role.versioned_file(old) })
}

/// The newest root, and the one before it if it is there.
fn newest_roots(
    files: &BTreeMap<String, Vec<u8>>,
) -> Result<(Verified<Root>, Option<Verified<Root>>), TufError> {
    let suffix = format!(".{}", Role::Root.file());
    let version = |name: &String| name.strip_suffix(&suffix)?.parse::<u64>().ok();
    let newest = files.keys().filter_map(version).max();
    let newest = newest.ok_or_else(|| TufError::Missing { file: Role::Root.versioned_file(1) })?;
    let root =
        |version| read::<Root>(files, &Role::Root, &Role::Root.versioned_file(version))?.anchor();
    Ok((root(newest)?, root(newest.saturating_sub(1)).ok()))
}

fn read<T: Metadata>(
    files: &BTreeMap<String, Vec<u8>>,
    role: &Role,
    name: &str,
) -> Result<Signed<T>, TufError> {
    let missing = || TufError::Missing { file: name.to_owned() };
    Signed::parse(role.clone(), files.get(name).ok_or_else(missing)?.clone())
}

fn read_listed<T: Metadata>(
    files: &BTreeMap<String, Vec<u8>>,
    role: &Role,
    meta: &MetaFile,
) -> Result<Signed<T>, TufError> {
    let name = role.versioned_file(meta.version);
    let bytes = files.get(&name).ok_or(TufError::Missing { file: name })?;
    meta.check(role, bytes)?;
    Signed::parse(role.clone(), bytes.clone())
}
