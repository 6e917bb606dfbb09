//! Stopping everything, and going back, with real processes.

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, ensure};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use sealift_protocol::api::{HaltView, RollbackResult, RolloutState, TimelineEntry, WhyView};
use sealift_protocol::digest::Digest;
use sealift_protocol::halt::HaltList;
use sealift_protocol::id::{TenantId, UnixMillis};
use sealift_protocol::limits::HALT_BYTES_MAX;
use sealift_protocol::report::{Phase, SlotReport};
use sealift_tests::digits::{MODEL, as_version, directory as model_directory};
use sealift_tests::fleet::{Device, DeviceOptions, Options, Server};
use sealift_tests::story::{self, SOON, TIMING, answers_with, ended};
use sealift_tests::wait::{Look, until};
use sqlx::AnyPool;

/// Three devices at two sites, the first two in Tokyo.
const SITES: [(&str, &str); 3] = [("cam-1", "tokyo"), ("cam-2", "tokyo"), ("cam-3", "osaka")];

async fn fleet(directory: &Path, extra: &str) -> anyhow::Result<(Server, Vec<Device>)> {
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory, &options).await?;
    let mut devices = Vec::new();
    for (name, site) in SITES {
        let labels = vec![format!("site={site}")];
        let options = DeviceOptions { labels, onnxruntime: None, extra: extra.to_owned() };
        devices.push(Device::start(&server, directory, name, &options).await?);
    }
    server.publish(&model_directory("v1"), "1")?;
    Ok((server, devices))
}

/// Version 2 with a card so long that a slow device takes half a minute for it.
fn heavy(directory: &Path) -> anyhow::Result<PathBuf> {
    let model = as_version(directory, "2", "")?;
    std::fs::write(model.join("card.md"), "It reads digits.\n".repeat(25_000))?;
    Ok(model)
}

fn slot(device: &Device) -> anyhow::Result<SlotReport> {
    device.reported()?.slots.into_iter().next().context("a slot")
}

fn serves(slot: &SlotReport, version: &str) -> bool {
    slot.serving.as_ref().is_some_and(|image| image.version.as_str() == version)
}

async fn all(
    devices: &[Device],
    what: &str,
    holds: impl Fn(&SlotReport) -> bool,
) -> anyhow::Result<()> {
    until(what, SOON, || async {
        for device in devices {
            let slot = slot(device)?;
            if !holds(&slot) {
                return Ok(Look::NotYet(format!("{}: {slot:?}", device.id)));
            }
        }
        Ok(Look::Done(()))
    })
    .await
}

async fn confirmed(server: &Server, count: u64) -> anyhow::Result<HaltView> {
    let api = server.api()?;
    until("all devices confirm", SOON, || async {
        let view: HaltView = api.get("halt").await?;
        Ok(if view.confirmed == count {
            Look::Done(view)
        } else {
            Look::NotYet(format!("{view:?}"))
        })
    })
    .await
}

#[tokio::test]
async fn a_halt_stops_every_download_outlives_restarts_and_lets_the_way_back_through()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let slow = "download.rate_bytes_s = 16384\n";
    let (mut server, mut devices) = fleet(directory.path(), slow).await?;
    server.publish(&heavy(directory.path())?, "2")?;
    story::roll_out(&server, "1").await?;
    let second = story::begin(&server, "2")?;
    all(&devices, "all devices download", |slot| slot.phase == Phase::Downloading).await?;

    let begun = Instant::now();
    let halt = ["halt", "--all", "--reason", "smoke", "--yes", "--wait"];
    let view: HaltView = serde_json::from_value(server.ctl_json(&halt)?)?;
    println!("{} devices confirmed the halt within {:?}", view.confirmed, begun.elapsed());
    ensure!(view.confirmed == 3 && view.unconfirmed == 0, "{view:?}");
    let is_stopped = |slot: &SlotReport| {
        slot.phase == Phase::Waiting && slot.halted.is_some() && serves(slot, "1")
    };
    all(&devices, "all devices have stopped", is_stopped).await?;
    ensure!(server.ctl(&["device", "get", "cam-1"])?.contains("halted"), "a person sees it");
    let why: Vec<WhyView> = server.api()?.list(&format!("rollouts/{second}/why")).await?;
    ensure!(why.iter().all(|it| it.why.contains("smoke")), "{why:?}");

    // The embedded broker keeps what it retains in memory: it is lost with the server.
    server.process.kill()?;
    for device in &mut devices {
        device.process.kill()?;
        device.process.restart()?;
        device.ready().await?;
    }
    all(&devices, "all devices still stand", is_stopped).await?;
    server.process.restart()?;
    server.ready().await?;
    let view = confirmed(&server, 3).await?;
    ensure!(view.halt.is_some_and(|halt| halt.reason == "smoke"), "who and why are kept");
    all(&devices, "nothing was begun", is_stopped).await?;

    server.ctl(&[
        "rollback", MODEL, "--to", "1", "--device", "cam-3", "--reason", "osaka", "--yes", "--wait",
    ])?;
    let last = slot(devices.last().context("a device")?)?;
    ensure!(last.halted.is_none() && serves(&last, "1"), "{last:?}");

    server.ctl(&["resume", "--reason", "no smoke", "--yes", "--wait"])?;
    ended(&server.api()?, second, RolloutState::Succeeded).await?;
    for (device, version) in devices.iter().zip(["2", "2", "1"]) {
        answers_with(device, version).await?;
    }
    let log = server.ctl(&["audit", "list"])?;
    ensure!(log.contains("fleet.halt") && log.contains("fleet.resume"), "{log}");
    Ok(())
}

#[tokio::test]
async fn devices_go_back_by_time_by_name_by_filter_and_to_the_version_before() -> anyhow::Result<()>
{
    let directory = tempfile::tempdir()?;
    let (server, devices) = fleet(directory.path(), "").await?;
    server.publish(&model_directory("v2"), "2")?;
    let third = as_version(directory.path(), "3", "")?;
    server.publish(&third, "3")?;
    story::roll_out(&server, "1").await?;
    roll_out_to(&server, "2", "site:tokyo").await?;
    let time = now()?.to_string();
    story::roll_out(&server, "3").await?;

    let to_time = ["rollback", MODEL, "--to-time", &time, "--reason", "as it was"];
    let dry: RollbackResult =
        serde_json::from_value(server.ctl_json(&[&to_time[..], &["--dry-run"]].concat())?)?;
    let steps: Vec<_> = dry.steps.iter().map(|it| (it.version.as_str(), it.devices)).collect();
    ensure!(steps == [("2", 2), ("1", 1)], "{dry:?}");
    for device in &devices {
        answers_with(device, "3").await?;
    }

    server.ctl(&[&to_time[..], &["--yes", "--wait"]].concat())?;
    for (device, version) in devices.iter().zip(["2", "2", "1"]) {
        answers_with(device, version).await?;
    }
    let (_, _, refused) = server.ctl_to_end(&["rollout", "create", &format!("{MODEL}@3")])?;
    ensure!(refused.contains("quarantined"), "nobody stayed on it: {refused}");

    let named = ["--to", "1", "--device", "cam-2", "--reason", "one alone", "--yes", "--wait"];
    server.ctl(&[&["rollback", MODEL], &named[..]].concat())?;
    for (device, version) in devices.iter().zip(["2", "1", "1"]) {
        answers_with(device, version).await?;
    }

    let rest = ["rollback", "-l", "site:tokyo", "--to", "1", "--reason", "the rest"];
    server.ctl(&[&rest[..], &["--yes", "--wait"]].concat())?;
    answers_with(devices.first().context("a device")?, "1").await
}

#[tokio::test]
async fn going_back_to_a_slot_that_is_kept_fetches_nothing() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, devices) = fleet(directory.path(), "").await?;
    server.publish(&model_directory("v2"), "2")?;
    story::roll_out(&server, "1").await?;
    story::roll_out(&server, "2").await?;
    // Whoever needed a download now would find nothing.
    let blobs = server.data().join("blobs");
    std::fs::rename(&blobs, server.data().join("blobs-away"))?;

    let back = ["rollback", MODEL, "--reason", "x", "--yes", "--wait"];
    let result: RollbackResult = serde_json::from_value(server.ctl_json(&back)?)?;

    ensure!((result.devices, result.without_download) == (3, 3), "{result:?}");
    for device in &devices {
        answers_with(device, "1").await?;
    }
    Ok(())
}

fn now() -> anyhow::Result<UnixMillis> {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(UnixMillis(i64::try_from(elapsed.as_millis())?))
}

async fn roll_out_to(server: &Server, version: &str, filter: &str) -> anyhow::Result<()> {
    let name = format!("{MODEL}@{version}");
    let create =
        ["rollout", "create", &name, "-l", filter, "--probation-s", "1", "--watch-s", "600"];
    let view = server.ctl_json(&[&create[..], &["--reason", "story"]].concat())?;
    let id = serde_json::from_value(view["id"].clone())?;
    ended(&server.api()?, id, RolloutState::Succeeded).await?;
    Ok(())
}

/// Somebody who can write into the server's database, and so have its broker and its port give out what they like.
struct Forger {
    pool: AnyPool,
    director: SigningKey,
}

impl Forger {
    async fn open(server: &Server) -> anyhow::Result<Self> {
        sqlx::any::install_default_drivers();
        let database = format!("sqlite://{}?mode=rw", server.data().join("fleet.db").display());
        let pem = std::fs::read_to_string(server.data().join("keys/director.pem"))?;
        let director = SigningKey::from_pkcs8_pem(&pem)?;
        Ok(Self { pool: AnyPool::connect(&database).await?, director })
    }

    async fn signed(&self, table: &str) -> anyhow::Result<Vec<u8>> {
        let query = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT body FROM {table}")));
        Ok(query.fetch_one(&self.pool).await?)
    }

    /// Has the broker publish these bytes in the place of what the server has signed.
    async fn plant(&self, table: &str, message: Vec<u8>) -> anyhow::Result<()> {
        let text = format!("UPDATE {table} SET body = $1, published = 0");
        sqlx::query(sqlx::AssertSqlSafe(text)).bind(message).execute(&self.pool).await?;
        Ok(())
    }
}

/// A list far above every other, of this tenant and by this key.
fn forged(tenant: &str, key: &SigningKey) -> anyhow::Result<Vec<u8>> {
    let far = (u64::try_from(i64::MAX)?, UnixMillis(0));
    let campaigns = [Digest::of(b"anything")].into();
    let tenant = TenantId::parse(tenant)?;
    Ok(HaltList::new(tenant, far, "forged".to_owned(), campaigns).sign(key)?)
}

async fn told(server: &Server, device: &Device, code: &str, word: &str) -> anyhow::Result<()> {
    let api = server.api()?;
    until(&format!("{} tells of {code}", device.id), SOON, || async {
        let path = format!("devices/{}/timeline?limit=200", device.id);
        let entries: Vec<TimelineEntry> = api.list(&path).await?;
        let is_it = |it: &&TimelineEntry| {
            it.code == code && it.severity == "security" && it.text.contains(word)
        };
        let found = entries.iter().any(|it| is_it(&it));
        let codes: Vec<_> = entries.iter().map(|it| (&it.code, &it.text)).collect();
        Ok(if found { Look::Done(()) } else { Look::NotYet(format!("{codes:?}")) })
    })
    .await
}

#[tokio::test]
async fn forged_replayed_foreign_and_oversized_lists_stop_nothing_and_start_nothing()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, devices) = fleet(directory.path(), "").await?;
    let device = devices.first().context("a device")?;
    story::roll_out(&server, "1").await?;
    server.ctl(&["halt", "--all", "--reason", "smoke", "--yes", "--wait"])?;
    let forger = Forger::open(&server).await?;
    let halt = forger.signed("halts").await?;
    server.ctl(&["resume", "--yes", "--wait"])?;
    let stranger = SigningKey::from_bytes(&[9; 32]);

    for (message, code, word) in [
        (forged("main", &stranger)?, "cose.key", "list"),
        (halt.clone(), "halt.stale", "list"),
        (forged("other", &forger.director)?, "halt.audience", "other"),
        (vec![0xd2; HALT_BYTES_MAX + 1], "halt.too-large", "list"),
        (forger.signed("directives").await?, "cose.signature", "list"),
    ] {
        forger.plant("halts", message).await?;
        told(&server, device, code, word).await?;
    }
    forger.plant("directives", halt).await?;
    told(&server, device, "cose.signature", "directive").await?;

    for device in &devices {
        answers_with(device, "1").await?;
        ensure!(slot(device)?.halted.is_none(), "{} believed one of them", device.id);
    }
    Ok(())
}
