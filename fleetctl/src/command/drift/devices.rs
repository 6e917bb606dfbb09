//! `fleetctl drift devices`.

use sealift_protocol::api::{DeviceDriftView, DeviceNature};

use crate::output::{Output, note, word};

/// Prints a line for each thing that a device differs from, and one for a device that differs from nothing.
pub(super) fn list(output: Output, devices: Vec<DeviceDriftView>, all: bool) -> anyhow::Result<()> {
    let judged = devices.len();
    let is_shown = |view: &DeviceDriftView| all || view.nature != DeviceNature::Steady;
    let mut devices: Vec<_> = devices.into_iter().filter(is_shown).collect();
    devices.sort_by_key(|view| rank(view.nature));
    let rows = devices.iter().flat_map(lines);
    let columns = [
        "DEVICE",
        "MODEL",
        "VERSION",
        "COHORT",
        "NATURE",
        "DIFFERS FROM",
        "SUBJECT",
        "VALUE / LIMIT",
        "METRIC",
        "SINCE",
    ];
    output.rows(&devices, columns, rows)?;
    if devices.is_empty() {
        note(&format!("no device differs ({judged} were judged; --all shows them)"));
    }
    Ok(())
}

/// A sensor is what one device can be looked at for.
const fn rank(nature: DeviceNature) -> u8 {
    match nature {
        DeviceNature::Alone => 0,
        DeviceNature::Changed => 1,
        DeviceNature::Together => 2,
        DeviceNature::Steady => 3,
    }
}

fn lines(view: &DeviceDriftView) -> Vec<[String; 10]> {
    let line = |rest: [String; 5]| {
        let [against, subject, value, metric, since] = rest;
        [
            view.device.to_string(),
            view.model.to_string(),
            view.version.to_string(),
            view.cohort.clone(),
            word(view.nature),
            against,
            subject,
            value,
            metric,
            since,
        ]
    };
    if view.off.is_empty() {
        return vec![line([const { String::new() }; 5])];
    }
    let differs = view.off.iter().map(|off| {
        line([
            word(off.against),
            off.subject.clone(),
            format!("{:.3} / {:.3}", off.value, off.threshold),
            off.metric.clone(),
            off.since.to_string(),
        ])
    });
    differs.collect()
}
