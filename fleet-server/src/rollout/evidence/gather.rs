//! From what came since the last look to what is compared: which devices are canaries, which are controls, and what each did.
//!
//! A device that sends profile windows is read by them: they say which image answered. Of others only the counters of their heartbeats
//! are known, which begin anew with the agent.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::id::{DeviceId, UnixMillis};
use sealift_protocol::profile::Profile;
use sealift_protocol::report::Shadowed;
use sealift_protocol::telemetry::ProfileWindow;
use serde::{Deserialize, Serialize};

use super::reading::REQUESTS_MIN;
use super::{CONTROLS_MIN, Evidence, Look, Past, Reading, Rules};
use crate::rollout::{DeviceView, Fleet, Rollout, Served, since, wave::rank};

/// Controls that are looked at: more of them would add cost, and hardly any certainty.
const CONTROLS_MAX: usize = 100;
/// Canaries of one wave that are looked at.
const CANARIES_MAX: usize = 200;
/// Time between two looks: many small looks say less than few with something in them.
const LOOK_MS: i64 = 5_000;

/// A window that came.
#[derive(Debug, Clone)]
pub struct Came {
    /// From whom.
    pub device: DeviceId,
    /// The window.
    pub window: ProfileWindow,
}

/// Everything that is kept of a rollout between two looks.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Observation {
    /// The last window that was read.
    pub cursor: u64,
    /// When somebody looked.
    pub looked_at: UnixMillis,
    /// By wave.
    pub waves: Vec<Evidence>,
    /// Counters when they were last read.
    #[serde(default)]
    counters: BTreeMap<DeviceId, (u64, u64)>,
    /// Devices that send windows.
    #[serde(default)]
    windowed: BTreeSet<DeviceId>,
}

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// The rollout.
    pub rollout: &'a Rollout,
    /// Its devices.
    pub fleet: &'a Fleet,
    /// Who of them is compared with whom.
    pub roles: &'a Roles,
}

/// Who is compared with whom.
#[derive(Debug, Default)]
pub struct Roles {
    /// Canaries by wave.
    canaries: BTreeMap<usize, BTreeSet<DeviceId>>,
    controls: BTreeSet<DeviceId>,
}

impl Observation {
    /// An observation that begins behind a window.
    pub fn begin(cursor: u64, now: UnixMillis) -> Self {
        Self { cursor, looked_at: now, ..Self::default() }
    }

    /// Passes over what devices have counted beside live images before it began.
    pub fn pass_over(&mut self, rollout: &Rollout, fleet: &Fleet) {
        self.waves.resize_with(rollout.waves.len(), Evidence::default);
        for (wave, told) in shadows(rollout, fleet) {
            if let Some(evidence) = self.waves.get_mut(wave) {
                evidence.pass_over(&told);
            }
        }
    }

    /// Whether it is time to look again.
    pub const fn is_due(&self, now: UnixMillis) -> bool {
        now.since(self.looked_at) >= LOOK_MS
    }

    /// Takes everything that came since the last look.
    pub fn look(&mut self, scene: Scene<'_>, came: &[Came], now: UnixMillis) {
        let Scene { rollout, fleet, roles } = scene;
        self.waves.resize_with(rollout.waves.len(), Evidence::default);
        self.looked_at = now;
        for (wave, told) in shadows(rollout, fleet) {
            let of_wave = (self.waves.get_mut(wave), rollout.waves.get(wave));
            if let (Some(evidence), Some(wave)) = of_wave {
                let gates = &wave.plan.gates;
                evidence.look_beside(&told, Rules { gates, waves: rollout.waves.len() });
            }
        }
        let mut readings = self.windows(scene, came);
        self.beats(fleet, roles, &mut readings);
        let mut take = |devices: &BTreeSet<DeviceId>| -> BTreeMap<DeviceId, Reading> {
            let of = |device: &DeviceId| Some((device.clone(), readings.remove(device)?));
            devices.iter().filter_map(of).collect()
        };
        let controls = take(&roles.controls);
        for (&wave, devices) in &roles.canaries {
            let look = Look { canaries: take(devices), controls: controls.clone() };
            let of_wave = (self.waves.get_mut(wave), rollout.waves.get(wave));
            if let (Some(evidence), Some(wave)) = of_wave {
                let gates = &wave.plan.gates;
                evidence.look(&look, Rules { gates, waves: rollout.waves.len() });
            }
        }
    }

    /// Waves whose canaries must be compared with their own past, and those canaries.
    pub fn wanting_past<'a>(
        &'a self,
        roles: &'a Roles,
    ) -> impl Iterator<Item = (usize, &'a BTreeSet<DeviceId>)> {
        let has_none =
            move |wave: &usize| self.waves.get(*wave).is_none_or(|evidence| !evidence.has_past());
        let is_few = roles.controls.len() < CONTROLS_MIN;
        let waves = roles.canaries.iter().filter(move |(wave, _)| is_few && has_none(wave));
        waves.map(|(&wave, devices)| (wave, devices))
    }

    /// Sets what the canaries of a wave did before they were told.
    pub fn set_past(&mut self, wave: usize, came: &[Came]) {
        let reading = |came: &Came| Some((came.device.clone(), read(&came.window)?));
        let past = Past::of(&came.iter().filter_map(reading).collect::<Vec<_>>());
        if self.waves.len() <= wave {
            self.waves.resize_with(wave + 1, Evidence::default);
        }
        if let Some(evidence) = self.waves.get_mut(wave) {
            evidence.set_past(past);
        }
    }

    fn windows(
        &mut self,
        Scene { rollout, fleet, roles }: Scene<'_>,
        came: &[Came],
    ) -> BTreeMap<DeviceId, Reading> {
        let mut readings: BTreeMap<DeviceId, Reading> = BTreeMap::new();
        for Came { device, window } in came {
            let is_new = window.image.index == rollout.image;
            let is_told = fleet.get(device).is_some_and(|view| view.told.is_some());
            // A canary that still answers with the old image, or a device that was told in between, belongs to neither.
            if is_new != is_told || !roles.has(device) {
                continue;
            }
            self.windowed.insert(device.clone());
            let Ok(profile) = Profile::decode(&window.profile) else { continue };
            readings.entry(device.clone()).or_default().add_window(&profile, window.errors);
        }
        readings
    }

    fn beats(&mut self, fleet: &Fleet, roles: &Roles, readings: &mut BTreeMap<DeviceId, Reading>) {
        self.counters.retain(|device, _| roles.has(device));
        for device in roles.all().filter(|device| !self.windowed.contains(*device)) {
            let Some(view) = fleet.get(device) else { continue };
            let now = (view.served.requests, view.served.errors);
            let Some(before) = self.counters.get(device).copied() else {
                self.counters.insert(device.clone(), now);
                continue;
            };
            let before = Served { requests: before.0, errors: before.1 };
            let Served { requests, errors } = since(before, view.served);
            if requests.saturating_add(errors) >= REQUESTS_MIN {
                readings.insert(device.clone(), Reading::counted(requests, errors));
                self.counters.insert(device.clone(), now);
            }
        }
    }
}

impl Roles {
    /// Who is compared with whom now. Who is left out where there are too many is a hash.
    pub fn of(rollout: &Rollout, fleet: &Fleet) -> Self {
        let (mut canaries, mut controls) = (BTreeMap::<_, Vec<_>>::new(), Vec::new());
        for (id, device) in fleet {
            let place = (rank(rollout.id, id), id);
            match device.told {
                Some(told) if serves(rollout, device) => {
                    canaries.entry(told.wave).or_default().push(place);
                }
                // Those who would be told last are controls for longest.
                None if !has_to_do_with(rollout, device) => controls.push(Reverse(place)),
                Some(_) | None => (),
            }
        }
        let of_wave = |(wave, mut found): (usize, Vec<(u64, &DeviceId)>)| {
            found.sort_unstable();
            (wave, found.into_iter().take(CANARIES_MAX).map(|(_, id)| id.clone()).collect())
        };
        controls.sort_unstable();
        let controls = controls.into_iter().take(CONTROLS_MAX);
        Self {
            canaries: canaries.into_iter().map(of_wave).collect(),
            controls: controls.map(|Reverse((_, id))| id.clone()).collect(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &DeviceId> {
        self.canaries.values().flatten().chain(&self.controls)
    }

    fn has(&self, device: &DeviceId) -> bool {
        self.controls.contains(device) || self.canaries.values().any(|wave| wave.contains(device))
    }
}

/// What devices have counted of the new image beside the live one, by wave. Who is left out where there are too many is a hash.
fn shadows<'a>(
    rollout: &Rollout,
    fleet: &'a Fleet,
) -> BTreeMap<usize, BTreeMap<DeviceId, &'a Shadowed>> {
    let mut found: BTreeMap<usize, Vec<_>> = BTreeMap::new();
    for (id, device) in fleet {
        let shadow = device.slot.as_ref().and_then(|slot| slot.shadow.as_ref());
        let shadow = shadow.filter(|shadow| shadow.image.index == rollout.image);
        // What somebody has excused counts no more.
        let told = device.told.filter(|told| !told.is_excused);
        if let (Some(shadow), Some(told)) = (shadow, told) {
            found.entry(told.wave).or_default().push((rank(rollout.id, id), id, shadow));
        }
    }
    let of_wave = |(wave, mut found): (usize, Vec<(u64, &DeviceId, &'a Shadowed)>)| {
        found.sort_unstable_by_key(|(rank, id, _)| (*rank, *id));
        let first = found.into_iter().take(CANARIES_MAX);
        (wave, first.map(|(_, id, shadow)| (id.clone(), shadow)).collect())
    };
    found.into_iter().map(of_wave).collect()
}

fn serves(rollout: &Rollout, device: &DeviceView) -> bool {
    device.slot.as_ref().is_some_and(|slot| slot.serving == Some(rollout.image))
}

fn has_to_do_with(rollout: &Rollout, device: &DeviceView) -> bool {
    let should = device.desired.as_ref().is_some_and(|desired| desired.image == rollout.image);
    should || serves(rollout, device)
}

fn read(window: &ProfileWindow) -> Option<Reading> {
    let mut reading = Reading::default();
    reading.add_window(&Profile::decode(&window.profile).ok()?, window.errors);
    Some(reading)
}

#[cfg(test)]
mod tests;
