//! Drafts of the next metadata: other keys, another director, something revoked, or the same for another while.

use std::num::NonZeroU32;

use anyhow::{Context as _, bail, ensure};
use ed25519_dalek::VerifyingKey;
use sealift_protocol::id::UnixMillis;
use sealift_protocol::tuf::bundle::{Director, Revocations, TrustBundle};
use sealift_protocol::tuf::key::{Key, KeyId, RoleKeys};
use sealift_protocol::tuf::metadata::TargetFile;
use sealift_protocol::tuf::repository::{RootDraft, TargetsDraft};
use sealift_protocol::tuf::{BUNDLE_PATH, REVOCATIONS_PATH, REVOCATIONS_ROLE, Role};

use super::change::Change;
use super::role::{KeyRole, life_ms};
use super::view::View;

/// Characters of a key's id that name it well enough.
const ID_CHARS_MIN: usize = 8;

/// Which keys a role shall have.
#[derive(Clone)]
pub(crate) struct Rotation {
    pub(crate) role: KeyRole,
    pub(crate) add: Vec<Key>,
    /// Ids, or their beginnings.
    pub(crate) remove: Vec<String>,
    pub(crate) threshold: Option<NonZeroU32>,
}

/// Gives a role other keys.
pub(crate) fn rotate(view: &View, rotation: &Rotation, now: UnixMillis) -> anyhow::Result<Change> {
    if rotation.role == KeyRole::Director {
        return rotate_director(view, rotation, now);
    }
    let (keys, threshold) = next_keys(view, rotation)?;
    let role = rotation.role.metadata().context("a director signs no metadata")?;
    if let Some(delegation) = rotation.role.delegation(&keys, threshold) {
        let mut draft = TargetsDraft::after(Role::Targets, view.targets.clone());
        draft.delegate(delegation, &keys);
        let mut change = Change::default();
        add_targets(&mut change, &Role::Targets, draft, now)?;
        // What the role has signed so far, signed anew by the keys that it will have.
        let again = match view.targets_of(&role) {
            Some(_) => next_targets(view, &role)?,
            None => TargetsDraft::first(role.clone()),
        };
        add_targets(&mut change, &role, again, now)?;
        return Ok(change);
    }
    let mut root = RootDraft::after(view.root.clone());
    root.set_keys(&role, &keys, threshold)?;
    let mut change = Change::default();
    add_root(&mut change, root, now)?;
    if role == Role::Targets {
        add_targets(&mut change, &role, next_targets(view, &role)?, now)?;
    }
    Ok(change)
}

/// The same, valid for another while.
pub(crate) fn renew(view: &View, role: &KeyRole, now: UnixMillis) -> anyhow::Result<Change> {
    ensure!(!role.is_online(), "the server renews {role} by itself");
    let role = role.metadata().context("a director signs no metadata")?;
    let mut change = Change::default();
    if role == Role::Root {
        add_root(&mut change, RootDraft::after(view.root.clone()), now)?;
    } else {
        add_targets(&mut change, &role, next_targets(view, &role)?, now)?;
    }
    Ok(change)
}

/// Ends the delegation to a team: devices no longer believe what it has signed.
pub(crate) fn withdraw(view: &View, role: &KeyRole, now: UnixMillis) -> anyhow::Result<Change> {
    ensure!(
        matches!(role, KeyRole::Publisher(_)),
        "every fleet has {role}\nhelp: `fleetctl key rotate {role}` gives it other keys"
    );
    let name = role.metadata().context("a team has metadata")?;
    let mut draft = TargetsDraft::after(Role::Targets, view.targets.clone());
    ensure!(draft.undelegate(name.name()), "nothing is delegated to {role}");
    let mut change = Change::default();
    add_targets(&mut change, &Role::Targets, draft, now)?;
    Ok(change)
}

/// A key that shall sign nothing more.
pub(crate) struct Revocation {
    /// Its id, or the beginning of it.
    pub(crate) key: String,
    /// Keys that take its place.
    pub(crate) add: Vec<Key>,
    /// Whether devices may be left with no director that they obey.
    pub(crate) may_be_last: bool,
}

/// Takes a key away from its role; a director's is put on the deny list.
pub(crate) fn revoke(
    view: &View,
    revocation: &Revocation,
    now: UnixMillis,
) -> anyhow::Result<Change> {
    let Revocation { key, add, may_be_last } = revocation;
    ensure!(key.len() >= ID_CHARS_MIN, "give at least {ID_CHARS_MIN} characters of the key's id");
    let directors = view.bundle.directors.iter().map(Director::keyid);
    let mut directors = directors.filter(|id| id.as_str().starts_with(key.as_str()));
    if let Some(director) = directors.next() {
        let mut denied = view.revocations.clone();
        ensure!(denied.directors.insert(director.clone()), "{director} is revoked already");
        let left = view.bundle.directors.iter().any(|it| !denied.directors.contains(it.keyid()));
        ensure!(
            left || *may_be_last,
            "{director} is the only director key that devices obey\n\
             help: `fleetctl key rotate director` makes another first; with `--last` devices take no \
             directive until it is there"
        );
        return deny(view, &denied, now);
    }
    let roles: Vec<_> = roles_of(view).into_iter().filter(|(_, keys)| has(keys, key)).collect();
    match roles.as_slice() {
        [] => {
            bail!("no role has a key {key}\nhelp: `fleetctl key list` shows those that there are")
        }
        [(role, _)] => {
            let remove = vec![key.clone()];
            let rotation =
                Rotation { role: role.clone(), add: add.clone(), remove, threshold: None };
            rotate(view, &rotation, now)
        }
        several => {
            let names: Vec<_> = several.iter().map(|(role, _)| role.to_string()).collect();
            bail!("{key} is a key of {}: rotate one after the other", names.join(", "))
        }
    }
}

/// A deny list in place of the present one.
pub(crate) fn deny(view: &View, denied: &Revocations, now: UnixMillis) -> anyhow::Result<Change> {
    let role = Role::Delegated(REVOCATIONS_ROLE.to_owned());
    let bytes = denied.to_bytes();
    Revocations::parse(&bytes)?;
    let mut draft = next_targets(view, &role)?;
    draft.set(REVOCATIONS_PATH, TargetFile::of(&bytes));
    let mut change = Change::default();
    add_targets(&mut change, &role, draft, now)?;
    change.files.insert(REVOCATIONS_PATH.to_owned(), bytes);
    Ok(change)
}

/// A bundle with another director beside, or instead of, those that it has.
fn rotate_director(view: &View, rotation: &Rotation, now: UnixMillis) -> anyhow::Result<Change> {
    let TrustBundle { directors, device_cas, server_cas, operators, .. } = view.bundle.clone();
    let mut left = remaining(directors, &rotation.remove, |it| it.keyid().clone())?;
    for key in &rotation.add {
        let director = director(key)?;
        if !left.iter().any(|present| present.keyid() == director.keyid()) {
            left.push(director);
        }
    }
    ensure!(!left.is_empty(), "devices would obey nobody");
    let mut bundle = TrustBundle::new(left, device_cas, server_cas)?;
    bundle.operators = operators;
    let bundle = bundle.to_bytes();
    TrustBundle::parse(&bundle)?;
    let mut draft = TargetsDraft::after(Role::Targets, view.targets.clone());
    draft.set(BUNDLE_PATH, TargetFile::of(&bundle));
    let mut change = Change::default();
    add_targets(&mut change, &Role::Targets, draft, now)?;
    change.files.insert(BUNDLE_PATH.to_owned(), bundle);
    Ok(change)
}

fn director(key: &Key) -> anyhow::Result<Director> {
    let bytes = key.ed25519_public().context("a director's key is on Ed25519")?;
    Director::new(VerifyingKey::from_bytes(&bytes)?).context("the key is weak")
}

fn next_targets(view: &View, role: &Role) -> anyhow::Result<TargetsDraft> {
    let current = view.targets_of(role);
    let current = current.with_context(|| format!("{role} has signed nothing yet"))?;
    Ok(TargetsDraft::after(role.clone(), current.clone()))
}

fn add_root(change: &mut Change, draft: RootDraft, now: UnixMillis) -> anyhow::Result<()> {
    let bytes = draft.sign(now.plus(life_ms(&Role::Root)), &[])?;
    change.drafts.insert(Role::Root.name().to_owned(), bytes);
    Ok(())
}

pub(super) fn add_targets(
    change: &mut Change,
    role: &Role,
    draft: TargetsDraft,
    now: UnixMillis,
) -> anyhow::Result<()> {
    let bytes = draft.sign(now.plus(life_ms(role)), &[])?;
    change.drafts.insert(role.name().to_owned(), bytes);
    Ok(())
}

/// The keys that a role has now.
pub(crate) fn present_keys(view: &View, role: &KeyRole) -> Option<(Vec<Key>, NonZeroU32)> {
    let roles = &view.root.roles;
    let (keys, of) = match role.metadata()? {
        Role::Root => (&view.root.keys, &roles.root),
        Role::Targets => (&view.root.keys, &roles.targets),
        Role::Snapshot => (&view.root.keys, &roles.snapshot),
        Role::Timestamp => (&view.root.keys, &roles.timestamp),
        Role::Delegated(name) => {
            let delegations = view.targets.delegations.as_ref()?;
            (&delegations.keys, &delegations.role(&name)?.keys)
        }
    };
    let objects = of.keyids.iter().filter_map(|id| keys.get(id)).cloned().collect();
    Some((objects, of.threshold))
}

fn next_keys(view: &View, rotation: &Rotation) -> anyhow::Result<(Vec<Key>, NonZeroU32)> {
    let Rotation { role, add, remove, threshold } = rotation;
    let (keys, present) = present_keys(view, role).unwrap_or((Vec::new(), NonZeroU32::MIN));
    let mut keys = remaining(keys, remove, Key::id)?;
    for key in add {
        if !keys.iter().any(|present| present.id() == key.id()) {
            keys.push(key.clone());
        }
    }
    let threshold = threshold.unwrap_or(present);
    ensure!(
        keys.len() >= usize::try_from(threshold.get())?,
        "{role} would have {} keys and needs {threshold} signatures\n\
         help: add a key, with `--add KEY.pub.json`, or lower `--threshold`",
        keys.len()
    );
    Ok((keys, threshold))
}

/// What is left of a list without the entries that these beginnings of ids name, each of them exactly one.
fn remaining<T>(
    mut list: Vec<T>,
    remove: &[String],
    id: impl Fn(&T) -> KeyId,
) -> anyhow::Result<Vec<T>> {
    for name in remove {
        ensure!(name.len() >= ID_CHARS_MIN, "give at least {ID_CHARS_MIN} characters of `{name}`");
        let before = list.len();
        list.retain(|entry| !id(entry).as_str().starts_with(name));
        ensure!(before - list.len() == 1, "{} keys are named by {name}", before - list.len());
    }
    Ok(list)
}

/// Every role with keys, those of the root first.
pub(crate) fn roles_of(view: &View) -> Vec<(KeyRole, RoleKeys)> {
    let roles = &view.root.roles;
    let top = [
        (Role::Root, &roles.root),
        (Role::Targets, &roles.targets),
        (Role::Snapshot, &roles.snapshot),
        (Role::Timestamp, &roles.timestamp),
    ];
    let top = top.into_iter().map(|(role, keys)| (KeyRole::Top(role), keys.clone()));
    let delegations = view.targets.delegations.iter();
    let delegated = delegations.flat_map(|delegations| {
        let roles = delegations.names().into_iter().filter_map(|name| delegations.role(name));
        roles.filter_map(|role| Some((KeyRole::of(&role.name)?, role.keys.clone())))
    });
    top.chain(delegated).collect()
}

fn has(keys: &RoleKeys, beginning: &str) -> bool {
    keys.keyids.iter().any(|id| id.as_str().starts_with(beginning))
}
