//! Paths below `/v2/`. A repository's name has any number of parts, so that the path is read from its end.

use super::OciError;
use crate::registry::name::Repository;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// In which repository.
    pub(super) repository: Repository,
    /// What of it.
    pub(super) what: What,
}

/// What of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// `tags/list`
    Tags,
    /// `manifests/<reference>`
    Manifest(String),
    /// `blobs/<digest>`
    Blob(String),
    /// `blobs/uploads/`
    Uploads,
    /// `blobs/uploads/<id>`
    Upload(String),
    /// `referrers/<digest>`
    Referrers(String),
}

impl Place {
    /// Reads what follows `/v2/`.
    pub(super) fn parse(path: &str) -> Result<Self, OciError> {
        let (name, what) = split(path).ok_or(OciError::NoRoute)?;
        let repository =
            Repository::parse(name).map_err(|error| OciError::Name(error.to_string()))?;
        Ok(Self { repository, what })
    }
}

fn split(path: &str) -> Option<(&str, What)> {
    if let Some(name) = path.strip_suffix("/tags/list") {
        return Some((name, What::Tags));
    }
    let uploads = path.strip_suffix('/').unwrap_or(path);
    if let Some(name) = uploads.strip_suffix("/blobs/uploads") {
        return Some((name, What::Uploads));
    }
    let (rest, last) = path.rsplit_once('/')?;
    let last = last.to_owned();
    let (name, what) = if let Some(name) = rest.strip_suffix("/blobs/uploads") {
        (name, What::Upload(last))
    } else if let Some(name) = rest.strip_suffix("/blobs") {
        (name, What::Blob(last))
    } else if let Some(name) = rest.strip_suffix("/manifests") {
        (name, What::Manifest(last))
    } else {
        (rest.strip_suffix("/referrers")?, What::Referrers(last))
    };
    Some((name, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_from_its_end() {
        let what = |path: &str| {
            let place = Place::parse(path).unwrap();
            (place.repository.to_string(), place.what)
        };
        let name = |text: &str| text.to_owned();
        assert_eq!(what("a/tags/list"), (name("a"), What::Tags));
        assert_eq!(what("a/b/c/manifests/1"), (name("a/b/c"), What::Manifest(name("1"))));
        assert_eq!(what("a/b/blobs/sha256:0"), (name("a/b"), What::Blob(name("sha256:0"))));
        assert_eq!(what("a/b/blobs/uploads/"), (name("a/b"), What::Uploads));
        assert_eq!(what("a/b/blobs/uploads"), (name("a/b"), What::Uploads));
        assert_eq!(what("a/b/blobs/uploads/7"), (name("a/b"), What::Upload(name("7"))));
        assert_eq!(what("a/referrers/x"), (name("a"), What::Referrers(name("x"))));
        let nested = what("manifests/blobs/manifests/tags");
        assert_eq!(nested, (name("manifests/blobs"), What::Manifest(name("tags"))));
    }

    #[test]
    fn what_is_no_path_of_the_specification_is_refused() {
        for path in ["", "a", "a/b", "a/b/other/c", "manifests/1"] {
            assert!(matches!(Place::parse(path), Err(OciError::NoRoute)), "{path}");
        }
        for path in ["A/manifests/1", "a/../b/manifests/1", "/manifests/1", "a//b/tags/list"] {
            assert!(matches!(Place::parse(path), Err(OciError::Name(_))), "{path}");
        }
    }
}
