//! Foresees a rollout from what is known of its devices: who would not run the image and why, how many bytes, and when who is done.
//!
//! Checks of the devices themselves are repeated here with the same rules (`protocol::image`, `protocol::limits`), on what the devices
//! said last. The rest is a sequence of waves: a device begins when its wave is open, it is likely to be connected and its group has
//! room, and is done after download, warming up and probation.

use std::collections::BTreeMap;

use sealift_protocol::api::{DeviceProgress, ForecastBasis, ForecastPoint, ForecastRefusal};
use sealift_protocol::id::{DeviceId, Epoch, UnixMillis};
use sealift_protocol::image::{Accelerator, Host, Variant};
use sealift_protocol::limits::{DISK_RESERVE_BYTES, SCRATCH_BYTES};
use sealift_protocol::telemetry::Facts;

use super::budget::Slots;
use super::habits::Habits;
use super::{Fleet, Plan, Rollout, wave::rank};

/// Where no download was ever measured: a slow line rather than a fast one.
const SPEED_BYTES_S: u64 = 1 << 20;
/// Loading, warming up and the golden tests.
const WARMING_MS: i64 = 20_000;
/// Points that a curve is thinned to.
const POINTS_MAX: usize = 100;
/// Refusals that are named one by one.
const REFUSALS_MAX: usize = 1_000;

/// An image, as far as a device's choice depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    /// Its variants and their bytes; empty where nothing is known of them.
    pub variants: Vec<(Variant, u64)>,
    /// Its security epoch.
    pub epoch: Epoch,
}

/// What is known of a device besides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// What it is.
    pub facts: Option<Facts>,
    /// Bytes free on its disk.
    pub disk_free_bytes: Option<u64>,
    /// It has the image on disk.
    pub has_image: bool,
    /// It refuses images below.
    pub floor: Epoch,
    /// Bytes a second of its last downloads.
    pub speed_bytes_s: Option<u64>,
    /// When it is connected.
    pub habits: Option<Habits>,
}

/// What a device would do with the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Run it, after it has fetched so many bytes.
    Takes {
        /// How many.
        bytes: u64,
    },
    /// Not run it.
    Refuses {
        /// How it ends.
        progress: DeviceProgress,
        /// The code that it would give.
        code: &'static str,
        /// Why.
        reason: String,
    },
}

/// What is foreseen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rehearsal {
    /// Devices that would not run it; the first thousand.
    pub refusals: Vec<ForecastRefusal>,
    /// How many there are.
    pub refused: u64,
    /// Bytes in all.
    pub bytes: u64,
    /// Bytes of the device with the most.
    pub largest_bytes: u64,
    /// Devices that need no download.
    pub without_download: u64,
    /// When how many are done.
    pub curve: Vec<ForecastPoint>,
    /// How many are in the end.
    pub done: u64,
    /// Seconds until half, nine tenths and 99 of 100 of those are.
    pub done_after_s: Vec<u64>,
    /// What it rests on.
    pub basis: ForecastBasis,
}

/// What one device would do with the image, by the rules that it goes by itself.
pub fn fate(image: &Image, known: &Known) -> Fate {
    let refuses = |progress, code, reason| Fate::Refuses { progress, code, reason };
    if image.epoch < known.floor {
        let reason = format!(
            "security epoch {} is below the device's floor {}",
            image.epoch.0, known.floor.0
        );
        return refuses(DeviceProgress::Rejected, "image.epoch", reason);
    }
    if known.has_image {
        return Fate::Takes { bytes: 0 };
    }
    let Some(facts) = known.facts.as_ref().filter(|_| !image.variants.is_empty()) else {
        let largest = image.variants.iter().map(|(_, bytes)| *bytes).max();
        return Fate::Takes { bytes: largest.unwrap_or_default() };
    };
    let accelerators = accelerators(facts);
    let host = Host {
        os: &facts.os,
        architecture: &facts.architecture,
        memory_mb: facts.memory_mb,
        accelerators: &accelerators,
    };
    let Some((_, bytes)) = host.choose(&image.variants, |(variant, _)| variant) else {
        let reason = format!(
            "no variant is for {}/{} with {} MiB and {}",
            facts.os,
            facts.architecture,
            facts.memory_mb,
            accelerators.iter().map(|each| each.as_str()).collect::<Vec<_>>().join(", ")
        );
        return refuses(DeviceProgress::NotApplicable, "image.no-variant", reason);
    };
    let needed = bytes.saturating_add(SCRATCH_BYTES + DISK_RESERVE_BYTES);
    match known.disk_free_bytes {
        Some(free) if free < needed => {
            let reason = format!("{needed} bytes needed, {free} free");
            refuses(DeviceProgress::Rejected, "image.no-room", reason)
        }
        Some(_) | None => Fate::Takes { bytes: *bytes },
    }
}

/// What can compute on a device; a simulated one has a processor only.
fn accelerators(facts: &Facts) -> Vec<Accelerator> {
    if facts.simulated {
        return vec![Accelerator::Cpu];
    }
    Accelerator::of_providers(facts.providers.iter().map(String::as_str))
}

/// Foresees what would come of a rollout whose plan was just made.
pub fn rehearse(
    (rollout, plan, fleet): (&Rollout, &Plan, &Fleet),
    known: &BTreeMap<DeviceId, Known>,
    image: &Image,
    now: UnixMillis,
) -> Rehearsal {
    let unknown = Known::default();
    let mut rehearsal = Rehearsal::default();
    let mut takers: Vec<Taker<'_>> = Vec::new();
    for (id, position) in &plan.devices {
        let waits = matches!(position.progress, DeviceProgress::Queued | DeviceProgress::Offline);
        let Some(wave) = position.wave.filter(|_| waits) else { continue };
        let known = known.get(id).unwrap_or(&unknown);
        rehearsal.basis.devices += 1;
        rehearsal.basis.with_speed += u64::from(known.speed_bytes_s.is_some());
        rehearsal.basis.with_hours += u64::from(known.habits.is_some());
        rehearsal.basis.with_disk += u64::from(known.disk_free_bytes.is_some());
        match fate(image, known) {
            Fate::Takes { bytes } => {
                rehearsal.bytes = rehearsal.bytes.saturating_add(bytes);
                rehearsal.largest_bytes = rehearsal.largest_bytes.max(bytes);
                rehearsal.without_download += u64::from(known.has_image);
                let view = fleet.get(id);
                let is_online = view.is_some_and(|view| view.online_since.is_some());
                let group = view.map(|view| view.group.as_str()).unwrap_or_default();
                let rank = rank(rollout.id, id);
                takers.push(Taker { wave, rank, id, known, bytes, is_online, group });
            }
            Fate::Refuses { progress, code, reason } => {
                rehearsal.refused += 1;
                if rehearsal.refusals.len() < REFUSALS_MAX {
                    let (device, code) = (id.clone(), code.to_owned());
                    rehearsal.refusals.push(ForecastRefusal { device, progress, code, reason });
                }
            }
        }
    }
    takers.sort_unstable_by_key(|taker| (taker.wave, taker.rank, taker.id));
    let ends = ends(rollout, fleet, &takers, now);
    let begin = rollout.start_at.unwrap_or(now).max(now);
    finish(&mut rehearsal, &ends, begin);
    rehearsal
}

/// A device that would run the image.
struct Taker<'a> {
    wave: usize,
    rank: u64,
    id: &'a DeviceId,
    known: &'a Known,
    bytes: u64,
    is_online: bool,
    group: &'a str,
}

/// When each of them is done, wave by wave; those that are never expected to be connected are left out.
fn ends(
    rollout: &Rollout,
    fleet: &Fleet,
    takers: &[Taker<'_>],
    now: UnixMillis,
) -> Vec<UnixMillis> {
    let usual = usual_speed(takers);
    let groups = fleet.values().map(|view| view.group.as_str());
    let mut slots = rollout.budget.as_ref().map(|budget| Slots::new(budget, groups));
    let mut open = rollout.start_at.unwrap_or(now).max(now);
    let mut ends = Vec::with_capacity(takers.len());
    for (number, wave) in rollout.waves.iter().enumerate() {
        let mut last = open;
        for taker in takers.iter().filter(|taker| taker.wave == number) {
            let Some(from) = taker.connected(open, now) else { continue };
            let took = taker.takes_ms(usual) + rollout.shadow_ms + rollout.probation_ms;
            let begin = match &mut slots {
                Some(slots) => slots.take(taker.group, from, took),
                None => from,
            };
            let end = begin.plus(took);
            // A wave does not wait for those that are away.
            if taker.is_online {
                last = last.max(end);
            }
            ends.push(end);
        }
        open = last.plus(i64::from(wave.plan.soak_s) * 1_000);
    }
    ends
}

impl Taker<'_> {
    fn connected(&self, from: UnixMillis, now: UnixMillis) -> Option<UnixMillis> {
        match &self.known.habits {
            _ if self.is_online && from <= now => Some(from),
            Some(habits) => match habits.next_connected(from, now) {
                None if self.is_online => Some(from),
                expected => expected,
            },
            None => self.is_online.then_some(from),
        }
    }

    fn takes_ms(&self, usual: u64) -> i64 {
        let speed = self.known.speed_bytes_s.unwrap_or(usual).max(1);
        let download = i64::try_from(self.bytes.saturating_mul(1_000) / speed).unwrap_or(i64::MAX);
        download.saturating_add(WARMING_MS)
    }
}

/// The middle of what was measured.
fn usual_speed(takers: &[Taker<'_>]) -> u64 {
    let mut speeds: Vec<_> = takers.iter().filter_map(|taker| taker.known.speed_bytes_s).collect();
    speeds.sort_unstable();
    speeds.get(speeds.len() / 2).copied().unwrap_or(SPEED_BYTES_S)
}

fn finish(rehearsal: &mut Rehearsal, ends: &[UnixMillis], begin: UnixMillis) {
    let after = |end: &UnixMillis| u64::try_from(end.since(begin)).unwrap_or_default() / 1_000;
    let mut after: Vec<_> = ends.iter().map(after).collect();
    after.sort_unstable();
    rehearsal.done = count(after.len());
    let quantile = |percent: usize| {
        let rank = (after.len() * percent).div_ceil(100);
        rank.checked_sub(1).and_then(|rank| after.get(rank)).copied()
    };
    rehearsal.done_after_s = [50, 90, 99].into_iter().filter_map(quantile).collect();
    let step = after.len().div_ceil(POINTS_MAX).max(1);
    rehearsal.curve.push(ForecastPoint { after_s: 0, devices: 0 });
    let points = after.chunks(step).enumerate().filter_map(|(number, chunk)| {
        let devices = count(number * step + chunk.len());
        chunk.last().map(|&after_s| ForecastPoint { after_s, devices })
    });
    rehearsal.curve.extend(points);
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
