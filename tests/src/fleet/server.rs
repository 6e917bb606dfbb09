//! A fleet server in a directory of its own, and `fleetctl` as its operator.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::Api;
use crate::process::{Process, free_port, run, run_to_end, write};
use crate::wait::{Look, until};

/// A debug build on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(1);

/// How a server is set up.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which database.
    pub store: Store,
    /// Lines for the configuration file, after the sections that the harness writes.
    pub extra: String,
    /// An external MQTT broker's section; the embedded one if empty.
    pub mqtt: Option<String>,
    /// The operators' port; any free one if not given.
    pub operators: Option<u16>,
    /// An administrator's API token that another server on this database has made; a new one if not given.
    pub token: Option<String>,
    /// More variables of the server's environment.
    pub environment: Vec<(String, String)>,
}

/// Which database a server uses.
#[derive(Debug, Clone, Default)]
pub enum Store {
    /// A file in the server's directory.
    #[default]
    Sqlite,
    /// PostgreSQL at this URL.
    Postgres(String),
}

/// Where a server can be reached; the server writes it once it is ready.
#[derive(Debug, Clone, Deserialize)]
pub struct Endpoints {
    /// Operators.
    pub operator_url: String,
    /// Devices, HTTPS.
    pub device_url: String,
    /// Devices, MQTT.
    pub mqtt: String,
}

/// A running fleet server.
pub struct Server {
    directory: PathBuf,
    /// The process; can be killed and restarted.
    pub process: Process,
    /// Where it can be reached.
    pub endpoints: Endpoints,
    /// An administrator's API token.
    pub token: String,
}

impl Server {
    /// Makes all keys below `directory`; what an external broker needs is then in `server/keys`.
    pub fn init(directory: &Path) -> anyhow::Result<()> {
        Self::init_for(directory, &["vision"])
    }

    /// The same, for these teams.
    pub fn init_for(directory: &Path, teams: &[&str]) -> anyhow::Result<()> {
        let data = directory.join("server").display().to_string();
        let offline = directory.join("offline-keys").display().to_string();
        let init = ["init", "--data", &data, "--offline", &offline];
        let teams = teams.iter().flat_map(|team| ["--team", team]);
        run("fleet-server", &init.into_iter().chain(teams).collect::<Vec<_>>(), &[])?;
        Ok(())
    }

    /// Makes keys, if there are none, and configuration in `directory`, starts the server and waits until it is ready.
    pub async fn start(directory: &Path, options: &Options) -> anyhow::Result<Self> {
        let data = directory.join("server").display().to_string();
        let offline = directory.join("offline-keys").display().to_string();
        if !directory.join("server/keys").exists() {
            Self::init(directory)?;
        }
        let config = directory.join("fleet-server.toml");
        write(&config, &configuration(&data, &offline, options)?)?;
        let config = config.display().to_string();
        let create = ["token", "create", "--config", &config, "--name", "story", "--role", "admin"];
        let token = match &options.token {
            Some(token) => token.clone(),
            None => run("fleet-server", &create, &[])?.trim().to_owned(),
        };
        let log = directory.join("fleet-server.log");
        let arguments = ["run", "--config", &config];
        let environment = options.environment.iter().map(|(name, value)| (&**name, &**value));
        let environment: Vec<_> = environment.collect();
        let process =
            Process::start("fleet-server", "fleet-server", &arguments, &environment, &log)?;
        let endpoints = Endpoints {
            operator_url: String::new(),
            device_url: String::new(),
            mqtt: String::new(),
        };
        let directory = directory.to_owned();
        let mut server = Self { directory, process, endpoints, token };
        server.ready().await?;
        Ok(server)
    }

    /// Waits until the server answers; to be called after a restart.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let file = self.directory.join("server/endpoints.json");
        let process = std::cell::RefCell::new(&mut self.process);
        self.endpoints = until("the fleet server is ready", START_LIMIT, || async {
            if let Err(ended) = process.borrow_mut().check() {
                return Ok(Look::Done(Err(ended)));
            }
            let endpoints: Endpoints = serde_json::from_slice(&fs::read(&file)?)?;
            let health = format!("{}/healthz", endpoints.operator_url);
            let status = reqwest::get(health).await?.status();
            ensure!(status.is_success(), "health is {status}");
            Ok(Look::Done(Ok(endpoints)))
        })
        .await??;
        Ok(())
    }

    /// Directory of the server's own files.
    pub fn data(&self) -> PathBuf {
        self.directory.join("server")
    }

    /// A key that is kept away from the server, such as `publisher-vision-1`.
    pub fn offline_key(&self, name: &str) -> PathBuf {
        self.directory.join("offline-keys").join(format!("{name}.pem"))
    }

    /// HTTP as an administrator.
    pub fn api(&self) -> anyhow::Result<Api> {
        Api::new(&self.endpoints.operator_url, &self.token)
    }

    /// Runs `fleetctl` as an administrator and returns its standard output.
    pub fn ctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let (status, stdout, stderr) = self.ctl_to_end(arguments)?;
        ensure!(status.success(), "fleetctl {} ({status}):\n{stderr}", arguments.join(" "));
        Ok(stdout)
    }

    /// Runs `fleetctl`, however it ends.
    pub fn ctl_to_end(&self, arguments: &[&str]) -> anyhow::Result<(ExitStatus, String, String)> {
        self.ctl_with(arguments, &[])
    }

    /// Runs `fleetctl` with more variables, however it ends.
    pub fn ctl_with(
        &self,
        arguments: &[&str],
        more: &[(&str, &str)],
    ) -> anyhow::Result<(ExitStatus, String, String)> {
        let config = self.directory.join("fleetctl.toml").display().to_string();
        let environment = [
            ("SEALIFT_URL", self.endpoints.operator_url.as_str()),
            ("SEALIFT_TOKEN", &self.token),
            ("SEALIFT_CONFIG", &config),
        ];
        run_to_end("fleetctl", arguments, &[&environment[..], more].concat())
    }

    /// Runs `fleetctl -o json` and reads what it printed.
    pub fn ctl_json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let stdout = self.ctl(&[&["-o", "json"], arguments].concat())?;
        serde_json::from_str(&stdout).with_context(|| format!("not JSON: {stdout}"))
    }

    /// Pushes and signs a version of the digits with the offline publisher's key.
    pub fn publish(&self, directory: &Path, version: &str) -> anyhow::Result<()> {
        let key = self.offline_key("publisher-vision-1").display().to_string();
        let version = format!("{}@{version}", crate::digits::MODEL);
        self.ctl(&["model", "push", &directory.display().to_string()])?;
        self.ctl(&["model", "sign", &version, "--key", &key])?;
        Ok(())
    }

    /// A URL that logs an operator in to the console, once.
    pub fn login_link(&self) -> anyhow::Result<String> {
        let config = self.directory.join("fleet-server.toml").display().to_string();
        Ok(run("fleet-server", &["login-link", "--config", &config], &[])?.trim().to_owned())
    }
}

fn configuration(data: &str, offline: &str, options: &Options) -> anyhow::Result<String> {
    let store = match &options.store {
        Store::Sqlite => String::new(),
        Store::Postgres(url) => format!("[store]\nurl = \"{url}\"\n"),
    };
    let mqtt = match &options.mqtt {
        Some(section) => section.clone(),
        None => format!("[mqtt]\nlisten = \"127.0.0.1:{}\"\n", free_port()?),
    };
    let (operators, devices) = (options.operators.map_or_else(free_port, Ok)?, free_port()?);
    Ok(format!(
        "data = \"{data}\"\noffline_keys = \"{offline}\"\n\
         [operators]\nlisten = \"127.0.0.1:{operators}\"\n\
         [devices]\nlisten = \"127.0.0.1:{devices}\"\nhosts = [\"localhost\", \"127.0.0.1\"]\n\
         {mqtt}{store}{}",
        options.extra,
    ))
}
