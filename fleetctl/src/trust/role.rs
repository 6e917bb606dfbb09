//! Roles as people name them: `root`, `publisher:vision`, `director`.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use sealift_protocol::id::TeamId;
use sealift_protocol::tuf::key::Key;
use sealift_protocol::tuf::repository::{
    Lifetimes, publisher_delegation, revocations_delegation, runtime_delegation,
};
use sealift_protocol::tuf::{DelegatedRole, REVOCATIONS_ROLE, RUNTIME_ROLE, Role, publisher_role};

/// A role that has keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyRole {
    /// One of the four that the root names.
    Top(Role),
    /// A team.
    Publisher(TeamId),
    /// Whoever is on call.
    Revocations,
    /// Agents and inference libraries.
    Runtime,
    /// The server's key for directives, which the trust bundle names.
    Director,
}

impl FromStr for KeyRole {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let team = text.strip_prefix("publisher:").or_else(|| text.strip_prefix("publisher-"));
        if let Some(team) = team {
            return TeamId::parse(team).map(Self::Publisher).map_err(|error| error.to_string());
        }
        match text {
            "root" => Ok(Self::Top(Role::Root)),
            "targets" => Ok(Self::Top(Role::Targets)),
            "snapshot" => Ok(Self::Top(Role::Snapshot)),
            "timestamp" => Ok(Self::Top(Role::Timestamp)),
            REVOCATIONS_ROLE => Ok(Self::Revocations),
            RUNTIME_ROLE => Ok(Self::Runtime),
            "director" => Ok(Self::Director),
            _ => Err("expected root, targets, publisher:TEAM, revocations, runtime, director, \
                      snapshot or timestamp"
                .to_owned()),
        }
    }
}

impl fmt::Display for KeyRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top(role) => role.fmt(f),
            Self::Publisher(team) => write!(f, "publisher:{team}"),
            Self::Revocations => f.write_str(REVOCATIONS_ROLE),
            Self::Runtime => f.write_str(RUNTIME_ROLE),
            Self::Director => f.write_str("director"),
        }
    }
}

impl KeyRole {
    /// The role of this name in metadata.
    pub(crate) fn of(name: &str) -> Option<Self> {
        name.parse().ok()
    }

    /// The metadata that its holders sign; none for the director, who signs directives.
    pub(crate) fn metadata(&self) -> Option<Role> {
        match self {
            Self::Top(role) => Some(role.clone()),
            Self::Publisher(team) => Some(Role::Delegated(publisher_role(team))),
            Self::Revocations => Some(Role::Delegated(REVOCATIONS_ROLE.to_owned())),
            Self::Runtime => Some(Role::Delegated(RUNTIME_ROLE.to_owned())),
            Self::Director => None,
        }
    }

    /// Whether the server makes and keeps its keys.
    pub(crate) const fn is_online(&self) -> bool {
        matches!(self, Self::Director | Self::Top(Role::Snapshot | Role::Timestamp))
    }

    /// The delegation to it; none where it is not one that targets delegate to.
    pub(crate) fn delegation(&self, keys: &[Key], threshold: NonZeroU32) -> Option<DelegatedRole> {
        match self {
            Self::Publisher(team) => Some(publisher_delegation(team, keys, threshold)),
            Self::Revocations => Some(revocations_delegation(keys, threshold)),
            Self::Runtime => Some(runtime_delegation(keys, threshold)),
            Self::Top(_) | Self::Director => None,
        }
    }
}

/// How long what is signed for a role is valid, in milliseconds.
pub(crate) fn life_ms(role: &Role) -> i64 {
    let lives = Lifetimes::ONLINE;
    match role {
        Role::Root => lives.root_ms,
        Role::Targets => lives.targets_ms,
        Role::Snapshot => lives.snapshot_ms,
        Role::Timestamp => lives.timestamp_ms,
        Role::Delegated(name) if name == REVOCATIONS_ROLE => lives.revocations_ms,
        Role::Delegated(name) if name == RUNTIME_ROLE => lives.runtime_ms,
        Role::Delegated(_) => lives.publisher_ms,
    }
}
