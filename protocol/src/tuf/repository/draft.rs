//! The next version of metadata in the hands of those who will sign it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use crate::id::UnixMillis;
use crate::tuf::delegation::{DelegatedRole, DelegatedRoles, Delegations};
use crate::tuf::error::{Role, TufError};
use crate::tuf::key::{Authority, Key, KeyId, RoleKeys, SigningKey, by_id};
use crate::tuf::metadata::{Root, TargetFile, Targets};
use crate::tuf::signed::{self, Signed, Verified};

/// Targets metadata to be signed: top-level or delegated.
#[derive(Debug, Clone)]
pub struct TargetsDraft {
    role: Role,
    content: Targets,
}

impl TargetsDraft {
    /// Begins a role's first version, without targets.
    pub fn first(role: Role) -> Self {
        let (version, expires) = (1, UnixMillis::default());
        let content = Targets { version, expires, targets: BTreeMap::new(), delegations: None };
        Self { role, content }
    }

    /// Begins the version after `bytes`, which one of `signers` must have signed: else whoever hands them over could slip targets
    /// into what is signed next.
    pub fn next(role: Role, bytes: Vec<u8>, signers: &[Key]) -> Result<Self, TufError> {
        let keys = RoleKeys::of(signers, NonZeroU32::MIN);
        let authority = Authority { keys: &by_id(signers.iter().cloned()), role: &keys };
        let current = Signed::<Targets>::parse(role.clone(), bytes)?.verify(authority)?;
        Ok(Self::after(role, current))
    }

    /// Begins the version after verified metadata.
    pub fn after(role: Role, current: Verified<Targets>) -> Self {
        let mut content = current.into_content();
        content.version = content.version.saturating_add(1);
        Self { role, content }
    }

    /// The version that is being made.
    pub fn version(&self) -> u64 {
        self.content.version
    }

    /// The targets so far.
    pub fn targets(&self) -> &BTreeMap<String, TargetFile> {
        &self.content.targets
    }

    /// Names a target, or replaces it.
    pub fn set(&mut self, path: &str, file: TargetFile) {
        self.content.targets.insert(path.to_owned(), file);
    }

    /// No longer names a target. Returns whether it was named.
    pub fn remove(&mut self, path: &str) -> bool {
        self.content.targets.remove(path).is_some()
    }

    /// Delegates to a role, after the others, or replaces the delegation to it. Bins, if there were any, are given up.
    pub fn delegate(&mut self, role: DelegatedRole, keys: &[Key]) {
        let empty =
            Delegations { keys: BTreeMap::new(), roles: DelegatedRoles::Listed(Vec::new()) };
        let mut delegations = self.content.delegations.take().unwrap_or(empty);
        let mut roles = listed(delegations.roles);
        match roles.iter_mut().find(|present| present.name == role.name) {
            Some(present) => *present = role,
            None => roles.push(role),
        }
        delegations.keys.extend(by_id(keys.iter().cloned()));
        self.content.delegations = Some(with_roles(delegations.keys, roles));
    }

    /// Ends the delegation to a role. Returns whether there was one.
    pub fn undelegate(&mut self, name: &str) -> bool {
        let Some(delegations) = self.content.delegations.take() else { return false };
        let mut roles = listed(delegations.roles);
        let before = roles.len();
        roles.retain(|role| role.name != name);
        let is_ended = roles.len() < before;
        self.content.delegations = Some(with_roles(delegations.keys, roles));
        is_ended
    }

    /// Signs the draft. Further holders add their signatures with [`signed::add_signature`].
    pub fn sign(mut self, expires: UnixMillis, keys: &[&SigningKey]) -> Result<Vec<u8>, TufError> {
        self.content.expires = expires;
        signed::sign(&self.role, &self.content, keys)
    }
}

fn listed(roles: DelegatedRoles) -> Vec<DelegatedRole> {
    match roles {
        DelegatedRoles::Listed(roles) => roles,
        DelegatedRoles::Succinct(_) => Vec::new(),
    }
}

/// Keys that no role uses any more are left out.
fn with_roles(mut keys: BTreeMap<KeyId, Key>, roles: Vec<DelegatedRole>) -> Delegations {
    keys.retain(|id, _| roles.iter().any(|role| role.keys.keyids.contains(id)));
    Delegations { keys, roles: DelegatedRoles::Listed(roles) }
}

/// Root metadata to be signed.
#[derive(Debug, Clone)]
pub struct RootDraft {
    content: Root,
}

impl RootDraft {
    /// Begins the root after a trusted one.
    pub fn after(current: Verified<Root>) -> Self {
        let mut content = current.into_content();
        content.version = content.version.saturating_add(1);
        Self { content }
    }

    /// The version that is being made.
    pub fn version(&self) -> u64 {
        self.content.version
    }

    /// Gives a top-level role these keys, and takes those it had away. Delegated roles are not the root's to change.
    pub fn set_keys(
        &mut self,
        role: &Role,
        keys: &[Key],
        threshold: NonZeroU32,
    ) -> Result<(), TufError> {
        let roles = &mut self.content.roles;
        let place = match role {
            Role::Root => &mut roles.root,
            Role::Timestamp => &mut roles.timestamp,
            Role::Snapshot => &mut roles.snapshot,
            Role::Targets => &mut roles.targets,
            Role::Delegated(name) => return Err(TufError::UnknownRole { role: name.clone() }),
        };
        *place = RoleKeys::of(keys, threshold);
        let all = [&roles.root, &roles.timestamp, &roles.snapshot, &roles.targets];
        self.content.keys.extend(by_id(keys.iter().cloned()));
        self.content.keys.retain(|id, _| all.iter().any(|role| role.keyids.contains(id)));
        Ok(())
    }

    /// Signs the draft. Holders of the keys before and of the new keys must sign, with [`signed::add_signature`] if elsewhere.
    pub fn sign(mut self, expires: UnixMillis, keys: &[&SigningKey]) -> Result<Vec<u8>, TufError> {
        self.content.expires = expires;
        signed::sign(&Role::Root, &self.content, keys)
    }
}
