//! What has changed, for browsers that watch: numbered, bounded, sent to whoever listens at the moment.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealift_protocol::id::{DeviceId, RolloutId};
use serde::Serialize;
use tokio::sync::broadcast;

/// Events that a slow listener may be behind; then it is cut off and starts anew.
const BEHIND_MAX: usize = 1_024;
/// Events kept for listeners whose connection broke for a moment.
const KEPT_MAX: usize = 1_024;
/// Devices looked up in one go. More changes than that are told as a change of the overview alone.
const DEVICES_MAX: usize = 500;

/// Something that has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Rises by one.
    pub(crate) number: u64,
    /// `device`, `rollout`, `alert` or `status`.
    pub(crate) kind: &'static str,
    /// The new view, as JSON.
    pub(crate) body: Arc<str>,
}

/// What was touched since somebody last looked.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// Devices.
    pub(crate) devices: BTreeSet<DeviceId>,
    /// Rollouts.
    pub(crate) rollouts: BTreeSet<RolloutId>,
    /// Whether the overview has changed.
    pub(crate) status: bool,
}

/// Where changes are told and listened to; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Hub {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sender: broadcast::Sender<Event>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    kept: VecDeque<Event>,
    touched: Touched,
}

impl Default for Hub {
    fn default() -> Self {
        let sender = broadcast::Sender::new(BEHIND_MAX);
        Self { inner: Arc::new(Inner { sender, state: Mutex::default() }) }
    }
}

impl Hub {
    /// A device has changed.
    pub(crate) fn touch_device(&self, device: DeviceId) {
        let mut state = self.state();
        state.touched.status = true;
        if state.touched.devices.len() < DEVICES_MAX {
            state.touched.devices.insert(device);
        }
    }

    /// Something that only the overview shows has changed.
    pub(crate) fn touch_status(&self) {
        self.state().touched.status = true;
    }

    /// A rollout has changed.
    pub(crate) fn touch_rollout(&self, rollout: RolloutId) {
        let mut state = self.state();
        state.touched.status = true;
        state.touched.rollouts.insert(rollout);
    }

    /// What was touched since the last call.
    pub(crate) fn take_touched(&self) -> Touched {
        std::mem::take(&mut self.state().touched)
    }

    /// Whether anybody listens.
    pub(crate) fn has_listeners(&self) -> bool {
        self.inner.sender.receiver_count() > 0
    }

    /// Tells all listeners of `view`.
    pub(crate) fn publish<T: Serialize>(&self, kind: &'static str, view: &T) {
        let body = match serde_json::to_string(view) {
            Ok(body) => body.into(),
            Err(error) => {
                tracing::error!(%error, kind, "event not encoded");
                return;
            }
        };
        let mut state = self.state();
        state.last += 1;
        let event = Event { number: state.last, kind, body };
        state.kept.push_back(event.clone());
        if state.kept.len() > KEPT_MAX {
            state.kept.pop_front();
        }
        // In the lock, so that events leave in the order of their numbers. Without listeners nobody is told.
        let _ = self.inner.sender.send(event);
    }

    /// Listens from now on; also returns what came after event `after`, as far as it is kept.
    pub(crate) fn listen(&self, after: Option<u64>) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let state = self.state();
        let missed = after.map_or_else(Vec::new, |after| {
            state.kept.iter().filter(|event| event.number > after).cloned().collect()
        });
        (missed, self.inner.sender.subscribe())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of the state is complete by itself, so a panic elsewhere leaves it usable.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_was_cut_off_gets_what_it_missed() {
        let hub = Hub::default();
        hub.publish("status", &1);
        hub.publish("status", &2);

        let (missed, mut receiver) = hub.listen(Some(1));
        hub.publish("status", &3);

        assert_eq!(missed.iter().map(|event| event.number).collect::<Vec<_>>(), [2]);
        assert_eq!(receiver.try_recv().map(|event| event.number), Ok(3));
    }

    #[test]
    fn what_is_touched_twice_is_looked_up_once() {
        let hub = Hub::default();
        let device = DeviceId::parse("cam-1").unwrap();
        hub.touch_device(device.clone());
        hub.touch_device(device.clone());
        assert_eq!(hub.take_touched().devices, BTreeSet::from([device]));
        assert!(!hub.take_touched().status);
    }
}
