//! What stories about keys share: a server without ONNX Runtime, holders with files, lists of keys.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::fleet::{Device, DeviceOptions, Options, Server};
use crate::process::run_to_end;
use crate::story::TIMING;

/// The passphrase of all key files in these stories.
pub const PASSPHRASE: &str = "a passphrase of a story";

/// A server with short intervals.
pub async fn server(directory: &Path) -> anyhow::Result<Server> {
    Server::start(directory, &Options { extra: TIMING.to_owned(), ..Options::default() }).await
}

/// A device whose engine only pretends.
pub async fn device(server: &Server, directory: &Path) -> anyhow::Result<Device> {
    let options = DeviceOptions { labels: Vec::new(), onnxruntime: None, extra: String::new() };
    Device::start(server, directory, "cam-1", &options).await
}

/// `fleetctl` without a server, as a holder runs it at a machine of their own.
pub fn holder(arguments: &[&str]) -> anyhow::Result<String> {
    let environment = [("SEALIFT_PASSPHRASE", PASSPHRASE), ("SEALIFT_CONFIG", "/nonexistent/x")];
    let (status, stdout, stderr) = run_to_end("fleetctl", arguments, &environment)?;
    ensure!(status.success(), "fleetctl {} ({status}):\n{stderr}", arguments.join(" "));
    Ok(format!("{stdout}{stderr}"))
}

/// A path as an argument.
pub fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A key that was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its private file.
    pub private: String,
    /// Its public file.
    pub public: String,
    /// Its id.
    pub id: String,
}

/// Makes a key.
pub fn make_key(folder: &Path, role: &str, more: &[&str]) -> anyhow::Result<Made> {
    let folder = text(folder);
    let init = ["-o", "json", "key", "init", "--role", role, "--folder", &folder];
    let environment = [("SEALIFT_PASSPHRASE", PASSPHRASE)];
    let (status, stdout, stderr) = run_to_end("fleetctl", &[&init, more].concat(), &environment)?;
    ensure!(status.success(), "key init: {stderr}");
    let made: Value = serde_json::from_str(&stdout)?;
    let field = |name: &str| made[name].as_str().map(str::to_owned).context("no such field");
    Ok(Made { private: field("private")?, public: field("public")?, id: field("key_id")? })
}

/// The keys of a role, and whether the files of the first ceremony are theirs.
pub fn keys(server: &Server, role: &str) -> anyhow::Result<Vec<Value>> {
    let folder = text(server.offline_key("root-1").parent().context("a folder")?);
    let all = server.ctl_json(&["key", "list", "--keys", &folder])?;
    let all = all.as_array().context("a list")?.clone();
    Ok(all.into_iter().filter(|key| key["role"] == role).collect())
}
