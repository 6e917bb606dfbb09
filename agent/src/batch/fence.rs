//! Which paths somebody from afar may name: those in the directories that the device's owner has opened, and nothing that leads out of them.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, open, openat2};
use rustix::io::Errno;

/// Why a path may not be named.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fenced {
    /// Nothing is open.
    #[error(
        "the device's owner has opened no directory for batches; `[batch] directories = [\"/data\"]` in its agent.toml would"
    )]
    Closed,
    /// It is elsewhere, or says `..`.
    #[error("{path} is not in a directory that the device's owner has opened: {open}")]
    Outside {
        /// As it was given.
        path: String,
        /// What is open.
        open: String,
    },
    /// A link, or something that is not there.
    #[error("{path} cannot be used: {reason}")]
    Unusable {
        /// As it was given.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// A directory that is open, and a path in it.
struct Inside<'a> {
    directory: &'a Path,
    rest: PathBuf,
}

/// A file of rows that may be read.
///
/// Rule (CWE-22, CWE-59): a path that others choose is resolved beneath a directory that the owner chose, without links and without `..`,
/// by the system in one step.
pub(crate) fn input(directories: &[PathBuf], path: &str) -> Result<PathBuf, Fenced> {
    open_file(directories, path)?;
    let Inside { directory, rest } = inside(directories, path)?;
    Ok(directory.join(rest))
}

/// Opens a file that may be read, by the same rule: what is read is what was looked at.
pub(crate) fn open_file(directories: &[PathBuf], path: &str) -> Result<File, Fenced> {
    let Inside { directory, rest } = inside(directories, path)?;
    let file = beneath(directory, &rest, OFlags::RDONLY).map_err(|error| unusable(path, error))?;
    let kind = fstat(&file).map(|stat| FileType::from_raw_mode(stat.st_mode));
    if kind.map_err(|error| unusable(path, error))? == FileType::RegularFile {
        return Ok(File::from(file));
    }
    Err(Fenced::Unusable { path: path.to_owned(), reason: "it is no file".to_owned() })
}

/// A directory that may be written to; it is made, if it is not there.
pub(crate) fn output(directories: &[PathBuf], path: &str) -> Result<PathBuf, Fenced> {
    let Inside { directory, rest } = inside(directories, path)?;
    let mut made = PathBuf::new();
    for part in rest.components() {
        let parent = if made.as_os_str().is_empty() { Path::new(".") } else { made.as_path() };
        let parent = beneath(directory, parent, OFlags::DIRECTORY);
        let parent = parent.map_err(|error| unusable(path, error))?;
        match mkdirat(&parent, Path::new(part.as_os_str()), Mode::from_raw_mode(0o750)) {
            Ok(()) | Err(Errno::EXIST) => made.push(part),
            Err(error) => return Err(unusable(path, error)),
        }
    }
    beneath(directory, &made, OFlags::DIRECTORY).map_err(|error| unusable(path, error))?;
    Ok(directory.join(rest))
}

fn inside<'a>(directories: &'a [PathBuf], path: &str) -> Result<Inside<'a>, Fenced> {
    if directories.is_empty() {
        return Err(Fenced::Closed);
    }
    let given = Path::new(path.strip_prefix("file://").unwrap_or(path));
    let is_plain = |rest: &Path| {
        rest.components().next().is_some()
            && rest.components().all(|part| matches!(part, Component::Normal(_)))
    };
    let found = directories.iter().find_map(|directory| {
        let rest = given.strip_prefix(directory).ok().filter(|rest| is_plain(rest))?;
        Some(Inside { directory, rest: rest.to_owned() })
    });
    found.ok_or_else(|| {
        let open: Vec<_> = directories.iter().map(|it| it.display().to_string()).collect();
        Fenced::Outside { path: path.to_owned(), open: open.join(", ") }
    })
}

fn beneath(directory: &Path, rest: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let top = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    let directory = open(directory, top, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // A pipe would wait for whoever writes to it.
    let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK;
    openat2(&directory, rest, flags, Mode::empty(), resolve)
}

fn unusable(path: &str, error: Errno) -> Fenced {
    let reason = match error {
        Errno::LOOP => "a link is on the way; links are not followed".to_owned(),
        Errno::XDEV => "it leads out of the directory".to_owned(),
        error => std::io::Error::from(error).to_string(),
    };
    Fenced::Unusable { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_what_is_in_an_open_directory_can_be_named() {
        let folder = tempfile::tempdir().unwrap();
        let (open, other) = (folder.path().join("open"), folder.path().join("other"));
        fs::create_dir_all(open.join("deep")).unwrap();
        fs::create_dir_all(&other).unwrap();
        fs::write(open.join("deep/rows.csv"), "a\n1\n").unwrap();
        fs::write(other.join("secret.csv"), "a\n1\n").unwrap();
        symlink(&other, open.join("link")).unwrap();
        symlink(other.join("secret.csv"), open.join("secret.csv")).unwrap();
        let directories = [open.clone()];
        let text = |path: &Path| path.display().to_string();

        assert_eq!(
            input(&directories, &text(&open.join("deep/rows.csv"))).unwrap(),
            open.join("deep/rows.csv")
        );
        for path in [
            text(&other.join("secret.csv")),
            format!("{}/../other/secret.csv", text(&open)),
            format!("{}/deep/../../other/secret.csv", text(&open)),
            text(&open.join("link/secret.csv")),
            text(&open.join("secret.csv")),
            text(&open.join("deep")),
            text(&open.join("none.csv")),
            text(&open),
            "rows.csv".to_owned(),
            "/etc/passwd".to_owned(),
            "/proc/self/environ".to_owned(),
        ] {
            assert!(input(&directories, &path).is_err(), "{path}");
        }
        assert!(matches!(input(&[], "/etc/passwd"), Err(Fenced::Closed)));
    }

    #[test]
    fn a_directory_for_predictions_is_made_inside_and_never_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (open, other) = (folder.path().join("open"), folder.path().join("other"));
        fs::create_dir_all(&open).unwrap();
        fs::create_dir_all(&other).unwrap();
        symlink(&other, open.join("link")).unwrap();
        let directories = [open.clone()];

        let made = output(&directories, &format!("{}/a/b", open.display())).unwrap();
        assert!(made.is_dir() && made == open.join("a/b"));
        for path in ["link/x", "../other/x", "a/../../other/x"] {
            assert!(output(&directories, &format!("{}/{path}", open.display())).is_err(), "{path}");
        }
        assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
    }
}
