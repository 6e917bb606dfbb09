//! A device's side: from the root it trusts to the targets it may install.
//!
//! ```text
//!      refresh(now)                                                              want(…)
//! IDLE ────────────> ROOT N+1, N+2, … ──> TIMESTAMP ──> SNAPSHOT ──> TARGETS ──> IDLE ────────> SEARCH ──> [FILE] ──> IDLE
//! ```
//! The caller fetches what [`Client::need`] names and hands it to [`Client::on`], which checks it and returns what to persist;
//! and so on until nothing is needed. An error ends the update: what was persisted until then stays trusted, and
//! [`Client::refresh`] starts again.
//!
//! Architecture Invariant: metadata becomes trusted, and is given out to be persisted, only after all its checks have passed.

use std::collections::BTreeMap;
use std::mem;

use super::error::{Role, TufError};
use super::metadata::{Root, Snapshot, TargetFile, Targets, Timestamp};
use super::signed::{Signed, Verified};
use crate::id::UnixMillis;

mod targets;
#[cfg(test)]
mod tests;

use targets::top_edge;

/// Rotations of the root that one update follows. Ten years of weekly rotation lie within two updates.
const ROOTS_MAX: u32 = 256;

/// Folder of target files in a repository, and among what a device persists.
pub const TARGETS_FOLDER: &str = "targets/";

/// Which names delegated roles may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleNames {
    /// Letters, digits, `-`, `_` and `.`, not beginning with `.`: what every Sealift repository has, and all that its devices take.
    Plain,
    /// Every name that the specification allows. Files and URLs have it percent-encoded.
    Any,
}

/// A file that the caller shall fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Where it is, relative to the repository and ready for a URL: `2.root.json`, or below `targets/` for target files.
    pub file: String,
    /// Nothing beyond these bytes need be read: more are refused.
    pub max_bytes: usize,
}

/// A change to the files that the caller keeps. Those that are returned together are carried out together: after a crash all of them
/// have happened, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Persist {
    /// Replaces the file.
    Write {
        /// Its name without a version, such as `root.json`.
        name: String,
        /// Its new content.
        bytes: Vec<u8>,
    },
    /// Removes the file, if it is there.
    Remove {
        /// Its name.
        name: String,
    },
}

impl Persist {
    /// The name of the file that changes.
    pub fn name(&self) -> &str {
        match self {
            Self::Write { name, .. } | Self::Remove { name } => name,
        }
    }
}

/// What to look for below the top-level targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// Length, digest and epoch of a target.
    Entry(String),
    /// The target's bytes as well.
    File(String),
}

/// Verifies one repository's metadata, starting from a trusted root.
#[derive(Debug, Clone)]
pub struct Client {
    role_names: RoleNames,
    now: UnixMillis,
    root: Verified<Root>,
    timestamp: Option<Verified<Timestamp>>,
    snapshot: Option<Verified<Snapshot>>,
    /// Empty until an update has passed its last check.
    roles: BTreeMap<Edge, Verified<Targets>>,
    /// Target files of this update, checked, by path.
    files: BTreeMap<String, Vec<u8>>,
    /// Persisted targets metadata and target files by name: candidates, checked anew before use.
    stored: BTreeMap<String, Vec<u8>>,
    state: State,
}

/// A delegation by the names of its two ends: a role is trusted by its delegator, never for its own name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    delegator: String,
    role: String,
}

#[derive(Debug, Clone)]
enum State {
    Idle,
    Next(Stage),
    Waiting { need: Need, fetch: Fetch },
}

/// What comes next, before it is known whether a file must be fetched for it.
#[derive(Debug, Clone)]
enum Stage {
    Root { fetched: u32 },
    Timestamp,
    Snapshot,
    Targets,
    Search { want: Want },
}

/// The file that was asked for, and what is known about it.
#[derive(Debug, Clone)]
enum Fetch {
    Root { fetched: u32 },
    Timestamp,
    Snapshot,
    Targets,
    Delegated { edge: Edge, want: Want },
    File { path: String, entry: TargetFile },
}

impl Client {
    /// Opens what a device has persisted, by name. `root.json` is the anchor of all trust and must be sound; the rest is checked
    /// against it and left out where it does not pass.
    pub fn open(
        mut stored: BTreeMap<String, Vec<u8>>,
        role_names: RoleNames,
    ) -> Result<Self, TufError> {
        // TUF 5.2: everything starts from a root that came with the device or was persisted after its checks.
        let anchor = take(&mut stored, &Role::Root)?;
        let root = Signed::<Root>::parse(Role::Root, anchor)?.anchor()?;
        // Both are here for what they forbid: a version below theirs. A damaged one must not keep the device from ever updating.
        let roles = &root.roles;
        let timestamp = take(&mut stored, &Role::Timestamp).and_then(|bytes| {
            Signed::parse(Role::Timestamp, bytes)?.verify(root.authority(&roles.timestamp))
        });
        let snapshot = take(&mut stored, &Role::Snapshot).and_then(|bytes| {
            Signed::parse(Role::Snapshot, bytes)?.verify(root.authority(&roles.snapshot))
        });
        Ok(Self {
            role_names,
            now: UnixMillis::default(),
            timestamp: timestamp.ok(),
            snapshot: snapshot.ok(),
            root,
            roles: BTreeMap::new(),
            files: BTreeMap::new(),
            stored,
            state: State::Idle,
        })
    }

    /// Starts an update. TUF 5.1: `now` stays the time of all its checks, so that none is made at an attacker's leisure.
    pub fn refresh(&mut self, now: UnixMillis) {
        self.forget_targets(now);
        self.state = State::Next(Stage::Root { fetched: 0 });
    }

    /// Takes up what is persisted without fetching, for a device that cannot reach its repository. All checks are made at `now`.
    pub fn resume(&mut self, now: UnixMillis) -> Result<(), TufError> {
        self.forget_targets(now);
        self.root.check_expiry(&Role::Root, now)?;
        self.trusted_timestamp()?.check_expiry(&Role::Timestamp, now)?;
        self.check_stored_snapshot()?;
        let targets = self.check_stored(&top_edge())?;
        self.roles.insert(top_edge(), targets);
        Ok(())
    }

    /// Looks for a target after an update; what that takes is then needed.
    pub fn want(&mut self, want: Want) {
        self.state = State::Next(Stage::Search { want });
    }

    /// The file to fetch next; none when what was asked for is done.
    pub fn need(&mut self) -> Result<Option<Need>, TufError> {
        loop {
            // Leaving here with an error leaves the client idle.
            match mem::replace(&mut self.state, State::Idle) {
                State::Idle => return Ok(None),
                State::Next(stage) => self.state = self.next(stage)?,
                State::Waiting { need, fetch } => {
                    self.state = State::Waiting { need: need.clone(), fetch };
                    return Ok(Some(need));
                }
            }
        }
    }

    /// Takes the bytes of the file that was needed, or none if the repository does not have it. Returns what to persist.
    ///
    /// A file that could not be fetched for another reason is no answer: the update is then given up by starting another.
    pub fn on(&mut self, answer: Option<Vec<u8>>) -> Result<Vec<Persist>, TufError> {
        let State::Waiting { need, fetch } = mem::replace(&mut self.state, State::Idle) else {
            return Err(TufError::Unasked);
        };
        let Some(bytes) = answer else { return self.on_missing(need, &fetch) };
        if bytes.len() > need.max_bytes {
            let (given_bytes, max_bytes) = (bytes.len(), need.max_bytes);
            return Err(TufError::TooLarge { file: need.file, given_bytes, max_bytes });
        }
        match fetch {
            Fetch::Root { fetched } => self.on_root(bytes, fetched),
            Fetch::Timestamp => self.on_timestamp(bytes),
            Fetch::Snapshot => self.on_snapshot(bytes),
            Fetch::Targets => self.on_targets(bytes, top_edge()),
            Fetch::Delegated { edge, want } => {
                let changes = self.on_targets(bytes, edge)?;
                self.want(want);
                Ok(changes)
            }
            Fetch::File { path, entry } => self.on_file(bytes, path, &entry),
        }
    }

    /// The trusted root.
    pub fn root(&self) -> &Verified<Root> {
        &self.root
    }

    /// The trusted timestamp, if any; it may have expired.
    pub fn timestamp(&self) -> Option<&Verified<Timestamp>> {
        self.timestamp.as_ref()
    }

    /// The trusted snapshot, if any; it may have expired.
    pub fn snapshot(&self) -> Option<&Verified<Snapshot>> {
        self.snapshot.as_ref()
    }

    /// When the first of the metadata expires that this update ended with: no later time was signed for by their holders.
    pub fn earliest_expiry(&self) -> UnixMillis {
        let timestamp = self.timestamp.iter().map(|it| it.expires);
        let snapshot = self.snapshot.iter().map(|it| it.expires);
        let roles = self.roles.values().map(|it| it.expires);
        timestamp.chain(snapshot).chain(roles).fold(self.root.expires, UnixMillis::min)
    }

    fn forget_targets(&mut self, now: UnixMillis) {
        self.now = now;
        self.roles.clear();
        self.files.clear();
        self.state = State::Idle;
    }

    fn next(&mut self, stage: Stage) -> Result<State, TufError> {
        match stage {
            // TUF 5.3.3: the next root by its version, so that an intermediary cannot skip a rotation; and a repository that never
            // runs out of roots does not hold a device for ever.
            Stage::Root { fetched } if fetched < ROOTS_MAX => {
                let file = Role::Root.versioned_file(self.root.version.saturating_add(1));
                Ok(waiting(file, Role::Root.bytes_max(), Fetch::Root { fetched }))
            }
            Stage::Root { .. } => Ok(State::Next(Stage::Timestamp)),
            Stage::Timestamp => {
                // TUF 5.3.10: an attacker who withholds new roots gains time only until the last one expires.
                self.root.check_expiry(&Role::Root, self.now)?;
                let role = Role::Timestamp;
                Ok(waiting(role.file(), role.bytes_max(), Fetch::Timestamp))
            }
            Stage::Snapshot => self.next_snapshot(),
            Stage::Targets => self.next_targets(),
            Stage::Search { want } => self.next_of_search(want),
        }
    }

    fn on_missing(&mut self, need: Need, fetch: &Fetch) -> Result<Vec<Persist>, TufError> {
        match fetch {
            // TUF 5.3.3: no further root means that the newest is reached.
            Fetch::Root { .. } => {
                self.state = State::Next(Stage::Timestamp);
                Ok(Vec::new())
            }
            Fetch::Timestamp
            | Fetch::Snapshot
            | Fetch::Targets
            | Fetch::Delegated { .. }
            | Fetch::File { .. } => Err(TufError::Missing { file: need.file }),
        }
    }

    fn on_root(&mut self, bytes: Vec<u8>, fetched: u32) -> Result<Vec<Persist>, TufError> {
        let next = Signed::<Root>::parse(Role::Root, bytes)?.succeed(&self.root)?;
        let mut changes = Vec::new();
        // TUF 5.3.11: whoever stole a timestamp or snapshot key may have raised versions beyond reach. Once root takes such a key
        // away, what it could have signed no longer forbids lower versions.
        if loses_online_key(&self.root, &next) {
            self.timestamp = None;
            self.snapshot = None;
            changes.push(Persist::Remove { name: Role::Timestamp.file() });
            changes.push(Persist::Remove { name: Role::Snapshot.file() });
        }
        // TUF 5.3.6 to 5.3.8: an expired root may still hand over to the next, so it is kept before its expiry is looked at.
        changes.push(write(&Role::Root, next.bytes()));
        self.root = next;
        self.state = State::Next(Stage::Root { fetched: fetched + 1 });
        Ok(changes)
    }

    fn on_timestamp(&mut self, bytes: Vec<u8>) -> Result<Vec<Persist>, TufError> {
        // TUF 5.4.2: a threshold of the timestamp keys in the trusted root must have signed it.
        let offered = Signed::<Timestamp>::parse(Role::Timestamp, bytes)?
            .verify(self.root.authority(&self.root.roles.timestamp))?;
        if let Some(trusted) = &self.timestamp {
            // TUF 5.4.3.1: a timestamp never goes back …
            check_rollback(&Role::Timestamp, trusted.version, offered.version)?;
            // … and one of the same version brings no news: what we have stays, byte for byte.
            if trusted.version == offered.version {
                self.state = State::Next(Stage::Snapshot);
                return Ok(Vec::new());
            }
            // TUF 5.4.3.2: nor does the snapshot that it names.
            let (trusted, offered) = (&trusted.meta.snapshot, &offered.meta.snapshot);
            check_rollback(&Role::Snapshot, trusted.version, offered.version)?;
        }
        // TUF 5.4.4: one that is no longer valid may hide newer ones.
        offered.check_expiry(&Role::Timestamp, self.now)?;
        // TUF 5.4.5: only now is it trusted and kept.
        let changes = vec![write(&Role::Timestamp, offered.bytes())];
        self.timestamp = Some(offered);
        self.state = State::Next(Stage::Snapshot);
        Ok(changes)
    }

    fn next_snapshot(&mut self) -> Result<State, TufError> {
        let timestamp = self.trusted_timestamp()?;
        // TUF 5.4.4, for a timestamp that stayed: it may have expired since it was first trusted.
        timestamp.check_expiry(&Role::Timestamp, self.now)?;
        if self.check_stored_snapshot().is_ok() {
            return Ok(State::Next(Stage::Targets));
        }
        // TUF 5.5.1: no more bytes than the timestamp names.
        let meta = &timestamp.meta.snapshot;
        let file = self.file_of(&Role::Snapshot, meta.version);
        Ok(waiting(file, meta.bytes_max(&Role::Snapshot), Fetch::Snapshot))
    }

    /// Whether the trusted snapshot is the one that the timestamp names, and still valid.
    fn check_stored_snapshot(&self) -> Result<(), TufError> {
        let meta = &self.trusted_timestamp()?.meta.snapshot;
        let snapshot = self.trusted_snapshot()?;
        // TUF 5.5.3, for a snapshot that stayed: a root that came since may ask for more signatures than it has.
        Signed::<Snapshot>::parse(Role::Snapshot, snapshot.bytes().to_vec())?
            .verify(self.root.authority(&self.root.roles.snapshot))?;
        meta.check(&Role::Snapshot, snapshot.bytes())?;
        check_version(&Role::Snapshot, meta.version, snapshot.version)?;
        snapshot.check_expiry(&Role::Snapshot, self.now)
    }

    fn on_snapshot(&mut self, bytes: Vec<u8>) -> Result<Vec<Persist>, TufError> {
        let meta = &self.trusted_timestamp()?.meta.snapshot;
        // TUF 5.5.2: the very bytes that the timestamp names, so that parts of two snapshots cannot be mixed.
        meta.check(&Role::Snapshot, &bytes)?;
        // TUF 5.5.3: a threshold of the snapshot keys in the trusted root must have signed it.
        let offered = Signed::<Snapshot>::parse(Role::Snapshot, bytes)?
            .verify(self.root.authority(&self.root.roles.snapshot))?;
        // TUF 5.5.4: the version that the timestamp names.
        check_version(&Role::Snapshot, meta.version, offered.version)?;
        // TUF 5.5.5: what was trusted before forbids lower versions, even when it has expired.
        if let Some(trusted) = &self.snapshot {
            check_listing(trusted, &offered)?;
        }
        // TUF 5.5.6: one that is no longer valid may hide newer targets.
        offered.check_expiry(&Role::Snapshot, self.now)?;
        // TUF 5.5.7: only now is it trusted and kept.
        let changes = vec![write(&Role::Snapshot, offered.bytes())];
        self.snapshot = Some(offered);
        self.state = State::Next(Stage::Targets);
        Ok(changes)
    }

    /// TUF 5.3.12: with consistent snapshots, files carry their version.
    fn file_of(&self, role: &Role, version: u64) -> String {
        if self.root.consistent_snapshot { role.versioned_file(version) } else { role.file() }
    }

    fn trusted_timestamp(&self) -> Result<&Verified<Timestamp>, TufError> {
        self.timestamp.as_ref().ok_or_else(|| TufError::Missing { file: Role::Timestamp.file() })
    }

    fn trusted_snapshot(&self) -> Result<&Verified<Snapshot>, TufError> {
        self.snapshot.as_ref().ok_or_else(|| TufError::Missing { file: Role::Snapshot.file() })
    }
}

fn waiting(file: String, max_bytes: usize, fetch: Fetch) -> State {
    State::Waiting { need: Need { file, max_bytes }, fetch }
}

fn take(stored: &mut BTreeMap<String, Vec<u8>>, role: &Role) -> Result<Vec<u8>, TufError> {
    let file = role.file();
    stored.remove(&file).ok_or(TufError::Missing { file })
}

fn write(role: &Role, bytes: &[u8]) -> Persist {
    Persist::Write { name: role.file(), bytes: bytes.to_vec() }
}

fn check_rollback(role: &Role, trusted: u64, offered: u64) -> Result<(), TufError> {
    if offered >= trusted {
        Ok(())
    } else {
        Err(TufError::Rollback { role: role.clone(), trusted, offered })
    }
}

fn check_version(role: &Role, expected: u64, offered: u64) -> Result<(), TufError> {
    if offered == expected {
        Ok(())
    } else {
        Err(TufError::Version { role: role.clone(), expected, offered })
    }
}

/// TUF 5.5.5: every file of the trusted snapshot is still listed, and none of them at a lower version.
fn check_listing(trusted: &Snapshot, offered: &Snapshot) -> Result<(), TufError> {
    for (file, before) in &trusted.meta {
        let role = file.strip_suffix(".json").unwrap_or(file);
        let dropped = || TufError::Dropped { role: role.to_owned() };
        let after = offered.meta.get(file).ok_or_else(dropped)?;
        check_rollback(&Role::of_targets(role), before.version, after.version)?;
    }
    Ok(())
}

/// Whether `next` takes away a key that could sign timestamps or snapshots.
fn loses_online_key(root: &Root, next: &Root) -> bool {
    let lost = |before, after| root.authority(before).loses_a_key_in(next.authority(after));
    lost(&root.roles.timestamp, &next.roles.timestamp)
        || lost(&root.roles.snapshot, &next.roles.snapshot)
}
