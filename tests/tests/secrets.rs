//! No secret of a whole story stands where others read: in no log at its most talkative, in no argument, in no row of the database.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use reqwest::header::{COOKIE, SET_COOKIE};
use sealift_tests::digits::directory as model_directory;
use sealift_tests::fleet::{Options, Server};
use sealift_tests::needs::onnxruntime;
use sealift_tests::process::{Process, run_to_end, write};
use sealift_tests::story::{self, SOON, TIMING};
use sealift_tests::wait::{Look, until};
use serde_json::json;

const PASSWORD: &str = "nine herons over the weir";
/// Everything that any crate in the process has to say.
const TALKATIVE: (&str, &str) = ("SEALIFT_LOG", "debug");
/// Shorter than this, a text is found by chance.
const SECRET_CHARS_MIN: usize = 12;

/// Secrets by what they are, and everything that was printed.
#[derive(Default)]
struct Story {
    secrets: BTreeMap<String, String>,
    printed: BTreeMap<String, String>,
}

impl Story {
    fn keep(&mut self, what: &str, secret: &str) -> anyhow::Result<()> {
        ensure!(secret.len() >= SECRET_CHARS_MIN, "{what} is too short to look for");
        self.secrets.insert(what.to_owned(), secret.to_owned());
        Ok(())
    }

    /// The lines of every private key below a folder.
    fn keep_keys(&mut self, folder: &Path) -> anyhow::Result<()> {
        for path in files(folder)? {
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let name = path.display().to_string();
            if text.contains("PRIVATE KEY") {
                let body = text.lines().filter(|line| !line.starts_with("-----"));
                let longest = body.max_by_key(|line| line.len()).context("a body")?;
                self.keep(&name, longest)?;
            } else if name.ends_with("secrets.key") {
                self.keep(&name, text.trim())?;
            }
        }
        Ok(())
    }

    /// Runs `fleetctl`; what it prints, besides the secrets that it is asked for, is printed.
    fn ctl(&mut self, server: &Server, arguments: &[&str]) -> anyhow::Result<()> {
        let (status, stdout, stderr) = server.ctl_with(arguments, &[TALKATIVE])?;
        ensure!(status.success(), "{arguments:?}: {stderr}");
        self.printed.insert(format!("fleetctl {}", arguments.join(" ")), stdout + &stderr);
        Ok(())
    }

    fn is_nowhere(&self, place: &str, bytes: &[u8]) -> anyhow::Result<()> {
        for (what, secret) in &self.secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            ensure!(!found, "{what} stands in {place}");
        }
        Ok(())
    }
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

/// The arguments of a process and of all below it.
fn arguments_of(process: u32) -> anyhow::Result<Vec<u8>> {
    let mut all = fs::read(format!("/proc/{process}/cmdline"))?;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            all.extend(arguments_of(child.parse()?).unwrap_or_default());
        }
    }
    Ok(all)
}

/// A server that says everything.
async fn server(directory: &Path) -> anyhow::Result<Server> {
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let mut server = Server::start(directory, &options).await?;
    server.process.stop()?;
    let config = directory.join("fleet-server.toml").display().to_string();
    let log = directory.join("fleet-server.log");
    let arguments = ["run", "--config", &config];
    server.process =
        Process::start("fleet-server", "fleet-server", &arguments, &[TALKATIVE], &log)?;
    server.ready().await?;
    Ok(server)
}

/// A device that says everything; its token comes by the environment, as the manual says.
fn device(server: &Server, directory: &Path, token: &str) -> anyhow::Result<(Process, String)> {
    let store = directory.join("cam-1").display().to_string();
    let url = &server.endpoints.device_url;
    let enrol = ["enrol", "--store", &store, "--url", url, "--device", "cam-1"];
    let environment = [("SEALIFT_ENROL_TOKEN", token), TALKATIVE];
    let (status, stdout, stderr) = run_to_end("fleet-agent", &enrol, &environment)?;
    ensure!(status.success(), "{stderr}");
    let config = directory.join("cam-1.toml");
    let library = onnxruntime()?;
    let runtime = format!(
        "serve_listen = \"127.0.0.1:0\"\nbeat_s = 2\npoll_s = 2\n[[runtime]]\nlibrary = \"{}\"\n\
         providers = [\"CPUExecutionProvider\"]\n",
        library.display()
    );
    write(&config, &runtime)?;
    let config = config.display().to_string();
    let arguments = ["run", "--store", &store, "--config", &config];
    let log = directory.join("cam-1.log");
    let process = Process::start("cam-1", "fleet-agent", &arguments, &[TALKATIVE], &log)?;
    Ok((process, stdout + &stderr))
}

/// Somebody is given an account, logs in with password and recovery code, and looks around.
async fn person(story: &mut Story, server: &Server, directory: &Path) -> anyhow::Result<()> {
    let config = directory.join("fleet-server.toml").display().to_string();
    let file = directory.join("password");
    write(&file, PASSWORD)?;
    story.keep("the password", PASSWORD)?;
    let file = file.display().to_string();
    let create = ["operator", "create", "ann", "--role", "admin", "--password-file", &file];
    let (status, stdout, stderr) =
        run_to_end("fleet-server", &[&create[..], &["--config", &config]].concat(), &[])?;
    ensure!(status.success(), "{stderr}");
    let uri = stdout.split_whitespace().find(|word| word.starts_with("otpauth:"));
    let key = uri.and_then(|uri| uri.split("secret=").nth(1)).context("a key")?;
    story.keep("the authenticator's key", key.split('&').next().context("a key")?)?;
    let codes = stdout.split_whitespace().filter(|word| word.len() == 17 && word.contains('-'));
    let codes: Vec<_> = codes.map(str::to_owned).collect();
    for (number, code) in codes.iter().enumerate() {
        story.keep(&format!("recovery code {number}"), code)?;
    }
    let base = &server.endpoints.operator_url;
    let body = json!({"operator": "ann", "password": PASSWORD, "code": codes.first()});
    let http = reqwest::Client::new();
    let answer = http.post(format!("{base}/api/v1/session/password")).json(&body).send().await?;
    let answer = answer.error_for_status()?;
    let cookie = answer.headers()[SET_COOKIE].to_str()?.split(';').next().context("a cookie")?;
    let cookie = cookie.to_owned();
    story.keep("the session", cookie.split_once('=').context("a value")?.1)?;

    for path in ["devices", "audit", "operators", "sessions"] {
        let request = http.get(format!("{base}/api/v1/{path}")).header(COOKIE, &cookie);
        let seen = request.send().await?.error_for_status()?.text().await?;
        story.printed.insert(format!("GET {path}"), seen);
    }
    let wrong = json!({"operator": "ann", "password": "twelve wrong herons", "code": "000000"});
    http.post(format!("{base}/api/v1/session/password")).json(&wrong).send().await?;
    story.keep("a wrong password", "twelve wrong herons")
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn secrets_stand_in_no_log_no_argument_and_no_row() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path();
    let server = server(path).await?;
    let mut story = Story::default();
    story.keep("the API token", &server.token)?;
    story.keep(
        "the login link's code",
        server.login_link()?.split("code=").nth(1).context("a code")?,
    )?;
    let token = server.ctl(&["enrol", "create"])?.trim().to_owned();
    story.keep("the enrolment token", token.split('.').nth(1).context("a secret")?)?;
    let (agent, enrolled) = device(&server, path, &token)?;
    story.printed.insert("fleet-agent enrol".to_owned(), enrolled);
    person(&mut story, &server, path).await?;

    server.publish(&model_directory("v1"), "1")?;
    story::roll_out(&server, "1").await?;
    for arguments in [
        &["device", "list"][..],
        &["device", "get", "cam-1"],
        &["operator", "list"],
        &["token", "list"],
        &["audit", "list"],
        &["key", "list"],
    ] {
        story.ctl(&server, arguments)?;
    }
    story.keep_keys(&server.data().join("keys"))?;
    story.keep_keys(&path.join("offline-keys"))?;
    story.keep_keys(&path.join("cam-1"))?;

    until("the server has said what it does, at its most talkative", SOON, || async {
        let is_talkative = server.process.log().contains("DEBUG") && agent.log().contains("DEBUG");
        Ok(if is_talkative { Look::Done(()) } else { Look::NotYet("nothing".to_owned()) })
    })
    .await?;
    ensure!(story.secrets.len() >= 20, "{:?}", story.secrets.keys());
    for (place, text) in &story.printed {
        story.is_nowhere(place, text.as_bytes())?;
    }
    story.is_nowhere("the server's log", server.process.log().as_bytes())?;
    story.is_nowhere("the agent's log", agent.log().as_bytes())?;
    for process in [server.process.id(), agent.id()] {
        story.is_nowhere("arguments", &arguments_of(process)?)?;
    }
    for name in ["fleet.db", "fleet.db-wal"] {
        let file = server.data().join(name);
        story.is_nowhere(name, &fs::read(file).unwrap_or_default())?;
    }
    Ok(())
}
