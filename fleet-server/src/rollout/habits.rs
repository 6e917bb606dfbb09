//! At which hours of the week a device is connected, counted from its connections.

use sealift_protocol::id::UnixMillis;

const HOUR_MS: i64 = 3_600 * 1_000;
const WEEK_HOURS: i64 = 7 * 24;
/// What is older than this counts half: habits change.
const MEMORY_MS: i64 = 8 * WEEK_HOURS * HOUR_MS;
/// An hour of the week in which a device is connected for at least this share counts as one in which it can be reached.
const REACHABLE: f64 = 0.5;
/// 1970-01-01 was a Thursday; the week begins on Monday.
const FIRST_HOUR: i64 = 3 * 24;

/// When a device was connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Habits {
    /// Since when it is watched.
    pub known_since: UnixMillis,
    /// Seconds connected in each of the 168 hours of the week, in UTC, Monday first.
    pub connected_s: Vec<u32>,
}

impl Habits {
    /// Of a device that is watched from now on.
    pub fn new(known_since: UnixMillis) -> Self {
        Self { known_since, connected_s: vec![0; hours()] }
    }

    /// As it was kept; hours that are missing were not connected.
    pub fn kept(known_since: UnixMillis, mut connected_s: Vec<u32>) -> Self {
        connected_s.resize(hours(), 0);
        Self { known_since, connected_s }
    }

    /// The device was connected from one moment to another.
    pub fn add(&mut self, from: UnixMillis, until: UnixMillis) {
        if until.since(self.known_since) > MEMORY_MS {
            for seconds in &mut self.connected_s {
                *seconds /= 2;
            }
            self.known_since = until.plus(-MEMORY_MS / 2);
        }
        let mut at = from.max(self.known_since);
        while at < until {
            let end = UnixMillis((at.0.div_euclid(HOUR_MS) + 1) * HOUR_MS).min(until);
            if let Some(seconds) = self.connected_s.get_mut(hour_of(at)) {
                let connected = u32::try_from(end.since(at) / 1_000).unwrap_or(u32::MAX);
                *seconds = seconds.saturating_add(connected);
            }
            at = end;
        }
    }

    /// The first moment, from `from` on and within a week, at which it is likely to be connected; of what is known at `now`.
    pub fn next_connected(&self, from: UnixMillis, now: UnixMillis) -> Option<UnixMillis> {
        let begin = from.0.div_euclid(HOUR_MS);
        let hours = (begin..=begin + WEEK_HOURS).map(|hour| UnixMillis(hour * HOUR_MS));
        let mut likely = hours.filter(|&hour| self.share(hour, now) >= REACHABLE);
        likely.next().map(|hour| hour.max(from))
    }

    /// Which part of an hour of the week it is connected.
    #[expect(clippy::cast_precision_loss, reason = "seconds of a few weeks")]
    fn share(&self, at: UnixMillis, now: UnixMillis) -> f64 {
        let (first, last) = (self.known_since.0.div_euclid(HOUR_MS), now.0.div_euclid(HOUR_MS));
        let hour = hour_of(at);
        let offset = (i64::try_from(hour).unwrap_or_default()
            - i64::try_from(hour_of(self.known_since)).unwrap_or_default())
        .rem_euclid(WEEK_HOURS);
        let times =
            if last - first < offset { 0 } else { (last - first - offset) / WEEK_HOURS + 1 };
        if times == 0 {
            // Never seen at that hour: as much as at all the others.
            let connected: u64 = self.connected_s.iter().map(|&seconds| u64::from(seconds)).sum();
            return connected as f64 * 1_000.0 / now.since(self.known_since).max(HOUR_MS) as f64;
        }
        let connected = self.connected_s.get(hour).copied().unwrap_or_default();
        f64::from(connected) / (times as f64 * 3_600.0)
    }
}

const fn hours() -> usize {
    168
}

fn hour_of(at: UnixMillis) -> usize {
    let hour = (at.0.div_euclid(HOUR_MS) + FIRST_HOUR).rem_euclid(WEEK_HOURS);
    usize::try_from(hour).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monday, 2023-01-02, at midnight.
    const MONDAY: UnixMillis = UnixMillis(1_672_617_600_000);

    #[test]
    fn weeks_begin_on_monday() {
        assert_eq!(hour_of(MONDAY), 0);
        assert_eq!(hour_of(MONDAY.plus(-1)), 167);
    }

    #[test]
    fn a_device_that_comes_every_morning_is_expected_in_the_morning() {
        let mut habits = Habits::new(MONDAY);
        for day in 0..14 {
            let morning = MONDAY.plus((day * 24 + 8) * HOUR_MS);
            habits.add(morning, morning.plus(2 * HOUR_MS));
        }
        let now = MONDAY.plus(14 * 24 * HOUR_MS);

        let noon = now.plus(12 * HOUR_MS);
        assert_eq!(habits.next_connected(noon, now), Some(now.plus((24 + 8) * HOUR_MS)));
        let in_time = now.plus(9 * HOUR_MS + 5);
        assert_eq!(habits.next_connected(in_time, now), Some(in_time));
    }

    #[test]
    fn a_device_that_is_hardly_ever_there_is_not_expected() {
        let mut habits = Habits::new(MONDAY);
        habits.add(MONDAY, MONDAY.plus(60_000));

        let now = MONDAY.plus(3 * WEEK_HOURS * HOUR_MS);
        assert_eq!(habits.next_connected(now, now), None);
    }

    #[test]
    fn what_is_old_counts_less() {
        let mut habits = Habits::new(MONDAY);
        habits.add(MONDAY, MONDAY.plus(HOUR_MS));
        let later = MONDAY.plus(MEMORY_MS + 2 * HOUR_MS);
        habits.add(later.plus(-1_000), later);

        assert_eq!(habits.connected_s[0], 1_800);
        assert_eq!(habits.known_since, later.plus(-MEMORY_MS / 2));
    }
}
