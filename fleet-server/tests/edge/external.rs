//! A broker that somebody else runs: mosquitto, with the device CA and the access list that the server writes.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use rumqttc::v5::mqttbytes::v5::PubAckReason;
use sealift_protocol::codec;
use sealift_protocol::telemetry::{Ack, SpoolId};

use crate::mqtt::{Link, event};
use crate::support::{Fleet, run, text};

struct Mosquitto(Child);

impl Mosquitto {
    fn start(fleet: &Fleet, port: u16) -> Self {
        let keys = fleet.data().join("keys");
        let folder = fleet.folder.path();
        let acl = run(&["mqtt-acl", "--data", text(&fleet.data())]).unwrap();
        std::fs::write(folder.join("acl"), acl).unwrap();
        let config = format!(
            "listener {port} 127.0.0.1\nuser root\ncafile {keys}/ca.pem\n\
             certfile {keys}/server.pem\nkeyfile {keys}/server-key.pem\n\
             require_certificate true\nuse_identity_as_username true\nacl_file {folder}/acl\n",
            keys = text(&keys),
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
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
#[ignore = "needs mosquitto 2 on this machine"]
async fn devices_reach_the_server_through_mosquitto_and_only_on_their_own_topics() {
    let mut fleet = Fleet::start();
    let device = fleet.enrol("cam-1").await;
    fleet.enrol("cam-2").await;
    let port = free_port();
    let mosquitto = Mosquitto::start(&fleet, port);
    fleet.restart_with(&format!("[mqtt.external]\nhost = \"localhost\"\nport = {port}\n"));
    assert_eq!(fleet.endpoints.mqtt, format!("localhost:{port}"));
    let mut link = Link::of(&fleet, &device).await;
    link.subscribe("sl/1/main/d/cam-1/+").await;

    // The server connects on its own time; a device sends again until it has its receipt.
    while link.publish("sl/1/main/u/cam-1/event", event(1)).await != PubAckReason::Success {}

    let ack: Ack = codec::decode("ack", &link.message("/ack").await, 1_000).unwrap();
    assert_eq!(ack, Ack { spool: SpoolId(7), sequence: 1 });
    let foreign = link.publish("sl/1/main/u/cam-2/event", event(2)).await;
    assert_eq!(foreign, PubAckReason::NotAuthorized);

    drop(mosquitto);
    let _again = Mosquitto::start(&fleet, port);
    let mut link = Link::of(&fleet, &device).await;
    link.subscribe("sl/1/main/d/cam-1/+").await;
    while link.publish("sl/1/main/u/cam-1/event", event(2)).await != PubAckReason::Success {}
    let ack: Ack = codec::decode("ack", &link.message("/ack").await, 1_000).unwrap();
    assert_eq!(ack.sequence, 2);
}
