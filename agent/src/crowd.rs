//! What the simulated devices of one process share, since it is the same for all of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sealift_protocol::digest::Digest;
use sealift_protocol::image::IoContract;
use sealift_protocol::profile::Baseline;

/// Images at a time: those of a few models, before and after a rollout.
const IMAGES_MAX: usize = 16;

/// The more devices a process has, the less often each looks at its deadlines: what they would all do for nothing is not what a fleet of
/// them is made to show.
const TICK_MS: u64 = 500;
const TICK_MS_EACH: u64 = 2;
const TICK_MS_MAX: u64 = 5_000;

/// Lists of halted rollouts that some obey and others do not yet.
const LISTS_MAX: usize = 16;

/// One of many devices in a process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Crowd {
    devices: u32,
    images: Arc<Mutex<BTreeMap<Digest, Known>>>,
    obeying: Arc<Mutex<BTreeMap<u64, u32>>>,
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
        let (images, obeying) = Default::default();
        Self { devices, images, obeying }
    }

    /// How often one of them looks at its deadlines.
    pub(crate) fn tick(&self) -> Duration {
        let millis = TICK_MS + TICK_MS_EACH * u64::from(self.devices);
        Duration::from_millis(millis.min(TICK_MS_MAX))
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
    use super::*;

    #[test]
    fn the_more_they_are_the_less_often_each_looks_up_to_a_limit() {
        let tick = |devices| Crowd::of(devices).tick();
        assert!(tick(1) < tick(1_000));
        assert_eq!((tick(1).as_millis(), tick(5_000).as_millis()), (502, 5_000));
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
