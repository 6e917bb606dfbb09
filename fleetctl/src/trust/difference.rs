//! What a change would change, in words: what a holder looks at before signing.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use sealift_protocol::id::UnixMillis;
use sealift_protocol::tuf::bundle::{Director, Revocations, TrustBundle};
use sealift_protocol::tuf::key::{Key, KeyId, RoleKeys};
use sealift_protocol::tuf::metadata::{Root, TargetFile, Targets};
use sealift_protocol::tuf::{BUNDLE_PATH, Delegations, Paths, REVOCATIONS_PATH, Role};

use super::change::Change;
use super::role::life_ms;
use super::view::View;

/// A draft may outlive its role's usual life by a day: it was made before it is signed.
const SLACK_MS: i64 = 24 * 60 * 60 * 1_000;
/// Target files that are listed one by one.
const TARGETS_MAX: usize = 50;

/// Describes every draft, or says why it may not be signed: it must be the very next version of what is verified.
pub(crate) fn describe(
    view: &View,
    change: &Change,
    now: UnixMillis,
) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    if let Some(root) = change.root()? {
        check_ids(&root.keys)?;
        head(&mut lines, &Role::Root, (view.root.version, root.version), root.expires, now)?;
        of_root(&mut lines, &view.root, &root);
    }
    for name in change.drafts.keys().filter(|name| *name != Role::Root.name()) {
        let role = Change::role(name);
        let next = change.targets(name)?.context("a draft is gone")?;
        if let Some(delegations) = &next.delegations {
            check_ids(&delegations.keys)?;
        }
        let before = view.targets_of(&role).map(|targets| &**targets);
        let version = before.map_or(0, |before| before.version);
        head(&mut lines, &role, (version, next.version), next.expires, now)?;
        of_targets(&mut lines, before, &next);
    }
    of_files(&mut lines, view, change)?;
    Ok(lines)
}

/// A holder is shown ids. An id that is not that of the key behind it would show one key and trust another.
fn check_ids(keys: &BTreeMap<KeyId, Key>) -> anyhow::Result<()> {
    for (id, key) in keys {
        ensure!(
            key.id() == *id,
            "the key behind the id {id} is {}: this is no draft of ours",
            key.id()
        );
    }
    Ok(())
}

fn head(
    lines: &mut Vec<String>,
    role: &Role,
    (before, next): (u64, u64),
    expires: UnixMillis,
    now: UnixMillis,
) -> anyhow::Result<()> {
    let follows = before.checked_add(1) == Some(next);
    ensure!(follows, "the draft of {role} is version {next}, and {before} is the present one");
    ensure!(
        expires.since(now) <= life_ms(role) + SLACK_MS,
        "the draft of {role} would be valid until {expires}, longer than its role allows"
    );
    lines.push(format!("{role}: version {before} -> {next}, valid until {expires}"));
    Ok(())
}

fn of_root(lines: &mut Vec<String>, before: &Root, next: &Root) {
    let (old, new) = (&before.roles, &next.roles);
    for (name, old, new) in [
        ("root", &old.root, &new.root),
        ("targets", &old.targets, &new.targets),
        ("snapshot", &old.snapshot, &new.snapshot),
        ("timestamp", &old.timestamp, &new.timestamp),
    ] {
        of_keys(lines, name, Some(old), new);
    }
}

fn of_keys(lines: &mut Vec<String>, name: &str, before: Option<&RoleKeys>, next: &RoleKeys) {
    let none = BTreeSet::new();
    let old = before.map_or(&none, |before| &before.keyids);
    lines.extend(next.keyids.difference(old).map(|id| format!("  + {name} may be signed by {id}")));
    let gone = old.difference(&next.keyids);
    lines.extend(gone.map(|id| format!("  - {name} may no longer be signed by {id}")));
    if before.map(|before| before.threshold) != Some(next.threshold) {
        lines.push(format!("  ! {name} needs {} of {} keys", next.threshold, next.keyids.len()));
    }
}

/// The digest that devices go by.
fn digest(entry: &TargetFile) -> String {
    entry.digest().map_or_else(|| "no SHA-256".to_owned(), |digest| digest.to_string())
}

fn of_targets(lines: &mut Vec<String>, before: Option<&Targets>, next: &Targets) {
    let none = BTreeMap::new();
    let old = before.map_or(&none, |before| &before.targets);
    let mut entries = Vec::new();
    for (path, entry) in &next.targets {
        match old.get(path) {
            None => entries.push(format!("  + {path} = {}{}", digest(entry), epoch(entry))),
            Some(present) if present != entry => {
                entries.push(format!("  ! {path} = {}{}", digest(entry), epoch(entry)));
            }
            Some(_) => (), // as it was
        }
    }
    entries.extend(
        old.keys().filter(|it| !next.targets.contains_key(*it)).map(|it| format!("  - {it}")),
    );
    let more = entries.len().saturating_sub(TARGETS_MAX);
    entries.truncate(TARGETS_MAX);
    lines.append(&mut entries);
    if more > 0 {
        lines.push(format!("  … and {more} more targets"));
    }
    let old = before.and_then(|before| before.delegations.as_ref());
    of_delegations(lines, old, next.delegations.as_ref());
}

fn epoch(entry: &TargetFile) -> String {
    entry.epoch().map(|epoch| format!(", epoch {}", epoch.0)).unwrap_or_default()
}

fn of_delegations(
    lines: &mut Vec<String>,
    before: Option<&Delegations>,
    next: Option<&Delegations>,
) {
    let names = |of: Option<&Delegations>| -> BTreeSet<String> {
        of.iter().flat_map(|of| of.names()).map(str::to_owned).collect()
    };
    let gone = names(before).difference(&names(next)).cloned().collect::<Vec<_>>();
    lines.extend(gone.iter().map(|name| format!("  - nothing is delegated to {name} any more")));
    let Some(next) = next else { return };
    for name in next.names() {
        let Some(role) = next.role(name) else {
            lines.push(format!("  ! bins are delegated to {name}, which no fleet of ours does"));
            continue;
        };
        let old = before.and_then(|before| before.role(name));
        if old
            .is_none_or(|old| old.paths != role.paths || old.is_terminating != role.is_terminating)
        {
            let ends = if role.is_terminating { "and nobody else" } else { "not exclusively" };
            lines.push(format!("  ! {name} names {}, {ends}", of_paths(&role.paths)));
        }
        of_keys(lines, name, old.map(|old| &old.keys), &role.keys);
    }
}

fn of_paths(paths: &Paths) -> String {
    match paths {
        Paths::Patterns(patterns) => patterns.join(", "),
        Paths::HashPrefixes(prefixes) => format!("hashes {}", prefixes.join(", ")),
    }
}

/// The two files that every device reads; other files do not lie in the repository.
fn of_files(lines: &mut Vec<String>, view: &View, change: &Change) -> anyhow::Result<()> {
    for (path, bytes) in &change.files {
        check_named(change, path, bytes)?;
        match path.as_str() {
            BUNDLE_PATH => {
                lines.push(format!("{path}:"));
                of_bundle(lines, &view.bundle, &TrustBundle::parse(bytes)?);
            }
            REVOCATIONS_PATH => {
                lines.push(format!("{path}:"));
                of_revocations(lines, &view.revocations, &Revocations::parse(bytes)?);
            }
            _ => anyhow::bail!("{path} is no file of a trust repository"),
        }
    }
    Ok(())
}

/// The file that is shown is the file that is signed.
fn check_named(change: &Change, path: &str, bytes: &[u8]) -> anyhow::Result<()> {
    for name in change.drafts.keys().filter(|name| *name != Role::Root.name()) {
        let targets = change.targets(name)?.context("a draft is gone")?;
        if let Some(entry) = targets.targets.get(path) {
            return Ok(entry.check(path, bytes)?);
        }
    }
    anyhow::bail!("no draft names {path}")
}

fn of_bundle(lines: &mut Vec<String>, before: &TrustBundle, next: &TrustBundle) {
    let ids = |of: &TrustBundle| -> BTreeSet<String> {
        of.directors.iter().map(Director::keyid).map(ToString::to_string).collect()
    };
    of_sets(lines, "devices obey director", &ids(before), &ids(next));
    let texts = |of: &[String]| -> BTreeSet<String> {
        of.iter()
            .map(|pem| sealift_protocol::digest::Digest::of(pem.as_bytes()).to_string())
            .collect()
    };
    of_sets(lines, "device CA", &texts(&before.device_cas), &texts(&next.device_cas));
    of_sets(lines, "server CA", &texts(&before.server_cas), &texts(&next.server_cas));
}

fn of_revocations(lines: &mut Vec<String>, before: &Revocations, next: &Revocations) {
    let texts =
        |set: &BTreeSet<_>| -> BTreeSet<String> { set.iter().map(ToString::to_string).collect() };
    of_sets(lines, "revoked image", &texts(&before.images), &texts(&next.images));
    let ids = |of: &Revocations| of.directors.iter().map(ToString::to_string).collect();
    of_sets(lines, "revoked director", &ids(before), &ids(next));
    of_sets(lines, "revoked device", &before.devices, &next.devices);
}

fn of_sets(
    lines: &mut Vec<String>,
    what: &str,
    before: &BTreeSet<String>,
    next: &BTreeSet<String>,
) {
    lines.extend(next.difference(before).map(|it| format!("  + {what} {it}")));
    lines.extend(before.difference(next).map(|it| format!("  - {what} {it}")));
}
