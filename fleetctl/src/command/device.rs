//! `fleetctl device`.

use std::collections::BTreeMap;

use anyhow::bail;
use sealift_protocol::api::{
    DeviceForget, DeviceForgotten, DeviceRevoke, DeviceView, LabelsChange, LogsNew, SlotView,
    TimelineEntry,
};
use sealift_protocol::id::{DeviceId, UnixMillis};
use sealift_protocol::report::{Halted, Hold, Outcome, ShadowCounts, Shadowed};

mod ask;

use super::labels;
use crate::cli::Device;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::{Output, confirm, note, or_dash, table, word};

pub(crate) async fn run(client: &Client, output: Output, device: Device) -> anyhow::Result<()> {
    match device {
        Device::List { filter } => list(client, output, &filter).await,
        Device::Get { device } => {
            let view: DeviceView = client.get(&format!("devices/{device}"), &[]).await?;
            output.text(&view, text)
        }
        Device::Label { device, changes } => label(client, output, &device, &changes).await,
        Device::Timeline { device } => timeline(client, output, &device).await,
        Device::Forget { device, reason, yes } => {
            if !yes && !confirm(&format!("delete all that {device} has sent?"))? {
                return Err(Failure::new(Exit::Declined, "nothing was deleted")
                    .help("--yes deletes without asking")
                    .into());
            }
            let path = format!("devices/{device}/forget");
            let gone: DeviceForgotten = client.post(&path, &DeviceForget { reason }).await?;
            output.text(&gone, forgotten)
        }
        Device::Logs { device, lines, since, level } => {
            let since = since.map(|since| UnixMillis(since.as_millisecond()));
            let wanted = LogsNew { lines: Some(lines), since, level: Some(level.into()) };
            ask::logs(client, output, &device, &wanted).await
        }
        Device::Diagnose { device } => ask::diagnose(client, output, &device).await,
        Device::Revoke { device, reason } => {
            let path = format!("devices/{device}/revoke");
            let view: DeviceView = client.post(&path, &DeviceRevoke { reason }).await?;
            output.text(&view, text)
        }
    }
}

fn forgotten(gone: &DeviceForgotten) -> String {
    let DeviceForgotten { windows, spans, events, samples, batches } = gone;
    format!(
        "deleted: {windows} windows, {spans} hours and days, {events} events, {samples} samples, \
         predictions of {batches} batches\n"
    )
}

async fn list(client: &Client, output: Output, filter: &str) -> anyhow::Result<()> {
    let devices: Vec<DeviceView> = client.list("devices", &[("filter", filter)]).await?;
    let rows = devices.iter().map(|device| {
        let slots: Vec<_> = device.slots.iter().map(slot).collect();
        [
            device.id.to_string(),
            word(device.state),
            labels(&device.labels),
            slots.join(", "),
            or_dash(device.seen_at),
        ]
    });
    output.rows(&devices, ["DEVICE", "STATE", "LABELS", "MODELS", "SEEN"], rows)
}

/// `vision/digits@1 -> 2 (downloading)`
fn slot(slot: &SlotView) -> String {
    let serving = or_dash(slot.serving.as_ref());
    let arrow = match &slot.desired {
        Some(desired) if slot.desired != slot.serving => format!(" -> {desired}"),
        Some(_) | None => String::new(),
    };
    let phase = slot.phase.map(|phase| format!(" ({})", word(phase))).unwrap_or_default();
    format!("{}@{serving}{arrow}{phase}", slot.model)
}

fn text(device: &DeviceView) -> String {
    let head = format!(
        "device       {}\nstate        {}\nlabels       {}\nseen         {}\nagent        {}\n\
         endpoint     {}\ncertificate  {} until {}\ngeneration   desired {}, reported {}\n",
        device.id,
        word(device.state),
        labels(&device.labels),
        or_dash(device.seen_at),
        or_dash(device.agent.as_ref()),
        or_dash(device.endpoint.as_ref()),
        or_dash(Some(&device.certificate_serial).filter(|serial| !serial.is_empty())),
        device.certificate_expires_at,
        device.desired_generation,
        device.reported_generation,
    );
    let rows = device.slots.iter().map(|slot| {
        let digest = slot.serving_digest.map(|digest| digest.short());
        let outcome = slot.outcome.as_ref().map(|outcome| {
            let late = if outcome.is_late() { " late" } else { "" };
            let Outcome { result, image, reason, .. } = outcome;
            format!("{}{late}@{} {reason}", word(*result), image.version)
        });
        let providers: Vec<_> =
            slot.providers.iter().map(|(name, nodes)| format!("{name}:{nodes}")).collect();
        [
            slot.model.to_string(),
            or_dash(slot.desired.as_ref()),
            or_dash(slot.serving.as_ref()),
            or_dash(digest),
            or_dash(slot.phase.map(word)),
            or_dash(outcome),
            providers.join(","),
        ]
    });
    let columns =
        ["MODEL", "DESIRED", "SERVING", "DIGEST", "PHASE", "LAST ATTEMPT", "PROVIDERS:NODES"];
    let owner_says = |slot: &SlotView| {
        let Hold { until, reason } = slot.held.as_ref()?;
        let model = &slot.model;
        Some(format!("{model} is held by the device's owner until {until}: {reason}\n"))
    };
    let owners: String = device.slots.iter().filter_map(owner_says).collect();
    let operators_say = |slot: &SlotView| {
        let Halted { since, reason } = slot.halted.as_ref()?;
        let model = &slot.model;
        Some(format!("{model} waits, all rollouts are halted since {since}: {reason}\n"))
    };
    let operators: String = device.slots.iter().filter_map(operators_say).collect();
    let shadows: String = device.slots.iter().filter_map(shadow).collect();
    format!("{head}\n{}{owners}{operators}{shadows}", table(columns, rows))
}

/// How the last image compares that was tried beside the live one.
fn shadow(slot: &SlotView) -> Option<String> {
    let Shadowed { image, live, counts, .. } = slot.shadow.as_ref()?;
    let ShadowCounts { rows, agreed, failed, skipped, answered, .. } = *counts;
    let share = counts.agreement().map(|share| format!(" ({:.1} %)", 100.0 * share));
    let took =
        counts.mean_us().map(|(live, new)| format!("; {new} µs in the engine, {live} µs before"));
    Some(format!(
        "{} {} beside {}: agrees on {agreed} of {rows} rows{}{}; {skipped} requests skipped, {failed} failed, {answered} answered\n",
        slot.model,
        image.version,
        live.version,
        share.unwrap_or_default(),
        took.unwrap_or_default(),
    ))
}

async fn label(
    client: &Client,
    output: Output,
    device: &DeviceId,
    changes: &[String],
) -> anyhow::Result<()> {
    let mut labels = BTreeMap::new();
    for change in changes {
        if let Some((key, value)) = change.split_once('=') {
            labels.insert(key.to_owned(), Some(value.to_owned()));
        } else if let Some(key) = change.strip_suffix('-') {
            labels.insert(key.to_owned(), None);
        } else {
            bail!("`{change}` is neither `key=value` nor `key-`");
        }
    }
    let path = format!("devices/{device}/labels");
    let view: DeviceView = client.patch(&path, &LabelsChange { labels }).await?;
    output.text(&view, |view| super::labels(&view.labels))
}

async fn timeline(client: &Client, output: Output, device: &DeviceId) -> anyhow::Result<()> {
    let path = format!("devices/{device}/timeline");
    let entries: Vec<TimelineEntry> = client.list(&path, &[]).await?;
    let rows = entries.iter().map(|entry| {
        [
            entry.at.to_string(),
            entry.kind.clone(),
            entry.severity.clone(),
            entry.code.clone(),
            entry.text.clone(),
        ]
    });
    output.rows(&entries, ["AT", "KIND", "SEVERITY", "CODE", "WHAT"], rows)?;
    if entries.is_empty() {
        note(&format!("nothing has been heard of {device} yet"));
    }
    Ok(())
}
