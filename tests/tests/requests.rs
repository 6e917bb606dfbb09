//! What operators ask a device from afar: test inferences, its log, a diagnosis; and what somebody on the broker would ask it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, ensure};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use sealift_protocol::api::{AuditEntry, DeviceState, InferView, Page, TimelineEntry};
use sealift_protocol::capture::{CaptureKey, CaptureList, CapturePolicy, Ppm};
use sealift_protocol::directive::Directive;
use sealift_protocol::halt::HaltList;
use sealift_protocol::id::{DeviceId, Generation, TenantId, UnixMillis};
use sealift_protocol::limits::{
    ANSWER_HERE_BYTES_MAX, INPUT_HERE_BYTES_MAX, REQUEST_BYTES_MAX, REQUEST_LIFE_MS_MAX,
};
use sealift_protocol::request::{Ask, Diagnosis, LogTail, Nonce, Request};
use sealift_protocol::topic::{Broadcast, Down, Topic};
use sealift_tests::digits::{MODEL, Rows, directory as model_directory};
use sealift_tests::fleet::{Device, DeviceOptions, Options, Server};
use sealift_tests::mosquitto::Mosquitto;
use sealift_tests::needs::onnxruntime;
use sealift_tests::pictures::{self, Picture};
use sealift_tests::process::write;
use sealift_tests::story::{SOON, TIMING, roll_out};
use sealift_tests::wait::{Look, until};
use sealift_tests::wire;
use serde_json::{Value, json};

/// Rows of a question that is too long for a message, and so is its answer.
const MANY_ROWS: usize = 1_500;

async fn device(
    server: &Server,
    directory: &Path,
    name: &str,
    remote: &str,
) -> anyhow::Result<Device> {
    let options = DeviceOptions {
        labels: vec![format!("site={name}")],
        onnxruntime: Some(onnxruntime()?),
        extra: format!("remote_requests = \"{remote}\"\n"),
    };
    Device::start(server, directory, name, &options).await
}

/// A server, a device that may be asked everything, one that may be asked nothing, and version 1 on both.
async fn fleet(directory: &Path) -> anyhow::Result<(Server, Device, Device)> {
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory, &options).await?;
    let open = device(&server, directory, "cam-1", "all").await?;
    let shut = device(&server, directory, "cam-2", "none").await?;
    server.publish(&model_directory("v1"), "1")?;
    roll_out(&server, "1").await?;
    Ok((server, open, shut))
}

/// The bytes that an application beside the agent gets.
async fn local(device: &Device, body: &str) -> anyhow::Result<String> {
    let url = format!("{}/v2/models/{MODEL}/infer", device.endpoint()?);
    let response = reqwest::Client::new().post(url).body(body.to_owned()).send().await?;
    Ok(response.error_for_status()?.text().await?)
}

/// Requests of applications that the model has counted.
async fn counted(device: &Device) -> anyhow::Result<u64> {
    let url = format!("{}/v2/models/{MODEL}/stats", device.endpoint()?);
    let stats: Value = reqwest::get(url).await?.json().await?;
    stats["model_stats"][0]["inference_count"].as_u64().context("a count")
}

async fn timeline(server: &Server, device: &DeviceId) -> anyhow::Result<Vec<TimelineEntry>> {
    server.api()?.list(&format!("devices/{device}/timeline?limit=500")).await
}

/// Waits until the timeline has so many entries of a code.
async fn told(server: &Server, device: &DeviceId, code: &str, count: usize) -> anyhow::Result<()> {
    until(&format!("{device} tells of {code} {count} times"), SOON, || async {
        let entries = timeline(server, device).await?;
        let found = entries.iter().filter(|entry| entry.code == code).count();
        let codes: Vec<_> = entries.iter().map(|entry| (&entry.code, &entry.text)).collect();
        Ok(if found == count { Look::Done(()) } else { Look::NotYet(format!("{codes:?}")) })
    })
    .await
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn a_test_inference_is_what_an_application_gets_and_leaves_no_trace_in_the_figures()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, open, _shut) = fleet(directory.path()).await?;
    let rows = Rows::held_out()?;
    let file = directory.path().join("question.json");
    let before = counted(&open).await?;
    let mut asked = 0;
    for count in [1, 8, MANY_ROWS] {
        // A name of its own, which the answer carries: nameless, each gets another.
        let mut request = rows.batch(0, count).request();
        request["id"] = format!("rows-{count}").into();
        let body = request.to_string();
        write(&file, &body)?;
        let stdout = server.ctl(&[
            "-o",
            "json",
            "infer",
            "cam-1",
            MODEL,
            "--input",
            &file.display().to_string(),
        ])?;
        let view: InferView = serde_json::from_str(&stdout)?;
        ensure!(view.version.as_str() == "1" && view.latency_us > 0, "{stdout}");
        asked += 1;
        ensure!(counted(&open).await? == before + asked - 1, "a test inference was counted");

        let expected = local(&open, &body).await?;
        ensure!(view.answer.get() == expected, "{} is not {expected}", view.answer.get());
        if count == MANY_ROWS {
            ensure!(body.len() > INPUT_HERE_BYTES_MAX && expected.len() > ANSWER_HERE_BYTES_MAX);
        }
    }
    let text = server.ctl(&[
        "infer",
        "cam-1",
        &format!("{MODEL}@1"),
        "--input",
        &file.display().to_string(),
    ])?;
    ensure!(text.contains("PROBABILITY") && text.contains("ms on the device"), "{text}");
    told(&server, &open.id, "request.answered", 4).await?;
    audited(&server).await
}

/// A picture goes as a file, as an application sends it; and a bad one costs the device nothing but an answer.
#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn a_device_is_asked_about_pictures_and_refuses_what_is_none() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory.path(), &options).await?;
    let open = device(&server, directory.path(), "cam-1", "all").await?;
    server.publish(&pictures::model(directory.path(), "")?, "1")?;
    roll_out(&server, "1").await?;
    let file = directory.path().join("picture");
    let picture = Picture::of_yard(7);
    let (png, jpeg) = (picture.png()?, picture.jpeg());

    let url = format!("{}/v2/models/{MODEL}/infer", open.endpoint()?);
    let by_application = async |body: Vec<u8>, content_type: &str| {
        let request = reqwest::Client::new().post(&url).header("content-type", content_type);
        let response = request.body(body).send().await?;
        anyhow::Ok((response.status().as_u16(), response.json::<Value>().await?))
    };
    for (content_type, body) in [("image/png", &png), ("image/jpeg", &jpeg)] {
        fs::write(&file, body)?;
        let asked = ["-o", "json", "infer", "cam-1", MODEL, "--image", &file.display().to_string()];
        let view: InferView = serde_json::from_str(&server.ctl(&asked)?)?;
        let (status, expected) = by_application(body.clone(), content_type).await?;
        let answer: Value = serde_json::from_str(view.answer.get())?;
        ensure!(status == 200 && answer["outputs"] == expected["outputs"], "{answer} {expected}");
    }

    let bomb = pictures::bomb()?;
    let (cut, torn) = (png[..png.len() / 2].to_vec(), jpeg[..40].to_vec());
    for (body, content_type, why) in [
        (&cut, "image/png", "element 0: broken"),
        (&torn, "image/jpeg", "element 0: broken"),
        (&bomb, "image/png", "50000 x 50000 pixels"),
        (&b"GIF89a".to_vec(), "image/png", "neither a JPEG nor a PNG"),
        (&png, "application/json", "not an inference request"),
        (&b"GIF89a".to_vec(), "image/gif", "not an inference request"),
    ] {
        let (status, told) = by_application(body.clone(), content_type).await?;
        ensure!(status == 400 && told.to_string().contains(why), "{content_type}: {told}");
        let path = format!("/api/v1/devices/cam-1/infer?model={MODEL}");
        let request = server.api()?.request(reqwest::Method::POST, &path);
        let request = request.header("content-type", content_type).body(body.clone());
        let told = request.send().await?.json::<Value>().await?;
        ensure!(told["code"] == "infer.input" && told.to_string().contains(why), "{told}");
    }
    fs::write(&file, "GIF89a")?;
    let asked = ["infer", "cam-1", MODEL, "--image", &file.display().to_string()];
    let (status, _, stderr) = server.ctl_to_end(&asked)?;
    ensure!(status.code() == Some(1) && stderr.contains("neither a JPEG nor a PNG"), "{stderr}");
    ensure!(by_application(png, "image/png").await?.0 == 200, "it answers as before");
    ensure!(counted(&open).await? == 3, "only pictures of applications were counted");
    Ok(())
}

/// Who asked which device what is written down, and what was sent is not.
async fn audited(server: &Server) -> anyhow::Result<()> {
    let log: Page<AuditEntry> = server.api()?.get("audit?action=device.infer&limit=100").await?;
    ensure!(log.items.len() == 4, "{:?}", log.items);
    for entry in &log.items {
        ensure!(entry.subject == "cam-1" && entry.detail.contains(MODEL), "{entry:?}");
        ensure!(!entry.detail.contains("pixels"), "{entry:?}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn a_device_shows_its_log_and_how_it_does_to_whom_its_owner_lets() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, mut open, shut) = fleet(directory.path()).await?;

    let tail: LogTail =
        serde_json::from_value(server.ctl_json(&["device", "logs", "cam-1", "-n", "50"])?)?;
    let texts: Vec<_> = tail.lines.iter().map(|line| line.text.as_str()).collect();
    ensure!(texts.iter().any(|text| text.starts_with("worker ready")), "{texts:?}");
    ensure!(tail.lines.len() <= 50 && tail.lines.is_sorted_by_key(|line| line.at), "{texts:?}");
    let diagnosis: Diagnosis =
        serde_json::from_value(server.ctl_json(&["device", "diagnose", "cam-1"])?)?;
    let model = diagnosis.models.first().context("a model")?;
    ensure!(model.version.as_str() == "1" && !model.providers.is_empty(), "{diagnosis:?}");
    ensure!(diagnosis.clock.is_trusted && diagnosis.trusted.timestamp > 0, "{diagnosis:?}");
    ensure!(server.ctl(&["device", "diagnose", "cam-1"])?.contains("may be asked all"));

    for question in [&["device", "logs", "cam-2"][..], &["device", "diagnose", "cam-2"]] {
        let (status, _, stderr) = server.ctl_to_end(question)?;
        ensure!(status.code() == Some(4) && stderr.contains("request.forbidden"), "{stderr}");
        ensure!(stderr.contains("remote_requests"), "{stderr}");
    }
    told(&server, &shut.id, "request.forbidden", 2).await?;

    refused_for_cause(&server, directory.path()).await?;
    open.process.kill()?;
    until("the device is known to be offline", SOON, || async {
        let state = server.api()?.device(&open.id).await?.state;
        let is_offline = state == DeviceState::Offline;
        Ok(if is_offline { Look::Done(()) } else { Look::NotYet(format!("{state:?}")) })
    })
    .await?;
    let (status, _, stderr) = server.ctl_to_end(&["device", "diagnose", "cam-1"])?;
    ensure!(status.code() == Some(7) && stderr.contains("device.offline"), "{stderr}");
    Ok(())
}

/// What cannot be answered has a code of its own, and asked twice by one name a device is asked once.
async fn refused_for_cause(server: &Server, directory: &Path) -> anyhow::Result<()> {
    let file = directory.join("question.json");
    write(&file, &Rows::held_out()?.batch(0, 1).request().to_string())?;
    let file = file.display().to_string();
    for (model, code) in
        [("vision/letters", "infer.not-served"), ("vision/digits@7", "infer.version")]
    {
        let (status, _, stderr) =
            server.ctl_to_end(&["infer", "cam-1", model, "--input", &file])?;
        ensure!(status.code() == Some(1) && stderr.contains(code), "{stderr}");
    }
    let ask = async |body: &Value, key: &str| {
        let path = format!("/api/v1/devices/cam-1/infer?model={MODEL}");
        let request = server.api()?.request(reqwest::Method::POST, &path).json(body);
        let response = request.header("idempotency-key", key).send().await?;
        anyhow::Ok((response.status().as_u16(), response.json::<Value>().await?))
    };
    let batch = Rows::held_out()?.batch(0, 1).request();
    let (status, first) = ask(&batch, "once").await?;
    let (_, second) = ask(&batch, "once").await?;
    ensure!(status == 200 && first["latency_us"] == second["latency_us"], "{first} {second}");
    let (status, other) = ask(&Rows::held_out()?.batch(1, 1).request(), "once").await?;
    ensure!(status == 422 && other["code"] == "idempotency.mismatch", "{other}");
    let (status, nonsense) = ask(&json!({ "inputs": [] }), "nonsense").await?;
    ensure!(status == 422 && nonsense["code"] == "infer.input", "{nonsense}");
    Ok(())
}

/// Somebody with the broker in their hands: reads all, and sends what they like.
struct Eve {
    client: AsyncClient,
    events: EventLoop,
}

impl Eve {
    async fn listen(port: u16, keys: &Path) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(keys.join("ca.pem"))?)?;
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(keys.join("server.pem"))?.collect();
        let key = PrivateKeyDer::from_pem_file(keys.join("server-key.pem"))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain?, key)?;
        let mut options = MqttOptions::new("eve", "localhost", port);
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(config))));
        options.set_clean_start(true).set_max_packet_size(Some(1 << 20));
        let (client, events) = AsyncClient::new(options, 16);
        let mut eve = Self { client, events };
        eve.next(|packet| matches!(packet, Packet::ConnAck(_))).await?;
        eve.client.subscribe("sl/1/main/d/cam-1/request", QoS::AtLeastOnce).await?;
        eve.next(|packet| matches!(packet, Packet::SubAck(_))).await?;
        Ok(eve)
    }

    async fn next(&mut self, is_wanted: impl Fn(&Packet) -> bool) -> anyhow::Result<Packet> {
        wire::next(&mut self.events, is_wanted).await
    }

    /// What the server has asked.
    async fn overhears(&mut self) -> anyhow::Result<Vec<u8>> {
        let Packet::Publish(publish) = self.next(|it| matches!(it, Packet::Publish(_))).await?
        else {
            anyhow::bail!("not a message")
        };
        Ok(publish.payload.to_vec())
    }

    async fn asks(&mut self, message: &[u8]) -> anyhow::Result<()> {
        let device = DeviceId::parse("cam-1")?;
        self.says(&Topic::Down(TenantId::parse("main")?, device, Down::Request), message).await
    }

    async fn says(&mut self, topic: &Topic, message: &[u8]) -> anyhow::Result<()> {
        let topic = topic.to_string();
        self.client.publish(topic, QoS::AtLeastOnce, false, message.to_vec()).await?;
        self.next(|packet| matches!(packet, Packet::PubAck(_))).await?;
        Ok(())
    }
}

fn now() -> anyhow::Result<UnixMillis> {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(UnixMillis(i64::try_from(elapsed.as_millis())?))
}

/// A request with the stolen key of the director, or with another one.
fn forged(
    (tenant, device): (&str, &str),
    (from_ms, life_ms): (i64, i64),
    key: &SigningKey,
) -> anyhow::Result<Vec<u8>> {
    let whom = (TenantId::parse(tenant)?, DeviceId::parse(device)?);
    let begin = now()?.plus(from_ms);
    let random = begin.0.to_be_bytes().repeat(2);
    let nonce = Nonce::new(random.try_into().ok().context("16 bytes")?);
    let request = Request::new(whom, nonce, (begin, begin.plus(life_ms)), "eve", Ask::Diagnose);
    Ok(request.sign(key)?)
}

/// A server, a device and somebody else on one broker.
async fn overheard(directory: &Path) -> anyhow::Result<(Mosquitto, Server, Device, Eve)> {
    Server::init(directory)?;
    let keys = directory.join("server/keys");
    let broker = Mosquitto::start(directory, &["cam-1"])?;
    let mqtt = format!("{}client_id = \"one\"\n", broker.section());
    let options = Options { mqtt: Some(mqtt), extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory, &options).await?;
    let options = DeviceOptions { labels: Vec::new(), onnxruntime: None, extra: String::new() };
    let device = Device::start(&server, directory, "cam-1", &options).await?;
    let eve = Eve::listen(broker.port, &keys).await?;
    until("the device is online", SOON, || async {
        let state = server.api()?.device(&device.id).await?.state;
        let is_online = state == DeviceState::Online;
        Ok(if is_online { Look::Done(()) } else { Look::NotYet(format!("{state:?}")) })
    })
    .await?;
    Ok((broker, server, device, eve))
}

/// Asks for what the owner of the device forbids, which it says: whatever it was asked before is on its timeline by then.
async fn is_refused(server: &Server, device: &DeviceId, times: usize) -> anyhow::Result<()> {
    until("the device says no", SOON, || async {
        let (_, _, stderr) = server.ctl_to_end(&["device", "logs", "cam-1"])?;
        let is_no = stderr.contains("request.forbidden");
        Ok(if is_no { Look::Done(()) } else { Look::NotYet(stderr) })
    })
    .await?;
    told(server, device, "request.forbidden", times).await
}

async fn answered(server: &Server, device: &DeviceId) -> anyhow::Result<usize> {
    let entries = timeline(server, device).await?;
    Ok(entries.iter().filter(|entry| entry.code == "request.answered").count())
}

#[tokio::test]
#[ignore = "needs mosquitto"]
async fn replayed_forged_expired_and_foreign_requests_on_the_broker_get_no_answer()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (_broker, server, mut device, mut eve) = overheard(directory.path()).await?;
    let pem = fs::read_to_string(server.data().join("keys/director.pem"))?;
    let director = SigningKey::from_pkcs8_pem(&pem)?;

    server.ctl(&["device", "diagnose", "cam-1"])?;
    let genuine = eve.overhears().await?;
    told(&server, &device.id, "request.answered", 1).await?;

    let stranger = SigningKey::from_bytes(&[9; 32]);
    let whom = (TenantId::parse("main")?, device.id.clone());
    let window = (now()?, now()?.plus(60_000));
    let directive = Directive::new(whom, Generation(1_000), window, Vec::new()).sign(&director)?;
    let (mine, minute) = (("main", "cam-1"), (0, 60_000));
    for (message, code) in [
        (forged(mine, minute, &stranger)?, "cose.key"),
        (forged(("main", "cam-2"), minute, &director)?, "request.audience"),
        (forged(("other", "cam-1"), minute, &director)?, "request.audience"),
        (forged(mine, (-120_000, 60_000), &director)?, "request.window"),
        (forged(mine, (3_600_000, 60_000), &director)?, "request.window"),
        (forged(mine, (0, REQUEST_LIFE_MS_MAX + 1), &director)?, "request.window"),
        (directive, "cose.signature"),
        (vec![0xd2; REQUEST_BYTES_MAX + 1], "request.too-large"),
        (genuine[..genuine.len() / 2].to_vec(), "cose.form"),
    ] {
        let entries = timeline(&server, &device.id).await?;
        let before = entries.iter().filter(|entry| entry.code == code).count();
        eve.asks(&message).await?;
        told(&server, &device.id, code, before + 1).await?;
    }

    // Again, and again after a restart: what was answered stays answered.
    eve.asks(&genuine).await?;
    is_refused(&server, &device.id, 1).await?;
    ensure!(answered(&server, &device.id).await? == 1, "it was answered again");
    device.process.kill()?;
    device.process.restart()?;
    device.ready().await?;
    is_refused(&server, &device.id, 2).await?;
    eve.asks(&genuine).await?;
    is_refused(&server, &device.id, 3).await?;
    ensure!(answered(&server, &device.id).await? == 1, "it was answered again after a restart");
    Ok(())
}

/// A list that has every device keep everything, for whoever signs it.
fn everything(sequence: u64) -> anyhow::Result<CaptureList> {
    let policy = CapturePolicy {
        below: None,
        margin: None,
        disagreement: false,
        share: Ppm::WHOLE,
        samples_a_day: 1_000,
        kib_a_day: 10_000,
        keep_days: 1,
        notice: "none".to_owned(),
    };
    let models = BTreeMap::from([(MODEL.parse()?, policy)]);
    let key = CaptureKey { number: 1, public: vec![9; 32] };
    Ok(CaptureList::new(TenantId::parse("main")?, (sequence, now()?), key, models))
}

#[tokio::test]
#[ignore = "needs mosquitto"]
async fn a_thief_of_the_broker_switches_no_capture_on() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (_broker, server, device, mut eve) = overheard(directory.path()).await?;
    let pem = fs::read_to_string(server.data().join("keys/director.pem"))?;
    let director = SigningKey::from_pkcs8_pem(&pem)?;
    let topic = Topic::Broadcast(TenantId::parse("main")?, Broadcast::Capture);
    let stranger = SigningKey::from_bytes(&[9; 32]);
    let halt = HaltList::new(TenantId::parse("main")?, (9, now()?), String::new(), BTreeSet::new());
    let mut changed = everything(9)?.sign(&director)?;
    *changed.last_mut().context("a byte")? ^= 1;
    let mut endless = everything(9)?;
    endless.until = endless.until.plus(1);

    for (message, code) in [
        (everything(9)?.sign(&stranger)?, "cose.key"),
        (halt.sign(&director)?, "cose.signature"),
        (changed, "cose.signature"),
        (endless.sign(&director)?, "capture.life"),
    ] {
        let entries = timeline(&server, &device.id).await?;
        let before = entries.iter().filter(|entry| entry.code == code).count();
        eve.says(&topic, &message).await?;
        told(&server, &device.id, code, before + 1).await?;
    }
    ensure!(!device.store.join("capture.cbor").exists(), "a forged list was taken");
    Ok(())
}
