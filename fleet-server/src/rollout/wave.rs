//! All devices of a rollout, counted by wave; and the next step of its waves.

use std::collections::BTreeMap;

use sealift_protocol::api::{DeviceProgress, WavePlan};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, RolloutId, UnixMillis};

use super::gate::{self, Gate, Tally};
use super::judge::{self, Verdict};
use super::{
    Ending, Fleet, Halt, Position, Rollout, Served, Stage, Standing, TAIL_MS, WaveReading, Why,
};

/// Everything that is counted in one pass over the fleet.
pub(super) struct Census<'a> {
    rollout: &'a Rollout,
    devices: Vec<(&'a DeviceId, Counted)>,
    /// Up to how many devices each wave goes.
    targets: Vec<u64>,
    waves: Vec<WaveCount>,
    /// Devices that take room in the waves: told, or there already.
    taken: u64,
    offline_untold: u64,
}

struct Counted {
    verdict: Verdict,
    /// Where it stands among those not told.
    wave: Option<usize>,
    rank: u64,
}

#[derive(Default)]
struct WaveCount {
    devices: u64,
    succeeded: u64,
    bad: u64,
    offline: u64,
    tally: Tally,
}

pub(super) struct Step {
    pub(super) stage: Stage,
    pub(super) tell: Vec<(DeviceId, usize)>,
    pub(super) why: String,
}

impl<'a> Census<'a> {
    pub(super) fn take(rollout: &'a Rollout, fleet: &'a Fleet, now: UnixMillis) -> Self {
        let mut devices: Vec<_> = fleet
            .iter()
            .map(|(id, device)| {
                let verdict = judge::judge(rollout, device, now);
                (id, Counted { verdict, wave: None, rank: rank(rollout.id, id) })
            })
            .collect();
        devices.sort_unstable_by_key(|&(id, ref counted)| (counted.rank, id));
        let targets = targets(&rollout.waves, count(fleet.len()));
        let waves = rollout.waves.iter().map(|_| WaveCount::default()).collect();
        let mut census = Self { rollout, devices, targets, waves, taken: 0, offline_untold: 0 };
        census.count(fleet);
        census
    }

    fn count(&mut self, fleet: &Fleet) {
        let told = self.devices.iter().filter(|(_, counted)| takes_room(&counted.verdict));
        self.taken = count(told.count());
        let mut place = self.taken;
        for (id, counted) in &mut self.devices {
            match &counted.verdict {
                Verdict::Told(told, progress, _) => {
                    counted.wave = Some(told.wave);
                    let served = fleet.get(*id).map(|device| since(told.served, device.served));
                    if let Some(wave) = self.waves.get_mut(told.wave) {
                        wave.add(*progress, (!told.is_excused).then_some(served).flatten());
                    }
                }
                Verdict::NotTold(progress, why) => {
                    let waits = matches!(why, Why::OfflineUntold);
                    self.offline_untold += u64::from(waits);
                    counted.wave = wave_at(&self.targets, place);
                    if waits {
                        place += 1;
                    }
                    if let Some(wave) = counted.wave.and_then(|wave| self.waves.get_mut(wave)) {
                        wave.add(*progress, None);
                    }
                }
                Verdict::Eligible => {
                    counted.wave = wave_at(&self.targets, place);
                    place += 1;
                    if let Some(wave) = counted.wave.and_then(|wave| self.waves.get_mut(wave)) {
                        wave.devices += 1;
                    }
                }
            }
        }
    }

    /// The first wave that was opened and whose gates fail: a device that ends badly late counts against its own wave.
    pub(super) fn first_failed_gate(&self, standings: &[Standing]) -> Option<(usize, Halt)> {
        let is_open =
            |&number: &usize| standings.get(number).is_some_and(|wave| wave.since().is_some());
        let halt = |number: usize| {
            let tally = self.waves.get(number)?.tally;
            Some((number, gate::halt(number, tally, &self.gates(number))?))
        };
        (0..standings.len()).filter(is_open).find_map(halt)
    }

    /// Moves the waves on as far as they go now, and says whom to tell.
    pub(super) fn advance(
        &mut self,
        stage: Stage,
        standings: &mut [Standing],
        now: UnixMillis,
    ) -> Step {
        for (number, standing) in standings.iter_mut().enumerate() {
            if *standing == Standing::Pending {
                if self.rollout.held_from.is_some_and(|held| number >= held) {
                    let why = format!("wave {}: waits for approval", number + 1);
                    return Step { stage: Stage::Running, tell: Vec::new(), why };
                }
                *standing = Standing::Open { since: now };
            }
            if let Standing::Open { since } = *standing {
                let tell = self.next_to_tell(number);
                if !tell.is_empty() {
                    let why = format!("wave {}: telling {}", number + 1, tell.len());
                    return Step { stage: Stage::Running, tell, why };
                }
                if let Some(why) = self.why_not_done(number) {
                    return Step { stage: Stage::Running, tell, why };
                }
                let soak_s = self.rollout.waves.get(number).map_or(0, |wave| wave.plan.soak_s);
                *standing = Standing::Soaking { since, until: now.plus(i64::from(soak_s) * 1_000) };
            }
            if let Standing::Soaking { since, until } = *standing {
                if now < until {
                    let why = format!("wave {}: watched until {until}", number + 1);
                    return Step { stage: Stage::Running, tell: Vec::new(), why };
                }
                *standing = Standing::Passed { since };
            }
        }
        let since = match stage {
            Stage::Completing { since } => since,
            Stage::Running
            | Stage::Paused
            | Stage::Halted
            | Stage::Succeeded
            | Stage::Aborted
            | Stage::Superseded => now,
        };
        self.complete(since, now)
    }

    /// All waves have passed: tells those that come back, until nobody is left or the tail is over.
    fn complete(&mut self, since: UnixMillis, now: UnixMillis) -> Step {
        let stage = Stage::Completing { since };
        let last = self.waves.len().saturating_sub(1);
        let tell = self.next_to_tell(last);
        if !tell.is_empty() {
            let why = format!("all waves passed; telling {} more", tell.len());
            return Step { stage, tell, why };
        }
        let in_flight: u64 = self.waves.iter().map(|wave| wave.tally.in_flight).sum();
        let offline_told: u64 = self.waves.iter().map(|wave| wave.offline).sum();
        let offline = offline_told + self.offline_untold.min(self.room(last));
        if in_flight > 0 {
            let why = format!("all waves passed; {in_flight} still at work, {offline} offline");
            return Step { stage, tell, why };
        }
        if offline > 0 && now.since(since) < TAIL_MS {
            let why = format!("all waves passed; {offline} offline may catch up");
            return Step { stage, tell, why };
        }
        let result = self.result();
        // That nobody was left to be told is no success: an operator looks, and may offer it again.
        let took_nobody = result.serving == 0 && result.bad + result.penalised > 0;
        let stage = if took_nobody { Stage::Halted } else { Stage::Succeeded };
        Step { stage, tell, why: result.to_string() }
    }

    /// How it ended, or would end now.
    pub(super) fn result(&self) -> Ending {
        let mut ending = Ending::default();
        for (_, counted) in &self.devices {
            let (progress, is_penalised) = match &counted.verdict {
                Verdict::Eligible => continue,
                Verdict::NotTold(progress, why) => (*progress, matches!(why, Why::Penalised(_))),
                Verdict::Told(_, progress, _) => (*progress, false),
            };
            ending.serving += u64::from(progress == DeviceProgress::Succeeded);
            ending.penalised += u64::from(is_penalised);
            ending.bad += u64::from(judge::is_bad(progress) && !is_penalised);
            ending.offline += u64::from(progress == DeviceProgress::Offline);
            ending.without_variant += u64::from(progress == DeviceProgress::NotApplicable);
        }
        ending
    }

    /// How many more a wave may tell.
    fn room(&self, wave: usize) -> u64 {
        self.targets.get(wave).map_or(0, |target| target.saturating_sub(self.taken))
    }

    fn next_to_tell(&self, wave: usize) -> Vec<(DeviceId, usize)> {
        let room = usize::try_from(self.room(wave)).unwrap_or(usize::MAX);
        let eligible =
            self.devices.iter().filter(|(_, counted)| counted.verdict == Verdict::Eligible);
        eligible.take(room).map(|(id, _)| ((*id).clone(), wave)).collect()
    }

    /// What an open wave still waits for, when there is nobody to tell.
    fn why_not_done(&self, number: usize) -> Option<String> {
        let wave = self.waves.get(number)?;
        let name = number + 1;
        if wave.tally.in_flight > 0 {
            return Some(format!("wave {name}: {} at work", wave.tally.in_flight));
        }
        let is_last = number + 1 == self.waves.len();
        // A wave shows something: it is not passed on the word of devices that are not there.
        let waits_for = wave.offline + self.offline_untold.min(self.room(number));
        if wave.tally.good > 0 || is_last || waits_for == 0 {
            return None;
        }
        Some(format!("wave {name}: nothing to judge by yet, {waits_for} offline"))
    }

    fn gates(&self, number: usize) -> Vec<Gate> {
        let (Some(wave), Some(count)) = (self.rollout.waves.get(number), self.waves.get(number))
        else {
            return Vec::new();
        };
        let WavePlan { max_bad_share, max_error_share, .. } = wave.plan;
        let error_share = max_error_share.map(|limit| gate::error_share(count.tally, limit));
        let absolute = [Some(gate::bad_share(count.tally, max_bad_share)), error_share];
        let compared = wave.comparisons.iter().copied().map(gate::compared);
        absolute.into_iter().flatten().chain(compared).collect()
    }

    pub(super) fn readings(&self, standings: &[Standing]) -> Vec<WaveReading> {
        let reading = |(number, (&standing, wave)): (usize, (&Standing, &WaveCount))| WaveReading {
            standing,
            devices: wave.devices,
            succeeded: wave.succeeded,
            bad: wave.bad,
            gates: self.gates(number),
        };
        standings.iter().zip(&self.waves).enumerate().map(reading).collect()
    }

    pub(super) fn into_positions(self, standings: &[Standing]) -> BTreeMap<DeviceId, Position> {
        let queued = |wave: Option<usize>| match wave.and_then(|wave| standings.get(wave)) {
            None => Why::BeyondLastWave,
            Some(Standing::Pending) => Why::WaveNotOpen { wave: wave.unwrap_or_default() },
            Some(Standing::Open { .. }) => Why::Next,
            Some(Standing::Soaking { .. } | Standing::Passed { .. } | Standing::Failed { .. }) => {
                Why::NotTelling
            }
        };
        let position = |(id, counted): (&DeviceId, Counted)| {
            let wave = counted.wave;
            let (progress, why) = match counted.verdict {
                Verdict::Eligible => (DeviceProgress::Queued, queued(wave)),
                Verdict::NotTold(progress, why) | Verdict::Told(_, progress, why) => {
                    (progress, why)
                }
            };
            (id.clone(), Position { wave, progress, why })
        };
        self.devices.into_iter().map(position).collect()
    }
}

impl WaveCount {
    /// Counts a device; with `judged`, also for the gates.
    fn add(&mut self, progress: DeviceProgress, judged: Option<Served>) {
        self.devices += 1;
        self.succeeded += u64::from(progress == DeviceProgress::Succeeded);
        let Some(served) = judged else { return };
        self.bad += u64::from(judge::is_bad(progress));
        self.offline += u64::from(progress == DeviceProgress::Offline);
        self.tally.good += u64::from(progress == DeviceProgress::Succeeded);
        self.tally.bad += u64::from(judge::is_bad(progress));
        self.tally.in_flight += u64::from(judge::is_in_flight(progress));
        if matches!(progress, DeviceProgress::Succeeded | DeviceProgress::Probation) {
            let total = &mut self.tally.served;
            total.requests = total.requests.saturating_add(served.requests);
            total.errors = total.errors.saturating_add(served.errors);
        }
    }
}

/// Whether a device counts towards what its wave may tell. Where the image does not run, where another rollout has taken over, and
/// where an operator went on in spite of a failure, the place goes to another device.
const fn takes_room(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Eligible => false,
        Verdict::NotTold(progress, _) => matches!(progress, DeviceProgress::Succeeded),
        Verdict::Told(told, progress, _) => {
            !told.is_excused
                && !matches!(progress, DeviceProgress::NotApplicable | DeviceProgress::Superseded)
        }
    }
}

/// What was served since `before`; a restarted agent counts from nothing.
pub(super) const fn since(before: Served, now: Served) -> Served {
    if now.requests < before.requests || now.errors < before.errors {
        return now;
    }
    Served { requests: now.requests - before.requests, errors: now.errors - before.errors }
}

/// Each wave's reach among `all` devices; never less than the wave before.
fn targets(waves: &[super::Wave], all: u64) -> Vec<u64> {
    let mut reached = 0;
    let target = |wave: &super::Wave| {
        reached = reach(&wave.plan, all).max(reached);
        reached
    };
    waves.iter().map(target).collect()
}

/// A share above nothing reaches at least one device; a wave without a share or a count reaches all.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a count of devices, between 0 and that count"
)]
fn reach(plan: &WavePlan, all: u64) -> u64 {
    match (plan.count, plan.percent) {
        (Some(count), _) => count.min(all),
        (None, Some(percent)) => {
            ((all as f64 * percent.clamp(0.0, 100.0) / 100.0).ceil() as u64).min(all)
        }
        (None, None) => all,
    }
}

fn wave_at(targets: &[u64], place: u64) -> Option<usize> {
    targets.iter().position(|&target| place < target)
}

pub(super) fn rank(rollout: RolloutId, device: &DeviceId) -> u64 {
    let digest = Digest::of(format!("{rollout}/{device}").as_bytes());
    digest.as_bytes().first_chunk::<8>().map_or(0, |first| u64::from_be_bytes(*first))
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
