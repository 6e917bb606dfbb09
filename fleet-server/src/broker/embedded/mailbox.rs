//! What waits for one device. Of everything but requests only the newest counts, so that little waits however long a device is slow, and
//! nothing that still holds is ever dropped for want of room.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU16;

use bytes::Bytes;
use sealift_protocol::topic::Down;

use crate::broker::access::{Channel, Filter};

/// Requests that wait for one device; each has a deadline of its own, and somebody who waits for it.
const REQUESTS_MAX: usize = 32;

/// How a device wants what it subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Wish {
    /// Whether it acknowledges: QoS 1.
    pub(super) acknowledges: bool,
    /// MQTT 5, 3.8.3.1: whether it is told that a message is retained even when it is new.
    pub(super) retained_as_published: bool,
}

/// A message for a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parcel {
    pub(super) channel: Channel,
    pub(super) payload: Bytes,
    pub(super) is_retained: bool,
    /// QoS 1.
    is_acknowledged: bool,
}

/// A parcel on its way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// With QoS 1.
    pub(super) id: Option<NonZeroU16>,
    /// It was sent on an earlier connection, and not acknowledged.
    pub(super) is_again: bool,
    pub(super) parcel: Parcel,
}

/// How a message comes to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was published just now; to be retained or not.
    New { is_retained: bool },
    /// It was kept until the device subscribed.
    Kept,
}

/// Subscriptions, and what waits for them.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    /// A connection has had it.
    is_begun: bool,
    subscriptions: BTreeMap<Filter, Wish>,
    newest: BTreeMap<Channel, Parcel>,
    requests: VecDeque<Parcel>,
    /// Sent with QoS 1, oldest first.
    unacknowledged: VecDeque<(NonZeroU16, Parcel)>,
    /// Sent so on an earlier connection.
    again: VecDeque<(NonZeroU16, Parcel)>,
    last_id: u16,
}

impl Mailbox {
    /// Subscribes, or changes how; true if it is a new subscription.
    pub(super) fn subscribe(&mut self, filter: Filter, wish: Wish) -> bool {
        self.subscriptions.insert(filter, wish).is_none()
    }

    /// Ends a subscription; false if there is none.
    pub(super) fn unsubscribe(&mut self, filter: Filter) -> bool {
        self.subscriptions.remove(&filter).is_some()
    }

    /// Puts in what the device has subscribed to; false if it has not.
    ///
    /// MQTT 5, 3.3.4: where several subscriptions match, a message comes once, with the highest QoS of them.
    pub(super) fn put(&mut self, channel: Channel, payload: &Bytes, origin: Origin) -> bool {
        let matching = self.subscriptions.iter().filter(|(filter, _)| filter.covers(channel));
        let wish = matching.map(|(_, wish)| *wish).reduce(|one, other| Wish {
            acknowledges: one.acknowledges || other.acknowledges,
            retained_as_published: one.retained_as_published || other.retained_as_published,
        });
        let Some(wish) = wish else { return false };
        let parcel = Parcel {
            channel,
            payload: payload.clone(),
            is_retained: match origin {
                Origin::Kept => true,
                Origin::New { is_retained } => is_retained && wish.retained_as_published,
            },
            is_acknowledged: wish.acknowledges && !channel.may_be_lost(),
        };
        if channel != Channel::Down(Down::Request) {
            self.newest.insert(channel, parcel);
            return true;
        }
        if self.requests.len() == REQUESTS_MAX {
            self.requests.pop_front();
        }
        self.requests.push_back(parcel);
        true
    }

    /// The next parcel to send, if fewer than `window` are unacknowledged or it needs no acknowledgement.
    pub(super) fn next(&mut self, window: usize) -> Option<Sent> {
        let is_open = self.unacknowledged.len() < window;
        if is_open && let Some((id, parcel)) = self.again.pop_front() {
            self.unacknowledged.push_back((id, parcel.clone()));
            return Some(Sent { id: Some(id), is_again: true, parcel });
        }
        let parcel = self.take(|parcel| is_open || !parcel.is_acknowledged)?;
        let id = parcel.is_acknowledged.then(|| self.free_id());
        if let Some(id) = id {
            self.unacknowledged.push_back((id, parcel.clone()));
        }
        Some(Sent { id, is_again: false, parcel })
    }

    /// Notes an acknowledgement. One that nothing waits for says nothing.
    pub(super) fn acknowledged(&mut self, id: NonZeroU16) {
        self.unacknowledged.retain(|(sent, _)| *sent != id);
    }

    /// Begins a connection: the next one of a session, or the first one of a new session; true if there was one to go on with.
    ///
    /// MQTT 5, 4.4: what was sent and not acknowledged is sent again first, in its order and under its number.
    pub(super) fn begin(&mut self, resumes: bool) -> bool {
        if !resumes || !self.is_begun {
            *self = Self { is_begun: true, ..Self::default() };
            return false;
        }
        let mut again = std::mem::take(&mut self.unacknowledged);
        again.append(&mut self.again);
        self.again = again;
        true
    }

    fn take(&mut self, may_go: impl Fn(&Parcel) -> bool) -> Option<Parcel> {
        let newest = self.newest.iter().find(|(_, parcel)| may_go(parcel));
        let newest = newest.map(|(channel, _)| *channel);
        let request = self.requests.front().filter(|parcel| may_go(parcel));
        let is_request_first = request.is_some()
            && newest.is_none_or(|channel| channel > Channel::Down(Down::Request));
        if is_request_first { self.requests.pop_front() } else { self.newest.remove(&newest?) }
    }

    fn free_id(&mut self) -> NonZeroU16 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            let Some(id) = NonZeroU16::new(self.last_id) else { continue };
            let mut taken = self.unacknowledged.iter().chain(&self.again).map(|(id, _)| *id);
            if !taken.any(|taken| taken == id) {
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests;
