//! How many devices begin at once. A rollout to a whole fleet would otherwise have all of it fetch an image in the same second, from one
//! server that has other things to do.

use sealift_protocol::api::DeviceProgress;
use sealift_protocol::id::UnixMillis;

use super::{Fleet, Plan, Rollout};

/// Devices that are starting, which were told lately and have not come to serve: about two seconds of handshakes and small files for one server.
const STARTING_MAX: usize = 500;

/// Who was told longer ago waits for something else, such as a slow link or a window, and keeps nobody back.
const LATELY_MS: i64 = 30_000;

/// How many more devices may be told now. All of them where a rollout takes back: they have the image, and it is urgent.
pub fn room(rollout: &Rollout, fleet: &Fleet, plan: &Plan, now: UnixMillis) -> usize {
    if rollout.is_rollback {
        return usize::MAX;
    }
    let was_told_lately = |device| {
        let told = fleet.get(device).and_then(|device| device.told.as_ref());
        told.is_some_and(|told| now.since(told.at) < LATELY_MS)
    };
    let is_starting = |progress| match progress {
        DeviceProgress::Offered | DeviceProgress::InProgress => true,
        DeviceProgress::Queued
        | DeviceProgress::Probation
        | DeviceProgress::Succeeded
        | DeviceProgress::Failed
        | DeviceProgress::Rejected
        | DeviceProgress::NotApplicable
        | DeviceProgress::RolledBack
        | DeviceProgress::Silent
        | DeviceProgress::Offline
        | DeviceProgress::Superseded => false,
    };
    let starting = plan
        .devices
        .iter()
        .filter(|(device, position)| is_starting(position.progress) && was_told_lately(device))
        .count();
    STARTING_MAX.saturating_sub(starting)
}
