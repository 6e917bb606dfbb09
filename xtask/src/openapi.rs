//! `cargo xtask openapi`: writes the description of the HTTP API as the server gives it, and the console's types from it.

use std::time::Duration;

use crate::fetch::Obtained;
use crate::{child, fetch, workspace};

/// A cold build on two slow cores.
const LIMIT: Duration = Duration::from_mins(45);

/// Writes both files; the test that compares the first with the server has a mode for it.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--package", "sealift-fleet-server", "--test", "openapi"]);
    let log = workspace::target()?.join("openapi.log");
    child::succeed("openapi.json", cargo.env("SEALIFT_BLESS", "1"), &log, LIMIT)?;
    println!("fleet-server/openapi.json is what the server says");
    match fetch::console_packages()? {
        Obtained::Ready(_) => {
            child::succeed("types", fetch::npm().args(["run", "generate"]), &log, LIMIT)?;
            println!("the console's types are what fleet-server/openapi.json says");
        }
        Obtained::Missing(why) => println!("the console's types are as they were: {why}"),
    }
    Ok(())
}
