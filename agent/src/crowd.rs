//! What the simulated devices of one process share, since it is the same for all of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ed25519_dalek::VerifyingKey;
use sealift_protocol::cose::KeyId;
use sealift_protocol::digest::Digest;
use sealift_protocol::halt::{HaltList, HaltRefused, Listener, VerifiedHaltList};
use sealift_protocol::id::UnixMillis;
use sealift_protocol::image::IoContract;
use sealift_protocol::profile::Baseline;

use crate::health::{Health, Readings};

/// Images at a time: those of a few models, before and after a rollout.
const IMAGES_MAX: usize = 16;

/// The more devices a process has, the less often each looks at its deadlines: what they would all do for nothing is not what a fleet of
/// them is made to show.
const TICK_MS: u64 = 500;
const TICK_MS_EACH: u64 = 2;
const TICK_MS_MAX: u64 = 5_000;

/// Lists of halted rollouts that some obey and others do not yet.
const LISTS_MAX: usize = 16;

/// All are on one machine: what its kernel says of it holds so long.
const READINGS_MS: i64 = 1_000;

/// One of many devices in a process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Crowd {
    devices: u32,
    images: Arc<Mutex<BTreeMap<Digest, Known>>>,
    obeying: Arc<Mutex<BTreeMap<u64, u32>>>,
    machine: Arc<Mutex<Machine>>,
    heard: Arc<Mutex<Option<Heard>>>,
}

/// What the kernel says of the machine on which all of them are, and when it was asked.
#[derive(Debug, Default)]
struct Machine {
    health: Health,
    read: Option<(UnixMillis, Readings)>,
}

/// The newest list of halted rollouts that one of them has checked.
#[derive(Debug)]
struct Heard {
    message: Vec<u8>,
    list: VerifiedHaltList,
}

/// What the files of an image say.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) contract: Arc<IoContract>,
    pub(crate) baseline: Option<Arc<Baseline>>,
}

impl Crowd {
    /// A crowd of so many.
    pub fn of(devices: u32) -> Self {
        let (images, obeying, machine, heard) = Default::default();
        Self { devices, images, obeying, machine, heard }
    }

    /// How often one of them looks at its deadlines.
    pub(crate) fn tick(&self) -> Duration {
        let millis = TICK_MS + TICK_MS_EACH * u64::from(self.devices);
        Duration::from_millis(millis.min(TICK_MS_MAX))
    }

    /// Checks a list of halted rollouts for one of them. The signature of one message is checked for the first of them alone: in the field
    /// each has a processor of its own for it.
    pub(crate) fn check_halt(
        &self,
        message: &[u8],
        directors: &BTreeMap<KeyId, VerifyingKey>,
        listener: Listener<'_>,
    ) -> Result<VerifiedHaltList, HaltRefused> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(heard) = heard.as_ref().filter(|heard| heard.message == message) {
            return heard.list.again(directors, listener);
        }
        let list = HaltList::verify(message, directors, listener)?;
        *heard = Some(Heard { message: message.to_vec(), list: list.clone() });
        Ok(list)
    }

    /// One of them obeys a list of halted rollouts. When all do, the log says so: that is when a halt has reached them, before the server
    /// knows.
    pub(crate) fn obeys(&self, sequence: u64) {
        let mut obeying = self.obeying.lock().unwrap_or_else(PoisonError::into_inner);
        let count = obeying.entry(sequence).or_default();
        *count += 1;
        if *count == self.devices {
            tracing::info!(
                sequence,
                devices = self.devices,
                "all obey the list of halted rollouts"
            );
        }
        if obeying.len() > LISTS_MAX {
            obeying.pop_first();
        }
    }

    /// How the machine does on which all of them are, at a moment of a clock that never steps.
    pub(crate) fn readings(&self, now: UnixMillis, store: &Path) -> Readings {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        let Machine { health, read } = &mut *machine;
        match read {
            Some((at, readings)) if now.since(*at) < READINGS_MS => *readings,
            Some(_) | None => read.insert((now, health.read(store))).1,
        }
    }

    /// What an image says whose files were checked against its digest, if one of them has read it.
    pub(crate) fn known(&self, image: Digest) -> Option<Known> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner).get(&image).cloned()
    }

    /// One of them has read an image; the others need not.
    pub(crate) fn know(&self, image: Digest, known: Known) {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        if images.len() >= IMAGES_MAX {
            images.clear();
        }
        images.insert(image, known);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ed25519_dalek::SigningKey;
    use sealift_protocol::id::TenantId;

    use super::*;

    #[test]
    fn the_more_they_are_the_less_often_each_looks_up_to_a_limit() {
        let tick = |devices| Crowd::of(devices).tick();
        assert!(tick(1) < tick(1_000));
        assert_eq!((tick(1).as_millis(), tick(5_000).as_millis()), (502, 5_000));
    }

    #[test]
    fn what_the_machine_says_holds_for_all_and_for_a_second() {
        let (crowd, store) = (Crowd::of(2), tempfile::tempdir().unwrap());
        let free = |at, path: &Path| crowd.clone().readings(UnixMillis(at), path).disk_free_mb;
        let (here, nowhere) = (store.path(), Path::new("/nowhere"));

        let first = free(5_000, here);

        assert!(first > 0);
        assert_eq!((free(5_999, nowhere), free(6_000, nowhere)), (first, 0));
    }

    #[test]
    fn a_list_is_checked_for_each_and_its_signature_once() {
        let crowd = Crowd::of(2);
        let key = |seed: u8| SigningKey::from_bytes(&[seed; 32]);
        let kid = |seed: u8| KeyId::of(&key(seed).verifying_key());
        let trusted = |seed: u8| BTreeMap::from([(kid(seed), key(seed).verifying_key())]);
        let (ours, other) = (TenantId::parse("main").unwrap(), TenantId::parse("other").unwrap());
        let (signer, at) = (kid(7), UnixMillis(1));
        let list = HaltList::new(ours.clone(), (6, at), "night".to_owned(), BTreeSet::new());
        let (message, forged) = (list.sign(&key(7)).unwrap(), list.sign(&key(8)).unwrap());
        let check = |message: &[u8], seed: u8, (tenant, newest): (&TenantId, u64)| {
            let listener = Listener { tenant, newest: Some((newest, &signer)) };
            let checked = crowd.check_halt(message, &trusted(seed), listener);
            checked.map_or_else(|refused| refused.code(), |_| "ok")
        };
        assert_eq!(check(&forged, 7, (&ours, 5)), "cose.key");
        assert_eq!(check(&message, 7, (&ours, 5)), "ok");
        // From here on it is known.
        assert_eq!(check(&message, 7, (&ours, 5)), "ok");
        assert_eq!(check(&message, 7, (&ours, 6)), "halt.known");
        assert_eq!(check(&message, 7, (&ours, 7)), "halt.stale");
        assert_eq!(check(&message, 7, (&other, 5)), "halt.audience");
        assert_eq!(check(&message, 8, (&ours, 5)), "cose.key");
        assert_eq!(check(&forged, 7, (&ours, 5)), "cose.key");
    }

    #[test]
    fn images_are_known_to_all_and_not_without_end() {
        let crowd = Crowd::of(2);
        let contract = br#"{"schema":1,"inputs":[{"name":"x","datatype":"FP32","shape":[-1,2]}],
            "outputs":[{"name":"y","datatype":"FP32","shape":[-1,1]}]}"#;
        let contract = Arc::new(IoContract::parse(contract).unwrap());
        for image in 0..=IMAGES_MAX {
            let known = Known { contract: Arc::clone(&contract), baseline: None };
            crowd.know(Digest::of(image.to_string().as_bytes()), known);
        }
        let is_known = |image: usize| crowd.clone().known(Digest::of(image.to_string().as_bytes()));
        assert!(is_known(IMAGES_MAX).is_some());
        assert!(is_known(0).is_none());
    }
}
