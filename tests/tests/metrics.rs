//! The examples in `packaging/prometheus` ask for metrics that the server has.

use std::collections::BTreeSet;
use std::fs;

use reqwest::Method;
use sealift_tests::fleet::{Options, Server};
use sealift_tests::process::root;

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
