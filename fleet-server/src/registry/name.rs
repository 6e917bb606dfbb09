//! Names of repositories, and what a manifest may be asked for by (OCI distribution specification, "pull").

use std::fmt;
use std::str::FromStr;

use sealift_protocol::id::ModelName;

use crate::content::{ContentDigest, InvalidContentDigest};

/// Characters of a repository's name; clients count on 255 with their host before it.
const NAME_CHARS_MAX: usize = 255;

/// A repository: path components of lower-case letters and digits, which may be joined by `.`, `_`, `__` or any number of `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Repository(String);

/// A text that is not the name of a repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a repository's name is made of a-z, 0-9, `.`, `_`, `-` and `/`, with a letter or digit at the ends of each part, at most {NAME_CHARS_MAX} long"
)]
pub(crate) struct InvalidRepository;

impl Repository {
    /// Parses a name such as `team/model` or `library/tools/oras`.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidRepository> {
        let is_name = text.len() <= NAME_CHARS_MAX && text.split('/').all(is_component);
        if is_name { Ok(Self(text.to_owned())) } else { Err(InvalidRepository) }
    }

    /// The name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The model whose versions may lie here, if the name is that of one.
    pub(crate) fn model(&self) -> Option<ModelName> {
        ModelName::parse(&self.0).ok()
    }
}

fn is_component(text: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator =
        |run: &str| matches!(run, "." | "_" | "__") || run.bytes().all(|byte| byte == b'-');
    text.starts_with(is_alphanumeric)
        && text.ends_with(is_alphanumeric)
        && text.split(is_alphanumeric).filter(|run| !run.is_empty()).all(is_separator)
}

impl From<&ModelName> for Repository {
    fn from(model: &ModelName) -> Self {
        Self(model.to_string())
    }
}

impl FromStr for Repository {
    type Err = InvalidRepository;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    /// A name for a manifest that may move; a model's version does not.
    Tag(String),
    /// The manifest itself.
    Digest(ContentDigest),
}

/// Why a text is no reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvalidReference {
    /// It begins as a digest does.
    Digest,
    /// It is nothing.
    Tag,
}

impl Reference {
    /// Parses `sha256:…`, `sha512:…`, or a tag.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidReference> {
        match ContentDigest::parse(text) {
            Ok(digest) => Ok(Self::Digest(digest)),
            Err(InvalidContentDigest::Hex) => Err(InvalidReference::Digest),
            Err(InvalidContentDigest::Algorithm) if text.contains(':') => {
                Err(InvalidReference::Digest)
            }
            Err(InvalidContentDigest::Algorithm) if is_tag(text) => Ok(Self::Tag(text.to_owned())),
            Err(InvalidContentDigest::Algorithm) => Err(InvalidReference::Tag),
        }
    }
}

/// Rule (OCI distribution specification, "pulling manifests"): a tag has at most 128 letters, digits, `.`, `_` and `-`, and begins with
/// none of `.` and `-`.
fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use sealift_protocol::digest::Digest;

    use super::*;

    #[test]
    fn names_are_those_of_the_distribution_specification() {
        for good in ["a", "myorg/myrepo", "a/b/c/d", "a.b_c__d---e/0", "conformance-1f"] {
            assert_eq!(Repository::parse(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(256);
        for bad in
            ["", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "-a", "a-", "a.-b", "a b", "ä"]
        {
            assert_eq!(Repository::parse(bad), Err(InvalidRepository), "{bad}");
        }
        assert_eq!(Repository::parse(&long), Err(InvalidRepository));
    }

    #[test]
    fn only_names_of_two_plain_parts_are_models() {
        let model = |text| Repository::parse(text).unwrap().model();
        assert_eq!(model("vision/digits"), ModelName::parse("vision/digits").ok());
        for other in ["digits", "vision/tools/digits", "vision/di.gits"] {
            assert_eq!(model(other), None, "{other}");
        }
    }

    #[test]
    fn references_are_tags_or_digests() {
        let digest = ContentDigest::from(Digest::of(b""));
        assert_eq!(Reference::parse(&digest.to_string()), Ok(Reference::Digest(digest)));
        assert_eq!(Reference::parse("1.4"), Ok(Reference::Tag("1.4".to_owned())));
        for text in ["sha256:00", "sha256:totallywrong", "md5:00", "sha512:"] {
            assert_eq!(Reference::parse(text), Err(InvalidReference::Digest), "{text}");
        }
        for text in ["", "../x", "a/b", ".x", "-x", &"t".repeat(129)] {
            assert_eq!(Reference::parse(text), Err(InvalidReference::Tag), "{text}");
        }
    }
}
