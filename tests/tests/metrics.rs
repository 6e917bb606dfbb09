//! What is in `packaging/prometheus` and `packaging/grafana` asks for metrics that server and agent have.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use reqwest::Method;
use sealift_tests::digits;
use sealift_tests::fleet::{Device, DeviceOptions, Options, Server};
use sealift_tests::needs::{onnxruntime, variable};
use sealift_tests::process::{free_port, root, write};
use sealift_tests::story::{self, SOON, TIMING};
use sealift_tests::wait::{Look, until};
use serde_json::{Value, json};

#[tokio::test]
async fn prometheus_rules_ask_for_metrics_that_exist() -> anyhow::Result<()> {
    let rules = fs::read_to_string(root().join("packaging/prometheus/sealift.rules.yaml"))?;
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &Options::default()).await?;
    let response = server.api()?.request(Method::GET, "/metrics").send().await?;

    let page = response.error_for_status()?.text().await?;

    let there: BTreeSet<_> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let asked: BTreeSet<_> = rules
        .split(|letter: char| !letter.is_ascii_lowercase() && letter != '_')
        .filter(|word| word.starts_with("sealift_"))
        .collect();
    assert!(asked.len() >= 3, "{asked:?}");
    assert!(asked.is_subset(&there), "asked for {asked:?}, there are {there:?}");
    Ok(())
}

#[test]
#[ignore = "needs promtool"]
fn rules_and_configuration_are_what_prometheus_takes() -> anyhow::Result<()> {
    let folder = root().join("packaging/prometheus");
    for arguments in [
        &["check", "rules", "sealift.rules.yaml"][..],
        &["test", "rules", "sealift.rules.test.yaml"],
        &["check", "config", "--syntax-only", "prometheus.yaml"],
    ] {
        let mut promtool = Command::new(variable("SEALIFT_PROMTOOL")?);
        let output = promtool.args(arguments).current_dir(&folder).output()?;
        ensure!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat())
        );
    }
    Ok(())
}

/// Debian's Prometheus; runs until it is dropped.
struct Prometheus {
    child: Child,
    url: String,
}

impl Prometheus {
    fn start(directory: &Path, server: &Server, agent: &str) -> anyhow::Result<Self> {
        let (config, token) = (directory.join("prometheus.yml"), directory.join("token"));
        write(&token, &server.token)?;
        let target = server.endpoints.operator_url.trim_start_matches("http://");
        let text = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n\
             - job_name: sealift\n  authorization: {{credentials_file: {}}}\n  \
             static_configs: [{{targets: ['{target}']}}]\n\
             - job_name: sealift-agents\n  static_configs: [{{targets: ['{agent}']}}]\n",
            token.display()
        );
        write(&config, &text)?;
        let port = free_port()?;
        let log = fs::File::create(directory.join("prometheus.log"))?;
        let child = Command::new(variable("SEALIFT_PROMETHEUS")?)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("tsdb").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .spawn()
            .context("cannot start Prometheus")?;
        Ok(Self { child, url: format!("http://127.0.0.1:{port}") })
    }

    /// Waits until a query has a series.
    async fn answers(&self, query: &str) -> anyhow::Result<()> {
        until(&format!("`{query}` has a series"), SOON, || async {
            let mut url = reqwest::Url::parse(&format!("{}/api/v1/query", self.url))?;
            url.query_pairs_mut().append_pair("query", query);
            let answer: Value = reqwest::get(url).await?.json().await?;
            let series = answer["data"]["result"].as_array().map_or(0, Vec::len);
            Ok(if series > 0 { Look::Done(()) } else { Look::NotYet(answer.to_string()) })
        })
        .await
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every query of the dashboards.
fn queries() -> anyhow::Result<Vec<String>> {
    let mut queries = Vec::new();
    for name in ["sealift-fleet.json", "sealift-agents.json"] {
        let text = fs::read_to_string(root().join("packaging/grafana").join(name))?;
        let board: Value = serde_json::from_str(&text)?;
        for panel in board["panels"].as_array().context("panels")? {
            let targets = panel["targets"].as_array().context("targets")?;
            queries.extend(targets.iter().filter_map(|it| it["expr"].as_str().map(str::to_owned)));
        }
    }
    Ok(queries)
}

#[tokio::test]
#[ignore = "needs prometheus and ONNX Runtime"]
async fn every_query_of_the_dashboards_has_a_series() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory.path(), &options).await?;
    let options = DeviceOptions {
        labels: Vec::new(),
        onnxruntime: Some(onnxruntime()?),
        extra: String::new(),
    };
    let device = Device::start(&server, directory.path(), "cam-1", &options).await?;
    server.publish(&digits::directory("v1"), "1")?;
    story::roll_out(&server, "1").await?;
    story::ask(&device, 50).await?;
    let hook = json!({"kind": "webhook", "url": "https://hooks.example/"});
    let hook = json!({"name": "ops", "destination": hook});
    let _: Value = server.api()?.post("channels", &hook).await?;
    let view = server.api()?.device(&device.id).await?;
    let endpoint = view.endpoint.context("an endpoint")?;
    let agent = endpoint.trim_start_matches("http://").trim_end_matches('/');
    let prometheus = Prometheus::start(directory.path(), &server, agent)?;

    for query in queries()? {
        prometheus.answers(&query).await?;
    }

    let targets: Vec<Value> = server.api()?.get("prometheus/targets").await?;
    ensure!(targets.is_empty(), "an agent on loopback is nobody else's target: {targets:?}");
    Ok(())
}
