//! What the server exports is understood by a collector that others have written the messages of.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, ensure};
use sealift_tests::fleet::{Options, Server};
use sealift_tests::needs::variable;
use sealift_tests::process::{root, write};
use serde_json::Value;

/// Requests of the process itself come in between; then the counter has something to show.
const EXPORTS_MAX: usize = 30;

/// Runs until it is dropped.
struct Collector {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Collector {
    fn start() -> anyhow::Result<(Self, u16)> {
        let mut child = Command::new(variable("SEALIFT_DRIFT_PYTHON")?)
            .arg(root().join("tests/otlp/receiver.py"))
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start Python")?;
        let stdout = child.stdout.take().context("its output")?;
        let mut collector = Self { child, lines: BufReader::new(stdout).lines() };
        let port = collector.line()?.parse()?;
        Ok((collector, port))
    }

    fn line(&mut self) -> anyhow::Result<String> {
        Ok(self.lines.next().context("the collector has ended")??)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
#[ignore = "needs drift detectors"]
async fn a_collector_understands_what_the_server_exports() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (mut collector, port) = Collector::start()?;
    let headers = directory.path().join("otlp.headers");
    write(&headers, "authorization: Bearer s3cret\n")?;
    let extra = format!(
        "[otlp]\nendpoint = 'http://127.0.0.1:{port}'\nheaders_file = '{}'\ninterval_s = 1\n",
        headers.display()
    );
    let server = Server::start(directory.path(), &Options { extra, ..Options::default() }).await?;
    let _: Value = server.api()?.get("status").await?;

    let mut counted = None;
    for _ in 0..EXPORTS_MAX {
        let seen: Value = serde_json::from_str(&collector.line()?)?;
        ensure!(seen["path"] == "/v1/metrics" && seen["token"] == "Bearer s3cret", "{seen}");
        ensure!(seen["resource"]["service.name"] == "sealift-fleet-server", "{seen}");
        ensure!(seen["metrics"]["sealift_devices"]["kind"] == "gauge", "{seen}");
        let requests = &seen["metrics"]["sealift_http_requests"];
        if requests["kind"] == "counter" {
            counted = Some(requests.clone());
            break;
        }
    }

    let counted = counted.context("no counter of requests came")?;
    let point = &counted["points"][0];
    ensure!(point["value"].as_f64() > Some(0.0), "{counted}");
    ensure!(point["labels"]["status"] == "200", "{counted}");
    ensure!(point["from"].as_u64() < point["at"].as_u64(), "{counted}");
    Ok(())
}
