//! What somebody with a device's certificate, or with nothing at all, throws at the server: it is refused, bounded in time and memory,
//! and all others go on. Each test is named for the attack.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use reqwest::{Method, StatusCode};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{Generation, ModelName, UnixMillis, Version};
use sealift_protocol::report::{ImageRef, Report};
use sealift_protocol::telemetry::{Beat, Birth, Event, Facts, ProfileWindow, Severity};
use sealift_protocol::topic::Up;
use sealift_tests::fleet::{Api, Device, DeviceOptions, Options, Server};
use sealift_tests::process::root;
use sealift_tests::story::SOON;
use sealift_tests::wait::{Look, until};
use sealift_tests::wire::Wire;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[path = "hostile_server/inputs.rs"]
mod inputs;

/// What the server may have more in memory after an attack than before, in KiB: its caches, and what the allocator keeps.
const GROWTH_KIB_MAX: u64 = 96 << 10;

/// Passwords are hashed in 19 MiB each, by threads that the runtime starts as it needs them.
const PASSWORDS_KIB: u64 = 160 << 10;

/// A server, a device that does its work, and an attacker with the certificate of another.
struct Siege {
    server: Server,
    good: Device,
    wire: Wire,
    before_kib: u64,
}

impl Siege {
    async fn lay(directory: &Path) -> anyhow::Result<Self> {
        let server = Server::start(directory, &Options::default()).await?;
        let options = DeviceOptions {
            labels: vec!["site=tokyo".to_owned()],
            onnxruntime: None,
            extra: String::new(),
        };
        let good = Device::start(&server, directory, "cam-good", &options).await?;
        let wire = Wire::open(&server, directory, "cam-evil").await?;
        let before_kib = resident_kib(&server)?;
        let siege = Self { server, good, wire, before_kib };
        siege.others_go_on().await?;
        Ok(siege)
    }

    /// The good device's heartbeats come on, and operators are answered.
    async fn others_go_on(&self) -> anyhow::Result<()> {
        let api = self.server.api()?;
        let beat = async || anyhow::Ok(api.device(&self.good.id).await?.health.map(|it| it.at));
        let before = beat().await?;
        until("another heartbeat of the good device comes", SOON, || async {
            let now = beat().await?;
            Ok(if now > before { Look::Done(()) } else { Look::NotYet(format!("{now:?}")) })
        })
        .await
    }

    /// The server is the same process, and not much larger.
    async fn is_repelled(&mut self) -> anyhow::Result<()> {
        self.is_repelled_within(GROWTH_KIB_MAX).await
    }

    async fn is_repelled_within(&mut self, growth_kib_max: u64) -> anyhow::Result<()> {
        self.server.process.check()?;
        self.others_go_on().await?;
        let now = resident_kib(&self.server)?;
        let growth = now.saturating_sub(self.before_kib);
        println!("resident: {} KiB before, {now} KiB after", self.before_kib);
        ensure!(growth <= growth_kib_max, "the server grew by {growth} KiB to {now} KiB");
        Ok(())
    }
}

fn resident_kib(server: &Server) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", server.process.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn attack_cbor_bombs_on_every_channel() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut siege = Siege::lay(directory.path()).await?;

    for (what, bomb) in inputs::bombs() {
        for channel in inputs::CHANNELS {
            let raw = siege.wire.send(channel, bomb.clone()).await;
            raw.with_context(|| format!("{what} on {}", channel.as_str()))?;
        }
        let wrapped = siege.wire.send_numbered(Up::Report, bomb).await;
        wrapped.with_context(|| format!("{what} in an envelope"))?;
    }

    let timeline: Value = siege.server.api()?.get("devices/cam-evil/timeline?limit=500").await?;
    let refused = timeline.to_string().matches("message.refused").count();
    ensure!(refused >= inputs::bombs().len(), "{refused} refused: {timeline}");
    siege.is_repelled().await
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn attack_telemetry_of_1970_and_2099_and_counts_without_end() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut siege = Siege::lay(directory.path()).await?;
    let wire = &mut siege.wire;
    let year_2099 = 4_070_908_800_000;

    for at in [i64::MIN, -1, 0, year_2099, 7_258_118_400_000, i64::MAX] {
        let at = UnixMillis(at);
        wire.say(Up::Birth, &birth(at, Generation(0))).await?;
        wire.say(Up::Report, &report(at, Generation(0))).await?;
        wire.say(Up::Event, &event("test.clock", at)).await?;
        wire.say(Up::Profile, &window(at, profile()?)?).await?;
    }
    for generation in [1 << 52, u64::MAX] {
        wire.say(Up::Report, &report(now()?, Generation(generation))).await?;
    }
    let beat = Beat { requests: u64::MAX, errors: u64::MAX, at: i64::MAX, ..Beat::default() };
    let refused = wire.send(Up::Beat, sealift_protocol::codec::encode(&beat)?).await?;
    ensure!(format!("{refused:?}") != "Success", "a beat without bounds is {refused:?}");

    // What came through must not spoil what people see.
    let api = siege.server.api()?;
    let view: Value = api.get("devices/cam-evil").await?;
    ensure!(view["reported_generation"].as_u64() <= Some(1 << 53), "{view}");
    let windows: Value = api.get("drift?limit=1000").await?;
    ensure!(windows["items"].as_array().is_some_and(Vec::is_empty), "{windows}");
    siege.is_repelled().await
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn attack_nan_and_infinity_and_huge_counts_in_profiles() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut siege = Siege::lay(directory.path()).await?;

    for spoilt in inputs::spoilt(&profile()?) {
        siege.wire.say(Up::Profile, &window(now()?, spoilt)?).await?;
    }

    let drift: Value = siege.server.api()?.get("drift?limit=1000").await?;
    for verdict in drift["items"].as_array().context("a list")? {
        ensure!(verdict["value"].as_f64().is_none_or(f64::is_finite), "{verdict}");
    }
    siege.is_repelled().await
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn attack_a_million_label_keys() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut siege = Siege::lay(directory.path()).await?;
    let api = siege.server.api()?;
    let labels = |count: usize| -> BTreeMap<String, String> {
        (0..count).map(|key| (format!("k{key}"), "v".to_owned())).collect()
    };

    for count in [65, 1_000, 1_000_000] {
        for (method, path, body) in [
            (Method::PATCH, "devices/cam-good/labels", json!({"set": labels(count)})),
            (Method::POST, "enrol-tokens", json!({"labels": labels(count)})),
        ] {
            let request = api.request(method, &format!("/api/v1/{path}")).json(&body);
            let status = status_of(request).await;
            ensure!(status.is_none_or(|it| it.is_client_error()), "{path}, {count}: {status:?}");
        }
    }
    // One key at a time, for ever: the number of keys of a device is what counts.
    let mut taken = 0;
    for key in 0..200 {
        let body = json!({"set": {format!("k{key}"): "v"}});
        let request = api.request(Method::PATCH, "/api/v1/devices/cam-good/labels").json(&body);
        taken += usize::from(status_of(request).await.is_some_and(|it| it.is_success()));
    }
    let view: Value = api.get("devices/cam-good").await?;
    let kept = view["labels"].as_object().map_or(0, serde_json::Map::len);
    ensure!(taken <= 64 && kept <= 64, "{taken} taken, {kept} kept");
    let filter = (0..5_000).map(|key| format!("k{key}:v")).collect::<Vec<_>>().join("+");
    let long = api.request(Method::GET, &format!("/api/v1/devices?filter={filter}"));
    ensure!(status_of(long).await.is_none_or(|it| it.is_client_error()), "a filter of 5,000 terms");
    siege.is_repelled().await
}

/// The status of an answer; none where the server has ended the connection before it read the whole request.
async fn status_of(request: reqwest::RequestBuilder) -> Option<StatusCode> {
    request.send().await.ok().map(|response| response.status())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn attack_sql_in_every_text_that_the_api_takes() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut siege = Siege::lay(directory.path()).await?;
    let api = siege.server.api()?;
    let document: Value =
        reqwest::get(format!("{}/openapi.json", siege.server.endpoints.operator_url))
            .await?
            .json()
            .await?;
    let before = rows(&siege.server).await?;
    let requests = inputs::injected(&document);
    println!("{} requests with injected strings", requests.len());
    ensure!(requests.len() > 400, "{} requests", requests.len());
    ask_all(&api, requests.iter()).await?;

    let after = rows(&siege.server).await?;
    for (table, count) in &before {
        ensure!(
            after.get(table) >= Some(count),
            "{table}: {count} rows, then {:?}",
            after.get(table)
        );
    }
    let view: Value = api.get("devices/cam-good").await?;
    ensure!(view["labels"]["site"] == "tokyo" && view["state"] != "revoked", "{view}");
    ensure!(after.get("devices") == before.get("devices"), "{after:?}");
    // Some of the requests are passwords: the threads that hash them keep what they had. All others take no more a second time.
    siege.is_repelled_within(GROWTH_KIB_MAX + PASSWORDS_KIB).await?;
    siege.before_kib = resident_kib(&siege.server)?;
    let is_password = |it: &&inputs::Injected| it.path.contains("session");
    ask_all(&api, requests.iter().filter(|it| !is_password(it))).await?;
    siege.is_repelled().await
}

/// Asks everything that can be asked with an injected text.
async fn ask_all(
    api: &Api,
    requests: impl Iterator<Item = &inputs::Injected>,
) -> anyhow::Result<()> {
    for request in requests {
        let inputs::Injected { method, path, body } = request;
        let status = status_of_looked_at(api, request).await?;
        ensure!(!status.is_server_error(), "{method} {path} {body:?}: {status}");
    }
    Ok(())
}

/// How a request was answered once it was looked at: one that comes too fast is asked again. Wrong passwords are to be refused for good.
async fn status_of_looked_at(
    api: &Api,
    inputs::Injected { method, path, body }: &inputs::Injected,
) -> anyhow::Result<StatusCode> {
    let answer = until(&format!("{method} {path} is looked at"), SOON, || async {
        let mut asking = api.request(method.clone(), path);
        if let Some(body) = body {
            asking = asking.json(body);
        }
        Ok(match asking.send().await.map(|answer| answer.status()) {
            Ok(StatusCode::TOO_MANY_REQUESTS) if !path.contains("session") => {
                Look::NotYet("asked too fast".to_owned())
            }
            // A connection that breaks is a finding, nothing to ask about again.
            answer => Look::Done(answer),
        })
    })
    .await?;
    answer.with_context(|| format!("{method} {path}"))
}

/// How many rows each table has.
async fn rows(server: &Server) -> anyhow::Result<BTreeMap<String, i64>> {
    sqlx::any::install_default_drivers();
    let database = format!("sqlite://{}?mode=ro", server.data().join("fleet.db").display());
    let pool = sqlx::AnyPool::connect(&database).await?;
    let named = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    let tables: Vec<String> = sqlx::query_scalar(named).fetch_all(&pool).await?;
    let mut rows = BTreeMap::new();
    // These shrink by themselves: what is waited for, and what is only kept for a while.
    for table in tables.into_iter().filter(|table| !table.starts_with("oidc") && table != "beats") {
        let count = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM \"{table}\""));
        rows.insert(table, sqlx::query_scalar(count).fetch_one(&pool).await?);
    }
    pool.close().await;
    Ok(rows)
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn attack_bodies_that_are_too_large_or_have_no_end() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut siege = Siege::lay(directory.path()).await?;
    let api = siege.server.api()?;
    for path in ["rollouts", "enrol-tokens", "session", "session/password", "channels", "rollback"]
    {
        let request = api.request(Method::POST, &format!("/api/v1/{path}"));
        let request = request.header("content-type", "application/json");
        let status = status_of(request.body(vec![b' '; 40 << 20])).await;
        ensure!(status.is_none_or(|it| it.is_client_error()), "{path}: {status:?}");
    }
    let address = siege.server.endpoints.operator_url.trim_start_matches("http://").to_owned();
    let mut endless = TcpStream::connect(&address).await?;
    let head = format!(
        "POST /api/v1/rollouts HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
        siege.server.token
    );
    endless.write_all(head.as_bytes()).await?;
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 65_536], b"\r\n".to_vec()].concat();
    let mut sent = 0;
    while sent < 256 << 20 && endless.write_all(&chunk).await.is_ok() {
        sent += 65_536;
    }
    ensure!(sent < 256 << 20, "the server has read {sent} bytes of one body");
    siege.is_repelled().await
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn attack_heads_and_bodies_that_come_byte_by_byte() -> anyhow::Result<()> {
    const CONNECTIONS: usize = 150;
    let directory = tempfile::tempdir()?;
    let mut siege = Siege::lay(directory.path()).await?;
    let address = siege.server.endpoints.operator_url.trim_start_matches("http://").to_owned();
    let device_port = siege.server.endpoints.device_url.trim_start_matches("https://").to_owned();
    let head = "GET /healthz HTTP/1.1\r\n".to_owned();
    let body = format!(
        "POST /api/v1/rollouts HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 100000\r\n\r\n",
        siege.server.token
    );
    let begun = Instant::now();
    let mut slow = Vec::new();
    for number in 0..CONNECTIONS {
        let (to, first) = match number % 3 {
            0 => (address.clone(), head.clone()),
            1 => (address.clone(), body.clone()),
            _ => (device_port.clone(), String::new()),
        };
        slow.push(tokio::spawn(drip(to, first)));
    }

    // Meanwhile everybody else is answered at once.
    for _ in 0..20 {
        let at = Instant::now();
        let health = format!("{}/healthz", siege.server.endpoints.operator_url);
        ensure!(reqwest::get(health).await?.status().is_success());
        ensure!(at.elapsed() < Duration::from_secs(5), "{:?}", at.elapsed());
    }
    for connection in slow {
        connection.await??;
    }
    println!("{CONNECTIONS} slow connections were ended after {:?}", begun.elapsed());
    ensure!(begun.elapsed() < Duration::from_secs(90), "{:?}", begun.elapsed());
    siege.is_repelled().await
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn attack_a_crowd_that_begins_tls_and_says_nothing() -> anyhow::Result<()> {
    const CROWD: usize = 600;
    let directory = tempfile::tempdir()?;
    let mut siege = Siege::lay(directory.path()).await?;
    let url = siege.server.endpoints.device_url.clone();
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut stream = TcpStream::connect(url.trim_start_matches("https://")).await?;
        // The first byte of a handshake (RFC 8446, section 5.1).
        stream.write_all(&[0x16]).await?;
        crowd.push(stream);
    }

    // Whoever comes after them waits for its turn, and has it long before theirs would be over.
    let mut late = tokio::process::Command::new("curl");
    late.args(["--silent", "--insecure", "--max-time", "9", "--write-out", "%{http_code}"]);
    let answer = late.arg(format!("{url}/directive")).output().await?;
    let answer = String::from_utf8(answer.stdout)?;
    ensure!(answer.ends_with("401"), "`{answer}` behind {} silent connections", crowd.len());
    siege.is_repelled().await
}

/// Sends a byte a second until the other side has had enough.
async fn drip(address: String, first: String) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(&address).await?;
    stream.write_all(first.as_bytes()).await?;
    let (mut reading, mut writing) = stream.split();
    let mut answer = [0; 4_096];
    loop {
        tokio::select! {
            read = reading.read(&mut answer) => match read {
                Ok(0) | Err(_) => return Ok(()),
                Ok(_) => (), // an answer, after which it is ended
            },
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                if writing.write_all(b"x").await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn attack_a_flood_of_large_messages() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut siege = Siege::lay(directory.path()).await?;
    let text = "x".repeat(200_000);
    let large = Event { text, ..event("test.large", now()?) };

    let begun = Instant::now();
    for _ in 0..40 {
        siege.wire.say(Up::Event, &large).await?;
    }

    // 40 messages of 200 KB are 2,000 parts; 600 go at once, then 100 a second.
    ensure!(begun.elapsed() > Duration::from_secs(8), "not slowed down: {:?}", begun.elapsed());
    let timeline: Value = siege.server.api()?.get("devices/cam-evil/timeline?limit=500").await?;
    ensure!(timeline.to_string().len() < 1 << 20, "what was kept is not cut");
    siege.is_repelled().await
}

fn now() -> anyhow::Result<UnixMillis> {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(UnixMillis(i64::try_from(elapsed.as_millis())?))
}

fn birth(at: UnixMillis, generation: Generation) -> Birth {
    Birth {
        epoch: 1,
        agent: "0.1.0".to_owned(),
        facts: Facts::default(),
        generation,
        slots: Vec::new(),
        endpoint: None,
        at,
        trusted: None,
    }
}

fn report(at: UnixMillis, generation: Generation) -> Report {
    Report { generation, refused: None, slots: Vec::new(), at, trusted: None }
}

fn event(code: &str, at: UnixMillis) -> Event {
    Event {
        code: code.to_owned(),
        severity: Severity::Info,
        text: "attack".to_owned(),
        model: None,
        image: None,
        at,
    }
}

fn window(until: UnixMillis, profile: Vec<u8>) -> anyhow::Result<ProfileWindow> {
    let image = ImageRef { version: Version::parse("1")?, index: Digest::of(b"1") };
    let model = ModelName::parse("vision/digits")?;
    let from = UnixMillis(until.0.saturating_sub(60_000));
    Ok(ProfileWindow { model, image, from, until, profile, errors: 0 })
}

/// A profile as an agent sends it.
fn profile() -> anyhow::Result<Vec<u8>> {
    let hex = fs::read_to_string(root().join("protocol/src/profile/golden/profile-v1.hex"))?;
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| anyhow::Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
    digits.chunks(2).map(pair).collect()
}
