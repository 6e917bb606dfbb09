//! Packets of MQTT 3.1.1 and 5 over a connection, as one language. The codec is a library's; which version a client speaks is known here
//! and nowhere else.

use std::io;
use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};
use rmqtt_codec::error::DecodeError;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{
    ConnectAck, ConnectAckReason, Disconnect, DisconnectReasonCode, PublishAck, PublishAckReason,
    PublishProperties, RetainHandling, SubscribeAck, SubscribeAckReason, ToReasonCode as _,
    UnsubscribeAck, UnsubscribeAckReason,
};
use rmqtt_codec::version::{ProtocolVersion, VersionCodec};
use rmqtt_codec::{MqttCodec, MqttPacket, v3, v5};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::codec::{Decoder as _, Encoder as _};

use super::hall::Backlog;
use super::mailbox::Wish;
use crate::broker::PACKET_BYTES_MAX;

/// Room to read into, and all that an idle connection keeps, as nearly all of ten thousand are; larger packets make more.
const READ_BYTES: usize = 1 << 10;

/// What waits is written when it is as much as this.
const WRITE_BYTES: usize = 32 << 10;

/// What ends a connection from this side, for MQTT 5 to say so.
pub(super) type Reason = DisconnectReasonCode;

/// Why nothing more can be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// The connection is lost.
    #[error("connection lost")]
    Lost(#[from] io::Error),
    /// What came is not MQTT, or not allowed.
    #[error("not allowed: {0:?}")]
    Refused(Reason),
}

/// The first packet of a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) client_id: String,
    /// Whether to go on with an earlier session.
    pub(super) resumes: bool,
    pub(super) keep_alive_s: u16,
    /// How long the session is to last without a connection, in seconds.
    pub(super) session_s: u32,
    /// QoS 1 messages that the client takes before it acknowledges one.
    pub(super) window: NonZeroU16,
    pub(super) will: Option<Will>,
    /// It wants to prove who it is by another way than its certificate.
    pub(super) has_method: bool,
}

/// What a client leaves to be said when its connection is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Will {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) delay_s: u32,
    /// QoS 2.
    pub(super) is_once: bool,
}

/// What comes from a client.
#[derive(Debug)]
pub(super) enum Incoming {
    Hello(Box<Hello>),
    Message(Box<Publish>),
    Acknowledged(NonZeroU16),
    Subscribe { id: NonZeroU16, filters: Vec<(String, Wish, Backlog)> },
    Unsubscribe { id: NonZeroU16, filters: Vec<String> },
    Ping,
    Goodbye { leaves_will: bool, session_s: Option<u32> },
    Refused(Reason),
}

/// What goes to a client.
#[derive(Debug)]
pub(super) enum Outgoing {
    Welcome {
        session_present: bool,
        session_s: u32,
        keep_alive_s: Option<u16>,
    },
    NotWelcome(ConnectAckReason),
    Received {
        id: NonZeroU16,
        is_refused: bool,
    },
    /// For each filter whether it is with QoS 1, or refused.
    Subscribed {
        id: NonZeroU16,
        granted: Vec<Option<bool>>,
    },
    /// For each filter whether there was a subscription.
    Unsubscribed {
        id: NonZeroU16,
        known: Vec<bool>,
    },
    Pong,
    Message(Publish),
    Goodbye(Reason),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    codec: MqttCodec,
    input: BytesMut,
    output: BytesMut,
}

/// Messages that a client may send before one is acknowledged.
const WINDOW: NonZeroU16 = NonZeroU16::new(16).expect("16 is not zero");

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        let codec = MqttCodec::Version(VersionCodec);
        Self { stream, codec, input: BytesMut::new(), output: BytesMut::new() }
    }

    /// Whether refusals can be said, and limits told: in MQTT 5.
    pub(super) const fn says_why(&self) -> bool {
        matches!(self.codec, MqttCodec::V5(_))
    }

    /// The next packet. Nothing is lost when this is dropped before it is done.
    pub(super) async fn read(&mut self) -> Result<Incoming, WireError> {
        loop {
            match self.codec.decode(&mut self.input).map_err(|error| refused(&error))? {
                Some((MqttPacket::Version(version), _)) => self.codec = codec_of(version),
                Some((MqttPacket::V3(packet), _)) => return Ok(from_v3(packet)),
                Some((MqttPacket::V5(packet), _)) => {
                    self.limit(&packet);
                    return Ok(from_v5(packet));
                }
                None => {
                    // Made anew: what is left of a buffer may be the end of a large one.
                    if self.input.is_empty() {
                        self.input = BytesMut::new();
                    }
                    self.input.reserve(READ_BYTES);
                    if self.stream.read_buf(&mut self.input).await? == 0 {
                        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                    }
                }
            }
        }
    }

    /// Puts a packet with what waits to be written.
    ///
    /// MQTT 5, 3.1.2.11.4: what is larger than the client takes is not sent to it.
    pub(super) fn push(&mut self, outgoing: Outgoing) {
        let packet = match self.codec {
            MqttCodec::V3(_) => to_v3(outgoing).map(MqttPacket::V3),
            MqttCodec::V5(_) => Some(MqttPacket::V5(to_v5(outgoing))),
            MqttCodec::Version(_) => None, // nothing is said to who has said nothing
        };
        if let Some(packet) = packet
            && let Err(error) = self.codec.encode(packet, &mut self.output)
        {
            tracing::debug!(%error, "packet not sent");
        }
    }

    /// Whether so much waits that it should be written.
    pub(super) fn is_full(&self) -> bool {
        self.output.len() >= WRITE_BYTES
    }

    /// Writes what waits.
    pub(super) async fn flush(&mut self) -> Result<(), WireError> {
        if self.output.is_empty() {
            return Ok(());
        }
        self.stream.write_all_buf(&mut self.output).await?;
        self.stream.flush().await?;
        self.output = BytesMut::new();
        Ok(())
    }

    /// Ends the connection, saying so.
    pub(super) async fn close(mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    fn limit(&mut self, packet: &v5::Packet) {
        let (MqttCodec::V5(codec), v5::Packet::Connect(connect)) = (&mut self.codec, packet) else {
            return;
        };
        if let Some(most) = connect.max_packet_size {
            codec.set_max_outbound_size(most.get().min(PACKET_BYTES_MAX));
        }
    }
}

fn codec_of(version: ProtocolVersion) -> MqttCodec {
    match version {
        ProtocolVersion::MQTT3 => MqttCodec::V3(v3::Codec::new(PACKET_BYTES_MAX)),
        ProtocolVersion::MQTT5 => MqttCodec::V5(v5::Codec::new(PACKET_BYTES_MAX, PACKET_BYTES_MAX)),
    }
}

fn refused(error: &DecodeError) -> WireError {
    WireError::Refused(error.to_reason_code())
}

fn from_v3(packet: v3::Packet) -> Incoming {
    match packet {
        v3::Packet::Connect(connect) => Incoming::Hello(Box::new(Hello {
            client_id: connect.client_id.to_string(),
            resumes: false,
            keep_alive_s: connect.keep_alive,
            session_s: 0,
            window: NonZeroU16::MAX,
            will: connect.last_will.map(|will| Will {
                topic: will.topic.to_string(),
                payload: will.message,
                delay_s: 0,
                is_once: will.qos == QoS::ExactlyOnce,
            }),
            has_method: false,
        })),
        v3::Packet::Publish(publish) => message(publish),
        v3::Packet::PublishAck { packet_id } => Incoming::Acknowledged(packet_id),
        v3::Packet::Subscribe { packet_id, topic_filters } => {
            let wish = |qos| Wish { acknowledges: qos != QoS::AtMostOnce, ..Wish::default() };
            let filters = topic_filters.into_iter();
            let filters =
                filters.map(|(filter, qos)| (filter.to_string(), wish(qos), Backlog::Always));
            Incoming::Subscribe { id: packet_id, filters: filters.collect() }
        }
        v3::Packet::Unsubscribe { packet_id, topic_filters } => {
            let filters = topic_filters.iter().map(ToString::to_string).collect();
            Incoming::Unsubscribe { id: packet_id, filters }
        }
        v3::Packet::PingRequest => Incoming::Ping,
        v3::Packet::Disconnect => Incoming::Goodbye { leaves_will: false, session_s: None },
        // A server's to send, or of QoS 2.
        v3::Packet::ConnectAck(_)
        | v3::Packet::PublishReceived { .. }
        | v3::Packet::PublishRelease { .. }
        | v3::Packet::PublishComplete { .. }
        | v3::Packet::SubscribeAck { .. }
        | v3::Packet::UnsubscribeAck { .. }
        | v3::Packet::PingResponse => Incoming::Refused(Reason::ProtocolError),
    }
}

fn from_v5(packet: v5::Packet) -> Incoming {
    match packet {
        v5::Packet::Connect(connect) => Incoming::Hello(Box::new(Hello {
            client_id: connect.client_id.to_string(),
            resumes: !connect.clean_start,
            keep_alive_s: connect.keep_alive,
            session_s: connect.session_expiry_interval_secs,
            window: connect.receive_max.unwrap_or(NonZeroU16::MAX),
            will: connect.last_will.map(|will| Will {
                topic: will.topic.to_string(),
                payload: will.message,
                delay_s: will.will_delay_interval_sec.unwrap_or(0),
                is_once: will.qos == QoS::ExactlyOnce,
            }),
            has_method: connect.auth_method.is_some(),
        })),
        v5::Packet::Publish(publish) => message(publish),
        v5::Packet::PublishAck(ack) => Incoming::Acknowledged(ack.packet_id),
        v5::Packet::Subscribe(subscribe) if subscribe.id.is_some() => {
            Incoming::Refused(Reason::SubscriptionIdentifiersNotSupported)
        }
        v5::Packet::Subscribe(subscribe) => {
            let filters = subscribe.topic_filters.into_iter().map(|(filter, options)| {
                let wish = Wish {
                    acknowledges: options.qos != QoS::AtMostOnce,
                    retained_as_published: options.retain_as_published,
                };
                let backlog = match options.retain_handling {
                    RetainHandling::AtSubscribe => Backlog::Always,
                    RetainHandling::AtSubscribeNew => Backlog::IfNew,
                    RetainHandling::NoAtSubscribe => Backlog::Never,
                };
                (filter.to_string(), wish, backlog)
            });
            Incoming::Subscribe { id: subscribe.packet_id, filters: filters.collect() }
        }
        v5::Packet::Unsubscribe(unsubscribe) => {
            let filters = unsubscribe.topic_filters.iter().map(ToString::to_string).collect();
            Incoming::Unsubscribe { id: unsubscribe.packet_id, filters }
        }
        v5::Packet::PingRequest => Incoming::Ping,
        v5::Packet::Disconnect(goodbye) => Incoming::Goodbye {
            leaves_will: goodbye.reason_code != Reason::NormalDisconnection,
            session_s: goodbye.session_expiry_interval_secs,
        },
        // A server's to send, of QoS 2, or of an authentication that was not offered.
        v5::Packet::ConnectAck(_)
        | v5::Packet::PublishReceived(_)
        | v5::Packet::PublishRelease(_)
        | v5::Packet::PublishComplete(_)
        | v5::Packet::SubscribeAck(_)
        | v5::Packet::UnsubscribeAck(_)
        | v5::Packet::PingResponse
        | v5::Packet::Auth(_) => Incoming::Refused(Reason::ProtocolError),
    }
}

/// MQTT 5, 3.2.2.3.4 and 3.2.2.3.8: the welcome has said that QoS 2 and aliases of topics are not offered.
fn message(publish: Box<Publish>) -> Incoming {
    let alias = publish.properties.as_ref().and_then(|properties| properties.topic_alias);
    if publish.qos == QoS::ExactlyOnce {
        Incoming::Refused(Reason::QosNotSupported)
    } else if alias.is_some() {
        Incoming::Refused(Reason::TopicAliasInvalid)
    } else {
        Incoming::Message(publish)
    }
}

/// None where MQTT 3.1.1 has no words for it.
fn to_v3(outgoing: Outgoing) -> Option<v3::Packet> {
    use v3::{ConnectAckReason as Code, SubscribeReturnCode};
    let welcome = |return_code| {
        Some(v3::Packet::ConnectAck(v3::ConnectAck { return_code, session_present: false }))
    };
    match outgoing {
        Outgoing::Welcome { .. } => welcome(Code::ConnectionAccepted),
        Outgoing::NotWelcome(ConnectAckReason::ServerBusy) => welcome(Code::ServiceUnavailable),
        Outgoing::NotWelcome(_) => welcome(Code::NotAuthorized),
        Outgoing::Received { id, is_refused } => {
            (!is_refused).then_some(v3::Packet::PublishAck { packet_id: id })
        }
        Outgoing::Subscribed { id, granted } => {
            let code = |granted: Option<bool>| match granted {
                Some(acknowledges) => SubscribeReturnCode::Success(qos(acknowledges)),
                None => SubscribeReturnCode::Failure,
            };
            let status = granted.into_iter().map(code).collect();
            Some(v3::Packet::SubscribeAck { packet_id: id, status })
        }
        Outgoing::Unsubscribed { id, .. } => Some(v3::Packet::UnsubscribeAck { packet_id: id }),
        Outgoing::Pong => Some(v3::Packet::PingResponse),
        Outgoing::Message(publish) => Some(v3::Packet::Publish(Box::new(publish))),
        Outgoing::Goodbye(_) => None,
    }
}

fn to_v5(outgoing: Outgoing) -> v5::Packet {
    match outgoing {
        Outgoing::Welcome { session_present, session_s, keep_alive_s } => {
            v5::Packet::ConnectAck(Box::new(ConnectAck {
                session_present,
                session_expiry_interval_secs: Some(session_s),
                receive_max: WINDOW,
                max_qos: QoS::AtLeastOnce,
                max_packet_size: Some(PACKET_BYTES_MAX),
                subscription_identifiers_available: false,
                shared_subscription_available: false,
                server_keepalive_sec: keep_alive_s,
                ..ConnectAck::default()
            }))
        }
        Outgoing::NotWelcome(reason_code) => {
            v5::Packet::ConnectAck(Box::new(ConnectAck { reason_code, ..ConnectAck::default() }))
        }
        Outgoing::Received { id, is_refused } => {
            let reason_code = if is_refused {
                PublishAckReason::NotAuthorized
            } else {
                PublishAckReason::Success
            };
            v5::Packet::PublishAck(PublishAck {
                packet_id: id,
                reason_code,
                properties: Vec::new(),
                reason_string: None,
            })
        }
        Outgoing::Subscribed { id, granted } => {
            let code = |granted: Option<bool>| match granted {
                Some(true) => SubscribeAckReason::GrantedQos1,
                Some(false) => SubscribeAckReason::GrantedQos0,
                None => SubscribeAckReason::NotAuthorized,
            };
            v5::Packet::SubscribeAck(SubscribeAck {
                packet_id: id,
                properties: Vec::new(),
                reason_string: None,
                status: granted.into_iter().map(code).collect(),
            })
        }
        Outgoing::Unsubscribed { id, known } => {
            let code = |known| {
                if known {
                    UnsubscribeAckReason::Success
                } else {
                    UnsubscribeAckReason::NoSubscriptionExisted
                }
            };
            v5::Packet::UnsubscribeAck(UnsubscribeAck {
                packet_id: id,
                properties: Vec::new(),
                reason_string: None,
                status: known.into_iter().map(code).collect(),
            })
        }
        Outgoing::Pong => v5::Packet::PingResponse,
        Outgoing::Message(mut publish) => {
            publish.properties = Some(PublishProperties::default());
            v5::Packet::Publish(Box::new(publish))
        }
        Outgoing::Goodbye(reason) => v5::Packet::Disconnect(Disconnect::new(reason)),
    }
}

pub(super) const fn qos(acknowledges: bool) -> QoS {
    if acknowledges { QoS::AtLeastOnce } else { QoS::AtMostOnce }
}

#[cfg(test)]
mod tests;
