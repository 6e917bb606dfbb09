//! A broker that runs elsewhere, as MQTT 5 client with shared subscriptions: any number of servers share what comes up.
//!
//! Each connection has a new client, because a client kept over connections drops what it has queued. Messages are acknowledged to the
//! broker after their commit. The broker checks certificates and topics; what comes is checked here once more by its topic.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use sealift_protocol::digest::Digest;
use sealift_protocol::topic::{Down, Topic, Up};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::gate::{Gate, Verdict};
use super::{BrokerError, Message, PACKET_BYTES_MAX};
use crate::certificate::Identity;
use crate::tls;

/// Messages that the broker may have unacknowledged with us; as many wait for a worker at most.
const RECEIVE_MAX: u16 = 256;

/// Workers that store messages, one for each that may be unacknowledged; those of one device go to one worker, in order. Each waits for a
/// commit, which takes what the others have with it.
const WORKERS: usize = RECEIVE_MAX as usize;

/// Places at a worker: for all that must be stored, and as many for what may be lost, which never takes up those.
const PLACES: usize = 2 * RECEIVE_MAX as usize;

/// Messages from us that wait for the connection.
const QUEUE_MAX: usize = 1_024;

/// A broker that is silent for longer is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Longest wait before the next connection; each wait is a random share of a doubling limit.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Time to end a device's connection.
const KICK_MAX: Duration = Duration::from_secs(3);

/// What the broker keeps for us while we are away.
const SESSION_LIFE_S: u32 = 3_600;

/// How to reach the broker. TLS always.
#[derive(Debug, Clone)]
pub(crate) struct ExternalSettings {
    /// Its host.
    pub(crate) host: String,
    /// Its port.
    pub(crate) port: u16,
    /// `host:port` for devices; none if it is the same.
    pub(crate) devices: Option<String>,
    /// Distinguishes servers that share one broker.
    pub(crate) client_id: String,
    /// The CA that signed its certificate.
    pub(crate) ca: PathBuf,
    /// Our certificate chain.
    pub(crate) certificate: PathBuf,
    /// Our key.
    pub(crate) key: PathBuf,
}

/// The connection; cheap to clone.
#[derive(Clone)]
pub(super) struct External {
    settings: Arc<ExternalSettings>,
    queue: mpsc::Sender<Message>,
    connections: watch::Receiver<u64>,
}

impl External {
    /// Starts connecting; the task ends only when every clone is gone.
    pub(super) fn start(
        settings: &ExternalSettings,
        gate: Gate,
    ) -> Result<(Self, JoinHandle<()>), BrokerError> {
        let options = options(settings)?;
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let (connected, connections) = watch::channel(0);
        let task = tokio::spawn(Link { options, gate, waiting, connected }.run());
        let settings = Arc::new(settings.clone());
        Ok((Self { settings, queue, connections }, task))
    }

    /// Queues a message for the broker.
    pub(super) fn publish(&self, message: Message) -> Result<(), BrokerError> {
        self.queue.try_send(message).map_err(|_| BrokerError::Disconnected)
    }

    /// Ends a device's connection by taking its place for a moment (MQTT 5, section 3.1.4: a server that accepts a client id ends the
    /// connection that has it). The broker has to let the server use any client id.
    pub(super) async fn kick(&self, identity: &Identity) -> Result<(), BrokerError> {
        let name = identity.common_name();
        let settings = ExternalSettings { client_id: name.clone(), ..(*self.settings).clone() };
        let mut options = options(&settings)?;
        options.set_clean_start(true).set_session_expiry_interval(Some(0));
        let (client, mut events) = AsyncClient::new(options, 1);
        let take_place = async {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => break,
                    Ok(Event::Incoming(_) | Event::Outgoing(_)) => (),
                    Err(error) => return Err(error.to_string()),
                }
            }
            client.disconnect().await.map_err(|error| error.to_string())?;
            // Ends with the connection.
            while events.poll().await.is_ok() {}
            Ok(())
        };
        let ended = tokio::time::timeout(KICK_MAX, take_place).await;
        let ended = ended.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        ended.map_err(|reason| BrokerError::NotEnded(name, reason))
    }

    /// Rises with each connection: whatever the broker should retain is then to be published anew.
    pub(super) fn connections(&self) -> watch::Receiver<u64> {
        self.connections.clone()
    }
}

fn options(settings: &ExternalSettings) -> Result<MqttOptions, BrokerError> {
    let config = tls::client_config(&settings.ca, &settings.certificate, &settings.key)?;
    let mut options = MqttOptions::new(&settings.client_id, &settings.host, settings.port);
    options
        .set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(config))))
        .set_manual_acks(true)
        .set_clean_start(false)
        .set_session_expiry_interval(Some(SESSION_LIFE_S))
        .set_receive_maximum(Some(RECEIVE_MAX))
        .set_max_packet_size(Some(PACKET_BYTES_MAX))
        .set_keep_alive(KEEP_ALIVE);
    Ok(options)
}

/// A message from a device.
struct Upward {
    identity: Identity,
    channel: Up,
    publish: Publish,
    /// Told when it may be acknowledged; dropped untold, it must not be.
    done: oneshot::Sender<()>,
}

/// Where the messages of one connection go.
struct Desks {
    workers: Vec<mpsc::Sender<Upward>>,
    /// All that are to be acknowledged, in the order in which they came.
    unacknowledged: mpsc::Sender<Unacknowledged>,
}

/// Its publication, and when it is done with.
type Unacknowledged = (Publish, oneshot::Receiver<()>);

struct Link {
    options: MqttOptions,
    gate: Gate,
    waiting: mpsc::Receiver<Message>,
    connected: watch::Sender<u64>,
}

impl Link {
    async fn run(mut self) {
        let mut failures = 0_u32;
        loop {
            let before = *self.connected.borrow();
            if self.connection().await.is_none() {
                return; // nobody can publish any more: the server stops
            }
            let has_worked = before != *self.connected.borrow();
            failures = if has_worked { 0 } else { failures.saturating_add(1) };
            tokio::time::sleep(backoff(failures)).await;
        }
    }

    /// Lives as long as one connection; none when the server stops.
    async fn connection(&mut self) -> Option<()> {
        let (client, events) = AsyncClient::new(self.options.clone(), QUEUE_MAX);
        let mut stores = JoinSet::new();
        let workers = (0..WORKERS)
            .map(|_| {
                let (messages, inbox) = mpsc::channel(PLACES);
                stores.spawn(store(self.gate.clone(), client.clone(), inbox));
                messages
            })
            .collect();
        let (unacknowledged, waiting) = mpsc::channel(RECEIVE_MAX.into());
        let acknowledging = client.clone();
        let acknowledge_one =
            async move |publish: Publish| acknowledging.ack(&publish).await.is_ok();
        stores.spawn(acknowledge(waiting, acknowledge_one));
        let desks = Desks { workers, unacknowledged };
        let mut poll = tokio::spawn(poll(events, client.clone(), desks, self.connected.clone()));
        let is_running = loop {
            tokio::select! {
                _ = &mut poll => break true,
                _ = stores.join_next() => break true,
                message = self.waiting.recv() => match message {
                    Some(message) => send(&client, message).await,
                    None => break false,
                },
            }
        };
        poll.abort();
        is_running.then_some(())
    }
}

async fn send(client: &AsyncClient, message: Message) {
    let qos = if message.may_be_lost() { QoS::AtMostOnce } else { QoS::AtLeastOnce };
    let Message { topic, payload, retain } = message;
    // Lost with the connection if it ends now: the next one publishes whatever is retained anew, and receipts are repeated.
    let sent = client.publish(topic.to_string(), qos, retain, payload).await;
    if let Err(error) = sent {
        tracing::debug!(%error, "message not sent to the broker");
    }
}

/// Does nothing but poll, since that must not wait for anything else; ends with the connection.
async fn poll(
    mut events: EventLoop,
    client: AsyncClient,
    desks: Desks,
    connected: watch::Sender<u64>,
) {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                tracing::info!("connected to the broker");
                if client.try_subscribe(Topic::ingest_filter(), QoS::AtLeastOnce).is_err() {
                    return;
                }
                connected.send_modify(|count| *count = count.saturating_add(1));
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                if !desks.hand_over(publish) {
                    tracing::warn!("broker sent more than was asked for");
                    return;
                }
            }
            Ok(Event::Incoming(_) | Event::Outgoing(_)) => (),
            Err(error) => {
                tracing::warn!(%error, "connection to the broker ended");
                return;
            }
        }
    }
}

impl Desks {
    /// False if a message that must not be lost found no room, which the receive maximum rules out: it does not count what may be lost, and
    /// that leaves as much room as it allows.
    fn hand_over(&self, publish: Publish) -> bool {
        let may_be_lost = publish.qos == QoS::AtMostOnce;
        let (done, is_done) = oneshot::channel();
        let receipt = Publish { payload: Bytes::new(), ..publish.clone() };
        if !may_be_lost && self.unacknowledged.try_send((receipt, is_done)).is_err() {
            return false;
        }
        let topic = String::from_utf8_lossy(&publish.topic);
        let Ok(Topic::Up(tenant, device, channel)) = Topic::parse(&topic) else {
            // Nobody wants it, but unacknowledged it would take a place of the receive maximum for good.
            let _told = done.send(());
            return true;
        };
        let workers = &self.workers;
        let share = Digest::of(device.as_str().as_bytes()).as_bytes()[0];
        let Some(worker) = workers.get(usize::from(share) % workers.len()) else { return false };
        if may_be_lost && worker.capacity() <= usize::from(RECEIVE_MAX) {
            return true;
        }
        let identity = Identity { tenant, device };
        worker.try_send(Upward { identity, channel, publish, done }).is_ok()
    }
}

/// MQTT 5, 4.6.0: acknowledges in the order in which messages came, whichever is stored first. Ends with the connection, or with the first
/// message that is not stored.
async fn acknowledge(
    mut waiting: mpsc::Receiver<Unacknowledged>,
    acknowledge_one: impl AsyncFn(Publish) -> bool,
) {
    while let Some((publish, is_done)) = waiting.recv().await {
        if is_done.await.is_err() || !acknowledge_one(publish).await {
            return;
        }
    }
}

/// Stores one worker's messages until the connection ends, or the store fails: the broker then delivers again on the next one.
async fn store(gate: Gate, client: AsyncClient, mut inbox: mpsc::Receiver<Upward>) {
    while let Some(Upward { identity, channel, publish, done }) = inbox.recv().await {
        match gate.publish_relayed(&identity, channel, &publish.payload).await {
            Verdict::Stored(receipt) => {
                if let Some(payload) = receipt {
                    let topic = Topic::Down(identity.tenant, identity.device, Down::Ack);
                    send(&client, Message { topic, payload, retain: false }).await;
                }
            }
            Verdict::Refused => (),
            Verdict::NotStored => return,
        }
        // Nobody waits for what may be lost.
        let _told = done.send(());
    }
}

fn backoff(failures: u32) -> Duration {
    let limit = Duration::from_secs(1).saturating_mul(1 << failures.min(5)).min(BACKOFF_MAX);
    let mut byte = [0];
    // Without random bytes the wait is the longest.
    let share = getrandom::fill(&mut byte).map_or(255, |()| byte[0]);
    limit.mul_f64(f64::from(share) / 255.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(device: &str, qos: QoS) -> Publish {
        let topic = Topic::parse(&format!("sl/1/main/u/{device}/beat")).unwrap();
        Publish::new(topic.to_string(), qos, "x", None)
    }

    fn desks() -> (Desks, mpsc::Receiver<Upward>, mpsc::Receiver<Unacknowledged>) {
        let (worker, inbox) = mpsc::channel(PLACES);
        let (unacknowledged, waiting) = mpsc::channel(RECEIVE_MAX.into());
        (Desks { workers: vec![worker], unacknowledged }, inbox, waiting)
    }

    #[test]
    fn what_may_be_lost_leaves_room_for_all_that_must_not() {
        let (desks, inbox, _waiting) = desks();
        for _ in 0..PLACES {
            assert!(desks.hand_over(beat("cam-1", QoS::AtMostOnce)));
        }
        assert_eq!(inbox.len(), PLACES - usize::from(RECEIVE_MAX));
        for _ in 0..RECEIVE_MAX {
            assert!(desks.hand_over(beat("cam-1", QoS::AtLeastOnce)));
        }
        assert!(!desks.hand_over(beat("cam-1", QoS::AtLeastOnce)));
    }

    /// Packet identifiers of those that were acknowledged.
    async fn acknowledged(waiting: mpsc::Receiver<Unacknowledged>) -> Vec<u16> {
        let (told, mut numbers) = mpsc::unbounded_channel();
        acknowledge(waiting, async move |publish: Publish| told.send(publish.pkid).is_ok()).await;
        std::iter::from_fn(|| numbers.try_recv().ok()).collect()
    }

    fn numbered(pkid: u16, topic: &str) -> Publish {
        Publish { pkid, ..Publish::new(topic, QoS::AtLeastOnce, "x", None) }
    }

    #[tokio::test]
    async fn messages_are_acknowledged_in_order_whichever_is_stored_first() {
        let (desks, mut inbox, waiting) = desks();
        for pkid in [7, 8, 9] {
            assert!(desks.hand_over(numbered(pkid, "sl/1/main/u/cam-1/event")));
        }
        assert!(desks.hand_over(numbered(10, "sl/1/main/u/cam-1/no-such-channel")));
        drop(desks);
        let acknowledging = tokio::spawn(acknowledged(waiting));

        let mut stored = Vec::new();
        while let Some(message) = inbox.recv().await {
            stored.push(message);
        }
        while let Some(message) = stored.pop() {
            message.done.send(()).unwrap();
            tokio::task::yield_now().await;
        }

        assert_eq!(acknowledging.await.unwrap(), [7, 8, 9, 10]);
    }

    #[tokio::test]
    async fn nothing_after_a_message_that_is_not_stored_is_acknowledged() {
        let (desks, mut inbox, waiting) = desks();
        for pkid in [1, 2, 3] {
            assert!(desks.hand_over(numbered(pkid, "sl/1/main/u/cam-1/event")));
        }
        drop(desks);

        inbox.recv().await.unwrap().done.send(()).unwrap();
        drop(inbox.recv().await.unwrap());
        inbox.recv().await.unwrap().done.send(()).unwrap();

        assert_eq!(acknowledged(waiting).await, [1]);
    }
}
