//! How fast one address and one operator may ask: token buckets, forgotten when they are full again.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::clock::DefaultClock;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use super::access::Caller;
use super::error::ApiError;
use crate::auth::Visit;

/// Requests a second of one address: a building behind one address, and a page of the console asks for a dozen things.
const ADDRESS_A_SECOND: NonZeroU32 = limit(400);
const ADDRESS_BURST: NonZeroU32 = limit(2_000);
/// Requests a second of one operator: a push of an image asks for every blob.
const OPERATOR_A_SECOND: NonZeroU32 = limit(200);
const OPERATOR_BURST: NonZeroU32 = limit(1_000);
/// Buckets kept of each kind; beyond that the full ones are forgotten.
const BUCKETS_MAX: usize = 10_000;

type Buckets<K> = RateLimiter<K, HashMapStateStore<K>, DefaultClock>;

const fn limit(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}

/// The buckets of one server; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Rates {
    of_address: Arc<Buckets<IpAddr>>,
    of_operator: Arc<Buckets<String>>,
}

impl Default for Rates {
    fn default() -> Self {
        let address = Quota::per_second(ADDRESS_A_SECOND).allow_burst(ADDRESS_BURST);
        let operator = Quota::per_second(OPERATOR_A_SECOND).allow_burst(OPERATOR_BURST);
        Self {
            of_address: Arc::new(RateLimiter::hashmap(address)),
            of_operator: Arc::new(RateLimiter::hashmap(operator)),
        }
    }
}

impl Rates {
    /// Whether an address may ask once more.
    pub(super) fn check_address(&self, visit: &Visit) -> Result<(), ApiError> {
        let Some(address) = visit.address else { return Ok(()) };
        check(&self.of_address, &address, "this address asks too fast")
    }

    /// Whether an operator may ask once more.
    pub(super) fn check_operator(&self, caller: &Caller) -> Result<(), ApiError> {
        check(&self.of_operator, &caller.name().to_owned(), "this operator asks too fast")
    }
}

fn check<K: std::hash::Hash + Eq + Clone>(
    buckets: &Buckets<K>,
    key: &K,
    detail: &'static str,
) -> Result<(), ApiError> {
    if buckets.len() > BUCKETS_MAX {
        buckets.retain_recent();
    }
    buckets.check_key(key).map_err(|_| ApiError::too_many(detail))
}
