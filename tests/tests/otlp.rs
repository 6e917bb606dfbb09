//! What server and agent export is understood by a collector that others have written the messages of.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, ensure};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use sealift_tests::digits::{MODEL, directory as model_directory};
use sealift_tests::fleet::{Device, DeviceOptions, Options, Server};
use sealift_tests::needs::variable;
use sealift_tests::process::{root, write};
use sealift_tests::story::{TIMING, ask, roll_out};
use serde_json::Value;

/// Requests of the process itself come in between; then the counter has something to show.
const EXPORTS_MAX: usize = 30;
/// A device exports every second; a rollout to it takes minutes on a busy machine.
const EXPORTS_OF_DEVICE_MAX: usize = 600;

/// Runs until it is dropped.
struct Collector {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Collector {
    /// With a certificate and its key over TLS, else without.
    fn start(tls: &[&Path]) -> anyhow::Result<(Self, u16)> {
        let mut child = Command::new(variable("SEALIFT_DRIFT_PYTHON")?)
            .arg(root().join("tests/otlp/receiver.py"))
            .args(tls)
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
    let (mut collector, port) = Collector::start(&[])?;
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

/// The certificate of a collector on this machine, and of its authority, with the key, as files of these names.
fn certify(ca: &Path, certificate: &Path, key: &Path) -> anyhow::Result<()> {
    let mut of_authority = CertificateParams::default();
    of_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key_of_authority = KeyPair::generate()?;
    write(ca, &of_authority.self_signed(&key_of_authority)?.pem())?;
    let authority = Issuer::new(of_authority, key_of_authority);
    let own = KeyPair::generate()?;
    let signed = CertificateParams::new(["localhost".to_owned()])?.signed_by(&own, &authority)?;
    write(certificate, &signed.pem())?;
    write(key, &own.serialize_pem())
}

#[tokio::test]
#[ignore = "needs drift detectors"]
async fn a_collector_over_tls_understands_what_a_device_exports() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let file = |name: &str| directory.path().join(name);
    let [ca, certificate, key] = ["ca.pem", "collector.pem", "collector-key.pem"].map(file);
    certify(&ca, &certificate, &key)?;
    let (mut collector, port) = Collector::start(&[&certificate, &key])?;
    let headers = file("otlp.headers");
    write(&headers, "authorization: Bearer s3cret\n")?;
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory.path(), &options).await?;
    let extra = format!(
        "otlp = {{ endpoint = 'https://localhost:{port}', ca = '{}', headers_file = '{}', \
         interval_s = 1, attributes = {{ site = 'osaka' }} }}\n",
        ca.display(),
        headers.display(),
    );
    let options = DeviceOptions { labels: Vec::new(), onnxruntime: None, extra };
    let device = Device::start(&server, directory.path(), "cam-1", &options).await?;
    server.publish(&model_directory("v1"), "1")?;
    roll_out(&server, "1").await?;
    ask(&device, 5).await?;

    // What was printed before the rollout comes first.
    let mut counted = None;
    for _ in 0..EXPORTS_OF_DEVICE_MAX {
        let seen: Value = serde_json::from_str(&collector.line()?)?;
        ensure!(seen["path"] == "/v1/metrics" && seen["token"] == "Bearer s3cret", "{seen}");
        let about = &seen["resource"];
        ensure!(about["service.name"] == "sealift-agent" && about["site"] == "osaka", "{seen}");
        ensure!(about["sealift.device"] == "cam-1", "{seen}");
        let requests = &seen["metrics"]["sealift_model_requests"];
        let point = &requests["points"][0];
        if point["value"].as_f64() >= Some(5.0) {
            ensure!(requests["kind"] == "counter" && point["labels"]["model"] == MODEL, "{seen}");
            ensure!(point["labels"]["version"] == "1", "{seen}");
            ensure!(seen["metrics"]["sealift_model_info"]["kind"] == "gauge", "{seen}");
            counted = Some(point.clone());
            break;
        }
    }

    let point = counted.context("requests of the model were counted")?;
    ensure!(point["from"].as_u64() < point["at"].as_u64(), "{point}");
    Ok(())
}
