//! How fast bytes may come, and how slowly they may: both in values alone.

use sealift_protocol::id::UnixMillis;

/// A source that brings less than this in [`CRAWL_MS`] is as good as silent. The slowest mobile links bring ten times as much.
const CRAWL_BYTES: u64 = 4 << 10;

/// Time that was spent waiting for a source; what the device itself takes for its limit or its disk does not count.
pub(super) const CRAWL_MS: i64 = 30_000;

/// Most bytes in a second, of all downloads together.
#[derive(Debug)]
pub(super) struct Limit {
    bytes_a_second: u64,
    /// When all that was taken so far is paid for.
    paid_at: UnixMillis,
}

impl Limit {
    pub(super) const fn new(bytes_a_second: u64) -> Self {
        Self { bytes_a_second, paid_at: UnixMillis(0) }
    }

    /// Takes bytes that have come, and says for how many milliseconds to take no more.
    pub(super) fn take(&mut self, bytes: u64, now: UnixMillis) -> u64 {
        let cost_ms = bytes.saturating_mul(1_000).div_ceil(self.bytes_a_second.max(1));
        let begin = self.paid_at.max(now);
        self.paid_at = begin.plus(i64::try_from(cost_ms).unwrap_or(i64::MAX));
        u64::try_from(self.paid_at.since(now)).unwrap_or(0)
    }
}

/// Watches one source while it sends.
#[derive(Debug, Default)]
pub(super) struct Crawl {
    waited_ms: i64,
    bytes: u64,
}

impl Crawl {
    /// Notes a wait and what it brought. Returns whether the source is too slow to go on with.
    pub(super) fn note(&mut self, waited_ms: i64, bytes: u64) -> bool {
        self.waited_ms = self.waited_ms.saturating_add(waited_ms.max(0));
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= CRAWL_BYTES {
            *self = Self::default();
        }
        self.waited_ms >= CRAWL_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_kept_over_time_whatever_the_size_of_the_pieces() {
        let mut limit = Limit::new(1_000);
        let mut now = UnixMillis(5_000_000);
        let begin = now;
        for bytes in [10, 990, 4_000, 1, 999] {
            now = now.plus(i64::try_from(limit.take(bytes, now)).unwrap());
        }
        assert_eq!(now.since(begin), 6_000, "6,000 bytes at 1,000 a second");
    }

    #[test]
    fn what_was_not_taken_is_not_saved_up() {
        let mut limit = Limit::new(1_000);
        limit.take(1_000, UnixMillis(0));
        assert_eq!(limit.take(500, UnixMillis(3_600_000)), 500);
    }

    #[test]
    fn a_byte_a_minute_is_too_slow_and_a_slow_link_is_not() {
        assert!(Crawl::default().note(CRAWL_MS, 1));
        let mut drip = Crawl::default();
        assert!((0..29).all(|_| !drip.note(1_000, 100)), "a byte now and then");
        assert!(drip.note(1_000, 100));
        let mut slow = Crawl::default();
        assert!((0..1_000).all(|_| !slow.note(5_000, 5_000)), "1,000 bytes a second");
    }
}
