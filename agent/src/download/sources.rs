//! The owner's sources and the fleet server, and how each has done since the agent started.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::order::Order;
use super::pace::Limit;
use super::staged::Sender;
use crate::clock::Clock;
use crate::origin::Origin;

/// A pause is looked at again after this: clocks of sleeping machines stand still.
const LOOK_AGAIN_MS: i64 = 60_000;

/// All of them, the fleet server last.
#[derive(Debug)]
pub(super) struct Sources {
    ways: Vec<Origin>,
    order: Mutex<Order>,
    limit: Option<Mutex<Limit>>,
}

impl Sources {
    pub(super) fn new(addresses: &[String], server: &Origin, rate_bytes_s: Option<u64>) -> Self {
        let ways = addresses.iter().map(|address| server.beside(address));
        let ways: Vec<_> = ways.chain([server.clone()]).collect();
        let order = Mutex::new(Order::of(ways.len()));
        Self { ways, order, limit: rate_bytes_s.map(|rate| Mutex::new(Limit::new(rate))) }
    }

    /// The source to ask now; waits until there is one.
    pub(super) async fn next(&self, without: &BTreeSet<usize>, clock: &Clock) -> usize {
        loop {
            let now = clock.steady();
            let next = self.order().next(without, now);
            let Err(ready_at) = next else { return next.unwrap_or(0) };
            let pause_ms = ready_at.since(now).clamp(1, LOOK_AGAIN_MS);
            tokio::time::sleep(Duration::from_millis(u64::try_from(pause_ms).unwrap_or(1))).await;
        }
    }

    pub(super) fn way(&self, source: usize) -> &Origin {
        // The order knows as many as there are.
        self.ways.get(source).unwrap_or_else(|| self.last())
    }

    #[expect(clippy::expect_used, reason = "see the text")]
    fn last(&self) -> &Origin {
        self.ways.last().expect("the fleet server is always one of them")
    }

    pub(super) fn address(&self, source: usize) -> &str {
        self.way(source).base()
    }

    pub(super) fn is_server(&self, source: usize) -> bool {
        source + 1 == self.ways.len()
    }

    pub(super) fn sender(&self, source: usize) -> Sender {
        Sender::of(self.address(source))
    }

    /// What the fleet server is called in lists.
    pub(super) fn server(&self) -> Sender {
        Sender::of(self.last().base())
    }

    /// Which source is called so in lists.
    pub(super) fn with(&self, sender: Sender) -> Option<usize> {
        self.ways.iter().position(|way| Sender::of(way.base()) == sender)
    }

    pub(super) fn did_well(&self, source: usize) {
        self.order().did_well(source);
    }

    pub(super) fn failed(
        &self,
        source: usize,
        spread_permille: u16,
        now: sealift_protocol::id::UnixMillis,
    ) {
        self.order().failed(source, spread_permille, now);
    }

    pub(super) fn lied(&self, source: usize, now: sealift_protocol::id::UnixMillis) {
        self.order().lied(source, now);
    }

    /// Waits until the owner's limit allows more than these bytes.
    pub(super) async fn pay(&self, bytes: u64, clock: &Clock) {
        let Some(limit) = &self.limit else { return };
        let pause_ms =
            limit.lock().unwrap_or_else(PoisonError::into_inner).take(bytes, clock.steady());
        if pause_ms > 0 {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
