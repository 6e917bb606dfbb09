//! Alerts reach real receivers, say when they are over, and are silent where somebody said so.

use std::fs;
use std::path::Path;

use anyhow::ensure;
use reqwest::Method;
use sealift_protocol::api::AlertView;
use sealift_tests::fleet::{Options, Server};
use sealift_tests::process::run_to_end;
use sealift_tests::receivers::{Alertmanager, PASSWORD, Receivers, USER};
use sealift_tests::story::{SOON, TIMING};
use sealift_tests::wait::{Look, until};
use serde_json::{Value, json};

async fn server(directory: &Path) -> anyhow::Result<Server> {
    let extra = format!("{TIMING}[alerts]\nallow_networks = [\"127.0.0.0/8\", \"::1/128\"]\n");
    Server::start(directory, &Options { extra, ..Options::default() }).await
}

/// A device that has an identity and was never heard: it is offline.
fn enrol(server: &Server, directory: &Path, device: &str) -> anyhow::Result<()> {
    let token = server.ctl(&["enrol", "create"])?.trim().to_owned();
    let store = directory.join(device).display().to_string();
    let url = &server.endpoints.device_url;
    let enrol = ["enrol", "--store", &store, "--url", url, "--device", device];
    let (status, _, stderr) =
        run_to_end("fleet-agent", &enrol, &[("SEALIFT_ENROL_TOKEN", &token)])?;
    ensure!(status.success(), "{stderr}");
    Ok(())
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn channels(server: &Server, receivers: &Receivers, manager: &Alertmanager) -> anyhow::Result<()> {
    let hook = format!("http://127.0.0.1:{}/hook", receivers.http);
    let made = server.ctl_json(&["notify", "add", "hook", "webhook", "--address", &hook])?;
    fs::write(&receivers.secret, made["secret"].as_str().unwrap_or_default())?;

    let address = receivers.secret.with_extension("slack");
    fs::write(&address, format!("http://127.0.0.1:{}/slack\n", receivers.http))?;
    server.ctl(&["notify", "add", "chat", "slack", "--secret-file", &path(&address)])?;

    let password = receivers.secret.with_extension("password");
    fs::write(&password, PASSWORD)?;
    let (ca, password) = (path(&receivers.certificate), path(&password));
    let mail = format!("localhost:{}", receivers.starttls);
    let people = ["--from", "sealift@plant.example", "--to", "ops@plant.example"];
    let login = ["--user", USER, "--secret-file", &password, "--ca", &ca];
    let add = ["notify", "add", "mail", "smtp", "--address", &mail];
    server.ctl(&[&add[..], &people, &login].concat())?;

    let plain = format!("127.0.0.1:{}", receivers.plain);
    let add = ["notify", "add", "plain", "smtp", "--address", &plain, "--tls", "none"];
    server.ctl(&[&add[..], &people, &["--least", "critical"]].concat())?;

    let add = ["notify", "add", "prometheus", "alertmanager", "--address", &manager.url];
    server.ctl(&add)?;
    Ok(())
}

fn mail(line: &Value, door: &str, words: &str) -> bool {
    let subject = line["headers"]["Subject"].as_str().unwrap_or_default();
    line["kind"] == "mail" && line["door"] == door && subject.contains(words)
}

#[tokio::test]
#[ignore = "needs receivers of alerts and prometheus-alertmanager"]
async fn an_alert_reaches_every_kind_of_receiver_and_says_when_it_is_over() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let server = server(directory.path()).await?;
    let receivers = Receivers::start(directory.path()).await?;
    let manager = Alertmanager::start(directory.path())?;
    channels(&server, &receivers, &manager)?;
    for name in ["hook", "chat", "mail", "plain"] {
        server.ctl(&["notify", "test", name])?;
    }
    let tried = receivers.wait("the test came", |line| mail(line, "starttls", "test of")).await?;
    ensure!(tried["tls"] == true && tried["login"] == true, "{tried}");

    enrol(&server, directory.path(), "cam-1")?;
    server.ctl(&["device", "label", "cam-1", "site=osaka"])?;
    let rule = ["alert", "rule", "add", "osaka-down", "-l", "site:osaka state:offline"];
    server.ctl(&[&rule[..], &["--severity", "critical"]].concat())?;

    let hook = receivers
        .wait("the webhook is signed", |line| line["type"] == "dev.sealift.alert.opened")
        .await?;
    ensure!(hook["data"]["title"] == "osaka-down: 1 of 1 devices", "{hook}");
    let is_chat = |line: &Value| {
        line["kind"] == "slack" && line["text"].as_str().is_some_and(|it| it.contains("osaka-down"))
    };
    receivers.wait("the chat hears of it", is_chat).await?;
    receivers.wait("mail without TLS", |line| mail(line, "plain", "osaka-down")).await?;
    let first = receivers.wait("mail", |line| mail(line, "starttls", "osaka-down")).await?;
    ensure!(first["tls"] == true && first["login"] == true, "{first}");
    let is_active = |alerts: &[Value]| alerts.len() == 1;
    let active = manager.wait("Alertmanager has it", "rule", is_active).await?;
    ensure!(active[0]["labels"]["severity"] == "critical", "{active:?}");
    ensure!(active[0]["annotations"]["link"].is_string(), "{active:?}");
    let updated = active[0]["updatedAt"].clone();
    let is_sent_again = |alerts: &[Value]| alerts.iter().any(|alert| alert["updatedAt"] != updated);
    manager.wait("it was sent again and is active", "rule", is_sent_again).await?;

    server.ctl(&["device", "label", "cam-1", "site-"])?;

    manager.wait("Alertmanager has it resolved", "rule", <[Value]>::is_empty).await?;
    let over =
        receivers.wait("mail that it is over", |line| mail(line, "starttls", "over:")).await?;
    let answered = &over["headers"]["In-Reply-To"];
    ensure!(*answered == first["headers"]["Message-ID"], "{over}");
    ensure!(over["headers"]["References"] == *answered, "{over}");
    receivers.wait("the webhook", |line| line["type"] == "dev.sealift.alert.closed").await?;

    let log = server.ctl(&["notify", "log", "mail"])?;
    ensure!(log.contains("closed") && log.contains("delivered"), "{log}");
    is_nowhere(&server, &[PASSWORD, "/slack", "/hook"])
}

fn is_nowhere(server: &Server, secrets: &[&str]) -> anyhow::Result<()> {
    for name in ["fleet.db", "fleet.db-wal"] {
        let bytes = fs::read(server.data().join(name)).unwrap_or_default();
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            ensure!(!found, "{secret} stands in {name}");
        }
    }
    let listed = server.ctl(&["notify", "list"])?;
    ensure!(secrets.iter().all(|secret| !listed.contains(secret)), "{listed}");
    Ok(())
}

#[tokio::test]
async fn what_is_silenced_is_listed_and_told_when_the_silence_ends() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let server = server(directory.path()).await?;
    let api = server.api()?;
    let nobody = json!({"kind": "webhook", "url": "http://127.0.0.1:9/hook"});
    let hook: Value = api.post("channels", &json!({"name": "hook", "destination": nobody})).await?;
    enrol(&server, directory.path(), "cam-1")?;
    let silence = ["alert", "silence", "kind=rule", "--for", "1h", "--reason", "new roof"];
    server.ctl(&silence)?;
    server.ctl(&["alert", "rule", "add", "any-offline", "-l", "state:offline"])?;

    let opened: AlertView = until("the alert is open and silenced", SOON, || async {
        let alerts: Vec<AlertView> = api.list("alerts?match=kind%3Drule").await?;
        let found = alerts.into_iter().find(|alert| alert.silenced_until.is_some());
        Ok(found.map_or_else(|| Look::NotYet("none".to_owned()), Look::Done))
    })
    .await?;
    let path = format!("channels/{}/deliveries", hook["id"]);
    let log: Vec<Value> = api.list(&path).await?;
    ensure!(log.is_empty(), "nobody is told of {}: {log:?}", opened.id);

    let silences = server.ctl_json(&["alert", "silences"])?;
    ensure!(silences[0]["covers"] == 1, "{silences}");
    server.ctl(&["alert", "unsilence", &silences[0]["id"].to_string()])?;

    until("people are told", SOON, || async {
        let log: Vec<Value> = api.list(&path).await?;
        let is_told = log.iter().any(|message| message["verb"] == "opened");
        Ok(if is_told { Look::Done(()) } else { Look::NotYet(format!("{log:?}")) })
    })
    .await?;
    let tried = server.ctl_json(&["alert", "test", "any-offline", "--since", "30d"])?;
    ensure!(
        tried["source"].as_str().is_some_and(|it| it.contains("connection history")),
        "{tried}"
    );
    let kinds = ["alert", "kind", "rule", "--off"];
    server.ctl(&kinds)?;
    until("a kind that is off has no alert", SOON, || async {
        let alerts: Vec<AlertView> = api.list("alerts?state=open").await?;
        let is_over = alerts.iter().all(|alert| alert.kind != "rule");
        Ok(if is_over { Look::Done(()) } else { Look::NotYet(format!("{alerts:?}")) })
    })
    .await?;
    let audit = api.request(Method::GET, "/api/v1/audit").send().await?.text().await?;
    for action in ["alert.silence", "alert.unsilence", "alert.rule.add", "alert.kind"] {
        ensure!(audit.contains(action), "{action} is not in the audit log");
    }
    Ok(())
}
