//! Names of things, parsed once at the edge.
//!
//! Every name is short, lower-case and safe in a topic, a path, a URL and a certificate: no separator of any of them is allowed.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is not a name of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}: {rule}")]
pub struct InvalidName {
    kind: &'static str,
    text: String,
    rule: &'static str,
}

/// An error quotes at most this much of what was given.
const QUOTED_CHARS_MAX: usize = 80;

impl InvalidName {
    fn new(kind: &'static str, text: &str, rule: &'static str) -> Self {
        Self { kind, text: text.chars().take(QUOTED_CHARS_MAX).collect(), rule }
    }
}

fn is_slug(text: &str, chars_max: usize) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let edge = |byte: Option<&u8>| byte.is_some_and(|&byte| byte != b'-');
    let bytes = text.as_bytes();
    bytes.len() <= chars_max
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|&byte| inner(byte))
}

macro_rules! slug {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $chars_max:literal, $rule:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Parses a name; the error says which rule it breaks.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                if is_slug(text, $chars_max) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidName::new($kind, text, $rule))
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        text_form!($name);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// `FromStr` and serde through `parse` and `Display`, so that no unparsed value exists.
macro_rules! text_form {
    ($name:ident) => {
        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(de::Error::custom)
            }
        }
    };
}

slug!(
    /// Whose fleet it is.
    TenantId, "tenant id", 20,
    "1 to 20 of a-z, 0-9 and `-`, not at either end"
);
slug!(
    /// A device within its tenant. With the tenant it fits the 64 characters of a certificate's common name.
    DeviceId, "device id", 40,
    "1 to 40 of a-z, 0-9 and `-`, not at either end"
);
slug!(
    /// Who publishes models: the owner of a delegated TUF role `publisher-<team>`.
    TeamId, "team id", 30,
    "1 to 30 of a-z, 0-9 and `-`, not at either end"
);

/// A model's name, `team/name`; also its repository in the registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelName {
    team: TeamId,
    name: String,
}

impl ModelName {
    /// Parses `team/name`.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let refused = || {
            let rule = "`team/name`, each of a-z, 0-9 and `-`, at most 30 and 50 long";
            InvalidName::new("model name", text, rule)
        };
        let (team, name) = text.split_once('/').ok_or_else(refused)?;
        let team = TeamId::parse(team).map_err(|_| refused())?;
        if !is_slug(name, 50) {
            return Err(refused());
        }
        Ok(Self { team, name: name.to_owned() })
    }

    /// The team that publishes it.
    pub const fn team(&self) -> &TeamId {
        &self.team
    }

    /// The part after the team.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.team, self.name)
    }
}

text_form!(ModelName);

/// A model's version: dot-separated parts, compared number by number where both parts are numbers, else as text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version(String);

impl Version {
    /// Parses a version such as `7`, `1.4.2` or `2026.11-rc1`.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let part = |part: &str| is_slug(part, 40);
        if text.len() <= 40 && text.split('.').all(part) {
            Ok(Self(text.to_owned()))
        } else {
            let rule = "at most 40 characters in dot-separated parts of a-z, 0-9 and `-`";
            Err(InvalidName::new("version", text, rule))
        }
    }

    /// The version as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(Version);

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let part = |(left, right): (&str, &str)| match (left.parse::<u64>(), right.parse::<u64>()) {
            (Ok(left), Ok(right)) => left.cmp(&right),
            // A number stands before a text; two texts, or two numbers beyond 64 bits, compare as text.
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => left.cmp(right),
        };
        let parts = self.0.split('.').count().cmp(&other.0.split('.').count());
        let differing = self.0.split('.').zip(other.0.split('.')).map(part).find(|o| o.is_ne());
        // `1` and `01` are equal as numbers and differ as text: the text decides, so that `Ord` agrees with `Eq`.
        differing.unwrap_or(parts).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A rollout, numbered per tenant: `r-12`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RolloutId(pub u64);

impl RolloutId {
    /// Parses `r-` and a number.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let number = text.strip_prefix("r-").and_then(|number| number.parse().ok());
        number.map(Self).ok_or_else(|| InvalidName::new("rollout id", text, "`r-` and a number"))
    }
}

impl fmt::Display for RolloutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r-{}", self.0)
    }
}

text_form!(RolloutId);

/// An alert, numbered per tenant: `a-7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlertId(pub u64);

impl AlertId {
    /// Parses `a-` and a number.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let number = text.strip_prefix("a-").and_then(|number| number.parse().ok());
        number.map(Self).ok_or_else(|| InvalidName::new("alert id", text, "`a-` and a number"))
    }
}

impl fmt::Display for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a-{}", self.0)
    }
}

text_form!(AlertId);

/// Orders the directives of one device; only rises.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A model's security epoch: an image below a device's floor is refused for ever.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// Milliseconds since 1970-01-01 UTC.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// This moment and `millis` more.
    #[must_use]
    pub const fn plus(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this moment; negative when the clock stepped back.
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(timestamp) => timestamp.fmt(f),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_of_topics_paths_and_urls_are_refused() {
        for text in ["", "-a", "a-", "A", "a/b", "a+", "#", "..", "a b", "a\0", "å", "a.b", "a:b"]
        {
            assert!(DeviceId::parse(text).is_err(), "{text:?}");
        }
        assert!(DeviceId::parse(&"d".repeat(41)).is_err());
        assert!(ModelName::parse("../digits").is_err());
        assert!(ModelName::parse("vision/a/b").is_err());
        assert!(Version::parse("..").is_err());
    }

    #[test]
    fn versions_order_as_people_read_them() {
        let texts = ["1", "1.0", "1.2", "1.10", "2", "10", "10.rc1"];
        let versions: Vec<_> = texts.iter().map(|text| Version::parse(text).unwrap()).collect();
        assert!(versions.is_sorted(), "{versions:?}");
    }

    #[test]
    fn names_survive_json() {
        let name: ModelName = serde_json::from_str("\"vision/digits\"").unwrap();
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"vision/digits\"");
        assert!(serde_json::from_str::<ModelName>("\"vision\"").is_err());
    }
}
