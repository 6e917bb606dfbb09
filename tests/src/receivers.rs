//! Whom alerts are sent to in stories: a mail server, judges of webhooks, Debian's Alertmanager. All on loopback.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

use crate::needs::variable;
use crate::process::{Guest, free_port, root, write};
use crate::wait::{Look, until};

const SOON: Duration = Duration::from_mins(1);
/// Who may send mails by way of [`Receivers`].
pub const USER: &str = "sealift";
/// The password for that.
pub const PASSWORD: &str = "seven herons at the sluice";

/// A mail server with two doors, and a server for webhooks; they run until this is dropped.
pub struct Receivers {
    _server: Guest,
    log: PathBuf,
    /// The certificate that the mail server shows, which is its own authority.
    pub certificate: PathBuf,
    /// Where the webhook's secret is expected.
    pub secret: PathBuf,
    /// Webhooks: `/hook`, `/slack`.
    pub http: u16,
    /// Mails, after STARTTLS and a login.
    pub starttls: u16,
    /// Mails, without either.
    pub plain: u16,
}

impl Receivers {
    /// Starts them in `directory`.
    pub async fn start(directory: &Path) -> anyhow::Result<Self> {
        let (certificate, key) = (directory.join("mail.pem"), directory.join("mail.key"));
        let pair = KeyPair::generate()?;
        let own = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&pair)?;
        write(&certificate, &own.pem())?;
        write(&key, &pair.serialize_pem())?;
        let (log, secret) = (directory.join("received.jsonl"), directory.join("hook.secret"));
        let mut command = Command::new(variable("SEALIFT_RECEIVERS_PYTHON")?);
        command
            .arg(root().join("tests/notify/receivers.py"))
            .args([&certificate, &key])
            .args([USER, PASSWORD])
            .arg(&secret)
            .stdout(File::create(&log)?)
            .stderr(File::create(directory.join("receivers.log"))?);
        let server = Guest::start(&mut command)?;
        let (http, starttls, plain) = (0, 0, 0);
        let mut receivers =
            Self { _server: server, log, certificate, secret, http, starttls, plain };
        let ready = receivers.wait("the receivers listen", |line| line["kind"] == "ready").await?;
        let port = |name: &str| ready[name].as_u64().and_then(|port| u16::try_from(port).ok());
        receivers.http = port("http").context("a port")?;
        receivers.starttls = port("starttls").context("a port")?;
        receivers.plain = port("plain").context("a port")?;
        Ok(receivers)
    }

    /// Everything that was received.
    pub fn received(&self) -> anyhow::Result<Vec<Value>> {
        let text = fs::read_to_string(&self.log)?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Waits for the first thing received of which something holds.
    pub async fn wait(&self, what: &str, holds: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        until(what, SOON, || async {
            let received = self.received()?;
            let found = received.iter().find(|line| holds(line)).cloned();
            Ok(found.map_or_else(|| Look::NotYet(format!("{received:?}")), Look::Done))
        })
        .await
    }
}

/// Debian's Alertmanager, which sends to nobody.
pub struct Alertmanager {
    _server: Guest,
    /// Its root.
    pub url: String,
}

impl Alertmanager {
    /// Starts it in `directory`.
    pub fn start(directory: &Path) -> anyhow::Result<Self> {
        let config = directory.join("alertmanager.yml");
        write(&config, "route:\n  receiver: nobody\nreceivers:\n  - name: nobody\n")?;
        let port = free_port()?;
        let mut command = Command::new(variable("SEALIFT_ALERTMANAGER")?);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", directory.join("alertmanager").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=");
        let log = directory.join("alertmanager.log");
        let server = Guest::start_with_log(&mut command, &log)?;
        Ok(Self { _server: server, url: format!("http://127.0.0.1:{port}") })
    }

    /// Waits until its active alerts of a name are as asked.
    pub async fn wait(
        &self,
        what: &str,
        name: &str,
        holds: impl Fn(&[Value]) -> bool,
    ) -> anyhow::Result<Vec<Value>> {
        let url = format!("{}/api/v2/alerts?filter=alertname%3D{name}", self.url);
        // It is sent again every minute; a machine that is busy may be late.
        until(what, Duration::from_mins(3), || async {
            let alerts: Vec<Value> = reqwest::get(&url).await?.error_for_status()?.json().await?;
            let found = holds(&alerts);
            Ok(if found { Look::Done(alerts) } else { Look::NotYet(format!("{alerts:?}")) })
        })
        .await
    }
}
