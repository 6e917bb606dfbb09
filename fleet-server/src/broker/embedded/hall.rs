//! Who is connected, what is retained, and how the one comes to the other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sealift_protocol::topic::Topic;
use tokio::sync::{Notify, watch};

use super::mailbox::{Mailbox, Origin, Wish};
use crate::broker::Message;
use crate::broker::access::{Channel, Filter};
use crate::certificate::Identity;

/// All devices that are connected, or have a session.
#[derive(Debug, Default)]
pub(super) struct Hall {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    places: BTreeMap<Identity, Arc<Place>>,
    retained: BTreeMap<Topic, Bytes>,
}

/// The place of one device: that of its session, from its first connection until the session ends.
#[derive(Debug)]
pub(super) struct Place {
    mailbox: Mutex<Mailbox>,
    woken: Notify,
    claim: watch::Sender<Claim>,
    /// Held by the connection, or by the last will of the one before. A newcomer waits for it.
    seat: Arc<tokio::sync::Mutex<()>>,
}

/// A place as it is claimed for one connection. Dropped, it is given up, unless another connection has claimed it since.
#[derive(Debug)]
pub(super) struct Claimed {
    hall: Arc<Hall>,
    pub(super) identity: Identity,
    pub(super) place: Arc<Place>,
    /// Tells this claim from later ones.
    number: u64,
}

/// Whose the place is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// The connection with this number, which goes on with the session or begins another.
    Connection { number: u64, resumes: bool },
    /// Nobody's: the session is ended.
    Nobody,
}

/// What a subscription is to be sent of what is retained: MQTT 5, 3.8.3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backlog {
    Always,
    IfNew,
    Never,
}

impl Hall {
    /// Claims the place of `identity`, from whoever has it.
    pub(super) fn claim(self: &Arc<Self>, identity: Identity, resumes: bool) -> Claimed {
        let mut state = self.state();
        let place = state.places.entry(identity.clone()).or_insert_with(|| Arc::new(Place::new()));
        let place = Arc::clone(place);
        let number = place.newest() + 1;
        place.claim.send_replace(Claim::Connection { number, resumes });
        drop(state);
        Claimed { hall: Arc::clone(self), identity, place, number }
    }

    /// Ends the connection and the session of a device, if there is one.
    pub(super) fn end(&self, identity: &Identity) {
        if let Some(place) = self.state().places.remove(identity) {
            place.claim.send_replace(Claim::Nobody);
        }
    }

    /// Gives a message to whoever has subscribed to it, and keeps it for those to come if it is to be retained.
    ///
    /// MQTT 5, 3.3.1.3: the newest is kept for each topic; an empty one only removes it.
    pub(super) fn publish(&self, message: Message) {
        let Message { topic, payload, retain } = message;
        let payload = Bytes::from(payload);
        let origin = Origin::New { is_retained: retain };
        let mut state = self.state();
        match &topic {
            Topic::Down(tenant, device, down) => {
                let identity = Identity { tenant: tenant.clone(), device: device.clone() };
                if let Some(place) = state.places.get(&identity) {
                    place.put(Channel::Down(*down), &payload, origin);
                }
            }
            Topic::Broadcast(tenant, broadcast) => {
                let of_tenant = state.places.iter().filter(|(who, _)| who.tenant == *tenant);
                for (_, place) in of_tenant {
                    place.put(Channel::Broadcast(*broadcast), &payload, origin);
                }
            }
            Topic::Up(..) => return, // the server sends nothing there
        }
        if retain && payload.is_empty() {
            state.retained.remove(&topic);
        } else if retain {
            state.retained.insert(topic, payload);
        }
    }

    /// Subscribes a device, and gives it what is retained. Nothing can be published in between, so that it ends on the newest.
    pub(super) fn subscribe(
        &self,
        (identity, place): (&Identity, &Place),
        (filter, wish): (Filter, Wish),
        backlog: Backlog,
    ) {
        let state = self.state();
        let is_new = place.mailbox().subscribe(filter, wish);
        let is_due = match backlog {
            Backlog::Always => true,
            Backlog::IfNew => is_new,
            Backlog::Never => false,
        };
        if !is_due {
            return;
        }
        for channel in Channel::all().filter(|channel| filter.covers(*channel)) {
            if let Some(payload) = state.retained.get(&channel.topic(identity)) {
                place.put(channel, payload, Origin::Kept);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claimed {
    /// Waits until the place is to be somebody else's.
    pub(super) async fn lost(&self) -> Claim {
        let is_other = |claim: &Claim| match *claim {
            Claim::Connection { number: newest, .. } => newest != self.number,
            Claim::Nobody => true,
        };
        let mut claims = self.place.claim.subscribe();
        let lost = claims.wait_for(is_other).await.map(|claim| *claim);
        lost.unwrap_or(Claim::Nobody)
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let mut state = self.hall.state();
        let held = state.places.get(&self.identity);
        let is_own = held.is_some_and(|held| Arc::ptr_eq(held, &self.place));
        if is_own && self.place.newest() == self.number {
            state.places.remove(&self.identity);
        }
    }
}

impl Place {
    fn new() -> Self {
        let claim = Claim::Connection { number: 0, resumes: false };
        Self {
            mailbox: Mutex::default(),
            woken: Notify::new(),
            claim: watch::Sender::new(claim),
            seat: Arc::default(),
        }
    }

    /// Waits until whoever had the place before has left it.
    pub(super) async fn take_seat(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.seat).lock_owned().await
    }

    /// Begins a connection; true if there was a session to go on with.
    pub(super) fn begin(&self, resumes: bool) -> bool {
        self.mailbox().begin(resumes)
    }

    /// Waits until something was put in.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Puts a message in and wakes the connection.
    pub(super) fn put(&self, channel: Channel, payload: &Bytes, origin: Origin) {
        if self.mailbox().put(channel, payload, origin) {
            self.woken.notify_one();
        }
    }

    /// What waits for the device.
    pub(super) fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn newest(&self) -> u64 {
        match *self.claim.borrow() {
            Claim::Connection { number, .. } => number,
            Claim::Nobody => 0,
        }
    }
}

#[cfg(test)]
mod tests;
