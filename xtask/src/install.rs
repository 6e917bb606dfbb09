//! Programs of the operating system that tests use: found, or installed where that is possible.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::{child, workspace};

/// Chromium and what it needs on a slow mirror.
const INSTALL_LIMIT: Duration = Duration::from_mins(15);

/// A program by its name and Debian's package of it.
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
}

impl Tool {
    /// Finds the program, installs its package if this is root on Debian, or says what a person can do.
    pub(crate) fn obtain(&self) -> Result<PathBuf, String> {
        if let Some(path) = find(self.program) {
            return Ok(path);
        }
        let missing = format!("`{}` is not installed", self.program);
        if !rustix::process::geteuid().is_root() || find("apt-get").is_none() {
            return Err(format!(
                "{missing}: install Debian's package {}, or run as root",
                self.package
            ));
        }
        install(self.package).map_err(|error| format!("{missing}: {error:#}"))?;
        find(self.program)
            .ok_or_else(|| format!("{missing}, nor by Debian's package {}", self.package))
    }
}

fn install(package: &str) -> anyhow::Result<()> {
    static UPDATED: OnceLock<()> = OnceLock::new();
    let log = workspace::target()?.join("test-logs").join(format!("install-{package}.log"));
    if UPDATED.set(()).is_ok() {
        let mut update = apt_get();
        child::succeed("apt-get update", update.arg("update"), &log, INSTALL_LIMIT)?;
    }
    let mut command = apt_get();
    command.args(["install", "--yes", "--no-install-recommends", package]);
    child::succeed(&format!("installing {package}"), &mut command, &log, INSTALL_LIMIT)
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // At this run level no service is started by the installation; tests start their own on free ports.
    command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    command
}

/// Finds a program in `PATH`, and where Debian puts those that are not meant for it.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let aside = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut directories = std::env::split_paths(&path).chain(aside).chain(postgresql());
    directories.find_map(|directory| executable(&directory.join(program)))
}

/// The directories of the installed PostgreSQL servers, the newest first.
fn postgresql() -> Vec<PathBuf> {
    let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") else { return Vec::new() };
    let mut versions: Vec<_> = versions
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .collect();
    versions.sort_unstable_by(|one, other| other.cmp(one));
    versions.iter().map(|version| format!("/usr/lib/postgresql/{version}/bin").into()).collect()
}

fn executable(path: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = path.metadata().ok()?;
    (metadata.is_file() && metadata.permissions().mode() & 0o111 != 0).then(|| path.to_owned())
}
