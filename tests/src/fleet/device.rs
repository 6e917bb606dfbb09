//! Devices: real agents, and many simulated ones in one process.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use sealift_protocol::id::DeviceId;
use sealift_protocol::report::Report;
use serde_json::Value;

use super::Server;
use crate::digits::{Batch, MODEL};
use crate::process::{Process, run, write};
use crate::wait::{Look, until};

/// A debug build on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(1);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How an agent is set up.
#[derive(Debug, Clone)]
pub struct DeviceOptions {
    /// `key=value` of the enrolment token.
    pub labels: Vec<String>,
    /// Path of ONNX Runtime's library; the fake engine if none.
    pub onnxruntime: Option<PathBuf>,
    /// Lines for the configuration file, after those that the harness writes.
    pub extra: String,
}

/// Where a device's key is made and kept; in a file if nothing is said.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keeping<'a> {
    /// The token.
    pub key_on: Option<&'a str>,
    /// Variables that the token's library needs.
    pub environment: &'a [(&'a str, &'a str)],
}

/// How a device gets into a fleet.
#[derive(Debug, Clone, Copy)]
pub struct WayIn<'a> {
    /// The server's HTTPS port for devices.
    pub url: &'a str,
    /// A one-time token.
    pub token: &'a str,
}

/// An enrolled device with its agent running.
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// The agent's directory.
    pub store: PathBuf,
    /// The agent; can be killed and restarted.
    pub process: Process,
    http: reqwest::Client,
}

impl Device {
    /// Enrols with a fresh one-time token, and starts the agent.
    pub async fn start(
        server: &Server,
        directory: &Path,
        id: &str,
        options: &DeviceOptions,
    ) -> anyhow::Result<Self> {
        Self::start_with(server, directory, id, options, &Keeping::default()).await
    }

    /// As [`Device::start`], with the key where `keeping` says.
    pub async fn start_with(
        server: &Server,
        directory: &Path,
        id: &str,
        options: &DeviceOptions,
        keeping: &Keeping<'_>,
    ) -> anyhow::Result<Self> {
        let agent = (options, keeping.environment);
        let mut device = Self::set_up(server, directory, id, agent, keeping)?;
        device.ready().await?;
        Ok(device)
    }

    /// As [`Device::start`], with more variables for the agent, and without waiting for it.
    pub fn begin(
        server: &Server,
        directory: &Path,
        id: &str,
        agent: (&DeviceOptions, &[(&str, &str)]),
    ) -> anyhow::Result<Self> {
        Self::set_up(server, directory, id, agent, &Keeping::default())
    }

    fn set_up(
        server: &Server,
        directory: &Path,
        id: &str,
        (options, environment): (&DeviceOptions, &[(&str, &str)]),
        keeping: &Keeping<'_>,
    ) -> anyhow::Result<Self> {
        let (store, token) = (directory.join(id), token(server, &options.labels, 1)?);
        enrol(WayIn { url: &server.endpoints.device_url, token: &token }, &store, keeping)?;
        Self::launch(directory, &store, &configuration(options), environment)
    }

    /// Enrols with a token that somebody has made, and starts the agent with a configuration of the story's own. The last part of the
    /// store's path is the device's name.
    pub async fn join(
        WayIn { url, token }: WayIn<'_>,
        directory: &Path,
        store: &Path,
        configuration: &str,
    ) -> anyhow::Result<Self> {
        let (url, token, at) = (url.to_owned(), token.to_owned(), store.to_owned());
        // The server that it asks may be a task of this very story.
        let enrolled = tokio::task::spawn_blocking(move || {
            enrol(WayIn { url: &url, token: &token }, &at, &Keeping::default())
        });
        enrolled.await??;
        let mut device = Self::launch(directory, store, configuration, &[])?;
        device.ready().await?;
        Ok(device)
    }

    fn launch(
        directory: &Path,
        store: &Path,
        configuration: &str,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let (id, store_text) = (name(store)?, store.display().to_string());
        let config = directory.join(format!("{id}.toml"));
        write(&config, configuration)?;
        let config = config.display().to_string();
        let arguments = ["run", "--store", &store_text, "--config", &config];
        let log = directory.join(format!("{id}.log"));
        let process = Process::start(id, "fleet-agent", &arguments, environment, &log)?;
        let http = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).build()?;
        Ok(Self { id: DeviceId::parse(id)?, store: store.to_owned(), process, http })
    }

    /// What the agent last reported, as `fleet-agent status` shows it.
    pub fn reported(&self) -> anyhow::Result<Report> {
        Ok(serde_json::from_slice(&fs::read(self.store.join("run/status.json"))?)?)
    }

    /// Waits until the agent answers on its local endpoint; to be called after a restart.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let process = std::cell::RefCell::new(&mut self.process);
        let (http, store) = (&self.http, &self.store);
        until("the agent is ready", START_LIMIT, || async {
            if let Err(ended) = process.borrow_mut().check() {
                return Ok(Look::Done(Err(ended)));
            }
            let health = http.get(format!("{}/v2/health/live", endpoint(store)?)).send().await?;
            ensure!(health.status().is_success(), "health is {}", health.status());
            Ok(Look::Done(Ok(())))
        })
        .await?
    }

    /// The agent's local endpoint, as `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> anyhow::Result<String> {
        endpoint(&self.store)
    }

    /// A user of this device's endpoint.
    pub fn caller(&self) -> Caller {
        Caller { store: self.store.clone(), http: self.http.clone() }
    }
}

/// An application beside an agent.
#[derive(Clone)]
pub struct Caller {
    store: PathBuf,
    http: reqwest::Client,
}

impl Caller {
    /// Asks the model that is served at present; returns the answer and the version that gave it.
    pub async fn infer(&self, batch: &Batch) -> anyhow::Result<(Value, String)> {
        let url = format!("{}/v2/models/{MODEL}/infer", endpoint(&self.store)?);
        let response = self.http.post(url).json(&batch.request()).send().await?;
        let status = response.status();
        let body = response.bytes().await?;
        ensure!(status.is_success(), "infer: {status} {}", String::from_utf8_lossy(&body));
        let answer: Value = serde_json::from_slice(&body)?;
        let version = answer["model_version"].as_str().context("no model_version")?.to_owned();
        Ok((answer, version))
    }
}

/// Makes the identity of the device whose store it is.
fn enrol(
    WayIn { url, token }: WayIn<'_>,
    store: &Path,
    keeping: &Keeping<'_>,
) -> anyhow::Result<()> {
    let (id, store) = (name(store)?, store.display().to_string());
    let enrol = ["enrol", "--store", &store, "--url", url, "--token", token, "--device", id];
    let key_on = keeping.key_on.map(|uri| ["--key-on", uri]);
    let key_on = key_on.as_ref().map_or(&[][..], |arguments| arguments);
    run("fleet-agent", &[&enrol[..], key_on].concat(), keeping.environment)?;
    Ok(())
}

fn name(store: &Path) -> anyhow::Result<&str> {
    store.file_name().and_then(|name| name.to_str()).context("a device's name")
}

fn endpoint(store: &Path) -> anyhow::Result<String> {
    let file = store.join("run/endpoint.json");
    let json: Value = serde_json::from_slice(&fs::read(file)?)?;
    Ok(json["http"].as_str().context("no endpoint")?.to_owned())
}

fn token(server: &Server, labels: &[String], uses: u32) -> anyhow::Result<String> {
    let uses = uses.to_string();
    let mut arguments = vec!["enrol", "create", "--uses", &uses];
    arguments.extend(labels.iter().flat_map(|label| ["-l", label]));
    Ok(server.ctl(&arguments)?.trim().to_owned())
}

/// Short intervals, so that a story does not wait for a heartbeat.
fn configuration(options: &DeviceOptions) -> String {
    let runtime = options.onnxruntime.as_ref().map_or_else(
        || "engine = \"fake\"\n".to_owned(),
        |library| {
            let library = library.display();
            format!(
                "[[runtime]]\nlibrary = \"{library}\"\nproviders = [\"CPUExecutionProvider\"]\n"
            )
        },
    );
    format!(
        "serve_listen = \"127.0.0.1:0\"\nbeat_s = 2\nwindow_rows = 400\nwindow_s = 3\npoll_s = 30\n\
         will_delay_s = 2\n{}{runtime}",
        options.extra,
    )
}

/// Simulated devices: the real state machine and link, many in one process, with an engine that only pretends.
pub struct Simulated {
    /// The process of all of them.
    pub process: Process,
}

impl Simulated {
    /// Enrols and starts `count` devices named `sim-…`.
    pub fn start(
        server: &Server,
        directory: &Path,
        count: u32,
        labels: &[String],
    ) -> anyhow::Result<Self> {
        let token = token(server, labels, count)?;
        let store = directory.join("simulated").display().to_string();
        let count = count.to_string();
        let url = server.endpoints.device_url.clone();
        let arguments =
            ["simulate", "--store", &store, "--url", &url, "--token", &token, "--count", &count];
        let log = directory.join("simulated.log");
        let process = Process::start("simulated devices", "fleet-agent", &arguments, &[], &log)?;
        Ok(Self { process })
    }
}
