//! Which role may name which target.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::key::{Authority, Key, KeyId, RoleKeys};
use crate::digest::Digest;

/// Section 4.5: the roles that a targets role trusts, and their keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "RawDelegations", into = "RawDelegations")]
pub struct Delegations {
    /// Key objects by id.
    pub keys: BTreeMap<KeyId, Key>,
    /// The roles.
    pub roles: DelegatedRoles,
}

/// Roles by name, or equal bins that share their keys.
#[derive(Debug, Clone)]
pub enum DelegatedRoles {
    /// Roles in the order in which they are asked.
    Listed(Vec<DelegatedRole>),
    /// A power of two of roles, each for its share of the hashes of paths.
    Succinct(SuccinctRoles),
}

/// One role that a targets role trusts for some paths.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "RawRole", into = "RawRole")]
pub struct DelegatedRole {
    /// Its name.
    pub name: String,
    /// Its keys.
    pub keys: RoleKeys,
    /// Whether a target on its paths that it does not name is named by nobody.
    pub is_terminating: bool,
    /// The paths that it may name.
    pub paths: Paths,
}

/// The paths that a role may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Paths {
    /// Shell patterns: `*` and `?` match within one part of a path.
    Patterns(Vec<String>),
    /// Beginnings of the hexadecimal SHA-256 of a path.
    HashPrefixes(Vec<String>),
}

/// Equal bins by the first bits of the SHA-256 of a path.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "RawSuccinct", into = "RawSuccinct")]
pub struct SuccinctRoles {
    keys: RoleKeys,
    bit_length: u32,
    name_prefix: String,
}

/// A role to ask for a path, and whether it is the last to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) role: String,
    pub(crate) is_terminating: bool,
}

impl Delegations {
    /// The roles to ask for `path`, in order, up to the first that is terminating.
    pub(crate) fn asked(&self, path: &str) -> Vec<Asked> {
        let mut asked = match &self.roles {
            DelegatedRoles::Succinct(bins) => {
                vec![Asked { role: bins.bin(path), is_terminating: true }]
            }
            DelegatedRoles::Listed(roles) => {
                let trusted = roles.iter().filter(|role| role.paths.contain(path));
                let ask = |role: &DelegatedRole| Asked {
                    role: role.name.clone(),
                    is_terminating: role.is_terminating,
                };
                trusted.map(ask).collect()
            }
        };
        // TUF 5.6.7.2.1: a terminating delegation ends the search, found or not.
        if let Some(last) = asked.iter().position(|role| role.is_terminating) {
            asked.truncate(last + 1);
        }
        asked
    }

    /// Who may sign for `role`, if it is delegated to here.
    pub fn authority(&self, role: &str) -> Option<Authority<'_>> {
        let keys = match &self.roles {
            DelegatedRoles::Succinct(bins) => bins.contains(role).then_some(&bins.keys)?,
            DelegatedRoles::Listed(_) => &self.role(role)?.keys,
        };
        Some(Authority { keys: &self.keys, role: keys })
    }

    /// The delegation to a role by name.
    pub fn role(&self, name: &str) -> Option<&DelegatedRole> {
        match &self.roles {
            DelegatedRoles::Succinct(_) => None,
            DelegatedRoles::Listed(roles) => roles.iter().find(|role| role.name == name),
        }
    }

    /// Names as they are written: of every role, or the one that all bins begin with.
    pub fn names(&self) -> Vec<&str> {
        match &self.roles {
            DelegatedRoles::Succinct(bins) => vec![&bins.name_prefix],
            DelegatedRoles::Listed(roles) => roles.iter().map(|role| role.name.as_str()).collect(),
        }
    }
}

impl Paths {
    /// Whether a role with these paths may name `path`.
    pub(crate) fn contain(&self, path: &str) -> bool {
        match self {
            Self::Patterns(patterns) => patterns.iter().any(|pattern| matches(pattern, path)),
            Self::HashPrefixes(prefixes) => {
                let hash = Digest::of(path.as_bytes()).hex();
                prefixes.iter().any(|prefix| hash.starts_with(prefix))
            }
        }
    }
}

impl SuccinctRoles {
    /// Digits of a bin's number, enough for the last one.
    fn digits(&self) -> usize {
        usize::try_from(self.bit_length.div_ceil(4)).unwrap_or(usize::MAX)
    }

    fn bin(&self, path: &str) -> String {
        let hash = Digest::of(path.as_bytes());
        let head = hash.as_bytes().first_chunk().map_or(0, |head| u32::from_be_bytes(*head));
        let bin = head >> (u32::BITS - self.bit_length);
        format!("{}-{bin:0digits$x}", self.name_prefix, digits = self.digits())
    }

    fn contains(&self, name: &str) -> bool {
        let number = name.strip_prefix(&self.name_prefix).and_then(|name| name.strip_prefix('-'));
        number.is_some_and(|hex| {
            let is_hex = hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
            let bin = u32::from_str_radix(hex, 16).map(u64::from);
            is_hex && hex.len() == self.digits() && bin.is_ok_and(|bin| bin < 1 << self.bit_length)
        })
    }
}

/// Whether a name may be a delegated role's in the metadata that Sealift makes and its devices take: it is at once a file name
/// and a part of a URL, and easily read.
pub(crate) fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=100).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain)
}

/// Whether `path` matches `pattern` part by part: neither `*` nor `?` matches a `/`.
fn matches(pattern: &str, path: &str) -> bool {
    pattern.split('/').count() == path.split('/').count()
        && pattern
            .split('/')
            .zip(path.split('/'))
            .all(|(pattern, part)| matches_part(pattern, part))
}

/// Matches one part. It goes back to the last `*` only, so that no pattern takes more than length times length steps.
fn matches_part(pattern: &str, part: &str) -> bool {
    let (mut pattern, mut part) = (pattern.chars(), part.chars());
    let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let left = part.clone();
        match (pattern.next(), part.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                part = left.clone();
                retry = Some((pattern.clone(), left));
            }
            (Some('?'), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            _ => {
                // No match here: let the last `*` take one character more.
                let Some((after, mut from)) = retry.take() else { return false };
                if from.next().is_none() {
                    return false;
                }
                (pattern, part) = (after.clone(), from.clone());
                retry = Some((after, from));
            }
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct RawDelegations {
    keys: BTreeMap<KeyId, Key>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    roles: Option<Vec<DelegatedRole>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    succinct_roles: Option<SuccinctRoles>,
}

impl TryFrom<RawDelegations> for Delegations {
    type Error = &'static str;

    fn try_from(raw: RawDelegations) -> Result<Self, Self::Error> {
        let roles = match (raw.roles, raw.succinct_roles) {
            (Some(roles), None) => DelegatedRoles::Listed(distinct_roles(roles)?),
            (None, Some(bins)) => DelegatedRoles::Succinct(bins),
            (Some(_), Some(_)) | (None, None) => {
                return Err("delegations have either roles or succinct roles");
            }
        };
        Ok(Self { keys: raw.keys, roles })
    }
}

/// A top-level role's name would let a delegated file take the place of top-level metadata.
fn distinct_roles(roles: Vec<DelegatedRole>) -> Result<Vec<DelegatedRole>, &'static str> {
    let names: BTreeSet<_> = roles.iter().map(|role| role.name.as_str()).collect();
    if names.len() != roles.len() {
        return Err("two delegated roles have one name");
    }
    let reserved = ["", "root", "timestamp", "snapshot", "targets"];
    if reserved.iter().any(|name| names.contains(name)) {
        return Err("a delegated role has the name of a top-level role, or none");
    }
    Ok(roles)
}

impl From<Delegations> for RawDelegations {
    fn from(delegations: Delegations) -> Self {
        let (roles, succinct_roles) = match delegations.roles {
            DelegatedRoles::Listed(roles) => (Some(roles), None),
            DelegatedRoles::Succinct(bins) => (None, Some(bins)),
        };
        Self { keys: delegations.keys, roles, succinct_roles }
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct RawRole {
    name: String,
    #[serde(flatten)]
    keys: RoleKeys,
    terminating: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    paths: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_hash_prefixes: Option<Vec<String>>,
}

impl TryFrom<RawRole> for DelegatedRole {
    type Error = &'static str;

    fn try_from(raw: RawRole) -> Result<Self, Self::Error> {
        let paths = match (raw.paths, raw.path_hash_prefixes) {
            (Some(patterns), None) => Paths::Patterns(patterns),
            (None, Some(prefixes)) => Paths::HashPrefixes(prefixes),
            (Some(_), Some(_)) | (None, None) => {
                return Err("a delegated role has either paths or hash prefixes");
            }
        };
        let RawRole { name, keys, terminating: is_terminating, .. } = raw;
        Ok(Self { name, keys, is_terminating, paths })
    }
}

impl From<DelegatedRole> for RawRole {
    fn from(role: DelegatedRole) -> Self {
        let (paths, path_hash_prefixes) = match role.paths {
            Paths::Patterns(patterns) => (Some(patterns), None),
            Paths::HashPrefixes(prefixes) => (None, Some(prefixes)),
        };
        let DelegatedRole { name, keys, is_terminating: terminating, .. } = role;
        Self { name, keys, terminating, paths, path_hash_prefixes }
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct RawSuccinct {
    #[serde(flatten)]
    keys: RoleKeys,
    bit_length: u32,
    name_prefix: String,
}

impl TryFrom<RawSuccinct> for SuccinctRoles {
    type Error = &'static str;

    fn try_from(raw: RawSuccinct) -> Result<Self, Self::Error> {
        let RawSuccinct { keys, bit_length, name_prefix } = raw;
        if (1..=32).contains(&bit_length) {
            Ok(Self { keys, bit_length, name_prefix })
        } else {
            Err("succinct roles have 1 to 32 bits")
        }
    }
}

impl From<SuccinctRoles> for RawSuccinct {
    fn from(bins: SuccinctRoles) -> Self {
        let SuccinctRoles { keys, bit_length, name_prefix } = bins;
        Self { keys, bit_length, name_prefix }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_does_not_cross_a_slash() {
        for (pattern, path) in [
            ("models/a/*/*", "models/a/m/7"),
            ("*", "x"),
            ("*.py", ".py"),
            ("a*b*c", "aXbXbXc"),
            ("?.z*p", "y.zip"),
            ("**", "x"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("models/a/*/*", "models/b/m/7"),
            ("models/a/*/*", "models/a/m"),
            ("models/a/*/*", "models/a/m/7/x"),
            ("*", "a/b"),
            ("?", ""),
            ("a*b", "ac"),
            ("models/a/*", "models/a/../b"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_is_matched_in_time() {
        let pattern = "*a".repeat(2000);
        assert!(!matches(&pattern, &"a".repeat(1999)));
        assert!(matches(&pattern, &"a".repeat(2000)));
    }

    #[test]
    fn role_names_that_are_paths_are_not_plain() {
        for name in ["", "../x", "a/b", "..", ".x", "a\\b", "a b", "a%2f", "a\0", &"a".repeat(101)]
        {
            assert!(!is_plain(name), "{name:?}");
        }
        assert!(is_plain("publisher-vision"));
    }

    #[test]
    fn a_path_has_exactly_one_bin() {
        let text = r#"{"keyids":[],"threshold":1,"bit_length":5,"name_prefix":"bin"}"#;
        let bins: SuccinctRoles = serde_json::from_str(text).unwrap();
        // The SHA-256 of nothing begins with the bits 1110 0011.
        assert_eq!(bins.bin(""), "bin-1c");
        assert!(bins.contains("bin-1f"));
        for name in ["bin-20", "bin-1", "bin-01c", "bin1c", "bin-1C", "bin-+1", "bun-1c"] {
            assert!(!bins.contains(name), "{name}");
        }
    }

    #[test]
    fn a_delegated_role_cannot_replace_a_top_level_role() {
        let role = |name: &str| serde_json::json!({"name": name, "keyids": [], "threshold": 1, "terminating": false, "paths": []});
        let read = |roles: &[serde_json::Value]| {
            let value = serde_json::json!({"keys": {}, "roles": roles});
            serde_json::from_value::<Delegations>(value)
        };
        assert!(read(&[role("a"), role("b")]).is_ok());
        assert!(read(&[role("a"), role("a")]).is_err());
        for name in ["root", "timestamp", "snapshot", "targets", ""] {
            assert!(read(&[role(name)]).is_err(), "{name}");
        }
    }
}
