//! MQTT: presence and telemetry up, directives and receipts down.
//!
//! One task polls the connection and does nothing else. Each connection has a client of its own, so that nothing waits in a dead one:
//! what must arrive is sent again from the spool.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, LastWill, LastWillProperties, Packet};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{Outgoing, TlsConfiguration, Transport};
use rustls::ClientConfig;
use sealift_protocol::codec;
use sealift_protocol::id::{DeviceId, TenantId};
use sealift_protocol::limits::MESSAGE_BYTES_MAX;
use sealift_protocol::telemetry::Conn;
use sealift_protocol::topic::{Topic, Up};
use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::device::pause_ms;
use crate::disk::{self, Secrecy};
use crate::verify::spread_permille;

/// Longest pause between two connections.
const RECONNECT_MAX_MS: i64 = 5 * 60_000;

/// A connection that lasted this long was a good one: the next pause is short again.
const GOOD_AFTER: Duration = Duration::from_mins(1);

/// Time for TCP, TLS and the broker's welcome. A server that was away greets its whole fleet at once, and whoever gave up early would
/// come again and make all others wait longer.
const CONNECT_MAX: Duration = Duration::from_secs(40);

/// The broker hears from an idle device this often.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How long the broker keeps subscriptions of a device that is away, in seconds.
const SESSION_EXPIRY_S: u32 = 3_600;

/// Messages between the agent and the connection. Twice what may be without a receipt: presence and heartbeats come on top.
const REQUESTS_MAX: usize = 128;

/// Messages without the broker's own receipt; the rest wait in the queue above.
const PUBLISHED_MAX: u16 = 64;

/// What the connection needs.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) tenant: TenantId,
    pub(crate) device: DeviceId,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Changes when the certificate was renewed: the connection is then made anew.
    pub(crate) tls: watch::Receiver<Arc<ClientConfig>>,
    pub(crate) will_delay_s: u32,
    /// Holds the number of the last connection.
    pub(crate) epoch_file: PathBuf,
    pub(crate) clock: Clock,
}

/// What happens on the link.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    Connected(Session),
    Message { topic: Topic, payload: bytes::Bytes },
    Disconnected,
}

/// A connection that stands.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    client: AsyncClient,
    tenant: TenantId,
    device: DeviceId,
    pub(crate) epoch: u64,
}

impl Session {
    /// Hands a message to the connection; false where it has too much to do, or has ended.
    pub(crate) fn publish(&self, channel: Up, payload: Vec<u8>) -> bool {
        let topic = Topic::Up(self.tenant.clone(), self.device.clone(), channel).to_string();
        let qos = if channel == Up::Beat { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        self.client.try_publish(topic, qos, channel == Up::Conn, payload).is_ok()
    }

    /// Says goodbye, so that nobody waits for the last will.
    pub(crate) fn close(&self) {
        if let Some(payload) = presence(false, self.epoch) {
            self.publish(Up::Conn, payload);
        }
        if let Err(error) = self.client.try_disconnect() {
            tracing::debug!(%error, "connection has ended before its goodbye");
        }
    }
}

/// Why a connection is no more.
#[derive(Debug)]
enum Ended {
    /// The agent stops.
    Unheard,
    /// There is a new certificate.
    Renewed,
    Failed(String),
}

/// `host:port`, with 8883 where no port is given.
pub(crate) fn address(text: &str) -> Option<(String, u16)> {
    const MQTT_TLS_PORT: u16 = 8883;
    match text.rsplit_once(':') {
        Some((host, port)) => Some((host.to_owned(), port.parse().ok()?)),
        None => Some((text.to_owned(), MQTT_TLS_PORT)),
    }
}

impl Link {
    /// Connects, and connects again, for as long as somebody listens.
    pub(crate) async fn run(mut self, events: mpsc::Sender<LinkEvent>) {
        let mut tries = 0;
        while !events.is_closed() {
            let begun = self.clock.uptime();
            let ended = self.connection(&events).await;
            if events.send(LinkEvent::Disconnected).await.is_err() {
                return;
            }
            match ended {
                Ended::Unheard => return,
                Ended::Renewed => {
                    tracing::info!("connection to the broker is made anew, as the certificate is");
                    continue;
                }
                Ended::Failed(reason) => tracing::info!(reason, "connection to the broker ended"),
            }
            let was_good = self.clock.uptime().saturating_sub(begun) >= GOOD_AFTER;
            tries = if was_good { 0 } else { tries + 1 };
            let pause_ms = pause_ms(tries, spread_permille()).min(RECONNECT_MAX_MS);
            let pause = Duration::from_millis(u64::try_from(pause_ms).unwrap_or(0));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = events.closed() => return,
            }
        }
    }

    async fn connection(&mut self, events: &mpsc::Sender<LinkEvent>) -> Ended {
        self.try_connection(events).await.unwrap_or_else(Ended::Failed)
    }

    async fn try_connection(&mut self, events: &mpsc::Sender<LinkEvent>) -> Result<Ended, String> {
        let epoch = self.next_epoch();
        let tls = Arc::clone(&self.tls.borrow_and_update());
        let options = self.options(epoch, tls).ok_or("presence cannot be encoded")?;
        let (client, mut connection) = AsyncClient::new(options, REQUESTS_MAX);
        let session =
            Session { client, tenant: self.tenant.clone(), device: self.device.clone(), epoch };
        loop {
            let polled = tokio::select! {
                polled = next(&mut connection) => polled,
                // Nobody listens any more; the connection is given up with its loop.
                () = events.closed() => return Ok(Ended::Unheard),
                // No goodbye: the next connection takes this one's place before the last will is due.
                Ok(()) = self.tls.changed() => return Ok(Ended::Renewed),
            };
            let packet = polled?;
            let event = if let Packet::ConnAck(_) = packet {
                self.greet(&session)?;
                LinkEvent::Connected(session.clone())
            } else if let Packet::Publish(publish) = packet {
                let topic = String::from_utf8_lossy(&publish.topic);
                let Ok(topic) = Topic::parse(&topic) else { continue };
                LinkEvent::Message { topic, payload: publish.payload }
            } else {
                continue; // receipts and pings are the library's business
            };
            if events.send(event).await.is_err() {
                return Ok(Ended::Unheard);
            }
        }
    }

    fn greet(&self, session: &Session) -> Result<(), String> {
        for filter in Topic::device_filters(&self.tenant, &self.device) {
            let subscribed = session.client.try_subscribe(filter, QoS::AtLeastOnce);
            subscribed.map_err(|error| error.to_string())?;
        }
        let online = presence(true, session.epoch).ok_or("presence cannot be encoded")?;
        session.publish(Up::Conn, online);
        tracing::info!(epoch = session.epoch, "connected to the broker");
        Ok(())
    }

    fn options(&self, epoch: u64, tls: Arc<ClientConfig>) -> Option<MqttOptions> {
        // The client id and the user name are the two names in the certificate's common name.
        let name = format!("{}:{}", self.tenant, self.device);
        let mut options = MqttOptions::new(&name, &self.host, self.port);
        options.set_credentials(&name, "");
        options.set_keep_alive(KEEP_ALIVE);
        options.set_connection_timeout(CONNECT_MAX.as_secs());
        options.set_clean_start(false);
        // The library keeps a place of 200 bytes for each, and would keep 65,536.
        options.set_outgoing_inflight_upper_limit(PUBLISHED_MAX);
        let tls = TlsConfiguration::Rustls(tls);
        options.set_transport(Transport::tls_with_config(tls));
        let mut properties = ConnectProperties::new();
        properties.session_expiry_interval = Some(SESSION_EXPIRY_S);
        properties.max_packet_size = u32::try_from(MESSAGE_BYTES_MAX * 2).ok();
        options.set_connect_properties(properties);
        let topic = Topic::Up(self.tenant.clone(), self.device.clone(), Up::Conn).to_string();
        let delayed = LastWillProperties {
            delay_interval: Some(self.will_delay_s),
            payload_format_indicator: None,
            message_expiry_interval: None,
            content_type: None,
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
        };
        let offline = presence(false, epoch)?;
        options.set_last_will(LastWill::new(topic, offline, QoS::AtLeastOnce, true, Some(delayed)));
        Some(options)
    }

    /// A number above that of every earlier connection.
    fn next_epoch(&self) -> u64 {
        let kept = disk::read(&self.epoch_file, 64).ok().flatten();
        let kept = kept.and_then(|bytes| String::from_utf8(bytes).ok()?.trim().parse().ok());
        // Without the file, the clock is above every number that was counted up.
        let clock = || u64::try_from(self.clock.now().0).unwrap_or(0);
        let epoch = kept.map_or_else(clock, |epoch: u64| epoch.saturating_add(1));
        let text = epoch.to_string();
        if let Err(error) = disk::replace(&self.epoch_file, text.as_bytes(), Secrecy::Private) {
            tracing::warn!(%error, "number of the connection is not kept");
        }
        epoch
    }
}

/// The next packet that came in.
async fn next(connection: &mut EventLoop) -> Result<Packet, String> {
    loop {
        match connection.poll().await {
            Ok(Event::Incoming(packet)) => return Ok(packet),
            // The broker need not answer a goodbye.
            Ok(Event::Outgoing(Outgoing::Disconnect)) => return Err("goodbye was said".to_owned()),
            Ok(Event::Outgoing(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn presence(online: bool, epoch: u64) -> Option<Vec<u8>> {
    codec::encode(&Conn { online, epoch }).ok()
}
