//! Where things are.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Returns the root of the workspace.
pub(crate) fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Returns cargo's target directory: the one this very program was built into.
pub(crate) fn target() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let target = own.parent().and_then(Path::parent);
    Ok(target.context("this program is not in a target directory")?.to_owned())
}

/// Returns the cargo that runs this program.
pub(crate) fn cargo() -> std::process::Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(cargo);
    command.current_dir(root());
    if let Ok(target) = target() {
        command.env("CARGO_TARGET_DIR", target);
    }
    command
}
