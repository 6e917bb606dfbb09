//! `cargo xtask openapi`: the description of the HTTP API, as a running server gives it.

use std::fs;

use anyhow::{Context as _, ensure};
use sealift_tests::fleet::{Options, Server};
use serde_json::Value;

use crate::{programs, workspace};

/// Where the description is committed.
const COMMITTED: &str = "fleet-server/openapi.json";

/// What is asked of `cargo xtask openapi`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Change nothing; fail if the committed description is not the present one.
    #[arg(long)]
    check: bool,
}

/// Writes or compares the description.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    programs::build()?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let mut text = serde_json::to_string_pretty(&runtime.block_on(describe())?)?;
    text.push('\n');
    let committed = workspace::root().join(COMMITTED);
    if arguments.check {
        let same = fs::read_to_string(committed)? == text;
        ensure!(same, "{COMMITTED} is not what the server says\nhelp: run `cargo xtask openapi`");
        return Ok(());
    }
    fs::write(committed, text).with_context(|| format!("cannot write {COMMITTED}"))
}

async fn describe() -> anyhow::Result<Value> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &Options::default()).await?;
    let url = format!("{}/openapi.json", server.endpoints.operator_url);
    let response = reqwest::get(url).await?.error_for_status()?;
    Ok(serde_json::from_slice(&response.bytes().await?)?)
}
