//! A broker that somebody else runs: mosquitto, with the device CA and the access list that the server writes.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason};
use sealift_protocol::codec;
use sealift_protocol::telemetry::{Ack, SpoolId};

use crate::identity::revoke;
use crate::mqtt::{Link, event, options};
use crate::support::{Fleet, client_config, run, text};

/// As docs/operate/brokers.md sets it up: one listener for devices, whose client id is their certificate's name, and one for servers.
struct Mosquitto(Child);

#[derive(Clone, Copy)]
struct Ports {
    devices: u16,
    servers: u16,
}

impl Mosquitto {
    fn start(fleet: &Fleet, ports: Ports, more: &str) -> Self {
        let keys = fleet.data().join("keys");
        let folder = fleet.folder.path();
        write_rights(fleet);
        let tls = format!(
            "cafile {keys}/ca.pem\ncertfile {keys}/server.pem\nkeyfile {keys}/server-key.pem\n\
             require_certificate true\nuse_identity_as_username true\n{more}",
            keys = text(&keys),
        );
        let config = format!(
            "user root\nallow_anonymous false\nacl_file {folder}/acl\n\
             listener {} 127.0.0.1\n{tls}\nuse_username_as_clientid true\n\
             listener {} 127.0.0.1\n{tls}\n",
            ports.devices,
            ports.servers,
            folder = text(folder),
        );
        let file = folder.join("mosquitto.conf");
        std::fs::write(&file, config).unwrap();
        let program = std::env::var("SEALIFT_MOSQUITTO").unwrap_or_else(|_| "mosquitto".to_owned());
        let mut command = Command::new(program);
        let mut process = command.args(["-c", text(&file)]).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let is_running = lines.any(|line| line.unwrap().contains(" running"));
        std::thread::spawn(move || lines.for_each(drop));
        let broker = Self(process);
        assert!(is_running);
        broker
    }

    /// Has it read the access list again.
    fn reload(&self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    }
}

fn write_rights(fleet: &Fleet) {
    let acl = run(&["mqtt-acl", "--data", text(&fleet.data())]).unwrap();
    std::fs::write(fleet.folder.path().join("acl"), acl).unwrap();
}

fn section(ports: Ports) -> String {
    let Ports { devices, servers } = ports;
    format!(
        "[mqtt.external]\nhost = \"localhost\"\nport = {servers}\n\
         devices = \"localhost:{devices}\"\n"
    )
}

fn free_ports() -> Ports {
    // Both at a time, so that they are two.
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [devices, servers] = listeners.each_ref().map(|it| it.local_addr().unwrap().port());
    Ports { devices, servers }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
#[ignore = "needs mosquitto 2 on this machine"]
async fn devices_reach_the_server_through_mosquitto_and_only_on_their_own_topics() {
    let mut fleet = Fleet::start();
    let device = fleet.enrol("cam-1").await;
    fleet.enrol("cam-2").await;
    let ports = free_ports();
    let mosquitto = Mosquitto::start(&fleet, ports, "");
    fleet.restart_with(&section(ports));
    assert_eq!(fleet.endpoints.mqtt, format!("localhost:{}", ports.devices));
    let mut link = Link::of(&fleet, &device).await;
    link.subscribe("sl/1/main/d/cam-1/+").await;

    // The server connects on its own time; a device sends again until it has its receipt.
    while link.publish("sl/1/main/u/cam-1/event", event(1)).await != PubAckReason::Success {}

    let ack: Ack = codec::decode("ack", &link.message("/ack").await, 1_000).unwrap();
    assert_eq!(ack, Ack { spool: SpoolId(7), sequence: 1 });
    let foreign = link.publish("sl/1/main/u/cam-2/event", event(2)).await;
    assert_eq!(foreign, PubAckReason::NotAuthorized);

    drop(mosquitto);
    let _again = Mosquitto::start(&fleet, ports, "");
    let mut link = Link::of(&fleet, &device).await;
    link.subscribe("sl/1/main/d/cam-1/+").await;
    while link.publish("sl/1/main/u/cam-1/event", event(2)).await != PubAckReason::Success {}
    let ack: Ack = codec::decode("ack", &link.message("/ack").await, 1_000).unwrap();
    assert_eq!(ack.sequence, 2);
}

#[tokio::test]
#[ignore = "needs mosquitto 2 on this machine"]
async fn attacks_on_mosquitto_with_the_access_list_that_the_server_writes() {
    let mut fleet = Fleet::start();
    let (device, victim) = (fleet.enrol("cam-1").await, fleet.enrol("cam-2").await);
    let ports = free_ports();
    let _mosquitto = Mosquitto::start(&fleet, ports, "");
    fleet.restart_with(&section(ports));
    let mut victims_link = Link::of(&fleet, &victim).await;
    while victims_link.publish("sl/1/main/u/cam-2/event", event(1)).await != PubAckReason::Success {
    }

    // The client id of another device: the certificate's name is taken instead.
    let mut thief = Link::open(options(&fleet, "main:cam-2", device.tls()));
    thief.connected().await.unwrap();
    let foreign = thief.publish("sl/1/main/u/cam-2/event", event(9)).await;
    assert_eq!(foreign, PubAckReason::NotAuthorized);
    let own = victims_link.publish("sl/1/main/u/cam-2/event", event(2)).await;
    assert_eq!(own, PubAckReason::Success, "the victim's connection still stands");
    drop(thief);

    // A subscription to everything brings only what the device may read.
    let mut link = Link::of(&fleet, &device).await;
    link.subscribe("#").await;
    assert_eq!(
        victims_link.publish("sl/1/main/u/cam-2/event", event(3)).await,
        PubAckReason::Success
    );
    assert_eq!(link.publish("sl/1/main/u/cam-1/event", event(1)).await, PubAckReason::Success);
    let first = link.next(|packet| matches!(packet, Packet::Publish(_))).await.unwrap();
    let Packet::Publish(first) = first else { unreachable!() };
    assert!(first.topic.starts_with(b"sl/1/main/d/cam-1/"), "{first:?}");

    // More messages on a channel that there is not than the server takes unacknowledged: it hears the others all the same.
    for _ in 0..300 {
        link.publish("sl/1/main/u/cam-1/no-such-channel", event(1)).await;
    }
    victims_link.subscribe("sl/1/main/d/cam-2/+").await;
    victims_link.publish("sl/1/main/u/cam-2/event", event(4)).await;
    loop {
        let ack: Ack = codec::decode("ack", &victims_link.message("/ack").await, 1_000).unwrap();
        if ack.sequence == 4 {
            break;
        }
    }

    // No certificate, and one of another fleet.
    let other = Fleet::start();
    let stranger = other.enrol("cam-1").await;
    let identity = (stranger.answer.certificate_pem.as_str(), stranger.key_pem.as_str());
    for tls in [client_config(&fleet.ca(), None), client_config(&fleet.ca(), Some(identity))] {
        assert!(Link::open(options(&fleet, "main:cam-1", tls)).connected().await.is_err());
    }
}

#[tokio::test]
#[ignore = "needs mosquitto 2 on this machine"]
async fn a_revoked_device_is_dropped_from_mosquitto_within_five_seconds() {
    let mut fleet = Fleet::start();
    let (device, other) = (fleet.enrol("cam-1").await, fleet.enrol("cam-2").await);
    let ports = free_ports();
    let mosquitto = Mosquitto::start(&fleet, ports, "");
    fleet.restart_with(&section(ports));
    let mut link = Link::of(&fleet, &device).await;
    while link.publish("sl/1/main/u/cam-1/event", event(1)).await != PubAckReason::Success {}

    let at = Instant::now();
    revoke(&fleet, "cam-1").await;
    assert!(link.next(|_| false).await.is_err());
    let dropped = at.elapsed();

    println!("dropped from mosquitto after {dropped:?}");
    assert!(dropped < Duration::from_secs(5), "{dropped:?}");

    // With the list written anew it may connect, and can do nothing; if the server looks at that moment, it is dropped once more.
    write_rights(&fleet);
    mosquitto.reload();
    let mut link = Link::of(&fleet, &device).await;
    if let Ok(refused) = link.try_publish("sl/1/main/u/cam-1/event", event(2)).await {
        assert_eq!(refused, PubAckReason::NotAuthorized);
    }

    // With the revocation list it does not even connect; others do.
    drop(mosquitto);
    let list = fleet.folder.path().join("crl.pem");
    std::fs::write(&list, run(&["mqtt-crl", "--data", text(&fleet.data())]).unwrap()).unwrap();
    let _again = Mosquitto::start(&fleet, ports, &format!("crlfile {}\n", text(&list)));
    assert!(
        Link::open(options(&fleet, "main:cam-1", device.tls())).connected().await.is_err(),
        "revoked"
    );
    drop(Link::of(&fleet, &other).await);
}
