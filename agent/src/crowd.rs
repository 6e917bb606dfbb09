//! What the simulated devices of one process share, since it is the same for all of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use sealift_protocol::digest::Digest;
use sealift_protocol::profile::Baseline;

/// Baselines at a time: those of a few models, before and after a rollout.
const BASELINES_MAX: usize = 16;

/// One of many devices in a process; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Crowd {
    baselines: Arc<Mutex<BTreeMap<Digest, Arc<Baseline>>>>,
}

impl Crowd {
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
