//! One Debian package: `control` with blanks to fill in, `files` (source, destination, mode), and the maintainer's scripts.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// Scripts that dpkg runs, and its list of files that belong to the administrator.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];
const CONFFILES: &str = "conffiles";

/// Where the files of packages come from.
pub(super) struct Sources {
    pub(super) root: PathBuf,
    pub(super) programs: PathBuf,
    pub(super) onnxruntime: Option<PathBuf>,
}

impl Sources {
    /// `programs/…` was built, `onnxruntime/…` was fetched, anything else is in the repository.
    fn find(&self, source: &str) -> Option<PathBuf> {
        match source.split_once('/') {
            Some(("programs", name)) => Some(self.programs.join(name)),
            Some(("onnxruntime", name)) => self.onnxruntime.as_ref().map(|from| from.join(name)),
            _ => Some(self.root.join(source)),
        }
    }
}

/// A line of `files`.
struct Entry {
    source: String,
    destination: String,
    mode: u32,
}

/// A package as `packaging/deb/<name>/` describes it.
pub(super) struct Package {
    pub(super) name: String,
    directory: PathBuf,
    entries: Vec<Entry>,
}

impl Package {
    /// Reads the descriptions of all packages, in the order of their names.
    pub(super) fn all(descriptions: &Path) -> anyhow::Result<Vec<Self>> {
        let mut packages = Vec::new();
        for entry in fs::read_dir(descriptions)? {
            let directory = entry?.path();
            if directory.join("control").is_file() {
                packages.push(Self::read(directory)?);
            }
        }
        packages.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(packages)
    }

    fn read(directory: PathBuf) -> anyhow::Result<Self> {
        let name =
            directory.file_name().context("a package has a name")?.to_string_lossy().into_owned();
        let text = fs::read_to_string(directory.join("files"))?;
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let entries = lines.map(entry).collect::<anyhow::Result<_>>();
        Ok(Self { entries: entries.with_context(|| format!("files of {name}"))?, name, directory })
    }

    /// Whether everything that it takes from elsewhere is here.
    pub(super) fn can_be_made(&self, sources: &Sources) -> bool {
        self.entries.iter().all(|entry| sources.find(&entry.source).is_some())
    }

    pub(super) fn file_name(&self) -> String {
        format!("{}_{}_{}.deb", self.name, env!("CARGO_PKG_VERSION"), architecture())
    }

    /// Lays the package out in `staged` as `dpkg-deb --build` wants it.
    pub(super) fn stage(&self, sources: &Sources, staged: &Path) -> anyhow::Result<()> {
        fs::set_permissions(staged, Permissions::from_mode(0o755))?;
        let mut libc = None;
        for entry in &self.entries {
            let source = sources.find(&entry.source).context("checked by can_be_made")?;
            let bytes = fs::read(&source).with_context(|| format!("no {}", source.display()))?;
            libc = libc.max(newest_libc(&bytes));
            place(staged, &entry.destination, &bytes, entry.mode)?;
        }
        for script in SCRIPTS.into_iter().chain([CONFFILES]) {
            let source = self.directory.join(script);
            if source.is_file() {
                let mode = if script == CONFFILES { 0o644 } else { 0o755 };
                place(staged, &format!("DEBIAN/{script}"), &fs::read(source)?, mode)?;
            }
        }
        let control = fs::read_to_string(self.directory.join("control"))?;
        let (major, minor) = libc.unwrap_or((2, 28));
        let control = control
            .replace("{version}", env!("CARGO_PKG_VERSION"))
            .replace("{architecture}", architecture())
            .replace("{libc}", &format!("libc6 (>= {major}.{minor})"));
        place(staged, "DEBIAN/control", control.as_bytes(), 0o644)
    }
}

fn entry(line: &str) -> anyhow::Result<Entry> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let [source, destination, mode] = fields[..] else { bail!("not three fields: {line}") };
    let mode = u32::from_str_radix(mode, 8).with_context(|| format!("not a mode: {mode}"))?;
    Ok(Entry { source: source.to_owned(), destination: destination.to_owned(), mode })
}

fn place(staged: &Path, destination: &str, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let path = staged.join(destination.trim_start_matches('/'));
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(&path, bytes)?;
    Ok(fs::set_permissions(path, Permissions::from_mode(mode))?)
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Returns the newest version of the C library whose symbols a program names, as `(2, 36)`.
fn newest_libc(program: &[u8]) -> Option<(u32, u32)> {
    if !program.starts_with(b"\x7fELF") {
        return None;
    }
    let words = program.split(|&byte| byte == 0).filter_map(|word| std::str::from_utf8(word).ok());
    let version = |word: &str| {
        let (major, minor) = word.strip_prefix("GLIBC_")?.split_once('.')?;
        // A third number is a patch release of long ago.
        let minor = minor.split('.').next()?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    words.filter_map(version).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_of_the_c_library_counts() {
        let program = b"\x7fELF\0GLIBC_2.9\0GLIBC_2.34\0GLIBC_2.2.5\0GLIBC_PRIVATE\0xGLIBC_2.99\0";

        assert_eq!(newest_libc(program), Some((2, 34)));
        assert_eq!(newest_libc(b"#!/bin/sh\0GLIBC_2.34\0"), None);
    }

    #[test]
    fn a_line_of_files_has_a_source_a_destination_and_a_mode() {
        let entry = entry("programs/fleet-agent  /usr/bin/fleet-agent  755").unwrap();

        assert_eq!((entry.destination.as_str(), entry.mode), ("/usr/bin/fleet-agent", 0o755));
        assert!(super::entry("only two").is_err() && super::entry("a b 9").is_err());
    }
}
