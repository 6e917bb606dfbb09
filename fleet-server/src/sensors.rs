//! Tells a device that is off by itself from a cohort that has changed. Windows in, standings out; pure.
//!
//! ```text
//!  a device's windows ──end of a round──▶ newest 4 ──┬─ against the other devices of its cohort, in the same time
//!                                           │        ├─ against its own past: what it saw before those 4
//!                                           ▼        └─ against the reference
//!                                          past                    │
//!                                                                  ▼
//!                     alone (a sensor) · together (the world, or the image) · changed (nobody to compare it with)
//! ```
//! One device off its cohort is a sensor. A device that differs from the reference as all of its cohort do is none.
//!
//! No two devices see quite the same. With enough rows each difference between them is certain, so one that makes a device stand out has
//! to be several times what is usual in its cohort, too.

mod judged;
mod packed;

use std::collections::{BTreeMap, BTreeSet};

pub use sealift_protocol::api::{ComparedWith, DeviceNature};
use sealift_protocol::id::{DeviceId, UnixMillis};
use sealift_protocol::profile::{Baseline, Mismatch, Profile};

use self::judged::{Judged, Lot, Name, Usual, judge_lots};
use self::packed::Packed;
use crate::drift::{DriftState, Policy, Scope, Verdict, Window};

/// Devices of one image that are looked at one by one: with 64 features and the windows that are kept, 60 KB each.
pub const DEVICES_MAX: usize = 2_000;
/// Windows of a device that are looked at, alone and together.
const WINDOWS_MAX: usize = 4;
/// Other devices of a cohort below which nobody can say which of them is off.
const PEERS_MIN: usize = 3;
/// Windows that make a past.
const PAST_WINDOWS_MIN: u64 = 4;
/// Rounds without a window after which a device is not counted any more: it is off, or serves something else.
const SILENT_ROUNDS: i64 = 20;

/// The devices that serve one image.
#[derive(Debug, Default)]
pub struct Sensors {
    devices: BTreeMap<DeviceId, Sensor>,
    /// How far devices of a cohort usually are from the others.
    usual: BTreeMap<Scope, Usual>,
    /// The order of the distances of every device.
    names: Vec<Name>,
    /// Whether devices were left out, as there are too many.
    is_full: bool,
}

/// Where a device stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing<'a> {
    /// The device.
    pub device: &'a DeviceId,
    /// Whom it is compared with.
    pub cohort: &'a Scope,
    /// What is to be thought of it.
    pub nature: DeviceNature,
    /// Of each comparison in which it differs, the verdict that says most.
    pub off: Vec<(ComparedWith, &'a Verdict)>,
    /// Whether it has a past to be compared with.
    pub has_past: bool,
    /// Rows of its newest window.
    pub rows: u64,
    /// Rows that were passed over in it.
    pub skipped: u64,
    /// When that ended.
    pub until: UnixMillis,
}

impl Standing<'_> {
    /// The verdict of a comparison, if the device differs in it.
    pub fn against(&self, compared: ComparedWith) -> Option<&Verdict> {
        self.off.iter().find(|(one, _)| *one == compared).map(|(_, verdict)| *verdict)
    }

    /// Whether it differs from anything.
    pub fn is_off(&self) -> bool {
        !self.off.is_empty()
    }
}

/// One device.
#[derive(Debug)]
struct Sensor {
    cohort: Scope,
    pending: Option<Packed>,
    /// Oldest first.
    windows: Vec<Packed>,
    past: Option<Packed>,
    past_windows: u64,
    /// Whether a window came in this round.
    is_fresh: bool,
    is_judged: bool,
    has_peers: bool,
    /// Of each comparison what differs, most first.
    suspected: BTreeMap<ComparedWith, Vec<Verdict>>,
    /// How far it is from its cohort.
    distances: Vec<f64>,
}

impl Sensors {
    /// Takes the rows of a device, which is compared with `cohort`. Returns whether devices are left out from now on, once.
    pub fn take(
        &mut self,
        device: &DeviceId,
        cohort: &Scope,
        taken: &Window,
    ) -> Result<bool, Mismatch> {
        if self.devices.len() >= DEVICES_MAX && !self.devices.contains_key(device) {
            return Ok(!std::mem::replace(&mut self.is_full, true));
        }
        let sensor =
            self.devices.entry(device.clone()).or_insert_with(|| Sensor::new(cohort.clone()));
        sensor.cohort = cohort.clone();
        sensor.take(taken)?;
        Ok(false)
    }

    /// Ends a round: makes windows of what is enough for one, and judges the devices that have a new one.
    pub fn end_round(
        &mut self,
        baseline: &Baseline,
        policy: &Policy,
        (now, round_ms): (UnixMillis, i64),
    ) -> Result<(), Mismatch> {
        let oldest = now.plus(-round_ms.saturating_mul(SILENT_ROUNDS));
        self.devices.retain(|_, sensor| sensor.is_heard_since(oldest));
        self.is_full &= self.devices.len() >= DEVICES_MAX;
        for sensor in self.devices.values_mut() {
            sensor.end_round(policy.rows_min)?;
        }
        if self.devices.values().all(|sensor| !sensor.is_fresh) {
            return Ok(());
        }
        self.against_cohorts(baseline, policy)?;
        // Against its past a device of another season is another.
        if baseline.phases().is_empty() {
            self.against(ComparedWith::Past, baseline, policy)?;
        }
        self.against(ComparedWith::Reference, baseline, policy)
    }

    /// Forgets devices that are none of these.
    pub fn retain(&mut self, is_kept: impl Fn(&DeviceId) -> bool) {
        self.devices.retain(|device, _| is_kept(device));
    }

    /// Where each judged device stands, in the order of their names.
    pub fn standings(&self) -> impl Iterator<Item = Standing<'_>> {
        let judged = self.devices.iter().filter(|(_, sensor)| sensor.is_judged);
        judged.filter_map(|(device, sensor)| sensor.standing(device, &self.usual))
    }

    /// Whether a device was judged.
    pub fn has_judged(&self, device: &DeviceId) -> bool {
        self.devices.get(device).is_some_and(|sensor| sensor.is_judged)
    }

    fn against_cohorts(&mut self, baseline: &Baseline, policy: &Policy) -> Result<(), Mismatch> {
        let mut cohorts: BTreeMap<Scope, Vec<DeviceId>> = BTreeMap::new();
        for (device, sensor) in &self.devices {
            if !sensor.windows.is_empty() {
                cohorts.entry(sensor.cohort.clone()).or_default().push(device.clone());
            }
        }
        self.usual.retain(|cohort, _| cohorts.contains_key(cohort));
        for (cohort, members) in cohorts {
            let has_peers = members.len() > PEERS_MIN;
            for device in &members {
                if let Some(sensor) = self.devices.get_mut(device) {
                    sensor.has_peers = has_peers;
                }
            }
            if has_peers {
                self.against_cohort(&cohort, &members, baseline, policy)?;
            }
        }
        Ok(())
    }

    fn against_cohort(
        &mut self,
        cohort: &Scope,
        members: &[DeviceId],
        baseline: &Baseline,
        policy: &Policy,
    ) -> Result<(), Mismatch> {
        let strangers = self.strangers(members);
        let is_heard = |device: &DeviceId| !strangers.contains(device);
        let mut all = Profile::empty(baseline);
        for device in members.iter().filter(|device| is_heard(device)) {
            for window in self.devices.get(device).into_iter().flat_map(|sensor| &sensor.windows) {
                all.merge(&window.profile()?)?;
            }
        }
        let fresh: Vec<_> = self.fresh().filter(|(_, it)| it.cohort == *cohort).collect();
        let lot = |device: &DeviceId, sensor: &Sensor| -> Result<Lot, Mismatch> {
            let windows = sensor.unpacked()?;
            let mut others = all.clone();
            for window in windows.iter().filter(|_| is_heard(device)) {
                others.take_out(&window.profile, baseline)?;
            }
            Ok(sensor.lot(device, windows, Some(others), ComparedWith::Cohort))
        };
        let lots = fresh.into_iter().map(|(device, sensor)| lot(device, sensor));
        let mut judged = judge_lots(lots, baseline, policy)?;
        if !judged.names.is_empty() {
            self.names = std::mem::take(&mut judged.names);
        }
        for (device, distances) in std::mem::take(&mut judged.distances) {
            if let Some(sensor) = self.devices.get_mut(&device) {
                sensor.distances = distances;
            }
        }
        self.remember(ComparedWith::Cohort, judged);
        let members = || members.iter().filter_map(|device| self.devices.get(device));
        let suspected = members().filter_map(|sensor| sensor.suspected.get(&ComparedWith::Cohort));
        let asked = suspected.flatten().map(|verdict| (verdict.subject.clone(), verdict.metric));
        let distances = members().map(|sensor| sensor.distances.as_slice());
        let usual = Usual::of(&self.names, &asked.collect(), &distances);
        self.usual.insert(cohort.clone(), usual);
        Ok(())
    }

    fn against(
        &mut self,
        compared: ComparedWith,
        baseline: &Baseline,
        policy: &Policy,
    ) -> Result<(), Mismatch> {
        let has_past = |sensor: &Sensor| sensor.past_windows >= PAST_WINDOWS_MIN;
        let fresh = self.fresh().filter(|(_, it)| compared != ComparedWith::Past || has_past(it));
        let lots = fresh.map(|(device, sensor)| {
            let reference = match compared {
                ComparedWith::Past => sensor.past.as_ref().map(Packed::profile).transpose()?,
                ComparedWith::Reference | ComparedWith::Cohort => None,
            };
            Ok(sensor.lot(device, sensor.unpacked()?, reference, compared))
        });
        let judged = judge_lots(lots, baseline, policy)?;
        self.remember(compared, judged);
        Ok(())
    }

    fn fresh(&self) -> impl Iterator<Item = (&DeviceId, &Sensor)> {
        self.devices.iter().filter(|(_, sensor)| sensor.is_fresh)
    }

    /// Devices that do not tell what is usual in their cohort: of those that differed in the round before, the farthest, and whoever is at
    /// least half as far. One device that is off makes all others differ from a cohort that has it, but not as much. Nobody is a stranger
    /// where too few would be left.
    fn strangers(&self, members: &[DeviceId]) -> BTreeSet<DeviceId> {
        let far = |device: &DeviceId| {
            let sensor = self.devices.get(device)?;
            let differs = sensor.suspected.get(&ComparedWith::Cohort)?;
            let far = sensor.distances.iter().copied().fold(0.0, f64::max);
            (!differs.is_empty()).then_some(far)
        };
        let farthest = members.iter().filter_map(far).fold(0.0, f64::max);
        let is_stranger = |device: &&DeviceId| far(device).is_some_and(|far| far * 2.0 >= farthest);
        let strangers: BTreeSet<_> = members.iter().filter(is_stranger).cloned().collect();
        if strangers.len() + PEERS_MIN < members.len() { strangers } else { BTreeSet::new() }
    }

    fn remember(&mut self, compared: ComparedWith, judged: Judged) {
        for (device, verdicts) in judged.suspected {
            if let Some(sensor) = self.devices.get_mut(&device) {
                let was_off = sensor.strongest(compared).is_some();
                sensor.is_judged = true;
                sensor.suspected.insert(compared, verdicts);
                let is_well = sensor.strongest(compared).is_none();
                if compared == ComparedWith::Cohort && was_off && is_well {
                    sensor.forget_illness();
                }
            }
        }
    }
}

impl Sensor {
    const fn new(cohort: Scope) -> Self {
        Self {
            cohort,
            pending: None,
            windows: Vec::new(),
            past: None,
            past_windows: 0,
            is_fresh: false,
            is_judged: false,
            has_peers: false,
            suspected: BTreeMap::new(),
            distances: Vec::new(),
        }
    }

    fn take(&mut self, taken: &Window) -> Result<(), Mismatch> {
        let Some(pending) = &mut self.pending else {
            self.pending = Some(Packed::new(taken)?);
            return Ok(());
        };
        pending.add(taken)
    }

    fn is_heard_since(&self, oldest: UnixMillis) -> bool {
        let newest = self.pending.iter().chain(&self.windows).map(Packed::until).max();
        newest.is_some_and(|until| until >= oldest)
    }

    /// Makes a window of what is pending if it has enough rows; the oldest becomes a part of the past.
    fn end_round(&mut self, rows_min: u64) -> Result<(), Mismatch> {
        self.is_fresh = false;
        let Some(mut pending) = self.pending.take_if(|pending| pending.rows() >= rows_min) else {
            return Ok(());
        };
        if let Some(newest) = self.windows.last() {
            pending.ends_after(newest.until());
        }
        self.is_fresh = true;
        if self.windows.len() == WINDOWS_MAX {
            let oldest = self.windows.remove(0);
            self.grow_past(oldest)?;
        }
        self.windows.push(pending);
        Ok(())
    }

    /// What it saw before it was well again would make all others look off.
    fn forget_illness(&mut self) {
        let before = self.windows.len().saturating_sub(1);
        self.windows.drain(..before);
    }

    /// What may be off does not become the custom.
    fn grow_past(&mut self, oldest: Packed) -> Result<(), Mismatch> {
        let suspects = [ComparedWith::Cohort, ComparedWith::Past];
        if suspects.iter().any(|compared| self.strongest(*compared).is_some()) {
            return Ok(());
        }
        self.past_windows += 1;
        if let Some(past) = &mut self.past {
            return past.add(&oldest.unpacked()?);
        }
        self.past = Some(oldest);
        Ok(())
    }

    fn unpacked(&self) -> Result<Vec<Window>, Mismatch> {
        self.windows.iter().map(Packed::unpacked).collect()
    }

    fn lot(
        &self,
        device: &DeviceId,
        windows: Vec<Window>,
        reference: Option<Profile>,
        compared: ComparedWith,
    ) -> Lot {
        let previous = self.suspected.get(&compared).cloned().unwrap_or_default();
        Lot { device: device.clone(), windows, reference, previous }
    }

    /// What drifts most in a comparison.
    fn strongest(&self, compared: ComparedWith) -> Option<&Verdict> {
        let mut suspected = self.suspected.get(&compared)?.iter();
        suspected.find(|verdict| verdict.state == DriftState::Drifted)
    }

    fn standing<'a>(
        &'a self,
        device: &'a DeviceId,
        usual: &BTreeMap<Scope, Usual>,
    ) -> Option<Standing<'a>> {
        let newest = self.windows.last()?;
        let usual = usual.get(&self.cohort);
        let stands_out = |verdict: &&Verdict| {
            verdict.state == DriftState::Drifted
                && usual.is_some_and(|usual| usual.is_exceeded_by(verdict))
        };
        let alone =
            self.suspected.get(&ComparedWith::Cohort).into_iter().flatten().find(stands_out);
        let alone = alone.filter(|_| self.has_peers);
        let (past, reference) =
            (self.strongest(ComparedWith::Past), self.strongest(ComparedWith::Reference));
        let nature = match (alone, past, reference) {
            (Some(_), _, _) => DeviceNature::Alone,
            (None, Some(_), _) if !self.has_peers => DeviceNature::Changed,
            (None, None, None) => DeviceNature::Steady,
            (None, _, _) => DeviceNature::Together,
        };
        let verdicts = [alone, past, reference];
        let off = ComparedWith::ALL.into_iter().zip(verdicts);
        Some(Standing {
            device,
            cohort: &self.cohort,
            nature,
            off: off.filter_map(|(compared, verdict)| Some((compared, verdict?))).collect(),
            has_past: self.suspected.contains_key(&ComparedWith::Past),
            rows: newest.rows(),
            skipped: newest.skipped(),
            until: newest.until(),
        })
    }
}

#[cfg(test)]
mod tests;
