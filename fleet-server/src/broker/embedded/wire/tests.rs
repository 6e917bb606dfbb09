use proptest::prelude::*;
use rmqtt_codec::types::QoS;
use tokio::io::{DuplexStream, duplex};

use super::*;

const ROOM: usize = 1 << 20;

/// A client's first packets, as the wire has them: both versions of CONNECT with a will, and one of everything that may follow.
fn conversation(version: ProtocolVersion) -> Vec<Vec<u8>> {
    let mut codec = codec_of(version);
    let packets = match version {
        ProtocolVersion::MQTT3 => Vec::from(old().map(MqttPacket::V3)),
        ProtocolVersion::MQTT5 => Vec::from(new().map(MqttPacket::V5)),
    };
    let encode = |packet| {
        let mut bytes = BytesMut::new();
        codec.encode(packet, &mut bytes).unwrap();
        bytes.to_vec()
    };
    packets.into_iter().map(encode).collect()
}

fn old() -> [v3::Packet; 5] {
    let will = v3::LastWill {
        qos: QoS::AtLeastOnce,
        retain: true,
        topic: "t".into(),
        message: Bytes::from_static(b"gone"),
    };
    let connect = v3::Connect { keep_alive: 9, last_will: Some(will), ..v3::Connect::default() };
    let publish = Publish { properties: None, ..message_of(QoS::AtLeastOnce) };
    let filters = vec![("a".into(), QoS::AtMostOnce), ("b/+".into(), QoS::ExactlyOnce)];
    [
        connect.client_id("main:cam-1").into(),
        publish.into(),
        v3::Packet::Subscribe { packet_id: NonZeroU16::MIN, topic_filters: filters },
        v3::Packet::PublishAck { packet_id: NonZeroU16::MIN },
        v3::Packet::Disconnect,
    ]
}

fn new() -> [v5::Packet; 6] {
    let will = v5::LastWill {
        qos: QoS::AtLeastOnce,
        retain: true,
        topic: "t".into(),
        message: Bytes::from_static(b"gone"),
        will_delay_interval_sec: Some(30),
        correlation_data: None,
        message_expiry_interval: None,
        content_type: Some("text".into()),
        user_properties: vec![("a".into(), "b".into())],
        is_utf8_payload: None,
        response_topic: None,
    };
    let connect = v5::Connect {
        keep_alive: 9,
        session_expiry_interval_secs: 60,
        receive_max: NonZeroU16::new(3),
        last_will: Some(will),
        ..v5::Connect::default()
    };
    let options = v5::SubscriptionOptions { qos: QoS::AtLeastOnce, ..Default::default() };
    let subscribe = v5::Subscribe {
        packet_id: NonZeroU16::MIN,
        id: None,
        user_properties: Vec::new(),
        topic_filters: vec![("a".into(), options)],
    };
    let unsubscribe = v5::Unsubscribe {
        packet_id: NonZeroU16::MIN,
        user_properties: Vec::new(),
        topic_filters: vec!["a".into(), "b".into()],
    };
    [
        v5::Packet::Connect(Box::new(connect.client_id("main:cam-1"))),
        v5::Packet::Publish(Box::new(message_of(QoS::AtLeastOnce))),
        v5::Packet::Subscribe(subscribe),
        v5::Packet::Unsubscribe(unsubscribe),
        v5::Packet::PingRequest,
        v5::Packet::Disconnect(Disconnect::new(Reason::DisconnectWithWillMessage)),
    ]
}

fn message_of(qos: QoS) -> Publish {
    Publish {
        dup: false,
        retain: false,
        qos,
        topic: "t".into(),
        packet_id: (qos != QoS::AtMostOnce).then_some(NonZeroU16::MIN),
        payload: Bytes::from_static(b"payload"),
        properties: Some(PublishProperties::default()),
    }
}

/// All that is read of `bytes` in pieces of a few, until their end or a refusal.
fn read_all(bytes: &[u8], piece: usize) -> (Vec<String>, WireError) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (mut client, server) = duplex(piece);
        let mut wire = Wire::new(server);
        let write = async move {
            // The reader may have had enough.
            let _refused = client.write_all(bytes).await;
        };
        let read = async {
            let mut packets = Vec::new();
            loop {
                match wire.read().await {
                    Ok(packet) => packets.push(format!("{packet:?}")),
                    Err(error) => break (packets, error, drop(wire)),
                }
            }
        };
        let ((), (packets, error, ())) = tokio::join!(write, read);
        (packets, error)
    })
}

fn greeted() -> (DuplexStream, Wire<DuplexStream>, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut client, server) = duplex(ROOM);
    let mut wire = Wire::new(server);
    let mut connect = BytesMut::new();
    let most = v5::Connect { max_packet_size: 100.try_into().ok(), ..v5::Connect::default() };
    let packet = v5::Packet::Connect(Box::new(most.client_id("main:cam-1")));
    codec_of(ProtocolVersion::MQTT5).encode(MqttPacket::V5(packet), &mut connect).unwrap();
    runtime.block_on(async {
        client.write_all(&connect).await.unwrap();
        assert!(matches!(wire.read().await, Ok(Incoming::Hello(_))));
    });
    (client, wire, runtime)
}

#[test]
fn a_conversation_is_read_the_same_in_pieces_of_any_length() {
    for version in [ProtocolVersion::MQTT3, ProtocolVersion::MQTT5] {
        let conversation = conversation(version);
        let whole = read_all(&conversation.concat(), ROOM).0;
        assert_eq!(whole.len(), conversation.len());
        for piece in [1, 2, 7, 64] {
            assert_eq!(read_all(&conversation.concat(), piece).0, whole, "{version:?} {piece}");
        }
    }
}

#[test]
fn what_a_client_wants_is_read_of_its_first_packet() {
    let (said, _) = read_all(&conversation(ProtocolVersion::MQTT5)[0], ROOM);
    let wanted = "Hello(Hello { client_id: \"main:cam-1\", resumes: true, \
                  keep_alive_s: 9, session_s: 60, window: 3, will: Some(Will { topic: \"t\", \
                  payload: b\"gone\", delay_s: 30, is_once: false }), has_method: false })";
    assert_eq!(said, [wanted]);
}

#[test]
fn what_is_not_offered_is_refused_by_its_own_reason() {
    let mut alias = message_of(QoS::AtMostOnce);
    alias.properties =
        Some(PublishProperties { topic_alias: NonZeroU16::new(1), ..Default::default() });
    for (publish, reason) in [
        (message_of(QoS::ExactlyOnce), Reason::QosNotSupported),
        (alias, Reason::TopicAliasInvalid),
    ] {
        let given = message(Box::new(publish));
        assert!(matches!(given, Incoming::Refused(why) if why == reason), "{given:?}");
    }
}

#[test]
fn a_packet_that_announces_too_much_is_refused_before_it_comes() {
    let mut bytes = conversation(ProtocolVersion::MQTT5).remove(0);
    bytes.extend([0x30, 0xff, 0xff, 0xff, 0x7f]);
    let (packets, error) = read_all(&bytes, ROOM);
    assert_eq!(packets.len(), 1);
    assert!(matches!(error, WireError::Refused(Reason::PacketTooLarge)), "{error:?}");
}

#[test]
fn a_message_that_is_too_large_for_the_client_is_not_sent_and_others_are() {
    let (mut client, mut wire, runtime) = greeted();
    let large = Publish { payload: vec![7; 200].into(), ..message_of(QoS::AtMostOnce) };
    wire.push(Outgoing::Message(large));
    wire.push(Outgoing::Pong);
    runtime.block_on(async {
        wire.flush().await.unwrap();
        drop(wire);
        let mut given = Vec::new();
        client.read_to_end(&mut given).await.unwrap();
        assert_eq!(given, [0xd0, 0]);
    });
}

#[test]
fn an_idle_connection_keeps_no_large_buffer() {
    let (mut client, mut wire, runtime) = greeted();
    let large = Publish { payload: vec![7; 100_000].into(), ..message_of(QoS::AtMostOnce) };
    let mut bytes = BytesMut::new();
    let packet = MqttPacket::V5(v5::Packet::Publish(Box::new(large)));
    codec_of(ProtocolVersion::MQTT5).encode(packet, &mut bytes).unwrap();
    runtime.block_on(async {
        client.write_all(&bytes).await.unwrap();
        assert!(
            matches!(wire.read().await, Ok(Incoming::Message(it)) if it.payload.len() == 100_000)
        );
        let idle = tokio::select! {
            biased;
            _ = wire.read() => false,
            () = std::future::ready(()) => true,
        };
        assert!(idle);
    });
    assert!(wire.input.capacity() <= 2 * READ_BYTES, "{} bytes", wire.input.capacity());
}

proptest! {
    /// Whoever has a certificate may send anything: it is a packet or a refusal, and never the end of the server.
    #[test]
    fn any_bytes_are_packets_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_all(&bytes, ROOM);
        for version in [ProtocolVersion::MQTT3, ProtocolVersion::MQTT5] {
            let connect = conversation(version).remove(0);
            read_all(&[connect, bytes.clone()].concat(), ROOM);
        }
    }

    #[test]
    fn any_change_of_a_conversation_is_packets_or_refused(
        is_new in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end in any::<prop::sample::Index>(),
    ) {
        let version = if is_new { ProtocolVersion::MQTT5 } else { ProtocolVersion::MQTT3 };
        let mut bytes = conversation(version).concat();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        read_all(&bytes, ROOM);
        read_all(&bytes[..end.index(bytes.len())], ROOM);
    }
}
