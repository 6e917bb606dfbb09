//! What the simulated devices of one process share, since it is the same for all of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sealift_protocol::digest::Digest;
use sealift_protocol::profile::Baseline;

/// Baselines at a time: those of a few models, before and after a rollout.
const BASELINES_MAX: usize = 16;

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
    baselines: Arc<Mutex<BTreeMap<Digest, Arc<Baseline>>>>,
    obeying: Arc<Mutex<BTreeMap<u64, u32>>>,
}

impl Crowd {
    /// A crowd of so many.
    pub fn of(devices: u32) -> Self {
        let (baselines, obeying) = Default::default();
        Self { devices, baselines, obeying }
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

    /// The baseline of an image, which was checked against its digest: as another device has read it, or as `read` does.
    pub(crate) fn baseline<E>(
        &self,
        image: Digest,
        read: impl FnOnce() -> Result<Arc<Baseline>, E>,
    ) -> Result<Arc<Baseline>, E> {
        let known =
            self.baselines.lock().unwrap_or_else(PoisonError::into_inner).get(&image).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let baseline = read()?;
        let mut baselines = self.baselines.lock().unwrap_or_else(PoisonError::into_inner);
        if baselines.len() >= BASELINES_MAX {
            baselines.clear();
        }
        baselines.insert(image, Arc::clone(&baseline));
        Ok(baseline)
    }
}
