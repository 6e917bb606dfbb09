//! The web console: its packages, and what is built from its sources. And the packages of the tests' OpenID provider.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use sealift_protocol::digest::{Digest, Hasher};

use super::{Obtained, is_stamped};
use crate::{child, install, workspace};

/// Packages on a slow line, or a build on two slow cores.
const NPM_LIMIT: Duration = Duration::from_mins(15);

/// The oldest Node.js that the console's tools run on.
const NODE_MAJOR_MIN: u32 = 20;

/// Made from the sources, or installed; not sources themselves.
const MADE: [&str; 3] = ["node_modules", "dist", "coverage"];

/// Returns the directory of the built console.
pub(super) fn obtain(fetched: &Path) -> anyhow::Result<Obtained> {
    let console = directory();
    let built = console.join("dist");
    let stamp = fetched.join("console.stamp");
    if !console.join("package-lock.json").is_file() {
        return Ok(Obtained::Missing("fleet-server/console has no package-lock.json".to_owned()));
    }
    let sources = hash_of(&console)?;
    if built.join("index.html").is_file() && is_stamped(&stamp, &sources) {
        return Ok(Obtained::Ready(built));
    }
    if let Obtained::Missing(why) = obtain_packages(fetched)? {
        return Ok(Obtained::Missing(why));
    }
    let log = fetched.join("console-build.log");
    child::succeed("building the console", npm().args(["run", "build"]), &log, NPM_LIMIT)?;
    fs::write(stamp, sources)?;
    Ok(Obtained::Ready(built))
}

/// Returns the directory of the installed packages.
pub(super) fn obtain_packages(fetched: &Path) -> anyhow::Result<Obtained> {
    install_packages(&directory(), "console", fetched)
}

/// Returns the directory of the packages of an OpenID provider, on which the tests log in.
pub(super) fn obtain_provider(fetched: &Path) -> anyhow::Result<Obtained> {
    install_packages(&workspace::root().join("tests/oidc"), "provider", fetched)
}

fn install_packages(directory: &Path, what: &str, fetched: &Path) -> anyhow::Result<Obtained> {
    let lock = directory.join("package-lock.json");
    if !lock.is_file() {
        let why = format!("{} has no package-lock.json", directory.display());
        return Ok(Obtained::Missing(why));
    }
    if let Some(why) = node_missing() {
        return Ok(Obtained::Missing(why));
    }
    let packages = directory.join("node_modules");
    let stamp = packages.join(".installed-from");
    let locked = Digest::of(&fs::read(lock)?).hex();
    if is_stamped(&stamp, &locked) {
        return Ok(Obtained::Ready(packages));
    }
    let log = fetched.join(format!("{what}-packages.log"));
    let mut install = npm();
    install.current_dir(directory).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    if !child::run(&format!("fetching the {what}'s packages"), &mut install, &log, NPM_LIMIT)?
        .success()
    {
        let reason = child::tail(&log, 3).replace('\n', "; ");
        return Ok(Obtained::Missing(format!("`npm ci`: {reason} (see {})", log.display())));
    }
    fs::write(stamp, locked)?;
    Ok(Obtained::Ready(packages))
}

/// Runs npm in the console's directory.
pub(crate) fn npm() -> Command {
    let mut command = Command::new("npm");
    command.current_dir(directory());
    command
}

fn directory() -> PathBuf {
    workspace::root().join("fleet-server/console")
}

fn node_missing() -> Option<String> {
    let needed = format!("Node.js {NODE_MAJOR_MIN} or newer is needed");
    if install::find("node").is_none() || install::find("npm").is_none() {
        return Some(format!("Node.js with npm is not installed ({needed})"));
    }
    let version = child::output(Command::new("node").arg("--version")).unwrap_or_default();
    let major = version.trim().trim_start_matches('v').split('.').next()?.parse::<u32>().ok();
    major.is_none_or(|major| major < NODE_MAJOR_MIN).then(|| format!("{needed}, found {version}"))
}

/// Hashes the names and contents of all sources, in the order of their names.
fn hash_of(console: &Path) -> anyhow::Result<String> {
    let mut files = Vec::new();
    collect(console, &mut files)?;
    files.sort();
    let mut hash = Hasher::default();
    for file in files {
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        hash.update(file.strip_prefix(console)?.to_string_lossy().as_bytes());
        hash.update(Digest::of(&bytes).as_bytes());
    }
    Ok(hash.finish().hex())
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if MADE.iter().any(|made| entry.file_name() == *made) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}
