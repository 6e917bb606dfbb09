//! The first version of every role.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::{Lifetimes, Repository, TargetsDraft, new_timestamp, target_name};
use crate::id::{TeamId, UnixMillis};
use crate::tuf::bundle::{Revocations, TrustBundle};
use crate::tuf::delegation::{DelegatedRole, Paths};
use crate::tuf::error::{Role, TufError};
use crate::tuf::key::{Key, RoleKeys, SigningKey, by_id};
use crate::tuf::metadata::{MetaFile, Root, Snapshot, TargetFile, TopRoles};
use crate::tuf::signed::{self, Signed};
use crate::tuf::{
    BUNDLE_PATH, REVOCATIONS_PATH, REVOCATIONS_ROLE, RUNTIME_PATHS, RUNTIME_ROLE, publisher_role,
};

/// Fresh keys for every role. Those of root, targets, publisher and revocations then leave the server.
#[derive(Debug, Clone)]
pub struct CeremonyKeys {
    /// Three holders, two of whom must sign.
    pub root: [SigningKey; 3],
    /// Three holders, two of whom must sign.
    pub targets: [SigningKey; 3],
    /// Stays on the server.
    pub snapshot: SigningKey,
    /// Stays on the server.
    pub timestamp: SigningKey,
    /// The first team that publishes.
    pub team: TeamId,
    /// That team's key.
    pub publisher: SigningKey,
    /// The key of whoever is on call.
    pub revocations: SigningKey,
    /// Three holders, two of whom must sign: the only native code that a device takes.
    pub runtime: [SigningKey; 3],
}

/// How many of the three holders of root, of targets, and of runtime must sign.
const HOLDERS_NEEDED: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);

/// Makes a repository with one team that has published nothing yet, and nothing revoked.
pub fn ceremony(
    keys: &CeremonyKeys,
    bundle: &TrustBundle,
    lifetimes: Lifetimes,
    now: UnixMillis,
) -> Result<Repository, TufError> {
    let mut files = BTreeMap::new();
    let mut meta = BTreeMap::new();
    let mut add = |role: Role, bytes: Vec<u8>| {
        meta.insert(role.listing(), MetaFile::of(1, &bytes));
        files.insert(role.versioned_file(1), bytes);
    };
    add(Role::Targets, first_targets(keys, bundle, now.plus(lifetimes.targets_ms))?);
    let team = Role::Delegated(publisher_role(&keys.team));
    let draft = TargetsDraft::first(team.clone());
    add(team, draft.sign(now.plus(lifetimes.publisher_ms), &[&keys.publisher])?);
    let on_call = Role::Delegated(REVOCATIONS_ROLE.to_owned());
    let mut draft = TargetsDraft::first(on_call.clone());
    let revocations = Revocations::default().to_bytes();
    draft.set(REVOCATIONS_PATH, TargetFile::of(&revocations));
    add(on_call, draft.sign(now.plus(lifetimes.revocations_ms), &[&keys.revocations])?);
    let runtime = Role::Delegated(RUNTIME_ROLE.to_owned());
    let holders: Vec<_> = keys.runtime.iter().collect();
    let draft = TargetsDraft::first(runtime.clone());
    add(runtime, draft.sign(now.plus(lifetimes.runtime_ms), &holders)?);

    let root = first_root(keys, now.plus(lifetimes.root_ms));
    let holders: Vec<_> = keys.root.iter().collect();
    let root = signed::sign(&Role::Root, &root, &holders)?;
    let verified = Signed::<Root>::parse(Role::Root, root.clone())?.anchor()?;
    files.insert(Role::Root.versioned_file(1), root);

    let snapshot = Snapshot { version: 1, expires: now.plus(lifetimes.snapshot_ms), meta };
    let snapshot = signed::sign(&Role::Snapshot, &snapshot, &[&keys.snapshot])?;
    let listed = Signed::<Snapshot>::parse(Role::Snapshot, snapshot.clone())?
        .verify(verified.authority(&verified.roles.snapshot))?;
    files.insert(Role::Snapshot.versioned_file(1), snapshot);
    let timestamp = new_timestamp(1, &listed, now.plus(lifetimes.timestamp_ms));
    let timestamp = signed::sign(&Role::Timestamp, &timestamp, &[&keys.timestamp])?;
    files.insert(Role::Timestamp.file(), timestamp);

    for (path, bytes) in [(BUNDLE_PATH, bundle.to_bytes()), (REVOCATIONS_PATH, revocations)] {
        files.insert(target_name(path, &TargetFile::of(&bytes)), bytes);
    }
    Repository::open(files, lifetimes)
}

/// A delegation to a team: it alone names the images of its models, and nobody is asked after it.
pub fn publisher_delegation(team: &TeamId, keys: &[Key], threshold: NonZeroU32) -> DelegatedRole {
    DelegatedRole {
        name: publisher_role(team),
        keys: RoleKeys::of(keys, threshold),
        is_terminating: true,
        paths: Paths::Patterns(vec![format!("models/{team}/*/*")]),
    }
}

/// A delegation to whoever is on call: the deny list and nothing else.
pub fn revocations_delegation(keys: &[Key], threshold: NonZeroU32) -> DelegatedRole {
    DelegatedRole {
        name: REVOCATIONS_ROLE.to_owned(),
        keys: RoleKeys::of(keys, threshold),
        is_terminating: true,
        paths: Paths::Patterns(vec![REVOCATIONS_PATH.to_owned()]),
    }
}

/// A delegation to the holders of the runtime keys: agents and inference libraries.
pub fn runtime_delegation(keys: &[Key], threshold: NonZeroU32) -> DelegatedRole {
    DelegatedRole {
        name: RUNTIME_ROLE.to_owned(),
        keys: RoleKeys::of(keys, threshold),
        is_terminating: true,
        paths: Paths::Patterns(vec![RUNTIME_PATHS.to_owned()]),
    }
}

fn first_targets(
    keys: &CeremonyKeys,
    bundle: &TrustBundle,
    expires: UnixMillis,
) -> Result<Vec<u8>, TufError> {
    let mut draft = TargetsDraft::first(Role::Targets);
    draft.set(BUNDLE_PATH, TargetFile::of(&bundle.to_bytes()));
    let publisher = [keys.publisher.public()];
    draft.delegate(publisher_delegation(&keys.team, &publisher, NonZeroU32::MIN), &publisher);
    let on_call = [keys.revocations.public()];
    draft.delegate(revocations_delegation(&on_call, NonZeroU32::MIN), &on_call);
    let runtime = keys.runtime.each_ref().map(SigningKey::public);
    draft.delegate(runtime_delegation(&runtime, HOLDERS_NEEDED), &runtime);
    let holders: Vec<_> = keys.targets.iter().collect();
    draft.sign(expires, &holders)
}

fn first_root(keys: &CeremonyKeys, expires: UnixMillis) -> Root {
    let three = |keys: &[SigningKey; 3]| keys.each_ref().map(SigningKey::public);
    let (root, targets) = (three(&keys.root), three(&keys.targets));
    let (snapshot, timestamp) = ([keys.snapshot.public()], [keys.timestamp.public()]);
    let roles = TopRoles {
        root: RoleKeys::of(&root, HOLDERS_NEEDED),
        targets: RoleKeys::of(&targets, HOLDERS_NEEDED),
        snapshot: RoleKeys::of(&snapshot, NonZeroU32::MIN),
        timestamp: RoleKeys::of(&timestamp, NonZeroU32::MIN),
    };
    let keys = by_id(root.into_iter().chain(targets).chain(snapshot).chain(timestamp));
    Root { version: 1, expires, consistent_snapshot: true, keys, roles }
}
