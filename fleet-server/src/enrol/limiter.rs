//! Slows down whoever is refused often: guessing must cost more than it can win.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sealift_protocol::id::UnixMillis;

/// Refusals that one address may cause a minute before it has to wait.
const REFUSALS_A_MINUTE: u32 = 20;

/// Refusals a minute, by all addresses, that are written to the audit log; beyond it they are only in the server's log.
const AUDITED_A_MINUTE: u32 = 300;

/// Addresses remembered; beyond it the newest have to share one count.
const ADDRESSES_MAX: usize = 10_000;

const MINUTE_MS: i64 = 60_000;

/// Tries of one address at the same time: a whole batch starts behind one router.
const PENDING_MAX: u32 = 200;

/// Counts tries by address.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    addresses: BTreeMap<IpAddr, Count>,
    audited: (UnixMillis, u32),
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    since: UnixMillis,
    refused: u32,
    pending: u32,
}

/// A try that is under way; it ends with this value.
#[derive(Debug)]
pub(super) struct Try<'a> {
    limiter: &'a Limiter,
    network: IpAddr,
}

impl Limiter {
    /// Begins a try, which is counted before it is known how it ends: tries at the same time cannot slip through. None if `address`
    /// has to wait.
    pub(super) fn begin(&self, address: IpAddr, now: UnixMillis) -> Option<Try<'_>> {
        let mut counts = self.counts();
        let network = counts.place(address, now);
        let count = counts.addresses.entry(network).or_default();
        count.begin_minute(now);
        let may = count.refused < REFUSALS_A_MINUTE && count.pending < PENDING_MAX;
        count.pending += u32::from(may);
        may.then(|| Try { limiter: self, network })
    }

    /// Whether a refusal at `now` still goes into the audit log.
    pub(super) fn is_audited(&self, now: UnixMillis) -> bool {
        let (since, count) = &mut self.counts().audited;
        if !is_same_minute(*since, now) {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= AUDITED_A_MINUTE
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // The counts are plain numbers, so a panic elsewhere leaves them usable.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Try<'_> {
    /// Counts it as refused.
    pub(super) fn refuse(&self) {
        if let Some(count) = self.limiter.counts().addresses.get_mut(&self.network) {
            count.refused = count.refused.saturating_add(1);
        }
    }
}

impl Drop for Try<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.limiter.counts().addresses.get_mut(&self.network) {
            count.pending = count.pending.saturating_sub(1);
        }
    }
}

impl Counts {
    /// Under which key an address is counted.
    fn place(&mut self, address: IpAddr, now: UnixMillis) -> IpAddr {
        let network = network(address);
        if self.addresses.contains_key(&network) {
            return network;
        }
        if self.addresses.len() >= ADDRESSES_MAX {
            self.addresses.retain(|_, count| count.pending > 0 || is_same_minute(count.since, now));
        }
        let is_full = self.addresses.len() >= ADDRESSES_MAX;
        if is_full { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { network }
    }
}

impl Count {
    fn begin_minute(&mut self, now: UnixMillis) {
        if !is_same_minute(self.since, now) {
            (self.since, self.refused) = (now, 0);
        }
    }
}

/// A clock that was set back begins another minute as well.
fn is_same_minute(since: UnixMillis, now: UnixMillis) -> bool {
    (0..MINUTE_MS).contains(&now.since(since))
}

/// Whoever has one address of IPv6 has its /64 (RFC 4291, section 2.5.1).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn refused(limiter: &Limiter, address: IpAddr, now: UnixMillis) -> bool {
        limiter.begin(address, now).is_some_and(|it| {
            it.refuse();
            true
        })
    }

    #[test]
    fn an_address_has_twenty_refusals_a_minute() {
        let (limiter, address) = (Limiter::default(), "192.0.2.1".parse().unwrap());
        for _ in 0..20 {
            assert!(refused(&limiter, address, NOW));
        }
        assert!(limiter.begin(address, NOW.plus(59_999)).is_none());
        assert!(limiter.begin("192.0.2.2".parse().unwrap(), NOW).is_some());
        assert!(limiter.begin(address, NOW.plus(60_000)).is_some());
    }

    #[test]
    fn whoever_is_let_in_or_goes_away_is_not_counted() {
        let (limiter, address) = (Limiter::default(), "192.0.2.1".parse().unwrap());
        for _ in 0..1_000 {
            assert!(limiter.begin(address, NOW).is_some());
        }
    }

    #[test]
    fn attack_guessing_many_at_the_same_time() {
        let (limiter, address) = (Limiter::default(), "192.0.2.1".parse().unwrap());
        let tries: Vec<_> = (0..1_000).filter_map(|_| limiter.begin(address, NOW)).collect();
        assert_eq!(tries.len(), 200);
        tries.iter().for_each(Try::refuse);
        drop(tries);
        assert!(limiter.begin(address, NOW).is_none());
    }

    #[test]
    fn attack_guessing_from_a_whole_network_of_ipv6() {
        let limiter = Limiter::default();
        let from = |host: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, host));
        assert_eq!((0..100).filter(|&host| refused(&limiter, from(host), NOW)).count(), 20);
    }

    #[test]
    fn attack_guessing_from_more_addresses_than_are_remembered() {
        let limiter = Limiter::default();
        let from = |number: u32| IpAddr::V4((0x0a00_0000 + number).into());
        let let_in = (0..20_000).filter(|&number| refused(&limiter, from(number), NOW)).count();
        assert_eq!(let_in, ADDRESSES_MAX + 20);
        assert!(limiter.begin(from(20_001), NOW.plus(60_000)).is_some());
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let (limiter, address) = (Limiter::default(), "192.0.2.1".parse().unwrap());
        while refused(&limiter, address, NOW) {}
        assert!(limiter.begin(address, NOW.plus(-3_600_000)).is_some());
    }
}
