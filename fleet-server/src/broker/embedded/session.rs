//! One connection of a device, from its first packet to its last will.
//!
//! ```text
//!  shaken hands ──▶ Hello ──▶ may it? ──▶ takes the place of its session ──▶ messages up and down
//!                                                                              │ said goodbye ────▶ its place waits, without the will
//!                                                                              │ lost ────────────▶ its place waits, and then its will is said
//!                                                                              └ another took it ─▶ the other goes on
//! ```
//! A message is acknowledged after its commit, and meanwhile the device is told what there is to tell. A session lasts as long as its
//! last will waits: whoever comes back later subscribes anew and finds what is retained.

use std::sync::Arc;
use std::time::Duration;

use rmqtt_codec::types::Publish;
use rmqtt_codec::v5::ConnectAckReason;
use sealift_protocol::topic::Down;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::hall::{Backlog, Claim, Claimed, Hall};
use super::mailbox::{Origin, Wish};
use super::wire::{Hello, Incoming, Outgoing, Reason, Will, Wire, WireError, qos};
use crate::broker::access::{Channel, Connect, Will as GivenWill, may_subscribe};
use crate::broker::gate::{Gate, Verdict};
use crate::certificate::{Identity, Presented, Whose};

/// Messages on their way to one device, unacknowledged.
const INFLIGHT_MAX: usize = 16;

/// The longest that a last will, and the session with it, waits for a device to come back.
const LINGER_MAX_S: u32 = 5 * 60;

/// A device that says less often that it is there is told to say it this often.
const KEEP_ALIVE_MAX_S: u16 = 10 * 60;

/// Time for the connection before to leave the place: it has something to write and its will to store at the most.
const LEAVE_MAX: Duration = Duration::from_secs(20);

/// Time for a device to take what is sent to it. A connection that is dead and not known to be holds the place as long at the most.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// Time for the goodbye; it helps whoever reads the device's log, and nobody else.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// What connections share.
#[derive(Clone)]
pub(super) struct Lobby {
    pub(super) hall: Arc<Hall>,
    pub(super) gate: Gate,
}

/// A device that has been let in.
pub(super) struct Session<S> {
    wire: Wire<S>,
    lobby: Lobby,
    /// Whose, and where what is for it waits.
    seated: Seated,
    keep_alive: Duration,
    window: usize,
}

/// The place of a device, while it is taken.
struct Seated {
    claimed: Claimed,
    will: Option<Will>,
    /// How long the place is kept without a connection.
    linger: Duration,
    _seat: OwnedMutexGuard<()>,
}

/// How a connection ended.
#[derive(Debug)]
enum End {
    /// The device has said so.
    Goodbye { leaves_will: bool, session_s: Option<u32> },
    /// It is gone, or has sent nothing for too long.
    Lost,
    /// It did what it may not, or cannot be served.
    Broken(Reason),
    /// The place is somebody else's now.
    Taken(Claim),
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Lost(error) => {
                tracing::debug!(%error, "connection of a device lost");
                Self::Lost
            }
            WireError::Refused(reason) => Self::Broken(reason),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Lets a device in that showed `certificate`; none if it may not, which it is told.
    pub(super) async fn begin(
        stream: S,
        certificate: Option<&Presented>,
        lobby: Lobby,
    ) -> Option<Self> {
        let mut wire = Wire::new(stream);
        let Ok(Incoming::Hello(hello)) = wire.read().await else { return None };
        match seat(&hello, certificate, &lobby).await {
            Ok((seated, session_present)) => {
                let is_seldom = !(1..=KEEP_ALIVE_MAX_S).contains(&hello.keep_alive_s);
                let keep_alive_s = if is_seldom { KEEP_ALIVE_MAX_S } else { hello.keep_alive_s };
                wire.push(Outgoing::Welcome {
                    session_present,
                    session_s: u32::try_from(seated.linger.as_secs()).unwrap_or(LINGER_MAX_S),
                    keep_alive_s: is_seldom.then_some(keep_alive_s),
                });
                let keep_alive = Duration::from_secs(keep_alive_s.into());
                let window = usize::from(hello.window.get()).min(INFLIGHT_MAX);
                Some(Self { wire, lobby, seated, keep_alive, window })
            }
            Err(reason) => {
                wire.push(Outgoing::NotWelcome(reason));
                part(wire).await;
                None
            }
        }
    }

    /// Serves the device to the end of its session, or until another connection goes on with it.
    pub(super) async fn run(mut self) {
        let end = self.converse().await;
        let Self { mut wire, lobby, mut seated, .. } = self;
        let goodbye = match end {
            End::Broken(reason) => Some(reason),
            End::Taken(Claim::Connection { .. }) => Some(Reason::SessionTakenOver),
            End::Taken(Claim::Nobody) => Some(Reason::AdministrativeAction),
            End::Goodbye { .. } | End::Lost => None,
        };
        if let Some(reason) = goodbye {
            tracing::debug!(device = %seated.claimed.identity.device, ?reason, "connection of a device ended");
            wire.push(Outgoing::Goodbye(reason));
        }
        part(wire).await;
        if let End::Goodbye { leaves_will, session_s } = end {
            seated.will = seated.will.take().filter(|_| leaves_will);
            let asked = session_s.map_or(seated.linger, |asked| Duration::from_secs(asked.into()));
            seated.linger = seated.linger.min(asked);
        }
        let claim = match end {
            End::Taken(claim) => Some(claim),
            End::Goodbye { .. } | End::Lost | End::Broken(_) => seated.linger().await,
        };
        seated.say_will(claim, &lobby.gate).await;
    }

    async fn converse(&mut self) -> End {
        // MQTT 5, 3.1.2.10: a client is gone after one and a half times its keep alive without a packet.
        let silence_max = self.keep_alive.mul_f32(1.5);
        let mut heard = Instant::now();
        loop {
            if let Err(end) = self.deliver().await {
                return end;
            }
            let claimed = &self.seated.claimed;
            let packet = tokio::select! {
                biased;
                claim = claimed.lost() => return End::Taken(claim),
                () = claimed.place.woken() => continue,
                packet = self.wire.read() => packet,
                () = sleep_until(heard + silence_max) => return End::Broken(Reason::KeepAliveTimeout),
            };
            heard = Instant::now();
            let done = match packet {
                Ok(packet) => self.take(packet).await,
                Err(error) => Err(error.into()),
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    async fn take(&mut self, packet: Incoming) -> Result<(), End> {
        match packet {
            Incoming::Message(message) => self.store(*message).await?,
            Incoming::Acknowledged(id) => self.seated.claimed.place.mailbox().acknowledged(id),
            Incoming::Subscribe { id, filters } => {
                let mut granted = Vec::with_capacity(filters.len());
                for filter in &filters {
                    granted.push(subscribe(&self.lobby, &self.seated.claimed, filter).await);
                }
                self.wire.push(Outgoing::Subscribed { id, granted });
            }
            Incoming::Unsubscribe { id, filters } => {
                let Claimed { identity, place, .. } = &self.seated.claimed;
                let known = filters.iter().map(|filter| {
                    let filter = may_subscribe(identity, filter);
                    filter.is_ok_and(|filter| place.mailbox().unsubscribe(filter))
                });
                self.wire.push(Outgoing::Unsubscribed { id, known: known.collect() });
            }
            Incoming::Ping => self.wire.push(Outgoing::Pong),
            Incoming::Goodbye { leaves_will, session_s } => {
                return Err(End::Goodbye { leaves_will, session_s });
            }
            Incoming::Hello(_) => return Err(End::Broken(Reason::ProtocolError)),
            Incoming::Refused(reason) => return Err(End::Broken(reason)),
        }
        Ok(())
    }

    /// Has the gate store a message; whatever there is to tell the device meanwhile is told.
    async fn store(&mut self, message: Publish) -> Result<(), End> {
        let Publish { topic, payload, packet_id, retain, .. } = message;
        let claimed @ Claimed { identity, place, .. } = &self.seated.claimed;
        // In a box: it is large, and nearly all connections wait for their next message.
        let mut stored = Box::pin(self.lobby.gate.publish(identity, &topic, &payload, retain));
        let verdict = loop {
            tokio::select! {
                biased;
                verdict = &mut stored => break verdict,
                // Stored or not, it is not acknowledged: the device sends it again where it may.
                claim = claimed.lost() => return Err(End::Taken(claim)),
                () = place.woken() => deliver(&mut self.wire, &self.seated, self.window).await?,
            }
        };
        drop(stored);
        let is_refused = match verdict {
            Verdict::Stored(receipt) => {
                if let Some(receipt) = receipt {
                    let origin = Origin::New { is_retained: false };
                    place.put(Channel::Down(Down::Ack), &receipt.into(), origin);
                }
                false
            }
            Verdict::Refused => true,
            // The device's spool still holds the message; it sends it again on its next connection.
            Verdict::NotStored => return Err(End::Broken(Reason::UnspecifiedError)),
        };
        let Some(id) = packet_id else { return Ok(()) };
        // MQTT 3.1.1, 3.3.5: a refusal cannot be said, and an acknowledgement would be a lie.
        if is_refused && !self.wire.says_why() {
            return Err(End::Broken(Reason::NotAuthorized));
        }
        self.wire.push(Outgoing::Received { id, is_refused });
        Ok(())
    }

    async fn deliver(&mut self) -> Result<(), End> {
        deliver(&mut self.wire, &self.seated, self.window).await
    }
}

/// Writes what waits, and closes. One that takes nothing any more learns nothing.
async fn part<S: AsyncRead + AsyncWrite + Unpin>(mut wire: Wire<S>) {
    let close = async {
        let said = wire.flush().await;
        (said, wire.close().await)
    };
    let _unheard = timeout(GOODBYE_MAX, close).await;
}

/// Subscribes if the gate allows it; whether with QoS 1.
async fn subscribe(
    Lobby { hall, gate }: &Lobby,
    Claimed { identity, place, .. }: &Claimed,
    (text, wish, backlog): &(String, Wish, Backlog),
) -> Option<bool> {
    let filter = gate.subscribe(identity, text).await?;
    hall.subscribe((identity, place), (filter, *wish), *backlog);
    Some(wish.acknowledges)
}

/// Sends what waits, and what was answered.
async fn deliver<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    seated: &Seated,
    window: usize,
) -> Result<(), End> {
    let Claimed { identity, place, .. } = &seated.claimed;
    loop {
        let next = place.mailbox().next(window);
        if let Some(sent) = &next {
            wire.push(Outgoing::Message(Publish {
                dup: sent.is_again,
                retain: sent.parcel.is_retained,
                qos: qos(sent.id.is_some()),
                topic: sent.parcel.channel.topic(identity).to_string().into(),
                packet_id: sent.id,
                payload: sent.parcel.payload.clone(),
                properties: None,
            }));
        }
        if next.is_none() || wire.is_full() {
            let written = timeout(WRITE_MAX, wire.flush()).await;
            written.unwrap_or(Err(WireError::Refused(Reason::UnspecifiedError)))?;
        }
        if next.is_none() {
            return Ok(());
        }
    }
}

/// Asks the gate, and takes the device's place from whoever had it.
async fn seat(
    hello: &Hello,
    certificate: Option<&Presented>,
    lobby: &Lobby,
) -> Result<(Seated, bool), ConnectAckReason> {
    let Hello { client_id, will, .. } = hello;
    let name = certificate.and_then(|shown| match &shown.whose {
        Whose::Device(identity) => Some(identity.common_name()),
        Whose::Claim(_) => None,
    });
    let given = Connect {
        common_name: name.as_deref(),
        client_id,
        will: will.as_ref().map(|will| GivenWill { topic: &will.topic, bytes: will.payload.len() }),
    };
    let serial = certificate.map(|shown| shown.serial.as_str());
    let is_in = Box::pin(lobby.gate.connect(given, serial)).await;
    let identity = Identity::parse(client_id).filter(|_| is_in);
    let identity = identity.ok_or(ConnectAckReason::NotAuthorized)?;
    if hello.has_method {
        return Err(ConnectAckReason::BadAuthenticationMethod);
    }
    if will.as_ref().is_some_and(|will| will.is_once) {
        return Err(ConnectAckReason::QosNotSupported);
    }
    let claimed = lobby.hall.claim(identity, hello.resumes);
    let seat = timeout(LEAVE_MAX, claimed.place.take_seat()).await;
    let seat = seat.map_err(|_late| ConnectAckReason::ServerBusy)?;
    let session_present = claimed.place.begin(hello.resumes);
    let delay_s = will.as_ref().map_or(0, |will| will.delay_s);
    let linger_s = delay_s.min(hello.session_s).min(LINGER_MAX_S);
    let seated = Seated {
        claimed,
        will: hello.will.clone(),
        linger: Duration::from_secs(linger_s.into()),
        _seat: seat,
    };
    Ok((seated, session_present))
}

impl Seated {
    /// Waits as long as the session lasts without a connection; whose the place is to be, if it is wanted before.
    async fn linger(&self) -> Option<Claim> {
        tokio::select! {
            biased;
            claim = self.claimed.lost() => Some(claim),
            () = sleep(self.linger) => None,
        }
    }

    /// MQTT 5, 3.1.3.2.2: the will is said when its delay is over or the session ends, and not at all when the device has come back
    /// before that. Its topic and its size were looked at when the device connected.
    async fn say_will(&self, claim: Option<Claim>, gate: &Gate) {
        let Some(will) = &self.will else { return };
        let is_back = matches!(claim, Some(Claim::Connection { resumes: true, .. }));
        if !is_back || self.linger.is_zero() {
            Box::pin(gate.publish(&self.claimed.identity, &will.topic, &will.payload, false)).await;
        }
    }
}
