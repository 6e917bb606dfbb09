//! Our TUF beside the reference implementation's: the same verdicts of our client, and our repository in its eyes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use reqwest::Method;
use sealift_protocol::tuf::bundle::{Revocations, TrustBundle};
use sealift_protocol::tuf::{BUNDLE_PATH, REVOCATIONS_PATH};
use sealift_tests::digits::directory as model_directory;
use sealift_tests::fleet::{Options, Server};
use sealift_tests::needs::variable;
use sealift_tests::process::{programs, root};
use serde_json::Value;

/// Repositories that change by chance; more of them only with more time.
const STORIES: &str = "25";

fn script(name: &str) -> anyhow::Result<Command> {
    let mut python = Command::new(variable("SEALIFT_PYTHON")?);
    python.env("PYTHONDONTWRITEBYTECODE", "1");
    python.arg(root().join("tests/fixtures/tuf").join(name));
    Ok(python)
}

#[test]
#[ignore = "needs Python packages"]
fn our_client_and_python_tuf_judge_every_repository_alike() -> anyhow::Result<()> {
    let agent = programs()?.join("fleet-agent");
    let output = script("differential.py")?.args(["--stories", STORIES]).arg(agent).output()?;

    let printed = String::from_utf8_lossy(&output.stdout);
    let different: Vec<_> = printed.lines().filter(|line| line.starts_with("DIFFERENT")).collect();
    ensure!(different.is_empty(), "{}", different.join("\n"));
    ensure!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    let same = printed.lines().filter(|line| line.starts_with("same ")).count();
    ensure!(same > 140, "only {same} repositories were shown");
    Ok(())
}

#[tokio::test]
#[ignore = "needs Python packages"]
async fn python_tuf_trusts_what_the_fleet_server_signs() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &Options::default()).await?;
    let first = server.api()?.request(Method::GET, "/tuf/1.root.json").send().await?;
    let anchor = directory.path().join("root.json");
    fs::write(&anchor, first.error_for_status()?.bytes().await?)?;
    let second_verifier = SecondVerifier { server: &server, anchor };

    for version in ["v1", "v2"] {
        let pushed = server.ctl_json(&["model", "push", &model(version)])?;
        let digest = pushed["digest"].as_str().context("a digest")?.to_owned();
        let number = version.trim_start_matches('v');
        let target = format!("models/vision/digits/{number}");
        let key = server.offline_key("publisher-vision-1").display().to_string();

        let unsigned = second_verifier.asks(directory.path(), &[&target])?;
        ensure!(unsigned[&target].is_null(), "nobody has signed it: {unsigned}");
        server.ctl(&["model", "sign", &format!("vision/digits@{number}"), "--key", &key])?;
        let signed = second_verifier.asks(directory.path(), &[&target])?;

        let sha256 = signed[&target]["sha256"].as_str().context("a SHA-256")?;
        ensure!(digest == format!("sha256:{sha256}"), "{digest} is not {sha256}");
        ensure!(signed[&target]["custom"]["epoch"].is_u64(), "{signed}");
    }
    let trust = second_verifier.asks(directory.path(), &[BUNDLE_PATH, REVOCATIONS_PATH])?;
    let downloaded = |path: &str| trust[path]["downloaded"].as_str().unwrap_or_default().to_owned();
    TrustBundle::parse(downloaded(BUNDLE_PATH).as_bytes())?;
    Revocations::parse(downloaded(REVOCATIONS_PATH).as_bytes())?;
    refuses_an_altered_root(&second_verifier, directory.path())
}

/// Shows that the second verifier would object if there were reason to.
fn refuses_an_altered_root(verifier: &SecondVerifier<'_>, directory: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(&verifier.anchor)?;
    let altered = text.replacen("\"consistent_snapshot\":true", "\"consistent_snapshot\":false", 1);
    ensure!(text != altered, "the root is written otherwise than expected");
    fs::write(&verifier.anchor, altered)?;
    let answer = verifier.asks(&directory.join("other"), &[BUNDLE_PATH])?;
    let refusal = answer["refused"].as_str().unwrap_or_default();
    ensure!(refusal.contains("UnsignedMetadataError"), "{answer}");
    Ok(())
}

fn model(version: &str) -> String {
    model_directory(version).display().to_string()
}

/// python-tuf in front of our server.
struct SecondVerifier<'a> {
    server: &'a Server,
    anchor: PathBuf,
}

impl SecondVerifier<'_> {
    /// What it trusts of `targets`, keeping its metadata in `directory` from one question to the next.
    fn asks(&self, directory: &Path, targets: &[&str]) -> anyhow::Result<Value> {
        let url = format!("{}/tuf/", self.server.endpoints.operator_url);
        let mut verify = script("verify.py")?;
        verify.env("SEALIFT_TOKEN", &self.server.token).arg(url).arg(&self.anchor);
        let output = verify.arg(directory.join("python-tuf")).args(targets).output()?;
        let (said, complaint) = (output.stdout, String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&said).with_context(|| complaint.into_owned())
    }
}
