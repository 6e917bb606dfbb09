//! What holders of keys have signed, taken in as one: a root and the targets under it, a delegation and the role that it is to.
//!
//! All of a change stands in one snapshot. A key can so be taken from a role and the role signed anew without a moment in which
//! devices see the one and not the other.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::Error as _;

use super::{KEPT_HERE, OnlineKeys, Repository, target_name, version_of};
use crate::id::UnixMillis;
use crate::tuf::client::Persist;
use crate::tuf::delegation::{DelegatedRole, Delegations, is_plain};
use crate::tuf::error::{Role, TufError};
use crate::tuf::key::Authority;
use crate::tuf::metadata::{Root, Targets};
use crate::tuf::signed::{Signed, Verified};

/// Metadata signed elsewhere, with those of the target files that lie in this repository.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Roots, each the next after the one before it.
    pub roots: Vec<Vec<u8>>,
    /// Metadata of roles that name targets, by the role's name.
    pub targets: BTreeMap<String, Vec<u8>>,
    /// New target files by path; needed only below `trust/`.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Which versions may come.
    pub pace: Pace,
}

/// Which version of targets metadata may follow the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pace {
    /// The next alone: of two holders who signed at the same time, the second one hears of the first.
    #[default]
    Next,
    /// Any later one, for what was published elsewhere in the meantime.
    CatchUp,
}

impl Change {
    /// The next metadata of one role: `root`, or a role that names targets.
    pub fn of(role: &str, metadata: Vec<u8>) -> Self {
        let mut change = Self::default();
        if role == Role::Root.name() {
            change.roots.push(metadata);
        } else {
            change.targets.insert(role.to_owned(), metadata);
        }
        change
    }

    /// Adds target files by path.
    #[must_use]
    pub fn with_files(self, files: BTreeMap<String, Vec<u8>>) -> Self {
        Self { files, ..self }
    }

    /// The names of the roles that change.
    pub fn roles(&self) -> Vec<&str> {
        let root = (!self.roots.is_empty()).then_some(Role::Root.name());
        root.into_iter().chain(self.targets.keys().map(String::as_str)).collect()
    }
}

impl Repository {
    /// Takes a change if devices will take it, and publishes it in a new snapshot. Returns what to persist, in order.
    ///
    /// Nothing has changed where it is refused.
    pub fn accept(
        &mut self,
        change: Change,
        online: OnlineKeys<'_>,
        now: UnixMillis,
    ) -> Result<Vec<Persist>, TufError> {
        let mut next = self.clone();
        let mut changes = next.take_roots(change.roots, now)?;
        let arriving = Arriving { targets: change.targets, pace: change.pace, now };
        let (new, files) = next.take_targets(arriving, change.files)?;
        next.carry_out(&files);
        changes.extend(files);
        changes.extend(next.publish(&new, online, now)?);
        *self = next;
        Ok(changes)
    }

    fn take_roots(
        &mut self,
        roots: Vec<Vec<u8>>,
        now: UnixMillis,
    ) -> Result<Vec<Persist>, TufError> {
        let mut changes = Vec::new();
        for bytes in roots {
            let root = Signed::<Root>::parse(Role::Root, bytes)?.succeed(&self.root)?;
            if !root.consistent_snapshot {
                let source = serde_json::Error::custom("this repository has consistent snapshots");
                return Err(TufError::Malformed { role: Role::Root, source });
            }
            changes.push(version_of(&Role::Root, root.version, root.bytes()));
            self.root = root;
        }
        if !changes.is_empty() {
            // TUF 5.3.10: a device stops at a newest root that has expired.
            self.root.check_expiry(&Role::Root, now)?;
        }
        self.carry_out(&changes);
        Ok(changes)
    }

    /// The checks of every role that names targets: of what is new, and of what stays under the keys that are new.
    fn take_targets(
        &mut self,
        mut arriving: Arriving,
        files: BTreeMap<String, Vec<u8>>,
    ) -> Result<(Published, Vec<Persist>), TufError> {
        let mut published = Published::new();
        if let Some(bytes) = arriving.targets.remove(Role::Targets.name()) {
            let authority = self.root.authority(&self.root.roles.targets);
            let targets = self.check_next(&Role::Targets, bytes, authority, &arriving)?;
            check_names(&targets)?;
            self.targets = targets.clone();
            published.push((Role::Targets, targets));
        } else {
            let stays = Signed::<Targets>::parse(Role::Targets, self.targets.bytes().to_vec())?;
            stays.verify(self.root.authority(&self.root.roles.targets))?;
        }
        for (name, bytes) in std::mem::take(&mut arriving.targets) {
            let unknown = || TufError::UnknownRole { role: name.clone() };
            let delegations = self.targets.delegations.as_ref().ok_or_else(unknown)?;
            let delegation = delegations.role(&name).ok_or_else(unknown)?;
            let (role, authority) = (Role::Delegated(name.clone()), of(delegations, delegation));
            let targets = self.check_next(&role, bytes, authority, &arriving)?;
            check_delegated(delegation, &targets)?;
            published.push((role, targets));
        }
        self.check_what_stays(&published)?;
        let files = self.check_files(&published, files)?;
        Ok((published, files))
    }

    /// The checks of a role's later metadata, as a device makes them, and that no version is left out.
    fn check_next(
        &self,
        role: &Role,
        bytes: Vec<u8>,
        authority: Authority<'_>,
        arriving: &Arriving,
    ) -> Result<Verified<Targets>, TufError> {
        let targets = Signed::<Targets>::parse(role.clone(), bytes)?.verify(authority)?;
        let version = self.snapshot.meta.get(&role.listing()).map_or(0, |meta| meta.version);
        let (expected, offered) = (version.saturating_add(1), targets.version);
        let follows = match arriving.pace {
            Pace::Next => offered == expected,
            Pace::CatchUp => offered >= expected,
        };
        if !follows {
            return Err(TufError::Version { role: role.clone(), expected, offered });
        }
        targets.check_expiry(role, arriving.now)?;
        Ok(targets)
    }

    /// TUF 5.6.3 for roles that do not change: whoever takes a key from one also brings what the others have signed for it. Otherwise
    /// devices would find it signed by nobody.
    fn check_what_stays(&self, published: &Published) -> Result<(), TufError> {
        let Some(delegations) = &self.targets.delegations else { return Ok(()) };
        let new: BTreeSet<_> = published.iter().map(|(role, _)| role.name()).collect();
        for name in delegations.names().into_iter().filter(|name| !new.contains(name)) {
            let (Some(bytes), Some(delegation)) = (self.delegated(name), delegations.role(name))
            else {
                continue; // delegated to, and nothing signed yet
            };
            let role = Role::Delegated(name.to_owned());
            let stays = Signed::<Targets>::parse(role, bytes.to_vec())?;
            let stays = stays.verify(of(delegations, delegation))?;
            check_delegated(delegation, &stays)?;
        }
        Ok(())
    }

    /// The new target files, each as the metadata describe it; none of those that devices fetch from here may be missing.
    fn check_files(
        &self,
        published: &Published,
        files: BTreeMap<String, Vec<u8>>,
    ) -> Result<Vec<Persist>, TufError> {
        let named = || published.iter().flat_map(|(_, targets)| &targets.targets);
        let mut changes = Vec::new();
        for (path, bytes) in files {
            let unnamed = || TufError::NoTarget { path: path.clone() };
            let (_, entry) = named().find(|(named, _)| **named == path).ok_or_else(unnamed)?;
            entry.check(&path, &bytes)?;
            changes.push(Persist::Write { name: target_name(&path, entry), bytes });
        }
        for (path, entry) in named().filter(|(path, _)| path.starts_with(KEPT_HERE)) {
            let name = target_name(path, entry);
            let is_new = changes.iter().any(|change| change.name() == name);
            if !is_new && !self.files.contains_key(&name) {
                return Err(TufError::Missing { file: name });
            }
        }
        Ok(changes)
    }
}

/// New metadata of roles that name targets.
pub(super) type Published = Vec<(Role, Verified<Targets>)>;

struct Arriving {
    targets: BTreeMap<String, Vec<u8>>,
    pace: Pace,
    now: UnixMillis,
}

fn of<'a>(delegations: &'a Delegations, delegation: &'a DelegatedRole) -> Authority<'a> {
    Authority { keys: &delegations.keys, role: &delegation.keys }
}

fn check_names(targets: &Targets) -> Result<(), TufError> {
    let mut names = targets.delegations.iter().flat_map(|delegations| delegations.names());
    match names.find(|name| !is_plain(name)) {
        Some(name) => Err(TufError::RoleName { name: name.to_owned() }),
        None => Ok(()),
    }
}

/// A device would not ask a role for a path that is not its own, nor for roles below it; here its holder hears of the mistake.
fn check_delegated(delegation: &DelegatedRole, targets: &Targets) -> Result<(), TufError> {
    let role = delegation.name.clone();
    if targets.delegations.is_some() {
        return Err(TufError::Subdelegation { role });
    }
    match targets.targets.keys().find(|path| !delegation.paths.contain(path)) {
        Some(path) => Err(TufError::OutsidePaths { role, path: path.clone() }),
        None => Ok(()),
    }
}
