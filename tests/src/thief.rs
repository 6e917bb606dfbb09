//! An attacker who has copied the fleet server's disk, with every online key on it, and who now stands where the server stood.
//!
//! ```text
//!  agent ──HTTPS──▶ front (the stolen TLS key; forged files first) ──▶ the real fleet-server on the stolen data
//!        ──MQTT───▶ the broker of that server
//! ```
//! What the thief lacks is what was never on the server: the keys of root, targets, publishers and revocations.

mod attack;
mod forge;
mod front;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use ed25519_dalek::SigningKey as Director;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use sealift_protocol::api::{RolloutState, TimelineEntry};
use sealift_protocol::digest::Digest;
use sealift_protocol::tuf::key::SigningKey;
use sealift_protocol::tuf::metadata::MetaFile;
use serde_json::Value;

use crate::digits::{MODEL, as_version};
use crate::fleet::{Device, Server};
use crate::process::{free_port, write};
use crate::story::{answers_with, ended};
use crate::wait::{Look, until};

pub use attack::Attack;
use front::Front;

/// Versions that the attacks are about.
#[derive(Debug, Clone)]
pub struct Targets {
    /// What devices serve, of security epoch 2.
    pub good: String,
    /// Signed once, of security epoch 1: below the floor of devices that have kept [`Targets::good`].
    pub old: String,
    /// Signed, and on the deny list since before the theft.
    denied: String,
    /// Signed, and never rolled out.
    signed: String,
    /// Pushed by the thief; signed by nobody.
    unsigned: String,
}

/// The thief, at work.
pub struct Thief {
    /// The real server on the stolen data.
    pub server: Server,
    targets: Targets,
    front: Front,
    director: Director,
    snapshot: SigningKey,
    timestamp: SigningKey,
    /// A signing key that another team let slip.
    other_team: SigningKey,
    generation: u64,
    /// Version of the next forged timestamp and snapshot.
    version: u64,
    /// What forged snapshots have listed so far.
    sown: BTreeMap<String, MetaFile>,
}

/// What an attack came to.
#[derive(Debug)]
pub struct Refused {
    /// The code in the device's own log.
    pub code: &'static str,
    /// How long the device took to refuse.
    pub seconds: f64,
}

/// Any attack on a busy machine: a poll of a second, and three downloads with pauses between them for damaged blobs.
const ATTACK_LIMIT: Duration = Duration::from_mins(1);

/// What a team signs is worth nothing under the paths of another; the second one is there for that.
pub const TEAMS: [&str; 2] = ["vision", "audio"];

/// Publishes what the attacks are about, and rolls the good version out to all devices. `old` is a version of epoch 1 that is published.
pub async fn prepare(server: &Server, directory: &Path, old: &str) -> anyhow::Result<Targets> {
    let name = |suffix: &str| format!("10{suffix}");
    let targets = Targets {
        good: name(""),
        old: old.to_owned(),
        denied: name(".1"),
        signed: name(".2"),
        unsigned: name(".3"),
    };
    let key = server.offline_key("publisher-vision-1").display().to_string();
    for version in [&targets.good, &targets.denied, &targets.signed] {
        let model = as_version(directory, version, "")?.display().to_string();
        server.ctl(&["model", "push", &model])?;
        let name = format!("{MODEL}@{version}");
        server.ctl(&["model", "sign", &name, "--epoch", "2", "--key", &key])?;
    }
    let good = format!("{MODEL}@{}", targets.good);
    let create = ["rollout", "create", &good, "--probation-s", "1", "--watch-s", "600"];
    let rollout = server.ctl_json(&create)?;
    let id = serde_json::from_value(rollout["id"].clone())?;
    ended(&server.api()?, id, RolloutState::Succeeded).await?;
    let denied = format!("{MODEL}@{}", targets.denied);
    let key = server.offline_key("revocations-1").display().to_string();
    server.ctl(&["revoke", "image", &denied, "--reason", "known to be bad", "--key", &key])?;
    Ok(targets)
}

impl Thief {
    /// Copies the server's data, stops the server, and takes its place at its own addresses. The offline keys stay where they are;
    /// of another team's key the thief got hold elsewhere.
    pub async fn steal(
        mut server: Server,
        directory: &Path,
        targets: Targets,
    ) -> anyhow::Result<Self> {
        server.process.stop()?;
        let stolen = directory.join("stolen");
        copy(&server.data(), &stolen)?;
        let devices = server.endpoints.device_url.rsplit_once(':').context("a port")?;
        let port: u16 = devices.1.parse()?;
        move_server(directory, &stolen, port)?;
        server.process.restart()?;
        server.ready().await?;
        let keys = stolen.join("keys");
        let front = Front::open(port, &keys, server.api()?).await?;
        let timestamp: Value = front.stolen_json("/tuf/timestamp.json").await?;
        let version = timestamp["signed"]["version"].as_u64().context("a version")?;
        let read = |path: PathBuf| {
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let role = |path: PathBuf| anyhow::Ok(SigningKey::from_pem(&read(path)?)?);
        let unsigned = as_version(directory, &targets.unsigned, "")?.display().to_string();
        server.ctl(&["model", "push", &unsigned])?;
        Ok(Self {
            director: Director::from_pkcs8_pem(&read(keys.join("director.pem"))?)?,
            snapshot: role(keys.join("snapshot.pem"))?,
            timestamp: role(keys.join("timestamp.pem"))?,
            other_team: role(server.offline_key("publisher-audio-1"))?,
            server,
            targets,
            front,
            generation: 1_000,
            version: version + 1,
            sown: BTreeMap::new(),
        })
    }

    /// Makes one attempt on a device, and waits until the device's own log says why it did not work, and until the server of the thief
    /// itself has had to take down the device's word for it. The model must answer all the while.
    pub async fn attempt(&mut self, attack: Attack, device: &Device) -> anyhow::Result<Refused> {
        let begun = std::time::Instant::now();
        let said_before = device.process.log().len();
        let told_before = self.told(device, attack).await?;
        self.mount(attack, device).await.with_context(|| format!("cannot mount {attack:?}"))?;
        let expected = attack.code();
        until(&format!("{} refuses: {}", device.id, attack.name()), ATTACK_LIMIT, || async {
            let log = device.process.log();
            let news = log.get(said_before..).unwrap_or_default();
            let found = news.contains(expected);
            let tail: Vec<_> = news.lines().rev().take(5).collect();
            Ok(if found { Look::Done(()) } else { Look::NotYet(tail.join(" | ")) })
        })
        .await?;
        let seconds = begun.elapsed().as_secs_f64();
        if attack.is_told() {
            until(&format!("{} tells of {expected}", device.id), ATTACK_LIMIT, || async {
                let told = self.told(device, attack).await?;
                Ok(if told > told_before {
                    Look::Done(())
                } else {
                    Look::NotYet(format!("{told}"))
                })
            })
            .await?;
        }
        answers_with(device, &self.targets.good).await?;
        self.check_disk(device)?;
        self.front.relent();
        Ok(Refused { code: expected, seconds })
    }

    /// How often the device has told of a refusal with the attack's code.
    async fn told(&self, device: &Device, attack: Attack) -> anyhow::Result<usize> {
        let path = format!("devices/{}/timeline?limit=1000", device.id);
        let entries: Vec<TimelineEntry> = self.server.api()?.list(&path).await?;
        let is_meant =
            |entry: &&TimelineEntry| entry.code == attack.code() && entry.severity == "security";
        Ok(entries.iter().filter(is_meant).count())
    }

    /// Nothing but the good version has ever become a complete image on the device's disk since the theft.
    fn check_disk(&self, device: &Device) -> anyhow::Result<()> {
        let pointer = device.store.join("active/vision--digits.json");
        let pointer: Value = serde_json::from_slice(&fs::read(pointer)?)?;
        let active = pointer["active"]["version"].as_str().context("an active version")?;
        ensure!(active == self.targets.good, "{} points at {active}", device.id);
        Ok(())
    }
}

/// Makes a device ask for its directive every second, so that a story does not wait for the next poll; restarts its agent.
pub async fn hurry(directory: &Path, device: &mut Device) -> anyhow::Result<()> {
    let config = directory.join(format!("{}.toml", device.id));
    let text = fs::read_to_string(&config)?;
    write(&config, &text.replace("poll_s = 30", "poll_s = 1"))?;
    device.process.stop()?;
    device.process.restart()?;
    device.ready().await
}

/// The digest of a pushed version, as the registry of the thief names it.
async fn digest(front: &Front, version: &str) -> anyhow::Result<Digest> {
    let view = front.stolen_json(&format!("/api/v1/models/{MODEL}/versions/{version}")).await?;
    Ok(serde_json::from_value(view["digest"].clone())?)
}

/// The stolen server keeps its operators' port and its broker; the port that devices ask over HTTPS is the front's.
fn move_server(directory: &Path, stolen: &Path, port: u16) -> anyhow::Result<()> {
    let config = directory.join("fleet-server.toml");
    let text = fs::read_to_string(&config)?;
    let (before, after) = (directory.join("server"), stolen);
    let data = |path: &Path| format!("data = \"{}\"", path.display());
    let listen = |port: u16| format!("[devices]\nlisten = \"127.0.0.1:{port}\"");
    let (old, new) = (data(&before), data(after));
    ensure!(text.contains(&old) && text.contains(&listen(port)), "another configuration: {text}");
    let text = text.replace(&old, &new).replace(&listen(port), &listen(free_port()?));
    write(&config, &text)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else if entry.file_type()?.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
