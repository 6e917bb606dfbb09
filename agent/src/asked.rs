//! Which requests this device has taken, so that each is answered once, whatever is sent again, and over restarts.
//!
//! Whoever reads along at a broker can send a request again for as long as it is good. What it asks for would be done once more: the user's
//! processor pays, and a log tail says what has happened since.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use sealift_protocol::id::UnixMillis;
use sealift_protocol::limits::REQUEST_LIFE_MS_MAX;
use sealift_protocol::request::{Nonce, Request};

use crate::disk::{self, Secrecy};

const FILE: &str = "asked";

/// A number.
const BYTES_MAX: u64 = 64;

/// Requests that are remembered by name: more than a device answers within the life of one.
const NONCES_MAX: usize = 256;

/// The requests that were taken.
///
/// Rule (trust.md, 8, "generation > stored", for what has no generation): at or below the floor everything counts as taken, by the
/// time at which it was signed; above it every request is known by its nonce. What is forgotten raises the floor, and a restart, which
/// forgets all, raises it to the newest that was taken. Both times are the signer's, so that the device's own clock does not matter.
#[derive(Debug)]
pub(crate) struct Taken {
    floor: UnixMillis,
    newest: UnixMillis,
    nonces: BTreeSet<(UnixMillis, Nonce)>,
}

/// The request was taken before, or may have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("request was taken before, or is older than one that was")]
pub(crate) struct TakenBefore;

impl Taken {
    /// What was taken before the agent was restarted. Where that cannot be read, whatever could have been signed by `now` counts as taken.
    pub(crate) fn read(store: &Path, now: UnixMillis) -> Self {
        let floor = match disk::read(&store.join(FILE), BYTES_MAX) {
            Ok(None) => UnixMillis(i64::MIN),
            Ok(Some(bytes)) => number(&bytes).unwrap_or(now.plus(REQUEST_LIFE_MS_MAX)),
            Err(_) => now.plus(REQUEST_LIFE_MS_MAX),
        };
        Self { floor, newest: floor, nonces: BTreeSet::new() }
    }

    /// Takes a request, once. Before it is answered, [`Taken::write`] must have been.
    pub(crate) fn take(&mut self, request: &Request) -> Result<(), TakenBefore> {
        let Request { issued_at, nonce, .. } = *request;
        if issued_at <= self.floor || !self.nonces.insert((issued_at, nonce)) {
            return Err(TakenBefore);
        }
        self.newest = self.newest.max(issued_at);
        while self.nonces.len() > NONCES_MAX {
            if let Some((oldest, _)) = self.nonces.pop_first() {
                self.floor = oldest;
            }
        }
        Ok(())
    }

    /// Keeps over a restart what was taken.
    pub(crate) fn write(&self, store: &Path) -> io::Result<()> {
        disk::replace(&store.join(FILE), self.newest.0.to_string().as_bytes(), Secrecy::Private)
    }
}

fn number(bytes: &[u8]) -> Option<UnixMillis> {
    Some(UnixMillis(std::str::from_utf8(bytes).ok()?.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sealift_protocol::id::{DeviceId, TenantId};
    use sealift_protocol::request::Ask;

    use super::*;

    fn request(issued_at: i64, nonce: u8) -> Request {
        let whom = (TenantId::parse("main").unwrap(), DeviceId::parse("cam-1").unwrap());
        let times = (UnixMillis(issued_at), UnixMillis(issued_at + 60_000));
        Request::new(whom, Nonce::new([nonce; 16]), times, "alice", Ask::Diagnose)
    }

    fn fresh(store: &Path) -> Taken {
        Taken::read(store, UnixMillis(1_000_000))
    }

    #[test]
    fn a_request_is_taken_once_and_another_of_the_same_moment_as_well() {
        let store = tempfile::tempdir().unwrap();
        let mut taken = fresh(store.path());
        assert!(taken.take(&request(7, 1)).is_ok());
        assert!(taken.take(&request(7, 2)).is_ok());
        assert!(taken.take(&request(5, 3)).is_ok(), "of a server whose clock is behind");
        assert_eq!(taken.take(&request(7, 1)), Err(TakenBefore));
        assert_eq!(taken.take(&request(5, 3)), Err(TakenBefore));
    }

    #[test]
    fn after_a_restart_nothing_is_taken_that_may_have_been() {
        let store = tempfile::tempdir().unwrap();
        let mut taken = fresh(store.path());
        taken.take(&request(7, 1)).unwrap();
        taken.take(&request(5, 2)).unwrap();
        taken.write(store.path()).unwrap();

        let mut taken = fresh(store.path());
        for (issued_at, nonce) in [(7, 1), (5, 2), (6, 9)] {
            assert_eq!(taken.take(&request(issued_at, nonce)), Err(TakenBefore));
        }
        assert!(taken.take(&request(8, 3)).is_ok());
    }

    #[test]
    fn a_file_that_cannot_be_read_lets_nothing_of_before_through() {
        let store = tempfile::tempdir().unwrap();
        std::fs::write(store.path().join(FILE), "yesterday").unwrap();
        let mut taken = fresh(store.path());
        let last = 1_000_000 + REQUEST_LIFE_MS_MAX;
        assert_eq!(taken.take(&request(last, 1)), Err(TakenBefore));
        assert!(taken.take(&request(last + 1, 1)).is_ok());
    }

    proptest! {
        /// Whatever is sent, in whatever order, again and again, and with a restart in between: nothing is taken twice, and no more is
        /// remembered than there is room for.
        #[test]
        fn nothing_is_taken_twice(
            sent in prop::collection::vec((0_i64..40, any::<u8>()), 1..1_200), restart in 0_usize..1_200,
        ) {
            let store = tempfile::tempdir().unwrap();
            let (mut taken, mut seen) = (fresh(store.path()), BTreeSet::new());
            for (at, (issued_at, nonce)) in sent.into_iter().enumerate() {
                if at == restart {
                    if !seen.is_empty() {
                        taken.write(store.path()).unwrap();
                    }
                    taken = fresh(store.path());
                }
                if taken.take(&request(issued_at, nonce)).is_ok() {
                    prop_assert!(seen.insert((issued_at, nonce)));
                }
                prop_assert!(taken.nonces.len() <= NONCES_MAX);
            }
        }
    }
}
