//! The MQTT broker inside the server. The only file that knows the broker's crate.
//!
//! Everything a device sends is decided on, and stored, inside the awaited access hook: the broker acknowledges a message only after
//! its commit. Nothing relies on the broker's memory; what it retains is published anew at each start.
//!
//! It runs on threads of its own. A fleet that comes at once is thousands of handshakes, a millisecond of work each, and whoever shared
//! their queue would wait behind all of them: operators, and the writer of the store.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rmqtt::acl::AuthInfo;
use rmqtt::codec::types::{Publish as Packet, QoS};
use rmqtt::codec::v5::{PublishAckReason, PublishProperties, SubscribeAckReason};
use rmqtt::context::ServerContext;
use rmqtt::hook::{Handler, HookResult, Parameter, ReturnType, Type};
use rmqtt::net::{Builder, Listener};
use rmqtt::server::MqttServer;
use rmqtt::session::{Session, SessionState};
use rmqtt::types::{
    AuthResult, ConnectInfo, From as Origin, FromType, Id, LastWill, Publish, PublishAclResult,
    PublishResult, Subscribe, SubscribeAclResult,
};
use sealift_protocol::topic::{Down, Topic, Up};
use tokio::runtime::{Builder as Threads, Handle, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::access::{Connect, Will};
use super::gate::{Gate, Verdict};
use super::{BrokerError, Message, PACKET_BYTES_MAX};
use crate::certificate::Identity;

/// Messages that wait for one device: a directive, requests and receipts. Queue times packet is memory that is not given back.
const QUEUE_MESSAGES_MAX: usize = 32;

/// Messages on their way to one device, unacknowledged.
const INFLIGHT_MAX: u16 = 16;

/// A device that stays away longer subscribes anew and finds what is retained.
const SESSION_LIFE: Duration = Duration::from_hours(1);

/// A waiting message that is older has been replaced or will be sent again.
const MESSAGE_LIFE: Duration = Duration::from_mins(5);

/// Time for TLS and CONNECT, so that half-open connections do not pile up. Where a whole fleet comes at once it is that of all of them:
/// they are shaken hands with side by side, and none is done much before the last.
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);

/// Handshakes at a time: 200 P-256 handshakes take two cores less than a second.
const HANDSHAKES_MAX: usize = 500;

/// Connections at a time, about 40 KB each.
const CONNECTIONS_MAX: usize = 100_000;

/// Connections that wait to be accepted, as far as the system allows: when a whole fleet comes at once, whoever finds no place here tries
/// again after one, three and seven seconds.
const BACKLOG: i32 = 4_096;

/// `<tenant>:<device>` has at most 61 characters.
const CLIENT_ID_BYTES_MAX: usize = 64;

/// A device has two filters; seven single topics are all that it may subscribe to.
const SUBSCRIPTIONS_MAX: usize = 8;

/// Node number of the only node.
const NODE: u64 = 1;

/// The running broker.
#[derive(Clone)]
pub(super) struct Embedded {
    context: ServerContext,
    /// Lives and dies with this process: one memory, empty at first.
    memory: Arc<watch::Sender<u64>>,
    /// Ends with the last of these.
    _threads: Arc<OwnThreads>,
}

/// The threads that the broker runs on.
struct OwnThreads {
    handle: Handle,
    /// Taken when they end.
    runtime: Option<Runtime>,
}

impl OwnThreads {
    fn start() -> Result<Self, BrokerError> {
        let runtime = Threads::new_multi_thread().thread_name("broker").enable_all().build();
        let runtime = runtime.map_err(|error| BrokerError::Embedded(error.into()))?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Does a piece of work there: what listens, waits and is spawned in it belongs to these threads.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, BrokerError>> + Send + 'static,
    ) -> Result<T, BrokerError> {
        self.handle.spawn(work).await.map_err(|error| BrokerError::Embedded(error.into()))?
    }
}

impl Drop for OwnThreads {
    fn drop(&mut self) {
        // To wait for them would block whoever drops the broker, and there is nothing to wait for: all is in the store.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Files of the broker's TLS, PEM.
#[derive(Debug)]
pub(crate) struct TlsFiles {
    /// Certificate chain.
    pub(crate) certificate: PathBuf,
    /// Private key.
    pub(crate) key: PathBuf,
    /// The CA of the devices.
    pub(crate) device_ca: PathBuf,
}

impl Embedded {
    /// Binds and starts; the task ends only when the broker does.
    pub(super) async fn start(
        address: SocketAddr,
        tls: TlsFiles,
        gate: Gate,
    ) -> Result<(Self, SocketAddr, JoinHandle<()>), BrokerError> {
        let threads = OwnThreads::start()?;
        let (context, bound, task) = threads.run(serve(address, tls, gate)).await?;
        let memory = Arc::new(watch::Sender::new(1));
        Ok((Self { context, memory, _threads: Arc::new(threads) }, bound, task))
    }

    /// Rises whenever the broker forgets everything.
    pub(super) fn memories(&self) -> watch::Receiver<u64> {
        self.memory.subscribe()
    }

    /// Publishes a message of the server's own.
    pub(super) async fn publish(&self, message: Message) -> Result<(), BrokerError> {
        forward(&self.context, message).await
    }

    /// Ends the device's connection and session.
    pub(super) async fn kick(&self, identity: &Identity) -> Result<(), BrokerError> {
        let name = identity.common_name();
        let id = Id::new(NODE, 0, None, None, name.as_str().into(), None);
        let entry = self.context.extends.shared().await.entry(id);
        if !entry.exist() {
            return Ok(());
        }
        let mut entry = entry.try_lock().await.map_err(setup)?;
        entry.kick(true, true, true).await.map_err(setup)?;
        Ok(())
    }
}

/// Binds, and serves in a task of its own.
async fn serve(
    address: SocketAddr,
    tls: TlsFiles,
    gate: Gate,
) -> Result<(ServerContext, SocketAddr, JoinHandle<()>), BrokerError> {
    let context = ServerContext::new()
        .busy_check_enable(false)
        .plugins_config_map_add("rmqtt-retainer", "storage.type = \"ram\"\n")
        .build()
        .await;
    rmqtt_retainer::register(&context, true, false).await.map_err(setup)?;
    let hooks = context.extends.hook_mgr().register();
    for hook in [
        Type::ClientAuthenticate,
        Type::ClientSubscribeCheckAcl,
        Type::MessagePublishCheckAcl,
        Type::MessagePublish,
    ] {
        hooks.add(hook, Box::new(Hooks { gate: gate.clone() })).await;
    }
    hooks.start().await;
    let listener = listen(address, &tls).map_err(|source| BrokerError::Bind { address, source })?;
    let bound = listener.local_addr().map_err(setup)?;
    let server = MqttServer::new(context.clone()).listener_by_id(listener, bound.port()).build();
    let task = tokio::spawn(async move {
        if let Err(error) = server.run().await {
            tracing::error!(%error, "embedded broker ended");
        }
    });
    Ok((context, bound, task))
}

fn setup(source: rmqtt::Error) -> BrokerError {
    BrokerError::Embedded(source.into())
}

fn listen(address: SocketAddr, tls: &TlsFiles) -> Result<Listener, rmqtt::Error> {
    let text = |path: &Path| Some(path.to_string_lossy().into_owned());
    Builder::new()
        .name("devices")
        .laddr(address)
        .reuseaddr(Some(true))
        .backlog(BACKLOG)
        .nodelay(true)
        .allow_anonymous(false)
        .max_connections(CONNECTIONS_MAX)
        .max_handshaking_limit(HANDSHAKES_MAX)
        .handshake_timeout(HANDSHAKE_MAX)
        .max_packet_size(PACKET_BYTES_MAX)
        .max_clientid_len(CLIENT_ID_BYTES_MAX)
        .max_subscriptions(SUBSCRIPTIONS_MAX)
        .max_mqueue_len(QUEUE_MESSAGES_MAX)
        .max_inflight(NonZeroU16::new(INFLIGHT_MAX).unwrap_or(NonZeroU16::MIN))
        .max_topic_aliases(32)
        .session_expiry_interval(SESSION_LIFE)
        .max_session_expiry_interval(SESSION_LIFE)
        .message_expiry_interval(MESSAGE_LIFE)
        .tls_cross_certificate(true)
        .tls_cert(text(&tls.certificate))
        .tls_key(text(&tls.key))
        .tls_client_ca_certs(text(&tls.device_ca))
        .collect_cert_info(true)
        .cert_cn_as_username(true)
        .bind()?
        .tls()
}

async fn forward(context: &ServerContext, message: Message) -> Result<(), BrokerError> {
    let properties = PublishProperties {
        message_expiry_interval: (!message.retain)
            .then(|| u32::try_from(MESSAGE_LIFE.as_secs()).ok().and_then(NonZeroU32::new))
            .flatten(),
        ..PublishProperties::default()
    };
    let packet = Packet {
        dup: false,
        retain: message.retain,
        qos: if message.may_be_lost() { QoS::AtMostOnce } else { QoS::AtLeastOnce },
        topic: message.topic.to_string().into(),
        packet_id: None,
        payload: message.payload.into(),
        properties: Some(properties),
    };
    let id = Id::new(NODE, 0, None, None, "fleet-server".into(), None);
    let origin = Origin::from_system(id);
    // No expiry: what is retained holds until it is replaced.
    SessionState::forwards(context, origin, packet.into(), false, None).await.map_err(setup)
}

struct Hooks {
    gate: Gate,
}

#[async_trait]
impl Handler for Hooks {
    #[expect(clippy::wildcard_enum_match_arm, reason = "no other hook is registered")]
    async fn hook(&self, parameter: &Parameter, accumulated: Option<HookResult>) -> ReturnType {
        let result = match parameter {
            Parameter::ClientAuthenticate(connect) => {
                HookResult::AuthResult(self.authenticate(connect).await)
            }
            Parameter::ClientSubscribeCheckAcl(session, subscribe) => {
                HookResult::SubscribeAclResult(self.subscribe(session, subscribe).await)
            }
            Parameter::MessagePublishCheckAcl(session, publish) => {
                HookResult::PublishAclResult(self.publish(session, publish).await)
            }
            Parameter::MessagePublish(session, origin, publish) => {
                let Some(publish) = self.before_publish(*session, origin, publish).await else {
                    return (true, accumulated);
                };
                HookResult::Publish(publish)
            }
            _ => return (true, accumulated),
        };
        (false, Some(result))
    }
}

impl Hooks {
    async fn authenticate(&self, connect: &ConnectInfo) -> AuthResult {
        let certificate = connect.cert();
        let will = connect.last_will();
        let given = Connect {
            common_name: certificate.and_then(|certificate| certificate.common_name.as_deref()),
            client_id: connect.client_id(),
            username: connect.username().map(|name| &**name),
            will: will.as_ref().map(|will| match will {
                LastWill::V3(will) => Will { topic: &will.topic, bytes: will.message.len() },
                LastWill::V5(will) => Will { topic: &will.topic, bytes: will.message.len() },
            }),
        };
        let serial = certificate.and_then(|certificate| certificate.serial.as_deref());
        if self.gate.connect(given, serial).await {
            AuthResult::Allow(false, None::<AuthInfo>)
        } else {
            AuthResult::NotAuthorized
        }
    }

    async fn subscribe(&self, session: &Session, subscribe: &Subscribe) -> SubscribeAclResult {
        let is_allowed = match Identity::parse(&session.id.client_id) {
            Some(identity) => self.gate.subscribe(&identity, &subscribe.topic_filter).await,
            None => false,
        };
        if is_allowed {
            SubscribeAclResult::new_success(subscribe.opts.qos(), None)
        } else {
            SubscribeAclResult::new_failure(SubscribeAckReason::NotAuthorized)
        }
    }

    async fn publish(&self, session: &Session, publish: &Publish) -> PublishAclResult {
        let refused = |reason, disconnect| {
            PublishAclResult(PublishResult::reason_code(reason, None, disconnect))
        };
        let Some(identity) = Identity::parse(&session.id.client_id) else {
            return refused(PublishAckReason::NotAuthorized, true);
        };
        let (topic, is_retained) = (&publish.topic, publish.retain);
        match self.gate.publish(&identity, topic, &publish.payload, is_retained).await {
            Verdict::Stored(ack) => {
                if let Some(payload) = ack {
                    let topic = Topic::Down(identity.tenant, identity.device, Down::Ack);
                    let message = Message { topic, payload, retain: false };
                    if let Err(error) = forward(&session.scx, message).await {
                        tracing::debug!(%error, "receipt not delivered; the device sends again");
                    }
                }
                PublishAclResult::allow()
            }
            Verdict::Refused => refused(PublishAckReason::NotAuthorized, false),
            // The device's spool still holds the message; it sends it again on its next connection.
            Verdict::NotStored => refused(PublishAckReason::UnspecifiedError, true),
        }
    }

    /// Last wills pass by the access hook, so they are stored here. Nothing that a device sends is retained: nobody could read it.
    async fn before_publish(
        &self,
        session: Option<&Session>,
        origin: &Origin,
        publish: &Publish,
    ) -> Option<Publish> {
        if let (FromType::LastWill, Some(session)) = (origin.typ(), session)
            && let Some(identity) = Identity::parse(&session.id.client_id)
        {
            // Its topic and its size were looked at when the device connected.
            self.gate.publish(&identity, &publish.topic, &publish.payload, false).await;
        }
        let is_device = matches!(origin.typ(), FromType::Custom | FromType::LastWill);
        // What may not be retained is left as it is, for the access hook to refuse.
        let is_presence = matches!(Topic::parse(&publish.topic), Ok(Topic::Up(_, _, Up::Conn)));
        (is_device && is_presence && publish.retain).then(|| {
            let mut packet = publish.clone();
            packet.inner.retain = false;
            packet
        })
    }
}
