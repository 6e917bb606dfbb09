//! A file that says what should be there.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// YAML or JSON with `alert_kinds`, `alert_rules`, `channels`, `silences` and `rollouts`; `-` for standard input.
    #[arg(short, long)]
    pub(crate) file: PathBuf,
    /// Only say what would change.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub(crate) yes: bool,
}
