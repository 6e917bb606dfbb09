//! Devices on the embedded broker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectReturnCode, LastWill, Packet, PubAckReason, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use rustls::ClientConfig;
use sealift_protocol::codec;
use sealift_protocol::cose::KeyId;
use sealift_protocol::directive::{Audience, Directive};
use sealift_protocol::id::{Generation, UnixMillis};
use sealift_protocol::telemetry::{self, Ack, Conn, Envelope, Severity, SpoolId};
use serde_json::Value;
use tokio::time::timeout;

use crate::support::{Device, Fleet, client_config};
use crate::trust;

/// No answer on loopback takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to the broker.
pub(crate) struct Link {
    pub(crate) client: AsyncClient,
    pub(crate) events: EventLoop,
}

pub(crate) fn options(fleet: &Fleet, client_id: &str, tls: ClientConfig) -> MqttOptions {
    let (host, port) = fleet.endpoints.mqtt.rsplit_once(':').unwrap();
    let mut options = MqttOptions::new(client_id, host, port.parse().unwrap());
    let transport = Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls)));
    options.set_transport(transport).set_clean_start(true).set_max_packet_size(Some(1 << 20));
    options
}

impl Link {
    pub(crate) fn open(options: MqttOptions) -> Self {
        let (client, events) = AsyncClient::new(options, 64);
        Self { client, events }
    }

    /// Connects as the device.
    pub(crate) async fn of(fleet: &Fleet, device: &Device) -> Self {
        let name = format!("main:{}", device.id);
        let mut link = Self::open(options(fleet, &name, device.tls()));
        let ack = link.connected().await.unwrap();
        assert_eq!(ack.code, ConnectReturnCode::Success);
        link
    }

    /// The next packet of a kind, or why the connection ended.
    pub(crate) async fn next(
        &mut self,
        is_wanted: impl Fn(&Packet) -> bool,
    ) -> Result<Packet, ConnectionError> {
        let wait = async {
            loop {
                if let Event::Incoming(packet) = self.events.poll().await?
                    && is_wanted(&packet)
                {
                    return Ok(packet);
                }
            }
        };
        timeout(PATIENCE, wait).await.expect("an answer on loopback")
    }

    /// Waits for the broker to take the connection, or to refuse it.
    pub(crate) async fn connected(&mut self) -> Result<ConnAck, ConnectionError> {
        let packet = self.next(|packet| matches!(packet, Packet::ConnAck(_))).await?;
        let Packet::ConnAck(ack) = packet else { unreachable!() };
        Ok(ack)
    }

    pub(crate) async fn publish(&mut self, topic: &str, payload: Vec<u8>) -> PubAckReason {
        self.try_publish(topic, payload).await.unwrap()
    }

    /// The same, on a connection that may end before the answer.
    pub(crate) async fn try_publish(
        &mut self,
        topic: &str,
        payload: Vec<u8>,
    ) -> Result<PubAckReason, ConnectionError> {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).await.unwrap();
        let packet = self.next(|packet| matches!(packet, Packet::PubAck(_))).await?;
        let Packet::PubAck(ack) = packet else { unreachable!() };
        Ok(ack.reason)
    }

    pub(crate) async fn subscribe(&mut self, filter: &str) -> SubscribeReasonCode {
        self.client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        let packet = self.next(|packet| matches!(packet, Packet::SubAck(_))).await.unwrap();
        let Packet::SubAck(ack) = packet else { unreachable!() };
        ack.return_codes[0]
    }

    /// The payload of the next message whose topic ends with `channel`.
    pub(crate) async fn message(&mut self, channel: &str) -> Vec<u8> {
        let ends = |packet: &Packet| match packet {
            Packet::Publish(publish) => publish.topic.ends_with(channel.as_bytes()),
            _ => false,
        };
        let Packet::Publish(publish) = self.next(ends).await.unwrap() else { unreachable!() };
        publish.payload.to_vec()
    }
}

pub(crate) fn event(sequence: u64) -> Vec<u8> {
    let event = telemetry::Event {
        code: "test.event".to_owned(),
        severity: Severity::Info,
        text: format!("event {sequence}"),
        model: None,
        image: None,
        at: UnixMillis(1),
    };
    let body = codec::encode(&event).unwrap();
    codec::encode(&Envelope { spool: SpoolId(7), sequence, lowest: 1, body }).unwrap()
}

pub(crate) async fn security_codes(fleet: &Fleet, device: &str) -> Vec<String> {
    let page = fleet.get(&format!("/api/v1/devices/{device}/timeline")).await;
    let entries = page["items"].as_array().unwrap().clone();
    let is_security = |entry: &Value| entry["severity"] == "security";
    entries
        .iter()
        .filter(|it| is_security(it))
        .map(|it| it["code"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn what_a_device_sends_is_stored_and_acknowledged() {
    let fleet = Fleet::start();
    let device = fleet.enrol("cam-1").await;
    let mut link = Link::of(&fleet, &device).await;
    assert_eq!(
        link.subscribe("sl/1/main/d/cam-1/+").await,
        SubscribeReasonCode::Success(QoS::AtLeastOnce)
    );

    assert_eq!(link.publish("sl/1/main/u/cam-1/event", event(1)).await, PubAckReason::Success);
    link.client
        .publish("sl/1/main/u/cam-1/event", QoS::AtLeastOnce, false, event(2))
        .await
        .unwrap();

    let ack = loop {
        let ack: Ack = codec::decode("ack", &link.message("/ack").await, 1_000).unwrap();
        if ack.sequence == 2 {
            break ack;
        }
    };
    assert_eq!(ack.spool, SpoolId(7));
    let page = fleet.get("/api/v1/devices/cam-1/timeline").await;
    let texts: Vec<_> =
        page["items"].as_array().unwrap().iter().map(|it| it["text"].clone()).collect();
    assert!(texts.contains(&"event 1".into()) && texts.contains(&"event 2".into()), "{texts:?}");
}

#[tokio::test]
async fn a_last_will_takes_the_device_offline() {
    let fleet = Fleet::start();
    let device = fleet.enrol("cam-1").await;
    let conn = |online| codec::encode(&Conn { online, epoch: 1 }).unwrap();
    let mut with_will = options(&fleet, "main:cam-1", device.tls());
    let topic = "sl/1/main/u/cam-1/conn";
    with_will.set_last_will(LastWill::new(topic, conn(false), QoS::AtLeastOnce, true, None));
    let mut link = Link::open(with_will);
    link.next(|packet| matches!(packet, Packet::ConnAck(_))).await.unwrap();
    assert_eq!(link.publish(topic, conn(true)).await, PubAckReason::Success);
    assert_eq!(fleet.get("/api/v1/devices/cam-1").await["state"], "online");

    drop(link);

    let wait = async {
        while fleet.get("/api/v1/devices/cam-1").await["state"] != "offline" {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the will within seconds");
}

#[tokio::test]
async fn a_connection_without_a_certificate_of_this_ca_is_refused() {
    let fleet = Fleet::start();
    let other = Fleet::start();
    let foreign = other.enrol("cam-1").await;
    fleet.enrol("cam-1").await;
    let ca = fleet.ca();
    let identity = (foreign.answer.certificate_pem.as_str(), foreign.key_pem.as_str());

    for tls in [client_config(&ca, None), client_config(&ca, Some(identity))] {
        let mut link = Link::open(options(&fleet, "main:cam-1", tls));
        assert!(link.next(|packet| matches!(packet, Packet::ConnAck(_))).await.is_err());
    }
}

/// Checks a directive as a device does, with the director that the trust bundle names.
fn verify(fleet: &Fleet, device: &Device, message: &[u8]) -> Directive {
    let pem = std::fs::read_to_string(fleet.data().join("keys/director.pem")).unwrap();
    let public = ed25519_dalek::SigningKey::from_pkcs8_pem(&pem).unwrap().verifying_key();
    let directors = BTreeMap::from([(KeyId::of(&public), public)]);
    let now = UnixMillis(jiff::Timestamp::now().as_millisecond());
    let tenant = &device.answer.tenant;
    let audience = Audience { tenant, device: &device.id, newest: Generation(0), now };
    Directive::verify(message, &directors, &audience).unwrap().get().clone()
}

#[tokio::test]
async fn a_directive_reaches_its_device_over_both_ways_and_survives_a_restart() {
    let mut fleet = Fleet::start();
    let device = fleet.enrol("cam-1").await;
    trust::publish(&fleet).await;
    let mut link = Link::of(&fleet, &device).await;
    let online = codec::encode(&Conn { online: true, epoch: 1 }).unwrap();
    link.publish("sl/1/main/u/cam-1/conn", online).await;
    link.subscribe("sl/1/main/d/cam-1/+").await;

    let order = serde_json::json!({ "model": "vision/digits", "version": "2", "reason": "new" });
    let rollout = fleet.api(reqwest::Method::POST, "/api/v1/rollouts").json(&order);
    let ordered = rollout.send().await.unwrap();
    assert!(ordered.status().is_success(), "{}", ordered.text().await.unwrap());

    let message = link.message("/directive").await;
    let directive = verify(&fleet, &device, &message);
    assert_eq!(directive.slots[0].target(), "models/vision/digits/2");
    let https = device.https().get(format!("{}/directive", fleet.endpoints.device_url));
    assert_eq!(https.send().await.unwrap().bytes().await.unwrap(), message);

    fleet.restart();

    let mut link = Link::of(&fleet, &device).await;
    link.subscribe("sl/1/main/d/cam-1/+").await;
    assert_eq!(link.message("/directive").await, message);
    link.subscribe("sl/1/main/b/all/+").await;
    let hint: u64 = codec::decode("hint", &link.message("/trust").await, 16).unwrap();
    assert_eq!(fleet.get("/tuf/timestamp.json").await["signed"]["version"], hint);
}
