//! What a device with a good certificate may not do on the embedded broker. Each test is named for the attack.

use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectReturnCode, LastWill, Packet, PubAckReason, SubscribeReasonCode,
};
use rumqttc::v5::{ConnectionError, MqttOptions};
use sealift_protocol::codec;
use sealift_protocol::telemetry::Conn;

use crate::mqtt::{Link, event, options, security_codes};
use crate::support::{Device, Fleet, client_config};

const FOREIGN: SubscribeReasonCode = SubscribeReasonCode::NotAuthorized;

async fn refused(options: MqttOptions) -> ConnectionError {
    Link::open(options).connected().await.unwrap_err()
}

async fn two_devices() -> (Fleet, Device, Device) {
    let fleet = Fleet::start();
    let (device, other) = (fleet.enrol("cam-1").await, fleet.enrol("cam-2").await);
    (fleet, device, other)
}

#[tokio::test]
async fn attack_to_take_over_another_devices_connection() {
    let (fleet, device, victim) = two_devices().await;
    let mut victims_link = Link::of(&fleet, &victim).await;

    for _ in 0..5 {
        let refusal = refused(options(&fleet, "main:cam-2", device.tls())).await;
        let is_refused =
            matches!(refusal, ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized));
        assert!(is_refused, "{refusal:?}");
    }

    // The connection that the victim had before still stands.
    let answer = victims_link.publish("sl/1/main/u/cam-2/event", event(1)).await;
    assert_eq!(answer, PubAckReason::Success);
    assert_eq!(security_codes(&fleet, "cam-1").await, ["mqtt.foreign-name"]);
    assert_eq!(security_codes(&fleet, "cam-2").await, Vec::<String>::new());
}

#[tokio::test]
async fn attack_another_devices_user_name_an_empty_name_and_the_servers() {
    let (fleet, device, _) = two_devices().await;
    // The certificate's name stands for the user name, whatever is given.
    let mut foreign = options(&fleet, "main:cam-1", device.tls());
    foreign.set_credentials("main:cam-2", "");
    let mut link = Link::open(foreign);
    link.connected().await.unwrap();
    let reason = link.publish("sl/1/main/u/cam-2/event", event(1)).await;
    assert_eq!(reason, PubAckReason::NotAuthorized);
    for name in ["", "fleet-server", "main:CAM-1", "other:cam-1"] {
        refused(options(&fleet, name, device.tls())).await;
    }
    let codes = security_codes(&fleet, "cam-1").await;
    assert_eq!(codes, ["mqtt.foreign-name", "mqtt.foreign-publish"]);
}

#[tokio::test]
async fn attack_the_servers_own_certificate_is_no_device() {
    let (fleet, ..) = two_devices().await;
    let keys = fleet.data().join("keys");
    let read = |name: &str| std::fs::read_to_string(keys.join(name)).unwrap();
    let (certificate, key) = (read("server.pem"), read("server-key.pem"));
    for name in ["fleet-server", "main:cam-1"] {
        let tls = client_config(&fleet.ca(), Some((&certificate, &key)));
        refused(options(&fleet, name, tls)).await;
    }
}

#[tokio::test]
async fn attack_to_listen_to_everybody() {
    let (fleet, device, _) = two_devices().await;
    let mut link = Link::of(&fleet, &device).await;
    for filter in [
        "#",
        "+/#",
        "+/+/+/+/+/+",
        "sl/#",
        "sl/1/main/#",
        "sl/1/main/d/+/directive",
        "sl/1/main/d/cam-2/directive",
        "sl/1/main/d/cam-1/#",
        "sl/1/main/u/cam-1/event",
        "sl/1/other/b/all/+",
        "$SYS/#",
        "$SYS/brokers/+/clients",
        "$share/ingest/sl/1/+/u/+/+",
        "$share/mine/sl/1/main/d/cam-1/+",
        "$queue/sl/1/main/d/cam-1/+",
        "$exclusive/sl/1/main/d/cam-1/+",
        "$limit/1/sl/1/main/d/cam-1/+",
    ] {
        assert_eq!(link.subscribe(filter).await, FOREIGN, "{filter}");
    }
    assert_eq!(security_codes(&fleet, "cam-1").await, ["mqtt.foreign-subscribe"]);
}

#[tokio::test]
async fn attack_to_speak_for_others() {
    let (fleet, device, victim) = two_devices().await;
    let mut victims_link = Link::of(&fleet, &victim).await;
    victims_link.subscribe("sl/1/main/d/cam-2/+").await;
    let mut link = Link::of(&fleet, &device).await;
    for topic in [
        "sl/1/main/u/cam-2/event",
        "sl/1/main/d/cam-2/directive",
        "sl/1/main/d/cam-1/directive",
        "sl/1/main/b/all/halt",
        "sl/1/other/u/cam-1/event",
        "sl/1/main/u/cam-1/made-up",
        "sl/1/main/u/cam-1",
        "$SYS/brokers",
        "$delayed/1/sl/1/main/d/cam-2/directive",
    ] {
        assert_eq!(link.publish(topic, event(1)).await, PubAckReason::NotAuthorized, "{topic}");
    }

    let own = victims_link.publish("sl/1/main/u/cam-2/event", event(1)).await;
    assert_eq!(own, PubAckReason::Success);
    // The first thing that the victim hears is its own receipt.
    let first = victims_link.next(|packet| matches!(packet, Packet::Publish(_))).await.unwrap();
    let Packet::Publish(first) = first else { unreachable!() };
    assert!(first.topic.ends_with(b"/ack"), "{first:?}");
    assert_eq!(security_codes(&fleet, "cam-1").await, ["mqtt.foreign-publish"]);
}

#[tokio::test]
async fn attack_a_will_on_a_foreign_topic_and_a_large_one() {
    let (fleet, device, _) = two_devices().await;
    let conn = codec::encode(&Conn { online: false, epoch: u64::MAX }).unwrap();
    for (topic, payload) in [
        ("sl/1/main/u/cam-2/conn", conn.clone()),
        ("sl/1/main/b/all/halt", conn.clone()),
        ("sl/1/main/u/cam-1/report", conn.clone()),
        ("sl/1/main/u/cam-1/conn", vec![0; 65]),
        ("sl/1/main/u/cam-1/conn", vec![0; 60_000]),
    ] {
        let mut with_will = options(&fleet, "main:cam-1", device.tls());
        with_will.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, true, None));
        refused(with_will).await;
    }
    let codes = security_codes(&fleet, "cam-1").await;
    assert_eq!(codes, ["mqtt.large-will", "mqtt.foreign-will"]);
    let mut own = options(&fleet, "main:cam-1", device.tls());
    let topic = "sl/1/main/u/cam-1/conn";
    own.set_last_will(LastWill::new(topic, conn, QoS::AtLeastOnce, true, None));
    assert!(Link::open(own).connected().await.is_ok());
}

#[tokio::test]
async fn attack_to_have_the_broker_keep_messages() {
    let (fleet, device, _) = two_devices().await;
    let mut link = Link::of(&fleet, &device).await;
    let topic = "sl/1/main/u/cam-1/event";
    link.client.publish(topic, QoS::AtLeastOnce, true, event(1)).await.unwrap();
    let packet = link.next(|packet| matches!(packet, Packet::PubAck(_))).await.unwrap();
    let Packet::PubAck(ack) = packet else { unreachable!() };
    assert_eq!(ack.reason, PubAckReason::NotAuthorized);
    assert_eq!(security_codes(&fleet, "cam-1").await, ["mqtt.foreign-retain"]);

    let conn = codec::encode(&Conn { online: true, epoch: 1 }).unwrap();
    let topic = "sl/1/main/u/cam-1/conn";
    link.client.publish(topic, QoS::AtLeastOnce, true, conn).await.unwrap();
    let packet = link.next(|packet| matches!(packet, Packet::PubAck(_))).await.unwrap();
    let Packet::PubAck(ack) = packet else { unreachable!() };
    assert_eq!(ack.reason, PubAckReason::Success);
}

#[tokio::test]
async fn the_broker_says_its_limits_and_ends_what_is_larger() {
    let (fleet, device, _) = two_devices().await;
    let mut link = Link::open(options(&fleet, "main:cam-1", device.tls()));
    let limits = link.connected().await.unwrap().properties.unwrap();
    assert_eq!(limits.receive_max, Some(16));
    assert_eq!(limits.max_packet_size, Some(260 << 10));

    link.client
        .publish("sl/1/main/u/cam-1/event", QoS::AtLeastOnce, false, vec![0; 261 << 10])
        .await
        .unwrap();

    assert!(link.next(|_| false).await.is_err());
    drop(Link::of(&fleet, &device).await);
}

#[tokio::test]
async fn what_a_device_may_subscribe_to_is_seven_topics() {
    let (fleet, device, _) = two_devices().await;
    let mut link = Link::of(&fleet, &device).await;
    let own = ["directive", "request", "ack", "+"].map(|it| format!("sl/1/main/d/cam-1/{it}"));
    let all = ["halt", "trust", "+"].map(|it| format!("sl/1/main/b/all/{it}"));
    for filter in own.iter().chain(&all) {
        let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
        assert_eq!(link.subscribe(filter).await, granted, "{filter}");
    }
}

#[tokio::test]
async fn attack_to_send_faster_than_everybody_else() {
    const MESSAGES: usize = 900;
    let (fleet, device, other) = two_devices().await;
    let mut link = Link::of(&fleet, &device).await;
    let mut others_link = Link::of(&fleet, &other).await;
    let flood = async {
        let at = Instant::now();
        for _ in 0..MESSAGES {
            link.publish("sl/1/main/u/cam-1/beat", vec![0; 10]).await;
        }
        at.elapsed()
    };
    let meanwhile = async {
        let at = Instant::now();
        let answer = others_link.publish("sl/1/main/u/cam-2/event", event(1)).await;
        assert_eq!(answer, PubAckReason::Success);
        at.elapsed()
    };

    let (flood, other) = tokio::join!(flood, meanwhile);

    // 600 at once, then 100 a second.
    println!("{MESSAGES} messages took {flood:?}, one of another device {other:?}");
    assert!(flood > Duration::from_millis(2_900), "{flood:?}");
    assert!(other < flood, "{other:?}");
    let metrics = fleet.api(reqwest::Method::GET, "/metrics").send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(metrics.contains("result=\"slowed\""), "{metrics}");
}
