//! Roles, and why metadata is refused.

use std::fmt;

use super::{METADATA_BYTES_MAX, TARGETS_BYTES_MAX};
use crate::id::UnixMillis;

/// Whose signature a metadata file carries.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Names the keys of all top-level roles.
    Root,
    /// Names the newest snapshot.
    Timestamp,
    /// Names the version of every targets file.
    Snapshot,
    /// Names targets and delegates to other roles.
    Targets,
    /// A role that a targets role delegates to, by name.
    Delegated(String),
}

impl Role {
    /// The role's name in metadata.
    pub fn name(&self) -> &str {
        match self {
            Self::Root => "root",
            Self::Timestamp => "timestamp",
            Self::Snapshot => "snapshot",
            Self::Targets => "targets",
            Self::Delegated(name) => name,
        }
    }

    /// The targets role of this name.
    pub(crate) fn of_targets(name: &str) -> Self {
        if name == "targets" { Self::Targets } else { Self::Delegated(name.to_owned()) }
    }

    /// The file that holds the trusted metadata of this role, without a version. It is safe as a file name and in a URL.
    pub fn file(&self) -> String {
        format!("{}.json", quoted(self.name()))
    }

    /// The file of one version in a repository with consistent snapshots.
    pub fn versioned_file(&self, version: u64) -> String {
        format!("{version}.{}", self.file())
    }

    /// The entry under which snapshot metadata lists this role.
    pub(crate) fn listing(&self) -> String {
        format!("{}.json", self.name())
    }

    pub(crate) fn bytes_max(&self) -> usize {
        match self {
            Self::Root | Self::Timestamp | Self::Snapshot => METADATA_BYTES_MAX,
            Self::Targets | Self::Delegated(_) => TARGETS_BYTES_MAX,
        }
    }

    /// One of five codes, by role.
    fn code(&self, codes: [&'static str; 5]) -> &'static str {
        let [root, timestamp, snapshot, targets, delegated] = codes;
        match self {
            Self::Root => root,
            Self::Timestamp => timestamp,
            Self::Snapshot => snapshot,
            Self::Targets => targets,
            Self::Delegated(_) => delegated,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Percent-encodes every byte that is not unreserved in RFC 3986, so that no name can leave a directory or a URL's last segment.
pub(crate) fn quoted(name: &str) -> String {
    use fmt::Write as _;
    name.bytes().fold(String::with_capacity(name.len()), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

/// Why an update ended, or metadata was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TufError {
    /// More bytes than allowed or announced; they were not looked at.
    #[error("{file} is {given_bytes} bytes long, at most {max_bytes} are allowed")]
    TooLarge {
        /// What was too large.
        file: String,
        /// How much came.
        given_bytes: usize,
        /// How much may come.
        max_bytes: usize,
    },
    /// Not the metadata that this role must have.
    #[error("{role} metadata is malformed")]
    Malformed {
        /// Whose metadata.
        role: Role,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Too few distinct trusted keys signed.
    #[error("{role} metadata is signed by {valid} distinct trusted keys, {threshold} are needed")]
    Threshold {
        /// Whose metadata.
        role: Role,
        /// Distinct trusted keys that signed.
        valid: usize,
        /// How many must sign.
        threshold: u32,
    },
    /// A version lower than one that was trusted before.
    #[error("{role} metadata went back from version {trusted} to {offered}")]
    Rollback {
        /// Whose metadata.
        role: Role,
        /// The version trusted before.
        trusted: u64,
        /// The version offered now.
        offered: u64,
    },
    /// Not the version that was announced or must follow.
    #[error("{role} metadata is version {offered}, not {expected}")]
    Version {
        /// Whose metadata.
        role: Role,
        /// The version that must come.
        expected: u64,
        /// The version that came.
        offered: u64,
    },
    /// A role that the trusted snapshot listed is missing from the next one.
    #[error("snapshot metadata no longer lists {role}")]
    Dropped {
        /// The role that is missing.
        role: String,
    },
    /// The snapshot does not list a role that is delegated to.
    #[error("snapshot metadata does not list {role}")]
    Unlisted {
        /// The role that is missing.
        role: Role,
    },
    /// Not the bytes that signed metadata describe.
    #[error("{file} is not the file that signed metadata describe: its {what} differs")]
    Mismatch {
        /// The file that came.
        file: String,
        /// `length` or `digest`.
        what: &'static str,
    },
    /// Metadata that is no longer valid at the time of the update.
    #[error("{role} metadata expired at {expired_at}, and it is {now}")]
    Expired {
        /// Whose metadata.
        role: Role,
        /// When it expired.
        expired_at: UnixMillis,
        /// The time of the update.
        now: UnixMillis,
    },
    /// The repository, or the device's store, does not have a file that it must have.
    #[error("{file} is missing")]
    Missing {
        /// The file.
        file: String,
    },
    /// A delegated role's name that is refused.
    #[error("a delegated role may not be named {name:?}")]
    RoleName {
        /// The name.
        name: String,
    },
    /// No trusted role names the target.
    #[error("no trusted role names the target {path:?}")]
    NoTarget {
        /// The target's path.
        path: String,
    },
    /// The search for one target met too many roles.
    #[error("the search for target {path:?} met more than {max} roles")]
    TooManyRoles {
        /// The target's path.
        path: String,
        /// How many may be met.
        max: usize,
    },
    /// Nothing is trusted yet, or the update has not reached what was asked for.
    #[error("no finished update covers {what}")]
    NotReady {
        /// What was asked for.
        what: String,
    },
    /// An answer came that nobody had asked for.
    #[error("an answer came, but no file was asked for")]
    Unasked,
    /// A role that the repository does not delegate to.
    #[error("targets metadata do not delegate to {role}")]
    UnknownRole {
        /// The role.
        role: String,
    },
    /// A delegated role names a target that is not its own.
    #[error("{role} may not name the target {path:?}")]
    OutsidePaths {
        /// The role.
        role: String,
        /// The target's path.
        path: String,
    },
    /// A delegated role delegates further, which this repository does not carry.
    #[error("{role} delegates to further roles, which this repository does not carry")]
    Subdelegation {
        /// The role.
        role: String,
    },
}

/// The codes of one fault, in the order of [`Role::code`].
macro_rules! by_role {
    ($fault:literal) => {
        [
            concat!("tuf.root.", $fault),
            concat!("tuf.timestamp.", $fault),
            concat!("tuf.snapshot.", $fault),
            concat!("tuf.targets.", $fault),
            concat!("tuf.delegated.", $fault),
        ]
    };
}

impl TufError {
    /// A stable code for logs, reports and policies.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "tuf.too-large",
            Self::Malformed { role, .. } => role.code(by_role!("malformed")),
            Self::Threshold { role, .. } => role.code(by_role!("threshold")),
            Self::Rollback { role, .. } => role.code(by_role!("rollback")),
            Self::Version { role, .. } => role.code(by_role!("version")),
            Self::Expired { role, .. } => role.code(by_role!("expired")),
            Self::Dropped { .. } => "tuf.snapshot.dropped-role",
            Self::Unlisted { .. } => "tuf.snapshot.unlisted-role",
            Self::Mismatch { .. } => "tuf.mismatch",
            Self::Missing { .. } => "tuf.missing",
            Self::RoleName { .. } => "tuf.role-name",
            Self::NoTarget { .. } => "tuf.no-target",
            Self::TooManyRoles { .. } => "tuf.too-many-roles",
            Self::NotReady { .. } => "tuf.not-ready",
            Self::Unasked => "tuf.unasked",
            Self::UnknownRole { .. } => "tuf.unknown-role",
            Self::OutsidePaths { .. } => "tuf.outside-paths",
            Self::Subdelegation { .. } => "tuf.subdelegation",
        }
    }

    /// Whether only time is at fault: what to do without a trusted clock is the caller's policy.
    pub const fn is_expired(&self) -> bool {
        matches!(self, Self::Expired { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_name_never_leaves_its_directory() {
        let file = Role::Delegated("../../etc/passwd".into()).file();
        assert_eq!(file, "..%2F..%2Fetc%2Fpasswd.json");
        assert_eq!(Role::Delegated("..".into()).file(), "...json");
        assert_eq!(Role::Delegated("a\0b é".into()).file(), "a%00b%20%C3%A9.json");
    }

    #[test]
    fn codes_name_the_role_and_the_fault() {
        let rollback = TufError::Rollback { role: Role::Timestamp, trusted: 2, offered: 1 };
        assert_eq!(rollback.code(), "tuf.timestamp.rollback");
        let (expired_at, now) = (UnixMillis(0), UnixMillis(1));
        let expired = TufError::Expired { role: Role::Delegated("a".into()), expired_at, now };
        assert_eq!(expired.code(), "tuf.delegated.expired");
        assert!(expired.is_expired() && !rollback.is_expired());
    }
}
