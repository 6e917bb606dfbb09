//! How often something may go wrong, or be asked, before whoever does it has to wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealift_protocol::id::UnixMillis;

/// Keys remembered at a time; a flood of new ones makes the oldest windows forgotten first.
const KEYS_MAX: usize = 10_000;

/// Counts by key in windows of time; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Throttle<K> {
    limit: u32,
    window_ms: i64,
    counts: Arc<Mutex<BTreeMap<K, (UnixMillis, u32)>>>,
}

impl<K: Ord + Clone> Throttle<K> {
    /// At most `limit` in `window_ms`.
    pub(crate) fn new(limit: u32, window_ms: i64) -> Self {
        Self { limit, window_ms, counts: Arc::default() }
    }

    /// Whether `key` has to wait.
    pub(crate) fn is_over(&self, key: &K, now: UnixMillis) -> bool {
        let counts = self.counts();
        counts
            .get(key)
            .is_some_and(|&(since, count)| now.since(since) < self.window_ms && count >= self.limit)
    }

    /// Counts one more; returns whether it was still within the limit.
    pub(crate) fn add(&self, key: &K, now: UnixMillis) -> bool {
        let mut counts = self.counts();
        if counts.len() >= KEYS_MAX && !counts.contains_key(key) {
            counts.retain(|_, (since, _)| now.since(*since) < self.window_ms);
            if counts.len() >= KEYS_MAX {
                // Rule: whoever is over the limit stays so; those who are not make room.
                let limit = self.limit;
                counts.retain(|_, (_, count)| *count >= limit);
                if counts.len() >= KEYS_MAX {
                    return false;
                }
            }
        }
        let entry = counts.entry(key.clone()).or_insert((now, 0));
        if now.since(entry.0) >= self.window_ms {
            *entry = (now, 0);
        }
        entry.1 = entry.1.saturating_add(1);
        entry.1 <= self.limit
    }

    /// Forgets what `key` did.
    pub(crate) fn clear(&self, key: &K) {
        self.counts().remove(key);
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<K, (UnixMillis, u32)>> {
        // Plain counters: a panic elsewhere leaves them usable.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_many_failures_one_waits_until_the_window_is_over() {
        let failures = Throttle::new(3, 60_000);
        for _ in 0..3 {
            assert!(!failures.is_over(&1, UnixMillis(0)));
            assert!(failures.add(&1, UnixMillis(0)));
        }
        assert!(!failures.add(&1, UnixMillis(1)));
        assert!(failures.is_over(&1, UnixMillis(59_999)) && !failures.is_over(&2, UnixMillis(0)));
        assert!(!failures.is_over(&1, UnixMillis(60_000)));
        failures.clear(&1);
        assert!(!failures.is_over(&1, UnixMillis(1)));
    }

    #[test]
    fn a_flood_of_keys_frees_nobody_who_has_to_wait() {
        let failures = Throttle::new(2, 60_000);
        failures.add(&0, UnixMillis(0));
        failures.add(&0, UnixMillis(0));
        for key in 1..30_000 {
            failures.add(&key, UnixMillis(1));
        }
        assert!(failures.is_over(&0, UnixMillis(2)));
        assert!(failures.counts().len() <= KEYS_MAX);
    }
}
