//! Which fleet server, with which token; kept in one file that only its owner can read.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure};

/// A fleet server and a token for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    pub(crate) url: String,
    pub(crate) token: String,
}

/// Where the context and the trust metadata are kept.
pub(crate) fn directory() -> anyhow::Result<PathBuf> {
    if let Some(file) = std::env::var_os("SEALIFT_CONFIG") {
        let file = PathBuf::from(file);
        return Ok(file.parent().map(Path::to_owned).unwrap_or_default());
    }
    let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".config"));
    let base = base.or_else(home).context("neither SEALIFT_CONFIG nor HOME is set")?;
    Ok(base.join("sealift"))
}

fn file() -> anyhow::Result<PathBuf> {
    match std::env::var_os("SEALIFT_CONFIG") {
        Some(file) => Ok(PathBuf::from(file)),
        None => Ok(directory()?.join("fleetctl.toml")),
    }
}

impl Context {
    /// What the flags say, else what `fleetctl login` left.
    pub(crate) fn resolve(url: Option<String>, token: Option<String>) -> anyhow::Result<Self> {
        if let (Some(url), Some(token)) = (&url, &token) {
            return Ok(Self { url: url.clone(), token: token.clone() });
        }
        let file = file()?;
        let text = fs::read_to_string(&file).map_err(|_| {
            Failure::new(Exit::Auth, "no fleet server is known")
                .help("`fleetctl login URL` remembers one; or set SEALIFT_URL and SEALIFT_TOKEN")
        })?;
        let kept: Self =
            toml::from_str(&text).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Self { url: url.unwrap_or(kept.url), token: token.unwrap_or(kept.token) })
    }

    /// Remembers it; returns the file.
    pub(crate) fn save(&self) -> anyhow::Result<PathBuf> {
        let file = file()?;
        fs::create_dir_all(directory()?)?;
        let mut open = fs::OpenOptions::new();
        open.write(true).create(true).truncate(true).mode(0o600);
        let mut handle =
            open.open(&file).with_context(|| format!("cannot write {}", file.display()))?;
        handle.write_all(toml::to_string(self)?.as_bytes())?;
        Ok(file)
    }

    /// Forgets it; returns whether there was one.
    pub(crate) fn forget() -> anyhow::Result<bool> {
        match fs::remove_file(file()?) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
