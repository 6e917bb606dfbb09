//! The server's own broker, with clients of both versions of MQTT that have a device's certificate and no agent.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectProperties, DisconnectReasonCode, LastWill, LastWillProperties, Packet,
    PubAckReason, Publish, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, EventLoop, MqttOptions, StateError};
use rumqttc::{TlsConfiguration, Transport};
use rustls::ClientConfig;
use sealift_protocol::api::DeviceState;
use sealift_protocol::codec;
use sealift_protocol::id::DeviceId;
use sealift_protocol::telemetry::Conn;
use sealift_tests::fleet::{Options, Server};
use sealift_tests::story::SOON;
use sealift_tests::wait::{Look, until};
use sealift_tests::wire;
use tokio::time::timeout;

const OWN: &str = "sl/1/main/d/cam-1/+";
const BROADCASTS: &str = "sl/1/main/b/all/+";
const HALT: &str = "sl/1/main/b/all/halt";
const PRESENCE: &str = "sl/1/main/u/cam-1/conn";

/// How long a place is kept, in these stories.
const DELAY_S: u32 = 3;

fn transport(tls: &Arc<ClientConfig>) -> Transport {
    Transport::Tls(TlsConfiguration::Rustls(Arc::clone(tls)))
}

/// Options of `main:cam-1`, that waits as an agent does before it is said to be away.
fn options(server: &Server, tls: &Arc<ClientConfig>, epoch: u64) -> anyhow::Result<MqttOptions> {
    let (host, port) = server.endpoints.mqtt.rsplit_once(':').context("an address")?;
    let mut options = MqttOptions::new("main:cam-1", host, port.parse()?);
    options.set_transport(transport(tls)).set_clean_start(false).set_manual_acks(true);
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = Some(3_600);
    options.set_connect_properties(properties);
    let delay = LastWillProperties {
        delay_interval: Some(DELAY_S),
        payload_format_indicator: None,
        message_expiry_interval: None,
        content_type: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
    };
    let offline = codec::encode(&Conn { online: false, epoch })?;
    options.set_last_will(LastWill::new(PRESENCE, offline, QoS::AtLeastOnce, true, Some(delay)));
    Ok(options)
}

async fn connect(options: MqttOptions) -> anyhow::Result<(AsyncClient, EventLoop, ConnAck)> {
    let (client, mut events) = AsyncClient::new(options, 16);
    let welcome = wire::next(&mut events, |packet| matches!(packet, Packet::ConnAck(_))).await?;
    let Packet::ConnAck(welcome) = welcome else { bail!("not a welcome") };
    Ok((client, events, welcome))
}

async fn subscribe(
    client: &AsyncClient,
    events: &mut EventLoop,
    filter: &str,
) -> anyhow::Result<SubscribeReasonCode> {
    client.subscribe(filter, QoS::AtLeastOnce).await?;
    let ack = wire::next(events, |packet| matches!(packet, Packet::SubAck(_))).await?;
    let Packet::SubAck(ack) = ack else { bail!("not an answer") };
    ack.return_codes.first().copied().context("no answer")
}

async fn heard(events: &mut EventLoop, topic: &str) -> anyhow::Result<Publish> {
    let is_it = |packet: &Packet| matches!(packet, Packet::Publish(it) if it.topic == topic);
    let Packet::Publish(message) = wire::next(events, is_it).await? else { bail!("no message") };
    Ok(message)
}

/// What the broker said when it ended the connection.
async fn ended(events: &mut EventLoop) -> anyhow::Result<DisconnectReasonCode> {
    let wait = async {
        loop {
            match events.poll().await {
                Ok(_) => (),
                Err(ConnectionError::MqttState(StateError::ServerDisconnect {
                    reason_code,
                    ..
                })) => return Ok(reason_code),
                Err(error) => bail!("it said nothing: {error}"),
            }
        }
    };
    timeout(SOON, wait).await.context("the connection goes on")?
}

async fn is(server: &Server, wanted: DeviceState) -> anyhow::Result<()> {
    let (api, device) = (server.api()?, DeviceId::parse("cam-1")?);
    until(&format!("the device is {wanted:?}"), SOON, || async {
        let state = api.device(&device).await?.state;
        Ok(if state == wanted { Look::Done(()) } else { Look::NotYet(format!("{state:?}")) })
    })
    .await
}

async fn fleet(directory: &Path) -> anyhow::Result<(Server, Arc<ClientConfig>)> {
    let server = Server::start(directory, &Options::default()).await?;
    let tls = Arc::new(wire::enrol(&server, directory, "cam-1")?);
    Ok((server, tls))
}

fn halt(server: &Server) -> anyhow::Result<()> {
    server.ctl(&["halt", "--all", "--reason", "a test", "--yes"]).map(|_| ())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn a_session_goes_on_where_it_was_lost_and_sends_again_what_was_not_acknowledged()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, tls) = fleet(directory.path()).await?;
    let (client, mut events, welcome) = connect(options(&server, &tls, 1)?).await?;
    let properties = welcome.properties.context("no properties")?;
    assert!(!welcome.session_present);
    assert_eq!((properties.max_qos, properties.session_expiry_interval), (Some(1), Some(DELAY_S)));
    for filter in [OWN, BROADCASTS] {
        let code = subscribe(&client, &mut events, filter).await?;
        assert_eq!(code, SubscribeReasonCode::Success(QoS::AtLeastOnce), "{filter}");
    }
    halt(&server)?;
    let first = heard(&mut events, HALT).await?;
    assert!(!first.dup && !first.retain && first.pkid > 0);
    drop((client, events));

    let (client, mut events, welcome) = connect(options(&server, &tls, 2)?).await?;
    assert!(welcome.session_present);
    let again = heard(&mut events, HALT).await?;
    assert!(again.dup && again.pkid == first.pkid && again.payload == first.payload);
    client.ack(&again).await?;
    // An answer to what comes after says that the acknowledgement was read.
    subscribe(&client, &mut events, OWN).await?;
    drop((client, events));

    let (client, mut events, welcome) = connect(options(&server, &tls, 3)?).await?;
    assert!(welcome.session_present);
    subscribe(&client, &mut events, HALT).await?;
    let kept = heard(&mut events, HALT).await?;
    assert!(kept.retain && !kept.dup, "it was acknowledged, so that only what is retained comes");
    drop((client, events));

    let mut anew = options(&server, &tls, 4)?;
    anew.set_clean_start(true);
    let (_client, _events, welcome) = connect(anew).await?;
    assert!(!welcome.session_present);
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn a_device_that_comes_back_in_time_is_never_said_to_be_away() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, tls) = fleet(directory.path()).await?;
    let online = |epoch| codec::encode(&Conn { online: true, epoch });
    let (client, mut events, _) = connect(options(&server, &tls, 1)?).await?;
    client.publish(PRESENCE, QoS::AtLeastOnce, true, online(1)?).await?;
    wire::next(&mut events, |packet| matches!(packet, Packet::PubAck(_))).await?;
    is(&server, DeviceState::Online).await?;
    drop((client, events));

    let (client, mut events, _) = connect(options(&server, &tls, 1)?).await?;
    // Longer than the will of the first connection would have waited, and its epoch is not too old to count.
    let quiet = timeout(Duration::from_secs(u64::from(DELAY_S) + 2), ended(&mut events)).await;
    assert!(quiet.is_err(), "{quiet:?}");
    is(&server, DeviceState::Online).await?;

    // This time it does not come back.
    drop((client, events));
    is(&server, DeviceState::Offline).await
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn a_second_connection_takes_the_place_of_the_first() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, tls) = fleet(directory.path()).await?;
    let (_first, mut first_events, _) = connect(options(&server, &tls, 1)?).await?;

    let (second, mut second_events, _) = connect(options(&server, &tls, 2)?).await?;

    assert_eq!(ended(&mut first_events).await?, DisconnectReasonCode::SessionTakenOver);
    subscribe(&second, &mut second_events, BROADCASTS).await?;
    halt(&server)?;
    heard(&mut second_events, HALT).await?;

    server.ctl(&["device", "revoke", "cam-1", "--reason", "a test"])?;
    assert_eq!(ended(&mut second_events).await?, DisconnectReasonCode::AdministrativeAction);
    let refused = connect(options(&server, &tls, 3)?).await.err().context("it is let in")?;
    assert!(format!("{refused:?}").contains("NotAuthorized"), "{refused:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn what_is_not_offered_ends_the_connection_and_what_is_not_allowed_does_not()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, tls) = fleet(directory.path()).await?;
    let (client, mut events, _) = connect(options(&server, &tls, 1)?).await?;
    for filter in ["#", "sl/1/main/d/cam-2/+", "$share/x/sl/1/main/b/all/+"] {
        let code = subscribe(&client, &mut events, filter).await?;
        assert_eq!(code, SubscribeReasonCode::NotAuthorized, "{filter}");
    }
    client.publish("sl/1/main/u/cam-2/conn", QoS::AtLeastOnce, false, "").await?;
    let ack = wire::next(&mut events, |packet| matches!(packet, Packet::PubAck(_))).await?;
    assert!(matches!(ack, Packet::PubAck(ack) if ack.reason == PubAckReason::NotAuthorized));

    client.publish(PRESENCE, QoS::ExactlyOnce, false, "").await?;

    assert_eq!(ended(&mut events).await?, DisconnectReasonCode::QoSNotSupported);
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn a_client_that_says_nothing_is_gone_after_one_and_a_half_times_its_keep_alive()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, tls) = fleet(directory.path()).await?;
    let mut quiet = options(&server, &tls, 1)?;
    quiet.set_keep_alive(Duration::from_secs(5));
    let (_client, mut events, _) = connect(quiet).await?;

    // Not polled, it sends no ping.
    tokio::time::sleep(Duration::from_secs(9)).await;

    assert_eq!(ended(&mut events).await?, DisconnectReasonCode::KeepAliveTimeout);
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn a_client_of_the_older_version_hears_and_may_as_much_as_another() -> anyhow::Result<()> {
    use rumqttc::{AsyncClient, Event, MqttOptions, QoS};
    let directory = tempfile::tempdir()?;
    let (server, tls) = fleet(directory.path()).await?;
    let (host, port) = server.endpoints.mqtt.rsplit_once(':').context("an address")?;
    let mut options = MqttOptions::new("main:cam-1", host, port.parse()?);
    options.set_transport(transport(&tls));
    let (client, mut events) = AsyncClient::new(options, 16);
    halt(&server)?;
    for filter in [BROADCASTS, "#"] {
        client.subscribe(filter, QoS::AtLeastOnce).await?;
    }
    client
        .publish(PRESENCE, QoS::AtLeastOnce, true, codec::encode(&Conn { online: true, epoch: 1 })?)
        .await?;
    let (mut granted, mut told, mut is_stored) = (Vec::new(), None, false);
    let listen = async {
        while granted.len() < 2 || told.is_none() || !is_stored {
            match events.poll().await? {
                Event::Incoming(v4::Packet::SubAck(ack)) => granted.extend(ack.return_codes),
                Event::Incoming(v4::Packet::Publish(it)) if it.topic == HALT => told = Some(it),
                Event::Incoming(v4::Packet::PubAck(_)) => is_stored = true,
                _ => (), // pings, and what the client itself sends
            }
        }
        anyhow::Ok(())
    };
    timeout(SOON, listen).await.context("the broker says too little")??;
    let allowed = v4::SubscribeReasonCode::Success(QoS::AtLeastOnce);
    assert_eq!(granted, [allowed, v4::SubscribeReasonCode::Failure]);
    assert!(told.is_some_and(|halt| halt.retain));
    is(&server, DeviceState::Online).await?;

    // A refusal has no words in this version, and an acknowledgement would be a lie.
    client.publish("sl/1/main/u/cam-2/conn", QoS::AtLeastOnce, false, "").await?;
    let lost = async { while events.poll().await.is_ok() {} };
    timeout(SOON, lost).await.context("the connection goes on")
}
