//! `fleetctl device logs` and `fleetctl device diagnose`: what the device itself says.

use std::fmt::Write as _;

use sealift_protocol::api::LogsNew;
use sealift_protocol::id::DeviceId;
use sealift_protocol::request::{Diagnosis, LogLine, LogTail};
use serde_json::json;

use crate::client::Client;
use crate::output::{Output, note, or_dash, printable, table, word};

pub(super) async fn logs(
    client: &Client,
    output: Output,
    device: &DeviceId,
    wanted: &LogsNew,
) -> anyhow::Result<()> {
    let tail: LogTail = client.post(&format!("devices/{device}/logs"), wanted).await?;
    output.text(&tail, |tail| {
        let lines: Vec<_> = tail.lines.iter().map(line).collect();
        lines.join("\n")
    })?;
    if tail.lines.is_empty() {
        note(&format!("{device} has written nothing of that kind since its agent started"));
    }
    Ok(())
}

fn line(line: &LogLine) -> String {
    let LogLine { at, level, target, text } = line;
    printable(&format!("{at} {:<5} {target}: {text}", word(*level)))
}

pub(super) async fn diagnose(
    client: &Client,
    output: Output,
    device: &DeviceId,
) -> anyhow::Result<()> {
    let path = format!("devices/{device}/diagnose");
    let diagnosis: Diagnosis = client.post(&path, &json!({})).await?;
    output.text(&diagnosis, text)
}

fn text(diagnosis: &Diagnosis) -> String {
    let Diagnosis { facts, clock, trusted, .. } = diagnosis;
    let believed = if clock.is_trusted { "" } else { "; it cannot be right" };
    let mut text = format!(
        "agent        {}, up {} s\nsystem       {} {}, {} processors, {} MiB of memory\n\
         free         {} MiB of memory, {} MiB of disk\nclock        {}, {}{believed}\n\
         runtime      {}\ncertificate  {} days\nspool        {} messages wait, {} were dropped\n\
         trust        root {}, timestamp {}, snapshot {}, halt list {}\ndirectors    {}\n\
         endpoint     {}\nmay be asked {}\nrestarts     {} of workers\n",
        diagnosis.agent,
        diagnosis.uptime_s,
        facts.os,
        facts.architecture,
        facts.processors,
        facts.memory_mb,
        diagnosis.memory_free_mb,
        diagnosis.disk_free_mb,
        clock.now,
        clock.zone,
        or_dash(Some(&facts.runtime).filter(|runtime| !runtime.is_empty())),
        diagnosis.certificate_days,
        diagnosis.spooled,
        diagnosis.dropped,
        trusted.root,
        trusted.timestamp,
        trusted.snapshot,
        trusted.halt,
        diagnosis.directors.join(", "),
        or_dash(diagnosis.endpoint.as_ref()),
        diagnosis.remote_requests,
        diagnosis.restarts,
    );
    for gap in &facts.sandbox_gaps {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "sandbox      leaves open {gap}");
    }
    let text: Vec<_> = text.lines().map(printable).collect();
    let models = diagnosis.models.iter().map(|model| {
        let providers = model.providers.iter().map(|(name, nodes)| format!("{name}:{nodes}"));
        [
            model.model.to_string(),
            model.version.to_string(),
            model.requests.to_string(),
            model.errors.to_string(),
            model.latency_p95_us.to_string(),
            providers.collect::<Vec<_>>().join(","),
        ]
    });
    let columns = ["MODEL", "SERVES", "REQUESTS", "ERRORS", "P95 US", "PROVIDERS:NODES"];
    let models = table(columns, models);
    let troubles = diagnosis.troubles.iter();
    let troubles = troubles.map(|it| [it.at.to_string(), it.code.clone(), it.reason.clone()]);
    let troubles = table(["AT", "CODE", "WHAT IT HAS TOLD"], troubles);
    format!("{}\n\n{models}\n\n{troubles}", text.join("\n"))
}
