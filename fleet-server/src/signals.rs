//! How the tasks of the server wake each other. A signal that is lost costs a moment, never a decision: every loop also looks by itself.

use std::sync::Arc;

use sealift_protocol::id::DeviceId;
use tokio::sync::{Notify, broadcast};

/// Revocations on their way to the broker; one that is lost is caught by the next message of the device.
const REVOKED_MAX: usize = 64;

/// All signals; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    orders: Notify,
    rollouts: Notify,
    directives: Notify,
    profiles: Notify,
    answers: Notify,
    revoked: broadcast::Sender<DeviceId>,
}

impl Default for Signals {
    fn default() -> Self {
        let (orders, rollouts, directives, profiles, answers) = Default::default();
        let revoked = broadcast::Sender::new(REVOKED_MAX);
        Self { inner: Arc::new(Inner { orders, rollouts, directives, profiles, answers, revoked }) }
    }
}

impl Signals {
    /// Somebody has decided something about rollouts and looks on.
    pub(crate) fn orders(&self) -> &Notify {
        &self.inner.orders
    }

    /// Something came that a rollout may wait for.
    pub(crate) fn rollouts(&self) -> &Notify {
        &self.inner.rollouts
    }

    /// A directive was signed that the broker does not have.
    pub(crate) fn directives(&self) -> &Notify {
        &self.inner.directives
    }

    /// A profile window was stored.
    pub(crate) fn profiles(&self) -> &Notify {
        &self.inner.profiles
    }

    /// A device has answered a request; all who wait for one look.
    pub(crate) fn answers(&self) -> &Notify {
        &self.inner.answers
    }

    /// A device was revoked: its connection must end.
    pub(crate) fn revoke(&self, device: DeviceId) {
        // Without a broker that listens there is no connection to end.
        let _ = self.inner.revoked.send(device);
    }

    /// Devices that are revoked from now on.
    pub(crate) fn revoked(&self) -> broadcast::Receiver<DeviceId> {
        self.inner.revoked.subscribe()
    }
}
