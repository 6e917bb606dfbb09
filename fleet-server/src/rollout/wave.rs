//! All devices of a rollout, counted by wave; and the next step of its waves.

use std::collections::BTreeMap;
use std::ops::Range;

use sealift_protocol::api::{DeviceProgress, WavePlan};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, RolloutId, UnixMillis};

use super::budget::Purse;
use super::gate::{self, Gate, Tally};
use super::judge::{self, Verdict};
use super::{Ending, Fleet, Halt, Position, Rollout, Served, Stage, Standing, WaveReading, Why};

/// Everything that is counted in one pass over the fleet.
pub(super) struct Census<'a> {
    rollout: &'a Rollout,
    devices: Vec<(&'a DeviceId, Counted<'a>)>,
    waves: Vec<WaveCount>,
    purse: Option<Purse<'a>>,
    /// Devices that could be told now if more of their group were allowed to be at work.
    blocked: u64,
}

struct Counted<'a> {
    verdict: Verdict,
    /// Where it stands among those not told.
    wave: Option<usize>,
    rank: u64,
    /// The waves that may tell it.
    members: Members,
    group: &'a str,
    is_blocked: bool,
}

/// Waves by number, as bits; there are at most 64.
#[derive(Debug, Clone, Copy)]
struct Members(u64);

impl Members {
    const fn has(self, wave: usize) -> bool {
        wave < 64 && self.0 & (1 << wave) != 0
    }
}

#[derive(Default)]
struct WaveCount {
    /// Up to how many devices it goes, of those that it may tell.
    target: u64,
    /// Of those, how many take room: told, or there already.
    taken: u64,
    /// Of those, how many are offline and were not told.
    offline_untold: u64,
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
        let unfiltered = unfiltered(rollout);
        let mut devices: Vec<_> = fleet
            .iter()
            .map(|(id, device)| {
                let counted = Counted {
                    verdict: judge::judge(rollout, device, now),
                    wave: None,
                    rank: rank(rollout.id, id),
                    members: Members(device.waves | unfiltered),
                    group: device.group.as_str(),
                    is_blocked: false,
                };
                (id, counted)
            })
            .collect();
        devices.sort_unstable_by_key(|&(id, ref counted)| (counted.rank, id));
        let waves = rollout.waves.iter().map(|_| WaveCount::default()).collect();
        let purse = rollout.budget.as_ref().map(Purse::new);
        let mut census = Self { rollout, devices, waves, purse, blocked: 0 };
        census.measure();
        census.count(fleet);
        census
    }

    /// How far each wave goes, and how much of that is used.
    fn measure(&mut self) {
        let mut populations = vec![0; self.waves.len()];
        for (_, counted) in &self.devices {
            let takes_room = takes_room(&counted.verdict);
            let waits = is_offline_untold(&counted.verdict);
            for (number, (wave, population)) in
                self.waves.iter_mut().zip(&mut populations).enumerate()
            {
                if counted.members.has(number) {
                    *population += 1;
                    wave.taken += u64::from(takes_room);
                    wave.offline_untold += u64::from(waits);
                }
            }
            if let Some(purse) = &mut self.purse {
                purse.count(counted.group, &counted.verdict);
            }
        }
        let mut reached = 0;
        for ((count, wave), population) in
            self.waves.iter_mut().zip(&self.rollout.waves).zip(populations)
        {
            count.target = reach(&wave.plan, population);
            if wave.plan.filter.is_empty() {
                // Never less than the wave before.
                reached = count.target.max(reached);
                count.target = reached;
            }
        }
    }

    fn count(&mut self, fleet: &Fleet) {
        let mut places: Vec<_> = self.waves.iter().map(|wave| (wave.taken, wave.target)).collect();
        for (id, counted) in &mut self.devices {
            match &counted.verdict {
                Verdict::Told(told, progress, _) => {
                    counted.wave = Some(told.wave);
                    let served = fleet.get(*id).map(|device| since(told.served, device.served));
                    if let Some(wave) = self.waves.get_mut(told.wave) {
                        wave.add(*progress, (!told.is_excused).then_some(served).flatten());
                    }
                }
                Verdict::NotTold(progress, _) => {
                    let waits = is_offline_untold(&counted.verdict);
                    counted.wave = place(&mut places, counted.members, waits);
                    if let Some(wave) = counted.wave.and_then(|wave| self.waves.get_mut(wave)) {
                        wave.add(*progress, None);
                    }
                }
                Verdict::Eligible => {
                    counted.wave = place(&mut places, counted.members, true);
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
                let tell = self.next_to_tell(number..number + 1);
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
                *standing = Standing::Evaluating { since };
            }
            if let Standing::Evaluating { since } = *standing {
                if let Some(why) = self.why_not_judged(number) {
                    let tell = self.next_to_tell(number..number + 1);
                    if !tell.is_empty() {
                        *standing = Standing::Open { since };
                    }
                    return Step { stage: Stage::Running, tell, why };
                }
                *standing = Standing::Passed { since };
            }
        }
        let since = match stage {
            Stage::Completing { since } => since,
            Stage::Draft
            | Stage::Preflight
            | Stage::AwaitingApproval
            | Stage::Scheduled
            | Stage::Running
            | Stage::Paused
            | Stage::Halted
            | Stage::Succeeded
            | Stage::Aborted
            | Stage::Superseded
            | Stage::Reverting
            | Stage::Reverted => now,
        };
        self.complete(since, now)
    }

    /// All waves have passed: tells those that come back, until nobody is left or the tail is over.
    fn complete(&mut self, since: UnixMillis, now: UnixMillis) -> Step {
        let stage = Stage::Completing { since };
        let tell = self.next_to_tell(0..self.waves.len());
        if !tell.is_empty() {
            let why = format!("all waves passed; telling {} more", tell.len());
            return Step { stage, tell, why };
        }
        let offline_told: u64 = self.waves.iter().map(|wave| wave.offline).sum();
        let (in_flight, blocked) = (self.in_flight(), self.blocked);
        let offline = offline_told + self.offline_reached();
        if in_flight > 0 {
            let why = format!("all waves passed; {in_flight} still at work, {offline} offline");
            return Step { stage, tell, why };
        }
        if offline + blocked > 0 && now.since(since) < self.rollout.tail_ms {
            let why = match blocked {
                0 => format!("all waves passed; {offline} offline may catch up"),
                blocked => format!(
                    "all waves passed; {offline} offline may catch up, {blocked} wait for others of their group"
                ),
            };
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
                Verdict::Eligible => {
                    ending.over_budget += u64::from(counted.is_blocked);
                    continue;
                }
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
        self.waves.get(wave).map_or(0, |wave| wave.target.saturating_sub(wave.taken))
    }

    fn in_flight(&self) -> u64 {
        self.waves.iter().map(|wave| wave.tally.in_flight).sum()
    }

    /// Devices that are offline, were not told, and have their place in some wave.
    fn offline_reached(&self) -> u64 {
        let waits = |counted: &&(&DeviceId, Counted<'_>)| {
            is_offline_untold(&counted.1.verdict) && counted.1.wave.is_some()
        };
        count(self.devices.iter().filter(waits).count())
    }

    /// Whom these waves may tell now, in their order, as far as the budget goes.
    fn next_to_tell(&mut self, waves: Range<usize>) -> Vec<(DeviceId, usize)> {
        let mut room: Vec<_> = (0..self.waves.len()).map(|wave| self.room(wave)).collect();
        let mut purse = self.purse.clone();
        let mut tell = Vec::new();
        self.blocked = 0;
        for (id, counted) in &mut self.devices {
            if waves.clone().all(|wave| room.get(wave).is_none_or(|&room| room == 0)) {
                break;
            }
            if counted.verdict != Verdict::Eligible {
                continue;
            }
            let has_room = |&wave: &usize| {
                counted.members.has(wave) && room.get(wave).is_some_and(|&room| room > 0)
            };
            let Some(wave) = waves.clone().rev().find(has_room) else { continue };
            counted.is_blocked = purse.as_ref().is_some_and(|purse| !purse.has_room(counted.group));
            if counted.is_blocked {
                self.blocked += 1;
                continue;
            }
            if let Some(purse) = &mut purse {
                purse.spend(counted.group);
            }
            for (number, room) in room.iter_mut().enumerate() {
                *room = room.saturating_sub(u64::from(counted.members.has(number)));
            }
            tell.push(((*id).clone(), wave));
        }
        tell
    }

    /// What an open wave still waits for, when there is nobody to tell.
    fn why_not_done(&self, number: usize) -> Option<String> {
        let wave = self.waves.get(number)?;
        let name = number + 1;
        let blocked = self.blocked;
        if wave.tally.in_flight > 0 {
            let waiting = match blocked {
                0 => String::new(),
                blocked => format!(", {blocked} wait for others of their group"),
            };
            return Some(format!("wave {name}: {} at work{waiting}", wave.tally.in_flight));
        }
        if blocked > 0 && self.in_flight() > 0 {
            return Some(format!("wave {name}: {blocked} wait for others of their group"));
        }
        if number + 1 == self.waves.len() {
            return None;
        }
        // A wave shows something: it is not passed on the word of devices that are not there.
        let waits_for = wave.offline + wave.offline_untold.min(self.room(number)) + blocked;
        if waits_for == 0 {
            return None;
        }
        if wave.tally.good == 0 {
            return Some(format!("wave {name}: nothing to judge by yet, {waits_for} offline"));
        }
        let why = self.why_not_judged(number)?;
        Some(format!("{why}, {waits_for} offline"))
    }

    /// That too few devices of a wave are done to judge it by. The last wave leads nowhere: nothing waits for its verdict.
    fn why_not_judged(&self, number: usize) -> Option<String> {
        let least = self.rollout.waves.get(number)?.plan.min_devices?;
        let wave = self.waves.get(number)?;
        let done = wave.tally.good + wave.tally.bad;
        if done >= least || number + 1 == self.waves.len() {
            return None;
        }
        Some(format!("wave {}: {done} of at least {least} devices are done", number + 1))
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
            Some(
                Standing::Soaking { .. }
                | Standing::Evaluating { .. }
                | Standing::Passed { .. }
                | Standing::Failed { .. },
            ) => Why::NotTelling,
        };
        let position = |(id, counted): (&DeviceId, Counted<'_>)| {
            let wave = counted.wave;
            let (progress, why) = match counted.verdict {
                Verdict::Eligible if counted.is_blocked => {
                    let group = counted.group.to_owned();
                    (DeviceProgress::Queued, Why::OverBudget { group })
                }
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

/// The waves without a filter of their own: they may tell every device.
fn unfiltered(rollout: &Rollout) -> u64 {
    let bits = rollout.waves.iter().take(64).enumerate();
    let plain = bits.filter(|(_, wave)| wave.plan.filter.is_empty());
    plain.fold(0, |bits, (number, _)| bits | 1 << number)
}

/// The first wave with a place for a device, which it takes if it `stays`.
fn place(places: &mut [(u64, u64)], members: Members, stays: bool) -> Option<usize> {
    let has_place =
        |&(number, (taken, target)): &(usize, &(u64, u64))| members.has(number) && taken < target;
    let (found, _) = places.iter().enumerate().find(has_place)?;
    if stays {
        for (number, (taken, _)) in places.iter_mut().enumerate() {
            *taken += u64::from(members.has(number));
        }
    }
    Some(found)
}

const fn is_offline_untold(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::NotTold(_, Why::OfflineUntold))
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

pub(super) fn rank(rollout: RolloutId, device: &DeviceId) -> u64 {
    let digest = Digest::of(format!("{rollout}/{device}").as_bytes());
    digest.as_bytes().first_chunk::<8>().map_or(0, |first| u64::from_be_bytes(*first))
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
