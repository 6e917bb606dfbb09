//! What waits for one device. Of everything but requests only the newest counts, so that little waits however long a device is slow, and
//! nothing that still holds is ever dropped for want of room.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU16;

use bytes::Bytes;
use sealift_protocol::topic::{Broadcast, Down, Topic};

use crate::certificate::Identity;

/// Requests that wait for one device; each has a deadline of its own, and somebody who waits for it.
const REQUESTS_MAX: usize = 32;

/// On what a device is told something. In this order, if several things wait: a halt before all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Channel {
    Broadcast(Broadcast),
    Down(Down),
}

/// What a device may subscribe to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Filter {
    /// All that is for it alone.
    Own,
    /// All that is for every device of its tenant.
    Broadcasts,
    /// One topic.
    One(Channel),
}

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

impl Filter {
    /// Parses what `identity` subscribes to; none if it is nothing of its own.
    pub(super) fn parse(identity: &Identity, text: &str) -> Option<Self> {
        let [own, broadcasts] = Topic::device_filters(&identity.tenant, &identity.device);
        if text == own {
            return Some(Self::Own);
        }
        if text == broadcasts {
            return Some(Self::Broadcasts);
        }
        match Topic::parse(text).ok()? {
            Topic::Down(tenant, device, down) => (tenant == identity.tenant
                && device == identity.device)
                .then_some(Self::One(Channel::Down(down))),
            Topic::Broadcast(tenant, broadcast) => {
                (tenant == identity.tenant).then_some(Self::One(Channel::Broadcast(broadcast)))
            }
            Topic::Up(..) => None,
        }
    }

    /// Whether a message on `channel` matches.
    pub(super) fn covers(self, channel: Channel) -> bool {
        match (self, channel) {
            (Self::Own, Channel::Down(_)) | (Self::Broadcasts, Channel::Broadcast(_)) => true,
            (Self::One(one), channel) => one == channel,
            (Self::Own, Channel::Broadcast(_)) | (Self::Broadcasts, Channel::Down(_)) => false,
        }
    }
}

impl Channel {
    /// All of them.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let broadcasts = Broadcast::ALL.into_iter().map(Self::Broadcast);
        broadcasts.chain(Down::ALL.into_iter().map(Self::Down))
    }

    /// The topic, for this device.
    pub(super) fn topic(self, identity: &Identity) -> Topic {
        match self {
            Self::Broadcast(broadcast) => Topic::Broadcast(identity.tenant.clone(), broadcast),
            Self::Down(down) => Topic::Down(identity.tenant.clone(), identity.device.clone(), down),
        }
    }

    /// MQTT 5, 4.3: a receipt says all that those before it said, and without any the device sends again. It is most of what goes down,
    /// so that it is not acknowledged in turn.
    const fn may_be_lost(self) -> bool {
        matches!(self, Self::Down(Down::Ack))
    }
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
