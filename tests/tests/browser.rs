//! The console in a real browser, before a real fleet: the journeys in `fleet-server/console/e2e`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use sealift_protocol::codec;
use sealift_protocol::id::{Generation, UnixMillis};
use sealift_protocol::report::{Refusal, Report};
use sealift_protocol::telemetry::{Birth, Conn, Event, Facts, Severity};
use sealift_protocol::topic::Up;
use sealift_tests::digits::{Rows, directory as model_directory};
use sealift_tests::fleet::{Caller, Device, DeviceOptions, Options, Server, Simulated};
use sealift_tests::needs::{onnxruntime, variable};
use sealift_tests::process::{root, write};
use sealift_tests::story::{self, TIMING, answers_with};
use sealift_tests::wire::Wire;
use tokio::process::Command;

#[tokio::test]
#[ignore = "needs Chromium, ONNX Runtime and the console's packages"]
async fn an_operator_finds_every_page_and_goes_back_by_keyboard() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory.path(), &options).await?;
    let options = DeviceOptions {
        labels: vec!["site=osaka".to_owned()],
        onnxruntime: Some(onnxruntime()?),
        extra: String::new(),
    };
    let device = Device::start(&server, directory.path(), "cam-1", &options).await?;
    let site = ["site=tokyo".to_owned()];
    let _simulated = Simulated::start(&server, directory.path(), 24, &site)?;
    for (folder, version) in [("v1", "1"), ("v2", "2")] {
        server.publish(&model_directory(folder), version)?;
        story::roll_out(&server, version).await?;
    }
    answers_with(&device, "2").await?;
    // The pages have something to show: requests, and an alert about the digits of one site.
    let application = tokio::spawn(ask_for_ever(device.caller(), Rows::drifted()?));
    story::drift_alert(&server.api()?, "site=osaka").await?;

    // What a device or an operator writes must stay text, whatever it says.
    let note = "note=<img src=x onerror=window.stolen=1>";
    server.ctl(&["device", "label", "cam-1", note])?;
    hostile_device(&server, directory.path()).await?;
    let password = directory.path().join("password");
    write(&password, "a quiet harbour at dawn")?;
    let password = password.display().to_string();
    let account = ["operator", "create", "kei", "--role", "viewer", "--without-totp"];
    server.ctl(&[&account[..], &["--password-file", &password]].concat())?;

    let link = server.login_link()?;
    let journeys = Command::new("npm")
        .args(["run", "--silent", "e2e"])
        .current_dir(root().join("fleet-server/console"))
        .env("SEALIFT_CONSOLE_URL", link)
        .env("SEALIFT_CHROMIUM", variable("SEALIFT_CHROMIUM")?)
        .env("SEALIFT_E2E_ROLLBACK", "1")
        .env("SEALIFT_E2E_HOSTILE", HOSTILE)
        .env("SEALIFT_E2E_DEVICE", "cam-1")
        .stdin(Stdio::null())
        .output()
        .await
        .context("cannot start npm")?;

    let printed = String::from_utf8_lossy(&journeys.stdout).into_owned();
    let complained = String::from_utf8_lossy(&journeys.stderr).into_owned();
    ensure!(journeys.status.success(), "{printed}\n{complained}");
    application.abort();
    // The browser's way back is the devices' own.
    answers_with(&device, "1").await
}

/// A device in foreign hands.
const HOSTILE: &str = "cam-evil";

/// Everything that a device can write which people read: facts, providers, events, reasons.
async fn hostile_device(server: &Server, directory: &Path) -> anyhow::Result<()> {
    const MARKUP: &str = "<img src=x onerror=window.stolen=1>";
    let mut wire = Wire::open(server, directory, HOSTILE).await?;
    let (at, generation, markup) = (UnixMillis(1), Generation(0), MARKUP.to_owned());
    let facts = Facts {
        os: markup.clone(),
        architecture: markup.clone(),
        runtime: markup.clone(),
        providers: vec![markup.clone()],
        ..Facts::default()
    };
    let birth = Birth {
        epoch: 1,
        agent: markup.clone(),
        facts,
        generation,
        slots: Vec::new(),
        endpoint: Some(format!("http://{MARKUP}")),
        at,
        trusted: None,
    };
    wire.say(Up::Birth, &birth).await?;
    let code = markup.clone();
    let severity = Severity::Security;
    let text = markup.clone();
    wire.say(Up::Event, &Event { code, severity, text, model: None, image: None, at }).await?;
    let refusal = Refusal { generation: None, code: markup.clone(), reason: markup };
    let refused = Some(refusal);
    let report = Report { generation, refused, slots: Vec::new(), at, trusted: None };
    wire.say(Up::Report, &report).await?;
    // It goes, so that the fleet in numbers stays as it is.
    let gone = codec::encode(&Conn { online: false, epoch: 1 })?;
    wire.send(Up::Conn, gone).await?;
    Ok(())
}

async fn ask_for_ever(caller: Caller, rows: Rows) {
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    for position in (0..).step_by(10) {
        ticks.tick().await;
        // Whether every request is answered is told by other stories.
        let _ = caller.infer(&rows.batch(position, 10)).await;
    }
}
