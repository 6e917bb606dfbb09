//! A device's certificate in other hands: MQTT and HTTPS as it, with whatever it pleases to send.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use sealift_protocol::codec;
use sealift_protocol::id::{DeviceId, TenantId};
use sealift_protocol::telemetry::{Envelope, SpoolId};
use sealift_protocol::topic::{Topic, Up};
use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use crate::fleet::Server;
use crate::process::run;

/// No answer on loopback takes this long, unless the sender is slowed down.
const PATIENCE: Duration = Duration::from_secs(30);

/// An enrolled device without an agent: its certificate, its key, and a connection to the broker.
pub struct Wire {
    /// Whose certificate it is.
    pub device: DeviceId,
    client: AsyncClient,
    events: EventLoop,
    spool: SpoolId,
    sequence: u64,
}

/// The next packet of a kind that a broker sends.
pub async fn next(
    events: &mut EventLoop,
    is_wanted: impl Fn(&Packet) -> bool,
) -> anyhow::Result<Packet> {
    let wait = async {
        loop {
            if let Event::Incoming(packet) = events.poll().await?
                && is_wanted(&packet)
            {
                return anyhow::Ok(packet);
            }
        }
    };
    timeout(PATIENCE, wait).await.context("the broker says nothing")?
}

impl Wire {
    /// Enrols a device with a fresh token, and connects with its certificate.
    pub async fn open(server: &Server, directory: &Path, id: &str) -> anyhow::Result<Self> {
        let tls = enrol(server, directory, id)?;
        let (host, port) = server.endpoints.mqtt.rsplit_once(':').context("an address")?;
        let mut options = MqttOptions::new(format!("main:{id}"), host, port.parse()?);
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls))));
        options.set_clean_start(true).set_max_packet_size(Some(1 << 20));
        let (client, events) = AsyncClient::new(options, 64);
        let device = DeviceId::parse(id)?;
        let mut wire = Self { device, client, events, spool: SpoolId(7), sequence: 0 };
        wire.next(|packet| matches!(packet, Packet::ConnAck(_))).await?;
        Ok(wire)
    }

    async fn next(&mut self, is_wanted: impl Fn(&Packet) -> bool) -> anyhow::Result<Packet> {
        next(&mut self.events, is_wanted).await
    }

    /// Sends bytes on one of the device's own channels, and waits for what the broker says of them.
    pub async fn send(&mut self, channel: Up, payload: Vec<u8>) -> anyhow::Result<PubAckReason> {
        let topic = Topic::Up(TenantId::parse("main")?, self.device.clone(), channel).to_string();
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).await?;
        let Packet::PubAck(ack) = self.next(|packet| matches!(packet, Packet::PubAck(_))).await?
        else {
            bail!("not a receipt")
        };
        Ok(ack.reason)
    }

    /// Sends the next numbered message: what is around `body` is as it should be.
    pub async fn send_numbered(
        &mut self,
        channel: Up,
        body: Vec<u8>,
    ) -> anyhow::Result<PubAckReason> {
        self.sequence += 1;
        let (spool, sequence) = (self.spool, self.sequence);
        let envelope = Envelope { spool, sequence, lowest: sequence, body };
        self.send(channel, codec::encode(&envelope)?).await
    }

    /// Sends a value of ours as the next numbered message.
    pub async fn say<T: Serialize>(&mut self, channel: Up, body: &T) -> anyhow::Result<()> {
        self.send_numbered(channel, codec::encode(body)?).await.map(|_| ())
    }
}

/// Enrols a device with a fresh token into a directory of its name; TLS as that device.
pub fn enrol(server: &Server, directory: &Path, id: &str) -> anyhow::Result<ClientConfig> {
    let store = directory.join(id);
    let store_text = store.display().to_string();
    let token = server.ctl(&["enrol", "create"])?;
    let url = &server.endpoints.device_url;
    let enrol = ["enrol", "--store", &store_text, "--url", url, "--token", token.trim()];
    run("fleet-agent", &[&enrol[..], &["--device", id]].concat(), &[])?;
    tls(&store)
}

/// TLS as the device that was enrolled into `store`.
pub fn tls(store: &Path) -> anyhow::Result<ClientConfig> {
    let identity: Value = serde_json::from_slice(&fs::read(store.join("identity.json"))?)?;
    let text = |name: &str| identity[name].as_str().with_context(|| format!("no {name}"));
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(text("ca_pem")?.as_bytes()) {
        roots.add(authority?)?;
    }
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(text("certificate_pem")?.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_file(store.join(text("key")?))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config?.with_root_certificates(roots).with_client_auth_cert(chain?, key)?)
}
