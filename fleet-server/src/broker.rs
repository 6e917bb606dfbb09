//! MQTT between server and devices: the embedded broker, or one that somebody else runs. One interface for both.
//!
//! ```text
//! device ── sl/1/{tenant}/u/{device}/… ──▶ gate ──▶ ingest ──▶ store         (acknowledged after the commit)
//! device ◀── d/{device}/{directive,ack}, b/all/{halt,trust} ── Broker::publish
//! ```
//!
//! Architecture Invariant: state lives in the store, a message is a hint. Losing everything that a broker holds loses nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use sealift_protocol::id::{DeviceId, TenantId};
use sealift_protocol::limits::MESSAGE_BYTES_MAX;
use sealift_protocol::topic::Topic;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::certificate::Identity;
use crate::tls::TlsError;

pub(crate) mod access;
mod budget;
pub(crate) mod courier;
mod embedded;
mod external;
pub(crate) mod gate;

use access::Channel;
pub(crate) use external::ExternalSettings;
use gate::Gate;

/// The largest message, and its topic and properties around it.
const PACKET_BYTES_MAX: u32 = 260 << 10;

const _: () = assert!(MESSAGE_BYTES_MAX + (4 << 10) <= PACKET_BYTES_MAX as usize);

/// A message from the server to devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// Where to.
    pub(crate) topic: Topic,
    /// What.
    pub(crate) payload: Vec<u8>,
    /// Whether devices that subscribe later get it as well.
    pub(crate) retain: bool,
}

impl Message {
    /// Whether it may be lost.
    const fn may_be_lost(&self) -> bool {
        matches!(self.topic, Topic::Down(_, _, down) if Channel::Down(down).may_be_lost())
    }
}

/// Which broker.
#[derive(Debug, Clone)]
pub(crate) enum BrokerSettings {
    /// The embedded one.
    Embedded {
        /// Where it listens; port 0 for any free one.
        listen: SocketAddr,
        /// Its certificate chain.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
        /// The CA of the devices.
        device_ca: PathBuf,
    },
    /// One that runs elsewhere, which checks devices' certificates and topics itself.
    External(ExternalSettings),
}

/// Why a broker did not start, or a message was not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokerError {
    /// The address is taken, or not this machine's.
    #[error("cannot listen for MQTT on {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The system gives the embedded broker no threads.
    #[error("cannot start the threads of the embedded broker")]
    Threads(#[source] std::io::Error),
    /// The certificates, of either broker.
    #[error("cannot set up TLS for MQTT")]
    Tls(#[from] TlsError),
    /// The broker did not let the server take a device's place.
    #[error("the external broker does not end the connection of {0}: {1}")]
    NotEnded(String, String),
    /// The connection to an external broker is gone, or its queue is full.
    #[error("the external broker does not take messages now")]
    Disconnected,
}

/// A broker; cheap to clone.
#[derive(Clone)]
pub(crate) struct Broker {
    kind: Kind,
    address: Arc<str>,
}

#[derive(Clone)]
enum Kind {
    Embedded(embedded::Embedded),
    External(external::External),
}

impl Broker {
    /// Starts it. The task ends only when the broker has ended.
    pub(crate) fn start(
        settings: BrokerSettings,
        gate: Gate,
        host: &str,
    ) -> Result<(Self, JoinHandle<()>), BrokerError> {
        match settings {
            BrokerSettings::Embedded { listen, certificate, key, device_ca } => {
                let tls = embedded::TlsFiles { certificate, key, device_ca };
                let (broker, bound, task) = embedded::Embedded::start(listen, &tls, gate)?;
                let address = format!("{host}:{}", bound.port()).into();
                Ok((Self { kind: Kind::Embedded(broker), address }, task))
            }
            BrokerSettings::External(settings) => {
                let own = || format!("{}:{}", settings.host, settings.port);
                let address = settings.devices.clone().unwrap_or_else(own).into();
                let (broker, task) = external::External::start(&settings, gate)?;
                Ok((Self { kind: Kind::External(broker), address }, task))
            }
        }
    }

    /// `host:port` as devices are told it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Rises whenever the broker's memory may be lost: everything retained is then to be published anew. The first value counts.
    pub(crate) fn memories(&self) -> watch::Receiver<u64> {
        match &self.kind {
            Kind::Embedded(broker) => broker.memories(),
            Kind::External(broker) => broker.connections(),
        }
    }

    /// Publishes one message.
    pub(crate) fn publish(&self, message: Message) -> Result<(), BrokerError> {
        match &self.kind {
            Kind::Embedded(broker) => {
                broker.publish(message);
                Ok(())
            }
            Kind::External(broker) => broker.publish(message),
        }
    }

    /// Ends the connection of a device that may have none.
    pub(crate) async fn kick(
        &self,
        tenant: &TenantId,
        device: &DeviceId,
    ) -> Result<(), BrokerError> {
        let identity = Identity { tenant: tenant.clone(), device: device.clone() };
        match &self.kind {
            Kind::Embedded(broker) => {
                broker.kick(&identity);
                Ok(())
            }
            Kind::External(broker) => broker.kick(&identity).await,
        }
    }
}
