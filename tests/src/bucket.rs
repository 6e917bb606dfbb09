//! An S3-compatible object store on loopback: the server of the Python package `moto`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;

use crate::needs::variable;
use crate::process::{Guest, free_port};
use crate::wait::{Look, until};

/// Python on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(2);
/// Its only bucket.
const BUCKET: &str = "fleet";

/// A store with one empty bucket; it runs until it is dropped, and forgets everything then.
pub struct Bucket {
    _server: Guest,
    url: String,
    http: reqwest::Client,
}

impl Bucket {
    /// Starts the store; what it prints goes to a file in `directory`.
    pub async fn start(directory: &Path) -> anyhow::Result<Self> {
        let python = variable("SEALIFT_S3_PYTHON")?;
        let port = free_port()?;
        let mut command = Command::new(python);
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
        let server = Guest::start_with_log(&mut command, &directory.join("s3.log"))?;
        let url = format!("http://127.0.0.1:{port}");
        let bucket = Self { _server: server, url, http: reqwest::Client::new() };
        let path = format!("{}/{BUCKET}", bucket.url);
        until("the object store has a bucket", START_LIMIT, || async {
            let status = bucket.http.put(&path).send().await?.status();
            ensure!(status.is_success(), "it answers {status}");
            Ok(Look::Done(()))
        })
        .await?;
        Ok(bucket)
    }

    /// The section of a server's configuration that names it.
    pub fn section(prefix: &str) -> String {
        format!("[blobs]\nurl = \"s3://{BUCKET}/{prefix}\"\n")
    }

    /// What a server's environment has to say of it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let variables = [
            ("AWS_ENDPOINT", self.url.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "story"),
            ("AWS_SECRET_ACCESS_KEY", "story"),
        ];
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// The names of the objects below a prefix; at most 1,000.
    pub async fn objects(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let url = format!("{}/{BUCKET}?list-type=2&prefix={prefix}", self.url);
        let listed = self.http.get(url).send().await?.error_for_status()?.text().await?;
        let after_tag = listed.split("<Key>").skip(1);
        Ok(after_tag.filter_map(|rest| Some(rest.split_once("</Key>")?.0.to_owned())).collect())
    }
}
